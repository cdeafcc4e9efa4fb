"""A worker process as a cluster starts it: Beam's own, told by the cluster what to do.

Beam's containers have a program of theirs for this. Where workers are processes beside a TaskManager there is none, and
a pool of workers mistakes the workers of two TaskManagers on one machine for each other.
"""

import json
import os
import sys
from typing import Final

import click
import grpc
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc, endpoints_pb2
from apache_beam.runners.worker import sdk_worker_main
from google.protobuf import json_format, text_format

from pipelines.memory import share_memory

_LEVEL: Final = "beam:option:default_sdk_harness_log_level:v1"
_SECONDS: Final = 60


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option("--id", "worker", required=True, help="Of this worker.")
@click.option("--provision_endpoint", required=True, metavar="HOST:PORT", help="Tells what the job is.")
@click.option(
    "--control_endpoint", metavar="HOST:PORT", help="Where work is given out; told by the former if not here."
)
@click.option("--logging_endpoint", metavar="HOST:PORT", help="Likewise, where logs go.")
def worker(worker: str, provision_endpoint: str, control_endpoint: str | None, logging_endpoint: str | None) -> None:
    """Work for one job until it ends."""
    with grpc.insecure_channel(provision_endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        asked = beam_provision_api_pb2.GetProvisionInfoRequest()
        info = service.GetProvisionInfo(
            asked, metadata=[("worker_id", worker)], timeout=_SECONDS, wait_for_ready=True
        ).info
    options = json_format.MessageToDict(info.pipeline_options) | {_LEVEL: "CRITICAL"}
    share_memory()
    os.environ |= {
        "WORKER_ID": worker,
        "PIPELINE_OPTIONS": json.dumps(options),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
        "CONTROL_API_SERVICE_DESCRIPTOR": _described(control_endpoint or info.control_endpoint.url),
        "LOGGING_API_SERVICE_DESCRIPTOR": _described(logging_endpoint or info.logging_endpoint.url),
    }
    sdk_worker_main.main(sys.argv)


def _described(endpoint: str) -> str:
    return text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=endpoint))


if __name__ == "__main__":
    worker()

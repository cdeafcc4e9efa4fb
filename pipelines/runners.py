"""The local runner, chosen explicitly: what DirectRunner means depends on whether a download works."""

import logging
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle


def local_pipeline(workers: int, beam_options: list[str]) -> beam.Pipeline:
    """A pipeline for this machine: in this process for one worker, in processes of their own for more.

    The runner is made here, and not named, because a runner made by name doesn't pass the options on to its processes.
    """
    logging.getLogger().setLevel(logging.CRITICAL)
    options = PipelineOptions(beam_options, pipeline_type_check=True)
    direct = options.view_as(DirectOptions)
    direct.direct_num_workers = workers
    direct.direct_running_mode = "in_memory" if workers == 1 else "multi_processing"
    encoded: Any = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    provision = fn_runner.ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))
    return beam.Pipeline(runner=fn_runner.FnApiRunner(provision_info=provision), options=options)

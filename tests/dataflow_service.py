"""A service that takes jobs as Dataflow does, and has another process carry out the pipeline that was staged for them."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RUNNING = "JOB_STATE_RUNNING"
ENDED = ("JOB_STATE_DONE", "JOB_STATE_FAILED")


@dataclass
class DataflowService:
    """Answers on a port of this machine.

    Attributes:
      jobs: as they were asked for.
      said: what the process of each wrote.
    """

    url: str = ""
    jobs: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def create(self, job: dict[str, Any]) -> dict[str, Any]:
        self.jobs.append(job)
        job |= {"id": f"job-{len(self.jobs)}", "currentState": RUNNING}
        threading.Thread(target=self._carry_out, args=(job, dict(os.environ)), daemon=True).start()
        return self.told(job)

    def _carry_out(self, job: dict[str, Any], env: dict[str, str]) -> None:
        options = job["environment"]["sdkPipelineOptions"]["options"]
        command = [sys.executable, "-m", "tests.dataflow_service", options["pipelineUrl"]]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        self.said.append(done.stdout + done.stderr)
        job["currentState"] = ENDED[done.returncode != 0]

    def told(self, job: dict[str, Any]) -> dict[str, Any]:
        """Of a job and of its two stages, one of which lasts as long as it."""
        known = {name: job[name] for name in ("id", "name", "projectId", "location", "currentState") if name in job}
        states = {"F1": ENDED[0], "F2": job["currentState"]}
        return known | {"stageStates": [{"executionStageName": it, "executionStageState": states[it]} for it in states]}


@contextmanager
def dataflow() -> Iterator[DataflowService]:
    """Serve until left."""
    service = DataflowService()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._answer(service.create(json.loads(self.rfile.read(int(self.headers["content-length"])))))

        def do_GET(self) -> None:
            found = [job for job in service.jobs if job.get("id") == self.path.split("?")[0].rpartition("/")[2]]
            self._answer(service.told(found[0]) if found else {})

        def _answer(self, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Nothing: tests look at what was asked."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://localhost:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield service
    finally:
        server.shutdown()


def carry_out(staged: str) -> None:
    """Run a staged pipeline here, where its workers' image would."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.portability import python_urns
    from apache_beam.portability.api import beam_runner_api_pb2
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    from transforms.locations import ObjectLocation

    pipeline = beam_runner_api_pb2.Pipeline.FromString(ObjectLocation(staged).read_bytes())
    for environment in pipeline.components.environments.values():
        environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
    FnApiRunner().run_via_runner_api(pipeline, PipelineOptions()).wait_until_finish()


if __name__ == "__main__":
    carry_out(sys.argv[1])

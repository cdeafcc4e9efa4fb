"""Google Cloud Dataflow as a runner: what it must be told, and what its workers don't see."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from apache_beam.options.pipeline_options import PipelineOptions

from dicomveil.errors import DicomveilError
from pipelines.cluster import Cluster
from pipelines.places import Places
from transforms.object_stores import scheme_of

_NEEDED: Final = {
    "project": "name the project that pays",
    "region": "name the region of the workers: the buckets' own",
    "temp_location": "name a folder in the bucket of --restricted: what passes between stages leads to originals",
    "sdk_container_image": "name the image that deploy/dataflow/Dockerfile makes, in a registry",
}
_SECONDS_TO_LOOK: Final = 5


class DataflowRefused(DicomveilError):
    """A run can't be handed to Dataflow; the message names every option that is in the way."""


class Dataflow(Cluster):
    """Google's service, which has a job of its own for each pipeline."""

    said = "the job's logs, which the console of Google Cloud shows"

    def check(self, where: Places | None, key: str | None) -> None:
        check(self.options, where, key)

    def tasks(self) -> tuple[int, int] | None:
        """Stages, as the service has fused them."""
        if (job := self._at_work) is None:
            return None
        with suppress(Exception):  # a look that fails is no failure of the run
            return _stages(job._runner.dataflow_client, job.job_id())
        return None

    @property
    def _runner(self) -> Any:
        from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

        return DataflowRunner()


def _stages(client: Any, job: str) -> tuple[int, int] | None:
    """Not by the client's own `get_job`: that tries again for minutes, and a run that ends would wait for it."""
    from google.cloud.dataflow_v1beta3 import GetJobRequest, JobState

    told = client.google_cloud_options
    asked = GetJobRequest(project_id=told.project, location=told.region, job_id=job)
    stages = client._jobs_client.get_job(asked, timeout=_SECONDS_TO_LOOK).stage_states
    done = sum(it.execution_stage_state == JobState.JOB_STATE_DONE for it in stages)
    return (done, len(stages)) if stages else None


def check(words: list[str], where: Places | None, key: str | None) -> None:
    """See that Dataflow is told what it needs, and that its workers will find what they need.

    Raises:
      DataflowRefused: they won't.
    """
    if problems := [*_untold(PipelineOptions(words)), *_unseen(where, key)]:
        raise DataflowRefused("\n".join(problems))


def _untold(options: PipelineOptions) -> Iterator[str]:
    try:
        from apache_beam.runners.dataflow.internal import apiclient  # noqa: F401  # whether what it needs is there
    except ImportError:
        yield "--runner: Dataflow needs one more package: pip install 'dicomveil[dataflow]'"
    told = options.get_all_options()
    yield from (f"--{name}: {remedy}" for name, remedy in _NEEDED.items() if not told[name])


def _unseen(where: Places | None, key: str | None) -> Iterator[str]:
    if where:
        roots = [("--input", uri) for uri in where.inputs] + [("--input-list", uri) for uri in where.lists]
        roots += [("--output", where.output), ("--audit", where.audit), ("--restricted", where.restricted)]
        for option in dict.fromkeys(option for option, uri in roots if not scheme_of(uri)):
            yield f"{option}: is a folder of this machine, which the workers don't see: name a place in a store"
    if key is None or not key.startswith("gcp-secret:"):
        yield "--key: must be a gcp-secret: here, since the workers have neither your environment nor your files"

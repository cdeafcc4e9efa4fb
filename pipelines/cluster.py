"""A cluster as a runner, which one of Beam's job services leads to."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.runner import PipelineRunner

from pipelines.places import Places
from pipelines.worker_logs import quiet, workers_log


@dataclass
class Cluster:
    """Workers of their own, which a job service sees to; what they say is in the cluster's logs."""

    options: list[str]
    slice = 1_000_000
    apart = True
    said = "the cluster's logs"
    _at_work: Any = None
    """What Beam tells of the pipeline at work, if one is."""

    def check(self, where: Places | None, key: str | None) -> None:
        """Beam asks its job service, when it is needed."""

    def run(self, build: Callable[[beam.Pipeline], None], name: str, folder: Path) -> None:
        options = PipelineOptions([*self.options, f"--job_name={name}"], pipeline_type_check=True)
        quiet(options, "ERROR")  # Java knows no other word for less than that which Python knows too
        with workers_log(folder / "workers.log"):
            pipeline = beam.Pipeline(runner=self._runner, options=options)
            build(pipeline)
            self._at_work = result = pipeline.run()
            try:
                result.wait_until_finish()
            except BaseException:  # without this command, what the job goes on to write would count for nothing
                with suppress(Exception):  # it may have ended by itself; and an interrupt may have ended its service
                    result.cancel()
                raise
            finally:
                self._at_work = None

    def tasks(self) -> tuple[int, int] | None:
        """Job services tell only at the end."""
        return None

    @cached_property
    def _runner(self) -> PipelineRunner:
        """One for all pipelines of a command, since a job service takes long to start."""
        return PortableRunner()

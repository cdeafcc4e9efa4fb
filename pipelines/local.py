"""This machine as a runner.

It is chosen explicitly: what DirectRunner means depends on whether a download works.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.portable_runner import JobServiceHandle

from pipelines.memory import share_memory
from pipelines.places import Places
from pipelines.spilling import SpillingRunner
from pipelines.worker_logs import quiet, workers_log


@dataclass(frozen=True)
class Local:
    """This machine: this process for one worker, processes of their own for more."""

    workers: int
    options: list[str]
    slice = 4000
    apart = False
    said = ""

    def check(self, where: Places | None, key: str | None) -> None:
        """It is always there."""

    def run(self, build: Callable[[beam.Pipeline], None], name: str, folder: Path) -> None:
        del name  # nobody else sees it
        with workers_log(folder / "workers.log"):
            pipeline = self._pipeline(folder)
            build(pipeline)
            pipeline.run().wait_until_finish()

    def tasks(self) -> None:
        """Its workers count what they have done instead."""

    def _pipeline(self, folder: Path) -> beam.Pipeline:
        """The runner is made here, and not named: one made by name doesn't pass the options on to its processes."""
        share_memory()
        options = quiet(_Options(self.options, pipeline_type_check=True), "CRITICAL")
        direct = options.view_as(DirectOptions)
        direct.direct_num_workers = self.workers
        direct.direct_running_mode = "in_memory" if self.workers == 1 else "multi_processing"
        encoded: Any = JobServiceHandle.encode_pipeline_options(options.get_all_options())
        provision = ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))
        return beam.Pipeline(runner=SpillingRunner(folder, provision_info=provision), options=options)


class _Options(PipelineOptions):
    """Options whose views are made once: Beam asks for them at every transform, and makes a parser for each."""

    def view_as(self, cls: Any) -> Any:
        views = self.__dict__.setdefault("_made", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]

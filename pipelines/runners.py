"""Where pipelines run: on this machine, or on a cluster that Beam's job service leads to.

The local runner is chosen explicitly: what DirectRunner means depends on whether a download works.
"""

import atexit
import ctypes
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DirectOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer, FlinkRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.job_server import JobServer
from apache_beam.runners.portability.portable_runner import JobServiceHandle, PortableRunner
from apache_beam.runners.runner import PipelineRunner

from pipelines import dataflow, flink
from pipelines.places import Places
from pipelines.spilling import SpillingRunner

_ARENAS: Final = -8
"""M_ARENA_MAX of the GNU C library's mallopt."""
_FLINKS: Final = ("--flink_version=1.20", "--execution_mode_for_batch=BATCH_FORCED")
"""What Flink is told unless the user says otherwise: its stages one after the other, each from what is on disk."""


class Runner(Protocol):
    """What pipelines are handed to.

    Attributes:
      slice: how many instances are rewritten by one pipeline, about; what a slice has settled isn't done again.
      said: where it is told what workers say; "" for the file that stands in the folder of each `run`.
    """

    slice: int
    said: str

    def check(self, where: Places | None, key: str | None) -> None:
        """See that there is one, and that its workers will see what they must.

        Args:
          where, key: as the command has them; None where it has none, or none that could be used.

        Raises:
          DicomveilError: there is none, or they won't; the message names the option.
        """
        ...

    def run(self, build: Callable[[beam.Pipeline], None], name: str, folder: Path) -> None:
        """Build a pipeline and see it to its end.

        Args:
          name: of the job, for whoever looks at the cluster.
          folder: of this machine and this user alone, for what lies between stages and what the workers say.
        """
        ...


def runner_of(workers: int, beam_options: list[str]) -> Runner:
    """The one that some options name; the local one where they name none."""
    runner = PipelineOptions(beam_options).view_as(StandardOptions).runner
    if runner is None:
        return Local(workers, beam_options)
    if runner == "DataflowRunner":
        return Dataflow(beam_options)
    if runner != "FlinkRunner":
        return Cluster(beam_options)
    named = {word.split("=")[0] for word in beam_options}
    return Flink([*beam_options, *(word for word in _FLINKS if word.split("=")[0] not in named)])


class _Options(PipelineOptions):
    """Options whose views are made once: Beam asks for them at every transform, and makes a parser for each."""

    def view_as(self, cls: Any) -> Any:
        views = self.__dict__.setdefault("_made", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]


@dataclass(frozen=True)
class Local:
    """This machine: this process for one worker, processes of their own for more."""

    workers: int
    options: list[str]
    slice = 4000
    said = ""

    def check(self, where: Places | None, key: str | None) -> None:
        """It is always there."""

    def run(self, build: Callable[[beam.Pipeline], None], name: str, folder: Path) -> None:
        del name  # nobody else sees it
        with workers_log(folder / "workers.log"):
            pipeline = self._pipeline(folder)
            build(pipeline)
            pipeline.run().wait_until_finish()

    def _pipeline(self, folder: Path) -> beam.Pipeline:
        """The runner is made here, and not named: one made by name doesn't pass the options on to its processes."""
        share_memory()
        options = _quiet(_Options(self.options, pipeline_type_check=True), "CRITICAL")
        direct = options.view_as(DirectOptions)
        direct.direct_num_workers = self.workers
        direct.direct_running_mode = "in_memory" if self.workers == 1 else "multi_processing"
        encoded: Any = JobServiceHandle.encode_pipeline_options(options.get_all_options())
        provision = ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))
        return beam.Pipeline(runner=SpillingRunner(folder, provision_info=provision), options=options)


@dataclass(frozen=True)
class Cluster:
    """Workers of their own, which a job service sees to; what they say is in the cluster's logs."""

    options: list[str]
    slice = 1_000_000
    said = "the cluster's logs"

    def check(self, where: Places | None, key: str | None) -> None:
        """Beam asks its job service, when it is needed."""

    def run(self, build: Callable[[beam.Pipeline], None], name: str, folder: Path) -> None:
        options = PipelineOptions([*self.options, f"--job_name={name}"], pipeline_type_check=True)
        _quiet(options, "ERROR")  # Java knows no other word for less than that which Python knows too
        with workers_log(folder / "workers.log"):
            pipeline = beam.Pipeline(runner=self._runner, options=options)
            build(pipeline)
            result = pipeline.run()
            try:
                result.wait_until_finish()
            except BaseException:  # without this command, what the job goes on to write would count for nothing
                with suppress(Exception):  # it may have ended by itself; and an interrupt may have ended its service
                    result.cancel()
                raise

    @cached_property
    def _runner(self) -> PipelineRunner:
        """One for all pipelines of a command, since a job service takes long to start."""
        return PortableRunner()


class Flink(Cluster):
    """A cluster of Flink's, whose JobManager can be asked itself."""

    def check(self, where: Places | None, key: str | None) -> None:
        flink.check(self._master, self._told.flink_version)

    def run(self, build: Callable[[beam.Pipeline], None], name: str, folder: Path) -> None:
        flink.cancel(self._master, name)  # a command that was killed may have left it at work
        try:
            super().run(build, name, folder)
        except BaseException:
            flink.cancel(self._master, name)
            raise

    @cached_property
    def _told(self) -> FlinkRunnerOptions:
        return PipelineOptions(self.options).view_as(FlinkRunnerOptions)

    @property
    def _master(self) -> str:
        return str(FlinkRunner.add_http_scheme(self._told.flink_master))

    @cached_property
    def _runner(self) -> PipelineRunner:
        return _Flink()


class Dataflow(Cluster):
    """Google's service, which has a job of its own for each pipeline."""

    said = "the job's logs, which the console of Google Cloud shows"

    def check(self, where: Places | None, key: str | None) -> None:
        dataflow.check(self.options, where, key)

    @property
    def _runner(self) -> Any:
        from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

        return DataflowRunner()


class _Flink(FlinkRunner):
    """Flink's, with one job server for all pipelines: Beam starts another for each, and stops none before the end."""

    _service: "_JobServer | None" = None

    def default_job_server(self, options: PipelineOptions) -> "_JobServer":
        if self._service is None:
            told = options.view_as(FlinkRunnerOptions)
            told.flink_master = self.add_http_scheme(told.flink_master)
            self._service = _JobServer(FlinkJarJobServer(options))
        return self._service


class _JobServer(JobServer):
    """A job server that goes on until this process ends."""

    def __init__(self, server: JobServer) -> None:
        self._server = server

    def start(self) -> Any:
        return self._stub

    @cached_property
    def _stub(self) -> Any:
        stub = self._server.start()
        atexit.register(self.stop)
        return stub

    def stop(self) -> None:
        self._server.stop()


def _quiet(options: PipelineOptions, workers: str) -> PipelineOptions:
    """Have this process log nothing that may quote originals, and its workers as little as the runner can say."""
    logging.getLogger().setLevel(logging.CRITICAL)
    options.view_as(WorkerOptions).default_sdk_harness_log_level = workers
    return options


def share_memory() -> None:
    """Have a process's threads share what they free, workers' too: kept apart it adds up with each slice.

    Only the GNU C library keeps it apart; nothing is lost where there is another one.
    """
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_ARENAS, 1)


@contextmanager
def workers_log(path: Path) -> Iterator[None]:
    """Send what worker processes write to standard error to a file that only its owner may read.

    A traceback can quote what it was working on, so it belongs in the restricted zone and on no terminal.
    """
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    terminal = os.dup(2)
    os.dup2(log, 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(log)

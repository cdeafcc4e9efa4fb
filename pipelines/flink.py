"""A Flink cluster as a runner: Beam's job service submits, and the JobManager is asked by its REST interface."""

import atexit
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
import requests
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer, FlinkRunner
from apache_beam.runners.portability.job_server import JobServer
from apache_beam.runners.runner import PipelineRunner

from dicomveil.errors import DicomveilError
from pipelines.cluster import Cluster
from pipelines.places import Places, RunFailed

_DEFAULTS: Final = ("--flink_version=1.20", "--execution_mode_for_batch=BATCH_FORCED")
"""Stages run one after the other, each from what is on disk."""
_SECONDS: Final = 10
_SECONDS_TO_LOOK: Final = 2


class FlinkRefused(DicomveilError):
    """A cluster can't be used; the message names the option and what to do."""


def with_defaults(words: list[str]) -> list[str]:
    """Options, and what Flink is told unless they say otherwise."""
    named = {word.split("=")[0] for word in words}
    return [*words, *(word for word in _DEFAULTS if word.split("=")[0] not in named)]


class Flink(Cluster):
    """A cluster of Flink's, whose JobManager can be asked itself."""

    _job = ""

    def check(self, where: Places | None, key: str | None) -> None:
        check(self._master, self._told.flink_version)

    def run(self, build: Callable[[beam.Pipeline], None], name: str, folder: Path) -> None:
        cancel(self._master, name)  # a command that was killed may have left it at work
        self._job = name
        try:
            super().run(build, name, folder)
        except BaseException as failure:
            cancel(self._master, name)
            if isinstance(failure, Exception) and not _answers(self._master):
                raise RunFailed(
                    f"No JobManager of Flink answers at {self._master} any more. Have it start, and run the same "
                    "command again: it goes on from where it was."
                ) from None
            raise
        finally:
            self._job = ""

    def tasks(self) -> tuple[int, int] | None:
        return tasks(self._master, self._job) if self._job else None

    @cached_property
    def _told(self) -> FlinkRunnerOptions:
        return PipelineOptions(self.options).view_as(FlinkRunnerOptions)

    @property
    def _master(self) -> str:
        return str(FlinkRunner.add_http_scheme(self._told.flink_master))

    @cached_property
    def _runner(self) -> PipelineRunner:
        return _Flink()


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


def check(master: str, version: str) -> None:
    """See that a cluster answers, and is of the version that jobs are made for.

    Args:
      master: http:// and the JobManager's host and port.
      version: as in 1.19.

    Raises:
      FlinkRefused: it doesn't, or isn't.
    """
    if not master.startswith("http"):
        raise FlinkRefused("--flink_master: name the JobManager's host and port; on this machine alone say --workers")
    try:
        there = str(_get(f"{master}/overview")["flink-version"])
    except (requests.RequestException, ValueError, KeyError, TypeError):
        raise FlinkRefused(f"--flink_master: no JobManager of Flink answers at {master}") from None
    minor = there.rpartition(".")[0]
    if minor != version:
        raise FlinkRefused(f"--flink_version: is {version}, and the cluster is of {there}: say --flink_version={minor}")


def _answers(master: str) -> bool:
    try:
        _get(f"{master}/overview")
    except requests.RequestException:
        return False
    return True


def tasks(master: str, name: str) -> tuple[int, int] | None:
    """How many tasks of the job of a name are done, and of how many; None where none is at work, or nobody answers.

    Args:
      master: as `check` has it.
    """
    with suppress(requests.RequestException, ValueError, KeyError):
        for job in _jobs(master, name, _SECONDS_TO_LOOK):
            return int(job["tasks"]["finished"]), int(job["tasks"]["total"])
    return None


def cancel(master: str, name: str) -> None:
    """Cancel what runs by a name; that the cluster can't be asked is no error, since nothing else could be done.

    Args:
      master: as `check` has it.
    """
    with suppress(requests.RequestException, ValueError, KeyError):
        for job in _jobs(master, name):
            requests.patch(f"{master}/jobs/{job['jid']}", params={"mode": "cancel"}, timeout=_SECONDS)


def _jobs(master: str, name: str, seconds: int = _SECONDS) -> list[dict[str, Any]]:
    """The jobs of a name that are at work."""
    there = _get(f"{master}/jobs/overview", seconds)["jobs"]
    return [job for job in there if job["name"] == name and job["end-time"] < 0]


def _get(url: str, seconds: int = _SECONDS) -> Any:
    answer = requests.get(url, timeout=seconds)
    answer.raise_for_status()
    return answer.json()

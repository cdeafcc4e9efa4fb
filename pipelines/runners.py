"""The local runner, chosen explicitly: what DirectRunner means depends on whether a download works."""

import ctypes
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, WorkerOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.portable_runner import JobServiceHandle

from pipelines.spilling import SpillingRunner

_ARENAS: Final = -8
"""M_ARENA_MAX of the GNU C library's mallopt."""


class _Options(PipelineOptions):
    """Options whose views are made once: Beam asks for them at every transform, and makes a parser for each."""

    def view_as(self, cls: Any) -> Any:
        views = self.__dict__.setdefault("_made", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]


def local_pipeline(workers: int, beam_options: list[str], folder: Path) -> beam.Pipeline:
    """A pipeline for this machine: in this process for one worker, in processes of their own for more.

    The runner is made here, and not named, because a runner made by name doesn't pass the options on to its processes.

    Args:
      folder: for what lies between stages.
    """
    logging.getLogger().setLevel(logging.CRITICAL)
    _share_memory()
    options = _Options(beam_options, pipeline_type_check=True)
    options.view_as(WorkerOptions).default_sdk_harness_log_level = "CRITICAL"
    direct = options.view_as(DirectOptions)
    direct.direct_num_workers = workers
    direct.direct_running_mode = "in_memory" if workers == 1 else "multi_processing"
    encoded: Any = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    provision = ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))
    return beam.Pipeline(runner=SpillingRunner(folder, provision_info=provision), options=options)


def _share_memory() -> None:
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

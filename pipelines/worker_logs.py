"""What workers log: as little as can be, and that where only the owner of the restricted zone reads it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions, WorkerOptions


def quiet(options: PipelineOptions, workers: str) -> PipelineOptions:
    """Have this process log nothing that may quote originals, and its workers as little as the runner can say."""
    logging.getLogger().setLevel(logging.CRITICAL)
    options.view_as(WorkerOptions).default_sdk_harness_log_level = workers
    return options


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

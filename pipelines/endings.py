"""How a command ends that can't go on: with one line that says why, and never with a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click

EXIT_USAGE, EXIT_FAILURE, EXIT_KEPT = 2, 1, 3


def stop(message: str, status: int) -> NoReturn:
    """Say why on standard error, and leave."""
    for line in message.splitlines():
        click.echo(f"dicomveil: {line}", err=True)
    sys.exit(status)


@contextmanager
def ending(storage: str, system: str, interrupted: str, refused: int = EXIT_USAGE) -> Iterator[None]:
    """End the command where what it does fails.

    Args:
      storage: what is said when storage fails, around its own words: {}.
      system: likewise when the system refuses something.
      interrupted: what is said when the user has had enough.
      refused: the exit status when what was asked for can't be done.
    """
    from dicomveil.errors import DicomveilError
    from pipelines.places import RunFailed
    from transforms.lease import LeaseLost
    from transforms.store_failures import StoreFailed

    try:
        yield
    except StoreFailed as failed:
        stop(storage.format(failed), EXIT_FAILURE)
    except (RunFailed, LeaseLost) as failed:
        stop(str(failed), EXIT_FAILURE)
    except DicomveilError as reason:
        stop(str(reason), refused)
    except OSError as failed:
        stop(system.format(failed.strerror), EXIT_FAILURE)
    except KeyboardInterrupt:
        stop(f"Interrupted. {interrupted}", EXIT_FAILURE)
    except Exception as unforeseen:
        stop(f"An unforeseen failure, please report it: {_place(unforeseen)}.", EXIT_FAILURE)


def _place(unforeseen: Exception) -> str:
    """Kind and place of an exception; its text may quote what it was working on."""
    trace = unforeseen.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f" in {Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno}" if trace else ""
    return type(unforeseen).__name__ + where

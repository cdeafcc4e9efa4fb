"""The file of a request or filter, with those that it names: what a person writes, read where a command names it."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dicomveil.body import parse_request
from dicomveil.errors import Problem, RequestError
from dicomveil.filters import LARGEST_LIST, Filter, parse_filter
from dicomveil.request import Request

_LONGEST_CERTIFICATE: Final = 1 << 20


def read_request(file: str | None, command: str = "anonymize") -> Request:
    """What a command is to do; all that it does of itself where no file says otherwise.

    Raises:
      RequestError: with every mistake at once.
    """
    if file is None:
        return parse_request("", "--request", command=command)
    return parse_request(_text(file, "--request"), file, beside(Path(file).parent), today(), command)


def read_filter(file: str | None) -> Filter | None:
    """What a command takes of its inputs; None for everything.

    Raises:
      RequestError: with every mistake at once.
    """
    if file is None:
        return None
    return parse_filter(_text(file, "--filter"), file, beside(Path(file).parent, LARGEST_LIST + 1))


def _text(file: str, option: str) -> str:
    try:
        return Path(file).read_text("utf-8")
    except OSError as failed:
        raise RequestError((Problem(file, f"can't be read: {failed.strerror}", f"check {option}"),)) from None
    except UnicodeDecodeError:
        raise RequestError((Problem(file, "is no text in UTF-8", f"check {option}"),)) from None


def beside(folder: Path, longest: int = _LONGEST_CERTIFICATE) -> Callable[[str], bytes]:
    """Gives the head, of so many bytes, of a file that is named from a folder on."""

    def head(name: str) -> bytes:
        with (folder / name).open("rb") as file:
            return file.read(longest)

    return head


def today() -> datetime.date:
    """The day by which certificates are judged."""
    return datetime.datetime.now(datetime.timezone.utc).date()

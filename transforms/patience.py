"""How long object storage is asked again, and cutting what is written into parts: alike for every scheme."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_random_exponential

from transforms.object_stores import ABSENT, NotAllowed, NotThere, OtherVersion, Stored, Unavailable

PART: Final = 8 << 20
"""What is sent in one request at the most, and the size of the parts of what is larger, in bytes."""

ATTEMPT: Final = "dicomveilattempt"
"""Metadata by which a creation recognizes its own object when the answer to it was lost."""

_PREFIX: Final = "DICOMVEIL_STORE_"

Answer = TypeVar("Answer")


def _as_it_is(failed: Exception) -> Exception:
    return failed


@dataclass(frozen=True)
class Patience:
    """When to give a store up. All times in seconds.

    Attributes:
      tries: of one request, the first included.
      first_wait: before the second try, at the most; it doubles up to `longest_wait`, each time drawn at random.
      total: for all tries of one request.
      silence: how long nothing may arrive before a request counts as failed.
    """

    tries: float = 7
    first_wait: float = 0.5
    longest_wait: float = 20.0
    total: float = 180.0
    silence: float = 60.0

    @classmethod
    def from_environment(cls) -> "Patience":
        """As DICOMVEIL_STORE_TRIES, _FIRST_WAIT, _LONGEST_WAIT, _TOTAL and _SILENCE say, where they say anything."""
        given = {name: os.environ.get(_PREFIX + name.upper()) for name in vars(cls())}
        numbers: dict[str, Any] = {
            name: (int if name == "tries" else float)(text) for name, text in given.items() if text
        }
        return cls(**numbers)

    def insist(self, ask: Callable[[], Answer], meaning: Callable[[Exception], BaseException] = _as_it_is) -> Answer:
        """Ask until there is an answer, or another failure than `Unavailable`, or no patience left.

        Args:
          meaning: of a library's failure, in the protocol's own terms; it is told without a word of the store's.
        """
        again = Retrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_attempt(int(self.tries)) | stop_after_delay(self.total),
            wait=wait_random_exponential(multiplier=self.first_wait, max=self.longest_wait),
            reraise=True,
        )

        def told() -> Answer:
            try:
                return ask()
            except (NotAllowed, NotThere, OtherVersion, Unavailable) as failed:
                failure: BaseException = failed
            except Exception as failed:
                failure = meaning(failed)
            raise failure

        return again(told)


class Interrupted(Exception):
    """What was to be written can't be read any further.

    Attributes:
      failure: why; it isn't the store's.
    """

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.failure = failure


def parts(chunks: Iterable[bytes], size: int = PART) -> Iterator[tuple[bytes, bool]]:
    """The same bytes in parts of one size, but for the last, and whether each is the last; one at the least.

    Raises:
      Interrupted: by what `chunks` raises.
    """
    try:
        yield from _cut(chunks, size)
    except Exception as failure:
        interrupted = Interrupted(failure)
    else:
        return
    raise interrupted


def _cut(chunks: Iterable[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    held: list[bytes] = []
    length = 0
    for chunk in chunks:
        held.append(chunk)
        length += len(chunk)
        while length > size:
            joined = b"".join(held)
            yield joined[:size], False
            held = [joined[size:]]
            length -= size
    yield b"".join(held), True


def settle(
    look: Callable[[], tuple[Stored, Mapping[str, str]]], version: str | None, attempt: str, failure: Exception
) -> str:
    """The version of an object whose creation seems to have failed, but hasn't: the answer was lost, not the request.

    Args:
      look: tells the object as it is now, with all of its metadata.
      version: the one that was to be replaced, as for `ObjectStore.create`.

    Raises:
      NotThere, OtherVersion, NotAllowed, Unavailable: it has. `failure`, where nothing more is known.
    """
    try:
        stored, metadata = look()
    except NotThere:
        if isinstance(failure, OtherVersion):
            if version == ABSENT:  # who was about to create it has failed, or has deleted it meanwhile
                raise Unavailable("the store refuses to create what isn't there") from None
            raise NotThere("there is no object to replace") from None
        raise failure from None
    except (NotAllowed, OtherVersion, Unavailable):
        raise failure from None
    if metadata.get(ATTEMPT) == attempt:
        return stored.version
    raise failure


def given(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata as whoever created the object gave it."""
    return {name: value for name, value in metadata.items() if name != ATTEMPT}

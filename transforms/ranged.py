"""An instance in object storage, read by ranges: as few requests as its layout allows, and few bytes more than it has.

The engine reads a header, skips to what stands behind Pixel Data, and then perhaps reads all of it in order. So the
first bytes and the last are kept, whatever is read in order is fetched in growing windows, and a jump fetches little.
"""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from dicomveil.errors import Filtered, InvalidInstance
from transforms.object_stores import NotAllowed, NotRestored, NotThere, ObjectStore, OtherVersion, Unavailable

WINDOW: Final = 1 << 16
LARGEST_WINDOW: Final = 8 << 20


class _Held(NamedTuple):
    start: int
    data: bytes

    @property
    def stop(self) -> int:
        return self.start + len(self.data)

    def covers(self, position: int) -> bool:
        return self.start <= position < self.stop


class RangedSource:
    """Random access to one version of an object. At most 8 MiB and 128 KiB of it are held, or what one read asks for.

    Args:
      size: as it was listed, in bytes.
      version: as it was listed.
      first: number of bytes that the first request asks for.

    Attributes:
      requests: number of reads asked of the store so far.
      bytes: number of bytes that came of them.

    Raises, where it is read:
      InvalidInstance: "changed-during-run" where the version is gone, "unreadable" where the store fails or refuses, or
        where all that came isn't what it has, by its checksum.
      Filtered: "not-restored" where it is archived.
    """

    def __init__(self, store: ObjectStore, uri: str, version: str, size: int, first: int = WINDOW) -> None:
        self._store, self._uri, self._version, self.size = store, uri, version, size
        self.requests, self.bytes = 0, 0
        self._head = self._tail = self._window = _Held(0, b"")
        self._ahead, self._first = WINDOW, first
        self._digest, self._crc32c, self._digested = hashlib.sha256(), _checksum(), 0

    def read(self, offset: int, length: int) -> bytes:
        end, found = min(offset + length, self.size), []
        while offset < end:
            held = self._holding(offset) or self._fetch(offset, end)
            found.append(held.data[offset - held.start : end - held.start])
            offset = held.stop
        return found[0] if len(found) == 1 else b"".join(found)

    def sha256(self) -> str:
        """Of the whole object, in hexadecimal digits; what wasn't read in order until now is fetched for it."""
        while self._digested < self.size:
            self._fetch(self._digested, min(self._digested + LARGEST_WINDOW, self.size))
        return self._digest.hexdigest()

    def _holding(self, position: int) -> _Held | None:
        return next((held for held in (self._window, self._head, self._tail) if held.covers(position)), None)

    def _fetch(self, offset: int, end: int) -> _Held:
        """Fetch what is asked for from `offset` on, and more of it where reading goes on in order."""
        in_order = bool(self.requests) and offset == self._window.stop
        self._ahead = min(2 * self._ahead, LARGEST_WINDOW) if in_order else WINDOW if self.requests else self._first
        stop = min(offset + max(self._ahead, -(-(end - offset) // WINDOW) * WINDOW), self.size)
        if offset < self._tail.start < stop:
            stop = self._tail.start
        self._window = fetched = _Held(offset, self._asked(offset, stop - offset))
        if not offset:
            self._head = _Held(0, fetched.data[:WINDOW])
        if fetched.stop == self.size and len(fetched.data) <= WINDOW:
            self._tail = fetched
        self._digest_held()
        return fetched

    def _asked(self, offset: int, length: int) -> bytes:
        self.requests += 1
        with _quarantining():
            data = self._store.read(self._uri, self._version, offset, length)
        self.bytes += len(data)
        if len(data) != length:
            raise InvalidInstance("changed-during-run")
        return data

    def _digest_held(self) -> None:
        before = self._digested
        while held := self._holding(self._digested):
            data = memoryview(held.data)[self._digested - held.start :]
            self._digest.update(data)
            if self._crc32c:
                self._crc32c.update(bytes(data))
            self._digested = held.stop
        if before < self._digested == self.size and self._crc32c and self.requests > 1:
            self._verify(base64.b64encode(self._crc32c.digest()).decode())

    def _verify(self, computed: str) -> None:
        """What came in several parts is held to the checksum that the store tells, before the last is handed on."""
        with _quarantining():
            told = self._store.checksum(self._uri, self._version)
        if told and told != computed:
            raise InvalidInstance("unreadable")


@contextmanager
def _quarantining() -> Iterator[None]:
    """Failures of the store as the trouble of one instance."""
    try:
        yield
    except (NotThere, OtherVersion):
        raise InvalidInstance("changed-during-run") from None
    except NotRestored:
        raise Filtered("not-restored") from None
    except (NotAllowed, Unavailable):
        raise InvalidInstance("unreadable") from None


def _checksum() -> Any:
    """A CRC32C in the making; None without the library, as for stores that tell none."""
    try:
        from google_crc32c import Checksum  # what only stores need isn't imported for folders
    except ImportError:
        return None
    return Checksum()

"""A source as a file, for libraries that read files."""

import io
import os
from typing import Any

from dicomveil.stream import Source


class SourceFile(io.RawIOBase):
    """A source as a file; every read is one of the source's."""

    def __init__(self, source: Source) -> None:
        self._source, self._at = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._source.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(self._at, min(len(buffer), max(0, self._source.size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

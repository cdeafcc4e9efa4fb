"""Where records and outputs are: a folder of this machine as its `Path`, or a prefix in a store by the same names.

Both go by the few names of `pathlib` that are listed in `ObjectLocation`, so that whoever keeps records needn't know.
"""

import fnmatch
import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import unquote_to_bytes

import pyarrow as pa

from dicomveil.errors import DicomveilError
from transforms.object_stores import (
    SCHEMES,
    NotThere,
    ObjectStore,
    Stored,
    bucket_of,
    name_in_bucket,
    scheme_of,
    store_of,
)

FILE_SCHEME: Final = "file://"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class StoreError(DicomveilError):
    """Storage that can't be used as the user asked; the message names what the user wrote."""


@functools.total_ordering
@dataclass(frozen=True)
class ObjectLocation:
    """An object, or all those whose names go on behind a "/".

    Attributes:
      uri: without a "/" at its end.
    """

    uri: str

    def __truediv__(self, name: "str | Path") -> "ObjectLocation":
        return ObjectLocation(f"{self.uri}/{name}")

    def __str__(self) -> str:
        return self.uri

    def __lt__(self, other: "ObjectLocation") -> bool:
        return self.uri < other.uri

    @property
    def store(self) -> ObjectStore:
        """The store that serves it."""
        return store_of(scheme_of(self.uri))

    @property
    def name(self) -> str:
        """Behind its last "/"."""
        return self.uri.rpartition("/")[2]

    @property
    def parent(self) -> "ObjectLocation":
        """Before its last "/"."""
        return ObjectLocation(self.uri.rpartition("/")[0])

    def is_object(self) -> bool:
        """Whether it can name an object, and not only a bucket."""
        return bool(name_in_bucket(self.uri))

    def exists(self) -> bool:
        """Whether there is an object of this name."""
        try:
            self.store.head(self.uri)
        except NotThere:
            return False
        return True

    def read_bytes(self) -> bytes:
        """All of the object.

        Raises:
          FileNotFoundError: there is none.
        """
        try:
            stored, _ = self.store.head(self.uri)
            return self.store.read(self.uri, stored.version, 0, stored.size) if stored.size else b""
        except NotThere:
            raise FileNotFoundError from None

    def read_text(self) -> str:
        """The same as text in UTF-8."""
        return self.read_bytes().decode()

    def below(self) -> Iterator[Stored]:
        """Every object whose name goes on behind a "/"."""
        return self.store.list(f"{self.uri}/")

    def iterdir(self) -> "Iterator[ObjectLocation]":
        """What is one level below."""
        for found in self.store.level(f"{self.uri}/"):
            yield ObjectLocation(found.uri if isinstance(found, Stored) else found.rstrip("/"))

    def glob(self, pattern: str) -> "Iterator[ObjectLocation]":
        """What is below by a pattern of levels, in which "*" stands for a part of one level."""
        first, _, rest = pattern.partition("/")
        found: Iterator[ObjectLocation] = iter([self / first])
        if "*" in first:
            found = (it for it in self.iterdir() if fnmatch.fnmatchcase(it.name, first))
        for it in found:
            if rest:
                yield from it.glob(rest)
            elif "*" in first or it.exists():
                yield it

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object; that it isn't there is no error."""
        self.store.delete(self.uri)


Location: TypeAlias = Path | ObjectLocation


def locate(uri: str) -> Location:
    """What a URI stands for.

    Raises:
      StoreError: another scheme, no bucket, or nothing at all.
    """
    if not scheme_of(uri):
        return local_path(uri)
    if not bucket_of(uri):
        raise StoreError(f"{uri}: names no bucket")
    if "\0" in uri:
        raise StoreError("holds a NUL, which no name can")
    return ObjectLocation(uri.rstrip("/"))


def local_path(uri: str) -> Path:
    """The path that a URI stands for.

    Raises:
      StoreError: another scheme than file://, or nothing at all.
    """
    if not uri:
        raise StoreError("is empty: name a file or folder")
    if "\0" in uri:
        raise StoreError("holds a NUL, which no name can")
    if uri.startswith(FILE_SCHEME):
        return Path(os.fsdecode(unquote_to_bytes(uri[len(FILE_SCHEME) :])))
    if scheme_of(uri):
        raise StoreError(f"{uri}: must be a file or folder of this machine")
    if _SCHEME.match(uri):
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise StoreError(f"{uri}: no such storage can be used; name a path, file://path, or one of {known}")
    return Path(uri)


def matching(folder: Location, pattern: str) -> list[Location]:
    """What is below by a pattern, in order."""
    return sorted(folder.glob(pattern))


def table_file(part: Location) -> Any:
    """A part of a table, as pyarrow opens it."""
    return part if isinstance(part, Path) else pa.BufferReader(part.read_bytes())

"""From the reference of a key to the key, once a process; the reference and a fingerprint are all that travels."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

from dicomveil.errors import KeyRefused
from dicomveil.keys import Keys, generate_key, parse_key
from transforms import secret_manager
from transforms.locations import local_path
from transforms.stores import create_restricted, left_behind

_LONGEST_TEXT: Final = 1 << 16


@dataclass(frozen=True)
class KeyReference:
    """Where the key is, and which one it is.

    Attributes:
      reference: env:NAME, file:PATH or gcp-secret:NAME, pinned: the path is absolute, the version a number.
      fingerprint: of the key that the run began with; another is refused.
    """

    reference: str
    fingerprint: str

    def keys(self) -> Keys:
        """The keys, resolved once a process.

        Raises:
          KeyRefused: no key there, or another than the run began with.
        """
        keys = _resolve(self.reference).keys
        if keys.fingerprint != self.fingerprint:
            raise KeyRefused("The key is not the one that this run began with.")
        return keys


def refer(reference: str) -> KeyReference:
    """Check a reference at launch, and note which key it leads to.

    What could lead elsewhere later is pinned, so that a worker that starts next week finds the same key: `latest` and
    other aliases become the version that answered, a path becomes absolute.

    Raises:
      KeyRefused: no such form, nothing there, readable by others, or no usable key.
    """
    found = _resolve(reference)
    return KeyReference(found.reference, found.keys.fingerprint)


@dataclass(frozen=True)
class _Resolved:
    """A key, and the pinned form of the reference that led to it."""

    reference: str
    keys: Keys


@cache
def _resolve(reference: str) -> _Resolved:
    kind, _, place = reference.partition(":")
    if kind not in _KINDS or not place:
        raise KeyRefused(
            "--key takes env:NAME, file:PATH or gcp-secret:projects/P/secrets/S/versions/V, never the key itself; "
            "make one with: dicomveil keygen"
        )
    pinned, text = _KINDS[kind](place)
    return _Resolved(f"{kind}:{pinned}", Keys(parse_key(text)))


def _variable(name: str) -> tuple[str, bytes]:
    try:
        return name, os.environb[os.fsencode(name)]
    except KeyError:
        raise KeyRefused("The environment variable that --key names is not set.") from None


def _file(place: str) -> tuple[str, bytes]:
    path = os.path.abspath(local_path(place))
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise KeyRefused("The key file is no file: every worker reads it again, so a pipe or device won't do.")
            if stat.S_IMODE(mode) & 0o077:
                raise KeyRefused("The key file may be read by others than its owner; run: chmod 600 on it.")
            text = file.read(_LONGEST_TEXT + 1)
    except OSError:
        raise KeyRefused("The key file can't be read.") from None
    if len(text) > _LONGEST_TEXT:
        raise KeyRefused("The key file is too long to be one; make one with: dicomveil keygen")
    return path, text


def _secret(name: str) -> tuple[str, bytes]:
    version = secret_manager.access(name)
    return version.name, version.payload


_KINDS: Final[dict[str, Callable[[str], tuple[str, bytes]]]] = {
    "env": _variable,
    "file": _file,
    "gcp-secret": _secret,
}


def ephemeral(folder: str) -> str:
    """A key for one run, in a file that only its owner may read; made once, found again when the run is resumed."""
    path = local_path(folder) / "key"
    if not path.exists():
        create_restricted(path, generate_key().encode() + b"\n")
    return f"file:{path}"


def destroy_ephemeral(folder: str) -> None:
    """Overwrite and remove a run's own key, also one that was only half written when its command died."""
    path = local_path(folder) / "key"
    for file in [path, *left_behind(path.parent)]:
        if file.exists():
            with file.open("r+b") as content:
                content.write(bytes(file.stat().st_size))
                content.flush()
                os.fsync(content.fileno())
            file.unlink()

"""From the reference of a key to the key, once a process; the reference and a fingerprint are all that travels."""

import os
import stat
from dataclasses import dataclass
from functools import cache
from typing import Final

from dicomveil.errors import KeyRefused
from dicomveil.keys import Keys, generate_key, parse_key
from transforms.stores import create_restricted, local_path

_LONGEST_TEXT: Final = 1 << 16


@dataclass(frozen=True)
class KeyReference:
    """Where the key is, and which one it is.

    Attributes:
      reference: env:NAME or file:PATH.
      fingerprint: of the key that the run began with; another is refused.
    """

    reference: str
    fingerprint: str

    def keys(self) -> Keys:
        """The keys, resolved once a process.

        Raises:
          KeyRefused: no key there, or another than the run began with.
        """
        keys = _resolve(self.reference)
        if keys.fingerprint != self.fingerprint:
            raise KeyRefused("The key is not the one that this run began with.")
        return keys


def refer(reference: str) -> KeyReference:
    """Check a reference at launch, and note which key it leads to.

    Raises:
      KeyRefused: no such form, nothing there, readable by others, or no usable key.
    """
    return KeyReference(reference, _resolve(reference).fingerprint)


@cache
def _resolve(reference: str) -> Keys:
    kind, _, place = reference.partition(":")
    if kind == "env" and place:
        return Keys(parse_key(_variable(place)))
    if kind == "file" and place:
        return Keys(parse_key(_file(place)))
    raise KeyRefused("--key takes env:NAME or file:PATH, never the key itself; make one with: dicomveil keygen")


def _variable(name: str) -> bytes:
    try:
        return os.environb[name.encode()]
    except KeyError:
        raise KeyRefused("The environment variable that --key names is not set.") from None


def _file(place: str) -> bytes:
    path = local_path(place)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise KeyRefused("The key file is no file: every worker reads it again, so a pipe or device won't do.")
            if stat.S_IMODE(mode) & 0o077:
                raise KeyRefused("The key file may be read by others than its owner; run: chmod 600 on it.")
            return file.read(_LONGEST_TEXT)
    except OSError:
        raise KeyRefused("The key file can't be read.") from None


def ephemeral(folder: str) -> str:
    """A key for one run, in a file that only its owner may read; made once, found again when the run is resumed."""
    path = local_path(folder) / "key"
    if not path.exists():
        create_restricted(path, generate_key().encode() + b"\n")
    return f"file:{path}"


def destroy_ephemeral(folder: str) -> None:
    """Overwrite and remove a run's own key."""
    path = local_path(folder) / "key"
    if path.exists():
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()

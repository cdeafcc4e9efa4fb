"""The way back: de-identified files in, files with what was encrypted for one certificate out.

What becomes of one instance is settled in the engine; which key opens it, and where results may lie, is settled here.
"""

import os
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console

from dicomveil.envelopes import Opener
from dicomveil.errors import REASONS, DicomveilError, Unsuitable
from dicomveil.reidentifier import NOT_RESTORED, NotRestored, restore
from pipelines.tally import any_failed, tally
from transforms import files, listing, store_failures, stores
from transforms.locations import local_path

BANNER: Final = "This output identifies people. Only you may read it; keep it apart from what is shared."
_LONGEST: Final = 1 << 20
_TEMPORARY: Final = ".reidentify"


class ReidentifyRefused(DicomveilError):
    """What the user gave can't be used; the message names the option and what to do, never what a file holds."""


@dataclass
class Settled:
    """What became of the files.

    Attributes:
      restored: instances that were written; `attributes` is how many values were put back in them.
      left: how many files nothing was restored from, by reason.
    """

    restored: int = 0
    attributes: int = 0
    left: Counter[str] = field(default_factory=Counter)

    @property
    def exit_status(self) -> int:
        """0 where every DICOM instance was restored, else 3."""
        return 3 if any_failed(self.left) or not self.restored else 0

    def print(self, console: Console) -> None:
        """Tell a person how many, and why not the others."""
        console.print(f"{self.restored:,} instances restored, {self.attributes:,} values put back", highlight=False)
        table = tally()
        for reason, count in sorted(self.left.items()):
            told = NOT_RESTORED.get(reason) or f"{REASONS[reason].meaning} {REASONS[reason].remedy}"
            table.add_row(f"{count:,}", f"not restored: {reason}", told)
        if self.left:
            console.print(table)


def opener(certificate: str, private_key: str, password_file: str | None) -> Opener:
    """What opens envelopes, from files.

    Args:
      certificate: in PEM.
      private_key: in PEM or DER; no other user may read it.
      password_file: of an encrypted key; its first line counts. No other user may read it either.

    Raises:
      ReidentifyRefused: a file can't be read or used, or the two don't belong together.
    """
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import load_pem_x509_certificate

    try:
        public = load_pem_x509_certificate(_content("--certificate", certificate))
    except ValueError:
        raise ReidentifyRefused("--certificate: is no certificate in PEM") from None
    password = _password(password_file) if password_file is not None else None
    private = _private_key(_content("--private-key", private_key, secret=True), password)
    if not isinstance(private, RSAPrivateKey):
        raise ReidentifyRefused("--private-key: is no RSA key")
    if private.public_key() != public.public_key():
        raise ReidentifyRefused("--private-key: belongs to another certificate than --certificate; give its own")
    return Opener(public, private)


def _private_key(content: bytes, password: bytes | None) -> object:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

    load = load_pem_private_key if b"-----BEGIN" in content else load_der_private_key
    try:
        return load(content, password)
    except TypeError:
        raise ReidentifyRefused(
            "--private-key: is encrypted; give --password-file"
            if password is None
            else "--password-file: the key isn't encrypted; leave it out"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        wrong = "can't be read as a key" + (", or the password is wrong" if password is not None else "")
        raise ReidentifyRefused(f"--private-key: {wrong}") from None


def _password(file: str) -> bytes:
    return _content("--password-file", file, secret=True).split(b"\n")[0].rstrip(b"\r")


def _content(option: str, file: str, secret: bool = False) -> bytes:
    """What a file holds; of a secret one, only if its owner alone may read it."""
    try:
        with open(os.open(local_path(file), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ReidentifyRefused(f"{option}: is no file")
            if secret and stat.S_IMODE(mode) & 0o077:
                raise ReidentifyRefused(f"{option}: may be read by others than its owner; run: chmod 600 on it")
            return opened.read(_LONGEST)
    except (OSError, ValueError) as failed:
        why = getattr(failed, "strerror", None) or "it is no path"
        raise ReidentifyRefused(f"{option}: can't be read: {why}") from None


def places(inputs: tuple[str, ...], output: str) -> tuple[tuple[str, ...], Path]:
    """The inputs and the output as absolute paths; the output is made, for its owner alone.

    Raises:
      ReidentifyRefused: an input isn't there, the output lies in one or holds one, or others may read it.
    """
    found = [os.path.realpath(local_path(uri)) for uri in inputs]
    target = os.path.realpath(local_path(output))
    for path in found:
        if not os.path.lexists(path):
            raise ReidentifyRefused("--input: there is no such file or folder")
        if os.path.commonpath((path, target)) in (path, target):
            raise ReidentifyRefused("--output: lies in an input, or holds one: choose folders apart from each other")
    folder = Path(target)
    if folder.exists():
        status = folder.stat()
        if not folder.is_dir() or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise ReidentifyRefused(
                "--output: is no folder of yours alone; choose a new one, or run: chmod 700 on it after a look inside"
            )
    stores.restricted_folder(folder)
    return tuple(sorted(set(found))), folder


def reidentify(inputs: tuple[str, ...], output: Path, opened_by: Opener, told: Callable[[int], None]) -> Settled:
    """Restore every instance below the inputs, one by one, in bounded memory.

    Args:
      told: hears how many files are settled.

    Raises:
      StoreFailed: the output can't be written.
    """
    settled, done = Settled(), set[str]()
    temporary = output / f"{_TEMPORARY}-{os.getpid()}"
    for root in inputs:
        for listed in listing.list_objects(root):
            if listed.uri in done:
                continue
            done.add(listed.uri)
            try:
                settled.attributes += _restore(listed, output, temporary, opened_by)
                settled.restored += 1
            except (NotRestored, Unsuitable) as unsuitable:
                settled.left[unsuitable.reason] += 1
            except store_failures.StoreFailed:
                raise
            except Exception:  # its text may quote what it was working on
                settled.left["internal"] += 1
            told(len(done))
    return settled


def _restore(listed: listing.Listed, output: Path, temporary: Path, opened_by: Opener) -> int:
    """Restore one file; the number of its attributes that were put back."""
    if listed.reason:
        raise Unsuitable(listed.reason)
    target: Path | None = None
    try:
        with stores.open_version(listed.uri, listed.version, listed.size) as source:
            restored = restore(source, opened_by)
            stores.restricted_folder((output / restored.name).parent)
            if not files.create_new(output / restored.name, temporary, restored.chunks()):
                raise NotRestored("name-taken")
            target = output / restored.name
    except Unsuitable:  # also where the file has changed by the time that it was read
        if target is not None:
            target.unlink()
        raise
    return restored.count

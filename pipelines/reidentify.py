"""The way back: de-identified files in, files with what was encrypted for one certificate out.

What becomes of one instance is settled in the engine; which key opens it, and where results may lie, is settled here.
"""

import itertools
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console

from dicomveil.envelopes import Opener
from dicomveil.errors import REASONS, DicomveilError, Unsuitable
from dicomveil.reidentifier import NOT_RESTORED, NotRestored, restore
from pipelines.places import one_bucket, resolve_unrecorded
from pipelines.tally import any_failed, tally
from transforms import files, inputs, listing, store_failures, stores
from transforms.locations import Location, ObjectLocation, local_path
from transforms.object_stores import scheme_of

_LONGEST: Final = 1 << 20


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


def places(given: tuple[str, ...], output: str) -> tuple[tuple[str, ...], Location]:
    """The inputs and the output by their one names; an output folder is made, for its owner alone.

    Raises:
      RunRefused: they can't be used, or others may read the output.
    """
    found, target = resolve_unrecorded(given, output, _exposed)
    stores.restricted_folder(target)
    return found, target


def _exposed(real: dict[str, str]) -> Iterator[str]:
    """Why others might read an output: who may read the inputs' bucket, or who may enter its folder."""
    output = real["--output"]
    yield from one_bucket(real, "--output", [name for name in real if name != "--output"])
    if not scheme_of(output) and os.path.exists(output):
        status = os.stat(output)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            yield (
                "--output: is no folder of yours alone; choose a new one, or run: chmod 700 on it after a look inside"
            )


def banner(output: Location) -> str:
    """What whoever restores must know of an output."""
    who = "Whoever may read its bucket may read it" if isinstance(output, ObjectLocation) else "Only you may read it"
    return f"This output identifies people. {who}; keep it apart from what is shared."


def reidentify(
    given: Iterable[str], output: Location, opened_by: Opener, told: Callable[[int], None], kms_key: str = ""
) -> Settled:
    """Restore every instance that some inputs mean, one by one, in bounded memory.

    Args:
      told: hears how many files are settled.
      kms_key: name of the store's key that encrypts what is written; "" where its bucket decides.

    Raises:
      StoreFailed: an input can't be listed, or the output can't be written.
    """
    settled, done = Settled(), set[tuple[str, str]]()
    for listed in itertools.chain.from_iterable(map(inputs.listed, given)):
        if (listed.uri, listed.version) in done:
            continue
        done.add((listed.uri, listed.version))
        try:
            settled.attributes += _restore(listed, output, opened_by, kms_key)
            settled.restored += 1
        except (NotRestored, Unsuitable) as unsuitable:
            settled.left[unsuitable.reason] += 1
        except store_failures.StoreFailed:
            raise
        except Exception:  # its text may quote what it was working on
            settled.left["internal"] += 1
        told(len(done))
    return settled


def _restore(listed: listing.Listed, output: Location, opened_by: Opener, kms_key: str) -> int:
    """Restore one file; the number of its attributes that were put back."""
    if listed.reason:
        raise Unsuitable(listed.reason)
    with ExitStack() as opened:
        source = opened.enter_context(stores.open_version(listed.uri, listed.version, listed.size, whole=True))
        restored = restore(source, opened_by)
        target = output / restored.name
        stores.restricted_folder(target.parent)
        chunks = stores.made_of(opened, restored.chunks())
        if not stores.create_new(target, chunks, files.OWNER_ONLY, kms_key):
            raise NotRestored("name-taken")
    return restored.count

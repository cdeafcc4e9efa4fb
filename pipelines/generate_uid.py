"""New identifiers on demand: random ones, or such as a key and a text give for ever."""

import secrets
import uuid
from collections.abc import Iterator
from typing import BinaryIO, Final

from dicomveil.errors import DicomveilError
from dicomveil.uids import generated, made_for
from transforms.secrets import refer

LONGEST_TEXT: Final = 1 << 16
"""Bytes of a text."""


class TextRefused(DicomveilError):
    """There is no text to derive from; says why, and never the text."""


def given_text(text: str, stdin: BinaryIO) -> str:
    """The text that --text means: "-" is the one line on standard input, without its end.

    Raises:
      TextRefused: it is empty, too long, not in UTF-8, or of several lines.
    """
    raw = _line(stdin) if text == "-" else text.encode("utf-8", "surrogateescape")
    if not raw.strip():
        raise TextRefused("--text is blank, and would stand for anything; give what the identifier is to stand for")
    if len(raw) > LONGEST_TEXT:
        raise TextRefused(f"--text is longer than {LONGEST_TEXT:,} bytes; give a shorter one, or its checksum")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise TextRefused("--text isn't in UTF-8; convert it") from None


def _line(stdin: BinaryIO) -> bytes:
    raw = stdin.read(LONGEST_TEXT + 3).removesuffix(b"\n").removesuffix(b"\r")
    if b"\n" in raw:
        raise TextRefused("--text - reads one line, and standard input holds several; call it once for each")
    return raw


def derived(level: str, reference: str, text: str, count: int) -> Iterator[str]:
    """The first identifiers that a key and a text give.

    Raises:
      KeyRefused: the reference leads to no usable key.
    """
    keys = refer(reference).keys()
    return (generated(keys, level, text, number) for number in range(1, count + 1))


def drawn(level: str, count: int) -> Iterator[str]:
    """Identifiers of 122 bits from the operating system each: no clock and no device is in them."""
    return (made_for(level, uuid.UUID(bytes=secrets.token_bytes(16), version=4)) for _ in range(count))

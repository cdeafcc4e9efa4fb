"""Where a secret leaves a trace: every form it can be written in, sought in every layer of what was written."""

import base64
import bz2
import hmac
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_DEEPEST = 5
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{40,}")
_PACKED = {
    b"BZh": lambda data: bz2.BZ2Decompressor().decompress(data),
    b"\x1f\x8b\x08": lambda data: zlib.decompressobj(31).decompress(data),
    b"\x28\xb5\x2f\xfd": lambda data: pa.CompressedInputStream(pa.BufferReader(data), "zstd").read(),
    **{
        b"\x78" + level: lambda data: zlib.decompressobj().decompress(data) for level in (b"\x01", b"\x5e", b"\x9c", b"\xda")
    },
}  # fmt: skip


def secrets_of(key: bytes, purposes: Iterable[str]) -> dict[str, bytes]:
    """The key, and what is as secret, since UIDs can be told with it: the root and the key of each purpose."""
    root = hmac.digest(b"dicomveil 1", key, "sha256")
    return {"key": key, "root": root} | {label: hmac.digest(root, label.encode(), "sha256") for label in purposes}


def forms(secret: bytes) -> set[bytes]:
    """What a secret looks like as bytes, hexadecimal digits, base64 at any offset, a literal, or wide text."""
    found = {secret, secret[::-1], secret.hex().encode(), secret.hex().upper().encode(), secret.hex(" ").encode()}
    found |= {
        repr(secret)[2:-1].encode(),
        repr(list(secret))[1:-1].encode(),
        str(int.from_bytes(secret, "big")).encode(),
    }
    found |= {secret.hex().encode("utf-16-le"), secret.hex().encode("utf-32-le")}
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + secret)
        inner = encoded[(0, 2, 3)[offset] : len(secret) // 3 * 4]
        found |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


def layers(data: bytes, depth: int = 0) -> Iterator[bytes]:
    """The bytes, and what they unpack to, wherever in them something packed begins."""
    yield data
    if depth == _DEEPEST:
        return
    for word in _BASE64.findall(data):
        plain = word.translate(bytes.maketrans(b"-_", b"+/"))
        with suppress(ValueError):
            yield from layers(base64.b64decode(plain[: len(plain) // 4 * 4]), depth + 1)
    for magic, unpack in _PACKED.items():
        for begin in re.finditer(re.escape(magic), data):
            with suppress(OSError, ValueError, zlib.error, pa.ArrowException):
                if inside := unpack(data[begin.start() :]):
                    yield from layers(inside, depth + 1)


def _values(path: Path) -> Iterator[bytes]:
    """A Parquet file's values and metadata."""
    table = pq.read_table(path, partitioning=None)
    yield repr(table.schema.metadata).encode()
    for column in table.columns:
        for value in column.to_pylist():
            yield value if isinstance(value, bytes) else str(value).encode()


def traces(data: Iterable[bytes], secrets: dict[str, bytes]) -> set[str]:
    """The names of the secrets that stand in the data, in any form and layer."""
    sought = {name: forms(secret) for name, secret in secrets.items()}
    return {
        name
        for whole in data
        for layer in layers(whole)
        for name, looks in sought.items()
        if any(look in layer for look in looks)
    }


def traces_below(folder: Path, secrets: dict[str, bytes]) -> dict[str, set[str]]:
    """The same for the files below a folder: by path, only those with a trace; a path counts as content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        data = [str(path.relative_to(folder)).encode()]
        if path.is_file():
            data.append(path.read_bytes())
        if path.suffix == ".parquet":
            data.extend(_values(path))
        if names := traces(data, secrets):
            found[str(path.relative_to(folder))] = names
    return found

"""New UIDs: which values are mapped, which never are, and that no two originals become one."""

import ast
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dicomveil import Deidentifier, standard
from dicomveil.keys import Keys
from dicomveil.testing import EXPLICIT, Syntax, minimal, part10
from dicomveil.uids import new_uid
from tests.corpora import KEY

ENGINE, KEYS, E = Deidentifier(key=KEY), Keys(KEY), Syntax(EXPLICIT)
FRAME_OF_REFERENCE, SEVERAL = 0x00200052, 0x00080058
ROOT = Path(__file__).parents[2]

# What somebody could have written into a UI element: anything of one byte a character, but what parts values.
characters = st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="\\")
values = st.one_of(st.text(characters, max_size=70), st.text("0123456789.", max_size=70), st.text("0. \0", max_size=6))


def rewritten(tag: int, value: bytes) -> bytes:
    """What becomes of a UI element of an instance, without its padding."""
    padded = value + b"\0" * (len(value) % 2)
    out = ENGINE.rewrite(part10(minimal(E, (tag, E.element(tag, "UI", padded)))))
    at = out.index(E.tag(tag) + b"UI")
    return out[at + 8 : at + 8 + int.from_bytes(out[at + 6 : at + 8], "little")].rstrip(b"\0")


def well_known() -> list[str]:
    """The registered values that stand where instances are named: frames of reference, palettes and the like."""
    kinds = ("Well-known frame of reference", "Well-known SOP Instance", "Synchronization Frame of Reference")
    return [uid for uid, kind, _ in standard.lines("uids.csv") if kind in kinds]


def test_well_known_values_are_counted() -> None:
    """PS3.6 registers 48 values that look like somebody's: 29 frames of reference and 19 instances."""
    assert len(well_known()) == 48
    assert {"1.2.840.10008.1.4.1.1", "1.2.840.10008.15.1.1", "1.2.840.10008.1.5.1"} <= set(well_known())


@pytest.mark.parametrize("uid", well_known())
def test_well_known_values_stay(uid: str) -> None:
    """A value that PS3.6 registers for all is nobody's, wherever an instance is named; what stands below it is mapped."""
    assert new_uid(KEYS, uid) == uid
    assert rewritten(FRAME_OF_REFERENCE, uid.encode()) == uid.encode()
    assert rewritten(SEVERAL, f"{uid} \\{uid}".encode()).replace(b" ", b"") == f"{uid}\\{uid}".encode()
    assert rewritten(FRAME_OF_REFERENCE, f"{uid}.1".encode()) == new_uid(KEYS, f"{uid}.1").encode()


@given(values)
def test_only_padding_is_no_part_of_a_uid(value: str) -> None:
    """Trailing NULs and blanks around a UID are dropped; all else is part of what is mapped, however malformed."""
    uid = value.strip(" \0")
    assume(uid)
    raw = uid.encode("latin-1")
    assert {rewritten(FRAME_OF_REFERENCE, it) for it in (raw, b" " + raw + b" ", raw + b"\0\0", b"  " + raw)} == {
        new_uid(KEYS, uid).encode()
    }


@given(st.lists(values, min_size=2, max_size=5))
def test_malformed_uids_stay_distinct(originals: list[str]) -> None:
    """Two different values, such as 0 and 00, become two; two equal ones become one (PS3.5 9.1)."""
    uids = [value.strip(" \0") for value in originals]
    assume(any(uids))
    news = rewritten(SEVERAL, "\\".join(originals).encode("latin-1")).decode().split("\\")
    assert news == [new_uid(KEYS, uid) if uid else "" for uid in uids]
    assert len({*news} - {""}) == len({*uids} - {""})


@pytest.mark.parametrize(
    "malformed",
    ["0", "00", "1.02.3", "1.2.3.", "1..2", ".", "1.2.x", "x" * 80, "1." * 60 + "1", "é", "1.2 .3", "1\0.2"],
)
def test_a_malformed_uid_becomes_a_valid_one(malformed: str) -> None:
    """A value that is no UID names something all the same: it gets a new UID, the same each time."""
    new = rewritten(FRAME_OF_REFERENCE, malformed.encode("latin-1")).decode()
    assert new == new_uid(KEYS, malformed) and re.fullmatch(r"2\.25\.[1-9][0-9]*", new) and len(new) <= 44


# ------------------------------------------------------------------------------------------------------------- roles


def without(keyword: str) -> list[list[str]]:
    return [list(line) for line in standard.lines("uid_attributes.csv") if line[1] != keyword]


def with_role(keyword: str, role: str) -> list[list[str]]:
    return [[tag, name, role if name == keyword else old] for tag, name, old in standard.lines("uid_attributes.csv")]


@pytest.mark.parametrize(
    "table",
    [lambda: without("FrameOfReferenceUID"), lambda: with_role("FrameOfReferenceUID", ""),
     lambda: with_role("FrameOfReferenceUID", "frame")],
    ids=["no line", "no role", "an unknown role"],
)  # fmt: skip
def test_a_uid_attribute_without_a_role_stops_the_build(table, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """What a UI attribute names is decided by somebody, and never guessed: tables that leave one out don't load."""
    wrong, lines = table(), standard.lines
    monkeypatch.setattr(standard, "lines", lambda name: wrong if name == "uid_attributes.csv" else lines(name))
    with pytest.raises(LookupError, match="FrameOfReferenceUID"):
        standard.uid_attributes.__wrapped__()


# ------------------------------------------------------------------------------------------------------------ hashes

# Where a digest stands for content, and not for anybody: of requests and tables, of what is written, of equal inputs, of a
# crosswalk's rows under a key; and for the bits of a sieve, which is shaken with tokens and never kept.
UNKEYED = {
    "dicomveil/compile.py",
    "dicomveil/media.py",
    "dicomveil/request.py",
    "dicomveil/standard.py",
    "pipelines/ledger.py",
    "pipelines/spilling.py",
    "transforms/only_copies.py",
    "transforms/stores.py",
    "transforms/crosswalks.py",
    "transforms/ledger.py",
    "transforms/ranged.py",
    "transforms/rewrite.py",
    "transforms/sieve.py",
}
WEAK = {"md5", "sha1", "uuid1", "uuid3", "uuid4", "uuid5", "crc32", "adler32", "hash", "new"}


def called(path: Path) -> set[str]:
    """The names of hashes that a module takes from hashlib, uuid or zlib, or calls as a builtin."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names |= {node.attr} if node.value.id in ("hashlib", "uuid", "zlib") else set()
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hash":
            names.add("hash")
        elif isinstance(node, ast.ImportFrom) and node.module in ("hashlib", "uuid", "zlib"):
            names |= {alias.name for alias in node.names}
    return names


def test_no_identity_comes_from_a_hash_without_a_key() -> None:
    """Neither MD5 nor SHA-1 nor a random or unkeyed name stands anywhere; SHA-256 alone only where content is compared."""
    modules = [path for name in ("dicomveil", "transforms", "pipelines") for path in (ROOT / name).rglob("*.py")]
    found = {str(path.relative_to(ROOT)): called(path) for path in modules}
    # The checksum of a stream that was inflated (RFC 1952) is compared with its own trailer, and goes nowhere.
    assert found.pop("dicomveil/stream.py") & WEAK == {"crc32"}
    # Orthanc's names of what is in the output, which no data set holds.
    assert found.pop("dicomveil/orthanc_ids.py") & WEAK == {"sha1"}
    # A zip member's own checksum, which it is held to, and which tells one state of it from another.
    assert found.pop("transforms/zips.py") & WEAK == {"crc32"}
    assert {path: names & WEAK for path, names in found.items() if names & WEAK} == {}
    assert {path for path, names in found.items() if names & {"sha256", "sha512", "blake2b"}} == UNKEYED

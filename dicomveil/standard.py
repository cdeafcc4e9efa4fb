"""The Standard's tables, as they are: rows, dictionary, UIDs and Types, read from `tables/` when first asked for.

What an action does, and which of several rules wins, is decided in `compile`.
"""

import csv
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

EDITIONS: Final = ("2026d",)
NEWEST: Final = EDITIONS[-1]

_TABLES: Final = Path(__file__).parent / "tables"
_NO_TYPE: Final = {"X/Z": "X", "X/D": "X", "Z/D": "Z", "X/Z/D": "X", "X/Z/U*": "X"}


class Row(NamedTuple):
    """A row of Table E.1-1 (PS3.15).

    Attributes:
      tag: "(0008,0050)", with lower-case x for any digit; "(gggg,eeee)" for private attributes.
      basic: the Basic Profile's action code; the columns after it are the options', "" where they say nothing.
    """

    tag: str
    keyword: str
    name: str
    retired: str
    standard_iod: str
    basic: str
    safe_private: str
    uids: str
    device: str
    institution: str
    patient: str
    full_dates: str
    modified_dates: str
    descriptors: str
    structured: str
    graphics: str


class SupplementRow(NamedTuple):
    """A decision of ours on an attribute that Table E.1-1 doesn't name.

    Attributes:
      action: as in Table E.1-1, compound codes included; K; or "code-meaning" (K where the code's scheme is
        registered, else D).
    """

    tag: str
    keyword: str
    action: str
    reason: str


class Element(NamedTuple):
    """A data element of PS3.6, chapter 6; `vr` may be "US or SS"."""

    keyword: str
    vr: str
    vm: str


class UIDAttribute(NamedTuple):
    """What the UIDs of a UI attribute name: study, series, instance, frame-of-reference, other, or a definition."""

    keyword: str
    role: str


def _open(*path: str) -> Iterator[list[str]]:
    """The lines of a table, without its header."""
    with _TABLES.joinpath(*path).open(encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        next(reader)
        yield from reader


def tag_number(tag: str) -> int:
    """ "(0008,0050)" as 0x00080050."""
    return int(tag[1:5] + tag[6:10], 16)


@cache
def rows(edition: str) -> tuple[Row, ...]:
    """Table E.1-1 of an edition, in its own order."""
    return tuple(Row(*line) for line in _open(edition, "e1_1.csv"))


@cache
def supplement() -> tuple[SupplementRow, ...]:
    """Our decisions on what Table E.1-1 doesn't name."""
    return tuple(SupplementRow(*line) for line in _open("supplement.csv"))


@cache
def dictionary() -> dict[int, Element]:
    """Every data element with a tag of its own (PS3.6 2026c), by tag; repeating groups and private ones aren't here."""
    return {int(tag, 16): Element(keyword, vr, vm) for tag, keyword, vr, vm in _open("data_elements.csv")}


@cache
def registered_uids() -> frozenset[str]:
    """Every UID value that PS3.6 registers: never anybody's identifier, compared exactly and never by root."""
    return frozenset(uid for uid, _, _ in _open("uids.csv"))


@cache
def transfer_syntaxes() -> frozenset[str]:
    """The registered transfer syntaxes."""
    return frozenset(uid for uid, kind, _ in _open("uids.csv") if kind == "Transfer Syntax")


@cache
def uid_attributes() -> dict[int, UIDAttribute]:
    """Every attribute of VR UI, by tag.

    Raises:
      LookupError: the dictionary holds a UI attribute whose role nobody decided: a mistake in the tables.
    """
    roles = {tag_number(tag): UIDAttribute(keyword, role) for tag, keyword, role in _open("uid_attributes.csv")}
    undecided = [element.keyword for tag, element in dictionary().items() if element.vr == "UI" and tag not in roles]
    if undecided:
        raise LookupError(f"UI attributes without a role: {undecided}")
    return roles


@cache
def non_patient_sop_classes() -> frozenset[str]:
    """SOP Classes whose IOD has no Patient module: palettes, hanging protocols, implant templates and their like."""
    return frozenset(uid for uid, _, patient in _open("sop_classes.csv") if patient == "N")


@cache
def coding_schemes() -> frozenset[str]:
    """Coding Scheme Designators that PS3.16 registers (Table 8-1)."""
    return frozenset(line[0] for line in _open("coding_schemes.csv"))


class Resolution:
    """What the action codes come to on the attributes' Types, SOP Class by SOP Class (PS3.3, PS3.15 E.1.1)."""

    def __init__(self, edition: str) -> None:
        self._iods = {uid: iod for uid, iod, _ in _open("sop_classes.csv")}
        self._lines: dict[str, list[tuple[str, str]]] = {}
        self._paths: dict[str, tuple[dict[tuple[int, ...], str], set[tuple[int, ...]]]] = {}
        for iod, path, action in _open(edition, "actions_by_iod.csv"):
            self._lines.setdefault(iod, []).append((path, action))

    def _of(self, sop_class_uid: str) -> tuple[dict[tuple[int, ...], str], set[tuple[int, ...]]]:
        """The actions by path in a SOP Class's IOD, and the sequences above them; read when first asked for."""
        iod = self._iods.get(sop_class_uid, "")
        if iod not in self._paths:
            actions = {tuple(int(step, 16) for step in path.split(">")): it for path, it in self._lines.get(iod, ())}
            self._paths[iod] = actions, {path[:depth] for path in actions for depth in range(1, len(path))}
        return self._paths[iod]

    def known(self, sop_class_uid: str) -> bool:
        """Whether the Types of its attributes are known."""
        return sop_class_uid in self._iods

    def below(self, sop_class_uid: str, path: tuple[int, ...]) -> bool:
        """Whether any Type decides inside the sequence at `path`."""
        return path in self._of(sop_class_uid)[1]

    def action(self, path: tuple[int, ...], sop_class_uid: str, code: str) -> str:
        """The one action that a code comes to at a path of a known SOP Class.

        Types 1 and 1C ask for a dummy, 2 and 2C for an empty value; what the IOD doesn't hold is as Type 3, and goes.
        A literal X or Z that would break a Type 1 or 2 of a mandatory module gives way to what the Type needs.
        """
        return self._of(sop_class_uid)[0].get(path) or _NO_TYPE.get(code, code)


@cache
def resolved(edition: str) -> Resolution:
    """The Types of PS3.3 2026b applied to the codes of an edition."""
    return Resolution(edition)


@cache
def digest() -> str:
    """SHA-256 over all tables, 16 hexadecimal digits: part of what a decision table's fingerprint stands for."""
    total = hashlib.sha256()
    for folder in (_TABLES, *(_TABLES / edition for edition in EDITIONS)):
        for table in sorted(folder.glob("*.csv")):
            total.update(table.name.encode() + b"\0" + table.read_bytes())
    return total.hexdigest()[:16]

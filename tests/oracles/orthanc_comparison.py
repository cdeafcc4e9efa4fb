"""Two copies of the same instances, de-identified or modified by two tools, told apart element by element, up to the names that each made up.

Which differences are as they should be is said in orthanc_differences.yaml; how the copies were made isn't known here.
"""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

import pydicom
import yaml
from pydicom import config
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset

from dicomveil import dummies, standard

PATIENT_NAME, PATIENT_ID = 0x00100010, 0x00100020
STUDY, SERIES, INSTANCE, FRAME = 0x0020000D, 0x0020000E, 0x00080018, 0x00200052
REFERENCED_INSTANCE: Final = 0x00081155
OF_STUDY: Final = (0x00081110, 0x30060012)  # Items of these sequences name a study by its class and "instance"
PADDED: Final = frozenset("AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())  # noqa: SIM905
PIXEL_REPRESENTATION: Final = 0x00280103
BORNE: Final = {STUDY: "study", SERIES: "series", INSTANCE: "instance", FRAME: "frame-of-reference"}
PRIVATE: Final = "private"
CREATOR: Final = "private creator"

# ------------------------------------------------------------------------------------------------------- data sets


class Leaf(NamedTuple):
    """An element without Items: its VR, and its encoded value without padding."""

    vr: str
    value: bytes


Tree = dict[int, "Leaf | list[Tree]"]
Node = Leaf | list[Tree] | None  # None where there is no such element


def read(path: Path) -> Tree:
    """The data set of a file, without group lengths and meta group."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.settings.reading_validation_mode = config.IGNORE
        return _tree(pydicom.dcmread(path, force=True))


def _tree(ds: Dataset) -> Tree:
    return {int(tag): _node(ds, int(tag)) for tag in sorted(ds.keys()) if int(tag) & 0xFFFF}


def _node(ds: Dataset, tag: int) -> "Leaf | list[Tree]":
    raw = ds.get_item(tag)
    assert raw is not None
    if tag == PIXEL_REPRESENTATION:  # pydicom decodes it while it reads
        return Leaf("US", str(ds[tag].value).encode())
    vr = raw.VR if raw.VR not in (None, "UN") else ds[tag].VR.split(" or ")[-1]
    if vr == "SQ":
        return [_tree(item) for item in ds[tag].value or []]
    value = raw.value if isinstance(raw.value, bytes) else b"" if raw.value is None else str(raw.value).encode()
    return Leaf(vr, value.rstrip(b" \0") if vr in PADDED else value)


# ---------------------------------------------------------------------------------------------- what a body names


def tag_of(text: str) -> int:
    """A tag as a body writes it: keyword, ggggeeee, gggg,eeee or gggg-eeee, in parentheses or not."""
    digits = re.sub(r"[(),\- ]", "", text)
    return int(digits, 16) if re.fullmatch("[0-9A-Fa-f]{8}", digits) else int(tag_for_keyword(text) or 0)


def path_of(text: str) -> tuple[tuple[int, str], ...]:
    """A path as a body writes it: (tag, index, "*" or "") each."""
    steps = (re.fullmatch(r"(.*?)(?:\[(.*)\])?", step) for step in text.split("."))
    return tuple((tag_of(step[1]), step[2] or "") for step in steps if step)


Where = tuple[tuple[int, int], ...]  # (tag, number of the Item) of what encloses an element


class Body:
    """Which members of a body name an element."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._named = [
            (member, path_of(text)) for member in ("Keep", "Remove", "Replace") for text in body.get(member, ())
        ]

    def names(self, where: Where, tag: int) -> frozenset[str]:
        """The members that name the element itself, or a sequence that it is in."""
        return frozenset(member for member, path in self._named if _matches(path, (*where, (tag, -1))))

    def names_at_top(self, tag: int) -> frozenset[str]:
        """The members that name the same attribute at the top level."""
        return frozenset(member for member, path in self._named if path == ((tag, ""),))


def _matches(path: tuple[tuple[int, str], ...], where: Where) -> bool:
    return len(path) <= len(where) and all(
        tag == there and (index in ("", "*") or int(index) == number)
        for (tag, index), (there, number) in zip(path, where, strict=False)
    )


# ------------------------------------------------------------------------------------------------------ comparison


@dataclass(frozen=True)
class Difference:
    """An element that isn't the same in both copies.

    Attributes:
      path: keywords or tags, with the numbers of Items.
      ours, theirs: what became of it: kept, absent, empty, mapped (a UID), new (another value), unlinked (a UID that
        doesn't go by the name that the other tool's goes by elsewhere), collapsed (several UIDs became one).
      code: of the attribute's row in Table E.1-1 of the edition; "" without one; else private, or private creator.
      at: top or nested.
      within: codes of the sequences that hold it; holds: of what it holds, if it is a sequence.
      named: members of the body that name it, or a sequence that holds it; attribute: those that name the same
        attribute at the top level, where it is nested.
      role: what the original UID is in the study: study, series, instance, frame-of-reference, several or "".
      identifier: members that name the attribute by which a study bears this UID, or one in its role.
      group: of the tag, 50xx and 60xx for repeating ones.
      vr: that of the source, or of a copy that adds it.
    """

    path: str
    ours: str
    theirs: str
    edition: str
    tag: str
    vr: str
    code: str
    at: str
    group: str
    role: str = ""
    within: frozenset[str] = frozenset()
    holds: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    attribute: frozenset[str] = frozenset()
    identifier: frozenset[str] = frozenset()


@dataclass
class Names:
    """The bijection between what one tool made up and what the other did, a kind of names each."""

    pairs: dict[tuple[str, str, bytes], bytes] = field(default_factory=dict)

    def agree(self, kind: str, ours: bytes, theirs: bytes) -> bool:
        """Whether the two stand for the same; from now on they do if neither stands for anything yet."""
        there = self.pairs.setdefault((kind, "ours", ours), theirs)
        back = self.pairs.setdefault((kind, "theirs", theirs), ours)
        return there == theirs and back == ours


class Comparison:
    """Compares the copies of the instances that were made in one go.

    Args:
      edition: of Table E.1-1.
      body: the request.
      pseudonyms: whether each tool makes up names and IDs of patients.
    """

    def __init__(self, edition: str, body: Mapping[str, Any], pseudonyms: bool = True) -> None:
        self._edition, self._body, self._pseudonyms = edition, Body(body), pseudonyms
        self._codes = codes(edition)
        self._names = Names()
        self._roles: dict[bytes, set[int]] = {}  # the attributes that bear a UID
        self.agreed = 0

    def differences(self, copies: Iterable[tuple[Tree, Tree, Tree]]) -> Iterator[Difference]:
        """What differs in (before, ours, theirs) each."""
        copies = list(copies)
        for before, _, _ in copies:
            for tag in BORNE:
                self._roles.setdefault(_leaf(before, tag).value, set()).add(tag)
        for tag in BORNE:  # what the instances bear settles the names, before what only refers to it
            for trees in copies:
                before_uid, one, other = (_leaf(tree, tag).value for tree in trees)
                if one != other and before_uid not in (one, other) and one and other:
                    self._names.agree("uid", one, other)
        for before, ours, theirs in copies:
            yield from self._walk(before, ours, theirs, ())

    def _walk(self, before: Tree, ours: Tree, theirs: Tree, where: Where) -> Iterator[Difference]:
        for tag in sorted({*ours, *theirs}):
            trio = before.get(tag), ours.get(tag), theirs.get(tag)
            if _comparable(tag, *trio):
                befores = trio[0] if isinstance(trio[0], list) and len(trio[0]) == len(trio[1]) else [{}] * len(trio[1])
                for number, items in enumerate(zip(befores, trio[1], trio[2], strict=True)):
                    yield from self._walk(*items, (*where, (tag, number)))
                continue
            states = self._states(tag, trio, bool(self._body.names(where, tag) & {"Replace"}))
            if states is None:
                self.agreed += 1
            else:
                yield self._difference(where, tag, trio, states)

    def _states(self, tag: int, trio: tuple[Node, Node, Node], replaced: bool) -> tuple[str, str] | None:
        """What became of an element in each; None where both did the same."""
        before, ours, theirs = trio
        if ours == theirs:
            return None
        states = "new" if _is_dummy(ours, tag) else state(before, ours, tag), state(before, theirs, tag)
        if isinstance(ours, Leaf) and isinstance(theirs, Leaf):
            if ours.vr != theirs.vr and ours.value.rstrip(b" \0") == theirs.value.rstrip(b" \0"):
                return "vr " + ours.vr, "vr " + theirs.vr
            if self._pseudonyms and tag in (PATIENT_NAME, PATIENT_ID) and states == ("new", "new") and not replaced:
                return None if self._names.agree(hex(tag), ours.value, theirs.value) else ("new", "unlinked")
            if states == ("mapped", "mapped") and not replaced:
                return self._uids(ours.value.split(b"\\"), theirs.value.split(b"\\"))
        return states

    def _uids(self, ours: list[bytes], theirs: list[bytes]) -> tuple[str, str] | None:
        if len(ours) != len(theirs):
            return "mapped", "collapsed"
        agreed = [self._names.agree("uid", *pair) or pair[0] == pair[1] for pair in zip(ours, theirs, strict=True)]
        return None if all(agreed) else ("mapped", "unlinked")

    def _difference(self, where: Where, tag: int, trio: tuple[Node, Node, Node], states: tuple[str, str]) -> Difference:
        there = next(node for node in trio if node is not None)
        value = trio[0].value if isinstance(trio[0], Leaf) else b""
        bearers = self._roles.get(value, set()) if value else set()
        roles = [BORNE[bearer] for bearer in bearers]
        return Difference(
            path=".".join([*(f"{name(step)}[{number}]" for step, number in where), name(tag)]),
            ours=states[0],
            theirs=states[1],
            edition=self._edition,
            tag=name(tag),
            vr="SQ" if isinstance(there, list) else there.vr,
            code=self._code(tag),
            at="nested" if where else "top",
            group=f"{tag >> 24:02x}xx" if tag >> 24 in (0x50, 0x60) else f"{tag >> 16:04x}",
            role="several" if len(roles) > 1 else "".join(roles),
            within=frozenset(self._code(step) for step, _ in where),
            holds=frozenset(self._held(there)) if isinstance(there, list) else frozenset(),
            named=self._body.names(where, tag),
            attribute=self._body.names_at_top(tag) if where else frozenset(),
            identifier=frozenset().union(*map(self._body.names_at_top, {*bearers, *_roles_of(where, tag)})),
        )

    def _code(self, tag: int) -> str:
        if tag >> 16 & 1:
            return PRIVATE if tag & 0xFF00 else CREATOR
        return self._codes.get(f"{tag:08X}") or self._codes.get(_repeating(tag), "")

    def _held(self, items: list[Tree]) -> Iterator[str]:
        for item in items:
            for tag, node in item.items():
                yield self._code(tag)
                if isinstance(node, list):
                    yield from self._held(node)


def _roles_of(where: Where, tag: int) -> Iterator[int]:
    """The attributes that bear what an attribute refers to."""
    attribute = standard.uid_attributes().get(tag)
    if tag == REFERENCED_INSTANCE and where and where[-1][0] in OF_STUDY:
        yield STUDY
    elif attribute:
        yield from (borne for borne, role in BORNE.items() if role == attribute.role)


def _comparable(tag: int, before: Node, ours: Node, theirs: Node) -> bool:
    """Whether both copies hold Items that are worth comparing one by one: kept ones, or ones that the body gave."""
    return (
        isinstance(ours, list)
        and isinstance(theirs, list)
        and len(ours) == len(theirs)
        and state(before, ours, tag) == state(before, theirs, tag)
    )


def _leaf(tree: Tree, tag: int) -> Leaf:
    leaf = tree.get(tag)
    return leaf if isinstance(leaf, Leaf) else Leaf("", b"")


def state(before: Node, after: Node, tag: int) -> str:
    """What became of an element: kept, absent, empty, mapped (a UID) or new.

    A sequence is kept where each of its Items holds nothing but attributes that it held; what becomes of those is
    another question. A dummy Item may look like that, and isn't.
    """
    if after is None:
        return "absent"
    if isinstance(after, list):
        if not after:
            return "empty"
        same = isinstance(before, list) and len(before) == len(after)
        same = same and all(new.keys() <= old.keys() for old, new in zip(before, after, strict=True))
        same = same and after != [_dummy(dummies.dummy_item(tag))]
        return "kept" if same else "new"
    if not after.value:
        return "empty"
    if isinstance(before, Leaf) and after.value == before.value:
        return "kept"
    return "mapped" if after.vr == "UI" and isinstance(before, Leaf) and before.value else "new"


def _is_dummy(ours: Node, tag: int) -> bool:
    """Whether it is dicomveil's dummy, though the original may have been the same by chance."""
    return (
        isinstance(ours, Leaf) and bool(ours.value) and ours.value == dummies.dummy_bytes(tag, ours.vr).rstrip(b" \0")
    )


def _dummy(item: tuple[dummies.Node, ...]) -> Tree:
    """The Item by which dicomveil replaces a sequence's."""
    return {
        node.tag: Leaf(node.vr, node.value.rstrip(b" \0") if node.vr in PADDED else node.value)
        if isinstance(node.value, bytes)
        else [_dummy(inside) for inside in node.value]
        for node in item
    }


def name(tag: int) -> str:
    return keyword_for_tag(tag) or f"{tag >> 16:04x},{tag & 0xFFFF:04x}"


def codes(edition: str) -> dict[str, str]:
    """The action code of the Basic Profile by tag, as 00080050; of repeating groups as 50xxxxxx or 60xx3000."""
    return {re.sub("[(),]", "", row.tag).upper(): row.basic for row in standard.rows(edition)}


def _repeating(tag: int) -> str:
    digits = f"{tag:08X}"
    return "50XXXXXX" if digits[:2] == "50" else f"60XX{digits[4:]}" if digits[:2] == "60" else digits


# ---------------------------------------------------------------------------------------------------- explanations


@dataclass
class Explanation:
    """Why some differences are as they should be.

    Attributes:
      name: short, unique.
      why: the row of Table E.1-1, the section, or the defect of Orthanc that decides it.
      when: what such a difference is like: each field of `Difference` has one of the values (or holds one, where it
        is a set).
      explains: how many differences it explained so far.
    """

    name: str
    why: str
    when: dict[str, set[str]]
    explains: int = 0

    def holds(self, difference: Difference) -> bool:
        return all(self._fits(getattr(difference, key), wanted) for key, wanted in self.when.items())

    @staticmethod
    def _fits(value: "str | frozenset[str]", wanted: set[str]) -> bool:
        return value in wanted if isinstance(value, str) else bool(value & wanted or (not value and "" in wanted))


def explanations(path: Path) -> list[Explanation]:
    """The list, each line of it checked to ask for fields that there are."""
    known = {one.name for one in fields(Difference)}
    out = []
    for entry_name, entry in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        when = {
            key: set(map(str, value if isinstance(value, list) else [value])) for key, value in entry["when"].items()
        }
        assert when and when.keys() <= known, f"{entry_name} asks for {when.keys() - known}"
        out.append(Explanation(entry_name, entry["why"], when))
    return out


def unexplained(differences: Iterable[Difference], listed: list[Explanation]) -> Iterator[Difference]:
    """The differences that no explanation fits; counts those that one does, for the first that does."""
    for difference in differences:
        fitting = next((one for one in listed if one.holds(difference)), None)
        if fitting:
            fitting.explains += 1
        else:
            yield difference

"""The Standard's tables, as they are: rows, dictionary, UIDs and Types, read from `tables/` when first asked for.

What an action does, and which of several rules wins, is decided in `compile`.
"""

import csv
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

EDITIONS: Final = (
    "2008", "2017a", "2017c", "2017d", "2019c", "2019e", "2020a", "2020b", "2021b", "2023b", "2024a", "2024b", "2025e",
    "2026c", "2026d",
)  # fmt: skip
"""The editions of Table E.1-1 that a request can choose, the oldest first: their names sort as they came out."""
NEWEST: Final = EDITIONS[-1]

OPTION_COLUMNS: Final = {
    "CleanPixelData": "",
    "CleanRecognizableVisualFeatures": "",
    "CleanGraphics": "graphics",
    "CleanStructuredContent": "structured",
    "CleanDescriptors": "descriptors",
    "RetainLongitudinalFullDates": "full_dates",
    "RetainLongitudinalModifiedDates": "modified_dates",
    "RetainPatientCharacteristics": "patient",
    "RetainDeviceIdentity": "device",
    "RetainUIDs": "uids",
    "RetainSafePrivate": "safe_private",
    "RetainInstitutionIdentity": "institution",
}
"""The field of `Row` that says what an option changes, "" of those about Pixel Data, which have no column."""

VRS: Final = frozenset(
    "AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()  # noqa: SIM905
)
"""The Value Representations of PS3.5 6.2."""

_TABLES: Final = Path(__file__).parent / "tables"
_REFERENCES: Final = _TABLES / "reference_types.csv"
_BY_TYPE: Final = {  # what a compound code comes to on Type 1, 2, 3; 1C and 2C count as 1 and 2 where the value stands
    "X/Z": {"1": "D", "2": "Z", "3": "X"},
    "X/D": {"1": "D", "2": "D", "3": "X"},
    "Z/D": {"1": "D", "2": "Z", "3": "Z"},
    "X/Z/D": {"1": "D", "2": "Z", "3": "X"},
    "X/Z/U*": {"1": "U", "2": "Z", "3": "X"},
    "P": {"1": "D", "2": "Z", "3": "X"},  # 2008 knows no actions: "protect", as the IOD allows
}
_LITERAL: Final = {("X", "1"): "D", ("X", "2"): "Z", ("Z", "1"): "D"}  # a literal code that would break the IOD
_UNTYPED_CODES: Final = frozenset(("K", "U", "code-meaning"))
_IN_EVERY_CODE: Final = frozenset(("00080106", "00080107"))  # in thousands of code sequences, and D whatever the Type
_PRIVATE_VRS: Final = {"OW/OB": "OW", "OB_OW": "OW", "US or SS": "US", "UN": ""}  # as printed, or in pydicom


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


class PrivateElement(NamedTuple):
    """A row of Table E.3.10-1, Safe Private Attributes (PS3.15); `vr` and `vm` are "" where it gives none."""

    vr: str
    vm: str
    meaning: str


class Code(NamedTuple):
    """An entry of CID 7050, De-identification Method (PS3.16), in coding scheme DCM.

    Attributes:
      since: the first edition at hand that has the option.
    """

    value: str
    meaning: str
    since: str


class Element(NamedTuple):
    """A data element of PS3.6, chapter 6; `vr` may be "US or SS"."""

    keyword: str
    vr: str
    vm: str


UID_ROLES: Final = frozenset(("study", "series", "instance", "frame-of-reference", "other", "definition"))


class UIDAttribute(NamedTuple):
    """What the UIDs of a UI attribute name: one of `UID_ROLES`."""

    keyword: str
    role: str


def lines(*path: str) -> Iterator[list[str]]:
    """The lines of a table, without its header."""
    with _TABLES.joinpath(*path).open(encoding="utf-8", newline="") as table:
        reader = csv.reader(table)
        next(reader)
        yield from reader


def lines_in_force(folder: str, edition: str) -> Iterator[list[str]]:
    """The same of a table that only some editions changed: the newest not newer, else the oldest there is."""
    return lines(folder, _in_force(_TABLES / folder, edition).name)


def _in_force(folder: Path, edition: str) -> Path:
    found = sorted(folder.glob("*.csv"))
    return max((table for table in found if table.stem <= edition), default=found[0])


def tag_number(tag: str) -> int:
    """ "(0008,0050)" as 0x00080050."""
    return int(tag[1:5] + tag[6:10], 16)


def names_one(tag: str) -> bool:
    """Whether a row's tag names one attribute, and not a range of them or all private ones."""
    return "x" not in tag and "g" not in tag


@cache
def rows(edition: str) -> tuple[Row, ...]:
    """Table E.1-1 of an edition, in its own order, each attribute once; the one action code of 2008 is P, protect."""
    return tuple(Row(*line) for line in lines(edition, "e1_1.csv"))


@cache
def supplement() -> tuple[SupplementRow, ...]:
    """Our decisions on what Table E.1-1 doesn't name."""
    return tuple(SupplementRow(*line) for line in lines("supplement.csv"))


@cache
def dictionary() -> dict[int, Element]:
    """Every data element with a tag of its own (PS3.6 2026c), by tag; repeating groups and private ones aren't here."""
    return {int(tag, 16): Element(keyword, vr, vm) for tag, keyword, vr, vm in lines("data_elements.csv")}


@cache
def sequences() -> frozenset[int]:
    """The tags of all attributes of PS3.6 that are sequences."""
    return frozenset(tag for tag, element in dictionary().items() if element.vr == "SQ")


@cache
def registered_uids() -> frozenset[str]:
    """Every UID value that PS3.6 registers: never anybody's identifier, compared exactly and never by root."""
    return frozenset(uid for uid, _, _ in lines("uids.csv"))


@cache
def transfer_syntaxes() -> frozenset[str]:
    """The registered transfer syntaxes."""
    return frozenset(uid for uid, kind, _ in lines("uids.csv") if kind == "Transfer Syntax")


@cache
def uid_attributes() -> dict[int, UIDAttribute]:
    """Every attribute of VR UI, by tag.

    Raises:
      LookupError: the dictionary holds a UI attribute whose role nobody decided, or one of no such name: a mistake in
        the tables.
    """
    roles = {tag_number(tag): UIDAttribute(keyword, role) for tag, keyword, role in lines("uid_attributes.csv")}
    undecided = [element.keyword for tag, element in dictionary().items() if element.vr == "UI" and tag not in roles]
    undecided += [attribute.keyword for attribute in roles.values() if attribute.role not in UID_ROLES]
    if undecided:
        raise LookupError(f"UI attributes without a role: {undecided}")
    return roles


@cache
def non_patient_sop_classes() -> frozenset[str]:
    """SOP Classes whose IOD has no Patient module: palettes, hanging protocols, implant templates and their like."""
    return frozenset(uid for uid, _, patient in lines("sop_classes.csv") if patient == "N")


@cache
def coding_schemes() -> frozenset[str]:
    """Coding Scheme Designators that PS3.16 registers (Table 8-1)."""
    return frozenset(line[0] for line in lines("coding_schemes.csv"))


@cache
def profile_codes() -> dict[str, Code]:
    """The codes of CID 7050 by the option's name in a request; the Basic Profile's own is that of ""."""
    return {option: Code(*code) for option, *code in lines("profile_codes.csv")}


def has_option(edition: str, option: str) -> bool:
    """Whether an edition knows an option; 2008 has none, and Retain Institution Identity came with 2017d."""
    return profile_codes()[option].since <= edition


@cache
def module_tags(module: str) -> frozenset[int]:
    """The top-level attributes of a module of Patient, Study, Series or Equipment (PS3.3 C.7, C.12.1).

    Args:
      module: as PS3.3 names it, such as "General Study"; the three of a trial are "Clinical Trial Subject", "Clinical
        Trial Study" and "Clinical Trial Series".

    Raises:
      KeyError: the module isn't among those of `tables/modules.csv`.
    """
    tags = frozenset(tag_number(tag) for name, tag, _ in lines("modules.csv") if name == module)
    if not tags:
        raise KeyError(module)
    return tags


@cache
def study_modules() -> frozenset[int]:
    """The top-level attributes that all instances of a study share: of the Patient and the General Study Module.

    Those that PS3.3 has retired count too: Other Patient IDs and Ethnic Group.
    """
    return module_tags("Patient") | module_tags("General Study") | {0x00101000, 0x00102160}


@cache
def safe_private(edition: str) -> dict[tuple[int, str, int], PrivateElement]:
    """Table E.3.10-1 by group, Private Creator without blanks around it, and low byte of the element.

    Editions before 2017c get the table of 2017c, the oldest at hand. Where it prints OW/OB, OW is meant: implicit
    files have no other (PS3.5 A.1).
    """
    return {
        (int(group, 16), creator.strip(), int(element, 16)): PrivateElement(_PRIVATE_VRS.get(vr, vr), vm, meaning)
        for group, element, creator, vr, vm, meaning in lines_in_force("safe_private", edition)
    }


@cache
def private_dictionary(edition: str = NEWEST) -> dict[tuple[int, str, int], str]:
    """The VRs of private elements, by group, Private Creator without blanks around it, and low byte of the element.

    They are pydicom's, and where the edition's Safe Private Attributes give a VR, those. What has no key here is
    unknown: elements of VR UN, Private Creators themselves, and the few to which pydicom gives two VRs, one in a
    block and one in any, where the Standard doesn't choose.
    """
    from pydicom.datadict import private_dictionaries  # half a megabyte that only implicit files with private data need

    told: dict[tuple[int, str, int], str] = {}
    doubtful = set()
    for creator, elements in private_dictionaries.items():
        for pattern, (printed, *_) in elements.items():
            vr = _PRIVATE_VRS.get(printed, printed)
            for group in _groups(pattern):
                key = group, creator.strip(), int(pattern[6:], 16)
                if told.setdefault(key, vr) != vr:
                    doubtful.add(key)
    vrs = {key: vr for key, vr in told.items() if vr and key not in doubtful}
    return vrs | {key: element.vr for key, element in safe_private(edition).items() if element.vr}


def _groups(pattern: str) -> Iterable[int]:
    """The groups of a private tag of pydicom's: "0019xx10", "00191010", "70xxxx04"; none for "001910xx", a creator."""
    if pattern.endswith("xx"):
        return ()
    if pattern[2:4] == "xx":
        first = int(pattern[:2], 16) << 8
        return range(first + 1, first + 0x100, 2)
    return (int(pattern[:4], 16),)


@cache
def _typed(edition: str) -> frozenset[str]:
    """The tags, as in `types.csv`, on whose Type an edition's code, or the supplement's, may depend."""
    named = [*((row.tag, row.basic) for row in rows(edition)), *((row.tag, row.action) for row in supplement())]
    single = ((tag, code) for tag, code in named if names_one(tag))
    return frozenset(
        tag[1:5] + tag[6:10]
        for tag, code in single
        if code not in _UNTYPED_CODES and not (code == "P" and tag_number(tag) in uid_attributes())
    ).difference(_IN_EVERY_CODE)


@cache
def _types(edition: str) -> tuple[list[str], ...]:
    """Module, path and Type (1, 1C, 2 or 2C) of the attributes that an edition or the supplement names."""
    typed = _typed(edition)
    if edition == "2008":  # protects sequences whole, whatever they are
        typed |= {f"{tag:08X}" for tag, element in dictionary().items() if element.vr == "SQ"}
    return tuple(line for line in lines("types.csv") if line[1][-8:] in typed)


class ReferenceTypes:
    """The Types of sequences whose Items refer to studies, series or instances, SOP Class by SOP Class (PS3.3).

    Where the IOD doesn't hold a sequence, what it is anywhere decides that could matter: in an Item of the same
    sequence, and where the SOP Class isn't known, at any place.
    """

    def __init__(self) -> None:
        self._iods = {uid: iod for uid, iod, _ in lines("sop_classes.csv")}
        modules: dict[str, list[tuple[tuple[int, ...], str]]] = {}
        self._anywhere: dict[tuple[int, ...], str] = {}
        for module, written, kind in lines("reference_types.csv"):
            path = tuple(int(step, 16) for step in written.split(">"))
            modules.setdefault(module, []).append((path, kind))
            for end in (path[-1:], path[-2:]):
                self._anywhere[end] = _stricter(self._anywhere.get(end, kind), kind)
        self._types: dict[tuple[str, tuple[int, ...]], str] = {}
        for iod, module, _ in lines("iods.csv"):
            for path, kind in modules.get(module, ()):
                self._types[iod, path] = _stricter(self._types.get((iod, path), kind), kind)

    def type(self, path: tuple[int, ...], sop_class_uid: str) -> str:
        """The Type of the sequence at a path: 1, 1C, 2, 2C or 3."""
        iod = self._iods.get(sop_class_uid)
        if iod is None:
            return self._anywhere.get(path[-1:], "3")
        found = self._types.get((iod, path))
        return found or (self._anywhere.get(path[-2:], "3") if len(path) > 1 else "3")


def _stricter(one: str, other: str) -> str:
    """Of two Types the one that asks for more: 1, 1C, 2, 2C."""
    return min(one, other, key=lambda kind: (kind[0], len(kind)))


@cache
def reference_types() -> ReferenceTypes:
    """The Types of PS3.3 2026b."""
    return ReferenceTypes()


class Resolution:
    """What the action codes come to on the attributes' Types, SOP Class by SOP Class (PS3.3, PS3.15 E.1.1)."""

    def __init__(self, edition: str) -> None:
        self._iods = {uid: iod for uid, iod, _ in lines("sop_classes.csv")}
        self._typed = frozenset(int(tag, 16) for tag in _typed(edition))
        self._modules: dict[str, list[tuple[str, str]]] = {}
        for iod, module, usage in lines("iods.csv"):
            self._modules.setdefault(iod, []).append((module, usage))
        self._lines: dict[str, list[tuple[str, str]]] = {}
        for module, path, kind in _types(edition):
            self._lines.setdefault(module, []).append((path, kind))
        self._paths: dict[str, tuple[dict[tuple[int, ...], tuple[str, bool]], set[tuple[int, ...]]]] = {}

    def _of(self, sop_class_uid: str) -> tuple[dict[tuple[int, ...], tuple[str, bool]], set[tuple[int, ...]]]:
        """By path the Type in a SOP Class's IOD and whether a mandatory module gives it, and the sequences above them.

        Read when first asked for. Of several modules' Types the strictest holds.
        """
        iod = self._iods.get(sop_class_uid, "")
        if iod not in self._paths:
            strictest: dict[str, tuple[str, bool]] = {}
            for module, usage in self._modules.get(iod, ()):
                for path, kind in self._lines.get(module, ()):
                    found = kind, usage == "M"
                    strictest[path] = min(strictest.get(path, found), found, key=_strictness)
            types = {tuple(int(step, 16) for step in path.split(">")): it for path, it in strictest.items()}
            self._paths[iod] = types, {path[:depth] for path in types for depth in range(1, len(path))}
        return self._paths[iod]

    def known(self, sop_class_uid: str) -> bool:
        """Whether the Types of its attributes are known."""
        return sop_class_uid in self._iods

    def below(self, sop_class_uid: str, path: tuple[int, ...]) -> bool:
        """Whether any Type decides inside the sequence at `path`."""
        return path in self._of(sop_class_uid)[1]

    def type(self, path: tuple[int, ...], sop_class_uid: str) -> str:
        """The Type of the attribute at a path: 1, 1C, 2, 2C or 3; what the IOD doesn't hold is as Type 3.

        Returns:
          "" where it isn't known: a SOP Class without Types, or an attribute whose code no Type changes (K, U, none).
        """
        found = self._of(sop_class_uid)[0].get(path)
        if found:
            return found[0]
        return "3" if path[-1] in self._typed and self.known(sop_class_uid) else ""

    def action(self, path: tuple[int, ...], sop_class_uid: str, code: str) -> str:
        """The one action that a code comes to at a path of a known SOP Class.

        Types 1 and 1C ask for a dummy, 2 and 2C for an empty value; what the IOD doesn't hold is as Type 3, and goes.
        A literal X or Z that would break a Type 1 or 2 of a mandatory module gives way to what the Type needs.
        P, the one code of 2008, is read so of all but UIDs; that those are mapped is the caller's to say.
        """
        kind, mandatory = self._of(sop_class_uid)[0].get(path, ("3", False))
        if code in _BY_TYPE:
            return _BY_TYPE[code][kind[0]]
        return _LITERAL.get((code, kind), code) if mandatory else code


def _strictness(found: tuple[str, bool]) -> tuple[str, int, bool]:
    """Sorts 1, 1C, 2, 2C, and of equals the one that a mandatory module gives first."""
    (kind, mandatory) = found
    return kind[0], len(kind), not mandatory


@cache
def resolved(edition: str) -> Resolution:
    """The Types of PS3.3 2026b applied to the codes of an edition."""
    return Resolution(edition)


@cache
def digest(edition: str = NEWEST) -> str:
    """SHA-256 over the tables that an edition's decisions hang on, 16 hexadecimal digits, for fingerprints.

    Another edition's rows, and the Types that only it asks for, don't change it, nor do those of references.
    """
    total = hashlib.sha256()
    for table in sorted(_TABLES.glob("*.csv")):
        if table.name not in ("types.csv", _REFERENCES.name):
            total.update(_named(table))
    for folder in sorted(_TABLES.iterdir()):
        if folder.name == edition:
            total.update(b"".join(map(_named, sorted(folder.glob("*.csv")))))
        elif folder.is_dir() and folder.name not in EDITIONS and any(folder.glob("*.csv")):
            total.update(_named(_in_force(folder, edition)))
    total.update("\n".join(map(",".join, _types(edition))).encode())
    return total.hexdigest()[:16]


@cache
def reference_digest() -> str:
    """The same of what decides on references that go, 16 hexadecimal digits."""
    return hashlib.sha256(_named(_REFERENCES)).hexdigest()[:16]


def _named(table: Path) -> bytes:
    return str(table.relative_to(_TABLES)).encode() + b"\0" + table.read_bytes()

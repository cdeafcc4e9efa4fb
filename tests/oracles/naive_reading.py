"""The rules read naively: Table E.1-1 line by line, and a request's lines as they are meant, on a pydicom data set.

Slow and obvious on purpose. Of the product it uses the tables themselves, the Types as `standard.resolved` reads them,
and mappers that have tests of their own (UIDs, pseudonyms, days); not how it compiles, walks or encodes.
"""

import base64
import csv
import datetime
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

import dicomveil
from dicomveil import standard
from dicomveil.dates import shift_days
from dicomveil.keys import Keys
from dicomveil.pseudonyms import known_patient_id, patient_pseudonym, study_pseudonym
from dicomveil.testing import CT, EXPLICIT, Syntax, part10
from dicomveil.uids import new_uid
from tests.corpora import KEY

TABLES = Path(dicomveil.__file__).parent / "tables"
KEYS = Keys(KEY)

COLUMNS = {
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
"""Which column of Table E.1-1 an Option is."""
FULL, MODIFIED = "RetainLongitudinalFullDates", "RetainLongitudinalModifiedDates"
MARKS = (0x00120062, 0x00120063, 0x00120064, 0x00280303)
"""What the output says of its own de-identification, at the top level."""
CHARACTER_SET, SCHEME, MEANING = 0x00080005, 0x00080102, 0x00080104
PATIENT_NAME, PATIENT_ID, DOCUMENT = 0x00100010, 0x00100020, 0x00420011
REFERENCED_INSTANCE, TIMEZONE, FRAME_ORIGIN = 0x00081155, 0x00080201, 0x00340007
OF_STUDY = (0x00081110, 0x30060012)
BIRTH_DATES = (0x00100030, 0x00100033)
ROLES = {0x00100020: "patient", 0x0020000D: "study", 0x0020000E: "series", 0x00080018: "instance",
         0x00200052: "frame-of-reference"}  # fmt: skip

# Dates that no patient owns, beside those in the column of Retain Device Identity.
VOCABULARIES = ("ContextGroupVersion", "ContextGroupLocalVersion", "TemplateVersion", "TemplateLocalVersion")
CERTIFICATES = ("CertifiedTimestamp", "DigitalSignatureDateTime")
PRODUCTS = ("ProductExpirationDateTime", "EffectiveDateTime", "ExpiryDate")
CALIBRATIONS = ("DateOfGainCalibration", "TimeOfGainCalibration")
PROCEDURES = ("ProcedureCreationDate", "ProcedureExpirationDate")
TRIALS = ("EthicsCommitteeApprovalEffectivenessStartDate", "EthicsCommitteeApprovalEffectivenessEndDate")
NOBODYS = {*VOCABULARIES, *CERTIFICATES, *PRODUCTS, *CALIBRATIONS, *PROCEDURES, *TRIALS}
UNKNOWN_SOP_CLASS = {"X/Z": "Z", "X/D": "D", "Z/D": "D", "X/Z/D": "D", "P": "D"}
TEXT = ("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT")
KNOWN = "Chest"
"""A word that any vocabulary has; all other text is taken to be unknown to it."""


def table(*path: str) -> list[dict[str, str]]:
    """The lines of one of the tables, by column."""
    with TABLES.joinpath(*path).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@cache
def rows(edition: str) -> dict[int, dict[str, str]]:
    """The rows of Table E.1-1 that name one tag, by tag."""
    found = [row for row in table(edition, "e1_1.csv") if re.fullmatch(r"\([0-9A-F]{4},[0-9A-F]{4}\)", row["tag"])]
    return {standard.tag_number(row["tag"]): row for row in found}


@cache
def supplement() -> dict[int, dict[str, str]]:
    return {standard.tag_number(row["tag"]): row for row in table("supplement.csv") if "x" not in row["tag"]}


@cache
def dictionary() -> dict[int, str]:
    """The VR of each attribute, the first of several."""
    return {int(row["tag"], 16): row["vr"].split(" ")[0] for row in table("data_elements.csv")}


# ------------------------------------------------------------------------------------------------- reading the table


def code(tag: int, edition: str, options: tuple[str, ...], ours: bool = True) -> str:
    """The action code of an attribute under some Options: one of Table E.1-1, or "text", "dates" or "enter" for C."""
    row = rows(edition).get(tag)
    if row is not None:
        if row["modified_dates"] and (row["device"] == "K" or row["keyword"] in NOBODYS):
            return "K" if FULL in options else row["basic"]
        cells = {COLUMNS[option]: row[COLUMNS[option]] for option in options if option in COLUMNS}
        cleaned = [column for column, cell in cells.items() if cell == "C"]
        if cleaned:
            return {"modified_dates": "dates", "structured": "enter", "graphics": "enter"}.get(cleaned[0], "text")
        return "K" if "K" in cells.values() else row["basic"]
    line = supplement().get(tag) if ours else None
    if line is None:
        return "K"
    if line["action"] == "U":
        return "K" if "RetainUIDs" in options else "U"
    if dictionary()[tag] in ("DA", "DT", "TM") and line["action"] != "K":
        if FULL in options:
            return "K"
        if MODIFIED in options and line["keyword"] not in NOBODYS:
            return "dates"
    return line["action"]


def by_type(code: str, path: tuple[int, ...], edition: str, sop_class: str, references: str = "map") -> str:
    """A code as one action, by the Type that the attribute has where it stands: X, Z, D, U, K, or as `code` has C."""
    vr, types = dictionary()[path[-1]], standard.resolved(edition)
    if code == "X/Z/U*" and references == "map":
        return "enter"
    if code == "P" and vr == "UI":
        return "U"
    if code not in ("K", "U", "text", "dates", "enter", "code-meaning"):
        code = types.action(path, sop_class, code) if types.known(sop_class) else UNKNOWN_SOP_CLASS.get(code, code)
    if code == "D" and vr == "UI":
        return "U"
    return "enter" if code in ("K", "U", "U*", "text") and vr == "SQ" else code


# ------------------------------------------------------------------------------------------------------ expectations


@dataclass(frozen=True)
class Raw:
    """These very bytes."""

    value: bytes


@dataclass(frozen=True)
class Says:
    """This text, in whatever character set."""

    text: str


@dataclass(frozen=True)
class Dummy:
    """A value that is legal for its VR, and not the original."""

    original: bytes


@dataclass(frozen=True)
class Empty:
    """A value of zero length."""


@dataclass(frozen=True)
class Holds:
    """Items, as each is expected."""

    items: tuple["Expected", ...]


Expected = dict[int, "Raw | Says | Dummy | Empty | Holds"]
"""What a data set must hold, by tag: no more and no less."""

LEGAL = {
    "AE": r"[ -~]{1,16}", "AS": r"\d{3}[DWMY]", "CS": r"[A-Z0-9_ ]{1,16}", "DA": r"\d{8}", "DS": r"[-+.\deE ]{1,16}",
    "DT": r"\d{4,14}(\.\d{1,6})?", "IS": r"[-+\d ]{1,12}", "LO": r".{1,64}", "LT": r".{1,10240}", "PN": r"[^=\\]{1,64}",
    "SH": r".{1,16}", "ST": r".{1,1024}", "TM": r"\d{2,6}(\.\d{1,6})?", "UC": r".+", "UI": r"[.\d]{1,64}",
    "UR": r"[a-z]+:.+", "UT": r".+",
}  # fmt: skip
SIZES = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "OW": 2, "OF": 4, "OD": 8, "OL": 4, "AT": 4, "OB": 2,
         "UN": 2}  # fmt: skip


# ----------------------------------------------------------------------------------------------- data sets as they are


@dataclass(frozen=True)
class Leaf:
    """An element as pydicom reads it: its VR, its bytes and its text."""

    vr: str
    raw: bytes
    text: str


Tree = dict[int, "Leaf | list[Tree]"]


def read(data: bytes) -> Tree:
    """Everything in a file's data set."""
    return _tree(pydicom.dcmread(io.BytesIO(data)))


def _tree(ds: Dataset) -> Tree:
    tree: Tree = {}
    for tag in sorted(ds.keys()):
        given = ds.get_item(tag)
        value = given.value if given is not None else b""
        element = ds[tag]
        if element.VR == "SQ":
            tree[int(tag)] = [_tree(item) for item in element.value or []]
        else:
            values = element.value if isinstance(element.value, MultiValue) else [element.value]
            text = "" if element.value is None else "\\".join(map(str, values))
            tree[int(tag)] = Leaf(element.VR, value if isinstance(value, bytes) else b"", text.strip(" \0"))
    return tree


Plan = dict[int, "tuple[str, bytes | str | int] | list[Plan]"]
"""A data set to lay out: VR and value of each leaf, the Items of each sequence."""


def laid_out(plan: Plan, syntax: Syntax, undefined: bool = False) -> bytes:
    """The bytes of a data set."""
    elements = []
    for tag, what in sorted(plan.items()):
        if isinstance(what, list):
            items = [laid_out(item, syntax, undefined) for item in what]
            elements.append(syntax.sequence(tag, items, undefined, item_undefined=undefined))
        else:
            elements.append(syntax.element(tag, *what))
    return b"".join(elements)


def instance(plan: Plan, sop_class: str = CT, uid: str = EXPLICIT, undefined: bool = False) -> bytes:
    """A file around a data set, with what an instance can't be without."""
    whole: Plan = {
        0x00080016: ("UI", sop_class), 0x00080018: ("UI", "1.2.3.4.5"), 0x0020000D: ("UI", "1.2.3.4"),
        0x0020000E: ("UI", "1.2.3.4.1"),
    }  # fmt: skip
    return part10(laid_out(whole | plan, Syntax(uid), undefined), uid, sop_class)


# ------------------------------------------------------------------------------------------------------- comparisons


def mismatches(expected: Expected, tree: Tree, where: str = "") -> Iterator[str]:
    """Where a data set isn't as expected, and how."""
    yield from (f"{where}{tag:08X} is left: {tree[tag]}" for tag in sorted(tree.keys() - expected.keys()))
    for tag, wish in expected.items():
        here, there = f"{where}{tag:08X}", tree.get(tag)
        if there is None:
            yield f"{here} is missing: {wish}"
        elif isinstance(wish, Holds) and isinstance(there, list) and len(there) == len(wish.items):
            for number, (item, inside) in enumerate(zip(wish.items, there, strict=True)):
                yield from mismatches(item, inside, f"{here}[{number}].")
        elif not _meets(wish, there, tag):
            yield f"{here} should be {wish}: {there}"


def _meets(wish: "Raw | Says | Dummy | Empty | Holds", there: "Leaf | list[Tree]", tag: int) -> bool:
    if isinstance(there, list):
        dummy = len(there) == 1 and bool(there[0])
        return dummy if isinstance(wish, Dummy) else isinstance(wish, Empty) and not there
    if isinstance(wish, Raw):
        return there.raw == wish.value
    if isinstance(wish, Dummy):
        return there.raw != wish.original and legal(tag, there)
    says = isinstance(wish, Says) and there.text.casefold() == wish.text.casefold()
    return says or (isinstance(wish, Empty) and not there.raw)


def legal(tag: int, leaf: Leaf) -> bool:
    """Whether a value is one that its VR allows, and not empty."""
    vr = dictionary().get(tag, leaf.vr)
    if vr in LEGAL:
        return bool(re.fullmatch(LEGAL[vr], leaf.text))
    return bool(leaf.raw) and len(leaf.raw) % SIZES[vr] == 0


# ------------------------------------------------------------------------------------------------- the request's lines


@dataclass(frozen=True)
class Line:
    """One entry of Keep, Replace or Remove.

    Attributes:
      kind: keep, replace or remove.
      name: a tag with x for any digit, "0008103E"; or, of a private element, group and low byte, and its creator.
      steps: sequence (named likewise) and Item (-1 for all) on the way to it.
      anywhere: **.
      value: of Replace.
    """

    kind: str
    name: str
    creator: str = ""
    steps: tuple[tuple[str, str, int], ...] = ()
    anywhere: bool = False
    value: str = ""

    @property
    def text(self) -> str:
        """As a body has it."""
        way = "".join(f"{_spelled(*step[:2])}[{'*' if step[2] < 0 else step[2]}]." for step in self.steps)
        return ("**." if self.anywhere else way) + _spelled(self.name, self.creator)


def _spelled(name: str, creator: str) -> str:
    return f"({name[:4]},[{creator}],{name[6:]})" if creator else f"{name[:4]},{name[4:]}"


def _named(name: str, creator: str, tag: int, holder: str) -> bool:
    digits = f"{tag:08X}"
    if creator:
        return holder == creator and digits[:4] == name[:4] and digits[6:] == name[6:] and digits[4:6] != "00"
    return all(mine in ("x", theirs) for mine, theirs in zip(name, digits, strict=True))


Way = tuple[tuple[int, str, int], ...]
"""The sequences around an Item, from the top inwards: tag, creator, number."""


@dataclass
class Naive:
    """A request's rules, read naively.

    Attributes:
      vrs: of private elements, by group, creator and low byte, as far as they are known.
      safe: the keys of those that are known to be safe.
      days: the range of DateShift.
      pseudonyms: the tags of what becomes a keyed pseudonym.
    """

    edition: str = standard.NEWEST
    options: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    keep_private: bool = False
    map_in_kept: bool = False
    references: str = "map"
    ours: bool = True
    days: tuple[int, int] = (30, 3650)
    cap_ages: bool = False
    pseudonyms: tuple[int, ...] = ()
    template: str = "{PatientID}"
    vrs: dict[tuple[int, str, int], str] = field(default_factory=dict)
    safe: frozenset[tuple[int, str, int]] = frozenset()

    def expected(self, tree: Tree, sop_class: str = CT) -> Expected:
        """What must become of a data set, but for the marks."""
        self._sop_class, self._identities = sop_class, Identities(tree, self)
        found = self._data_set(tree, (), frozen=False)
        given = {ROLES[int(line.name, 16)] for line in self.lines if line.kind == "replace" and self._is_role(line)}
        if "patient" not in given | self._identities.kept and PATIENT_ID not in tree:
            found[PATIENT_ID] = Says(self._identities.patient)
        return found

    def _is_role(self, line: Line) -> bool:
        return not line.steps and not line.anywhere and "x" not in line.name and int(line.name, 16) in ROLES

    # --------------------------------------------------------------------------------------------------- which line

    def verdict(self, way: Way, tag: int, creator: str, frozen: bool) -> Line | None:
        """The line that decides on an attribute."""
        here = [line for line in self.lines if self._leads(line, way) and _named(line.name, line.creator, tag, creator)]
        general = [
            line
            for line in self.lines
            if not line.steps and _named(line.name, line.creator, tag, creator)
            and (not way or line.anywhere or line.kind != "replace")
        ]  # fmt: skip
        if not way:
            return _first(general, ("keep", "replace", "remove"))
        return _first(here, ("replace", "remove", "keep")) or (
            None if frozen else _first(general, ("keep", "replace", "remove"))
        )

    def _leads(self, line: Line, way: Way) -> bool:
        return len(line.steps) == len(way) > 0 and all(
            _named(name, holder, tag, creator) and item in (-1, number)
            for (name, holder, item), (tag, creator, number) in zip(line.steps, way, strict=True)
        )

    # ------------------------------------------------------------------------------------------------------ data sets

    def _data_set(self, tree: Tree, way: Way, frozen: bool) -> Expected:
        found: Expected = {}
        creators = {
            (tag >> 16, tag & 0xFF): what.text
            for tag, what in tree.items()
            if tag & 0x10000 and 0x10 <= tag & 0xFFFF <= 0xFF and isinstance(what, Leaf)
        }
        for tag, what in tree.items():
            creator = creators.get((tag >> 16, tag >> 8 & 0xFF), "") if tag & 0x10000 else ""
            if tag & 0x10000 and not tag & 0xFF00:
                continue
            wish = self._element(tree, tag, what, creator, way, frozen)
            if wish is not None:
                found[tag] = wish
        self._insert(tree, way, found, creators)
        for (group, block), name in creators.items():
            tag = group << 16 | block
            if tag not in tree:
                continue
            line = self.verdict(way, tag, name, frozen)
            used = any(other >> 8 == group << 8 | block for other in found)
            named = (line is not None and line.kind == "keep") or (frozen and (line is None or line.kind == "keep"))
            if used or named:
                found[tag] = Raw(_leaf(tree, tag).raw)
        return found

    def _insert(self, tree: Tree, way: Way, found: Expected, creators: dict[tuple[int, int], str]) -> None:
        """What Replace writes where it is missing: an exact tag, at the top level or in an Item that a path names."""
        for line in sorted(self.lines, key=_ordered):
            meant = (self._leads(line, way) if way else not line.steps) and not line.anywhere
            if line.kind != "replace" or not meant or "x" in line.name or self._is_role(line):
                continue
            if line.creator:
                group = int(line.name[:4], 16)
                taken = {block: name for (of, block), name in creators.items() if of == group}
                block = next((block for block in sorted(taken) if taken[block] == line.creator), None)
                new = block is None
                block = max(taken, default=0x0F) + 1 if block is None else block
                tag = group << 16 | block << 8 | int(line.name[6:], 16)
            else:
                tag, new = int(line.name, 16), False
                if tag & 0x10000:
                    continue
            if self.verdict(way, tag, line.creator, False) is line and tag not in tree:
                found[tag] = self._written(line, tag)
                if new:
                    creators[tag >> 16, tag >> 8 & 0xFF] = line.creator
                    found[tag >> 16 << 16 | tag >> 8 & 0xFF] = Says(line.creator)

    def _element(
        self, tree: Tree, tag: int, what: "Leaf | list[Tree]", creator: str, way: Way, frozen: bool
    ) -> "Raw | Says | Dummy | Empty | Holds | None":
        line = self.verdict(way, tag, creator, frozen) if tag != CHARACTER_SET else None
        if line is not None and line.kind == "replace":
            return self._written(line, tag)
        if line is not None and line.kind == "remove":
            return None
        kept = line is not None
        if tag & 0x10000:
            return self._private(tag, what, creator, way, frozen, kept)
        if tag >> 16 in (0, 2, 4) or not tag & 0xFFFF:
            return None
        if tag not in dictionary():
            return self._same(tag, what, creator, way, frozen) if kept or frozen else None
        if tag in (CHARACTER_SET, SCHEME):
            return Raw(_leaf(tree, tag).raw)
        if frozen:
            return self._frozen(tag, what, creator, way)
        if not way and tag == PATIENT_ID and "patient" not in self._identities.kept:
            return Says(self._identities.patient)
        if kept:
            return self._same(tag, what, creator, way, frozen=True)
        return self._by_table(tree, tag, what, way)

    def _written(self, line: Line, tag: int) -> "Says | Empty":
        return Says(line.value) if line.value else Empty()

    def _same(
        self, tag: int, what: "Leaf | list[Tree]", creator: str, way: Way, frozen: bool
    ) -> "Raw | Says | Empty | Holds":
        if isinstance(what, Leaf):
            return self._whole(tag, self._vr(tag, what, creator) if tag & 0x10000 else dictionary().get(tag, ""), what)
        return Holds(
            tuple(self._data_set(item, (*way, (tag, creator, number)), frozen) for number, item in enumerate(what))
        )

    def _whole(self, tag: int, vr: str, leaf: Leaf) -> "Raw | Says | Empty":
        """What is kept byte for byte, but for ages over 89."""
        if not self.cap_ages or (vr != "AS" and tag not in BIRTH_DATES):
            return Raw(leaf.raw)
        if tag in BIRTH_DATES:
            return Empty()
        values = [value if _is_young(value) else "090Y" * _is_age(value) for value in leaf.text.split("\\")]
        return Says("\\".join(values))

    def _frozen(self, tag: int, what: "Leaf | list[Tree]", creator: str, way: Way) -> "Raw | Says | Holds":
        uid = isinstance(what, Leaf) and self._vr(tag, what, creator) == "UI" and _role(tag) != "definition"
        if isinstance(what, Leaf) and uid and self.map_in_kept:
            return self._mapped(what, _role(tag), way)
        return self._same(tag, what, creator, way, frozen=True)

    # ----------------------------------------------------------------------------------------------------- the table

    def _by_table(
        self, tree: Tree, tag: int, what: "Leaf | list[Tree]", way: Way
    ) -> "Raw | Says | Dummy | Empty | Holds | None":
        path = (*(step[0] for step in way), tag)
        if tag == PATIENT_ID:
            text = self._identities.pseudonym(_leaf(tree, tag).text)
            return Says(text) if text else Empty()
        if tag == PATIENT_NAME and not way:
            return Says(self.template.replace("{PatientID}", self._identities.name))
        asked = code(tag, self.edition, self.options, self.ours)
        if tag in self.pseudonyms and asked != "K":
            text = _leaf(tree, tag).text
            label = {0x00080050: "accession", 0x00200010: "study-id"}[tag]
            return Says(base64.b32encode(KEYS.derive(label, text.encode())[:10]).decode()) if text else Empty()
        if asked == "code-meaning" or (tag == MEANING and "CleanDescriptors" in self.options):
            line = self.verdict(way, SCHEME, "", False)
            scheme = tree.get(SCHEME) if line is None or line.kind == "keep" else None
            registered = isinstance(scheme, Leaf) and scheme.text in standard.coding_schemes()
            return Raw(_leaf(tree, tag).raw) if registered else Dummy(_leaf(tree, tag).raw)
        action = by_type(asked, path, self.edition, self._sop_class, self.references)
        if action == "text":
            words = _leaf(tree, tag).text
            if dictionary()[tag] in TEXT and KNOWN.casefold() in words.casefold():
                return Says(KNOWN)
            action = self._basic(path)
        if action == "dates":
            wish = self._moved(tag, _leaf(tree, tag))
            if wish is not None:
                return wish
            kind = standard.resolved(self.edition).type(path, self._sop_class)
            needed = self._basic(path) == "D" or kind.startswith("1")
            action = "D" if needed else "Z" if self._can_move(tag) else self._basic(path)
        return self._done(action, tag, what, way)

    def _can_move(self, tag: int) -> bool:
        return dictionary()[tag] in ("DA", "DT", "TM") or tag in (TIMEZONE, FRAME_ORIGIN)

    def _moved(self, tag: int, leaf: Leaf) -> "Raw | Says | None":
        """A date moved, a time as it is; None for what is neither."""
        vr = dictionary()[tag]
        if tag == FRAME_ORIGIN:
            seconds = int.from_bytes(leaf.raw[:6], "big") + 86400 * self._identities.days
            good = len(leaf.raw) == 10 and int.from_bytes(leaf.raw[6:], "big") < 10**9 and 0 <= seconds < 2**48
            return Raw(seconds.to_bytes(6, "big") + leaf.raw[6:]) if good else None
        if vr in ("TM", "SH"):
            form = r"[+-]\d{4}" if vr == "SH" else r"\d{2}(:?\d{2}(:?\d{2}(\.\d{1,6})?)?)?"
            return Raw(leaf.raw) if re.fullmatch(form, leaf.text) or not leaf.text else None
        whole = vr in ("DA", "DT") and all(
            re.fullmatch(r"\d{8}" if vr == "DA" else r"\d{8}[\d.+-]*", value)
            for value in leaf.text.split("\\")
            if value
        )
        return Says(self._identities.shifted(leaf.text)) if whole else None

    def _basic(self, path: tuple[int, ...]) -> str:
        return by_type(code(path[-1], self.edition, (), self.ours), path, self.edition, self._sop_class)

    def _done(
        self, action: str, tag: int, what: "Leaf | list[Tree]", way: Way
    ) -> "Raw | Says | Dummy | Empty | Holds | None":
        if action == "X":
            return None
        if action == "Z":
            return Empty()
        if action == "D":
            return Dummy(what.raw if isinstance(what, Leaf) else b"")
        if action == "U" and isinstance(what, Leaf):
            return self._mapped(what, _role(tag), way)
        return self._same(tag, what, "", way, frozen=False)

    def _mapped(self, what: Leaf, role: str, way: Way) -> "Says | Raw":
        if way and way[-1][0] in OF_STUDY and role == "instance":
            role = "study"
        news = [self._identities.uid(value, role) if value else "" for value in what.text.split("\\")]
        return Says("\\".join(news))

    # ---------------------------------------------------------------------------------------------- private elements

    def _vr(self, tag: int, what: "Leaf | list[Tree]", creator: str) -> str:
        if isinstance(what, list):
            return "SQ"
        known = self.vrs.get((tag >> 16, creator, tag & 0xFF), "") if tag & 0x10000 else ""
        return what.vr if what.vr != "UN" else known

    def _private(
        self, tag: int, what: "Leaf | list[Tree]", creator: str, way: Way, frozen: bool, kept: bool
    ) -> "Raw | Says | Empty | Holds | None":
        if frozen:
            return self._frozen(tag, what, creator, way)
        if kept:
            return self._same(tag, what, creator, way, frozen=True)
        safe = (tag >> 16, creator, tag & 0xFF) in self.safe
        if not safe and not self.keep_private:
            return None
        vr = self._vr(tag, what, creator)
        if isinstance(what, list):
            return self._same(tag, what, creator, way, frozen=False)
        if vr == "UI":
            return self._mapped(what, "other", way)
        if not safe or vr not in ("LO", "SH", "ST", "LT", "UT", "UC", "PN", "DA", "DT", "TM", "UI", "UN", ""):
            return self._whole(tag, vr, what)
        if vr in TEXT:
            return Says(KNOWN) if KNOWN.casefold() in what.text.casefold() else None
        if FULL in self.options and vr in ("DA", "DT", "TM"):
            return Raw(what.raw)
        if MODIFIED in self.options and vr in ("DA", "DT", "TM"):
            return Raw(what.raw) if vr == "TM" else Says(self._identities.shifted(what.text))
        return None


def _first(lines: list[Line], order: tuple[str, ...]) -> Line | None:
    for kind in order:
        found = [line for line in lines if line.kind == kind]
        if found:
            return min(found, key=_ordered)
    return None


def _ordered(line: Line) -> tuple[object, ...]:
    """Of several that replace one attribute, the one that says most exactly where."""
    return line.anywhere, [item < 0 for *_, item in line.steps], not line.creator, line.text


def _is_age(value: str) -> bool:
    return bool(re.fullmatch(r" *\d+ *[DWMYdwmy]? *", value))


def _is_young(value: str) -> bool:
    """Whether a value of AS is under 90 years, or none at all."""
    if not value.strip(" \0"):
        return True
    if not _is_age(value):
        return False
    number, unit = int(re.findall(r"\d+", value)[0]), value.strip()[-1].upper()
    return number < {"D": 32850, "W": 32850 / 7, "M": 1080}.get(unit, 90)


def _leaf(tree: Tree, tag: int) -> Leaf:
    what = tree[tag]
    assert isinstance(what, Leaf)
    return what


def _role(tag: int) -> str:
    role = standard.uid_attributes().get(tag)
    return role.role if role else "other"


class Identities:
    """What one instance's identifiers become."""

    def __init__(self, tree: Tree, naive: Naive) -> None:
        patient_id = tree.get(PATIENT_ID)
        self._original = known_patient_id(patient_id.text) if isinstance(patient_id, Leaf) else ""
        study = _leaf(tree, 0x0020000D).text
        self.name = patient_pseudonym(KEYS, self._original) if self._original else study_pseudonym(KEYS, study)
        whole = [line for line in naive.lines if not line.steps and line.name in {f"{tag:08X}" for tag in ROLES}]
        self.kept = {ROLES[int(line.name, 16)] for line in whole if line.kind == "keep"}
        if "RetainUIDs" in naive.options:
            self.kept |= {"study", "series", "instance", "frame-of-reference"}
        self.given = {
            ROLES[int(line.name, 16)]: line.value
            for line in whole
            if line.kind == "replace" and ROLES[int(line.name, 16)] not in self.kept
        }
        self.patient = self._original if "patient" in self.kept else self.given.get("patient", self.name)
        self._borne = {what.text: role for tag, role in ROLES.items() if isinstance(what := tree.get(tag), Leaf)}
        self.days = shift_days(KEYS, self._original or f"study {study}", naive.days)

    def pseudonym(self, patient_id: str) -> str:
        """Of a Patient ID in an Item."""
        known = known_patient_id(patient_id)
        if known and known == self._original:
            return self.patient
        return patient_pseudonym(KEYS, known) if known else ""

    def uid(self, uid: str, role: str) -> str:
        borne = self._borne.get(uid, "")
        if uid in standard.registered_uids():
            return uid
        if borne in self.given and borne != "patient":
            return self.given[borne]
        return uid if (borne or role) in self.kept else new_uid(KEYS, uid)

    def shifted(self, text: str) -> str:
        """Each full date, moved by the patient's days."""
        values = []
        for value in text.split("\\") if text else []:
            day = datetime.date(int(value[:4]), int(value[4:6]), int(value[6:8])) + datetime.timedelta(self.days)
            values.append(day.strftime("%Y%m%d") + value[8:])
        return "\\".join(values)

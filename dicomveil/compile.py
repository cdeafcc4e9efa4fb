"""From a request to a decision table: every attribute, at every depth, gets exactly one decision with its reason.

Precedence is settled here, once, and not while data sets are walked: Table E.1-1, then the supplement, then the
dictionary (what it lists and no table names is kept), and what no dictionary lists is removed.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from dicomveil import actions, marks, standard
from dicomveil.decision import ENTER, NOTHING, Act, Decision, Literal, Node
from dicomveil.request import Request

RECIPE: Final = 1
"""The number of the output's recipe: changes whenever yesterday's input would give other bytes today."""

PATIENT_NAME: Final = 0x00100010
PATIENT_ID: Final = 0x00100020
CODING_SCHEME: Final = 0x00080102
SPECIFIC_CHARACTER_SET: Final = 0x00080005
ENCAPSULATED_DOCUMENT: Final = 0x00420011
_CONSTANTS: Final[dict[str, Callable[[int, str], Literal]]] = {
    "X": actions.removed,
    "Z": actions.emptied,
    "D": actions.dummy,
}
_UNKNOWN_SOP_CLASS: Final = {"X/Z": "Z", "X/D": "D", "Z/D": "D", "X/Z/D": "D", "X/Z/U*": "U*"}
REMOVED_GROUPS: Final = frozenset((0x0000, 0x0002, 0x0004))

# Looked at when the walk is done: how Pixel Data is laid out, and an encapsulated document's type and length.
NOTED: Final = (
    0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102,
    0x00420012, 0x00420015, 0x7FE00008, 0x7FE00009, 0x7FE00010,
)  # fmt: skip
OVERLAY_BIT_POSITION: Final = 0x0102
OVERLAY_DATA: Final = 0x3000


class DecisionTable:
    """The decisions that one request asks for, by SOP Class; small, made of them as they are met.

    Attributes:
      request: what it was compiled from.
      fingerprint: 16 hexadecimal digits over request, edition, tables and recipe: equal fingerprints give equal output
        under one key.
      marks: what the top level must hold, inserted where it is missing; the last one first.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self._edition = request.dicom_version
        self._codes = _codes(request)
        self._resolved = standard.resolved(self._edition)
        self._nodes: dict[str, Node] = {}
        self._marks = {mark.tag: mark for mark in _marks(self._edition)}
        self.marks = tuple(sorted(self._marks.values(), key=lambda mark: -mark.tag))
        self.fingerprint = _fingerprint(request)

    def __reduce__(self) -> tuple[Callable[[Request], "DecisionTable"], tuple[Request]]:
        return compile_request, (self.request,)

    def node(self, sop_class_uid: str) -> Node:
        """The decisions for the top level of an instance; those for its Items hang below it."""
        node = self._nodes.get(sop_class_uid)
        if node is None:
            known = sop_class_uid if self._resolved.known(sop_class_uid) else ""
            if known not in self._nodes:
                self._nodes[known] = self._node(known, ())
            node = self._nodes[sop_class_uid] = self._nodes[known]
        return node

    def decision(self, tag: int) -> Decision:
        """The decision on a top-level attribute of any SOP Class that isn't simply kept."""
        decision = self._decide("", (), tag)[0]
        assert decision is not None
        return decision

    def _node(self, sop_class_uid: str, path: tuple[int, ...]) -> Node:
        return Node(partial(self._decide, sop_class_uid, path), partial(self._descend, sop_class_uid, path))

    def _descend(self, sop_class_uid: str, path: tuple[int, ...], tag: int) -> Node:
        """The node below a sequence; where no Type is known any deeper, one node serves all depths."""
        below = (*path, tag)
        if self._resolved.below(sop_class_uid, below):
            return self._node(sop_class_uid, below)
        key = f"{sop_class_uid} Items"
        if key not in self._nodes:
            self._nodes[key] = self._node(sop_class_uid, (0,))
        return self._nodes[key]

    def _decide(self, sop_class_uid: str, path: tuple[int, ...], tag: int) -> tuple[Decision | None, bool]:
        """The decision on an attribute, and whether it may be remembered."""
        element = standard.dictionary().get(tag)
        if element is None or tag >> 16 in REMOVED_GROUPS or not tag & 0xFFFF:
            return _outside(tag), False
        if not path and tag in self._marks:
            return self._marks[tag], True
        code, rule = self._codes.get(tag, ("K", ""))
        return self._decision(sop_class_uid, path, tag, element, code, rule), True

    def _decision(
        self, sop_class_uid: str, path: tuple[int, ...], tag: int, element: standard.Element, code: str, rule: str
    ) -> Decision | None:
        vr = element.vr.split(" ")[0]
        make = partial(Decision, tag, element.keyword, vr)
        special = _special(tag, code, top=not path)
        if special:
            return make(special[0], rule, act=special[1])
        if not path and (tag in NOTED or (tag == ENCAPSULATED_DOCUMENT and code != "K")):
            return make("K" if tag in NOTED else "D", rule, noted=True)
        action = self._action(sop_class_uid, path, tag, code)
        if action == "D" and vr == "UI":
            action = "U"  # a constant would make one of many; a mapped UID is a dummy too
        if action == "U" and vr != "SQ":
            return make("U", rule, act=actions.map_uid)
        if action in _CONSTANTS:
            return make(action, rule, literal=_CONSTANTS[action](tag, vr))
        return ENTER if vr == "SQ" else None

    def _action(self, sop_class_uid: str, path: tuple[int, ...], tag: int, code: str) -> str:
        """A compound code as one action, by the attribute's Type in the SOP Class's IOD (PS3.15 E.1.1)."""
        if code == "X/Z/U*" and self.request.reference_sequences == "map":
            return "U"
        if code in ("K", "U"):
            return code
        if not sop_class_uid:
            return _UNKNOWN_SOP_CLASS.get(code, code)
        return self._resolved.action((*path, tag), sop_class_uid, code)


def compile_request(request: Request) -> DecisionTable:
    """The decision table that carries out a request."""
    return DecisionTable(request)


def _codes(request: Request) -> dict[int, tuple[str, str]]:
    """The action code of each attribute that is named by a table, and the table."""
    codes = {}
    if request.supplement:
        codes = {
            standard.tag_number(row.tag): (row.action, "supplement")
            for row in standard.supplement()
            if "x" not in row.tag
        }
    rule = f"E.1-1 {request.dicom_version}"
    for row in standard.rows(request.dicom_version):
        if re.fullmatch(r"\([0-9A-F]{4},[0-9A-F]{4}\)", row.tag):
            codes[standard.tag_number(row.tag)] = row.basic, rule
    return codes


def _special(tag: int, code: str, top: bool) -> tuple[str, Act] | None:
    """The few attributes whose value, or whose neighbours, decide."""
    if tag in (PATIENT_ID, PATIENT_NAME) and top:
        return "D", actions.patient
    if tag == PATIENT_ID:
        return "D", actions.nested_patient_id
    if tag == SPECIFIC_CHARACTER_SET:
        return "K", actions.note_character_set
    if code == "code-meaning":
        return "D", actions.code_meaning
    if tag == CODING_SCHEME:
        return "K", actions.note_scheme
    return None


def _outside(tag: int) -> Decision:
    """What becomes of an element that the dictionary doesn't list one by one: it is removed."""
    group = tag >> 16
    if group & 0xFF01 == 0x6000:
        noted = tag & 0xFFFF in (OVERLAY_BIT_POSITION, OVERLAY_DATA)
        return Decision(tag, "", "UN", "X", "E.1-1 (60xx,xxxx)", literal=NOTHING, noted=noted)
    if group & 0xFF01 == 0x5000:
        return Decision(tag, "", "UN", "X", "E.1-1 (50xx,xxxx)", literal=NOTHING)
    rule = "group length" if not tag & 0xFFFF else "misplaced group" if group in REMOVED_GROUPS else "not in PS3.6"
    return Decision(tag, "", "UN", "X", rule, literal=NOTHING)


def _marks(edition: str) -> Iterator[Decision]:
    """What PS3.15 E.1.1 and E.2 demand to be written, and the Patient ID that every instance of a study shares."""
    yield Decision(
        PATIENT_ID, "PatientID", "LO", "D", f"E.1-1 {edition}", act=actions.patient, supply=actions.supply_patient
    )
    for tag, keyword, value in (
        (marks.PATIENT_IDENTITY_REMOVED, "PatientIdentityRemoved", "YES"),
        (marks.LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED, "LongitudinalTemporalInformationModified", "REMOVED"),
    ):
        literal = actions.constant(tag, "CS", value)
        yield Decision(tag, keyword, "CS", "D", "mark", literal=literal, supply=actions.supply_literal(literal))
    text = marks.method_text(edition, RECIPE)
    tag = marks.DEIDENTIFICATION_METHOD
    supply = actions.supply_literal(actions.constant(tag, "LO", text))
    yield Decision(tag, "DeidentificationMethod", "LO", "D", "mark", act=actions.add_value(text), supply=supply)
    tag = marks.DEIDENTIFICATION_METHOD_CODE_SEQUENCE
    items = actions.encoded_items(marks.code_items())
    supply = actions.supply_literal(actions.sequence(tag, items))
    yield Decision(tag, "DeidentificationMethodCodeSequence", "SQ", "D", "mark", items=items, supply=supply)


def _fingerprint(request: Request) -> str:
    digest = hashlib.sha256(f"recipe {RECIPE} request {request.fingerprint} tables {standard.digest()}".encode())
    return digest.hexdigest()[:16]

"""From a request to a decision table: every attribute, at every depth, gets exactly one decision with its reason.

Precedence is settled here, once, and not while data sets are walked: the request's own lines, then Table E.1-1 as its
Options have it, then the supplement, then the dictionary (what it lists and no table names is kept), and what no
dictionary lists is removed.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Final

import pydicom

from dicomveil import actions, ages, charset, claims, dates, marks, options, standard
from dicomveil.content import CONTENT, Contents
from dicomveil.decision import ENTER, NOTHING, REMOVED_ITEM, Act, Choice, Decision, Literal, Node
from dicomveil.paths import EVERY
from dicomveil.private import PrivateRules
from dicomveil.pseudonyms import NUMBERS
from dicomveil.references import EVIDENCE, Ahead
from dicomveil.regrouping import OF_STUDY, REGROUPED
from dicomveil.request import ROLES, Replacement, Request
from dicomveil.rules import Place, Rules
from dicomveil.stream import Encoding, Window
from dicomveil.tags import keyword_of, vr_of
from dicomveil.vocabulary import Vocabulary
from dicomveil.walk import Edit, Going, Walk

RECIPE: Final = 3
"""The number of the output's recipe: changes whenever yesterday's input would give other bytes today."""

PATIENT_NAME: Final = 0x00100010
PATIENT_ID: Final = 0x00100020
CODING_SCHEME: Final = 0x00080102
CODE_MEANING: Final = 0x00080104
SPECIFIC_CHARACTER_SET: Final = 0x00080005
REFERENCED_SOP_INSTANCE: Final = 0x00081155
ENCAPSULATED_DOCUMENT: Final = 0x00420011
MIME_TYPE: Final = 0x00420012
DOCUMENT_LENGTH: Final = 0x00420015
UNFORMATTED_TEXT: Final = 0x00700006
ENCRYPTED_ATTRIBUTES: Final = 0x04000500
TIMEZONE: Final = 0x00080201
FRAME_ORIGIN_TIMESTAMP: Final = 0x00340007
_MOVES: Final = {TIMEZONE: dates.shift_values, FRAME_ORIGIN_TIMESTAMP: dates.shift_timestamp}
"""How attributes of other VRs are moved that Table E.1-1 counts among the dates, as far as their unit is known."""
_CLEANABLE: Final = frozenset(("LO", "SH", "ST", "LT", "UT", "UC", "CS", "AE"))
_CONSTANTS: Final[dict[str, Callable[[int, str], Literal]]] = {
    "X": actions.removed,
    "Z": actions.emptied,
    "D": actions.dummy,
}
_UNKNOWN_SOP_CLASS: Final = {"X/Z": "Z", "X/D": "D", "Z/D": "D", "X/Z/D": "D", "X/Z/U*": "U*", "P": "D"}
_EXTERNAL: Final = "ExternalReferences"
_NEEDED: Final = "ExternalReferences, Type 1"
_EXTERNAL_ITEM: Final = replace(REMOVED_ITEM, rule=_EXTERNAL)
"""An Item that refers to what nobody knows."""
ENCRYPT_FOR: Final = "EncryptFor"
"""The rule that seals originals."""
_PENDING: Final[Literal] = (b"pending", b"pending", b"pending")
"""What keeps the place of sealed originals until the walk has met them all."""
REMOVED_GROUPS: Final = frozenset((0x0000, 0x0002, 0x0004))

# Looked at when the walk is done: how Pixel Data is laid out and what it may show, and an encapsulated document's type
# and length.
NOTED: Final = (
    0x00080008, 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102,
    0x00280301, 0x00420012, 0x00420015, 0x00480010, 0x7FE00008, 0x7FE00009, 0x7FE00010,
)  # fmt: skip
OVERLAY_BIT_POSITION: Final = 0x0102
OVERLAY_DATA: Final = 0x3000
_TELLS: Final = frozenset(NOTED) - {MIME_TYPE, DOCUMENT_LENGTH, 0x7FE00008, 0x7FE00009, 0x7FE00010}
"""What tells of the pixels, also where the request takes it away: they are the source's all the same."""


class DecisionTable:
    """The decisions that one request asks for, by SOP Class; small, made of them as they are met.

    Attributes:
      request: what it was compiled from.
      fingerprint: 16 hexadecimal digits over request, edition, tables and recipe: equal fingerprints give equal output
        under one key.
      codes: the action code of each attribute that a table names, Options applied, and what says so.
      basics: the same without Options.
      rules: the request's own lines.
      drops: whether Items go that refer to what nobody knows.
      claims: the Options whose codes the output bears, "" for the profile; none where it follows site rules.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.fingerprint = fingerprint_of(request)
        self.claims = claims.claims(request)
        self._edition, self._options = request.dicom_version, request.options
        self.codes = self._codes_of(request)
        self.basics = self._codes_of(replace(request, options=())) if request.options else self.codes
        self._resolved = standard.resolved(self._edition)
        self.drops = request.external_references == "remove"
        self.rules = Rules.of(request)
        self._vocabulary = Vocabulary(request.vocabulary) if request.cleans_text else None
        self._contents = Contents(request, self._vocabulary) if "CleanStructuredContent" in self._options else None
        self._private = {utf8: self._private_rules(utf8) for utf8 in (False, True)}
        self._numbers = {tag: label for name, (tag, label) in NUMBERS.items() if name in request.pseudonyms}
        self._by_role = request.alters or bool(request.kept_roles - {"patient"} or request.given.keys() - {"patient"})
        self._marks = {mark.tag: mark for mark in self._base_marks()}
        self._nodes: dict[Place | tuple[str, bool], Node] = {}

    def __reduce__(self) -> tuple[Callable[[Request], "DecisionTable"], tuple[Request]]:
        return compile_request, (self.request,)

    def node(self, sop_class_uid: str, utf8: bool = False) -> Node:
        """The decisions for the top level of an instance; those for its Items hang below it."""
        node = self._nodes.get((sop_class_uid, utf8))
        if node is None:
            known = sop_class_uid if self._resolved.known(sop_class_uid) else ""
            node = self._nodes[sop_class_uid, utf8] = self._at(Place(known, (), self.rules, utf8=utf8))
        return node

    def decision(self, tag: int) -> Decision | None:
        """The decision on a top-level attribute of any SOP Class; None where it is simply kept."""
        return self._decide(Place("", (), self.rules), tag)[0]

    def read_references(self, walk: Walk, begin: int, encoding: Encoding, window: Window, sop_class_uid: str) -> None:
        """Have a walk drop the Items that refer to what nobody knows, as far as their sequences' Types allow.

        Args:
          begin: where the data set starts, in both windows.
          window: another one of the walk's source.

        Raises:
          InvalidInstance: as the walk does.
        """
        ahead = Ahead(window, begin, encoding, self.node(sop_class_uid, walk.utf8), walk.facts.external)
        removed: frozenset[int] = frozenset()
        if self._contents is not None and ahead.document is not None:
            needed = standard.reference_types().type((EVIDENCE,), sop_class_uid) == "1"
            removed = self._contents.read_ahead(walk, *ahead.document, ahead.unknown, needed)
        found = ahead.settle(sop_class_uid, removed)
        left = {value: _emptied(tag, action) for value, (tag, action) in found.left.items()}
        walk.going = Going(found.gone, found.needed, left)

    # ------------------------------------------------------------------------------------------------------- places

    def _at(self, place: Place) -> Node:
        node = self._nodes.get(place)
        if node is None:
            node = self._nodes[place] = self._made(place)
        return node

    def _made(self, place: Place, choose: Choice | None = None) -> Node:
        return Node(
            partial(self._decide, place),
            partial(self._descend, place),
            self._marks_of(place),
            self._private[place.utf8].at(place),
            choose,
            partial(self._whole, place) if self._edition == "2008" and not place.path else None,
        )

    def _descend(self, place: Place, tag: int, creator: str) -> Node:
        """The node below a sequence; where no Type is known any deeper, one node serves all depths."""
        sop_class_uid, path = place.sop_class_uid, (*place.path, tag)
        rules = place.rules
        below = replace(
            place,
            path=path if self._resolved.below(sop_class_uid, path) else (0,),
            frozen=place.frozen or (bool(rules) and rules.verdict(tag, creator) == "keep"),
            of_study=self._by_role and tag in OF_STUDY,
            listed=place.listed or (self.request.alters and not place.path and tag in REGROUPED),
            treatment="",
            external=(),
        )
        if not rules:
            return self._of_items(below, tag, {})
        numbered = {number: replace(below, rules=rules.below(tag, creator, number, below.frozen))
                    for number in rules.numbers(tag, creator)}  # fmt: skip
        return self._of_items(replace(below, rules=rules.below(tag, creator, EVERY, below.frozen)), tag, numbered)

    def _of_items(self, place: Place, tag: int, numbered: dict[int, Place]) -> Node:
        """The node for a sequence's Items, which picks one for each where they aren't all alike."""
        content = self._contents is not None and tag in CONTENT and not place.frozen
        drops = self.drops and not place.frozen
        if not content and not numbered and not drops:
            return self._at(place)

        def choose(
            walk: Walk, encoding: Encoding, start: int, limit: int, delimited: bool, number: int
        ) -> Node | Decision:
            item = numbered.get(number, place)
            if drops and walk.going:
                if start in walk.going.items:
                    return _EXTERNAL_ITEM
                if start in walk.going.needed:
                    item = replace(item, external=walk.going.needed[start])
            if not content or self._contents is None:
                return self._at(item)
            treatment = self._contents.treatment(walk, encoding, start, limit, delimited, tag)
            if treatment in ("remove", "unknown"):
                return REMOVED_ITEM if treatment == "remove" else _EXTERNAL_ITEM
            return self._at(item.treated(treatment))

        return self._made(place, choose)

    def _whole(self, place: Place, tag: int, edits: list[Edit]) -> Decision | None:
        """PS3.15-2008 E.1.1: no protection inside a sequence, but of the whole of it.

        One that its IOD needs an Item of is treated Item by Item all the same: no dummy could take its place.
        """
        inside = (line.path.steps[0].sequence for line in place.rules.lines if not line.ends)
        if tag in self._marks or any(sequence.matches(tag) for sequence in inside):
            return None
        if not any(edit[6] is not None and edit[6].rule == "E.1-1 2008" for edit in edits):
            return None
        kind = self._resolved.type((tag,), place.sop_class_uid)
        if kind.startswith("1"):
            return None
        action = "Z" if kind.startswith("2") else "X"
        return Decision(tag, keyword_of(tag), "SQ", action, "E.1-1 2008", literal=_CONSTANTS[action](tag, "SQ"))

    # ---------------------------------------------------------------------------------------------------- decisions

    def _decide(self, place: Place, tag: int) -> tuple[Decision | None, bool]:
        """The decision on an attribute, and whether it may be remembered."""
        element = standard.dictionary().get(tag)
        lasting = element is not None and tag >> 16 not in REMOVED_GROUPS and bool(tag & 0xFFFF)
        asked = place.rules.verdict(tag) if place.rules and tag != SPECIFIC_CHARACTER_SET else ""
        if isinstance(asked, Replacement):
            return replace(_replacing(tag, asked, place.utf8), noted=self._tells(place, tag)), lasting
        if asked == "remove":
            noted = self._tells(place, tag)
            return Decision(
                tag, keyword_of(tag), vr_of(tag) or "UN", "X", "Remove", literal=NOTHING, noted=noted
            ), lasting
        if element is None or not lasting:
            kept = (asked == "keep" or place.frozen) and tag >> 16 not in REMOVED_GROUPS and bool(tag & 0xFFFF)
            return (None if kept else self._outside(place, tag)), False
        vr = element.vr.split(" ")[0]
        if tag in (SPECIFIC_CHARACTER_SET, CODING_SCHEME):
            decision: Decision | None = _remembered(tag, element.keyword, place.utf8)
        elif place.frozen:
            decision = self._frozen(place, tag, element.keyword, vr)
        elif not place.path and tag in self._marks:
            decision = self._marks[tag]
        elif asked == "keep":
            decision = self._kept(place, tag, element.keyword, vr)
        else:
            code, rule = self.codes.get(tag, ("K", ""))
            decision = self._by_table(place, tag, element.keyword, vr, code, rule)
        if decision is None and self.request.cap_ages:
            decision = _capped(tag, element.keyword, vr)
        return (_in_utf8(decision, tag, element.keyword, vr) if place.utf8 else decision), True

    def _kept(self, place: Place, tag: int, keyword: str, vr: str) -> Decision | None:
        """What a line of the request keeps: a sequence with all that stands in it."""
        if vr == "SQ":
            return Decision(tag, keyword, vr, "K", "Keep", frozen=True)
        if not place.path and tag in NOTED:
            return Decision(tag, keyword, vr, "K", "Keep", noted=True)
        return None

    def _frozen(self, place: Place, tag: int, keyword: str, vr: str) -> Decision | None:
        """What lies in a sequence that a line of the request keeps."""
        role = standard.uid_attributes().get(tag)
        if role is not None and role.role != "definition":
            if self.request.map_uids_in_kept:
                return Decision(tag, keyword, "UI", "U", "MapUIDsInKept", act=self._mapping(place, tag))
            return Decision(tag, keyword, "UI", "K", "Keep", act=actions.count_uids)
        return ENTER if vr == "SQ" else None

    def _by_table(self, place: Place, tag: int, keyword: str, vr: str, code: str, rule: str) -> Decision | None:
        make = partial(Decision, tag, keyword, vr)
        if place.treatment and self._contents is not None and self._contents.holds_value(tag):
            return self._contents.decision(place, tag, keyword, vr)
        if tag in self._numbers and code != "K":
            return make("D", "Pseudonyms", act=actions.number(self._numbers[tag]))
        special = self._special(tag, code, top=not place.path)
        if special:
            return make(special[0], rule, act=special[1])
        if not place.path and (tag in NOTED or (tag == ENCAPSULATED_DOCUMENT and code != "K")):
            return make("K" if tag in NOTED else "D", rule, noted=True)
        if code in options.CLEANED:
            return self._cleaned(place, tag, keyword, vr, code, rule)
        action = self._action(place, tag, code)
        if action == "D" and vr == "UI":
            action = "U"  # a constant would make one of many; a mapped UID is a dummy too
        if action == "U" and vr != "SQ":
            rule = _NEEDED if tag in place.external else rule
            return make("U", rule, act=self._mapping(place, tag))
        if action in _CONSTANTS:
            return make(action, rule, literal=_CONSTANTS[action](tag, vr))
        return ENTER if vr == "SQ" else None

    def _cleaned(self, place: Place, tag: int, keyword: str, vr: str, code: str, rule: str) -> Decision | None:
        """C: changed so that it no longer identifies, or what the Basic Profile does where that can't be done."""
        if vr == "SQ":
            return ENTER
        basic = self._action(place, tag, self._basic(tag))
        otherwise = _CONSTANTS[basic](tag, vr)
        make = partial(Decision, tag, keyword, vr, "C", rule)
        if code == options.TEXT and vr in _CLEANABLE and self._vocabulary is not None:
            return make(act=actions.clean_text(self._vocabulary, otherwise, actions.UTF_8 if place.utf8 else ""))
        if code == options.DATES and (vr in dates.VRS or tag in _MOVES):
            needed = basic == "D" or self._resolved.type((*place.path, tag), place.sop_class_uid).startswith("1")
            stranded = actions.unshiftable(tag, keyword, vr, rule, needed)
            return make(act=actions.shift_dates(otherwise, stranded, _MOVES.get(tag, dates.shift_values)))
        return Decision(tag, keyword, vr, basic, rule, literal=otherwise)

    def _basic(self, tag: int) -> str:
        """The code that the Basic Profile or the supplement gives an attribute, whatever Options say."""
        return self.basics.get(tag, ("X", ""))[0]

    def _mapping(self, place: Place, tag: int) -> Act:
        if not self._by_role:
            return actions.map_uid
        if place.of_study and tag == REFERENCED_SOP_INSTANCE:
            return actions.map_uid_of("study")
        return actions.map_uid_of(standard.uid_attributes()[tag].role)

    def _action(self, place: Place, tag: int, code: str) -> str:
        """A compound code as one action, by the attribute's Type in the SOP Class's IOD (PS3.15 E.1.1)."""
        if code == "X/Z/U*" and self.request.reference_sequences == "map":
            return "U"
        if code in ("K", "U"):
            return code
        if code == "P" and vr_of(tag) == "UI":
            return "U"
        if not place.sop_class_uid:
            return _UNKNOWN_SOP_CLASS.get(code, code)
        return self._resolved.action((*place.path, tag), place.sop_class_uid, code)

    def _special(self, tag: int, code: str, top: bool) -> tuple[str, Act] | None:
        """The few attributes whose value, or whose neighbours, decide."""
        if tag == PATIENT_ID:
            return "D", actions.patient_id if top else actions.nested_patient_id
        if tag == PATIENT_NAME and top:
            return "D", actions.patient_name
        if code == "code-meaning" or (tag == CODE_MEANING and "CleanDescriptors" in self._options):
            return "D", actions.code_meaning
        return None

    def _tells(self, place: Place, tag: int) -> bool:
        """Whether what the source holds must be known although the request removes or replaces it."""
        overlay = tag >> 16 & 0xFF01 == 0x6000 and tag & 0xFFFF in (OVERLAY_BIT_POSITION, OVERLAY_DATA)
        return not place.path and (overlay or tag in _TELLS)

    def _outside(self, place: Place, tag: int) -> Decision | None:
        """What becomes of an element that the dictionary doesn't list one by one: it is removed."""
        group = tag >> 16
        if group & 0xFF01 == 0x6000:
            rule = "E.1-1 (60xx,xxxx)"
            if not place.path and "CleanGraphics" in self._options:
                return Decision(tag, "", "UN", "K", rule, noted=True)
            noted = tag & 0xFFFF in (OVERLAY_BIT_POSITION, OVERLAY_DATA) and "CleanGraphics" not in self._options
            return Decision(tag, "", "UN", "X", rule, literal=NOTHING, noted=noted)
        if group & 0xFF01 == 0x5000:
            return Decision(tag, "", "UN", "X", "E.1-1 (50xx,xxxx)", literal=NOTHING)
        rule = "group length" if not tag & 0xFFFF else "misplaced group" if group in REMOVED_GROUPS else "not in PS3.6"
        return Decision(tag, "", "UN", "X", rule, literal=NOTHING)

    def _dates(self) -> str:
        """What becomes of dates in safe private elements: K, C or X."""
        return "K" if options.FULL in self._options else "C" if options.MODIFIED in self._options else "X"

    def _codes_of(self, request: Request) -> dict[int, tuple[str, str]]:
        """The action code of each attribute that is named by a table, and the table or the Option that says so."""
        codes = {}
        if request.supplement:
            for ours in standard.supplement():
                if standard.names_one(ours.tag):
                    codes[standard.tag_number(ours.tag)] = options.supplemented(ours, request.options)
        rule = f"E.1-1 {request.dicom_version}"
        for row in standard.rows(request.dicom_version):
            if standard.names_one(row.tag):
                code, option = options.code_of(row, request.options)
                codes[standard.tag_number(row.tag)] = code, f"{rule} {option}" if option else rule
        return codes

    def _private_rules(self, utf8: bool) -> PrivateRules:
        return PrivateRules(self.request, self._vocabulary, self._dates(), utf8)

    # -------------------------------------------------------------------------------------------------------- marks

    def _marks_of(self, place: Place) -> tuple[Decision, ...]:
        """What a data set or Item must hold, the last tag first."""
        found = dict(self._marks) if not place.path else {}
        if not place.path:
            patient = place.sop_class_uid not in standard.non_patient_sop_classes()
            if place.rules and place.rules.verdict(marks.DEIDENTIFICATION_METHOD) == "remove":
                found.pop(marks.DEIDENTIFICATION_METHOD, None)
            if not patient or {"patient"} & (self.request.given.keys() | self.request.kept_roles):
                found.pop(PATIENT_ID, None)
            if place.utf8:
                literal = actions.constant(SPECIFIC_CHARACTER_SET, "CS", actions.UTF_8)
                found[SPECIFIC_CHARACTER_SET] = Decision(
                    SPECIFIC_CHARACTER_SET, "SpecificCharacterSet", "CS", "D", "charset",
                    supply=actions.supply_literal(literal),
                )  # fmt: skip
        if place.rules:
            for it in place.rules.written:
                tag = it.path.attribute.tag
                attribute = it.path.attribute
                identifier = not place.path and tag in ROLES and not self._inserted(place, tag)
                if attribute.exact and not attribute.private and not identifier and tag != SPECIFIC_CHARACTER_SET:
                    found[tag] = _replacing(tag, it, place.utf8)
            for mark in self._private[place.utf8].supplies(place):
                found[mark.tag] = mark
        return tuple(sorted(found.values(), key=lambda mark: -mark.tag))

    def _inserted(self, place: Place, tag: int) -> bool:
        """Whether an identifier is written where it is missing."""
        return False

    def _base_marks(self) -> Iterable[Decision]:
        """What PS3.15 E.1.1 and E.2 demand to be written, and the Patient ID that every instance of a study shares."""
        if not {"patient"} & (self.request.given.keys() | self.request.kept_roles):
            yield Decision(
                PATIENT_ID, "PatientID", "LO", "D", self.codes.get(PATIENT_ID, ("", "E.1-1"))[1],
                act=actions.patient_id, supply=actions.supply_patient_id,
            )  # fmt: skip
        for tag, keyword, value in (
            (marks.PATIENT_IDENTITY_REMOVED, "PatientIdentityRemoved", "YES"),
            (
                marks.LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED,
                "LongitudinalTemporalInformationModified",
                claims.longitudinal(self.request),
            ),
        ):
            literal = actions.constant(tag, "CS", value)
            yield Decision(tag, keyword, "CS", "D", "mark", literal=literal, supply=actions.supply_literal(literal))
        text = marks.method_text(self._edition, RECIPE, self.claims, self.fingerprint)
        tag = marks.DEIDENTIFICATION_METHOD
        supply = actions.supply_literal(actions.constant(tag, "LO", text))
        yield Decision(tag, "DeidentificationMethod", "LO", "D", "mark", act=actions.add_value(text), supply=supply)
        if self.request.encrypt_for:
            tag, supply = ENCRYPTED_ATTRIBUTES, actions.supply_literal(_PENDING)
            yield Decision(tag, keyword_of(tag), "SQ", "D", ENCRYPT_FOR, literal=_PENDING, supply=supply)
        if self.claims:
            tag = marks.DEIDENTIFICATION_METHOD_CODE_SEQUENCE
            items = actions.encoded_items(marks.code_items(self.claims))
            supply = actions.supply_literal(actions.sequence(tag, items))
            yield Decision(tag, "DeidentificationMethodCodeSequence", "SQ", "D", "mark", items=items, supply=supply)


def compile_request(request: Request) -> DecisionTable:
    """The decision table that carries out a request."""
    return DecisionTable(request)


def _emptied(tag: int, action: str) -> Decision:
    """What becomes of a sequence of which no Item is left."""
    return Decision(tag, keyword_of(tag), "SQ", action, _EXTERNAL, literal=_CONSTANTS[action](tag, "SQ"))


def _replacing(tag: int, rule: Replacement, utf8: bool) -> Decision:
    """What the request writes in an attribute's place, and where it is missing."""
    literal, act, supply = actions.replaced(tag, rule.value, actions.UTF_8 if utf8 else "")
    return Decision(tag, keyword_of(tag), rule.vr, "D", "Replace", literal=literal, act=act, supply=supply, over=True)


def _capped(tag: int, keyword: str, vr: str) -> Decision | None:
    """What doesn't stay as it is where ages over 89 don't: ages, and birth dates, which tell them."""
    if vr == "AS":
        return Decision(tag, keyword, vr, "C", "CapAges", act=actions.cap_age)
    if tag in ages.BIRTH_DATES:
        return Decision(tag, keyword, vr, "Z", "CapAges", literal=actions.emptied(tag, vr))
    return None


def _remembered(tag: int, keyword: str, utf8: bool) -> Decision:
    """What must be known to read what follows it."""
    if tag == CODING_SCHEME:
        return Decision(tag, keyword, "SH", "K", "", act=actions.note_scheme)
    if utf8:
        return Decision(tag, keyword, "CS", "D", "charset", act=actions.utf8_character_set)
    return Decision(tag, keyword, "CS", "K", "", act=actions.note_character_set)


def _in_utf8(decision: Decision | None, tag: int, keyword: str, vr: str) -> Decision | None:
    """The same where the data set is switched to UTF-8: text that stays is encoded anew."""
    if vr not in charset.VRS:
        return decision
    if decision is None:
        return Decision(tag, keyword, vr, "C", "charset", act=actions.to_utf8)
    return replace(decision, act=actions.in_utf8(decision.act)) if decision.act else decision


def fingerprint_of(request: Request) -> str:
    """Of what a request makes of data sets: equal ones give equal output under one key."""
    told = f"recipe {RECIPE} request {request.fingerprint} tables {standard.digest(request.dicom_version)}"
    if request.external_references == "remove":
        told += f" references {standard.reference_digest()}"
    if request.keeps_private:
        told += f" private {pydicom.__version__}"  # whose dictionaries tell private elements' VRs
    digest = hashlib.sha256(told.encode())
    return digest.hexdigest()[:16]

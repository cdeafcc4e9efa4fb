"""Which private elements stay, and what becomes of what stands in them (PS3.15 2026d E.3.10).

Private elements go unless a line of the request, Retain Safe Private or KeepPrivateTags keeps them. They are known by
group, Private Creator and low byte, in whatever block they stand.
"""

from functools import cached_property, partial
from typing import Final

from dicomveil import actions, charset, dates, standard
from dicomveil.decision import NOBODYS, NOTHING, PROBE, REMOVED, Act, Decision, Element, PrivateRule, Supply
from dicomveil.errors import InvalidInstance
from dicomveil.request import Replacement, Request
from dicomveil.rules import Place
from dicomveil.stream import Encoding, Path, tag_text
from dicomveil.values import Named, Value, ValueProblem, encoded, parse_value
from dicomveil.vocabulary import Vocabulary
from dicomveil.walk import Walk

_ENTER: Final = Decision(0, "", "SQ", "K", "")
_FROZEN: Final = Decision(0, "", "SQ", "K", "Keep", frozen=True)
_SAID_SAFE: Final = frozenset(
    ("AS", "AT", "CS", "DS", "FD", "FL", "IS", "OB", "OD", "OF", "OL", "OV", "OW", "SL", "SS", "SV", "UL", "US", "UV")
)
_PROCESSED: Final = charset.VRS | dates.VRS | {"UI"}
_FIRST_FREE: Final = 0x10
_LAST_BLOCK: Final = 0xFF


class PrivateRules:
    """The rules of one request on private elements.

    Args:
      dates: what becomes of dates: K, C or X.
      utf8: whether text that stays is switched to UTF-8.
    """

    def __init__(self, request: Request, vocabulary: Vocabulary | None, dates: str, utf8: bool) -> None:
        self._request, self._vocabulary, self._dates, self._utf8 = request, vocabulary, dates, utf8
        self._safe: frozenset[tuple[int, str, int]] = frozenset()
        if "RetainSafePrivate" in request.options:
            ours = {(it.tag >> 16, it.creator, it.tag & 0xFF) for it in request.safe_private}
            table = standard.safe_private(request.dicom_version)
            self._safe = frozenset(table.keys() | ours)

    @cached_property
    def _known(self) -> dict[tuple[int, str, int], str]:
        """VRs by group, Private Creator and low byte; asked for only where a private element may stay."""
        ours = {
            (it.attribute.tag >> 16, it.attribute.creator, it.attribute.tag & 0xFF): it.vr
            for it in self._request.private_dictionary
        }
        return standard.private_dictionary(self._request.dicom_version) | ours

    def at(self, place: Place) -> PrivateRule | None:
        """Decides on private elements at a place; None where all of them go."""
        rules = place.rules
        if not (place.frozen or rules.private or self._safe or self._request.keep_private_tags):
            return None
        return partial(self._capped if self._request.cap_ages else self._decide, place)

    def supplies(self, place: Place) -> list[Decision]:
        """What a place must hold of private elements that the request writes, one decision a group."""
        groups: dict[int, list[Replacement]] = {}
        for it in place.rules.written:
            if it.path.attribute.creator and it.vr:
                groups.setdefault(it.path.attribute.tag >> 16, []).append(it)
        return [
            Decision(group << 16 | 0x0100, "", "UN", "D", "Replace", supply=_supply(group, written, place, self._utf8))
            for group, written in groups.items()
        ]

    def _decide(self, place: Place, tag: int, vr: bytes, creator: str) -> Decision | None:
        if creator == NOBODYS:
            return self._nobodys(tag, vr)
        key = tag >> 16, creator, tag & 0xFF
        meant = vr.decode("latin-1") if vr not in (b"", b"UN") else self._known.get(key, "")
        verdict = place.rules.verdict(tag, creator)
        if isinstance(verdict, Replacement):
            return _replacing(tag, verdict, self._utf8)
        if verdict == "remove":
            return REMOVED
        if verdict == "keep" or place.frozen:
            return self._kept(tag, meant, place.frozen)
        if not tag & 0xFF00:
            return self._bare(tag)
        if key in self._safe:
            known = self._known.get(key, "")
            said = known if meant in _SAID_SAFE and known in _PROCESSED else meant
            return self._safely(tag, said)  # text or a UID, also where it is written as bytes or a code
        return self._all(tag, vr, meant) if self._request.keep_private_tags else REMOVED

    def _bare(self, tag: int) -> Decision | None:
        """What becomes of a Private Creator that no kept element stands behind."""
        return REMOVED

    def _nobodys(self, tag: int, vr: bytes) -> Decision | None:
        """What becomes of an element that stands where no private one can."""
        return REMOVED

    def _capped(self, place: Place, tag: int, vr: bytes, creator: str) -> Decision | None:
        """The same where ages over 89 don't stay."""
        decision = self._decide(place, tag, vr, creator)
        if decision is not None or not tag & 0xFF00:
            return decision
        known = self._known.get((tag >> 16, creator, tag & 0xFF), "")
        if vr != b"AS" and not (vr in (b"", b"UN") and known == "AS"):
            return None
        return Decision(tag, "", "AS", "C", "CapAges", act=actions.cap_age)

    def _kept(self, tag: int, meant: str, inside_frozen: bool) -> Decision | None:
        """Kept by its name, or with all that is around it."""
        if meant == "SQ":
            return _ENTER if inside_frozen else _FROZEN
        if not meant:
            return PROBE
        if inside_frozen and meant == "UI":
            act = actions.map_uid if self._request.map_uids_in_kept else actions.count_uids
            return Decision(tag, "", "UI", "U", "MapUIDsInKept", act=act)
        return self._converted(tag, meant)

    def _all(self, tag: int, vr: bytes, meant: str) -> Decision | None:
        """KeepPrivateTags: all of them stay, but the UIDs in them are those of the output."""
        if meant == "SQ":
            return _ENTER
        if meant == "UI":
            return Decision(tag, "", "UI", "U", "KeepPrivateTags", act=actions.map_uid)
        return self._converted(tag, meant) if meant else PROBE

    def _safely(self, tag: int, meant: str) -> Decision | None:
        """Safe private: on its merits, by VR."""
        make = partial(Decision, tag, "", meant)
        if meant == "SQ":
            return _ENTER
        if meant == "UI":
            return make("U", "E.3.10-1", act=actions.map_uid)
        if meant in dates.VRS and self._dates == "C":
            stranded = actions.unshiftable(tag, "", meant, "E.3.10-1", needed=False)
            return make("C", "E.3.10-1", act=actions.shift_dates(NOTHING, stranded))
        if meant in charset.VRS - {"PN"} and self._vocabulary is not None:
            return make("C", "E.3.10-1", act=actions.clean_text(self._vocabulary, NOTHING, self._target()))
        if meant in _SAID_SAFE or (meant in dates.VRS and self._dates == "K"):
            return None
        return REMOVED

    def _converted(self, tag: int, meant: str) -> Decision | None:
        if self._utf8 and meant in charset.VRS:
            return Decision(tag, "", meant, "C", "charset", act=actions.to_utf8)
        return None

    def _target(self) -> str:
        return actions.UTF_8 if self._utf8 else ""


def _replacing(tag: int, rule: Replacement, utf8: bool) -> Decision:
    """A Replace of an element that is there; one whose VR only the element knows is read when it is met."""
    if rule.vr:
        literal, act, _ = actions.replaced(tag, rule.value, actions.UTF_8 if utf8 else "")
        return Decision(tag, "", rule.vr, "D", "Replace", literal=literal, act=act, over=True)
    return Decision(tag, "", "UN", "D", "Replace", act=_as_it_is(rule, utf8), over=True)


def _as_it_is(rule: Replacement, utf8: bool) -> Act:
    def act(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
        vr = element.vr.decode("latin-1")
        known = standard.private_dictionary()
        key = decision.tag >> 16, walk.creator(decision.tag), decision.tag & 0xFF
        vr = vr if vr not in ("", "UN") else known.get(key, "")
        try:
            value = parse_value(vr, "1-n", rule.value.text, _no_items) if vr else None
        except ValueProblem:
            value = None
        if value is None:
            raise InvalidInstance("value", tag_text(decision.tag), element.start)
        where = actions.UTF_8 if utf8 else walk.character_set(element.parent)
        return encoding.element(decision.tag, vr, encoded(value, encoding, where))

    return act


def _no_items(name: str) -> Named:
    raise ValueProblem("is a sequence", "give its VR in PrivateDictionary")


def _supply(group: int, written: list[Replacement], place: Place, utf8: bool) -> Supply:
    """Asked where a group's Private Creators are passed: has each element follow in its creator's block, or in a new
    one whose creator is written here; unless another line of the request decides on it."""

    def supply(walk: Walk, decision: Decision, encoding: Encoding, parent: Path | None) -> bytes:
        blocks = {key & 0xFF: block.creator for key, block in walk.blocks.items() if key >> 8 == group}
        for it in written:
            creator, low = it.path.attribute.creator, it.path.attribute.tag & 0xFF
            block = next((number for number in sorted(blocks) if blocks[number] == creator), 0)
            new = not block
            if new:
                block = max(blocks, default=_FIRST_FREE - 1) + 1
            if place.rules.verdict(group << 16 | block << 8 | low, creator) is not it:
                continue
            if block > _LAST_BLOCK:
                raise InvalidInstance("value", tag_text(it.path.attribute.tag))
            if new:
                walk.owe(_owed(group << 16 | block, Value("LO", text=creator), utf8))
                blocks[block] = creator
            walk.owe(_owed(group << 16 | block << 8 | low, it.value, utf8))
            walk.used.add(group << 8 | block)
        return b""

    return supply


def _owed(tag: int, value: Value, utf8: bool) -> Decision:
    _, _, supply = actions.replaced(tag, value, actions.UTF_8 if utf8 else "")
    return Decision(tag, "", value.vr, "D", "Replace", supply=supply)

"""From a request to a decision table where identified data sets stay identified: modify, split and merge.

There is no profile: the request's own lines are obeyed, identifiers that change do so wherever they stand, and all
else stays byte for byte.
"""

from typing import Final

from dicomveil import actions, standard
from dicomveil.compile import REFERENCED_SOP_INSTANCE, REMOVED_GROUPS, DecisionTable
from dicomveil.decision import ENTER, LOOK, NOTHING, Act, Decision
from dicomveil.private import PrivateRules
from dicomveil.regrouping import REFERENCE
from dicomveil.request import IDENTIFIERS, Request
from dicomveil.rules import Place
from dicomveil.scan import PATIENT_ID

GROUP_LENGTH: Final = Decision(0, "", "UL", "X", "group length", literal=NOTHING)
MISPLACED: Final = Decision(0, "", "UN", "X", "misplaced group", literal=NOTHING)
"""What goes from a data set that is written anew, but for one of which nothing else changes."""
LISTED: Final = "listed "
"""Before the role of a UID in a sequence that was regrouped, where what is torn has been told apart."""


class ModificationTable(DecisionTable):
    """The decisions that one request of modify, split or merge asks for."""

    def _codes_of(self, request: Request) -> dict[int, tuple[str, str]]:
        mapped = (tag for tag, uid in standard.uid_attributes().items() if uid.role != "definition")
        return dict.fromkeys(mapped, ("U", REFERENCE))

    def _private_rules(self, utf8: bool) -> PrivateRules:
        return KeptPrivate(self.request, None, "K", utf8)

    def _by_table(self, place: Place, tag: int, keyword: str, vr: str, code: str, rule: str) -> Decision | None:
        if code == "U":
            own = not place.path and tag in IDENTIFIERS
            return Decision(tag, keyword, vr, "U", self.request.command if own else rule, act=self._mapping(place, tag))
        return ENTER if vr == "SQ" else None

    def _mapping(self, place: Place, tag: int) -> Act:
        if not place.listed:
            return super()._mapping(place, tag)
        role = "study" if place.of_study and tag == REFERENCED_SOP_INSTANCE else standard.uid_attributes()[tag].role
        return actions.map_uid_of(f"{LISTED}{role}")

    def _kept(self, place: Place, tag: int, keyword: str, vr: str) -> Decision | None:
        if vr == "SQ":
            return Decision(tag, keyword, vr, "K", "Keep", frozen=True)
        role = standard.uid_attributes().get(tag)
        if role is not None and not place.path and role.role != "definition":
            return Decision(tag, keyword, vr, "U", REFERENCE, act=self._mapping(place, tag))  # kept roles don't change
        return None

    def _outside(self, place: Place, tag: int) -> Decision | None:
        if tag >> 16 not in REMOVED_GROUPS and tag & 0xFFFF:
            return None
        return MISPLACED if tag & 0xFFFF else GROUP_LENGTH

    def _inserted(self, place: Place, tag: int) -> bool:
        """An identifier that is missing is written where it can be: a patient's ID in an instance of a patient."""
        return tag == PATIENT_ID and place.sop_class_uid not in standard.non_patient_sop_classes()

    def _base_marks(self) -> tuple[Decision, ...]:
        return ()

    def _tells(self, place: Place, tag: int) -> bool:
        return False


class KeptPrivate(PrivateRules):
    """Private elements where nothing is de-identified: they stay, all of them, unless a line says otherwise."""

    def _bare(self, tag: int) -> Decision | None:
        return None if self._request.keep_private_tags else super()._bare(tag)

    def _nobodys(self, tag: int, vr: bytes) -> Decision | None:
        if not tag & 0xFFFF:
            return GROUP_LENGTH
        return (ENTER if vr == b"SQ" else LOOK) if self._request.keep_private_tags else super()._nobodys(tag, vr)

    def _all(self, tag: int, vr: bytes, meant: str) -> Decision | None:
        if meant == "UI":
            return Decision(tag, "", "UI", "U", REFERENCE, act=actions.map_uid)
        return super()._all(tag, vr, meant) if meant else LOOK

    def _kept(self, tag: int, meant: str, inside_frozen: bool) -> Decision | None:
        return super()._kept(tag, meant, inside_frozen) if meant else LOOK

"""What becomes of the identifiers of studies where modify, split or merge selects something in them.

A study, series or instance of which all is selected has a new UID wherever it is named. Of one that is selected in
part the rest keeps it: there the selected part alone has a new one.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from dicomveil import standard
from dicomveil.keys import Keys
from dicomveil.request import Request
from dicomveil.scan import InstanceScan
from dicomveil.study import borne
from dicomveil.study_map import LETTERS, StudyMap, lettered
from dicomveil.uids import successor_uid, uid_token

_FRAME: Final = "frame-of-reference"
_EXACT: Final = frozenset(("study", "series", _FRAME))
"""What an attribute of such a role names is of that role, whatever else bears the UID; others may name anything."""


class Alteration(NamedTuple):
    """What one study's instances say, as far as modify, split or merge must know of it.

    Attributes:
      changed, torn: as in `StudyMap`.
      referred: tokens of the UIDs that they mention and none of them bears, sorted.
      shared: whether a study that keeps its UID would become one of several patients.
    """

    changed: bytes
    torn: bytes
    referred: tuple[bytes, ...]
    shared: bool


def altered(instances: Iterable[tuple[InstanceScan, bool]], request: Request, keys: Keys) -> Alteration:
    """Gather one study.

    Args:
      instances: all of the study, each with whether it is selected; in any order.
    """
    taken: set[tuple[str, str]] = set()
    left: set[tuple[str, str]] = set()
    mentioned: set[str] = set()
    patients: set[str] = set()
    for scan, selected in instances:
        bears = {(role, uid) for role, uid in borne(scan) if role in request.new_roles or role == "instance"}
        (taken if selected else left).update(bears)
        mentioned.update(uid for _, uid in scan.uids)
        patients.add(request.given.get("patient", scan.patient_id) if selected else scan.patient_id)
    referred = mentioned - {uid for _, uid in taken | left}
    return Alteration(
        changed=_tokens(taken - left, keys),
        torn=_tokens(taken & left, keys),
        referred=tuple(sorted(uid_token(keys, uid) for uid in referred)),
        shared="patient" in request.given and "study" not in request.new_roles and len(patients) > 1,
    )


def _tokens(uids: Iterable[tuple[str, str]], keys: Keys) -> bytes:
    return b"".join(sorted(LETTERS[role] + uid_token(keys, uid) for role, uid in uids))


def settled(study_token: str, alteration: Alteration, elsewhere: Iterable[tuple[bytes, str, bool]]) -> StudyMap:
    """The map of one study.

    Args:
      elsewhere: (token, role, whether it is torn) of UIDs that it refers to, and which another study bears and changes.
    """
    more: dict[bool, bytes] = {False: b"", True: b""}
    for token, role, torn in sorted(elsewhere):
        more[torn] += LETTERS[role] + token
    return StudyMap(
        study_token,
        changed=alteration.changed + more[False],
        torn=alteration.torn + more[True],
        conflict="patient-conflict" if alteration.shared else "",
    )


def scope_of(request: Request, keys: Keys) -> str:
    """Stands for a whole request, what it selects too: 32 hexadecimal digits."""
    return keys.token("scope", request.fingerprint.encode(), request.selection)


class Successors:
    """New UIDs under one request of modify, split or merge, and one key."""

    def __init__(self, keys: Keys, request: Request) -> None:
        self._keys, self._request, self._given = keys, request, request.given
        self._scope = f"{request.scope} {self._given['study']}" if request.command == "merge" else request.scope
        self._exact = _EXACT | ({"instance"} - request.new_roles)
        self._known: tuple[StudyMap | None, dict[bool, dict[bytes, set[str]]]] = None, {}

    def uid(self, study_map: StudyMap, role: str, selected: bool, uid: str) -> str:
        """The UID that stands for `uid` in an instance of a study.

        Args:
          role: that the attribute gives it: some series and frames of reference bear the UID of their study.
          selected: whether it is an instance of those that change.
        """
        if uid in standard.registered_uids():
            return uid
        borne = self._roles(study_map)[selected].get(uid_token(self._keys, uid), set()) & self._request.new_roles
        found = borne & {role} if role in self._exact else borne - {_FRAME}
        if not found:
            return uid
        own = role if role in found else min(found, key=list(LETTERS).index)
        return self._given.get(own) or successor_uid(self._keys, self._request.command, self._scope, uid)

    def moves(self, study_map: StudyMap, uid: str) -> bool:
        """Whether an instance is one of those that are selected, though it may keep its UID."""
        return "instance" in self._roles(study_map)[True].get(uid_token(self._keys, uid), ())

    def patient(self, scan: InstanceScan, selected: bool) -> str:
        """The Patient ID that an instance gets; "" for none."""
        return self._given.get("patient", scan.patient_id) if selected and scan.composite else scan.patient_id

    def _roles(self, study_map: StudyMap) -> dict[bool, dict[bytes, set[str]]]:
        """The roles of the UIDs that change, by token; for instances that aren't selected, and for those that are."""
        known, roles = self._known
        if known is not study_map:
            roles = {False: {}, True: {}}
            for role, token in lettered(study_map.changed):
                roles[False].setdefault(token, set()).add(role)
            for role, token in lettered(study_map.changed + study_map.torn):
                roles[True].setdefault(token, set()).add(role)
            self._known = study_map, roles
        return roles

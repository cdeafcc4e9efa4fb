"""One instance, modified: the walk under a request's lines, its identifiers and references changed, and the file.

Instances that aren't selected, of studies that hold some that are, change in their references alone.
"""

from functools import partial
from typing import Final

from dicomveil import merging
from dicomveil.alterations import Successors
from dicomveil.charset import Unencodable
from dicomveil.errors import InvalidInstance
from dicomveil.keys import Keys
from dicomveil.modification import GROUP_LENGTH, LISTED, MISPLACED, ModificationTable
from dicomveil.part10 import Instance, open_instance
from dicomveil.regrouping import REGROUPED, Tear, regrouped
from dicomveil.request import Request
from dicomveil.rewrite import Place, Rewritten
from dicomveil.scan import InstanceScan
from dicomveil.stream import BytesSource, Source, Window
from dicomveil.study_map import StudyMap
from dicomveil.walk import Edit, Facts, Mapping, Walk

_TIDIED: Final = (None, GROUP_LENGTH, MISPLACED)


class Modifier:
    """Rewrites instances by one request of modify, split or merge under one key; made once a process."""

    def __init__(self, request: Request, keys: Keys) -> None:
        self._tables = {True: ModificationTable(request), False: ModificationTable(request.for_bystanders)}
        self._successors, self._merges = Successors(keys, request), "study" in request.given
        keep = [path.attribute for path in request.keep if not path.steps]
        self._kept = frozenset(tag for tag in REGROUPED if any(attribute.matches(tag) for attribute in keep))
        self._study: tuple[StudyMap | None, dict[bool, Facts]] = None, {}

    def rewrite(self, source: Source, scan: InstanceScan, study_map: StudyMap, selected: bool) -> Rewritten:
        """Modify one instance.

        Args:
          source: the very version that was scanned.
          scan: what the plan saw of it.
          study_map: what its study settles.
          selected: whether the request means it; else only its references follow.

        Raises:
          InvalidInstance: it can't be done; nothing was written.
        """
        instance = open_instance(source)
        try:
            return self._rewritten(instance, scan, study_map, selected, self._tables[selected].request.utf8)
        except Unencodable:
            return self._rewritten(instance, scan, study_map, selected, utf8=True)

    def name(self, scan: InstanceScan, study_map: StudyMap, selected: bool) -> str:
        """The name that `rewrite` of the same arguments gives, where it doesn't fail."""
        return self._place(scan, study_map, selected).name

    def _rewritten(
        self, instance: Instance, scan: InstanceScan, study_map: StudyMap, selected: bool, utf8: bool
    ) -> Rewritten:
        if study_map.conflict:
            raise InvalidInstance(study_map.conflict)
        table = self._tables[selected]
        instance, divided = self._regrouped(instance, scan, study_map, selected)
        walk = Walk(Window(instance.source), self._facts(study_map, selected), utf8)
        end = walk.run(instance.begin, instance.encoding, table.node(scan.sop_class_uid, utf8))
        if not divided and all(it.decision in _TIDIED for it in map(Edit._make, walk.edits)):
            walk.edits.clear()
        place = self._place(scan, study_map, selected)
        private = "Remove" if table.request.keep_private_tags else "RemovePrivateTags"
        return Rewritten(instance, scan, place, walk, end, table.request.sop_class, "", divided, private)

    def _regrouped(
        self, instance: Instance, scan: InstanceScan, study_map: StudyMap, selected: bool
    ) -> tuple[Instance, list[int]]:
        """The instance with its references by study and series told apart, where what they name is torn."""
        if not (study_map.torn or (self._merges and study_map.changed)):
            return instance, []
        new, moves = partial(self._successors.uid, study_map), partial(self._successors.moves, study_map)
        kept = self._kept if selected else frozenset()
        return regrouped(instance, Tear(moves, new, scan.study_instance_uid, selected, kept))

    def _place(self, scan: InstanceScan, study_map: StudyMap, selected: bool) -> Place:
        new = partial(self._successors.uid, study_map)
        return Place(
            self._successors.patient(scan, selected),
            new("study", selected, scan.study_instance_uid) if scan.composite else "",
            new("series", selected, scan.series_instance_uid) if scan.series_instance_uid else "",
            new("instance", selected, scan.sop_instance_uid),
        )

    def _facts(self, study_map: StudyMap, selected: bool) -> Facts:
        """What the study settles, made once as long as its instances come together."""
        known, facts = self._study
        if known is not study_map:
            facts = {chosen: self._made_facts(study_map, chosen) for chosen in (False, True)}
            self._study = study_map, facts
        return facts[selected]

    def _made_facts(self, study_map: StudyMap, selected: bool) -> Facts:
        uids: dict[str, Mapping] = {}

        def of_role(role: str) -> Mapping:
            if role not in uids:
                named = role.removeprefix(LISTED)
                uids[role] = Mapping(partial(self._successors.uid, study_map, named, selected and role == named))
            return uids[role]

        return Facts(
            uids=of_role("other"),
            of_role=of_role,
            patient="",
            name="",
            pseudonym=_nothing,
            issuers=False,
            days=0,
            identifies=_never,
            number=_nothing,
            external=_never,
        )


def followed_modules(source: Source, scan: InstanceScan, study_map: StudyMap, request: Request, keys: Keys) -> bytes:
    """What merge takes over from the study that others are merged into, with its references followed as there.

    Args:
      source: the instance of that study which tells, with its scan and the study's map.

    Raises:
      InvalidInstance: it can't be read.
    """
    raw = merging.module_data_set(source)
    modifier = Modifier(merging.into(request, raw), keys)
    followed = modifier.rewrite(BytesSource(raw), scan, study_map, False)
    return merging.module_data_set(BytesSource(followed.to_bytes()))


def _nothing(*asked: str) -> str:
    """Nobody is given a pseudonym."""
    return ""


def _never(asked: str) -> bool:
    """No word is cleaned, and no reference goes."""
    return False

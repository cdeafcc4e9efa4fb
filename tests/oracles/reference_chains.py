"""What modify, split and merge mean for a project's references, judged on what pydicom reads before and after.

An instance refers to another by its SOP Instance UID, and often names the study and the series that it is in as well,
in Items around it: a chain. Where a study or a series was divided, chains stand in other Items than before, so they
are compared by what they say; everything else has its place. Nothing of the product is used here.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.oracles.reference_graph import Graph, Instance

SAME_STUDY = "ReferencedSeriesSequence"
OTHER_STUDIES = "StudiesContainingOtherReferencedInstancesSequence"
IN_SERIES = "ReferencedInstanceSequence"
OF_STUDY = ("RTReferencedStudySequence", "ReferencedStudySequence")
"""Sequences in which a SOP Instance UID names a study."""
IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


class Chain(NamedTuple):
    """One reference to an instance, with the study and the series that the Items around it name; "" for none.

    Attributes:
      where: the sequences that it stands in, without the numbers of Items; for what the Common Instance Reference
        Module lists, that there is such a list, and neither in which Item nor in which of its two sequences.
    """

    where: str
    study: str
    series: str
    sop_instance: str


@dataclass
class Reading:
    """One instance's references.

    Attributes:
      chains: each reference by which Items name a study or a series, and how often.
      named: (where, study, series) of Items that lead to no instance.
      rest: every other UID by its path.
      loose: the sequences at the top level in which chains stand: Items in them may be divided, or listed elsewhere.
    """

    chains: Counter[Chain] = field(default_factory=Counter)
    named: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    rest: dict[str, str] = field(default_factory=dict)
    loose: set[str] = field(default_factory=set)


def reading(instance: Instance) -> Reading:
    """Sort an instance's edges."""
    items: defaultdict[str, dict[str, str]] = defaultdict(dict)
    naming: set[str] = set()
    for path, uid in instance.edges.items():
        item, keyword = _step(path)
        of_study = keyword == "ReferencedSOPInstanceUID" and _step(item)[1] in OF_STUDY
        if item not in ("", "meta") and (of_study or keyword in IDENTIFIERS[:2]):
            items[item]["series" if keyword == IDENTIFIERS[1] else "study"] = uid
            naming.add(path)
    found = Reading(loose={item.partition("[")[0] for item in items})
    leading: set[str] = set()
    for path, uid in instance.edges.items():
        item, keyword = _step(path)
        around = [it for it in _around(item) if it in items]
        if path in naming:
            continue
        if keyword != "ReferencedSOPInstanceUID" or not around:
            found.rest[path] = uid
            continue
        leading.update(around)
        study = next((items[it]["study"] for it in around if "study" in items[it]), "")
        series = next((items[it]["series"] for it in around if "series" in items[it]), "")
        where = _where(item)
        if where in (f"{SAME_STUDY}.{IN_SERIES}", f"{OTHER_STUDIES}.{SAME_STUDY}.{IN_SERIES}"):
            where, study = "the list", study or instance.study
        found.chains[Chain(where, study, series, uid)] += 1
    for item, names in items.items():
        if item not in leading:
            study = next((items[it]["study"] for it in _around(item) if "study" in items.get(it, ())), "")
            found.named[_where(item), study, names.get("series", "")] += 1
    return found


def _step(path: str) -> tuple[str, str]:
    """The Item in which something stands, and its keyword."""
    item, _, name = path.rpartition(".")
    return item, name.partition("[")[0]


def _around(item: str) -> Iterator[str]:
    """An Item's path and those of the Items that hold it, from the inside."""
    while item:
        yield item
        item = item.rpartition(".")[0]


def _where(item: str) -> str:
    return ".".join(step.partition("[")[0] for step in item.split("."))


class Difference(NamedTuple):
    """Where an output isn't what a command means.

    Attributes:
      what: missing, unexpected, kept, unlike, again, chains, named, rest, list, or meta.
      label: of the instance; "" where it concerns the whole.
      told: the identifiers, chains or paths.
    """

    what: str
    label: str = ""
    told: object = None


class _Successors:
    """What became of each study, series and instance, as the outputs say themselves."""

    def __init__(self, before: Graph, after: Graph) -> None:
        self.by_role: dict[str, defaultdict[str, set[str]]] = {
            role: defaultdict(set) for role in ("study", "series", "sop_instance")
        }
        self.of_instance: dict[str, Instance] = {}
        self.of_series: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        for label, new in after.items():
            old = before[label]
            for role, found in self.by_role.items():
                if uid := getattr(old, role):
                    found[uid].add(getattr(new, role))
            self.of_instance[old.sop_instance] = new
            self.of_series[old.series].add((new.study, new.series))

    def one(self, role: str, uid: str) -> str:
        """What a study or series is called of which an instance that isn't there is taken to be: one that was divided
        has kept its name for what stayed. A series that wasn't has its instances with it."""
        found = self.by_role[role].get(uid, {uid})
        return next(iter(found)) if len(found) == 1 else uid

    def any(self, uid: str) -> set[str]:
        """What may stand for a UID outside of chains."""
        found = [by[uid] for by in self.by_role.values() if uid in by]
        return set().union(*found) | ({uid} if any(len(it) > 1 for it in found) else set()) if found else {uid}

    def chain(self, chain: Chain) -> Chain:
        there = self.of_instance.get(chain.sop_instance)
        if there:
            return Chain(chain.where, chain.study and there.study, chain.series and there.series, there.sop_instance)
        ((study, series), *more) = self.of_series.get(chain.series, {("", "")})
        if not series or more:
            study, series = self.one("study", chain.study), self.one("series", chain.series)
        return chain._replace(study=chain.study and study, series=chain.series and series)


def compare(before: Graph, after: Graph) -> list[Difference]:
    """How the references after don't say what they said before; nothing where they do.

    What became of each instance is read off its own identifiers. Every reference that led to an instance leads to what
    became of it, and the study and series beside it are those that it is in now; what led elsewhere still does; frames
    of reference are what they were; and the list of an instance's own study holds what is in that study.
    """
    successors = _Successors(before, after)
    found = list(_apart(before, after))
    for label, new in after.items():
        found += _compared(label, before[label], new, successors)
    return found


def _apart(before: Graph, after: Graph) -> Iterator[Difference]:
    """No two instances have become one, and none of two series."""
    instances = Counter(it.sop_instance for it in after.values())
    yield from (Difference("again", "", uid) for uid, count in instances.items() if count > 1)
    series: defaultdict[str, set[str]] = defaultdict(set)
    for label, new in after.items():
        if new.series:
            series[new.series].add(before[label].series)
    yield from (Difference("again", "", uid) for uid, olds in series.items() if len(olds) > 1)


def _compared(label: str, old: Instance, new: Instance, successors: _Successors) -> Iterator[Difference]:
    was, now = reading(old), reading(new)
    expected = Counter[Chain]()
    for chain, count in was.chains.items():
        expected[successors.chain(chain)] += count
    if now.chains != expected:
        yield Difference("chains", label, {"lost": expected - now.chains, "new": now.chains - expected})
    yield from _bare(label, was, now, successors)
    yield from _rest(label, was, now, successors)
    own = [path for path in new.edges if path.startswith(OTHER_STUDIES) and path.endswith(".StudyInstanceUID[0]")]
    yield from (Difference("list", label, path) for path in own if new.edges[path] == new.study)
    if _plain(old.definitions) != _plain(new.definitions):
        yield Difference("rest", label, "definitions")
    if new.edges.get("meta.MediaStorageSOPInstanceUID[0]") != new.sop_instance:
        yield Difference("meta", label)


def _plain(definitions: Mapping[str, str]) -> set[tuple[str, str]]:
    """What names classes: Items that are divided name theirs twice, and those of the list stand in either sequence."""
    there = {(_where(path).removeprefix(f"{OTHER_STUDIES}."), uid) for path, uid in definitions.items()}
    return {(where, uid) for where, uid in there if not where.startswith("meta.")}


def _bare(label: str, was: Reading, now: Reading, successors: _Successors) -> Iterator[Difference]:
    """Items that lead to no instance name a series, and the study that it is in."""
    if was.named.total() != now.named.total():
        yield Difference("named", label, {"before": was.named, "after": now.named})
    allowed = {
        (where, study, series)
        for where, old_study, old_series in was.named
        for study in successors.any(old_study) | {old_study}
        for series in successors.any(old_series) | {old_series}
    }
    if now.named.keys() - allowed:
        yield Difference("named", label, now.named.keys() - allowed)


def _rest(label: str, was: Reading, now: Reading, successors: _Successors) -> Iterator[Difference]:
    """UIDs outside of chains: at their paths, or, where Items may be divided, in their sequences."""
    loose = was.loose | now.loose | {SAME_STUDY, OTHER_STUDIES}
    firm, free = _sorted(was.rest, loose)
    firm_now, free_now = _sorted(now.rest, loose)
    for path, uid in firm.items():
        if firm_now.get(path, "") not in _allowed(path, uid, successors):
            yield Difference("rest", label, (path, uid, firm_now.get(path)))
    if firm_now.keys() - firm.keys():
        yield Difference("unexpected", label, firm_now.keys() - firm.keys())
    allowed = {(where, uid) for where, old in free for uid in _allowed(where, old, successors)}
    if free_now - allowed or {where for where, _ in free_now} != {where for where, _ in free}:
        yield Difference("rest", label, (free_now, free))


def _sorted(rest: Mapping[str, str], loose: set[str]) -> tuple[dict[str, str], set[tuple[str, str]]]:
    """(UID by path, (path without numbers, UID)) of what has its place, and of what hasn't."""
    firm = {path: uid for path, uid in rest.items() if path.partition("[")[0] not in loose}
    free = {(_where(path), uid) for path, uid in rest.items() if path.partition("[")[0] in loose}
    return {path: uid for path, uid in firm.items() if not path.startswith("meta.")}, free


def _allowed(path: str, uid: str, successors: _Successors) -> set[str]:
    return {uid} if "FrameOfReferenceUID" in _step(path)[1] else successors.any(uid)

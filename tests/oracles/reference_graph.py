"""A project's reference graph as pydicom reads it, and whether another one is the same under other names.

Of the product it uses nothing but two tables of the Standard's and the recipe that docs/identity.md publishes, both
read here anew; what the product makes of them is what it judges.
"""

import base64
import csv
import hmac
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pydicom
from pydicom import config
from pydicom.datadict import DicomDictionary, dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID_dictionary

PATIENT_ID = 0x00100020
TABLES = Path(__file__).parents[2] / "dicomveil" / "tables"
EDITION = "2026d"

DEFINITIONS = frozenset(
    """AffectedSOPClassUID RequestedSOPClassUID MediaStorageSOPClassUID TransferSyntaxUID ImplementationClassUID
    RTVCommunicationSOPClassUID ReferencedSOPClassUIDInFile ReferencedTransferSyntaxUIDInFile
    ReferencedRelatedGeneralSOPClassUIDInFile SOPClassUID RelatedGeneralSOPClassUID OriginalSpecializedSOPClassUID
    SOPClassesInStudy CodingSchemeUID ContextUID MappingResourceUID StoredInstanceTransferSyntaxUID ReferencedSOPClassUID
    SOPClassesSupported AvailableTransferSyntaxUID FlowTransferSyntaxUID MACCalculationTransferSyntaxUID
    EncryptedContentTransferSyntaxUID SegmentationTemplateUID PertinentSOPClassesInStudy
    PertinentSOPClassesInSeries""".split()  # noqa: SIM905
)
"""UI attributes that name what something is, and never which one it is."""

_GONE = frozenset(("X", "Z", "D", "X/Z", "X/D", "Z/D", "X/Z/D"))
_NUMBER = re.compile(r"\[\d+\]")
_COLUMNS = {
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


# ---------------------------------------------------------------------------------------------------------- the graph


class Instance(NamedTuple):
    """One instance, and every edge that leaves it.

    Attributes:
      patient: its Patient ID without padding; "" for none.
      study, series, sop_instance: its own UIDs; "" for what it lacks.
      edges: the instance-role UID at each path, such as "ReferencedSeriesSequence[0].SeriesInstanceUID[0]", where the
        last number counts values; its own UIDs and Frame of Reference are edges too.
      definitions: the UID at each path that names a class, a transfer syntax or a coding scheme, likewise.
      patients: the Patient ID at each path in an Item.
    """

    patient: str
    study: str
    series: str
    sop_instance: str
    edges: dict[str, str]
    definitions: dict[str, str]
    patients: dict[str, str]


Graph = Mapping[str, Instance]
"""The instances of a project, each under a label that it has before and after."""


def read(files: Mapping[str, bytes | Path]) -> dict[str, Instance]:
    """The graph of some stored instances."""
    return {label: read_instance(file) for label, file in files.items()}


def read_instance(file: bytes | Path) -> Instance:
    """One stored instance with its edges, whatever its encoding."""
    with warnings.catch_warnings(), _lenient():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(io.BytesIO(file) if isinstance(file, bytes) else file, force=True)
        edges: dict[str, str] = {}
        definitions: dict[str, str] = {}
        patients: dict[str, str] = {}
        meta = getattr(ds, "file_meta", None) or Dataset()
        for element in meta:
            _note(element, "meta.", edges, definitions)
        _walk(ds, "", edges, definitions, patients)
    top = {name: edges.get(f"{name}[0]", "") for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    return Instance(patients.pop("PatientID", ""), *top.values(), edges, definitions, patients)


@contextmanager
def _lenient() -> Iterator[None]:
    """Values that no VR allows are read as they are: malformed UIDs are names like any other."""
    mode = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.IGNORE
    try:
        yield
    finally:
        config.settings.reading_validation_mode = mode


def _walk(ds: Dataset, path: str, edges: dict[str, str], definitions: dict[str, str], patients: dict[str, str]) -> None:
    for tag in list(ds.keys()):
        if _silent(tag, ds.get_item(tag).VR):
            continue  # converting a value that leads nowhere takes most of the time
        element = ds[tag]
        if element.VR == "SQ":
            for number, item in enumerate(element.value or []):
                _walk(item, f"{path}{_name(element)}[{number}].", edges, definitions, patients)
        elif element.keyword == "PatientID":
            patients[path + "PatientID"] = str(element.value or "").strip(" \0")
        else:
            _note(element, path, edges, definitions)


def _silent(tag: BaseTag, vr: str | None) -> bool:
    """Whether an element as it is encoded can be no sequence, UID or Patient ID."""
    if tag == PATIENT_ID or vr in ("SQ", "UI", "UN"):
        return False
    return (tag.is_private and vr is not None) or _dictionary_vr(tag) not in ("SQ", "UI", "")


@cache
def _dictionary_vr(tag: BaseTag) -> str:
    return dictionary_VR(tag) if dictionary_has_tag(tag) else ""


def _note(element: DataElement, path: str, edges: dict[str, str], definitions: dict[str, str]) -> None:
    is_uid = element.VR == "UI" if element.tag.is_private else _vr(element) == "UI"
    if not is_uid or not element.value:
        return
    value = element.value.decode("latin-1") if isinstance(element.value, bytes) else element.value
    values = value.split("\\") if isinstance(value, str) else [str(one) for one in value]
    into = definitions if element.keyword in DEFINITIONS else edges
    for number, one in enumerate(values):
        if uid := one.strip(" \0"):
            into[f"{path}{_name(element)}[{number}]"] = uid


def _vr(element: DataElement) -> str:
    """What the dictionary says: a UID is one under whatever VR it is written."""
    return _dictionary_vr(element.tag) or element.VR


def _name(element: DataElement) -> str:
    return keyword_for_tag(element.tag) or str(element.tag).replace(" ", "")


# ---------------------------------------------------------------------------------------------------------- the rules


@cache
def _table(*path: str) -> dict[str, dict[str, str]]:
    """The lines of a table, by keyword."""
    with TABLES.joinpath(*path).open(newline="", encoding="utf-8") as lines:
        return {row["keyword"]: row for row in csv.DictReader(lines)}


@cache
def _registered() -> frozenset[str]:
    with (TABLES / "uids.csv").open(newline="", encoding="utf-8") as lines:
        return frozenset(row["uid"] for row in csv.DictReader(lines))


@dataclass(frozen=True)
class Rules:
    """Which steps of a path a request takes away, and which it lets be thinned out.

    Attributes:
      options: of PS3.15 E.3.
      private: whether private elements stay.
    """

    options: tuple[str, ...] = ()
    private: bool = False

    def gone(self, path: str) -> bool:
        """Whether what stands at a path may be missing, or have a dummy in its place."""
        return any(self._code(step) in _GONE for step in steps(path))

    def thinned(self, path: str) -> bool:
        """Whether Items on the way may be missing, so that the others have other numbers."""
        return any(self._code(step) == "C" for step in steps(path))

    def _code(self, keyword: str) -> str:
        if keyword.startswith("(") and keyword[4] in "13579BDFbdf":
            return "K" if self.private else "X"
        row = _table(EDITION, "e1_1.csv").get(keyword)
        if row is None:
            line = _table("supplement.csv").get(keyword)
            known = keyword in _keywords() or line is not None
            return line["action"] if line else "K" if known else "X"
        cells = [row[_COLUMNS[option]] for option in self.options]
        return "C" if "C" in cells else "K" if "K" in cells else row["basic"]


@cache
def _keywords() -> frozenset[str]:
    return frozenset(entry[4] for entry in DicomDictionary.values())


def steps(path: str) -> list[str]:
    """The attributes that a path leads through."""
    return [step for step in _NUMBER.sub("", path).split(".") if step != "meta"]


# ------------------------------------------------------------------------------------------------------ the crosswalk


class Recipe(Mapping[str, str]):
    """The crosswalk of UIDs that docs/identity.md publishes: what each original becomes under a key."""

    def __init__(self, key: bytes) -> None:
        self._root = hmac.digest(b"dicomveil 1", key, "sha256")

    def derive(self, label: str, *parts: bytes) -> bytes:
        framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.digest(hmac.digest(self._root, label.encode(), "sha256"), framed, "sha256")

    def __getitem__(self, uid: str) -> str:
        if uid in _registered():
            return uid
        digest = bytearray(self.derive("uid", uid.encode())[:16])
        digest[6], digest[8] = digest[6] & 0x0F | 0x80, digest[8] & 0x3F | 0x80
        return f"2.25.{int.from_bytes(digest, 'big')}"

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def patient(self, patient_id: str) -> str:
        """The new Patient ID of a known one."""
        return "DV" + base64.b32encode(self.derive("patient-id", patient_id.encode())[:10]).decode()


# --------------------------------------------------------------------------------------------------------- comparison


class Difference(NamedTuple):
    """Where two graphs differ.

    Attributes:
      what: lost, invented, moved, merged, parted, stayed, missing, unexpected, registered, unlisted, or meta.
      label: of the instance; "" where it concerns the whole.
      path: of the edge.
    """

    what: str
    label: str = ""
    path: str = ""


@dataclass
class _Names:
    """A bijection as it is found: the new name of each old one, and back."""

    what: str
    forward: dict[str, str] = field(default_factory=dict)
    backward: dict[str, str] = field(default_factory=dict)

    def bind(self, old: str, new: str, label: str, path: str) -> Iterator[Difference]:
        if self.forward.setdefault(old, new) != new:
            yield Difference("parted", label, path)
        if self.backward.setdefault(new, old) != old:
            yield Difference("merged", label, path)


def compare(
    before: Graph,
    after: Graph,
    crosswalk: Mapping[str, str] | None = None,
    rules: Rules = Rules(),
    nobody: Iterable[str] = (),
) -> list[Difference]:
    """How the graph after is not the one before under other names; nothing where it is.

    Every edge is at the path it was at, unless the rules take a step of that path away. Over the whole project two
    nodes are one after exactly where they were one before, registered UIDs are what they were, and no other original
    is left anywhere.

    Args:
      crosswalk: what the originals became, where that is known; else any bijection does.
      nobody: Patient IDs that name nobody: those of a study without another make a patient of the study.
    """
    uids, patients = _Names("uid"), _Names("patient")
    found = [Difference("missing", label) for label in before.keys() - after.keys()]
    found += [Difference("unexpected", label) for label in after.keys() - before.keys()]
    whose = _patients(before, frozenset(nobody))
    both = sorted(before.keys() & after.keys())
    for label in both:
        old, new = before[label], after[label]
        if old.study:
            found += patients.bind(whose[label], new.patient, label, "PatientID")
        found += _edges(label, old, new, uids, rules)
        found += _nested_patients(label, old, new, patients, rules, frozenset(nobody))
        found += [
            Difference("moved", label, path)
            for path, uid in new.definitions.items()
            if not path.startswith("meta.") and not rules.gone(path) and old.definitions.get(path) != uid
        ]
        if new.edges.get("meta.MediaStorageSOPInstanceUID[0]") != new.sop_instance:
            found.append(Difference("meta", label))
    found += _crosswalk(uids.forward, crosswalk)
    for label in both:
        found += _thinned(label, before[label], after[label], crosswalk, rules)
    originals = {uid for instance in before.values() for uid in instance.edges.values()} - _registered()
    found += [
        Difference("stayed", label, path)
        for label in both
        for path, uid in after[label].edges.items()
        if uid in originals
    ]
    return found


def _patients(graph: Graph, nobody: frozenset[str]) -> dict[str, str]:
    """Whose each instance is, by its label: its study's one Patient ID, or the study itself where it has none.

    In a study of several patients each instance is its own Patient ID's.
    """
    found: dict[str, set[str]] = {}
    for instance in graph.values():
        found.setdefault(instance.study, set()).add("" if instance.patient in nobody else instance.patient)
    alone = {study: max(ids) or f"study {study}" for study, ids in found.items() if len(ids - {""}) < 2}
    return {label: alone.get(instance.study, instance.patient) for label, instance in graph.items()}


def _edges(label: str, old: Instance, new: Instance, uids: _Names, rules: Rules) -> Iterator[Difference]:
    for path, uid in old.edges.items():
        if path.startswith("meta.") or rules.thinned(path):
            continue
        there = new.edges.get(path)
        if rules.gone(path):
            continue
        if there is None:
            yield Difference("lost", label, path)
        elif (uid in UID_dictionary or there in _registered()) and uid != there:
            yield Difference("registered", label, path)
        else:
            yield from uids.bind(uid, there, label, path)
    for path in new.edges.keys() - old.edges.keys():
        if not path.startswith("meta.") and not rules.gone(path) and not rules.thinned(path):
            yield Difference("invented", label, path)


def _nested_patients(
    label: str,
    old: Instance,
    new: Instance,
    patients: _Names,
    rules: Rules,
    nobody: frozenset[str],
) -> Iterator[Difference]:
    for path, patient in old.patients.items():
        there = new.patients.get(path, "")
        if any(rules.gone(step) for step in steps(path)[:-1]) or rules.thinned(path):
            continue
        if bool(there) != (patient not in nobody and bool(patient)):
            yield Difference("lost" if not there else "invented", label, path)
        elif there:
            yield from patients.bind(patient, there, label, path)


def _crosswalk(forward: Mapping[str, str], crosswalk: Mapping[str, str] | None) -> Iterator[Difference]:
    if crosswalk is None:
        return
    news = Counter(crosswalk.values())
    yield from (Difference("merged", "", "crosswalk") for count in news.values() if count > 1)
    for old, new in forward.items():
        listed = crosswalk.get(old, old if old in _registered() else None)
        if listed != new:
            yield Difference("unlisted")


def _thinned(
    label: str, old: Instance, new: Instance, crosswalk: Mapping[str, str] | None, rules: Rules
) -> Iterator[Difference]:
    """In trees whose Items may go, what is left leads where it led, in whichever Item it stands now."""
    there = Counter((_NUMBER.sub("", path), uid) for path, uid in new.edges.items() if rules.thinned(path))
    if not there:
        return
    assert crosswalk is not None, "a thinned tree needs a crosswalk to be compared by"
    was = Counter((_NUMBER.sub("", path), crosswalk[uid]) for path, uid in old.edges.items() if rules.thinned(path))
    yield from (Difference("moved", label, path) for path, _ in (there - was))


def edges(graph: Graph) -> int:
    """How many edges a graph has, so that a test can say that it looked at some."""
    return sum(len(instance.edges) for instance in graph.values())

"""The values that cross PCollections: frozen and plain.

They are pickled on their way, never grouped by, and so need no coder of their own. (A RowCoder would give other worker
processes rows of a class that Beam makes up, which `dataclasses.replace` refuses.)

Those that hold a URI or a scan stay in the restricted zone: they are shuffled and written there, and nowhere else; and
none has a repr that would show them to a log.
"""

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, repr=False)
class SourceObject:
    """One stored object, listed.

    Attributes:
      token: stands for URI and version under the key.
      version: what `stores` must find again when it opens the object.
      reason: why it can't be opened at all, a code of `errors.REASONS`; "" where it can.
      former: the name of its output, where an earlier run wrote it and it rejoins; else "".
      sop_instance_uid: the new one, where it was told apart from others then; else "".
      storage_class: as its store calls it; "" where it tells none.
    """

    token: str
    uri: str
    size: int
    version: str
    reason: str = ""
    former: str = ""
    sop_instance_uid: str = ""
    storage_class: str = ""


@dataclass(frozen=True, repr=False)
class Planned:
    """What the plan says of one object.

    Attributes:
      study_token: of its study; "" where nothing is known of it.
      sop_token: of its SOP Instance UID, likewise.
      series_token: of its Series Instance UID, likewise.
      scan: an encoded `InstanceScan`; empty where it isn't to be rewritten.
      sop_instance_uid: the new one, where the plan settled it; else "".
      reason: why it isn't to be rewritten, a code of `errors.REASONS`; "" where it is.
      path: the tag path of that, "" for none.
      former: the name of the output that an earlier run wrote of it; "" for none.
      selected: whether the request means it; else only its references follow.
      rejoins: whether it isn't among the inputs, but its study's facts have changed.
      storage_class: as its store calls it; "" where it tells none.
    """

    token: str
    uri: str
    size: int
    version: str
    study_token: str = ""
    sop_token: str = ""
    series_token: str = ""
    scan: bytes = b""
    sop_instance_uid: str = ""
    reason: str = ""
    path: str = ""
    former: str = ""
    selected: bool = True
    rejoins: bool = False
    storage_class: str = ""


@dataclass(frozen=True, repr=False)
class PlannedStudy:
    """What the plan says of one study.

    Attributes:
      study_map: encoded `StudyMap`.
      facts: encoded `StudyFacts`.
      map_token: stands for all of the map that decides on outputs.
      changed: whether instances that an earlier run has written into this output would come out unlike now.
      elsewhere: how many UIDs that it only refers to are borne by another study of the run.
      known: how many of them by an earlier run's, or told by a crosswalk.
      external: how many by none.
    """

    study_token: str
    study_map: bytes
    facts: bytes = b""
    map_token: str = ""
    changed: bool = False
    elsewhere: int = 0
    known: int = 0
    external: int = 0


@dataclass(frozen=True, repr=False)
class Changed:
    """One changed element, as `dicomveil.rewrite.Change`."""

    path: str
    keyword: str
    vr: str
    action: str
    rule: str


@dataclass(frozen=True, repr=False)
class Frozen:
    """One sequence that the request keeps as it is, and how many original UIDs stay in it."""

    path: str
    keyword: str
    original_uids: int


@dataclass(frozen=True, repr=False)
class LateUID:
    """A UID that only the rewrite met."""

    role: str
    original: str
    new: str


DEIDENTIFIED, MODIFIED, COPIED = "deidentified", "modified", "copied"
WRITTEN: Final = (DEIDENTIFIED, MODIFIED, COPIED)
"""Outcomes of which there is an output; what is copied is not selected, but of a study that is modified."""


@dataclass(frozen=True, repr=False)
class Outcome:
    """What became of one listed object: exactly one of these each.

    Attributes:
      outcome: one of `WRITTEN`, filtered or quarantined.
      stage: where that was settled: list, scan, plan or rewrite.
      name: the output's, below the output root; "" where there is none. All new values.
      size: bytes of the output; source_size: of the input.
      risk: why its pixels may speak; "" where nothing says so.
    """

    token: str
    uri: str
    version: str
    source_size: int
    outcome: str
    reason: str
    stage: str
    path: str = ""
    name: str = ""
    patient_id: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    transfer_syntax_uid: str = ""
    original_sop_instance_uid: str = ""
    original_series_instance_uid: str = ""
    original_study_instance_uid: str = ""
    size: int = 0
    sha256: str = ""
    changes: list[Changed] = field(default_factory=list)
    late_uids: list[LateUID] = field(default_factory=list)
    risk: str = ""
    frozen: list[Frozen] = field(default_factory=list)
    study_token: str = ""
    sop_token: str = ""
    source_sha256: str = ""

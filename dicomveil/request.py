"""What a user asks for, as a value: a request that holds no mistake.

How it is read from a body stands in `body`, what its members are in `schema`; what becomes of attributes because of
them is settled in `compile`.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Final

from dicomveil import schema, standard, syntaxes
from dicomveil.dates import DateRule
from dicomveil.paths import AttributePath
from dicomveil.pseudonyms import FIELD
from dicomveil.tags import Attribute, PrivateEntry
from dicomveil.values import Value

IDENTIFIERS: Final = {0x00100020: "patient", 0x0020000D: "study", 0x0020000E: "series", 0x00080018: "instance"}
"""What Force must be given for, and what each identifies."""
FRAME_OF_REFERENCE: Final = 0x00200052
ROLES: Final = IDENTIFIERS | {FRAME_OF_REFERENCE: "frame-of-reference"}
"""The attributes whose constant could make one of many."""
_SOP_CLASS: Final = 0x00080016
_CHARACTER_SET: Final = 0x00080005
_TEXT_OPTIONS: Final = frozenset(
    ("CleanDescriptors", "CleanStructuredContent", "CleanGraphics", "RetainSafePrivate", "RetainPatientCharacteristics",
     "RetainDeviceIdentity")
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Resource:
    """One patient, study, series or instance that a request names. Its repr tells nothing: it is an original.

    Attributes:
      role: patient, study, series or instance; "" where only Orthanc's identifier is known, which is of any.
      id: the DICOM identifier, or Orthanc's.
      orthanc: whether it is Orthanc's.
      where: in the body, such as "Resources[2]".
    """

    role: str
    id: str
    orthanc: bool
    where: str = field(compare=False)


@dataclass(frozen=True)
class Replacement:
    """One entry of Replace: `vr` is "" where only the element that is replaced knows it."""

    path: AttributePath
    vr: str
    value: Value


@dataclass(frozen=True)
class Request:
    """A request that holds no mistake; its defaults are the Basic Profile of the newest edition.

    Attributes:
      command: anonymize, modify, split or merge.
      options: of PS3.15 E.3, in the Standard's order.
      replace, remove, keep: what is asked of single attributes, as written there.
      safe_private: what the site knows to be safe, with the VR that its dictionary gives; "" for none.
      date_shift: by how many days dates move under Retain Longitudinal Temporal Information, Modified Dates.
      cap_ages: whether ages over 89 become one.
      pseudonyms: the attributes that become keyed pseudonyms, of `pseudonyms.NUMBERS`, sorted.
      patient_name_template: the new Patient's Name, `pseudonyms.FIELD` in it for the new Patient ID.
      encrypt_for: certificates in PEM, one each.
      encrypt_attributes: tags at the top level; empty for every one that is changed but bulk and sequences.
      level: of modify: which identifiers are new, those of this level and below; raised where an identifier above
        it is replaced.
      resources: what is selected, moved or merged; none for everything.
      study: what is split, or merged into.
      transcode: UID of the transfer syntax to write; "" for the one it was in.
      lossy_quality: 1 to 100, of lossy ones.
      scope: stands for the whole request under the key, where new identifiers are derived under it; "" until a run
        has settled it.
      keep_source: whether the sources stay once the run has ended.
      user_data: JSON text, or "".
      body: the members that were written, as they were understood.
      notices: what the user should hear of how the body was read.
    """

    command: str = "anonymize"
    dicom_version: str = standard.NEWEST
    options: tuple[str, ...] = ()
    replace: tuple[Replacement, ...] = ()
    remove: tuple[AttributePath, ...] = ()
    keep: tuple[AttributePath, ...] = ()
    keep_private_tags: bool = False
    force: bool = False
    private_creator: str = ""
    private_dictionary: tuple[PrivateEntry, ...] = ()
    safe_private: tuple[Attribute, ...] = ()
    vocabulary: tuple[str, ...] = ()
    supplement: bool = True
    reference_sequences: str = "map"
    map_uids_in_kept: bool = False
    private_sop_class: str = "quarantine"
    conflicts: str = "quarantine"
    patient_identity: str = "id"
    default_issuer: str = ""
    patient_conflicts: str = "quarantine"
    unlisted: str = "derive"
    external_references: str = "map"
    allow_merge: bool = False
    burned_in: str = "quarantine"
    bitstream_comments: str = "blank"
    date_shift: DateRule = field(default_factory=DateRule)
    cap_ages: bool = False
    pseudonyms: tuple[str, ...] = ()
    patient_name_template: str = FIELD
    encrypt_for: tuple[str, ...] = ()
    encrypt_attributes: tuple[int, ...] = ()
    level: str = "Instance"
    resources: tuple[Resource, ...] = ()
    study: Resource | None = None
    transcode: str = ""
    lossy_quality: int = 90
    scope: str = ""
    permissive: bool = True
    keep_source: bool = True
    user_data: str = field(default="", compare=False)
    body: str = field(default="{}", compare=False)
    notices: tuple[str, ...] = field(default=(), compare=False)

    def members(self) -> dict[str, Any]:
        """The request as a body that says everything that decides on the output but what it selects, which are
        originals; names of attributes as written."""
        written = json.loads(self.body)
        told = {name: written.get(name, schema.MEMBERS[name].schema["default"]) for name in AS_WRITTEN}
        told |= {name: getattr(self, attribute) for name, attribute in FIELDS.items()}
        told["RemovePrivateTags"] = not self.keep_private_tags
        told |= {name: list(told[name]) for name in ("Options", "Vocabulary", "Pseudonyms", "EncryptFor")}
        told["DateShift"] = self.date_shift.member()
        return {name: told[name] for name in schema.obeyed(self.command) if name in told}

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits: equal for two bodies that ask for the same, however they are written."""
        plain = {it.name: getattr(self, it.name) for it in fields(self) if it.name not in _NOT_OUTPUT}
        usual = Request()
        plain = {name: it for name, it in plain.items() if name not in _LATER or it != getattr(usual, name)}
        plain |= {name: sorted(path.text() for path in plain[name]) for name in ("remove", "keep", "safe_private")}
        plain["replace"] = sorted((it.path.text(), it.vr, _canonical(it.value)) for it in self.replace)
        plain["private_dictionary"] = sorted((it.attribute.text(), it.vr) for it in self.private_dictionary)
        return hashlib.sha256(repr(sorted(plain.items())).encode()).hexdigest()[:16]

    @property
    def selects(self) -> bool:
        """Whether it is about a part of the inputs."""
        return bool(self.resources or self.study)

    @cached_property
    def selection(self) -> bytes:
        """What is selected, in one order; it holds originals."""
        return repr(sorted((it.role, it.id, it.orthanc) for it in self.resources)).encode()

    @cached_property
    def lossy(self) -> str:
        """How pixels are compressed with loss; "" where they aren't."""
        syntax = syntaxes.produced().get(self.transcode)
        return f"{syntax.uid} {self.lossy_quality}" if syntax and syntax.lossy else ""

    @cached_property
    def alters(self) -> bool:
        """Whether identified data sets are made of identified ones."""
        return self.command != "anonymize"

    @cached_property
    def new_roles(self) -> frozenset[str]:
        """Of modify, split and merge: which identifiers of what is selected change."""
        level = {"split": "Study", "merge": "Study"}.get(self.command, self.level)
        below = BELOW[level]
        return frozenset(below - self.kept_roles | self.given.keys())

    @cached_property
    def describes(self) -> bool:
        """Whether something becomes a patient's who may be there already, and should be the same person."""
        return self.command in ("modify", "split") and "patient" in self.given

    @cached_property
    def kept_roles(self) -> frozenset[str]:
        """What identifiers stay original: study, series, instance, frame-of-reference, patient."""
        kept = {ROLES[path.attribute.tag] for path in self.keep if not path.steps and path.attribute.tag in ROLES}
        if "RetainUIDs" in self.options:
            kept |= {"study", "series", "instance", "frame-of-reference"}
        return frozenset(kept)

    @cached_property
    def given(self) -> dict[str, str]:
        """The constants that take the place of identifiers, by role; a kept one has none."""
        return {
            ROLES[it.path.attribute.tag]: (it.value.text or "").strip(" ")
            for it in self.replace
            if not it.path.steps and it.path.attribute.tag in ROLES
            and ROLES[it.path.attribute.tag] not in self.kept_roles
        }  # fmt: skip

    @cached_property
    def sop_class(self) -> str:
        """The SOP Class that takes the place of every instance's own; "" for none."""
        if any(path.attribute.matches(_SOP_CLASS) and not path.steps for path in self.keep):
            return ""
        given = (
            it.value.text or "" for it in self.replace if it.path.attribute.tag == _SOP_CLASS and not it.path.steps
        )
        return next(given, "")

    @cached_property
    def keeps_private(self) -> bool:
        """Whether any private element may stay or is written."""
        named = (*self.keep, *(it.path for it in self.replace))
        return (
            self.keep_private_tags
            or "RetainSafePrivate" in self.options
            or any(path.attribute.private for path in named)
        )

    def for_workers(self) -> "Request":
        """The same without what only the command needs: a graph carries nothing that it has no use for, and no
        originals."""
        return dataclasses.replace(self, user_data="", body="{}", notices=(), resources=(), study=None)

    @cached_property
    def for_bystanders(self) -> "Request":
        """What becomes of instances that aren't selected, and whose study holds some that are."""
        return dataclasses.replace(self, replace=(), remove=(), keep=(), keep_private_tags=True, transcode="")

    @cached_property
    def utf8(self) -> bool:
        """Whether every data set is switched to UTF-8."""
        return any(it.path.attribute.tag == _CHARACTER_SET for it in self.replace)

    @cached_property
    def cleans_text(self) -> bool:
        """Whether text is reduced to a vocabulary, so that the study's identifying words must be known."""
        return bool(_TEXT_OPTIONS.intersection(self.options))


def _canonical(value: Value) -> str:
    """A value as text that is equal for equal values alone."""
    items = [[(member.tag, _canonical(member.value)) for member in item] for item in value.items or ()]
    return repr((value.vr, value.text, value.raw, value.items is None, items))


BELOW: Final = {
    "Patient": {"study", "series", "instance"},
    "Study": {"study", "series", "instance"},
    "Series": {"series", "instance"},
    "Instance": {"instance"},
}
"""The identifiers that each level makes new."""
_NOT_OUTPUT: Final = ("body", "notices", "user_data", "permissive", "keep_source", "resources", "study", "scope")
_LATER: Final = (
    "patient_identity", "default_issuer", "patient_conflicts", "unlisted", "external_references", "date_shift",
    "cap_ages", "pseudonyms", "patient_name_template", "encrypt_for", "encrypt_attributes", "command", "level",
    "transcode", "lossy_quality",
)  # fmt: skip
"""Members that came after the first recipes: saying nothing of them is what it always was, to the fingerprint too."""
AS_WRITTEN: Final = ("Replace", "Remove", "Keep", "PrivateDictionary", "SafePrivate", "EncryptAttributes")
"""Members that a request holds in another form, and tells as they were written."""
FIELDS: Final = {
    "DicomVersion": "dicom_version",
    "Options": "options",
    "KeepPrivateTags": "keep_private_tags",
    "Force": "force",
    "PrivateCreator": "private_creator",
    "Vocabulary": "vocabulary",
    "Supplement": "supplement",
    "ReferenceSequences": "reference_sequences",
    "MapUIDsInKept": "map_uids_in_kept",
    "PrivateSOPClass": "private_sop_class",
    "Conflicts": "conflicts",
    "PatientIdentity": "patient_identity",
    "DefaultIssuer": "default_issuer",
    "PatientConflicts": "patient_conflicts",
    "Unlisted": "unlisted",
    "ExternalReferences": "external_references",
    "AllowMerge": "allow_merge",
    "BurnedIn": "burned_in",
    "BitstreamComments": "bitstream_comments",
    "DateShift": "date_shift",
    "CapAges": "cap_ages",
    "Pseudonyms": "pseudonyms",
    "PatientNameTemplate": "patient_name_template",
    "EncryptFor": "encrypt_for",
    "Level": "level",
    "Transcode": "transcode",
    "LossyQuality": "lossy_quality",
    "Permissive": "permissive",
    "KeepSource": "keep_source",
}
"""The attribute of `Request` that holds a member."""

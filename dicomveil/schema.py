"""The members of a request body, command by command, as a table; and the JSON Schema that is made of it.

What they mean is said where they are obeyed.
"""

from typing import Any, Final, NamedTuple

from dicomveil import standard

COMMANDS: Final = ("anonymize", "modify", "split", "merge")
LEVELS: Final = ("Patient", "Study", "Series", "Instance")
PIXEL_OPTIONS: Final = ("CleanPixelData", "CleanRecognizableVisualFeatures")
"""Those that change pixels, which nothing here does."""
OPTIONS: Final = tuple(option for option in standard.OPTION_COLUMNS if option and option not in PIXEL_OPTIONS)
"""The Options of PS3.15 E.3 that a request may name, as CID 7050 names them."""


_TAGS: Final = {"type": "array", "items": {"type": "string"}, "default": []}
_SWITCH: Final = {"type": "boolean", "default": False}


class Member(NamedTuple):
    """One member of a body.

    Attributes:
      says: what it decides.
      schema: of its value.
      commands: that obey it.
    """

    says: str
    schema: dict[str, Any]
    commands: tuple[str, ...] = ("anonymize",)


IDENTIFIERS: Final = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_RESOURCE: Final = {
    "type": ["string", "object"],
    "properties": {name: {"type": "string"} for name in IDENTIFIERS},
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}
"""A patient, study, series or instance: Orthanc's identifier of it, or one of DICOM's."""
_RESOURCES: Final = {"type": "array", "items": _RESOURCE}
_BOTH: Final = ("anonymize", "modify")
_ALL: Final = COMMANDS

MEMBERS: Final[dict[str, Member]] = {
    "DicomVersion": Member(
        "Edition of PS3.15 Table E.1-1; the newest where absent.",
        {"enum": list(standard.EDITIONS), "default": standard.NEWEST},
    ),
    "Options": Member(
        "Options of PS3.15 E.3, which override the Basic Profile.",
        {"type": "array", "items": {"enum": [*OPTIONS, *PIXEL_OPTIONS]}, "uniqueItems": True, "default": []},
    ),
    "Replace": Member(
        "Tag or path to value: text, null for none, numbers, an array of objects for a sequence, or a data URI.",
        {
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "array", "null"]},
            "default": {},
        },
        ("anonymize", "modify", "split"),
    ),
    "Remove": Member("Tags and paths that are removed.", _TAGS, ("anonymize", "modify", "split")),
    "Keep": Member("Tags and paths that stay as they are; of a sequence, everything in it.", _TAGS, _BOTH),
    "KeepPrivateTags": Member(
        "Whether private elements stay; null is true, as in the first bodies.",
        {"type": ["boolean", "null"], "default": False},
    ),
    "RemovePrivateTags": Member(
        "Whether private elements are removed; null is true, as in the first bodies.",
        {"type": ["boolean", "null"], "default": False},
        ("modify",),
    ),
    "Force": Member("Whether identifiers may be kept or replaced.", _SWITCH, _ALL),
    "PrivateCreator": Member(
        "The Private Creator of private tags that name none.", {"type": "string", "default": ""}, _BOTH
    ),
    "PrivateDictionary": Member(
        "Tag of a private element to [VR, keyword, VM, Private Creator], or as Orthanc's Dictionary has it.",
        {
            "type": "object",
            "additionalProperties": {"type": "array", "minItems": 4, "maxItems": 5},
            "default": {},
        },
        _BOTH,
    ),
    "SafePrivate": Member(
        "Private elements that the site knows to be safe, by creator, beside PS3.15 Table E.3.10-1.", _TAGS
    ),
    "Vocabulary": Member(
        "Words that text may hold when it is cleaned, beside the ones that dicomveil knows.",
        {"type": "array", "items": {"type": "string"}, "default": []},
    ),
    "Supplement": Member(
        "Whether dicomveil's own table decides what Table E.1-1 doesn't name.", {"type": "boolean", "default": True}
    ),
    "ReferenceSequences": Member(
        "X/Z/U* (Referenced Image and Source Image Sequence): keep and map, or as the Type says.",
        {"enum": ["map", "by-type"], "default": "map"},
    ),
    "MapUIDsInKept": Member("Whether UIDs inside sequences that Keep freezes are mapped all the same.", _SWITCH),
    "PrivateSOPClass": Member(
        "Instances of SOP Classes that the Standard doesn't know: set aside, or de-identify.",
        {"enum": ["quarantine", "strip"], "default": "quarantine"},
    ),
    "Conflicts": Member(
        "Inputs of different content under one SOP Instance UID: set all aside, or tell them apart.",
        {"enum": ["quarantine", "distinct"], "default": "quarantine"},
    ),
    "PatientIdentity": Member(
        "What a patient is known by: the Patient ID alone, or with its issuer.",
        {"enum": ["id", "id+issuer"], "default": "id"},
    ),
    "DefaultIssuer": Member(
        "The issuer of Patient IDs that name none, where PatientIdentity is id+issuer.",
        {"type": "string", "default": ""},
    ),
    "PatientConflicts": Member(
        "A study with several Patient IDs: set it aside, or make a study for each patient.",
        {"enum": ["quarantine", "split"], "default": "quarantine"},
    ),
    "Unlisted": Member(
        "Patients or UIDs that --crosswalk-in doesn't list, where it lists any: derive new values, or set them aside.",
        {"enum": ["derive", "quarantine"], "default": "derive"},
    ),
    "ExternalReferences": Member(
        "Items that refer to what nobody knows, in this run or an earlier one: map the UIDs, or remove them.",
        {"enum": ["map", "remove"], "default": "map"},
    ),
    "AllowMerge": Member(
        "Whether a constant may make one of several patients, studies, series or instances.", _SWITCH, _BOTH
    ),
    "BurnedIn": Member(
        "Pixels that may speak: set aside what says so itself, set aside all that is at risk, or let all pass.",
        {"enum": ["quarantine", "quarantine-risky", "pass"], "default": "quarantine"},
    ),
    "BitstreamComments": Member(
        "Comments inside compressed Pixel Data: blank them where they stand, keep them, or set the instance aside.",
        {"enum": ["blank", "keep", "quarantine"], "default": "blank"},
    ),
    "DateShift": Member(
        "By how many days a patient's dates move: chosen by the key in a range of days back, or so that each patient's "
        "anchor date comes to lie on one day.",
        {
            "type": "object",
            "properties": {
                "Range": {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 1, "maximum": 36500},
                    "minItems": 2,
                    "maxItems": 2,
                },
                "AnchorTo": {"type": ["string", "integer"]},
            },
            "maxProperties": 1,
            "additionalProperties": False,
            "default": {"Range": [30, 3650]},
        },
    ),
    "CapAges": Member("Whether ages over 89 years become 090Y, whatever keeps them.", _SWITCH),
    "Pseudonyms": Member(
        "Which of Accession Number and Study ID become keyed pseudonyms.",
        {"type": "array", "items": {"enum": ["AccessionNumber", "StudyID"]}, "uniqueItems": True, "default": []},
    ),
    "PatientNameTemplate": Member(
        "The new Patient's Name, with {PatientID} for the new Patient ID.",
        {"type": "string", "default": "{PatientID}"},
    ),
    "EncryptFor": Member(
        "Certificates, files in PEM, whose owners may restore originals: these are encrypted into each instance.",
        _TAGS,
    ),
    "EncryptAttributes": Member(
        "What is encrypted, at the top level; every attribute that is changed but bulk and sequences where empty.",
        _TAGS,
    ),
    "Permissive": Member(
        "Whether to go on after an instance that can't be de-identified.", {"type": "boolean", "default": True}, _ALL
    ),
    "UserData": Member("Anything; it is written to summary.json as it is.", {}, _ALL),
    "Synchronous": Member("Of a server: has no effect.", {"type": "boolean"}, _ALL),
    "Asynchronous": Member("Of a server: has no effect.", {"type": "boolean"}, _ALL),
    "Priority": Member("Of a server: has no effect.", {"type": "integer"}, _ALL),
    "KeepLabels": Member("Of a server: has no effect.", {"type": "boolean"}, _ALL),
    "KeepSource": Member(
        "Whether the sources stay; if not, each is deleted at the run's end, once its output has been read back.",
        {"type": "boolean", "default": True},
        _ALL,
    ),
    "Transcode": Member(
        "The transfer syntax to write, by UID or by keyword; as it was where absent.",
        {"type": "string", "default": ""},
        _BOTH,
    ),
    "LossyQuality": Member(
        "The quality of lossy compression, 1 to 100.",
        {"type": "integer", "minimum": 1, "maximum": 100, "default": 90},
        _BOTH,
    ),
    "Level": Member(
        "Which identifiers are new: those of this level and below.",
        {"enum": list(LEVELS), "default": "Instance"},
        ("modify",),
    ),
    "Resources": Member(
        "Which patients, studies, series and instances; all where absent. Merged ones, for merge.",
        _RESOURCES,
        ("anonymize", "modify", "merge"),
    ),
    "Series": Member("Which series go into the new study.", _RESOURCES, ("split",)),
    "Instances": Member("Which instances go into the new study.", _RESOURCES, ("split",)),
    "Study": Member(
        "The study that is split, or merged into; Orthanc has it in the route.", _RESOURCE, ("split", "merge")
    ),
}

SERVER_ONLY: Final = ("Synchronous", "Asynchronous", "Priority", "KeepLabels")


def obeyed(command: str = "anonymize") -> tuple[str, ...]:
    """The members that a command obeys."""
    return tuple(name for name, member in MEMBERS.items() if command in member.commands)


def schema(command: str = "anonymize") -> dict[str, Any]:
    """JSON Schema of a command's body."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: {"description": MEMBERS[name].says, **MEMBERS[name].schema} for name in obeyed(command)},
    }


def published() -> dict[str, Any]:
    """The schema of docs/request.schema.json: anonymize's, and each command's by its name."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dicomveil request",
        **schema(),
        "$defs": {command: schema(command) for command in COMMANDS},
    }

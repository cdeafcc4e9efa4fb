"""The request body: what a user asks for, checked whole before anything runs.

JSON is read as the YAML that it is, so that every mistake is told with its line. The members are those of Orthanc's
body and ours; one that isn't built yet is an error, never ignored.
"""

import difflib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from dicomveil import standard
from dicomveil.errors import Problem, RequestError

SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "dicomveil anonymize request",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "DicomVersion": {
            "description": "Edition of PS3.15 Table E.1-1; the newest where absent.",
            "enum": list(standard.EDITIONS),
            "default": standard.NEWEST,
        },
        "Supplement": {
            "description": "Whether dicomveil's own table decides what Table E.1-1 doesn't name.",
            "type": "boolean",
            "default": True,
        },
        "ReferenceSequences": {
            "description": "X/Z/U* (Referenced Image and Source Image Sequence): keep and map, or as the Type says.",
            "enum": ["map", "by-type"],
            "default": "map",
        },
        "PrivateSOPClass": {
            "description": "Instances of SOP Classes that the Standard doesn't know: set aside, or de-identify.",
            "enum": ["quarantine", "strip"],
            "default": "quarantine",
        },
        "Conflicts": {
            "description": "Inputs of different content under one SOP Instance UID: set all aside, or tell them apart.",
            "enum": ["quarantine", "distinct"],
            "default": "quarantine",
        },
    },
}
"""What a request may say, as JSON Schema; published as docs/request.schema.json."""

NOT_BUILT: Final = frozenset(
    """Replace Remove Keep KeepPrivateTags RemovePrivateTags Force PrivateCreator PrivateDictionary Transcode
    LossyQuality KeepSource KeepLabels Level Resources Series Instances Synchronous Asynchronous Priority Permissive
    UserData Options SafePrivate BurnedIn BitstreamComments MapUIDsInKept AllowMerge ExternalReferences PatientIdentity
    DefaultIssuer Unlisted EncryptFor""".split()  # noqa: SIM905
)
"""Members of Orthanc's body, and ours to come, that a request can't use yet."""


@dataclass(frozen=True)
class Request:
    """A request that holds no mistake; its defaults are the Basic Profile of the newest edition."""

    dicom_version: str = standard.NEWEST
    supplement: bool = True
    reference_sequences: str = "map"
    private_sop_class: str = "quarantine"
    conflicts: str = "quarantine"

    def members(self) -> dict[str, Any]:
        """The request as a body that says everything."""
        return {
            "DicomVersion": self.dicom_version,
            "Supplement": self.supplement,
            "ReferenceSequences": self.reference_sequences,
            "PrivateSOPClass": self.private_sop_class,
            "Conflicts": self.conflicts,
        }

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits: equal for two bodies that ask for the same, however they are written."""
        canonical = json.dumps(self.members(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


_NULL: Final = "tag:yaml.org,2002:null"


class _Loader(yaml.SafeLoader):
    """Reads dates as the text that they are: no member is one, and 2026-13-45 would be an error without a line."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own, less one
        first: [found for found in resolvers if found[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_FIELDS: Final = {
    "DicomVersion": "dicom_version",
    "Supplement": "supplement",
    "ReferenceSequences": "reference_sequences",
    "PrivateSOPClass": "private_sop_class",
    "Conflicts": "conflicts",
}


def parse_request(text: str, name: str = "request") -> Request:
    """Read a request body in YAML or JSON; an empty one asks for the Basic Profile.

    Args:
      name: of the file, for messages.

    Raises:
      RequestError: with every mistake at once, each with its line.
    """
    try:
        root = yaml.compose(_untabbed(text), Loader=_Loader)
        body = _body(root)
    except yaml.MarkedYAMLError as broken:
        mark = broken.problem_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise RequestError(
            (Problem(where, f"is neither YAML nor JSON: {broken.problem}", "mend the syntax"),)
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise RequestError((Problem(name, "is neither YAML nor JSON", "write plain members in UTF-8"),)) from None
    if root is None or root.tag == _NULL:
        return Request()
    if not isinstance(root, yaml.MappingNode):
        where = f"{name}:{root.start_mark.line + 1}"
        raise RequestError((Problem(where, "is no mapping of members to values", "write Member: value"),))
    problems = [*_repeated(root, name), *_problems(root, body, name)]
    if problems:
        raise RequestError(tuple(sorted(problems, key=lambda problem: _line(problem, name))))
    return Request(**{_FIELDS[member]: value for member, value in body.items()})


def _untabbed(text: str) -> str:
    """JSON may be indented with tabs, YAML may not; inside its strings JSON has none."""
    return text.replace("\t", " ") if text.lstrip("\ufeff \t\r\n").startswith("{") else text


def _body(root: yaml.Node | None) -> dict[str, Any]:
    """What the members say, by name; empty where the root is no mapping."""
    body = _Loader("").construct_document(root) if isinstance(root, yaml.MappingNode) else {}
    return {str(member): value for member, value in body.items()}


def _lines(root: yaml.MappingNode) -> dict[str, int]:
    return {str(key.value): key.start_mark.line + 1 for key, _ in root.value}


def _line(problem: Problem, name: str) -> int:
    return int(problem.where[len(name) + 1 :].split(" ")[0])


def _repeated(root: yaml.MappingNode, name: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for key, _ in root.value:
        if key.value in seen:
            yield Problem(f"{name}:{key.start_mark.line + 1} {key.value}", "is given twice", "keep one of them")
        seen.add(str(key.value))


def _problems(root: yaml.MappingNode, body: dict[str, Any], name: str) -> Iterator[Problem]:
    lines = _lines(root)
    for member in body.keys() - SCHEMA["properties"].keys():
        yield _unknown(f"{name}:{lines.get(member, 1)} {member}", member)
    for error in Draft202012Validator(SCHEMA).iter_errors(body):
        if error.validator != "additionalProperties":
            member = str(error.absolute_path[0])
            yield Problem(f"{name}:{lines.get(member, 1)} {member}", *_wrong(error))


def _unknown(where: str, member: str) -> Problem:
    if member in NOT_BUILT:
        return Problem(where, "is not built yet, and nothing is ever ignored", "leave it out")
    close = difflib.get_close_matches(member, [*SCHEMA["properties"], *NOT_BUILT], 1, 0.6)
    known = ", ".join(SCHEMA["properties"])
    return Problem(where, "is no member of a request", f"did you mean {close[0]}?" if close else f"there are {known}")


def _wrong(error: ValidationError) -> tuple[str, str]:
    if error.validator == "enum":
        return "has a value that isn't known", "write one of " + ", ".join(
            map(str, SCHEMA["properties"][error.absolute_path[0]]["enum"])
        )
    return "has a value of the wrong type", f"write a {error.validator_value}"

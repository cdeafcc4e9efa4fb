"""The request body: read and checked whole before anything runs.

What is YAML or JSON is known in `markup`, what the members are in `schema`, what a line may not do in `limits`.
"""

import copy
import dataclasses
import datetime
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from dicomveil import ages, limits, orthanc_ids, schema, standard, syntaxes
from dicomveil.certificates import CertificateProblem, read_certificate
from dicomveil.dates import DateRule, is_date
from dicomveil.markup import read_markup
from dicomveil.mistakes import Mistakes, closest, wrong
from dicomveil.paths import AttributePath, parse_path
from dicomveil.pseudonyms import FIELD, LONGEST_PATIENT_ID, NUMBERS
from dicomveil.request import AS_WRITTEN, BELOW, FIELDS, IDENTIFIERS, Replacement, Request, Resource
from dicomveil.tags import Attribute, NameProblem, PrivateEntry, check_creator, name_of, parse_attribute
from dicomveil.values import Named, Value, ValueProblem, parse_value

_ENCRYPTED: Final = 0x04000500
_PATIENT_NAME: Final = 0x00100010
_PATIENT_ID: Final = 0x00100020
_STUDY_INSTANCE: Final = 0x0020000D
_MODIFIED: Final = "RetainLongitudinalModifiedDates"
_SOP_INSTANCE: Final = 0x00080018
_TAGS: Final = {role: tag for tag, role in IDENTIFIERS.items()}
_KEYWORDS: Final = {name_of(tag): tag for tag in IDENTIFIERS}
_READ: Final = {"Level", "Transcode"}
"""Members that aren't held as they are written."""
_MULTIPLICITY: Final = re.compile(r"[1-9][0-9]*(?:-(?:[1-9][0-9]*n?|n))?")


def parse_request(
    text: str,
    name: str = "request",
    read: Callable[[str], bytes] | None = None,
    today: datetime.date | None = None,
    command: str = "anonymize",
    selecting: bool = True,
) -> Request:
    """Read a request body in YAML or JSON; an empty one asks for the Basic Profile, or for a mere copy.

    Args:
      name: of the file, for messages.
      read: gives the content of a file that the body names, or raises OSError; None where it may name none.
      today: what the validity of certificates is compared with; None compares with nothing.
      command: whose body it is: anonymize, modify, split or merge.
      selecting: whether it must say what split and merge are about; `Request.members` doesn't, since that is originals.

    Raises:
      RequestError: with every mistake at once, each with its line.
    """
    return read_request(*read_markup(text, name), name, read, today, command, selecting)


def read_request(
    root: yaml.MappingNode,
    body: dict[str, Any],
    name: str,
    read: Callable[[str], bytes] | None = None,
    today: datetime.date | None = None,
    command: str = "anonymize",
    selecting: bool = True,
) -> Request:
    """The same of a body that stands inside another text, as `markup` gives it.

    Raises:
      RequestError: as `parse_request` does.
    """
    reading = _Reading(root, body, name, read, today, command, selecting)
    request = reading.request()
    reading.mistakes.stop()
    return request


class _Reading:
    """One body being read: gathers every mistake, with its line."""

    def __init__(
        self,
        root: yaml.MappingNode,
        body: dict[str, Any],
        name: str,
        read: Callable[[str], bytes] | None,
        today: datetime.date | None,
        command: str,
        selecting: bool,
    ) -> None:
        self._body, self._read, self._today = body, read, today
        self._command, self._selecting = command, selecting
        self.mistakes = Mistakes(root, name)
        self._tell = self.mistakes.tell
        self._private: dict[str, PrivateEntry] = {}
        self._rules: list[tuple[tuple[str, str | int], AttributePath]] = []

    def request(self) -> Request:
        """The request; a meaningless one where there are problems."""
        self.mistakes.tell_repeated()
        sound = self._conforming()
        creator = str(sound.get("PrivateCreator", "")).strip()
        try:
            check_creator(creator)
        except NameProblem as bad:
            self._tell(("PrivateCreator",), bad.what, bad.remedy)
        for entry, line in sound.get("PrivateDictionary", {}).items():
            self._dictionary(entry, line)
        force = bool(sound.get("Force", False)) or self._command == "split"
        keep = self._paths("Keep", sound, force)
        remove = self._paths("Remove", sound, force)
        replace = _with_documents(tuple(self._replacements(sound.get("Replace", {}), creator, force)))
        options = self._options(sound)
        safe_private = self._safe(sound, options)
        date_shift = self._date_shift(sound, options)
        self._template(sound)
        self._check_wins(sound)
        encrypt_for = tuple(self._certificates(sound.get("EncryptFor", [])))
        encrypt_attributes = self._encrypted(sound)
        self._check_reach()
        self._check_distinct(sound, options)
        self._check_issuers(sound)
        self._check_modules()
        resources = tuple(self._resources(sound))
        study = self._study(sound)
        transcode = self._transfer_syntax(sound, options, encrypt_attributes)
        level = self._level(sound, replace, keep)
        self._check_source(sound, options, level)
        self._check_selection(sound)
        if self.mistakes.found:
            return Request()
        return Request(
            command=self._command,
            level=level,
            resources=resources,
            study=study,
            transcode=transcode,
            replace=replace,
            remove=remove,
            keep=keep,
            private_dictionary=tuple(self._private.values()),
            safe_private=safe_private,
            user_data=json.dumps(sound["UserData"]) if "UserData" in sound else "",
            body=json.dumps({member: sound[member] for member in AS_WRITTEN if member in sound}),
            notices=tuple(self._notices(replace, date_shift, level)),
            **{
                attribute: sound[member]
                for member, attribute in FIELDS.items()
                if member in sound and member not in _READ
            }
            | {
                "options": options,
                "keep_private_tags": self._keeps_private(sound),
                "date_shift": date_shift,
                "pseudonyms": tuple(sorted(sound.get("Pseudonyms", []))),
                "private_creator": creator,
                "default_issuer": sound.get("DefaultIssuer", "").strip(),
                "encrypt_for": encrypt_for,
                "encrypt_attributes": encrypt_attributes,
                "vocabulary": tuple(sorted(sound.get("Vocabulary", []))),
            },
        )

    def _keeps_private(self, sound: dict[str, Any]) -> bool:
        """Whether private elements stay that no line names."""
        if self._command == "anonymize":
            return sound.get("KeepPrivateTags", False) in (True, None)
        return sound.get("RemovePrivateTags", False) is False

    # ------------------------------------------------------------------------------------- modify, split and merge

    def _resources(self, sound: dict[str, Any]) -> Iterator[Resource]:
        """What is selected; tells of what is named twice, or is of another level than its member."""
        seen: dict[Resource, str] = {}
        for member, role in (("Resources", ""), ("Series", "series"), ("Instances", "instance")):
            for at, entry in enumerate(sound.get(member, [])):
                found = entry is not None and self._resource((member, at), entry, role)
                if not found:
                    continue
                if found in seen:
                    self._tell((member, at), f"is {seen[found]} once more", "keep one of them")
                elif self._command == "merge" and found.role == "patient":
                    self._tell((member, at), "is a patient", "name the studies or series that are merged")
                seen.setdefault(found, found.where)
                yield found

    def _resource(self, way: tuple[str | int, ...], entry: Any, role: str) -> Resource | None:
        """One entry, of a certain level if `role` says so."""
        where = "".join(f"[{it}]" if isinstance(it, int) else it for it in way)
        if isinstance(entry, str):
            if orthanc_ids.is_resource_id(entry.strip()):
                return Resource(role, entry.strip().lower(), True, where)
            self._tell(way, "is no identifier of Orthanc's", "write that, or {StudyInstanceUID: ...} and its like")
            return None
        keyword, value = next(iter(entry.items()), ("", None))
        if not isinstance(value, str) or not value.strip(" \0"):
            self._tell(way, "has no value", "write the identifier as text")
            return None
        found = IDENTIFIERS[_KEYWORDS[keyword]]
        if role and found != role:
            self._tell(way, f"is no {role}", f"write {{{name_of(_TAGS[role])}: ...}}")
        return Resource(found, value.strip(" \0"), False, where)

    def _study(self, sound: dict[str, Any]) -> Resource | None:
        if "Study" in sound:
            return self._resource(("Study",), sound["Study"], "study")
        return None

    def _check_selection(self, sound: dict[str, Any]) -> None:
        """Selecting nothing is a slip wherever something must be selected."""
        if not self._selecting:
            return
        needed = {"split": ("Series", "Instances"), "merge": ("Resources",)}.get(self._command, ())
        if self._command == "merge" and "Study" not in self._body:
            self._tell((), "names no study to merge into", "add Study: {StudyInstanceUID: ...}")
        if needed and not any(self._body.get(member) for member in needed):
            self._tell((), f"names no {' and no '.join(needed)}", "say what goes into the study")
        if self._body.get("Resources") == [] and self._command != "merge":
            self._tell(("Resources",), "is empty", "leave it out for everything, or name something")

    def _level(self, sound: dict[str, Any], replace: tuple[Replacement, ...], keep: tuple[AttributePath, ...]) -> str:
        """Which identifiers are new: raised to below the highest that is replaced, and not kept."""
        written = sound.get("Level", "Instance")
        given = {it.path.attribute.tag for it in replace if not it.path.steps}
        given -= {path.attribute.tag for path in keep if not path.steps}
        if self._command != "modify":
            return "Instance"
        if written == "Patient" and _PATIENT_ID not in given:
            self._tell(("Level",), "needs the new patient's ID", "add PatientID to Replace, with Force: true")
        below = {_PATIENT_ID: "Study", _STUDY_INSTANCE: "Series"}
        raised = [level for tag, level in below.items() if tag in given]
        return min([*raised, str(written)], key=schema.LEVELS.index)

    def _check_modules(self) -> None:
        """Split writes what a study's instances share, and nothing else."""
        if self._command != "split":
            return
        for way, path in self._rules:
            if path.steps or path.anywhere or not path.attribute.exact or path.attribute.private:
                self._tell(way, "is no attribute of one tag at the top level", "split knows no other")
            elif path.attribute.tag == _STUDY_INSTANCE:
                self._tell(way, "is what split makes anew", "leave it out")
            elif path.attribute.tag not in standard.study_modules():
                self._tell(way, "is of neither the Patient nor the General Study Module", "use dicomveil modify for it")

    def _transfer_syntax(self, sound: dict[str, Any], options: tuple[str, ...], encrypted: tuple[int, ...]) -> str:
        """The UID of Transcode.

        Args:
          encrypted: the tags of EncryptAttributes.
        """
        asked = str(sound.get("Transcode", "")).strip()
        quality = sound.get("LossyQuality", Request.lossy_quality) != Request.lossy_quality
        if not asked:
            if quality:
                self._tell(("LossyQuality",), "has no effect", "add Transcode: JPEGBaseline8Bit or its like")
            return ""
        try:
            syntax = syntaxes.find(asked)
        except syntaxes.NotProduced as unknown:
            self._tell(("Transcode",), unknown.what, unknown.remedy)
            return ""
        if quality and not syntax.lossy:
            self._tell(("LossyQuality",), "has no effect on a lossless syntax", "leave it out")
        changes = syntax.lossy and not sound.get("Force")
        if changes and "RetainUIDs" in options:
            self._tell(
                ("Transcode",), "changes pixels, so SOP Instance UIDs can't stay", "add Force: true if they must"
            )
        seals = not sound.get("EncryptAttributes") or _SOP_INSTANCE in encrypted
        if changes and sound.get("EncryptFor") and seals:
            self._tell(
                ("Transcode",),
                "changes pixels, and EncryptFor lets them have their SOP Instance UID again",
                "name in EncryptAttributes what else is encrypted, or add Force: true",
            )
        return syntax.uid

    def _check_issuers(self, sound: dict[str, Any]) -> None:
        """An issuer counts everywhere or nowhere: one modality often leaves it out, and would make another patient."""
        issuer = sound.get("DefaultIssuer", "").strip()
        if sound.get("PatientIdentity") == "id+issuer":
            if not issuer:
                self._tell(("PatientIdentity",), "needs an issuer for IDs that name none", "add DefaultIssuer: NAME")
        elif issuer:
            self._tell(("DefaultIssuer",), "has no effect", "add PatientIdentity: id+issuer, or leave it out")

    def _check_source(self, sound: dict[str, Any], options: tuple[str, ...], level: str) -> None:
        """An output that bears all identifiers of its source is told from it by nothing but where it lies."""
        kept = [path.attribute for (member, _), path in self._rules if member == "Keep" and not path.steps]
        given = [path.attribute for (member, _), path in self._rules if member == "Replace" and not path.steps]
        roles = BELOW[level] if self._command == "modify" else BELOW["Study"]
        uids = [tag for tag, role in IDENTIFIERS.items() if role in roles]
        uids += [tag for tag, role in IDENTIFIERS.items() if role != "patient" and any(it.matches(tag) for it in given)]
        every = all(any(attribute.matches(tag) for attribute in kept) for tag in uids)
        if sound.get("KeepSource") is False and (every or "RetainUIDs" in options):
            self._tell(
                ("KeepSource",),
                "would delete sources whose outputs bear the same Study, Series and SOP Instance UID",
                "leave it out, or let one of the three be new",
            )

    # -------------------------------------------------------------------------------------------- where and what

    def _conforming(self) -> dict[str, Any]:
        """What of the body its schema allows, which is checked further; tells of what it doesn't."""
        sound = copy.deepcopy(self._body)
        for member in self._body.keys() - set(schema.obeyed(self._command)):
            self._tell((member,), *_unknown(member, self._command))
            sound.pop(member)
        for error in Draft202012Validator(schema.schema(self._command)).iter_errors(self._body):
            if way := tuple(error.absolute_path):
                self._tell(way, *_wrong(error))
                _leave_out(sound, way)
        return sound

    def _notices(self, replace: tuple[Replacement, ...], date_shift: DateRule, level: str) -> Iterator[str]:
        ours = [member for member in schema.SERVER_ONLY if member in self._body]
        if ours:
            yield f"{', '.join(ours)}: of a server, without effect here."
        if self._body.get("KeepPrivateTags", False) is None:
            yield "KeepPrivateTags: null is read as true."
        if self._body.get("RemovePrivateTags", False) is None:
            yield "RemovePrivateTags: null is read as true."
        asked = self._body.get("Level", "Instance")
        if level != asked:
            yield f"Level: {asked} is {level}, since an identifier above it is replaced."
        renamed = any(not it.path.steps and it.path.attribute.tag == _PATIENT_ID for it in replace)
        if renamed and self._command in ("modify", "split") and self._body.get("Level") != "Patient":
            yield "Replace PatientID: the patient's other studies stay as they are, unless they are selected too."
        if date_shift.narrow:
            yield (
                f"DateShift: the range spans {date_shift.most - date_shift.fewest} days, under 3 years: each new date "
                "tells its original as closely as that."
            )
        for it in replace:
            if it.path.attribute.private and not it.path.attribute.creator:
                yield f"Replace {it.path.text()}: only where the element stands, since PrivateCreator names no creator."

    # ------------------------------------------------------------------------------------------------ attributes

    def _dictionary(self, name: str, entry: list[Any]) -> None:
        way = ("PrivateDictionary", name)
        *said, creator = [str(it).strip() for it in entry]
        vr, keyword, vm = said[0], said[1], said[2] if len(said) == 3 else _range(said[2], said[3])
        digits = re.fullmatch(
            r"\(?([0-9A-Fa-f]{4})\s*,?\s*(?:[xX]{2}|[0-9A-Fa-f]{2})?([0-9A-Fa-f]{2})\)?", name.strip()
        )
        if not digits:
            return self._tell(way, "is no private tag", 'write "gggg,ee": ["LO", "Keyword", "1", "Private Creator"]')
        try:
            attribute = parse_attribute(f"{digits[1]},[{creator}],{digits[2]}")
        except NameProblem as bad:
            return self._tell(way, bad.what, bad.remedy)
        if vr not in standard.VRS:
            return self._tell(way, "has a VR that PS3.5 doesn't know", "write one such as LO")
        if not _MULTIPLICITY.fullmatch(vm):
            return self._tell(way, "has a VM that PS3.5 doesn't know", "write one such as 1, 1-n, 2 or 2-2n")
        if _is_keyword(keyword) or keyword in self._private:
            return self._tell(way, "has a keyword that names another attribute", "choose another")
        self._private[keyword] = PrivateEntry(attribute, vr, vm)
        return None

    def _path(self, way: tuple[str | int, ...], text: str) -> AttributePath | None:
        try:
            return parse_path(text, self._private)
        except NameProblem as bad:
            self._tell(way, bad.what, bad.remedy)
            return None

    def _paths(self, member: str, sound: dict[str, Any], force: bool) -> tuple[AttributePath, ...]:
        paths = [
            (at, self._path((member, at), text)) for at, text in enumerate(sound.get(member, [])) if text is not None
        ]
        for at, path in paths:
            if path is not None:
                self._rules.append(((member, at), path))
                for problem in limits.forbidden(path, member, force, self._command):
                    self._tell((member, at), *problem)
        return tuple(dict.fromkeys(path for _, path in paths if path is not None))

    def _replacements(self, entries: dict[str, Any], creator: str, force: bool) -> Iterator[Replacement]:
        seen: dict[str, str] = {}
        for name, given in entries.items():
            way = ("Replace", name)
            path = self._path(way, name)
            if path is None:
                continue
            path = _owned(path, creator)
            if path.text() in seen:
                self._tell(way, f"is given twice, as {seen[path.text()]} too", "keep one of them")
            seen[path.text()] = name
            self._rules.append((way, path))
            problems = [*limits.forbidden(path, "Replace", force, self._command), *limits.unreplaceable(path)]
            for problem in problems:
                self._tell(way, *problem)
            if problems:
                continue
            vr, vm = self._form(path.attribute)
            try:
                value = parse_value(vr or "UN", vm, given, self._resolve) if vr else _unresolved(given)
            except ValueProblem as bad:
                self._tell(way, bad.what, bad.remedy)
                continue
            for problem in limits.refused(path, value):
                self._tell(way, *problem)
            yield Replacement(path, vr, value)

    def _check_reach(self) -> None:
        """A path into a sequence that another line writes or removes as a whole would have no effect."""
        for (member, _), outer in self._rules:
            depth = len(outer.steps)
            for way, path in self._rules if member != "Keep" else ():
                inside = path.steps[:depth] == outer.steps and len(path.steps) > depth
                if inside and path.steps[depth].sequence == outer.attribute:
                    self._tell(way, f"leads into a sequence that {member} takes whole", "leave one of them out")

    def _check_distinct(self, sound: dict[str, Any], options: tuple[str, ...]) -> None:
        """Instances that share a SOP Instance UID can't be told apart where it stays or is given."""
        if sound.get("Conflicts") != "distinct":
            return
        told = [way for way, path in self._rules if not path.steps and path.attribute.matches(_SOP_INSTANCE)]
        told += [("Options", self._body["Options"].index("RetainUIDs"))] if "RetainUIDs" in options else []
        for way in told:
            self._tell(
                way, "leaves no SOP Instance UID to be told apart by Conflicts: distinct", "leave one of them out"
            )

    def _date_shift(self, sound: dict[str, Any], options: tuple[str, ...]) -> DateRule:
        """How dates move; the default where what is written has mistakes."""
        asked = sound.get("DateShift", {})
        span, anchor = asked.get("Range", [DateRule.fewest, DateRule.most]), str(asked.get("AnchorTo", ""))
        if "AnchorTo" in asked and not is_date(anchor):
            self._tell(("DateShift", "AnchorTo"), "is no date", "write it as YYYYMMDD")
        if None in span:
            return DateRule()
        if span[0] > span[1]:
            self._tell(("DateShift", "Range"), "ends before it begins", "write the fewest days first")
        rule = DateRule(anchor_to=anchor) if anchor else DateRule(int(span[0]), int(span[1]))
        if rule != DateRule() and _MODIFIED not in options:
            self._tell(("DateShift",), "has no effect", f"add {_MODIFIED} to Options")
        return rule

    def _template(self, sound: dict[str, Any]) -> None:
        """A template of names must give a legal name, whatever Patient ID is derived."""
        way, template = ("PatientNameTemplate",), str(sound.get("PatientNameTemplate", FIELD))
        plain = template.replace(FIELD, "")
        if "{" in plain or "}" in plain:
            self._tell(way, f"has a field other than {FIELD}", f"write {FIELD} for the new Patient ID, and text")
        if not template.strip():
            self._tell(way, "is empty", "leave it out, or replace PatientName by null")
        try:
            parse_value("PN", "1", template.replace(FIELD, "X" * LONGEST_PATIENT_ID), self._resolve)
        except ValueProblem as bad:
            self._tell(way, bad.what, bad.remedy)

    def _check_wins(self, sound: dict[str, Any]) -> None:
        """Members that another one leaves without effect, or that would undo it."""
        told = {NUMBERS[name][0]: "Pseudonyms" for name in sound.get("Pseudonyms", []) if name in NUMBERS}
        if sound.get("PatientNameTemplate", FIELD) != FIELD:
            told[_PATIENT_NAME] = "PatientNameTemplate"
        for way, path in self._rules:
            if not path.steps:
                for tag, member in told.items():
                    if path.attribute.matches(tag):
                        self._tell(way, f"decides on what {member} is for", "leave one of them out")
            if sound.get("CapAges") is True and way[0] == "Keep" and any(map(path.attribute.matches, ages.BIRTH_DATES)):
                self._tell(way, "keeps a birth date, which tells ages that CapAges caps", "leave one of them out")

    def _form(self, attribute: Attribute) -> tuple[str, str]:
        """VR and VM of an attribute; "" for a private one that no dictionary knows."""
        if attribute.private:
            for entry in self._private.values():
                if entry.attribute == attribute:
                    return entry.vr, entry.vm
            key = (attribute.tag >> 16, attribute.creator, attribute.tag & 0xFF)
            return standard.private_dictionary().get(key, ""), "1-n"
        element = standard.dictionary().get(attribute.tag)
        return (element.vr.split(" ")[0], element.vm) if element else ("UN", "1")

    def _resolve(self, name: str) -> Named:
        """What a member of an Item names, for `parse_value`."""
        try:
            attribute = parse_attribute(name, self._private)
        except NameProblem as bad:
            raise ValueProblem(f"names what {bad.what}", bad.remedy) from None
        vr, vm = self._form(attribute)
        if not attribute.exact or attribute.private:
            raise ValueProblem("names what can't stand in a new Item", "write standard attributes there")
        return Named(attribute.tag, vr, vm)

    def _safe(self, sound: dict[str, Any], options: tuple[str, ...]) -> tuple[Attribute, ...]:
        safe = []
        for at, text in enumerate(sound.get("SafePrivate", [])):
            if text is None:
                continue
            path = self._path(("SafePrivate", at), text)
            if path and (path.steps or not path.attribute.creator):
                self._tell(("SafePrivate", at), "names no creator", "write it as (7053,[Philips PET Private Group],00)")
            elif path and not self._form(path.attribute)[0]:
                self._tell(("SafePrivate", at), "has a VR that nobody knows", "add it to PrivateDictionary")
            elif path:
                safe.append(path.attribute)
        if safe and "RetainSafePrivate" not in options:
            self._tell(("SafePrivate",), "has no effect", "add RetainSafePrivate to Options")
        return tuple(sorted(safe, key=Attribute.text))

    def _certificates(self, entries: list[Any]) -> Iterator[str]:
        """The certificates in PEM: of files, or given as such, as a request that was written out has them."""
        seen: set[str] = set()
        for at, entry in enumerate(entries):
            if entry is None:
                continue
            try:
                certificate = read_certificate(self._content(entry), self._today)
            except CertificateProblem as bad:
                self._tell(("EncryptFor", at), bad.what, bad.remedy)
                continue
            if certificate in seen:
                self._tell(("EncryptFor", at), "is the certificate of another entry", "keep one of them")
            seen.add(certificate)
            yield certificate

    def _content(self, entry: str) -> bytes:
        if entry.lstrip().startswith("-----BEGIN"):
            return entry.encode()
        if self._read is None:
            raise CertificateProblem("names a file, which can't be read from here", "give the certificate's PEM text")
        try:
            return self._read(entry)
        except (OSError, ValueError) as failed:
            why = getattr(failed, "strerror", None) or "it is no path"
            raise CertificateProblem(f"can't be read: {why}", "write a path from the request's folder on") from None

    def _encrypted(self, sound: dict[str, Any]) -> tuple[int, ...]:
        """The tags of EncryptAttributes."""
        tags = []
        for at, text in enumerate(sound.get("EncryptAttributes", [])):
            path = self._path(("EncryptAttributes", at), text) if text is not None else None
            if path is None:
                continue
            for problem in limits.not_encrypted(path):
                self._tell(("EncryptAttributes", at), *problem)
            tags.append(path.attribute.tag)
        if sound.get("EncryptAttributes") and not sound.get("EncryptFor"):
            self._tell(("EncryptAttributes",), "has no effect", "add EncryptFor: [certificate.pem]")
        if sound.get("EncryptFor"):
            for way, path in self._rules:
                if not path.steps and path.attribute.matches(_ENCRYPTED):
                    self._tell(way, "is written by EncryptFor", "leave it out")
        return tuple(sorted(set(tags)))

    def _options(self, sound: dict[str, Any]) -> tuple[str, ...]:
        asked, edition = self._body.get("Options", []), sound.get("DicomVersion", standard.NEWEST)
        if not isinstance(asked, list):
            return ()
        for at, option in enumerate(asked):
            if option in schema.PIXEL_OPTIONS:
                self._tell(("Options", at), "is not built: pixels are never changed", "leave it out")
            elif option in schema.OPTIONS and not standard.has_option(edition, option):
                self._tell(("Options", at), f"doesn't exist in edition {edition}", "leave it out, or choose another")
        both = [option for option in asked if str(option).startswith("RetainLongitudinal")]
        if len(both) > 1:
            self._tell(("Options",), "holds both full and modified dates", "choose one")
        return tuple(option for option in schema.OPTIONS if option in asked)


def _is_keyword(name: str) -> bool:
    """Whether PS3.6 has a keyword of this name, or it is written as a tag is."""
    try:
        parse_attribute(name)
    except NameProblem as bad:
        return bad.what not in ("is no keyword of PS3.6", "is no tag")
    return True


def _leave_out(body: dict[str, Any], way: tuple[str | int, ...]) -> None:
    """Takes out what a way leads to, if it is still there; None takes its place in a list, where numbers count."""
    node: Any = body
    for step in way[:-1]:
        node = node.get(step, {}) if isinstance(node, dict) else node[step]
    if isinstance(node, list) and isinstance(way[-1], int):
        node[way[-1]] = None
    elif isinstance(node, dict):
        node.pop(way[-1], None)


def _range(least: str, most: str) -> str:
    """A VM of Orthanc's two numbers, of which 0 means any."""
    return least if least == most else f"{least}-{'n' if most == '0' else most}"


def _with_documents(replace: tuple[Replacement, ...]) -> tuple[Replacement, ...]:
    """The same, and beside each document its type and its length, where the body doesn't say them."""
    said = {it.path for it in replace}
    more = []
    for it in replace:
        if it.value.mime_type and it.value.raw:
            for keyword, vr, value in (
                ("MIMETypeOfEncapsulatedDocument", "LO", it.value.mime_type),
                ("EncapsulatedDocumentLength", "UL", str(len(it.value.raw[0]))),
            ):
                path = dataclasses.replace(it.path, attribute=parse_attribute(keyword))
                if path not in said:
                    more.append(Replacement(path, vr, parse_value(vr, "1", value, _nothing_named)))
    return (*replace, *more)


def _nothing_named(name: str) -> Named:
    raise ValueProblem("names nothing", "")


def _owned(path: AttributePath, creator: str) -> AttributePath:
    """A private attribute by raw number, under the body's PrivateCreator."""
    attribute = path.attribute
    if not attribute.private or attribute.creator or not creator or not attribute.tag & 0xFF00:
        return path
    return AttributePath(Attribute(attribute.tag & 0xFFFF00FF, 0xFFFF00FF, creator), path.steps, path.anywhere)


def _unresolved(given: object) -> Value:
    """The value of a private element whose VR only the element that is replaced can tell."""
    if not isinstance(given, str):
        raise ValueProblem("is private and no dictionary knows its VR", "add it to PrivateDictionary")
    return Value("", text=given)


def _unknown(member: str, command: str) -> tuple[str, str]:
    known = schema.MEMBERS.get(member)
    if known:
        return f"belongs to {' and '.join(known.commands)}", "leave it out"
    every = ", ".join(schema.obeyed(command))
    return "is no member of a request", closest(member, schema.MEMBERS, f"there are {every}")


def _wrong(error: ValidationError) -> tuple[str, str]:
    if error.validator == "additionalProperties" and error.absolute_path[0] == "DateShift":
        return "holds what is no member of DateShift", "there are Range and AnchorTo"
    if error.validator == "additionalProperties":
        return "names what is no identifier", f"write one of {', '.join(_KEYWORDS)}"
    if error.validator == "maxProperties" and error.absolute_path[0] == "DateShift":
        return "holds more than one member", "choose Range or AnchorTo"
    if error.validator in ("maxProperties", "minProperties"):
        return "names one by none or several identifiers", "give one, of the level that is meant"
    if found := wrong(error):
        return found
    if error.absolute_path[0] == "DateShift":
        return "has the wrong number of values", "write the fewest and the most days, as [30, 3650]"
    return "has the wrong number of values", 'write ["LO", "Keyword", "1", "Private Creator"]'

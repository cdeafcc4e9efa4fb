"""The request body: read and checked whole before anything runs.

JSON is read as the YAML that it is, so that every mistake is told with its line. What the members are stands in
`schema`.
"""

import copy
import dataclasses
import datetime
import difflib
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from dicomveil import ages, schema, standard
from dicomveil.certificates import CertificateProblem, read_certificate
from dicomveil.dates import DateRule, is_date
from dicomveil.errors import Problem, RequestError
from dicomveil.paths import AttributePath, parse_path
from dicomveil.pseudonyms import FIELD, LONGEST_PATIENT_ID, NUMBERS
from dicomveil.request import AS_WRITTEN, FIELDS, IDENTIFIERS, ROLES, Replacement, Request
from dicomveil.tags import Attribute, NameProblem, PrivateEntry, check_creator, name_of, parse_attribute
from dicomveil.values import ENCAPSULATED_DOCUMENT, Named, Value, ValueProblem, parse_value

_MARKS: Final = (0x00120062, 0x00120064, 0x00280303)
_METHOD: Final = 0x00120063
_ENCRYPTED: Final = 0x04000500
_CHARACTER_SET: Final = 0x00080005
_SOP_CLASS: Final = 0x00080016
_PATIENT_NAME: Final = 0x00100010
_MODIFIED: Final = "RetainLongitudinalModifiedDates"
_SOP_INSTANCE: Final = 0x00080018
_PIXELS: Final = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_UTF_8: Final = "ISO_IR 192"
_NULL: Final = "tag:yaml.org,2002:null"
_BOOL: Final = "tag:yaml.org,2002:bool"
_TEXT: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"
_NUMBERS: Final = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_WORDS: Final = (
    "DicomVersion", "Replace", "Remove", "Keep", "SafePrivate", "Vocabulary", "PrivateDictionary", "PrivateCreator",
    "PatientNameTemplate",
    "EncryptFor", "EncryptAttributes",
)  # fmt: skip
"""Members in which 0010 and 2008 are no numbers but text."""
_KINDS: Final = {
    "array": "a list", "boolean": "true or false", "integer": "a whole number", "null": "null", "number": "a number",
    "object": "a mapping", "string": "text",
}  # fmt: skip
"""What JSON Schema's types are called in messages."""
_LONGEST_NUMBER: Final = 1024  # in bits
_MULTIPLICITY: Final = re.compile(r"[1-9][0-9]*(?:-(?:[1-9][0-9]*n?|n))?")


class _Loader(yaml.SafeLoader):
    """Reads dates as the text that they are: no member is one, and 2026-13-45 would be an error without a line.

    Aliases are refused: a few lines of them can stand for more than any memory holds, and JSON has none.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own, less one
        first: [found for found in resolvers if found[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias", problem_mark=self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)


def parse_request(
    text: str,
    name: str = "request",
    read: Callable[[str], bytes] | None = None,
    today: datetime.date | None = None,
) -> Request:
    """Read a request body in YAML or JSON; an empty one asks for the Basic Profile.

    Args:
      name: of the file, for messages.
      read: gives the content of a file that the body names, or raises OSError; None where it may name none.
      today: what the validity of certificates is compared with; None compares with nothing.

    Raises:
      RequestError: with every mistake at once, each with its line.
    """
    try:
        root = yaml.compose(_paired(_untabbed(text)), Loader=_Loader)
        body = _body(root)
    except yaml.MarkedYAMLError as broken:
        mark = broken.problem_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise RequestError(
            (Problem(where, f"is neither YAML nor JSON: {_unquoted(broken.problem)}", "mend the syntax"),)
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise RequestError((Problem(name, "is neither YAML nor JSON", "write plain members in UTF-8"),)) from None
    if root is None or root.tag == _NULL:
        return Request()
    if not isinstance(root, yaml.MappingNode):
        where = f"{name}:{root.start_mark.line + 1}"
        raise RequestError((Problem(where, "is no mapping of members to values", "write Member: value"),))
    reading = _Reading(root, body, name, read, today)
    request = reading.request()
    if reading.problems:
        raise RequestError(tuple(problem for _, problem in sorted(reading.problems, key=_place)))
    return request


def _unquoted(problem: str | None) -> str:
    """What the parser says, without what it quotes from the body."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", "a character or word", problem or "the syntax")


def _untabbed(text: str) -> str:
    """JSON may be indented with tabs, YAML may not; inside its strings JSON has none."""
    return text.replace("\t", " ") if text.lstrip("\ufeff \t\r\n").startswith("{") else text


def _paired(text: str) -> str:
    """JSON writes a character beyond FFFF as two escapes (RFC 8259 7), which YAML takes for two characters."""
    return re.sub(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})", _joined, text)


def _joined(pair: re.Match[str]) -> str:
    high, low = int(pair[2], 16), int(pair[3], 16)
    return f"{pair[1]}\\U{0x10000 + ((high & 0x3FF) << 10) + (low & 0x3FF):08X}"


def _body(root: yaml.Node | None) -> dict[str, Any]:
    """What the members say, by name; empty where the root is no mapping."""
    if not isinstance(root, yaml.MappingNode):
        return {}
    for key, _ in root.value:
        _check_scalar(key)
    return {str(key.value): _plain(value, str(key.value) in _WORDS) for key, value in root.value}


def _plain(node: yaml.Node, words: bool) -> Any:
    """A node as JSON would hold it, keys always text; where `words` are meant, 0010 stays 0010.

    Raises:
      yaml.MarkedYAMLError: it holds what JSON doesn't know.
    """
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            _check_scalar(key)
        return {str(key.value): _plain(value, words) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(value, words) for value in node.value]
    _check_scalar(node)
    if words and node.tag in _NUMBERS:
        return node.value
    if node.tag in (_NULL, _BOOL, *_NUMBERS):
        read = _Loader("").construct_object(node)
        too_long = isinstance(read, int) and read.bit_length() > _LONGEST_NUMBER
        if too_long or (isinstance(read, float) and not math.isfinite(read)):
            raise yaml.MarkedYAMLError(problem="a number that JSON doesn't know", problem_mark=node.start_mark)
        return read
    return node.value


def _check_scalar(node: yaml.Node) -> None:
    if not isinstance(node, yaml.ScalarNode) or node.tag not in (_NULL, _BOOL, _TEXT, _MERGE, *_NUMBERS):
        raise yaml.MarkedYAMLError(problem="a value that JSON doesn't know", problem_mark=node.start_mark)


def _place(told: tuple[int, Problem]) -> tuple[int, str]:
    """The order of problems: by line, and within a list by number."""
    line, problem = told
    return line, re.sub(r"\[([0-9]+)\]", lambda number: number[1].zfill(9), problem.where)


class _Reading:
    """One body being read: gathers every mistake, with its line."""

    def __init__(
        self,
        root: yaml.MappingNode,
        body: dict[str, Any],
        name: str,
        read: Callable[[str], bytes] | None,
        today: datetime.date | None,
    ) -> None:
        self._root, self._body, self._name, self._read, self._today = root, body, name, read, today
        self.problems: list[tuple[int, Problem]] = []
        self._private: dict[str, PrivateEntry] = {}
        self._rules: list[tuple[tuple[str, str | int], AttributePath]] = []

    def request(self) -> Request:
        """The request; a meaningless one where there are problems."""
        self._repeated(self._root, ())
        sound = self._conforming()
        creator = str(sound.get("PrivateCreator", "")).strip()
        try:
            check_creator(creator)
        except NameProblem as bad:
            self._tell(("PrivateCreator",), bad.what, bad.remedy)
        for entry, line in sound.get("PrivateDictionary", {}).items():
            self._dictionary(entry, line)
        force = bool(sound.get("Force", False))
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
        if self.problems:
            return Request()
        return Request(
            replace=replace,
            remove=remove,
            keep=keep,
            private_dictionary=tuple(self._private.values()),
            safe_private=safe_private,
            user_data=json.dumps(sound["UserData"]) if "UserData" in sound else "",
            body=json.dumps({member: sound[member] for member in AS_WRITTEN if member in sound}),
            notices=tuple(self._notices(replace, date_shift)),
            **{attribute: sound[member] for member, attribute in FIELDS.items() if member in sound}
            | {
                "options": options,
                "keep_private_tags": sound.get("KeepPrivateTags", False) in (True, None),
                "date_shift": date_shift,
                "pseudonyms": tuple(sorted(sound.get("Pseudonyms", []))),
                "private_creator": creator,
                "default_issuer": sound.get("DefaultIssuer", "").strip(),
                "encrypt_for": encrypt_for,
                "encrypt_attributes": encrypt_attributes,
                "vocabulary": tuple(sorted(sound.get("Vocabulary", []))),
            },
        )

    def _check_issuers(self, sound: dict[str, Any]) -> None:
        """An issuer counts everywhere or nowhere: one modality often leaves it out, and would make another patient."""
        issuer = sound.get("DefaultIssuer", "").strip()
        if sound.get("PatientIdentity") == "id+issuer":
            if not issuer:
                self._tell(("PatientIdentity",), "needs an issuer for IDs that name none", "add DefaultIssuer: NAME")
        elif issuer:
            self._tell(("DefaultIssuer",), "has no effect", "add PatientIdentity: id+issuer, or leave it out")

    # -------------------------------------------------------------------------------------------- where and what

    def _tell(self, way: tuple[str | int, ...], what: str, remedy: str) -> None:
        line, text = self._line(way), "".join(f"[{it}]" if isinstance(it, int) else f" {it}" for it in way)
        self.problems.append((line, Problem(f"{self._name}:{line}{text}", what, remedy)))

    def _line(self, way: tuple[str | int, ...]) -> int:
        node: yaml.Node = self._root
        line = node.start_mark.line
        for step in way:
            if isinstance(node, yaml.MappingNode):
                key, node = next((pair for pair in node.value if pair[0].value == step), (node, node))
                line = key.start_mark.line
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line
        return int(line) + 1

    def _repeated(self, node: yaml.Node, way: tuple[str | int, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                name = str(key.value)
                if name in seen:
                    line = key.start_mark.line + 1
                    where = f"{self._name}:{line} {' '.join(map(str, (*way, name)))}"
                    self.problems.append((line, Problem(where, "is given twice", "keep one of them")))
                seen.add(name)
                self._repeated(value, (*way, name))
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                self._repeated(value, (*way, number))

    def _conforming(self) -> dict[str, Any]:
        """What of the body its schema allows, which is checked further; tells of what it doesn't."""
        for member in self._body:
            if member not in schema.obeyed():
                self._tell((member,), *_unknown(member, self._body[member]))
        sound = copy.deepcopy(self._body)
        for error in Draft202012Validator(schema.schema()).iter_errors(self._body):
            if error.validator != "additionalProperties":
                way = tuple(error.absolute_path)
                self._tell(way, *_wrong(error))
                _leave_out(sound, way)
        return sound

    def _notices(self, replace: tuple[Replacement, ...], date_shift: DateRule) -> Iterator[str]:
        ours = [member for member in schema.SERVER_ONLY if member in self._body]
        if ours:
            yield f"{', '.join(ours)}: of a server, without effect here."
        if self._body.get("KeepPrivateTags", False) is None:
            yield "KeepPrivateTags: null is read as true."
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
                for problem in _forbidden(path, member, force):
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
            problems = [*_forbidden(path, "Replace", force), *_unreplaceable(path)]
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
            for problem in _refused(path, value):
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
        for name in asked.keys() - {"Range", "AnchorTo"}:
            self._tell(("DateShift", name), "is no member of DateShift", "there are Range and AnchorTo")
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
            for problem in _not_encrypted(path):
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


def _forbidden(path: AttributePath, member: str, force: bool) -> Iterator[tuple[str, str]]:
    """What a rule may not do to the attributes that everything hangs on."""
    if path.steps:
        return
    for tag in ROLES:
        if path.attribute.matches(tag):
            if not path.attribute.exact and member != "Remove":
                yield f"covers {name_of(tag)}, which everything hangs on", "name each tag alone"
            elif tag not in IDENTIFIERS:
                continue
            elif member == "Remove":
                yield "would remove an identifier", "leave it out: identifiers are replaced"
            elif not force:
                yield "is an identifier", "add Force: true"
    if any(path.attribute.matches(tag) for tag in _MARKS) and member != "Keep":
        yield "says what was done, and is written by what was done", "leave it out"
    if path.attribute.tag == _MARKS[0] and member == "Keep":
        yield "says what was done, and is written by what was done", "leave it out"
    if member == "Remove" and path.attribute.private and path.attribute.exact and not path.attribute.tag & 0xFF00:
        yield "is a Private Creator, which goes with its elements", "remove these"
    if member == "Remove" and any(path.attribute.matches(tag) for tag in (_CHARACTER_SET, _SOP_CLASS)):
        yield "is what the rest can't be read without", "leave it out"


def _not_encrypted(path: AttributePath) -> Iterator[tuple[str, str]]:
    """What can't be sealed and put back as one attribute of the top level."""
    attribute = path.attribute
    if path.steps or path.anywhere:
        yield "is a path, and what is restored stands at the top level", "name the sequence at the top"
    elif not attribute.exact or attribute.private:
        yield "is a mask or a private element", "name attributes of PS3.6, one each"
    elif attribute.tag in (*_MARKS, _METHOD, _CHARACTER_SET, _ENCRYPTED):
        yield "says what was done or how to read the rest", "leave it out"
    elif attribute.tag in (*_PIXELS, ENCAPSULATED_DOCUMENT):
        yield "is too large to be encrypted", "leave it out"


def _unreplaceable(path: AttributePath) -> Iterator[tuple[str, str]]:
    attribute = path.attribute
    if not attribute.exact and not attribute.creator:
        yield "is a mask, which has no one place to be written", "name each tag"
    if attribute.exact and attribute.private and attribute.tag & 0xFFFF < 0x1000:
        yield "is a Private Creator, which is written with its elements", "leave it out"
    if attribute.tag in _PIXELS:
        yield "is Pixel Data, which is never replaced", "leave it out"
    if attribute.exact and attribute.tag & 0xFF010000 in (0x50000000, 0x60000000):
        yield "is a curve or an overlay", "keep or remove it"


def _refused(path: AttributePath, value: Value) -> Iterator[tuple[str, str]]:
    """Values that would make nonsense of the rest."""
    tag = path.attribute.tag
    empty = not (value.text or (value.raw and value.raw[0]) or value.items)
    if value.mime_type and tag != ENCAPSULATED_DOCUMENT:
        yield "is no place for a document", "write data:application/octet-stream;base64,..."
    if not path.steps and tag in ROLES and empty:
        yield "is an identifier, and is never emptied", "give a value"
    if not path.steps and tag in ROLES and value.text and "\\" in value.text:
        yield "is an identifier, and has one value", "give one"
    if tag == _CHARACTER_SET and value.text != _UTF_8:
        yield "says how text is encoded, and all text would have to follow", f"write {_UTF_8}, or leave it out"
    if tag == _SOP_CLASS and not path.steps and value.text not in standard.registered_uids():
        yield "is no SOP Class that PS3.6 registers", "give one, or leave it out"


def _unknown(member: str, value: object) -> tuple[str, str]:
    known = schema.MEMBERS.get(member)
    if known and "anonymize" not in known.commands:
        return f"belongs to {' and '.join(known.commands)}", "leave it out"
    if known:
        return "is not built yet, and nothing is ever ignored", "leave it out"
    close = difflib.get_close_matches(member, schema.MEMBERS, 1, 0.6)
    every = ", ".join(schema.obeyed())
    return "is no member of a request", f"did you mean {close[0]}?" if close else f"there are {every}"


def _wrong(error: ValidationError) -> tuple[str, str]:
    allowed: Any = error.validator_value
    if error.validator == "enum":
        close = difflib.get_close_matches(str(error.instance), allowed, 1, 0.6)
        hint = f"did you mean {close[0]}?" if close else "write one of " + ", ".join(map(str, allowed))
        return "has a value that isn't known", hint
    if error.validator == "type":
        kinds = allowed if isinstance(allowed, list) else [allowed]
        return "has a value of the wrong type", f"write {' or '.join(_KINDS[kind] for kind in kinds)}"
    if error.validator == "uniqueItems":
        return "names one twice", "keep one of them"
    if error.validator == "maxProperties":
        return "holds more than one member", "choose Range or AnchorTo"
    if error.validator in ("minimum", "maximum"):
        return "is out of range", f"write {allowed} or {'more' if error.validator == 'minimum' else 'less'}"
    if error.absolute_path[0] == "DateShift":
        return "has the wrong number of values", "write the fewest and the most days, as [30, 3650]"
    return "has the wrong number of values", 'write ["LO", "Keyword", "1", "Private Creator"]'

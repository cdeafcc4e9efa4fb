"""A job: a command with all that it is told, in a file that a scheduler can name.

Its members are the options of the command line, by the same names: what an option means is said there, and a job
becomes the words that its command would have been given. Only the request and filter that may stand in it are read
here.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from dicomveil import standard
from dicomveil.body import read_request
from dicomveil.errors import DicomveilError, Problem, RequestError
from dicomveil.filters import LARGEST_LIST, MEMBERS, read_filter
from dicomveil.markup import members_of, read_markup
from dicomveil.mistakes import Mistakes, closest, wrong
from dicomveil.schema import COMMANDS, obeyed
from pipelines.requests import beside, today

_PIN: Final = "DicomVersion"
_KEY: Final = "key"
_FILTER: Final = "filter"
_READ: Final = ("input", "input-list")
"""Of which a job needs one."""
_LARGEST: Final = 1 << 20
PLACES: Final = ("URI", "URI...", "FILE")
"""What options are shown to take that lead somewhere: relative ones lead there from the job's folder."""
QUANTITIES: Final = ("SIZE", "N|P%")
"""What options are shown to take that a bare number may be, too."""
_REFERENCE: Final = "^(env|file|gcp-secret):."
_LOOKS_LIKE_A_KEY: Final = re.compile(r"(?:\w+:)?(?:[0-9A-Fa-f]{64,}|[A-Za-z0-9+_-]{43}=?)")
_VARIABLE: Final = re.compile(r"\$\{\w+\}|^(?:file:)?(?:\$[A-Za-z_]\w*|~\w*)(?:/|$)")
_OWN: Final[dict[str, dict[str, Any]]] = {
    "command": {"description": "What is carried out.", "enum": list(COMMANDS)},
    "runner": {"description": "Beam's; DirectRunner is here.", "type": "string", "default": "DirectRunner"},
    "beam": {
        "description": "More options for Beam, as words; behind -- those that it doesn't declare.",
        "type": "array",
        "items": {"type": "string"},
        "default": [],
    },
}
"""What stands in a job and is no option of ours."""


@dataclass(frozen=True, repr=False)
class Job:
    """A job that was read.

    Attributes:
      name: of its file.
      words: of the command line that it stands for, behind the command.
      inline: what is read already since it stands in the job itself, by member.
      dry: whether it is only to be told what it would do.
    """

    name: str
    command: str
    words: tuple[str, ...]
    inline: Mapping[str, Any] = field(default_factory=dict)
    dry: bool = False


def read_job(name: str, commands: Mapping[str, click.Command], dry: bool = False) -> Job:
    """Read and check a job's file.

    Args:
      commands: those of the command line, by name.

    Raises:
      RequestError: with every mistake in it and in a request that stands in it, each with its line; none quotes a key.
    """
    root, members = read_markup(_text(name), name)
    command = members.get("command")
    reading = _Reading(root, members, name, commands[command if command in COMMANDS else COMMANDS[0]])
    inline = reading.check()
    reading.mistakes.stop()
    return Job(name, str(command), tuple(reading.words(inline)), inline, dry)


def _text(name: str) -> str:
    try:
        with open(name, encoding="utf-8") as file:
            text = file.read(_LARGEST + 1)
    except OSError as failed:
        raise RequestError((Problem(name, f"can't be read: {failed.strerror}", "name the file of a job"),)) from None
    except UnicodeDecodeError:
        raise RequestError((Problem(name, "is no text in UTF-8", "name the file of a job"),)) from None
    if len(text) > _LARGEST:
        raise RequestError((Problem(name, "is too long to be a job", "name the file of one"),))
    return text


class _Reading:
    """One job being read: gathers every mistake, with its line."""

    def __init__(self, root: yaml.MappingNode, members: dict[str, Any], name: str, command: click.Command) -> None:
        self._root, self._members, self._name, self._command = root, members, name, command
        self._folder = Path(name).parent
        self._options = options_of(command)
        self.mistakes = Mistakes(root, name)

    def check(self) -> dict[str, Any]:
        """Note all that is wrong; gives what stands in the job itself and is read here."""
        self.mistakes.tell_repeated()
        described = schema(self._command)
        for member in self._members.keys() - described["properties"].keys():
            self.mistakes.tell((member,), *_unknown(member, described["properties"]))
        absent = set(described["required"]).difference(self._members)
        if self._members.keys().isdisjoint(_READ):
            absent.add(_READ[0])
        for member in absent:
            self.mistakes.tell((), f"names no {member}", f"add {member}: {_EXAMPLES.get(member, '...')}")
        for error in Draft202012Validator(described).iter_errors(self._members):
            way = tuple(error.absolute_path)
            if way and not (error.validator == "pattern" and _LOOKS_LIKE_A_KEY.fullmatch(error.instance.strip())):
                self.mistakes.tell(way, *_wrong(error))
        self._check_keys()
        self._check_variables()
        for member, option in self._options.items():
            self._check_type(member, option)
        return self._requested() | self._filtered()

    def _check_keys(self) -> None:
        """A key is never told in a job, by whatever member."""
        for way, text in _texts(self._root, ()):
            if way[0] not in ("request", _FILTER) and _LOOKS_LIKE_A_KEY.fullmatch(text.strip()):
                remedy = "write where it is: env:NAME, file:PATH or gcp-secret:NAME; and have a new key made"
                self.mistakes.tell(way, "looks like a key itself", remedy)

    def _check_variables(self) -> None:
        """Nothing is expanded, so a place that begins as if it were would be created by that name."""
        for way, text in _texts(self._root, ()):
            inside = isinstance(self._members.get(str(way[0])), dict)
            if self._leads(str(way[0])) and not inside and _VARIABLE.search(text):
                told = "names a variable or a home, and nothing is expanded in a job"
                self.mistakes.tell(way, told, "write the place itself")

    def _check_type(self, member: str, option: click.Option) -> None:
        """What only the option itself can judge."""
        given = self._members.get(member)
        if isinstance(given, str | int) and not isinstance(given, bool) and not option.multiple:
            try:
                option.type.convert(str(given), option, None)
            except click.BadParameter as bad:
                if not any(problem.where.endswith(f" {member}") for _, problem in self.mistakes.found):
                    self.mistakes.tell((member,), bad.message, "")

    def _leads(self, member: str) -> bool:
        """Whether a member's values are places."""
        return member == _KEY or (member in self._options and self._options[member].metavar in PLACES)

    # ------------------------------------------------------------------------------------------------- the request

    def _requested(self) -> dict[str, Any]:
        """The request, if it stands in the job; wherever it stands, it pins the edition."""
        given, command = self._members.get("request"), str(self._command.name)
        node = next((value for key, value in self._root.value if key.value == "request"), None)
        pins = _PIN in obeyed(command)
        if isinstance(given, dict) and isinstance(node, yaml.MappingNode):
            if pins and _PIN not in given:
                self._tell_pin("pins no edition", f"add {_PIN}: {standard.NEWEST}")
            return self._inline(node, command)
        if isinstance(given, str) and pins and not self._pinned(given):
            self._tell_pin("names a request that pins no edition", f"add {_PIN}: {standard.NEWEST} to it")
        if given is None and pins:
            self.mistakes.tell(
                (), "has no request, so it pins no edition", f"add request: {{{_PIN}: {standard.NEWEST}}}"
            )
        return {}

    def _tell_pin(self, what: str, remedy: str) -> None:
        self.mistakes.tell(("request",), f"{what}, so an upgrade could change its rules", remedy)

    def _inline(self, node: yaml.MappingNode, command: str) -> dict[str, Any]:
        try:
            body = members_of(node)
            return {"request": read_request(node, body, self._name, beside(self._folder), today(), command)}
        except RequestError as refused:
            known = {problem for _, problem in self.mistakes.found}
            line = node.start_mark.line + 1
            self.mistakes.found += [(_line_in(it, line), it) for it in refused.problems if it not in known]
            return {}

    def _pinned(self, file: str) -> bool:
        """Whether the request in a file does; True where the request itself will be refused."""
        try:
            _, body = read_markup((self._folder / file).read_text("utf-8"), file)
        except (OSError, ValueError, DicomveilError):
            return True
        return _PIN in body

    # -------------------------------------------------------------------------------------------------- the filter

    def _filtered(self) -> dict[str, Any]:
        """The filter, if it stands in the job."""
        node = next((value for key, value in self._root.value if key.value == _FILTER), None)
        if not isinstance(node, yaml.MappingNode):
            return {}
        given = members_of(node, MEMBERS)
        return {_FILTER: read_filter(given, self.mistakes, (_FILTER,), beside(self._folder, LARGEST_LIST + 1))}

    # --------------------------------------------------------------------------------------------------- the words

    def words(self, inline: Mapping[str, Any]) -> Iterator[str]:
        """The job as a command line has it, each value bound to its option."""
        for member, option in self._options.items():
            given = self._members.get(member)
            if given is None or member in inline:
                continue
            if option.is_flag:
                yield from [option.opts[0]] if given else []
                continue
            for value in given if isinstance(given, list) else [given]:
                yield f"{option.opts[0]}={self._placed(member, str(value))}"
        if "runner" in self._members:
            yield f"--runner={self._members['runner']}"
        yield from self._members.get("beam", [])

    def _placed(self, member: str, value: str) -> str:
        """A value, from the job's folder on where it is a relative place."""
        if member == _KEY:
            kind, _, place = value.partition(":")
            return f"file:{self._from_here(place)}" if kind == "file" else value
        return self._from_here(value) if self._leads(member) else value

    def _from_here(self, place: str) -> str:
        return place if "://" in place or place == "-" else os.path.join(self._folder, place)


def options_of(command: click.Command) -> dict[str, click.Option]:
    """A command's options by their names in a job."""
    found = [option for option in command.params if isinstance(option, click.Option)]
    return {option.opts[0].removeprefix("--"): option for option in found}


def schema(command: click.Command) -> dict[str, Any]:
    """JSON Schema of a job of one command."""
    options = options_of(command)
    required = [member for member, option in options.items() if option.required]
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["command", *required],
        "properties": {
            **{member: dict(described) for member, described in _OWN.items()},
            **{member: _described(member, option) for member, option in options.items()},
        },
    }


def _described(member: str, option: click.Option) -> dict[str, Any]:
    told: dict[str, Any] = {"description": option.help or "", **_typed(member, option)}
    default = option.default if isinstance(option.default, str | int) and not option.multiple else None
    return told if default is None else told | {"default": default}


def _typed(member: str, option: click.Option) -> dict[str, Any]:
    """What a member's values may be, as its option says."""
    if member in ("request", _FILTER):
        return {"type": ["string", "object"]}
    if member == _KEY:
        return {"type": "string", "pattern": _REFERENCE}
    if option.is_flag:
        return {"type": "boolean"}
    if option.multiple:
        return {"type": ["string", "array"], "items": {"type": "string"}, "minItems": 1}
    if isinstance(option.type, click.IntRange):
        ends = {"minimum": option.type.min, "maximum": option.type.max}
        return {"type": "integer"} | {end: limit for end, limit in ends.items() if limit is not None}
    if isinstance(option.type, click.Choice):
        return {"enum": list(option.type.choices)}
    quantity = option.type is not click.STRING or option.metavar in QUANTITIES
    return {"type": ["string", "integer"] if quantity else "string"}


def published(commands: Mapping[str, click.Command]) -> dict[str, Any]:
    """The schema of docs/job.schema.json: that of each command, taken by what stands under `command`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dicomveil job",
        "type": "object",
        "required": ["command"],
        "properties": {"command": _OWN["command"]},
        "allOf": [
            {"if": {"properties": {"command": {"const": name}}}, "then": {"$ref": f"#/$defs/{name}"}}
            for name in COMMANDS
        ],
        "$defs": {name: schema(commands[name]) for name in COMMANDS},
    }


_EXAMPLES: Final = {"command": "anonymize", "input": "gs://archive/2026", "output": "gs://release/images"}


def _unknown(member: str, known: Mapping[str, Any]) -> tuple[str, str]:
    return "is no member of this job", closest(member, known, f"there are {', '.join(known)}")


def _wrong(error: ValidationError) -> tuple[str, str]:
    if error.validator == "pattern":
        return "is no reference to a key", "write env:NAME, file:PATH or gcp-secret:NAME, never the key itself"
    return wrong(error) or ("is empty", "name something, or leave it out")


def _texts(node: yaml.Node, way: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every text in a job, with the way to it."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _texts(value, (*way, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _texts(value, (*way, number))
    elif way:
        yield way, str(node.value)


def _line_in(problem: Problem, otherwise: int) -> int:
    found = re.search(r":([0-9]+)", problem.where)
    return int(found[1]) if found else otherwise

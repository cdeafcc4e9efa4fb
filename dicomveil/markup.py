"""A request's or filter's text as members and their values, each with its line: JSON is read as the YAML that it is."""

import math
import re
from collections.abc import Collection, Iterator
from typing import Any, Final

import yaml

from dicomveil.errors import Problem, RequestError

_NULL: Final = "tag:yaml.org,2002:null"
_BOOL: Final = "tag:yaml.org,2002:bool"
_TEXT: Final = "tag:yaml.org,2002:str"
_MAP: Final = "tag:yaml.org,2002:map"
_MERGE: Final = "tag:yaml.org,2002:merge"
_NUMBERS: Final = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_WORDS: Final = (
    "DicomVersion", "Replace", "Remove", "Keep", "SafePrivate", "Vocabulary", "PrivateDictionary", "PrivateCreator",
    "PatientNameTemplate",
    "EncryptFor", "EncryptAttributes", "Resources", "Series", "Instances", "Study", "Transcode",
)  # fmt: skip
"""Members in which 0010 and 2008 are no numbers but text."""
_LONGEST_NUMBER: Final = 1024  # in bits
Way = tuple[str | int, ...]
"""The members' names and the numbers in lists that lead to something."""


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


def read_markup(text: str, name: str, words: Collection[str] = _WORDS) -> tuple[yaml.MappingNode, dict[str, Any]]:
    """The nodes of a body, which know their lines, and its members as JSON would hold them; none where it is empty.

    Args:
      name: of the file, for messages.
      words: members in which numbers are text.

    Raises:
      RequestError: it is no mapping, or neither YAML nor JSON.
    """
    try:
        root = yaml.compose(_paired(_untabbed(text)), Loader=_Loader)
        body = members_of(root, words)
    except yaml.MarkedYAMLError as broken:
        mark = broken.problem_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise RequestError(
            (Problem(where, f"is neither YAML nor JSON: {_unquoted(broken.problem)}", "mend the syntax"),)
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise RequestError((Problem(name, "is neither YAML nor JSON", "write plain members in UTF-8"),)) from None
    if root is None or root.tag == _NULL:
        return yaml.MappingNode(_MAP, [], yaml.Mark(name, 0, 0, 0, None, 0)), {}
    if not isinstance(root, yaml.MappingNode):
        where = f"{name}:{root.start_mark.line + 1}"
        raise RequestError((Problem(where, "is no mapping of members to values", "write Member: value"),))
    return root, body


def line_of(root: yaml.Node, way: Way) -> int:
    """The line, from 1 on, to which a way leads, or as far as it does."""
    node, line = root, root.start_mark.line
    for step in way:
        if isinstance(node, yaml.MappingNode):
            key, node = next((pair for pair in node.value if pair[0].value == step), (node, node))
            line = key.start_mark.line
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line
    return int(line) + 1


def way_text(way: Way) -> str:
    """A way as it stands in messages, behind file and line."""
    return "".join(f"[{it}]" if isinstance(it, int) else f" {it}" for it in way)


def repeated(root: yaml.Node, name: str, way: Way = ()) -> Iterator[tuple[int, Problem]]:
    """The members that are given twice in one mapping, each with its line."""
    if isinstance(root, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in root.value:
            member = str(key.value)
            if member in seen:
                line = key.start_mark.line + 1
                where = f"{name}:{line} {' '.join(map(str, (*way, member)))}"
                yield line, Problem(where, "is given twice", "keep one of them")
            seen.add(member)
            yield from repeated(value, name, (*way, member))
    elif isinstance(root, yaml.SequenceNode):
        for number, value in enumerate(root.value):
            yield from repeated(value, name, (*way, number))


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


def members_of(root: yaml.Node | None, words: Collection[str] = _WORDS) -> dict[str, Any]:
    """What the members say, by name; empty where the root is no mapping.

    Args:
      words: members in which numbers are text.

    Raises:
      yaml.MarkedYAMLError: one holds what JSON doesn't know.
    """
    if not isinstance(root, yaml.MappingNode):
        return {}
    for key, _ in root.value:
        _check_scalar(key)
    return {str(key.value): _plain(value, str(key.value) in words) for key, value in root.value}


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

"""What is wrong with something written in YAML or JSON: gathered, each with its line, and told all at once.

What may stand there is known where it is read. No message quotes a value.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Any, Final

import yaml
from jsonschema.exceptions import ValidationError

from dicomveil.errors import Problem, RequestError
from dicomveil.markup import Way, line_of, repeated, way_text

_KINDS: Final = {
    "array": "a list", "boolean": "true or false", "integer": "a whole number", "null": "null", "number": "a number",
    "object": "a mapping", "string": "text",
}  # fmt: skip
"""What JSON Schema's types are called in messages."""


class Mistakes:
    """What is wrong with one text.

    Args:
      root: its nodes, which know their lines.
      name: of the file, for messages.
    """

    def __init__(self, root: yaml.MappingNode, name: str) -> None:
        self._root, self._name = root, name
        self.found: list[tuple[int, Problem]] = []

    def tell(self, way: Way, what: str, remedy: str) -> None:
        """Note one, of the member that a way leads to."""
        line = line_of(self._root, way)
        self.found.append((line, Problem(f"{self._name}:{line}{way_text(way)}", what, remedy)))

    def tell_repeated(self) -> None:
        """Note every member that is given twice."""
        self.found += repeated(self._root, self._name)

    def problems(self) -> tuple[Problem, ...]:
        """All of them, by line, and within a list by number."""
        return tuple(problem for _, problem in sorted(self.found, key=_place))

    def stop(self) -> None:
        """Go on only where there is none.

        Raises:
          RequestError: with every mistake.
        """
        if self.found:
            raise RequestError(self.problems())


def _place(told: tuple[int, Problem]) -> tuple[int, str]:
    line, problem = told
    return line, re.sub(r"\[([0-9]+)\]", lambda number: number[1].zfill(9), problem.where)


def closest(word: str, known: Iterable[str], otherwise: str) -> str:
    """A remedy: what was meant, if anything known is like it."""
    close = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f"did you mean {close[0]}?" if close else otherwise


def wrong(error: ValidationError) -> tuple[str, str] | None:
    """What is wrong and what to write, of what every schema may find; None for anything else."""
    allowed: Any = error.validator_value
    if error.validator == "enum":
        return "has a value that isn't known", closest(
            str(error.instance), map(str, allowed), "write one of " + ", ".join(map(str, allowed))
        )
    if error.validator == "type":
        kinds = allowed if isinstance(allowed, list) else [allowed]
        return "has a value of the wrong type", f"write {' or '.join(_KINDS[kind] for kind in kinds)}"
    if error.validator == "uniqueItems":
        return "names one twice", "keep one of them"
    if error.validator in ("minimum", "maximum"):
        return "is out of range", f"write {allowed} or {'more' if error.validator == 'minimum' else 'less'}"
    return None

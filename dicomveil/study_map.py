"""The StudyMap: what a study's instances share, as it travels to wherever they are rewritten.

New UIDs are derived from old ones by value, so the map needn't list them: it holds what can't be derived from one
instance alone. How it is settled stands in `study`, what is derived under it in `identities`.
"""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

TOKEN: Final = 8
"""The length of a token in a map, in bytes."""
LETTERS: Final = {"study": b"t", "series": b"e", "instance": b"i", "frame-of-reference": b"f"}
ROLES: Final = {letter: role for role, letter in LETTERS.items()}
_BYTES: Final = ("inside", "words", "external", "changed", "torn")


@dataclass(frozen=True)
class StudyMap:
    """What a study's instances share.

    Attributes:
      study_token: stands for the original Study Instance UID.
      patient: the new Patient ID; "" for objects that are no patient's.
      name: by which its patient is known in the output, likewise; Patient ID too, unless the request says otherwise.
      pseudonym: what is derived from its patient, likewise; `name` too, unless a crosswalk says otherwise.
      study_instance_uid: the new one; "" for objects that are no patient's.
      inside: tokens of the UIDs that its instances bear (study, series, instances, frames of reference), each behind a
        letter for its role, sorted.
      conflict: the reason for which the study is quarantined whole; "" for none.
      days: by which its dates are moved; 0 for not at all.
      words: sorted tokens of the words by which its people could be known, where text is cleaned.
      external: sorted tokens of the UIDs that it refers to and nobody knows, where references to them go.
      given: (token, new UID) of what a crosswalk says, by hexadecimal token.
      given_patients: (pseudonym, new Patient ID) likewise, of patients that its instances mention.
      listed: whether a UID that no crosswalk gives is refused.
      apart: whether its series and its study get UIDs of their own: several patients share them.
      strict: whether an instance of another patient than the study's is refused: the study was settled by an earlier
        run, or has several.
      changed: tokens of the UIDs that modify, split or merge replaces wherever they stand, each behind a letter for its
        role, sorted; of instances also where they keep theirs, since what moves is known by them.
      torn: likewise of those that it replaces in what is selected alone: the rest of the study or series keeps them.
      parts: what differs for each of several patients whose instances share the study, by pseudonym.
    """

    study_token: str
    patient: str = ""
    name: str = ""
    pseudonym: str = ""
    study_instance_uid: str = ""
    inside: bytes = b""
    conflict: str = ""
    days: int = 0
    words: bytes = b""
    external: bytes = b""
    given: tuple[tuple[str, str], ...] = ()
    given_patients: tuple[tuple[str, str], ...] = ()
    listed: bool = False
    apart: bool = False
    strict: bool = False
    changed: bytes = b""
    torn: bytes = b""
    parts: tuple["StudyMap", ...] = ()

    def encode(self) -> bytes:
        """As bytes that `decode` reads back; without any original value but those that the request keeps."""
        tokens = [getattr(self, name) for name in _BYTES]
        told = [self._told(), [part._told() for part in self.parts], [len(it) for it in tokens]]
        return json.dumps(told, separators=(",", ":")).encode() + b"\n" + b"".join(tokens)

    def _told(self) -> dict[str, Any]:
        """What isn't as it is by default, but for tokens and parts."""
        plain = (it for it in dataclasses.fields(self) if it.name not in (*_BYTES, "parts"))
        return {it.name: value for it in plain if (value := getattr(self, it.name)) != it.default}

    @classmethod
    def decode(cls, data: bytes) -> "StudyMap":
        head, _, tokens = data.partition(b"\n")
        told, parts, lengths = json.loads(head)
        at = 0
        found: dict[str, Any] = {}
        for name, length in zip(_BYTES, lengths, strict=True):
            found[name] = tokens[at : at + length]
            at += length
        return cls(**_tupled(told), **found, parts=tuple(cls(**_tupled(part)) for part in parts))

    def of(self, pseudonym: str) -> "StudyMap | None":
        """The map for one of several patients; None where it has no such."""
        return self._of_patients.get(pseudonym)

    @cached_property
    def _of_patients(self) -> dict[str, "StudyMap"]:
        shared = {name: getattr(self, name) for name in (*_BYTES, "study_token", "given", "given_patients", "listed")}
        return {part.pseudonym: dataclasses.replace(part, **shared) for part in self.parts}

    @cached_property
    def roles(self) -> dict[bytes, str]:
        """The role of each UID that an instance of the study bears, by its token."""
        return {token: role for role, token in lettered(self.inside)}

    @cached_property
    def uids(self) -> dict[bytes, str]:
        """What a crosswalk gives for UIDs, by token."""
        return {bytes.fromhex(token): new for token, new in self.given}

    @cached_property
    def patients(self) -> dict[str, str]:
        """What a crosswalk gives for patients, by pseudonym."""
        return dict(self.given_patients)

    @cached_property
    def identifying(self) -> frozenset[bytes]:
        """The tokens of words that identify."""
        return _set(self.words)

    @cached_property
    def unknown(self) -> frozenset[bytes]:
        """The tokens of UIDs that nobody knows."""
        return _set(self.external)


def lettered(tokens: bytes) -> Iterator[tuple[str, bytes]]:
    """(role, token) of tokens behind letters."""
    width = TOKEN + 1
    for at in range(0, len(tokens), width):
        yield ROLES[tokens[at : at + 1]], tokens[at + 1 : at + width]


def _set(tokens: bytes) -> frozenset[bytes]:
    return frozenset(tokens[at : at + TOKEN] for at in range(0, len(tokens), TOKEN))


def _tupled(told: dict[str, Any]) -> dict[str, Any]:
    """Pairs as the tuples that they were."""
    return {
        name: tuple((one, other) for one, other in value) if isinstance(value, list) else value
        for name, value in told.items()
    }

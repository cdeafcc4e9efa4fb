"""Sources that are to go, and every reason for which one stays.

How each is looked at and removed is settled by where it lies: in `local_removals` and `stored_removals`.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from dicomveil.errors import DicomveilError


class Reason(NamedTuple):
    """Why a source stays: what was found, and what its owner can do."""

    meaning: str
    remedy: str


KEPT: Final[dict[str, Reason]] = {
    "changed": Reason("It is another version than was read.", "Run again, so that this one is de-identified."),
    "gone": Reason("It isn't there any more.", "Nothing to do."),
    "no-plain-file": Reason(
        "No plain file stands there, or none of its own: a link on the way, a member of an archive.",
        "Remove it by hand.",
    ),
    "unreadable": Reason("It can't be looked at.", "Check its folder's or bucket's permissions, and purge again."),
    "not-permitted": Reason("It may not be removed.", "Check its folder's or bucket's permissions, and purge again."),
    "outside-input": Reason(
        "It lies outside --input: a link led there, or an earlier run had read it.", "Remove it by hand, if at all."
    ),
    "inside-output": Reason("It lies where runs write to.", "Nothing to do."),
    "is-output": Reason("It and its output are one file.", "Nothing to do."),
    "output-missing": Reason(
        "Its output isn't there.", "Bring the output back and purge again, or run again with --reprocess all."
    ),
    "output-differs": Reason(
        "Its output isn't what the run recorded.",
        "Bring the output back and purge again, or run again with --reprocess all.",
    ),
    "output-unreadable": Reason("Its output can't be read back.", "Check the storage of --output, and purge again."),
    "unrecorded": Reason("The audit has no checksum of its output.", "Bring --audit back, and purge again."),
    "abandoned": Reason("The purge was given up.", "Nothing to do."),
}
"""Every reason for which a source stays."""


class Kept(DicomveilError):
    """A source that stays; `reason` is a key of `KEPT`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: {KEPT[reason].meaning} {KEPT[reason].remedy}")
        self.reason = reason


@dataclass(frozen=True, repr=False)
class Removal:
    """One source to be removed.

    Attributes:
      token: stands for URI and version.
      name: its output's, below the output's root, of `bytes` and `sha256` as the audit has them.
      reason: why it is to stay, whatever is found; "" for none.
    """

    token: str
    uri: str
    version: str
    size: int
    name: str
    bytes: int
    sha256: str
    reason: str = ""


class Seen(NamedTuple):
    """What a file or object was when it was looked at.

    Attributes:
      place: stands for it, whatever names it has.
    """

    place: str
    version: str

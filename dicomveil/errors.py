"""What can go wrong, as values: every reason code there is, and the exceptions that carry one.

An exception here names a tag path, an offset, a rule and a remedy. It never carries a value of a data set, a URI
or a key, because its text ends up in logs that are not restricted.
"""

from typing import Final, NamedTuple


class DicomveilError(Exception):
    """Anything this package raises on purpose."""


class KeyRefused(DicomveilError):
    """A key that can't be used: too short, plainly weak, or not readable as hexadecimal or base64."""


class Problem(NamedTuple):
    """One mistake in something a user wrote.

    Attributes:
      where: file, line and key, as far as they are known.
      what: what is wrong.
      remedy: what to write instead.
    """

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.remedy})" if self.remedy else "")


class RequestError(DicomveilError):
    """A request that can't be obeyed; carries all of its mistakes at once."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class Reason(NamedTuple):
    """Why an input was not de-identified.

    Attributes:
      outcome: "filtered" (there is nothing to de-identify) or "quarantined" (there may be, and it was not safe to).
      meaning: what was found.
      remedy: what its owner can do.
    """

    outcome: str
    meaning: str
    remedy: str


_F, _Q, _N = "filtered", "quarantined", "not-attempted"

REASONS: Final[dict[str, Reason]] = {
    # --- not an instance -------------------------------------------------------------------------------------------
    "empty-file": Reason(_F, "The file has no bytes.", "Nothing to do, or restore it from a copy."),
    "not-a-file": Reason(_F, "A FIFO, socket or device, which is never opened.", "Remove it from the input."),
    "not-dicom": Reason(_F, "Neither a DICOM file nor a bare data set.", "Nothing to do."),
    "zip-not-opened": Reason(
        _F,
        "A zip file inside another, or under a name that doesn't end in .zip; documents may be such, too.",
        "If it holds instances, unpack it, or let its name say so.",
    ),
    "empty-zip": Reason(_F, "A zip file without members.", "Nothing to do, or restore it from a copy."),
    "dicomdir": Reason(_F, "A DICOMDIR, which names patients and is never copied.", "Make a new one for the output."),
    "duplicate": Reason(_F, "The same bytes as another input, which was taken.", "Nothing to do."),
    "not-restored": Reason(_F, "Archived by the store, which can't read it as it is.", "Restore it, and run again."),
    "not-taken": Reason(_F, "The run's filter doesn't take it.", "Nothing to do."),
    "not-selected": Reason(_F, "The request's Resources don't name it.", "Nothing to do."),
    # --- zip files -------------------------------------------------------------------------------------------------
    "zip-damaged": Reason(
        _Q, "A zip file that is damaged, cut off or one part of several, or a member of such.", "Get it again."
    ),
    "zip-encrypted": Reason(_Q, "A member of a zip file that is encrypted.", "Unpack it, or zip it without password."),
    "zip-method": Reason(_Q, "A member of a zip file that is neither stored nor deflated.", "Unpack it."),
    "zip-bomb": Reason(
        _Q,
        "A zip file or member that expands past all measure, or whose members share bytes.",
        "Unpack it where you trust it.",
    ),
    # --- encoding --------------------------------------------------------------------------------------------------
    "truncated": Reason(_Q, "The file ends inside an element.", "Get the instance again from its source."),
    "length": Reason(_Q, "A length reaches past the end of what holds the element.", "Repair or resend the instance."),
    "undefined-length": Reason(_Q, "An undefined length on an element that can't have one.", "Repair the instance."),
    "item": Reason(_Q, "An Item or delimiter where none may be, or something else where one must be.", "Repair it."),
    "nesting": Reason(_Q, "Sequences nested deeper than 512.", "Repair the instance."),
    "transfer-syntax": Reason(
        _Q,
        "The transfer syntax is missing, unknown or wrong, and can't be told with certainty.",
        "Repair its meta group.",
    ),
    "deflate": Reason(_Q, "A deflated data set that is broken or expands past the limit.", "Repair or inflate it."),
    "vr": Reason(_Q, "Bytes where a VR must stand that are no VR.", "Repair the instance."),
    "sequence-vr": Reason(
        _Q, "A sequence under another VR than SQ or UN, or Items where none may be.", "Repair the instance."
    ),
    "trailing-data": Reason(_Q, "Bytes after the last element that are no padding.", "Cut them off, or resend it."),
    # --- identity --------------------------------------------------------------------------------------------------
    "missing-identifier": Reason(
        _Q, "A patient's instance without SOP Class or Study, Series or SOP Instance UID.", "Add it to the instance."
    ),
    "several-values": Reason(_Q, "Several values in an identifier that has one.", "Repair the instance."),
    "identifier-twice": Reason(_Q, "An identifier given twice, with different values.", "Repair the instance."),
    "sop-uid-conflict": Reason(
        _Q,
        "Inputs of different content share one SOP Instance UID.",
        "Tell which is right, or ask for Conflicts: distinct.",
    ),
    "patient-conflict": Reason(
        _Q,
        "One study holds several Patient IDs, or another than an earlier run has seen in it.",
        "Correct the study's Patient ID and run with --settle-anew, or ask for PatientConflicts: split.",
    ),
    "series-conflict": Reason(_Q, "One series stands in several studies.", "Correct its Study Instance UID."),
    "no-anchor": Reason(
        _Q, "Dates are moved by an anchor date, and there is none for this patient.", "Give it in --crosswalk-in."
    ),
    "value-taken": Reason(
        _Q, "A crosswalk gives somebody else what is derived for this study.", "Give that one another value."
    ),
    "study-too-large": Reason(
        _Q,
        "What must be known of its study's instances is more than one worker may be given at once.",
        "Name fewer of them, with --reprocess quarantined; what comes later is consistent with what came before.",
    ),
    "envelope-size": Reason(
        _Q, "More originals to encrypt than are held in memory.", "Name fewer in EncryptAttributes."
    ),
    "unlisted": Reason(
        _Q, "A patient or UID that --crosswalk-in doesn't give.", "Add it, or ask for Unlisted: derive."
    ),
    "only-copy": Reason(
        _Q,
        "Its output is there already, with other content, and the source of that was deleted.",
        "Tell which is right, or write to another --output.",
    ),
    "output-conflict": Reason(
        _Q,
        "Another source's output has the name of its output.",
        "Write to another --output, or remove what stands there.",
    ),
    "unwritten": Reason(
        _Q, "The store couldn't take its output, after all retries.", "Run again when the store is well."
    ),
    # --- what can't be protected -----------------------------------------------------------------------------------
    "private-sop-class": Reason(
        _Q,
        "A private SOP Class, for which PS3.15 defines no profile.",
        "Leave it out, or ask for PrivateSOPClass: strip.",
    ),
    "overlay-in-pixels": Reason(
        _Q, "An overlay in bits of the pixels that can't be cleared there.", "Decompress it, or remove the overlay."
    ),
    "burned-in": Reason(
        _Q, "Pixels that say who it is, or are likely to.", "Clean the pixels, or ask for BurnedIn: pass."
    ),
    "bitstream": Reason(
        _Q,
        "Compressed pixels whose bitstream can't be searched for comments.",
        "Decompress it, or ask for BitstreamComments: keep.",
    ),
    "bitstream-comment": Reason(
        _Q, "A comment inside compressed pixels.", "Ask for BitstreamComments: blank, or decompress it."
    ),
    "charset": Reason(
        _Q, "Text that its Specific Character Set doesn't allow, where all text must be read.", "Repair its text."
    ),
    "value": Reason(
        _Q, "A value of the request doesn't fit the private element it is for.", "Give its VR in PrivateDictionary."
    ),
    # --- transcoding -----------------------------------------------------------------------------------------------
    "transcode-unsupported": Reason(
        _Q,
        "Pixels that the transfer syntax asked for can't hold exactly or legally, or that nothing here decodes.",
        "Ask for another in Transcode, or leave it out.",
    ),
    "transcode-failed": Reason(
        _Q, "Pixel Data that couldn't be decoded or encoded.", "Repair its pixels, or leave Transcode out."
    ),
    "transcode-timeout": Reason(
        _Q, "Transcoding took longer than an instance of this size may.", "Allow more time, or leave Transcode out."
    ),
    "transcode-memory": Reason(
        _Q, "Transcoding needed more memory than it may have.", "Allow more memory, or leave Transcode out."
    ),
    # --- reading and writing ---------------------------------------------------------------------------------------
    "unreadable": Reason(_Q, "The input could not be opened or read.", "Check that it exists and may be read."),
    "over-limit": Reason(_N, "The run has taken as much as it may.", "Nothing to do: the next run takes it."),
    "stopped": Reason(_N, "The run stopped, since too many inputs failed.", "See to those, and run again."),
    "changed-during-run": Reason(_Q, "The input changed between scan and rewrite.", "Run again when it is at rest."),
    "internal": Reason(_Q, "An unforeseen error in dicomveil.", "Please report the stage and the reason's detail."),
}


class Unsuitable(DicomveilError):
    """An input that is set aside: never an output, always a reason.

    Attributes:
      reason: a key of `REASONS`.
      path: where in the data set, such as "(0008,1140)[0].(0008,1155)"; "" where it concerns the file.
      offset: bytes from the start of the file, or of the inflated data set; -1 where there is none.
    """

    def __init__(self, reason: str, path: str = "", offset: int = -1) -> None:
        place = " ".join(filter(None, [path, f"at byte {offset}" if offset >= 0 else ""]))
        super().__init__(
            f"{reason}: {REASONS[reason].meaning} {REASONS[reason].remedy}" + (f" [{place}]" if place else "")
        )
        self.reason, self.path, self.offset = reason, path, offset

    def inside(self, tag: str, item: int) -> "Unsuitable":
        """The same, found in an Item of a sequence."""
        step = f"{tag}[{item}]"
        return type(self)(self.reason, f"{step}.{self.path}" if self.path else step, self.offset)

    def __reduce__(self) -> tuple[type, tuple[str, str, int]]:
        return type(self), (self.reason, self.path, self.offset)


class Filtered(Unsuitable):
    """There is nothing to de-identify here."""


class InvalidInstance(Unsuitable):
    """There may be something to de-identify, and it can't be done safely: quarantined."""

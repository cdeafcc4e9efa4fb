"""What the output may say of itself: a profile's or an Option's code only where all that it demands is done.

The codes are those of PS3.16 CID 7050, the demands those of PS3.15 E.1.1 (items 1 and 7) and E.2.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from dicomveil import standard
from dicomveil.options import CLEANED, DATES, code_of, shared_date
from dicomveil.request import Request
from dicomveil.rules import Rules
from dicomveil.tags import Attribute, vr_of

_NUMBERS: Final = frozenset(("DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"))
_OVERLAYS: Final = range(0x6000, 0x6020, 2)


class Breach(NamedTuple):
    """One line of the request that leaves something unprotected."""

    line: str
    row: str


def breaches(request: Request) -> Iterator[Breach]:
    """Why a request may not claim the profile: none where it may."""
    if request.dicom_version == "2008":
        yield Breach("DicomVersion", "the edition is older than the codes")
    if not request.supplement:
        yield Breach("Supplement", "instance references that Table E.1-1 doesn't name stay (E.1.1 item 5)")
    if request.private_sop_class == "strip":
        yield Breach("PrivateSOPClass", "no profile is defined for private SOP Classes (E.1.1 note 6)")
    if request.keep_private_tags:
        yield Breach("KeepPrivateTags", "(gggg,eeee) Private attributes")
    for path in request.keep:
        if path.attribute.private:
            if not _safe(request, path.attribute):
                yield Breach(f"Keep {path.text()}", "(gggg,eeee) Private attributes")
            continue
        for row in standard.rows(request.dicom_version):
            code, _ = code_of(row, request.options)
            if code != "K" and _matches(path.attribute, row.tag):
                yield Breach(f"Keep {path.text()}", f"{row.tag} {row.name} {row.basic}")
        if any(path.attribute.matches(tag) for tag in standard.sequences()):
            yield Breach(f"Keep {path.text()}", "whatever stands in the sequence stays")
        if any(path.attribute.matches(group << 16 | 0x0102) for group in _OVERLAYS):
            yield Breach(f"Keep {path.text()}", "(60xx,3000) Overlay Data, in bits of the pixels")
        if "RetainUIDs" not in request.options and any(path.attribute.matches(tag) for tag in _supplemented("U")):
            yield Breach(f"Keep {path.text()}", "a reference to an instance stays (E.1.1 item 5)")


def broken(request: Request) -> dict[str, Breach]:
    """The Options of which a line of the request changes what they retain, and the first such line.

    What is retained under an Option is part of its claim as much as what is removed (E.1.1 item 1).
    """
    found: dict[str, Breach] = {}
    if request.external_references == "remove" and "RetainUIDs" in request.options:
        found["RetainUIDs"] = Breach("ExternalReferences", "(0008,1155) Referenced SOP Instance UID U")
    changed = [(f"Remove {path.text()}", path.attribute) for path in request.remove]
    changed += [(f"Replace {it.path.text()}", it.path.attribute) for it in request.replace]
    for line, attribute in changed:
        if attribute.private and "RetainSafePrivate" in request.options:
            found.setdefault("RetainSafePrivate", Breach(line, "(gggg,eeee) Private attributes"))
        for row in standard.rows(request.dicom_version) if not attribute.private else ():
            if code_of(row, request.options)[0] == "K" and _matches(attribute, row.tag):
                for option in request.options:
                    if getattr(row, standard.OPTION_COLUMNS[option], "") == "K":
                        found.setdefault(option, Breach(line, f"{row.tag} {row.name} {row.basic}"))
    return found


def unnamed(edition: str) -> Iterator[str]:
    """What whoever chooses an older edition should hear: how much the newest protects that this one leaves."""
    named = {row.tag for row in standard.rows(edition)}
    count = sum(row.tag not in named for row in standard.rows(standard.NEWEST))
    if count:
        yield (
            f"PS3.15 {standard.NEWEST} protects {count} attributes that {edition} doesn't name: "
            f"dicomveil explain --diff {edition} {standard.NEWEST} tells which stay."
        )


def claims(request: Request) -> tuple[str, ...]:
    """The Options whose codes are written beside the Basic Profile's, "" for the profile itself; none at all for site
    rules."""
    if any(breaches(request)):
        return ()
    lost = broken(request)
    return ("", *(option for option in request.options if option not in lost))


def longitudinal(request: Request) -> str:
    """Longitudinal Temporal Information Modified (0028,0303): the least that was done to any date (PS3.3 C.12.1.1.7).

    UNMODIFIED where the table leaves a date as it is, MODIFIED where one is moved or replaced, else REMOVED. Dates that
    no patient owns (of devices, certificates, vocabularies) don't count.
    """
    edition = request.dicom_version
    done = {code_of(row, request.options)[0] for row in standard.rows(edition) if _counts(row)}
    if edition == "2008":
        done = {"K"}  # it names no date but those of birth
    rules = Rules.of(request)
    for row in standard.rows(standard.NEWEST):
        if _counts(row) and standard.names_one(row.tag):
            verdict = rules.verdict(standard.tag_number(row.tag))
            done.add("K" if verdict == "keep" else DATES if verdict not in ("", "remove") else "X")
    if request.keep_private_tags or any(
        _may_date(path.attribute) and not _safe(request, path.attribute) for path in request.keep
    ):
        done.add("K")
    if any((it.path.steps or it.value.items) and _may_date(it.path.attribute) for it in request.replace):
        done.add(DATES)
    return "UNMODIFIED" if "K" in done else "MODIFIED" if done & CLEANED else "REMOVED"


def _counts(row: standard.Row) -> bool:
    return row.full_dates == "K" and not shared_date(row)


def _matches(attribute: Attribute, tag: str) -> bool:
    if "g" in tag:
        return False
    digits = tag[1:5] + tag[6:10]
    fixed = int("".join("0" if digit == "x" else "F" for digit in digits), 16)
    mask = attribute.mask & fixed
    return attribute.tag & mask == int(digits.replace("x", "0"), 16) & mask


def _may_date(attribute: Attribute) -> bool:
    """Whether what is named is a date that counts, or may hold one: a sequence, a private element."""
    if attribute.private or any(attribute.matches(tag) for tag in standard.sequences()):
        return True
    dates = {
        standard.tag_number(row.tag)
        for row in standard.rows(standard.NEWEST)
        if _counts(row) and standard.names_one(row.tag)
    }
    dates |= {tag for tag in _supplemented("X", "Z", "D", "X/Z", "X/D", "Z/D", "X/Z/D") if vr_of(tag) in ("DA", "DT")}
    return any(attribute.matches(tag) for tag in dates)


def _supplemented(*actions: str) -> Iterator[int]:
    """The attributes of the supplement that get one of some actions."""
    for row in standard.supplement():
        if standard.names_one(row.tag) and row.action in actions:
            yield standard.tag_number(row.tag)


def _safe(request: Request, attribute: Attribute) -> bool:
    """Whether a private element is known to be safe, and would stay as it is without being named too: a number."""
    if not attribute.creator or "RetainSafePrivate" not in request.options:
        return False
    key = attribute.tag >> 16, attribute.creator, attribute.tag & 0xFF
    ours = {it.attribute: it.vr for it in request.private_dictionary}
    vr = ours.get(attribute) or standard.private_dictionary(request.dicom_version).get(key, "")
    known = attribute in request.safe_private or key in standard.safe_private(request.dicom_version)
    return known and vr in _NUMBERS

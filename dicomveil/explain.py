"""What a request does to each attribute, and which row says so; and the Conformance Statement that follows from it.

Nothing is said here that isn't read from the decision table or the tables it was compiled from.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from dicomveil import claims, dummies, marks, options, schema, standard
from dicomveil.certificates import fingerprint
from dicomveil.compile import ENCRYPT_FOR, RECIPE, REMOVED_GROUPS, DecisionTable, compile_request
from dicomveil.content import CONTENT
from dicomveil.decision import Decision
from dicomveil.documents import DOCUMENT
from dicomveil.pseudonyms import FIELD
from dicomveil.request import Request
from dicomveil.stream import tag_text
from dicomveil.tags import name_of

_PEM: Final = "-----BEGIN CERTIFICATE-----"
_TOLD: Final = {
    "X": "removed",
    "Z": "emptied",
    "D": "replaced by a dummy",
    "U": "UIDs mapped",
    "K": "kept",
}
_CLEANED: Final = {
    options.TEXT: "reduced to a vocabulary",
    options.DATES: "moved by the patient's days",
    options.STRUCTURED: "kept, its content items treated by their concepts",
    options.GRAPHICS: "kept, its text cleaned",
}
_MANNER: Final = {
    "CleanGraphics": (
        "Graphic annotations stay and their text is reduced to a vocabulary. Of overlays those that mark "
        "regions (Overlay Type R) stay, without their texts; those that are graphics, curves, and overlays in"
        " bits of the Pixel Data are removed."
    ),
    "CleanStructuredContent": (
        "Content items are treated by concept name as Table E.3.4-1 says, retired codes included: kept, "
        "removed with all below them, or given a dummy. What the table doesn't name is treated by its value "
        "type: texts are reduced to a vocabulary, names of persons replaced, UIDs mapped, dates treated as "
        "other dates."
    ),
    "CleanDescriptors": (
        "Text is reduced to a vocabulary of words from PS3.16 and of imaging protocols, and short technical "
        "numbers. Whatever else it holds is dropped, and so is each word by which a person of the study could"
        " be known: names, numbers, addresses and dates that stand anywhere in it."
    ),
    "RetainLongitudinalFullDates": ("Dates and times stay as they are."),
    "RetainLongitudinalModifiedDates": (
        "Dates are moved by whole days, the same for all studies of a patient; times of day stay. A date that can't be "
        "moved, such as one that isn't whole, is emptied, or replaced by a dummy where the IOD demands a value. Dates "
        "of devices, certificates and vocabularies, and those of objects that are no patient's get the Basic Profile's "
        "action."
    ),
    "RetainPatientCharacteristics": (
        "Sex, age, size, weight and their like stay; what is text among them is reduced to a vocabulary."
    ),
    "RetainDeviceIdentity": (
        "Attributes of the device stay; AE titles are reduced to a vocabulary, which leaves little of them. "
        "Dates of the device get the Basic Profile's action."
    ),
    "RetainUIDs": ("UIDs stay, but for those that Table E.1-1 doesn't let stay."),
    "RetainSafePrivate": (
        "The private elements of Table E.3.10-1 and those named by the request stay, with their Private "
        "Creators. Sequences among them are entered; UIDs in them are mapped, dates treated as other dates, "
        "text reduced to a vocabulary."
    ),
    "RetainInstitutionIdentity": ("Name, address and department of institutions stay."),
}
_DUMMY_VRS: Final = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT")


_OF_MEMBERS: Final = {
    "Pseudonyms": {"D": "replaced by a keyed pseudonym; empty stays empty"},
    "CapAges": {"C": "kept up to 89 years; above that 090Y", "Z": "emptied"},
}
"""What a member of the request does, by the action that it takes."""


class Told(NamedTuple):
    """What becomes of one attribute, in words, and what says so."""

    tag: str
    keyword: str
    becomes: str
    rule: str


def told(request: Request) -> Iterator[Told]:
    """What becomes of every attribute of PS3.6 at the top level of an instance whose SOP Class is unknown."""
    table = compile_request(request)
    node = table.node("")
    for tag, element in sorted(standard.dictionary().items()):
        if tag >> 16 not in REMOVED_GROUPS and tag & 0xFFFF:
            yield Told(tag_text(tag), element.keyword, *_becomes(table, tag, node[tag]))
    edition = f"E.1-1 {request.dicom_version}"
    yield Told("(50xx,xxxx)", "curves", "removed", edition)
    regions = "CleanGraphics" in request.options
    overlays = "removed, but for those that mark regions" if regions else "removed"
    yield Told("(60xx,xxxx)", "overlays, also in unused bits of Pixel Data", overlays, edition)
    yield Told("(gggg,eeee)", "private attributes", *_private(request, edition))
    yield Told("(gggg,0000)", "group lengths", "removed", "PS3.5 7.2")
    yield Told("(0000,xxxx) (0002,xxxx) (0004,xxxx)", "in the data set", "removed", "PS3.15 E.1.1")


def _private(request: Request, edition: str) -> tuple[str, str]:
    if request.keep_private_tags:
        return "kept, UIDs in them mapped", "KeepPrivateTags"
    if "RetainSafePrivate" in request.options:
        return "removed, but for safe ones", f"{edition} RetainSafePrivate"
    return "removed", edition


def _becomes(table: DecisionTable, tag: int, decision: Decision | None) -> tuple[str, str]:
    code, rule = table.codes.get(tag, ("", ""))
    if decision is None:
        verdict = table.rules.verdict(tag)
        return "kept", "Keep" if verdict == "keep" else rule
    if decision.rule in ("Replace", "Remove", "Keep"):
        words = {"Replace": "replaced by the request's value", "Remove": "removed", "Keep": "kept"}[decision.rule]
        return words + (", with all that stands in it" if decision.frozen else ""), decision.rule
    if decision.rule == "mark":
        return "written as a mark", "mark"
    if decision.rule == ENCRYPT_FOR:
        return "removed, and originals are encrypted in its place", ENCRYPT_FOR
    if (tag in CONTENT and code == options.STRUCTURED) or code in (options.DATES, options.GRAPHICS):
        return (_CLEANED[code] if decision.action in ("C", "K") else _TOLD[decision.action]), rule
    if code == options.TEXT:
        return _text(table, tag, decision), rule
    if decision.rule in _OF_MEMBERS:
        return _OF_MEMBERS[decision.rule][decision.action], decision.rule
    if decision.keyword == "PatientName" and table.request.patient_name_template != FIELD:
        return "replaced by the request's template", decision.rule
    if decision.keyword in ("PatientName", "PatientID"):
        return "replaced by the patient's pseudonym", decision.rule
    if decision.keyword == "CodeMeaning":
        return "kept where the coding scheme is registered, else replaced by a dummy", decision.rule
    if decision.action == "K":
        return ("kept, what stands in it treated" if code and decision.vr == "SQ" else "kept"), rule
    if "/" in code and decision.act is None:
        return f"by its Type ({code}); {_TOLD[decision.action]} where the SOP Class is unknown", decision.rule
    return _TOLD[decision.action], decision.rule


def _text(table: DecisionTable, tag: int, decision: Decision) -> str:
    if decision.vr == "SQ":
        return "kept, what stands in it treated"
    if decision.action != "C":
        return _TOLD[decision.action]
    basic = table.basics[tag][0]
    return f"reduced to a vocabulary; where that leaves nothing, {_TOLD.get(basic, f'by its Type ({basic})')}"


def explain(request: Request) -> str:
    """The Conformance Statement of a request, in Markdown.

    Source: PS3.15 2026d E.1.3 (what it shall say), PS3.2 N.8.4.4.
    """
    table = compile_request(request)
    return "\n".join(line for section in _SECTIONS for line in section(table, request))


def difference(first: Request, second: Request, names: tuple[str, str]) -> str:
    """A Markdown table of the attributes that two requests treat unlike; `names` head its columns."""
    one, other = ({it[:2]: it[2:] for it in told(request)} for request in (first, second))
    lines = [f"| Tag | Attribute | {names[0]} | {names[1]} |", "| --- | --- | --- | --- |"]
    for key in sorted(one.keys() | other.keys()):
        if one[key][0] != other[key][0]:
            lines.append(f"| {key[0]} | {key[1]} | {one[key][0]} | {other[key][0]} |")
    lines += [
        f"| | {member} | {_said(mine)} | {_said(theirs)} |"
        for (member, mine), theirs in zip(first.members().items(), second.members().values(), strict=True)
        if mine != theirs
    ]
    return "\n".join(lines) if len(lines) > 2 else "The two treat every attribute alike."


def _said(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(fingerprint(it) if str(it).startswith(_PEM) else str(it) for it in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(it)}" for name, it in value.items()) or "none"
    return str(value).lower() if isinstance(value, bool) else f"{value}" if value else "none"


# ------------------------------------------------------------------------------------------------------- sections


def _head(table: DecisionTable, request: Request) -> Iterator[str]:
    yield f"# Conformance Statement: de-identification by dicomveil (PS3.15 {request.dicom_version}, recipe {RECIPE})"
    yield ""
    for member, value in request.members().items():
        yield f"- {member}: {_said(value)}"
    yield f"- fingerprint of request, tables and recipe: {table.fingerprint}"
    yield ""
    yield "## What is claimed"
    yield ""
    codes = standard.profile_codes()
    if table.claims:
        yield "De-identification Method Code Sequence (0012,0064) gets an Item for each of:"
        yield ""
        for claim in table.claims:
            yield f"- {codes[claim].value} {codes[claim].meaning}"
        for option, breach in claims.broken(request).items():
            yield f"- but none for {option}, which would retain what {breach.line} changes: {breach.row}"
    else:
        text = marks.method_text(request.dicom_version, RECIPE, (), table.fingerprint)
        yield f'No profile. De-identification Method (0012,0063) gets "{text}", because of:'
        yield ""
        for breach in claims.breaches(request):
            yield f"- {breach.line}: {breach.row}"
    yield ""
    yield f"Longitudinal Temporal Information Modified (0028,0303) is {claims.longitudinal(request)}."
    yield ""


def _manners(table: DecisionTable, request: Request) -> Iterator[str]:
    if request.options:
        yield "## How the Options are carried out"
        yield ""
        for option in request.options:
            yield f"- {option}: {_MANNER[option]}" + (f" {_days(request)}" if option == options.MODIFIED else "")
        yield ""


def _days(request: Request) -> str:
    """How the days are found by which dates move (PS3.15 E.3.6: the manner of modification is described)."""
    rule = request.date_shift
    if rule.anchor_to:
        return f"The days are those by which a patient's anchor date comes to lie on {rule.anchor_to}."
    return f"The days are derived from the key, {rule.fewest} to {rule.most} back."


def _integrity(table: DecisionTable, request: Request) -> Iterator[str]:
    yield "## How far references hold"
    yield ""
    yield "UIDs and patients' pseudonyms are derived from the original value under a key (HMAC-SHA256): one key, one"
    yield "scope. Under the same key the same original gives the same new value in every attribute, instance, study and"
    yield "run, for ever; under another key, or none, results can't be linked. UIDs that PS3.6 registers stay."
    yield "References lead to the same instances as before, also out of the study."
    if request.pseudonyms:
        yield f"So are those of {' and '.join(request.pseudonyms)}."
    for manner, roles in (("stay as they are", request.kept_roles), ("become the request's value", request.given)):
        if roles:
            yield f"Identifiers that {manner}, in references too: {', '.join(sorted(roles))}."
    yield ""
    yield "## What is inserted"
    yield ""
    yield "Patient Identity Removed (0012,0062) YES, De-identification Method (0012,0063) and its Code Sequence"
    yield "(0012,0064) beside what earlier steps have written, Longitudinal Temporal Information Modified (0028,0303),"
    yield "and the study's Patient ID where an instance lacks it. File Meta Information and preamble are new."
    yield from _encryption(request)
    yield ""
    yield "## Dummies"
    yield ""
    yield "The same for all patients, by VR:"
    yield ""
    for vr in _DUMMY_VRS:
        yield f"- {vr}: {dummies.dummy_bytes(0, vr).decode()}"
    yield "- numbers and bytes: 0. A UI is mapped instead. A sequence gets one Item that its IODs allow."
    yield "- Reason for the Attribute Modification (0400,0565): COERCE, one of its Defined Terms"
    yield ""


def _encryption(request: Request) -> Iterator[str]:
    """PS3.15 E.1.3: which attributes are encrypted, in which transfer syntax, and how keys are chosen."""
    if not request.encrypt_for:
        yield "Nothing is encrypted: there is no Encrypted Attributes Sequence."
        return
    if request.encrypt_attributes:
        what = ", ".join(name_of(tag) for tag in request.encrypt_attributes) + ", where they are changed"
    else:
        what = "every attribute of the top level that is changed or removed, but bulk, sequences and private elements"
    yield ""
    yield "## What is encrypted"
    yield ""
    yield f"The originals of {what}, in one Item of Encrypted Attributes Sequence (0400,0500): Modified Attributes"
    yield "Sequence (0400,0550) with the Specific Character Set, in Explicit VR Little Endian (1.2.840.10008.1.2.1), as"
    yield "CMS EnvelopedData with AES-256 in CBC mode. A content key is drawn at random for each instance and sealed by"
    yield "RSA (PKCS1-v1_5) for each certificate of the request, by SHA-256:"
    yield ""
    for certificate in request.encrypt_for:
        yield f"- {fingerprint(certificate)}"


def _restrictions(table: DecisionTable, request: Request) -> Iterator[str]:
    yield "## Restrictions"
    yield ""
    yield "Pixels are never changed: text burned into them stays. Instances whose pixels may speak are counted and"
    yield f"told (BurnedIn: {request.burned_in}). Comments in compressed bitstreams: {request.bitstream_comments}."
    yield f"Encapsulated documents: {_document(table)}."
    yield f"SOP Classes that PS3.6 doesn't register: {request.private_sop_class}."
    yield from claims.unnamed(request.dicom_version)
    every = (option for option in schema.OPTIONS if standard.has_option(request.dicom_version, option))
    yield f"Options that can be asked for under this edition: {', '.join(every)}."
    yield f"Options that can't: {', '.join(schema.PIXEL_OPTIONS)}."
    yield ""
    if "RetainSafePrivate" in request.options:
        yield "## Private elements that stay"
        yield ""
        yield "| Group | Private Creator | Element | VR | Meaning |"
        yield "| --- | --- | --- | --- | --- |"
        for (group, creator, low), it in sorted(standard.safe_private(request.dicom_version).items()):
            yield f"| {group:04X} | {creator} | xx{low:02X} | {it.vr} | {it.meaning} |"
        for ours in request.safe_private:
            yield f"| {ours.tag >> 16:04X} | {ours.creator} | xx{ours.tag & 0xFF:02X} | | of the request |"
        yield ""


def _document(table: DecisionTable) -> str:
    """What becomes of Encapsulated Document, which editions before 2023b don't name."""
    becomes, _ = _becomes(table, DOCUMENT, table.node("")[DOCUMENT])
    return "replaced by an empty one of their type" if becomes == _TOLD["D"] else becomes


def _attributes(table: DecisionTable, request: Request) -> Iterator[str]:
    yield "## Attributes"
    yield ""
    yield "It holds at every depth, but for the Patient's Name and what Replace writes: in Items these get the table's"
    yield "action. Attributes that are not listed and stand in PS3.6 are kept; what stands in no dictionary is removed."
    yield ""
    lines = [
        path.text() for path in (*(it.path for it in request.replace), *request.remove, *request.keep) if path.steps
    ]
    if lines:
        yield f"The request treats by path: {', '.join(lines)}."
        yield ""
    yield "| Tag | Attribute | What becomes of it | Rule |"
    yield "| --- | --- | --- | --- |"
    for it in told(request):
        if it.becomes != "kept" or it.rule:
            yield f"| {it.tag} | {it.keyword} | {it.becomes} | {it.rule} |"


_SECTIONS: Final = (_head, _manners, _integrity, _restrictions, _attributes)

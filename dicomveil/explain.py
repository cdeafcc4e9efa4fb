"""What a request does to each attribute, and which row says so, for a person to read."""

from collections.abc import Iterator
from typing import Final

from dicomveil import standard
from dicomveil.compile import RECIPE, REMOVED_GROUPS, compile_request
from dicomveil.decision import ENTER, Decision
from dicomveil.request import Request
from dicomveil.stream import tag_text

_TOLD: Final = {
    "X": "removed",
    "Z": "emptied",
    "D": "replaced by a dummy",
    "U": "UIDs mapped",
    "K": "kept",
}
_COMPOUND: Final = "by its Type"


def explain(request: Request) -> str:
    """A Markdown table of every attribute that isn't simply kept, and what becomes of the rest."""
    table = compile_request(request)
    lines = [
        f"# What this request does (PS3.15 {request.dicom_version}, recipe {RECIPE})",
        "",
        *(
            f"- {member}: {str(value).lower() if isinstance(value, bool) else value}"
            for member, value in request.members().items()
        ),
        f"- fingerprint of request, tables and recipe: {table.fingerprint}",
        "",
        "It holds at every depth. Attributes that are not listed and stand in PS3.6 are kept; what stands in no",
        "dictionary, private attributes, curves and overlays are removed.",
        "",
        "| Tag | Attribute | What becomes of it | Rule |",
        "| --- | --- | --- | --- |",
    ]
    lines += (f"| {tag} | {name} | {told} | {rule} |" for tag, name, told, rule in _rows(request))
    return "\n".join(lines)


def _rows(request: Request) -> Iterator[tuple[str, str, str, str]]:
    codes = {row.tag: row.action for row in standard.supplement()}
    codes |= {row.tag: row.basic for row in standard.rows(request.dicom_version)}
    table = compile_request(request)
    node = table.node("")
    for tag, element in sorted(standard.dictionary().items()):
        if tag >> 16 in REMOVED_GROUPS or not tag & 0xFFFF:
            continue
        decision = node[tag]
        code = codes.get(tag_text(tag), "")
        if decision is not None and decision is not ENTER and decision.rule:
            yield tag_text(tag), element.keyword, _told(decision, code), decision.rule
        elif decision is ENTER and code:
            yield (
                tag_text(tag),
                element.keyword,
                "kept, what stands in it treated",
                f"E.1-1 {request.dicom_version} {code}",
            )
    edition = f"E.1-1 {request.dicom_version}"
    yield "(50xx,xxxx)", "curves", "removed", edition
    yield "(60xx,xxxx)", "overlays, also in unused bits of Pixel Data", "removed", edition
    yield "(gggg,eeee)", "private attributes", "removed", edition
    yield "(gggg,0000)", "group lengths", "removed", "PS3.5 7.2"
    yield "(0000,xxxx) (0002,xxxx) (0004,xxxx)", "in the data set", "removed", "PS3.15 E.1.1"


def _told(decision: Decision, code: str) -> str:
    if decision.rule == "mark":
        return "written as a mark"
    if "/" in code and decision.vr != "PN" and decision.act is None:
        return f"{_COMPOUND} ({code}); {_TOLD[decision.action]} where the SOP Class is unknown"
    if decision.keyword in ("PatientName", "PatientID"):
        return "replaced by the patient's pseudonym"
    if decision.keyword == "CodeMeaning":
        return "kept where the coding scheme is registered, else replaced by a dummy"
    return _TOLD[decision.action]

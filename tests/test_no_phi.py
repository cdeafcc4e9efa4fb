"""Canaries: marked values planted in every place an instance has, sought in all that comes out, also when it fails.

A mark is text or bytes that stands nowhere by chance. It's planted only where the decision table says that the value
goes: what is kept on purpose isn't searched for.
"""

import copy
import io
import itertools
import logging
import pickle
import struct
import traceback
import zlib
from collections.abc import Callable, Iterator

import pydicom
import pytest

from dicomveil import Deidentifier, standard
from dicomveil.body import parse_request
from dicomveil.compile import compile_request
from dicomveil.decision import Node
from dicomveil.errors import DicomveilError, KeyRefused, RequestError, Unsuitable
from dicomveil.keys import Keys, parse_key
from dicomveil.request import Request
from dicomveil.rewrite import Rewriter
from dicomveil.scan import scan_instance
from dicomveil.stream import BytesSource
from dicomveil.study import Identities, build_study_map, gather, patient_links, uid_links
from dicomveil.testing import BIG, CT, DEFLATED, EXPLICIT, IMPLICIT, JPEG, UNDEFINED, Syntax, minimal, part10
from tests.corpora import KEY

ENGINE, KEYS = Deidentifier(key=KEY), Keys(KEY)
E, I = Syntax(EXPLICIT), Syntax(IMPLICIT)
SYNTAXES = {"explicit": EXPLICIT, "implicit": IMPLICIT, "big endian": BIG, "deflated": DEFLATED}
MARK, UID_MARK, DATE_MARK, NUMBER_MARK = "Qzanary", "1.2.752.4711.4711", "19110311", 0x5AC3
MARKS = [
    MARK.encode(), MARK.lower().encode(), MARK.upper().encode(), MARK.encode("utf-16-le"), UID_MARK.encode(),
    DATE_MARK.encode(), struct.pack("<HH", NUMBER_MARK, NUMBER_MARK), struct.pack(">HH", NUMBER_MARK, NUMBER_MARK),
]  # fmt: skip
VRS = [
    "AE",
    "AS",
    "AT",
    "CS",
    "DA",
    "DS",
    "DT",
    "FD",
    "FL",
    "IS",
    "LO",
    "LT",
    "OB",
    "OD",
    "OF",
    "OL",
    "OV",
    "OW",
    "PN",
    "SH",
    "SL",
    "SS",
    "ST",
    "SV",
    "TM",
    "UC",
    "UI",
    "UL",
    "UN",
    "UR",
    "US",
    "UT",
    "UV",
]
REPORTS = "1.2.840.10008.5.1.4.1.1.88.22"
RT_PLANS = "1.2.840.10008.5.1.4.1.1.481.5"
CODE_MEANING = 0x00080104  # kept where its scheme is registered
UNKNOWN = "1.2.840.10008.5.1.4.1.1.9999"  # of the Standard's root, in no table


def marked(vr: str) -> bytes:
    """A value of the VR that bears a mark."""
    if vr in ("DA", "DT", "TM", "AS"):
        return (DATE_MARK + ("101112" if vr == "DT" else "")).encode()
    if vr == "UI":
        return UID_MARK.encode() + b"\0"
    if vr in ("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "OB", "OW", "OF", "OD", "OL", "OV"):
        return struct.pack("<HHHH", *[NUMBER_MARK] * 4)
    return MARK.encode() + b" "


def protected(node: Node) -> Iterator[tuple[int, str]]:
    """Every attribute of the dictionary whose value the table takes away, with its VR."""
    for tag, element in standard.dictionary().items():
        decision = node[tag]
        taken = decision is not None and decision.action in "XZDU" and decision.rule != "mark"
        if taken and tag >> 16 > 4 and tag & 0xFFFF and tag != CODE_MEANING:
            yield tag, element.vr.split(" ")[0]


def identity(data_set: dict[int, bytes], syntax: Syntax, sop_class: str) -> bytes:
    """The elements of a top level, with what an instance can't do without."""
    needed = {0x00080018: UID_MARK + ".1", 0x0020000D: UID_MARK + ".2", 0x0020000E: UID_MARK + ".3"}
    data_set |= {tag: syntax.element(tag, "UI", uid) for tag, uid in needed.items()}
    data_set |= {0x00080016: syntax.element(0x00080016, "UI", sop_class)}
    return b"".join(element for _, element in sorted(data_set.items()))


def everything(syntax: Syntax, node: Node, inside: Node) -> dict[int, bytes]:
    """A marked value in each protected attribute, at the top, and two sequences deep in a sequence that is kept."""
    elements = {}
    for tag, vr in protected(node):
        item = syntax.element(0x00100010, "PN", marked("PN"))
        elements[tag] = syntax.sequence(tag, [item]) if vr == "SQ" else syntax.element(tag, vr, marked(vr))
    nested = b"".join(
        syntax.sequence(tag, [syntax.element(0x00100010, "PN", marked("PN"))], True)
        if vr == "SQ"
        else syntax.element(tag, vr, marked(vr))
        for tag, vr in protected(inside)
    )
    kept = 0x00081115  # Referenced Series Sequence
    elements[kept] = syntax.sequence(kept, [nested, syntax.sequence(kept, [nested], True, item_undefined=True)], True)
    return elements


def private(syntax: Syntax) -> dict[int, bytes]:
    """Marks in private elements of every VR, under creators that bear one, in sequences and under UN."""
    elements = {
        0x00290010: syntax.element(0x00290010, "LO", MARK + " 1.0"),
        0x00090011: syntax.element(0x00090011, "LO", MARK),
    }
    for number, vr in enumerate(VRS):
        tag = 0x00291000 + number
        elements[tag] = syntax.element(tag, vr, marked(vr))
    inner = syntax.element(0x00290010, "LO", MARK) + syntax.element(0x00291001, "LO", MARK)
    elements[0x00291080] = syntax.sequence(0x00291080, [inner, inner])
    elements[0x00291081] = syntax.sequence(0x00291081, [inner], True, item_undefined=True)
    elements[0x00291082] = syntax.sequence(0x00291082, [I.item(I.element(0x00100010, "PN", MARK))], True, "UN")
    elements[0x00291083] = syntax.element(0x00291083, "UN", I.item(I.element(0x00100010, "PN", MARK)))
    return elements


def elsewhere(syntax: Syntax) -> dict[int, bytes]:
    """Marks in what no table lists one by one: overlays, curves, padding, unknown and misplaced elements."""
    places = [
        (0x00000110, "LO"), (0x00021234, "LO"), (0x00041130, "CS"), (0x00080000, "UL"), (0x00089998, "LO"), (0x50000010, "OW"),
        (0x50FE2500, "LO"), (0x60000022, "LO"), (0x60023000, "OW"), (0x60044000, "LT"), (0x60FE1500, "LO"), (0x7FE10010, "OB"),
        (0x7FE20010, "LO"), (0xFFFCFFFC, "OB"),
    ]  # fmt: skip
    return {tag: syntax.element(tag, vr, marked(vr)[: 4 if vr == "UL" else None]) for tag, vr in places}


def marks_in(data: bytes) -> list[bytes]:
    return [mark for mark in MARKS if mark in data]


def inflated(data: bytes) -> bytes:
    """A file's bytes, and those its data set inflates to."""
    meta = 144 + int.from_bytes(data[140:144], "little")
    return data[:meta] + zlib.decompressobj(-15).decompress(data[meta:]) if DEFLATED.encode() in data[:meta] else data


@pytest.mark.parametrize("uid", SYNTAXES.values(), ids=SYNTAXES)
@pytest.mark.parametrize("sop_class", [CT, REPORTS, RT_PLANS, UNKNOWN], ids=["CT", "report", "RT plan", "unknown"])
def test_no_marked_value_comes_out(uid: str, sop_class: str) -> None:
    """No value of any attribute that the profile protects stands in the output, wherever it stood (PS3.15 E.1.1)."""
    syntax, node = Syntax(uid), compile_request(Request(private_sop_class="strip")).node(sop_class)
    data_set = elsewhere(syntax) | everything(syntax, node, node.child(0x00081115)) | private(syntax)
    data = part10(identity(data_set, syntax, sop_class), uid, sop_class, preamble=MARK.encode().ljust(128) + b"DICM")
    assert len(marks_in(inflated(data))) >= 5
    out = Deidentifier(Request(private_sop_class="strip"), key=KEY).rewrite(data)
    assert marks_in(inflated(out)) == []
    assert pydicom.dcmread(io.BytesIO(out)).PatientIdentityRemoved == "YES"


def test_nothing_of_the_head_comes_out() -> None:
    """Preamble and File Meta Information are ours alone: no titles, addresses or private information (E.1.1 item 7)."""
    e = E.element
    meta = e(0x00020010, "UI", EXPLICIT) + e(0x00020012, "UI", UID_MARK) + e(0x00020013, "SH", MARK)
    for tag in (0x00020016, 0x00020017, 0x00020018):
        meta += e(tag, "AE", MARK)
    for tag in (0x00020026, 0x00020027, 0x00020028):
        meta += e(tag, "UR", MARK + ":")
    meta += e(0x00020031, "OB", MARK) + e(0x00020100, "UI", UID_MARK) + e(0x00020102, "OB", MARK)
    data = MARK.encode().ljust(128) + b"DICM" + meta + minimal(E)
    assert marks_in(ENGINE.rewrite(data)) == []


def test_nothing_hides_in_or_behind_pixels() -> None:
    """Bytes behind the last pixel are no pixels, and what is in no fragment is no image."""
    pixels = E.element(0x7FE00010, "OW", b"\1\2\3\4\5\6\7\x08" + MARK.encode())
    assert marks_in(ENGINE.rewrite(part10(minimal(E, (0x7FE00010, pixels))))) == []
    fragments = E.item(b"") + E.item(b"\xff\xd8\xff\xd9") + E.item(E.element(0x00100010, "PN", MARK), True)
    encapsulated = E.element(0x7FE00010, "OB", fragments + E.tag(0xFFFEE0DD) + bytes(4), UNDEFINED)
    with pytest.raises(Unsuitable):
        ENGINE.rewrite(part10(minimal(E, (0x7FE00010, encapsulated)), JPEG))


def with_elements(*more: tuple[int, bytes]) -> bytes:
    """A CT image that bears a mark wherever it has one to bear."""
    marks = [(0x00100010, E.element(0x00100010, "PN", MARK)), (0x00100020, E.element(0x00100020, "LO", MARK))]
    uids = [(0x0020000D, UID_MARK + ".2"), (0x0020000E, UID_MARK + ".3"), (0x00080018, UID_MARK + ".1")]
    return part10(minimal(E, *marks, *[(tag, E.element(tag, "UI", uid)) for tag, uid in uids], *more))


OTHER = E.element(0x0020000D, "UI", UID_MARK + ".9")
FAILURES: dict[str, Callable[[], object]] = {
    "cut": lambda: ENGINE.rewrite(with_elements()[:-4]),
    "text behind": lambda: ENGINE.rewrite(with_elements() + MARK.encode() * 5),
    "no DICOM": lambda: ENGINE.rewrite(MARK.encode() * 100),
    "study twice": lambda: ENGINE.rewrite(with_elements((0x0020000D, E.element(0x0020000D, "UI", UID_MARK) + OTHER))),
    "two studies": lambda: ENGINE.rewrite(with_elements((0x0020000D, E.element(0x0020000D, "UI", f"{UID_MARK}\\{UID_MARK}.2")))),
    "no series": lambda: ENGINE.rewrite(with_elements((0x0020000E, b""))),
    "private SOP Class": lambda: ENGINE.rewrite(with_elements((0x00080016, E.element(0x00080016, "UI", UID_MARK)))),
    "unknown transfer syntax": lambda: ENGINE.rewrite(part10(minimal(E), UID_MARK)),
    "VR": lambda: ENGINE.rewrite(with_elements((0x00080060, E.tag(0x00080060) + MARK.encode() + b"   "))),
    "length": lambda: ENGINE.rewrite(with_elements((0x00080060, E.element(0x00080060, "LO", MARK, 9999)))),
    "no Item": lambda: ENGINE.rewrite(with_elements((0x00081140, E.element(0x00081140, "SQ", MARK + MARK)))),
    "sequence as text": lambda: ENGINE.rewrite(with_elements((0x00081140, E.element(0x00081140, "LO", MARK)))),
    "character set": lambda: ENGINE.rewrite(with_elements((0x00080005, E.element(0x00080005, "CS", MARK)), (0x00100020, E.element(0x00100020, "LO", MARK + "é")))),
    "deflate": lambda: ENGINE.rewrite(part10(b"", DEFLATED)[:-2] + MARK.encode() * 9),
    "patient conflict": lambda: conflict(),
    "request": lambda: parse_request(f"Supplement: {MARK}\nDicomVersion: {DATE_MARK}"),
    "request's syntax": lambda: parse_request("{: " + MARK),
    "key": lambda: parse_key(MARK.encode() * 3),
    "short key": lambda: Keys(MARK.encode()),
    "key is no text": lambda: parse_key(b"\xff" + MARK.encode()),
}  # fmt: skip


def conflict() -> None:
    scans = [
        scan_instance(BytesSource(with_elements((0x00100020, E.element(0x00100020, "LO", MARK + n))))) for n in "12"
    ]
    study_map = build_study_map(scans, Identities(KEYS, Request()))
    assert marks_in(repr(study_map).encode() + study_map.encode()) == []
    data = BytesSource(with_elements())
    Rewriter(compile_request(Request()), KEYS).rewrite(data, scans[0], study_map)


@pytest.mark.parametrize("fail", FAILURES.values(), ids=FAILURES)
def test_failures_name_places_and_never_values(fail: Callable[[], object], caplog: pytest.LogCaptureFixture) -> None:
    """What goes wrong is told with tag path, offset and rule; what stood there is told nowhere."""
    caplog.set_level(logging.DEBUG)
    try:
        fail()
    except DicomveilError as error:
        told = [str(error), repr(error), str(vars(error)), traceback.format_exc(), str(error.args), caplog.text]
        if not isinstance(error, KeyRefused | RequestError):
            told.append(repr(pickle.loads(pickle.dumps(error))))
        chain = itertools.takewhile(bool, [error.__cause__, error.__context__])
        told += [repr(cause) for cause in chain]
        assert [mark for text in told for mark in marks_in(text.encode())] == []


def test_what_is_shown_of_values_is_nothing() -> None:
    """Printing what the engine passes around, as a log or a debugger's message would, shows no original."""
    data = with_elements((0x00081140, E.sequence(0x00081140, [E.element(0x00081155, "UI", UID_MARK)])))
    source = BytesSource(data)
    scan = scan_instance(source)
    study_map = build_study_map((scan,), Identities(KEYS, Request()))
    rewritten = Rewriter(compile_request(Request()), KEYS).rewrite(source, scan, study_map)
    shown = [
        scan,
        study_map,
        source,
        rewritten,
        KEYS,
        ENGINE,
        *uid_links([scan], study_map, Identities(KEYS, Request())),
        *patient_links([scan], study_map, Identities(KEYS, Request())),
        Identities(KEYS, Request()).patient_of(scan),
        gather([scan], Identities(KEYS, Request())),
    ]
    shown += [rewritten.changes, rewritten.counts, rewritten.place.name]
    assert [type(it).__name__ for it in shown if marks_in(repr(it).encode())] == []


def test_the_key_stays_where_it_is() -> None:
    """A key is shown nowhere and pickled nowhere."""
    with pytest.raises(TypeError):
        pickle.dumps(KEYS)
    with pytest.raises(TypeError):
        pickle.dumps(ENGINE)
    assert KEY.hex() not in repr(KEYS) + repr(copy.copy(KEYS.fingerprint)) + repr(ENGINE)

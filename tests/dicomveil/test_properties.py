"""What must hold for every data set: random ones, in random encodings, also broken."""

import io
import struct

import pydicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomveil import Deidentifier, standard
from dicomveil.compile import compile_request
from dicomveil.decision import ENTER, Node
from dicomveil.errors import Unsuitable
from dicomveil.keys import Keys
from dicomveil.part10 import open_instance
from dicomveil.request import Request
from dicomveil.rewrite import edited
from dicomveil.scan import scan_instance
from dicomveil.stream import BytesSource, Window
from dicomveil.study import Identities, StudyMap, build_study_map
from dicomveil.testing import BIG, DEFLATED, EXPLICIT, IMPLICIT, Syntax, minimal, part10
from dicomveil.uids import new_uid
from dicomveil.walk import Facts, Mapping, Walk
from tests.corpora import KEY

ENGINE, KEYS = Deidentifier(key=KEY), Keys(KEY)
EVERY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

LEAVES = [
    (0x00080060, "CS"), (0x00080080, "LO"), (0x00081030, "LO"), (0x00080020, "DA"), (0x00100010, "PN"), (0x00100020, "LO"),
    (0x00180050, "DS"), (0x00081155, "UI"), (0x00081150, "UI"), (0x00200052, "UI"), (0x00291010, "LO"), (0x00280010, "US"),
    (0x0040A160, "UT"), (0x00080104, "LO"), (0x00080102, "SH"), (0x00420011, "OB"),
]  # fmt: skip
SEQUENCES = [0x00081140, 0x00081115, 0x00089215, 0x00400275, 0x00291020, 0x52009230, 0x0040A730, 0x00082112]
TEXT = st.text("ABCxyz0189.^ ", max_size=12)


@st.composite
def data_sets(draw, syntax: Syntax, depth: int = 0) -> bytes:
    """An encoded data set or Item: some leaves, and sequences to a depth of three, lengths defined or not."""
    elements = {}
    for tag, vr in draw(st.lists(st.sampled_from(LEAVES), max_size=6, unique=True)):
        value = draw(st.integers(0, 9)) if vr == "US" else draw(TEXT)
        elements[tag] = syntax.element(
            tag, vr, value if isinstance(value, int) else value.strip() if vr == "UI" else value
        )
    for tag in draw(st.lists(st.sampled_from(SEQUENCES), max_size=2, unique=True)) if depth < 3 else []:
        items = draw(st.lists(data_sets(syntax, depth + 1), max_size=3))
        elements[tag] = syntax.sequence(tag, items, draw(st.booleans()), item_undefined=draw(st.booleans()))
    return b"".join(element for _, element in sorted(elements.items()))


@st.composite
def files(draw) -> bytes:
    """A whole instance in any of the four syntaxes without compression."""
    uid = draw(st.sampled_from([EXPLICIT, IMPLICIT, BIG, DEFLATED]))
    syntax = Syntax(uid)
    more = [
        (
            tag,
            syntax.sequence(
                tag,
                draw(st.lists(data_sets(syntax), max_size=2)),
                draw(st.booleans()),
                item_undefined=draw(st.booleans()),
            ),
        )
        for tag in draw(st.lists(st.sampled_from(SEQUENCES), max_size=3, unique=True))
    ]
    return part10(minimal(syntax, *more), uid)


@EVERY
@given(files())
def test_an_identity_table_changes_no_byte(data: bytes) -> None:
    """Where every decision is to keep, the data set comes out byte for byte."""
    instance = open_instance(BytesSource(data))
    keep = Node(lambda tag: (ENTER if tag in SEQUENCES else None, True), lambda tag, creator: keep)
    same = Mapping(str)
    walk = Walk(
        Window(instance.source),
        Facts(
            same,
            lambda role: same,
            "",
            "",
            lambda *it: "",
            False,
            0,
            lambda word: False,
            lambda label, number: number,
            lambda uid: False,
        ),
    )
    keep_private(walk, instance, keep)
    assert b"".join(edited(instance.source, instance.begin, instance.source.size, walk.edits)) == instance.source.read(
        instance.begin, instance.source.size
    )


def keep_private(walk: Walk, instance, node: Node) -> None:
    """Walk, and forget the removal of private elements, which no table decides."""
    walk.run(instance.begin, instance.encoding, node)
    walk.edits[:] = [edit for edit in walk.edits if edit[6] is None or edit[6].rule[:4] != "E.1-"]
    walk.edits[:] = []


@EVERY
@given(files())
def test_the_output_is_sound(data: bytes) -> None:
    """The output reads in the same syntax, holds no private element and no original UID, and does not change again."""
    out = ENGINE.rewrite(data)
    ds = pydicom.dcmread(io.BytesIO(out))
    assert not any(element.tag.is_private for element in ds.iterall())
    assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID
    assert b"1.2.3.4" not in open_instance(BytesSource(out)).source.read(0, 1 << 20).replace(b"1.2.840", b"")
    assert ENGINE.rewrite(data) == out


@EVERY
@given(files(), st.data())
def test_damage_is_set_aside_and_nothing_worse(data: bytes, draw: st.DataObject) -> None:
    """Whatever happens to a file's bytes, it is de-identified or set aside, and no other error comes out."""
    broken = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(132, len(data) - 1))
        broken[at] = draw.draw(st.integers(0, 255))
    try:
        ENGINE.rewrite(bytes(broken[: draw.draw(st.integers(1, len(data)))]))
    except Unsuitable as unsuitable:
        assert unsuitable.reason != "internal"


unregistered = st.text(max_size=70).filter(lambda uid: uid not in standard.registered_uids())


@EVERY
@given(unregistered, unregistered)
def test_new_uids_are_valid_and_distinct(one: str, other: str) -> None:
    """Different originals get different UIDs, each valid and of at most 64 characters, the same each time."""
    assert (new_uid(KEYS, one) == new_uid(KEYS, other)) == (one == other)
    assert pydicom.uid.UID(new_uid(KEYS, one)).is_valid
    number = int(new_uid(KEYS, one)[5:])
    assert number >> 76 & 15 == 8 and number >> 62 & 3 == 2


@EVERY
@given(st.lists(files(), min_size=1, max_size=3))
def test_a_study_map_survives_its_encoding(data: list[bytes]) -> None:
    """What a study settles is the same on every worker, in whatever order its instances come."""
    scans = [scan_instance(BytesSource(instance)) for instance in data]
    study_map = build_study_map(scans, Identities(KEYS, Request()))
    assert StudyMap.decode(study_map.encode()) == study_map
    assert build_study_map(reversed(scans), Identities(KEYS, Request())) == study_map


@EVERY
@given(st.integers(0x00080000, 0xFFFC_FFFF), st.sampled_from(["1.2.840.10008.5.1.4.1.1.2", "1.2.3"]))
def test_every_tag_has_one_decision(tag: int, sop_class: str) -> None:
    """There is exactly one decision for any tag at any depth, and asking again gives the same."""
    table = compile_request(Request())
    for node in (table.node(sop_class), table.node(sop_class).child(0x00081140)):
        first, again = node[tag], node[tag]
        assert first is again or (first is not None and again is not None and first.rule == again.rule)


def test_lengths_are_written_again() -> None:
    """Sequences and Items around a changed element carry their new lengths, so that other readers agree."""
    e = Syntax(EXPLICIT)
    inner = e.sequence(0x00081140, [e.element(0x00081155, "UI", "1.2.3")])
    out = ENGINE.rewrite(part10(minimal(e, (0x00081115, e.sequence(0x00081115, [inner])))))
    ds = pydicom.dcmread(io.BytesIO(out))
    uid = ds.ReferencedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPInstanceUID
    at = out.index(struct.pack("<HH2s", 0x0008, 0x1115, b"SQ"))
    element = 8 + len(uid) + len(uid) % 2
    assert struct.unpack("<I", out[at + 8 : at + 12])[0] == 8 + 12 + 8 + element

"""Random data sets, laid out in every encoding: the engine does what a plain walk does, however lengths are written."""

import io
import warnings

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import config
from pydicom.datadict import dictionary_has_tag
from pydicom.dataset import Dataset

from dicomveil import Deidentifier, standard
from dicomveil.compile import compile_request
from dicomveil.keys import Keys
from dicomveil.request import Request
from dicomveil.scan import scan_instance
from dicomveil.stream import BytesSource
from dicomveil.study import Identities, build_study_map
from dicomveil.testing import BIG, CT, DEFLATED, EXPLICIT, IMPLICIT, Syntax, minimal, part10
from tests.corpora import KEY
from tests.oracles.pydicom_walk import deidentify
from tests.oracles.test_against_pydicom import differences

ENGINE, KEYS, TABLE = Deidentifier(key=KEY), Keys(KEY), compile_request(Request())
RANDOM = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CLASSES = [CT, "1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.4.1"]
VALUES = {
    "CS": "BODOX", "LO": "Bodox B", "SH": "Bodox", "PN": "Bodox^Kalex", "LT": "Bodox was here", "UT": "Bodox", "DA": "19530417",
    "TM": "101112", "DT": "19530417101112", "UI": "1.2.3.4.7", "IS": "4711", "DS": "47.11", "AE": "BODOX", "AS": "047Y",
    "ST": "Bodox", "UC": "Bodox", "UR": "http://bodox",
}  # fmt: skip
# Not what an instance is told apart by, and not what tells how the rest is read.
FIXED = {0x00080005, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E, 0x00420011, 0x00080102, 0x00100020}
LEAVES = [
    (tag, element.vr)
    for tag, element in standard.dictionary().items()
    if element.vr in VALUES
    and dictionary_has_tag(tag)
    and 0x0007 < tag >> 16 < 0x5000
    and tag >> 16 != 0x0028
    and tag not in FIXED
    and tag & 0xFFFF
]
# What pydicom doesn't know yet, it can't tell from bytes in implicit VR.
SEQUENCES = [
    tag
    for tag, element in standard.dictionary().items()
    if element.vr == "SQ" and 0x0007 < tag >> 16 < 0x6000 and dictionary_has_tag(tag)
]

Tree = dict[int, "str | list[Tree]"]  # a VR's name, or Items


@st.composite
def trees(draw, depth: int = 0) -> Tree:
    """A data set's content: the VR of each leaf, the Items of each sequence."""
    tree: Tree = dict(draw(st.lists(st.sampled_from(LEAVES), max_size=8)))
    if depth < 3:
        for tag in draw(st.lists(st.sampled_from(SEQUENCES), max_size=3)):
            tree[tag] = draw(st.lists(trees(depth + 1), max_size=2))
    return tree


class Layout:
    """Lays out a tree; `undefined` says of sequences and of Items whether their length is."""

    def __init__(self, uid: str, undefined: tuple[bool, bool] = (False, False)) -> None:
        self.syntax, self.undefined = Syntax(uid), undefined

    def data_set(self, tree: Tree) -> bytes:
        return b"".join(self.element(tag, tree[tag]) for tag in sorted(tree))

    def element(self, tag: int, what: "str | list[Tree]") -> bytes:
        if isinstance(what, str):
            return self.syntax.element(tag, what, VALUES[what])
        items = [self.data_set(item) for item in what]
        return self.syntax.sequence(tag, items, self.undefined[0], item_undefined=self.undefined[1])

    def file(self, tree: Tree, sop_class: str) -> bytes:
        own = {tag: self.element(tag, what) for tag, what in tree.items()}
        own[0x00080016] = self.syntax.element(0x00080016, "UI", sop_class)
        return part10(minimal(self.syntax, *own.items()), self.syntax.uid, sop_class)


def read(data: bytes) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
        ds = pydicom.dcmread(io.BytesIO(data))
        ds.walk(lambda *_: None)
    return ds


@RANDOM
@given(
    trees(),
    st.sampled_from([EXPLICIT, IMPLICIT, BIG, DEFLATED]),
    st.tuples(st.booleans(), st.booleans()),
    st.sampled_from(CLASSES),
)
def test_the_engine_does_what_a_plain_walk_does(
    tree: Tree, uid: str, undefined: tuple[bool, bool], sop_class: str
) -> None:
    """Any attribute, at any depth, of any SOP Class, in any encoding, gets what its decision says, and no other."""
    data = Layout(uid, undefined).file(tree, sop_class)
    out = ENGINE.rewrite(data)
    patient = build_study_map((scan_instance(BytesSource(data)),), Identities(KEYS, Request())).patient
    assert differences(deidentify(read(data), TABLE, KEYS, patient, compressed=False), read(out)) == []


@RANDOM
@given(trees(), st.sampled_from([EXPLICIT, IMPLICIT, BIG]), st.sampled_from(CLASSES))
def test_how_lengths_are_written_changes_nothing(tree: Tree, uid: str, sop_class: str) -> None:
    """Defined or undefined lengths of sequences and Items are a matter of writing: the result says the same."""
    ways = [(False, False), (False, True), (True, False), (True, True)]
    one, *others = [read(ENGINE.rewrite(Layout(uid, way).file(tree, sop_class))) for way in ways]
    assert [differences(one, other) for other in others] == [[], [], []]


@RANDOM
@given(trees(), st.sampled_from([EXPLICIT, IMPLICIT, BIG]), st.sampled_from(CLASSES))
def test_what_is_kept_is_byte_identical(tree: Tree, uid: str, sop_class: str) -> None:
    """An element that is kept has the very bytes that it had, header and padding included."""
    layout, node = Layout(uid), TABLE.node(sop_class)
    out = ENGINE.rewrite(layout.file(tree, sop_class))
    for tag, what in tree.items():
        if isinstance(what, str) and node[tag] is None:
            assert layout.element(tag, what) in out


@RANDOM
@given(trees(), st.sampled_from([EXPLICIT, IMPLICIT, BIG, DEFLATED]), st.sampled_from(CLASSES))
def test_both_doors_open_alike(tree: Tree, uid: str, sop_class: str) -> None:
    """One instance alone and the same instance in a plan have the same outcome."""
    data = Layout(uid).file(tree, sop_class)
    assert scan_instance(BytesSource(data)).sop_class_uid == sop_class
    assert ENGINE.rewrite(data) == ENGINE.rewrite(data)


@pytest.mark.parametrize("sop_class", CLASSES[:2])
def test_every_attribute_gets_the_same_in_every_encoding(sop_class: str) -> None:
    """One data set that holds every attribute, in four encodings: the results say the same, dummies included."""
    tree: Tree = dict(LEAVES) | {tag: [{0x00100010: "PN"}] for tag in SEQUENCES}
    tree[0x00081115] = [dict(tree)]
    one, *others = [Layout(uid).file(tree, sop_class) for uid in (EXPLICIT, IMPLICIT, BIG, DEFLATED)]
    expected = deidentify(read(one), TABLE, KEYS, read(ENGINE.rewrite(one)).PatientID, compressed=False)
    for data in (one, *others):
        assert differences(expected, read(ENGINE.rewrite(data))) == []

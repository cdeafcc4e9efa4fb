"""Content Items: Table E.3.4-1 against a naive reading of it, and trees against pydicom's reading of them."""

import csv
import itertools
import struct
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

import dicomveil
from dicomveil.concepts import Concepts, rows
from dicomveil.errors import InvalidInstance
from dicomveil.outline import (
    CONTENT_SEQUENCE,
    SPECIMEN_PREPARATION_STEP,
    Head,
    read_head,
    read_outline,
    treatment_of,
)
from dicomveil.stream import (
    CHUNK,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    BytesSource,
    Encoding,
    Window,
)
from dicomveil.testing import BIG, EXPLICIT, IMPLICIT, Syntax
from tests.corpora import BUNDLED

TABLES = Path(dicomveil.__file__).parent / "tables"
EDITIONS = ("2019c", "2021b", "2023b", "2025e")
"""Those that changed Table E.3.4-1; each holds until the next."""
CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "structured.yaml").read_text())
OPTIONS = {
    "RetainUIDs": "uids",
    "RetainDeviceIdentity": "device",
    "RetainInstitutionIdentity": "institution",
    "RetainPatientCharacteristics": "patient",
    "RetainLongitudinalFullDates": "full_dates",
    "RetainLongitudinalModifiedDates": "modified_dates",
    "CleanDescriptors": "descriptors",
}
ENCODINGS = [(EXPLICIT, EXPLICIT_LITTLE), (IMPLICIT, IMPLICIT_LITTLE), (BIG, EXPLICIT_BIG)]
by_name = {"ids": lambda case: case["name"]}


def naive_rows(edition: str) -> list[dict[str, str]]:
    with (TABLES / "structured_content" / f"{edition}.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


# ------------------------------------------------------------------------------------------------------- the table


@pytest.mark.parametrize("options", [(), *((it,) for it in OPTIONS), *itertools.combinations(OPTIONS, 2)])
@pytest.mark.parametrize("edition", EDITIONS)
def test_every_concept_is_treated_as_its_row_says(edition: str, options: tuple[str, ...]) -> None:
    """PS3.15 E.3.4: each of the table's concepts follows the cells of the Options, else the Basic Profile's."""
    concepts = Concepts(edition, frozenset(options))
    for row in naive_rows(edition):
        cells = sorted(row[OPTIONS[option]] for option in options if row[OPTIONS[option]]) or [row["basic"]]
        expected = CASES["cells"][cells[0]][row["value_type"]]
        assert concepts.treatment(row["value_type"], row["scheme"], row["code_value"]) == expected, row


def test_the_table_has_the_rows_of_its_editions() -> None:
    """206 concepts with their Value Types in 2019c, 211 in 2025e; each once."""
    assert [len(rows(edition)) for edition in EDITIONS] == [206, 208, 209, 211]
    for edition in EDITIONS:
        keys = [(row.scheme, row.code_value, row.value_type) for row in rows(edition)]
        assert len(keys) == len(set(keys))


def test_every_retired_code_is_treated_as_its_successor() -> None:
    """PS3.15 E.3.4, note: what was written with SNOMED RT codes is recognised."""
    with (TABLES / "retired_concepts.csv").open(newline="") as lines:
        retired = list(csv.DictReader(lines))
    table = naive_rows("2025e")
    assert {row["current_code_value"] for row in retired} == {
        row["code_value"] for row in table if row["scheme"] == "SCT"
    }
    for option in (None, *OPTIONS):
        concepts = Concepts("2025e", frozenset(filter(None, [option])))
        for old in retired:
            for row in table:
                kind = row["value_type"]
                new = concepts.treatment(kind, old["current_scheme"], old["current_code_value"])
                assert concepts.treatment(kind, old["scheme"], old["code_value"]) == new


@pytest.mark.parametrize("case", CASES["treatments"], **by_name)
def test_concepts_are_recognised(case: dict) -> None:
    """Each Item is treated as its case says."""
    for value_type, scheme, code, options, expected in case["items"]:
        assert Concepts("2026d", frozenset(options)).treatment(value_type, scheme, code) == expected, (scheme, code)


@pytest.mark.parametrize("options", [frozenset(), frozenset(OPTIONS)], ids=["basic", "all"])
def test_other_concepts_follow_their_value_type(options: frozenset[str]) -> None:
    """A concept that the table doesn't have is decided by its Value Type, whatever is retained."""
    found = {kind: Concepts("2026d", options).treatment(kind, "99LOCAL", "1") for kind in CASES["unlisted"]}
    assert found == CASES["unlisted"]


@pytest.mark.parametrize(("edition", "has", "scheme", "code", "value_type"), CASES["editions"])
def test_an_edition_without_changes_takes_the_table_before_it(
    edition: str, has: bool, scheme: str, code: str, value_type: str
) -> None:
    """2024b has the concepts of 2023b; before 2019c there was no table, and the first is taken."""
    treatment = Concepts(edition, frozenset()).treatment(value_type, scheme, code)
    assert (treatment != CASES["unlisted"][value_type]) == has


@given(st.text(), st.text(), st.text(), st.sets(st.sampled_from(sorted(OPTIONS))))
def test_whatever_nobody_knows_goes(value_type: str, scheme: str, code: str, options: set[str]) -> None:
    """A Value Type that PS3.3 doesn't have is never kept."""
    treatment = Concepts("2026d", frozenset(options)).treatment(value_type, scheme, code)
    assert treatment == CASES["unlisted"].get(value_type, "remove") or value_type in CASES["unlisted"]


@given(st.sampled_from(sorted(CASES["unlisted"])), st.integers(0, 210), st.sets(st.sampled_from(sorted(OPTIONS))))
def test_no_other_value_type_is_treated_more_loosely(value_type: str, number: int, options: set[str]) -> None:
    """Writing a concept under a Value Type that the table doesn't have for it gains nobody anything."""
    order = ["remove", "dummy", "uid", "date", "clean", "keep"]
    row = naive_rows("2025e")[number]
    scheme, code = row["scheme"], row["code_value"]
    listed = {it["value_type"] for it in naive_rows("2025e") if (it["scheme"], it["code_value"]) == (scheme, code)}
    if value_type not in listed:
        treatment = Concepts("2025e", frozenset(options)).treatment(value_type, scheme, code)
        assert order.index(treatment) <= order.index(CASES["unlisted"][value_type])


def test_what_its_parent_needs_stays() -> None:
    """Coordinates keep what they are selected from (PS3.3 A.35), a preparation step its specimen (TID 8001)."""
    concepts = Concepts("2026d", frozenset())
    image = Head("SELECTED FROM", "IMAGE", "DCM", "121080", ())
    assert treatment_of(image, CONTENT_SEQUENCE, concepts) == "keep"
    assert treatment_of(image._replace(relationship="CONTAINS"), CONTENT_SEQUENCE, concepts) == "remove"
    specimen = Head("", "TEXT", "DCM", "121041", ())
    assert treatment_of(specimen, SPECIMEN_PREPARATION_STEP, concepts) == "dummy"
    assert treatment_of(specimen, CONTENT_SEQUENCE, concepts) == "remove"
    assert treatment_of(Head("SELECTED FROM", "", "", "", ()), CONTENT_SEQUENCE, concepts) == "remove"


# -------------------------------------------------------------------------------------------------- reading one Item


class Slow:
    """A source that isn't in memory, so that the window has to slide."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


def laid_out(syntax: Syntax, elements: list, undefined: bool) -> bytes:
    parts = []
    for element in elements:
        if isinstance(element, dict):
            tag, code, scheme = element["concept"]
            item = syntax.element(tag, {0x00080119: "UC", 0x00080120: "UR"}.get(tag, "SH"), code)
            item += syntax.element(0x00080102, "SH", scheme) if scheme else b""
            parts.append(syntax.sequence(0x0040A043, [item], undefined, item_undefined=undefined))
        else:
            tag, vr, value = element
            if isinstance(value, list):
                value = struct.pack(f"{syntax.order}{len(value)}I", *value)
            parts.append(syntax.element(tag, vr, value))
    return b"".join(parts)


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "delimiters"])
@pytest.mark.parametrize(("uid", "encoding"), ENCODINGS, ids=["explicit", "implicit", "big"])
@pytest.mark.parametrize("case", CASES["heads"], **by_name)
def test_the_beginning_of_an_item_is_read(case: dict, uid: str, encoding: Encoding, undefined: bool) -> None:
    """In every encoding the same is read, and the window is as it was."""
    syntax = Syntax(uid)
    content = laid_out(syntax, case["elements"], undefined)
    nested = syntax.sequence(CONTENT_SEQUENCE, [content, b""], undefined, item_undefined=undefined)
    padding = syntax.element(0x00080070, "LO", "x" * 60) * (2 * CHUNK // 60)
    relationship, value_type, scheme, code, references = case["head"]
    for inside in (content, content + nested, padding + content):
        item = syntax.item(inside, undefined)
        data = item + bytes(8)
        limit, head = (len(data), 8) if undefined else (8 + len(inside), 8)
        for source in (BytesSource(data), Slow(data)):
            window = Window(source)
            window.slice(0, 8)
            window.after, window.due = 17, 0x00100010
            before = window.buffer, window.base, window.after, window.due, window.descends
            found = read_head(window, encoding, head, limit, undefined)
            assert found == Head(relationship, value_type, scheme, code, tuple(references))
            assert (window.buffer, window.base, window.after, window.due, window.descends) == before


def test_a_concept_in_unknown_vr_is_read() -> None:
    """A sequence under UN holds implicit little endian Items (PS3.5 6.2.2)."""
    implicit, explicit = Syntax(IMPLICIT), Syntax()
    concept = implicit.item(laid_out(implicit, [[0x00080100, "SH", "121071"], [0x00080102, "SH", "DCM"]], False))
    for undefined in (False, True):
        content = explicit.element(0x0040A040, "CS", "TEXT") + explicit.sequence(
            0x0040A043, [concept], undefined, vr="UN"
        )
        window = Window(BytesSource(content))
        assert read_head(window, EXPLICIT_LITTLE, 0, len(content), False) == Head("", "TEXT", "DCM", "121071", ())


def test_a_broken_item_is_told() -> None:
    """What is cut off inside a concept raises, and leaves the window as it was."""
    content = laid_out(Syntax(), [[0x0040A040, "CS", "TEXT"], {"concept": [0x00080100, "121071", "DCM"]}], False)
    for length in (len(content) - 1, len(content) - 9, 10):
        window = Window(BytesSource(content[:length]))
        with pytest.raises(InvalidInstance):
            read_head(window, EXPLICIT_LITTLE, 0, length, False)
        assert (window.base, window.after) == (0, -1)


# ---------------------------------------------------------------------------------------------------- reading a tree


def item(relationship: str, value_type: str, code: str = "", below: list[Dataset] = [], **more: object) -> Dataset:  # noqa: B006
    ds = Dataset()
    ds.RelationshipType = relationship
    if value_type:
        ds.ValueType = value_type
    if code:
        concept = Dataset()
        concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = code, "DCM", "-"
        ds.ConceptNameCodeSequence = Sequence([concept])
    if below:
        ds.ContentSequence = Sequence(below)
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def pointer(relationship: str, *identifier: int) -> Dataset:
    return item(relationship, "", ReferencedContentItemIdentifier=list(identifier))


def encoded(content: list[Dataset], uid: str, undefined: bool) -> bytes:
    """A data set that holds a Content Sequence and an element behind it, by pydicom."""
    ds = Dataset()
    ds.ContentSequence = Sequence(content)
    ds.add_new(0x00700080, "CS", "BEHIND")
    lengths(ds, undefined)
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = uid != BIG, uid == IMPLICIT
    write_dataset(out, ds)
    return out.getvalue()


def lengths(ds: Dataset, undefined: bool) -> None:
    for element in ds:
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for it in element.value:
                it.is_undefined_length_sequence_item = undefined
                lengths(it, undefined)


def outline(content: list[Dataset], uid: str = EXPLICIT, undefined: bool = False, source: type = BytesSource) -> list:
    """(Value Type, treatment) in the order of the tree, and the identifiers that change, in that order too."""
    data = encoded(content, uid, undefined)
    encoding = dict(ENCODINGS)[uid]
    window = Window(source(data))
    start = 8 if uid == IMPLICIT else 12
    found = read_outline(window, encoding, start + 8, Concepts("2026d", frozenset()))
    assert list(found.heads) == list(found.treatments) == sorted(found.heads)
    treatments = [(found.heads[at].value_type, it) for at, it in found.treatments.items()]
    return [treatments, list(found.references.values())]


def test_references_follow_their_targets() -> None:
    """A by-reference relationship points to the same Item after others before it went (PS3.3 C.17.3.2.5)."""
    tree = [
        item("CONTAINS", "TEXT", "121022"),
        item("CONTAINS", "CONTAINER", "111028", [item("CONTAINS", "TEXT", "121106"), item("CONTAINS", "IMAGE")]),
        item("CONTAINS", "SCOORD", "", [pointer("SELECTED FROM", 1, 2, 2), pointer("INFERRED FROM", 1)]),
    ]
    treatments, references = outline(tree)
    assert references == [(1, 1, 1)]
    assert [it for _, it in treatments] == ["remove", "keep", "remove", "keep", "keep", "keep", "keep"]


def test_a_target_stays_as_a_dummy_and_so_does_what_is_around_it() -> None:
    """An Item that another points to isn't removed, or the other would point nowhere."""
    inner = item("HAS PROPERTIES", "PNAME", "121152")
    tree = [
        item("CONTAINS", "TEXT", "121106", [item("HAS PROPERTIES", "TEXT", "121022"), inner]),
        pointer("INFERRED FROM", 1, 1, 2),
    ]
    treatments, references = outline(tree)
    assert [it for _, it in treatments] == ["dummy", "remove", "dummy", "keep"]
    assert references == [(1, 1, 1)]


@pytest.mark.parametrize(
    "identifier", [(1, 9), (2, 1), (1, 0), (1, 1, 1), (1, 2), (7,), (1, 4294967295), (1, 3)], ids=str
)
def test_a_reference_to_nothing_goes(identifier: tuple[int, ...]) -> None:
    """One that points nowhere, to a relationship by reference, or to what nobody can tell, goes."""
    tree = [item("CONTAINS", "CODE"), pointer("INFERRED FROM", *identifier), item("CONTAINS", "PICTURE")]
    treatments, references = outline(tree)
    assert treatments[1] == ("", "remove")
    assert references == []


def test_a_deep_tree_is_no_trouble() -> None:
    """500 levels are read without running out of stack, and 600 are refused as anywhere else."""
    syntax = Syntax()

    def nest(depth: int) -> bytes:
        content = syntax.element(0x0040A040, "CS", "TEXT")
        for _ in range(depth - 1):
            content = syntax.element(0x0040A040, "CS", "CONTAINER") + syntax.sequence(CONTENT_SEQUENCE, [content])
        return syntax.item(content)

    concepts = Concepts("2026d", frozenset())
    deep = Window(BytesSource(nest(500)))
    assert list(read_outline(deep, EXPLICIT_LITTLE, 8, concepts).treatments.values()) == ["keep"] * 499 + ["clean"]
    with pytest.raises(InvalidInstance, match="nesting"):
        read_outline(Window(BytesSource(nest(600))), EXPLICIT_LITTLE, 8, concepts)


leaves = st.sampled_from(
    [
        ("TEXT", "121022"), ("TEXT", "121106"), ("TEXT", ""), ("PNAME", "121008"), ("CODE", "121071"),
        ("CONTAINER", "121000"), ("IMAGE", "121080"), ("UIDREF", "112040"), ("DATE", "121031"), ("NUM", "121033"),
    ]
)  # fmt: skip
trees = st.recursive(
    st.tuples(leaves, st.just([])), lambda below: st.tuples(leaves, st.lists(below, max_size=4)), max_leaves=20
)


def built(tree: list, identifiers: Iterator[tuple[int, ...]]) -> list[Dataset]:
    found = []
    for (kind, code), below in tree:
        found.append(item("CONTAINS", kind, code, built(below, identifiers)))
        pointed = next(identifiers, ())
        if pointed:
            found.append(pointer("INFERRED FROM", *pointed))
    return found


def paths(content: list[Dataset], around: tuple[int, ...] = (1,)) -> Iterator[tuple[tuple[int, ...], Dataset]]:
    for number, it in enumerate(content, 1):
        yield (*around, number), it
        yield from paths(it.get("ContentSequence", []), (*around, number))


def naive(content: list[Dataset]) -> list:
    """What `outline` should find, told by paths: slow and plain."""
    every = dict(paths(content))
    points = {path: tuple(it["ReferencedContentItemIdentifier"].value) if it["ReferencedContentItemIdentifier"].VM > 1
              else (it.ReferencedContentItemIdentifier,) for path, it in every.items() if "ReferencedContentItemIdentifier" in it}  # fmt: skip
    concepts = Concepts("2026d", frozenset())
    gone: set[tuple[int, ...]] = set()
    treatments = {}
    for path, it in every.items():
        concept = it.get("ConceptNameCodeSequence", [{}])[0]
        pointed = any(target[: len(path)] == path for target in points.values() if target in every)
        if path in points:
            treatments[path] = "keep"
        else:
            treatments[path] = concepts.treatment(it.ValueType, "DCM", concept.get("CodeValue", ""))
            if pointed and treatments[path] == "remove":
                dummies = {"CONTAINER": "keep", "IMAGE": "keep", "UIDREF": "uid"}
                treatments[path] = dummies.get(it.ValueType, "dummy")
        if path[:-1] in gone or treatments[path] == "remove":
            treatments[path] = "remove"
            gone.add(path)
    lost = {path for path, target in points.items() if target != (1,) and (target not in every or target in points)}
    for path in lost:
        treatments[path] = "remove"
    gone |= lost
    references = []
    for path, target in points.items():
        if path in gone:
            continue
        new = tuple(
            ordinal - sum((*target[:depth], other) in gone for other in range(1, ordinal))
            for depth, ordinal in enumerate(target)
        )
        if new != target:
            references.append(new)
    return [[(every[path].get("ValueType", ""), it) for path, it in treatments.items()], references]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(trees, min_size=1, max_size=4),
    st.lists(st.lists(st.integers(1, 4), max_size=4).map(lambda it: (1, *it) if it else ()), max_size=12),
    st.sampled_from([EXPLICIT, IMPLICIT, BIG]),
    st.booleans(),
    st.sampled_from([BytesSource, Slow]),
)
def test_every_tree_is_decided_as_a_naive_reading_does(
    tree: list, identifiers: list[tuple[int, ...]], uid: str, undefined: bool, source: type
) -> None:
    """Whatever the tree, its encoding and its references: the same Items go, and the rest point where they did."""
    content = built(tree, iter(identifiers))
    assert outline(content, uid, undefined, source) == naive(content)


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "delimiters"])
@pytest.mark.parametrize("name", ["test-SR.dcm", "reportsi.dcm", "reportsi_with_empty_number_tags.dcm"])
def test_real_documents_are_read_as_pydicom_does(name: str, undefined: bool) -> None:
    """Each Item of a real report is what pydicom says it is."""
    content = list(pydicom.dcmread(BUNDLED / "test_files" / name).ContentSequence)
    window = Window(BytesSource(encoded(content, EXPLICIT, undefined)))
    found = read_outline(window, EXPLICIT_LITTLE, 20, Concepts("2026d", frozenset()))
    expected = []
    for _, it in paths(content):
        concept = (it.get("ConceptNameCodeSequence") or [Dataset()])[0]
        points = it.get("ReferencedContentItemIdentifier", [])
        expected.append(
            Head(
                it.RelationshipType,
                it.get("ValueType", ""),
                concept.get("CodingSchemeDesignator", ""),
                concept.get("CodeValue", ""),
                (points,) if isinstance(points, int) else tuple(points),
            )
        )
    assert list(found.heads.values()) == expected
    assert len(expected) >= 8

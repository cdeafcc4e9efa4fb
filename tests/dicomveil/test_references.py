"""ExternalReferences: remove, case by case, and against pydicom: first the Items go there, then the rest is mapped."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from dicomveil import Deidentifier, standard
from dicomveil.body import parse_request
from dicomveil.claims import broken
from dicomveil.compile import compile_request
from dicomveil.errors import InvalidInstance, RequestError
from dicomveil.keys import Keys
from dicomveil.rewrite import Rewriter, Rewritten
from dicomveil.scan import scan_instance
from dicomveil.stream import BytesSource
from dicomveil.study import Identities, StudyMap, build_study_map
from dicomveil.testing import BIG, CT, DEFLATED, EXPLICIT, IMPLICIT, Syntax, minimal, part10
from dicomveil.uids import new_uid, uid_token
from tests.corpora import KEY
from tests.dicomveil.test_cases import data_set
from tests.dicomveil.test_structured_walk import container, item, number, report, stored
from tests.oracles.naive_reading import Plan, instance

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "references.yaml").read_text())
KEYS = Keys(KEY)
SYNTAXES = [EXPLICIT, IMPLICIT, BIG, DEFLATED]
NAMES = ["explicit", "implicit", "big", "deflated"]
EXTERNAL = "1.2.9"
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
REFERENCED, STUDY, SERIES = 0x00081155, 0x0020000D, 0x0020000E
RANDOM = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def is_external(uid: str) -> bool:
    return uid.startswith(EXTERNAL)


def rewritten(data: bytes, way: str = "remove", external: bool = True, **body: object) -> Rewritten:
    """One instance whose study refers to what nobody knows: every UID below 1.2.9."""
    request = parse_request(json.dumps({"BurnedIn": "pass", **body, "ExternalReferences": way}))
    scan = scan_instance(BytesSource(data), listening=request.cleans_text)
    study_map = build_study_map([scan], Identities(KEYS, request))
    tokens = sorted({uid_token(KEYS, uid) for _, uid in scan.uids if is_external(uid)}) if external else []
    study_map = StudyMap.decode(replace(study_map, external=b"".join(tokens)).encode())
    return Rewriter(compile_request(request), KEYS).rewrite(BytesSource(data), scan, study_map)


def output(data: bytes, **body: object) -> Dataset:
    return pydicom.dcmread(io.BytesIO(rewritten(data, **body).to_bytes()))


def dropped(data: bytes, **body: object) -> list[tuple[str, str, str]]:
    """(path, action, what the rule says beside the member's name) of what ExternalReferences changed."""
    prefix = "ExternalReferences"
    return [
        (it.path, it.action, it.rule.removeprefix(prefix).strip(", "))
        for it in rewritten(data, **body).changes
        if it.rule.startswith(prefix)
    ]


# -------------------------------------------------------------------------------------------------------------- cases


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "delimiters"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=NAMES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_each_reference_becomes_what_its_case_says(case: dict, syntax: str, undefined: bool) -> None:
    """PS3.15 E.3.9: what refers to nothing may go, as far as the IOD lets it."""
    data = file(case, syntax, undefined)
    out = output(data, **case.get("request", {}))
    check([case["before"]], case["after"], out)
    assert sorted(dropped(data, **case.get("request", {}))) == sorted(tuple(it) for it in case["changes"])


def file(case: dict, syntax: str, undefined: bool) -> bytes:
    ds = report()
    for keyword in ("ContentSequence", "CurrentRequestedProcedureEvidenceSequence"):
        delattr(ds, keyword)
    ds.update(data_set(case["before"]))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = case.get("sop_class", CT)
    return stored(ds, syntax, undefined)


def check(before: list[dict], after: dict, out: Dataset) -> None:
    """What stood in any of the Items before is there as "after" has it, or gone."""
    for keyword in {keyword for it in before for keyword in it}:
        if keyword not in after:
            assert keyword not in out
        elif isinstance(after[keyword], list):
            inside = [below for it in before for below in it.get(keyword, [])]
            assert len(out[keyword].value) == len(after[keyword])
            for wish, it in zip(after[keyword], out[keyword].value, strict=True):
                check(inside, wish, it)
        elif keyword.endswith("UID"):
            kept = after[keyword].startswith("original ")
            assert out[keyword].value == (after[keyword][9:] if kept else new_uid(KEYS, after[keyword]))
        else:
            assert out[keyword].value == after[keyword]


def test_one_instance_alone_can_not_tell() -> None:
    """What other instances there are hangs on the run: the library refuses the member instead of guessing."""
    with pytest.raises(RequestError) as refused:
        Deidentifier(parse_request("ExternalReferences: remove"), key=KEY)
    assert [problem.where for problem in refused.value.problems] == ["ExternalReferences"]


def test_what_is_not_retained_is_not_claimed() -> None:
    """PS3.15 E.1.1: Retain UIDs isn't claimed where references are removed."""
    assert "RetainUIDs" in broken(parse_request("{Options: [RetainUIDs], ExternalReferences: remove}"))
    assert not broken(parse_request("Options: [RetainUIDs]"))


def test_a_map_crosses_as_bytes() -> None:
    """What nobody knows travels with the study's map."""
    study_map = StudyMap("token", inside=b"i12345678", words=b"abcdefgh", external=b"1234567887654321")
    assert StudyMap.decode(study_map.encode()) == study_map
    assert study_map.unknown == {b"12345678", b"87654321"}


# ---------------------------------------------------------------------------------------------------------- documents


def reference(uid: str) -> Dataset:
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = CT, uid
    return ds


def picture(relationship: str, uid: str, *below: Dataset, value_type: str = "IMAGE") -> Dataset:
    return item(relationship, value_type, "", *below, ReferencedSOPSequence=[reference(uid)])


def document(*content: Dataset, evidence: tuple[str, ...] = (), sop_class: str = "") -> Dataset:
    ds = report()
    if sop_class:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    series, study = Dataset(), Dataset()
    series.SeriesInstanceUID, series.ReferencedSOPSequence = "1.2.3.4.7", [reference(uid) for uid in evidence]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = "1.2.3.4.5.2", [series]
    ds.CurrentRequestedProcedureEvidenceSequence = [study]
    ds.ContentSequence = list(content)
    return ds


def listed(ds: Dataset) -> list[str]:
    """The evidence of a document."""
    return [
        it.ReferencedSOPInstanceUID
        for study in ds.get("CurrentRequestedProcedureEvidenceSequence", [])
        for series in study.ReferencedSeriesSequence
        for it in series.ReferencedSOPSequence
    ]


def new(*uids: str) -> list[str]:
    return [new_uid(KEYS, uid) for uid in uids]


STRUCTURED = {"Options": ["CleanStructuredContent"]}


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "delimiters"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=NAMES)
def test_pictures_that_nobody_knows_leave_a_report(syntax: str, undefined: bool) -> None:
    """PS3.15 E.3.4: such an Item goes as if the table had X, and the evidence with it; others and pointers stay right."""
    pointer = item("INFERRED FROM", "")
    pointer.ReferencedContentItemIdentifier = [1, 3]
    ds = document(
        picture("CONTAINS", "1.2.9.1"),
        container("CONTAINS", "126010", picture("CONTAINS", "1.2.9.2"), picture("CONTAINS", "1.2.3.6")),
        number("103340004", "12.5", pointer),
        number("103340004", "7.5"),
        evidence=("1.2.9.1", "1.2.9.2", "1.2.3.6"),
    )
    ds.ContentSequence[2].ContentSequence[0].ReferencedContentItemIdentifier = [1, 4]
    data = stored(ds, syntax, undefined)
    out = output(data, **STRUCTURED)
    library, measured, _ = out.ContentSequence
    assert [it.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for it in library.ContentSequence] == new("1.2.3.6")
    assert list(measured.ContentSequence[0].ReferencedContentItemIdentifier) == [1, 3]
    assert listed(out) == new("1.2.3.6")
    assert dropped(data, **STRUCTURED) == [
        ("(0040,A375)[0].(0008,1115)[0].(0008,1199)[0]", "X", ""),
        ("(0040,A375)[0].(0008,1115)[0].(0008,1199)[1]", "X", ""),
        ("(0040,A730)[0]", "X", ""),
        ("(0040,A730)[1].(0040,A730)[0]", "X", ""),
    ]


def test_what_coordinates_or_pointers_need_stays_and_so_does_its_evidence() -> None:
    """PS3.3 A.35, C.17.3.2.5: coordinates without a picture and pointers to nothing would be illegal."""
    pointer = item("INFERRED FROM", "")
    pointer.ReferencedContentItemIdentifier = [1, 1]
    region = item("INFERRED FROM", "SCOORD", "", picture("SELECTED FROM", "1.2.9.2"), GraphicType="POINT")
    region.GraphicData = [1.0, 2.0]
    ds = document(
        picture("CONTAINS", "1.2.9.1"),
        number("103340004", "12.5", pointer, region),
        picture("CONTAINS", "1.2.9.3", value_type="COMPOSITE"),
        evidence=("1.2.9.1", "1.2.9.2", "1.2.9.3"),
    )
    out = output(stored(ds), **STRUCTURED)
    assert [it.ValueType for it in out.ContentSequence] == ["IMAGE", "NUM"]
    assert listed(out) == new("1.2.9.1", "1.2.9.2")
    assert [it for it in dropped(stored(ds), **STRUCTURED) if it[1] == "U"] == [
        ("(0040,A375)[0].(0008,1115)[0].(0008,1199)[0].(0008,1155)", "U", "Type 1"),
        ("(0040,A375)[0].(0008,1115)[0].(0008,1199)[1].(0008,1155)", "U", "Type 1"),
        ("(0040,A730)[0].(0008,1199)[0].(0008,1155)", "U", "Type 1"),
        ("(0040,A730)[1].(0040,A730)[1].(0040,A730)[0].(0008,1199)[0].(0008,1155)", "U", "Type 1"),
    ]


def test_a_report_of_nothing_but_unknown_pictures_has_no_content() -> None:
    """PS3.3 C.17.3: Content Sequence is of Type 1C, and goes with its last Item; so does the evidence."""
    data = stored(document(picture("CONTAINS", "1.2.9.1"), evidence=("1.2.9.1",)))
    out = output(data, **STRUCTURED)
    assert "ContentSequence" not in out and not listed(out)
    assert dropped(data, **STRUCTURED) == [
        ("(0040,A375)", "X", ""), ("(0040,A375)[0]", "X", ""), ("(0040,A730)", "X", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("known", [False, True])
def test_a_key_object_selection_selects_something(known: bool) -> None:
    """PS3.16 TID 2010: at least one reference; where none is known all stay, with their evidence."""
    uids = ("1.2.9.1", "1.2.3.6" if known else "1.2.9.2")
    ds = document(*(picture("CONTAINS", uid) for uid in uids), evidence=uids, sop_class=KEY_OBJECTS)
    out = output(stored(ds), **STRUCTURED)
    stay = uids[1:] if known else uids
    found = [it.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for it in out.ContentSequence]
    assert found == listed(out) == new(*stay)


# ------------------------------------------------------------------------------------------------- against a naive walk

UIDS = st.sampled_from(
    ["1.2.9.1", "1.2.9.2", "1.2.9.3", "1.2.3.4.6", "1.2.3.4.7", "1.2.3.4", "1.2.840.10008.1.4.1.1", ""]
)
SEQUENCES = [
    0x00081110, 0x00081115, 0x00081140, 0x0008114A, 0x00081199, 0x00081200, 0x00082112, 0x00089092, 0x00089124, 0x0040A170,
    0x0040A375, 0x00081111, 0x30060010, 0x30060012, 0x30060014, 0x30060016, 0x300C0002, 0x300C0060, 0x52009230,
]  # fmt: skip
HIERARCHICAL = {0x00081115, 0x00081200, 0x00089092, 0x0040A375, 0x30060012, 0x30060014}
CONDITIONAL = {0x00081115, 0x00081200, 0x0040A375}
LISTS = CONDITIONAL | {0x00089092}
CLASSES = [
    CT, "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.481.2",
    "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.88.11", KEY_OBJECTS, "1.2.3.99",
]  # fmt: skip


@st.composite
def plans(draw, depth: int = 0) -> Plan:
    """A data set or Item full of references, also where the Standard has none."""
    tags = (
        draw(st.lists(st.sampled_from([REFERENCED, STUDY, SERIES, 0x00180050]), max_size=3, unique=True))
        if depth
        else []
    )
    plan: Plan = {tag: ("UI", draw(UIDS)) if tag != 0x00180050 else ("DS", "1.5") for tag in tags}
    if depth < 4:
        for tag in draw(st.lists(st.sampled_from(SEQUENCES), max_size=4 if not depth else 2, unique=True)):
            plan[tag] = draw(st.lists(plans(depth + 1), max_size=3))
    return plan


class Naive:
    """Takes the Items out of a plan that ExternalReferences removes, sequence by sequence, as the documentation says."""

    def __init__(self, sop_class: str) -> None:
        self._sop_class, self._types, self._stay = sop_class, standard.reference_types(), set[str]()

    def prune(self, plan: Plan) -> Plan:
        rest = self._inside({tag: it for tag, it in plan.items() if tag not in LISTS}, ())
        self._stay = set(references(rest))
        return rest | self._inside({tag: it for tag, it in plan.items() if tag in LISTS}, ())

    def _inside(self, plan: Plan, way: tuple[int, ...]) -> Plan:
        found: Plan = {}
        for tag, items in plan.items():
            if not isinstance(items, list) or not items:
                found[tag] = items
                continue
            path = (*way, tag)
            kind = self._types.type(path, self._sop_class)
            staying = [it for it in items if not self._useless(it, tag, path[0] in LISTS)]
            if not staying and (kind == "1" or (kind == "1C" and path not in {(it,) for it in CONDITIONAL})):
                staying = items
            if staying or kind[0] == "2":
                found[tag] = [self._inside(it, path) for it in staying]
        return found

    def _useless(self, it: Plan, sequence: int, listed: bool) -> bool:
        names = {tag: value[1] for tag, value in it.items() if tag in (REFERENCED, STUDY, SERIES) and value[1]}
        inside = {tag: items for tag, items in it.items() if isinstance(items, list) and any(map(tells, items))}
        if sequence in HIERARCHICAL and inside:
            return all(self._useless(below, tag, listed) for tag, items in inside.items() for below in items)
        if listed and names.get(REFERENCED, "") in self._stay:
            return False
        matter = names.values() if sequence in HIERARCHICAL else [names.get(REFERENCED, "")]
        return any(map(is_external, matter))


def tells(it: Plan) -> bool:
    """Whether an Item names an instance, or holds one that does, or something that nobody knows."""
    return REFERENCED in it or any(
        any(map(tells, value)) if isinstance(value, list) else is_external(str(value[1])) for value in it.values()
    )


def references(plan: Plan) -> Iterator[str]:
    for tag, value in plan.items():
        if isinstance(value, list):
            for it in value:
                yield from references(it)
        elif tag == REFERENCED and is_external(value[1]):
            yield value[1]


BODIES = st.sampled_from(
    [{}, {"Options": ["RetainUIDs"]}, {"Options": ["CleanStructuredContent"]}, {"ReferenceSequences": "by-type"}]
)


@RANDOM
@given(plans(), st.sampled_from(CLASSES), st.sampled_from(SYNTAXES), st.booleans(), BODIES)
def test_what_goes_is_what_a_naive_walk_takes_out(
    plan: Plan, sop_class: str, syntax: str, undefined: bool, body: dict
) -> None:
    """Removing references is taking their Items out of the source and mapping the rest: the same bytes."""
    body = body | {"PrivateSOPClass": "strip"}
    entered = Entered(sop_class, body).only(plan)
    removed = rewritten(instance(entered, sop_class, syntax, undefined), **body)
    pruned = instance(Naive(sop_class).prune(entered), sop_class, syntax, undefined)
    mapped = rewritten(pruned, "map", **body)
    assert unmarked(removed.to_bytes()) == unmarked(mapped.to_bytes())


class Entered:
    """Leaves out of a plan the sequences that the profile takes whole: whose references don't stay anyway."""

    def __init__(self, sop_class: str, body: dict) -> None:
        request = parse_request(json.dumps(body))
        self._node = compile_request(request).node(sop_class if standard.resolved("2026d").known(sop_class) else "")

    def only(self, plan: Plan) -> Plan:
        return self._inside(plan, self._node)

    def _inside(self, plan: Plan, node) -> Plan:
        found: Plan = {}
        for tag, value in plan.items():
            decision = node[tag]
            if not isinstance(value, list):
                found[tag] = value
            elif decision is None or (decision.literal is None and decision.act is None):
                found[tag] = [self._inside(it, node.child(tag)) for it in value]
        return found


def unmarked(data: bytes) -> Dataset:
    ds = pydicom.dcmread(io.BytesIO(data))
    for keyword in ("DeidentificationMethod", "DeidentificationMethodCodeSequence"):
        if keyword in ds:
            delattr(ds, keyword)
    return ds


@RANDOM
@given(plans(), st.sampled_from(CLASSES), st.sampled_from(SYNTAXES), st.booleans())
def test_where_all_is_known_nothing_changes(plan: Plan, sop_class: str, syntax: str, undefined: bool) -> None:
    """With nothing external the output is that of `map`, byte for byte but for the name of the rules."""
    data = instance(plan, sop_class, syntax, undefined)
    removed = rewritten(data, external=False, PrivateSOPClass="strip", KeepPrivateTags=False)
    mapped = rewritten(data, "map", PrivateSOPClass="strip")
    assert removed.changes == mapped.changes
    assert anonymous(removed) == anonymous(mapped)


def anonymous(out: Rewritten) -> bytes:
    """The bytes without the fingerprint of the rules, which a strip of private SOP Classes writes."""
    data = out.to_bytes()
    if out.transfer_syntax_uid == DEFLATED:
        ds = pydicom.dcmread(io.BytesIO(data))
        data = ds.to_json().encode()
    at = data.find(b"site rules ")
    return data[: at + 11] + data[at + 27 :]


@RANDOM
@given(plans(), st.sampled_from(CLASSES), st.sampled_from(SYNTAXES), st.booleans())
def test_nothing_external_is_left_where_it_could_go(plan: Plan, sop_class: str, syntax: str, undefined: bool) -> None:
    """An external instance is named in the output only in an Item whose U the audit says so of."""
    data = instance(plan, sop_class, syntax, undefined)
    out = rewritten(data, PrivateSOPClass="strip")
    external = {new_uid(KEYS, uid) for uid in ("1.2.9.1", "1.2.9.2", "1.2.9.3")}
    ds = pydicom.dcmread(io.BytesIO(out.to_bytes()))
    left = [it for it in ds.iterall() if it.tag == REFERENCED and it.value in external]
    told = [it for it in out.changes if it.rule == "ExternalReferences, Type 1" and it.path.endswith("(0008,1155)")]
    assert len(left) == len(told)
    assert {it.action for it in told} <= {"U"}


@pytest.mark.parametrize("tag", [0x00081115, 0x00081140], ids=["series", "image"])
def test_deep_nesting_is_read_as_far_as_the_walk_goes(tag: int) -> None:
    """What the walk can enter can be read ahead of it, and what is too deep is refused alike."""
    syntax = Syntax()
    content = syntax.element(REFERENCED, "UI", "1.2.9.1")
    for _ in range(500):
        content = syntax.sequence(tag, [content])
    changes = dropped(part10(minimal(syntax, (tag, content))))
    assert [it for it in changes if it[0].endswith("(0008,1155)")] == [] and changes
    for _ in range(20):
        content = syntax.sequence(tag, [content])
    with pytest.raises(InvalidInstance, match="nesting"):
        rewritten(part10(minimal(syntax, (tag, content))))

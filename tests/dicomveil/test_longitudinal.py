"""Modified Dates through the engine: what moves, by how far, and what is computed from dates (PS3.15 E.3.6)."""

import dataclasses
import datetime
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from dicomveil import Deidentifier, standard
from dicomveil.body import parse_request
from dicomveil.compile import compile_request
from dicomveil.errors import RequestError
from dicomveil.explain import explain
from dicomveil.keys import Keys
from dicomveil.options import MODIFIED, shared_date
from dicomveil.part10 import open_instance
from dicomveil.request import Request
from dicomveil.rewrite import Change, Rewriter
from dicomveil.scan import scan_instance
from dicomveil.stream import BytesSource
from dicomveil.study import Identities, build_study_map
from dicomveil.testing import BIG, CT, DEFLATED, EXPLICIT, IMPLICIT
from tests.corpora import CORPUS, KEY, NO_CORPUS, label
from tests.oracles.naive_reading import Leaf, Plan, Tree, instance, read

REQUESTS = Path(__file__).parent.parent.parent / "configs" / "requests"
KEYS = Keys(KEY)
PET, ENHANCED_PET = "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.130"
SERIES, INSTANCES, ISOTOPES = 0x00081115, 0x00081199, 0x00540016
STARTED, STUDY_DATE, CONTENT_DATE, ORIGIN, ZONE = 0x00181078, 0x00080020, 0x00080023, 0x00340007, 0x00080201
TABLE = compile_request(Request(options=(MODIFIED,)))
REWRITER = Rewriter(TABLE, KEYS)


def moved(data: bytes, days: int) -> tuple[bytes, list[Change]]:
    """An instance with its dates moved by some days, as a crosswalk would have it, and what was changed."""
    source = BytesSource(data)
    scan = scan_instance(source)
    study_map = dataclasses.replace(build_study_map([scan], Identities(KEYS, TABLE.request)), days=days)
    rewritten = REWRITER.rewrite(source, scan, study_map)
    return rewritten.to_bytes(), rewritten.changes


# ------------------------------------------------------------------------------------------------------- back again

NAMED = [
    row for row in standard.rows(standard.NEWEST) if row.modified_dates and "x" not in row.tag and not shared_date(row)
]
TAGS = {standard.tag_number(row.tag): standard.dictionary()[standard.tag_number(row.tag)].vr for row in NAMED}
DAYS = st.integers(-36_500, 36_500).filter(bool)
WHOLE = st.dates(datetime.date(1800, 1, 1), datetime.date(2300, 12, 31)).map(lambda it: it.strftime("%Y%m%d"))
BEHIND = st.sampled_from(["", "23", "2359", "235960", "000000.0", "120000.123456", "120000.5+0200", "-1200", "+1400"])
PARTIAL = st.sampled_from(["2024", "202403", "20240230", "20240101-20240201", "Bodox", "20240301Bodox", "24-03-01"])
TIMES = st.sampled_from(["10", "1011", "101112", "235959.999999", "000000", ""])
VALUES = {
    "DA": WHOLE,
    "DT": st.tuples(WHOLE, BEHIND).map("".join),
    "TM": TIMES,
    "SH": st.sampled_from(["+0100", "-0330", ""]),
    "OB": st.integers(4_000_000_000, 8_000_000_000).map(lambda it: it.to_bytes(6, "big") + b"\0\0\1\2"),
}
SOUND = {vr: st.lists(it, min_size=1, max_size=3).map("\\".join) for vr, it in VALUES.items() if vr != "OB"} | {
    "OB": VALUES["OB"]
}


@st.composite
def dated(draw: st.DrawFn) -> Plan:
    """Any of the attributes that the table has moved, with values that can be."""
    tags = draw(st.lists(st.sampled_from(sorted(TAGS)), min_size=1, max_size=12, unique=True))
    return {tag: (TAGS[tag], draw(SOUND[TAGS[tag]])) for tag in tags}


def pairs(one: Tree, other: Tree) -> Iterator[tuple[int, Leaf, Leaf]]:
    """The elements of one data set that the table has moved, beside those of another, at every depth."""
    for tag, what in one.items():
        there = other[tag] if tag in TAGS or isinstance(what, list) else None
        if isinstance(what, Leaf) and isinstance(there, Leaf):
            yield tag, what, there
        elif isinstance(what, list) and isinstance(there, list):
            for mine, theirs in zip(what, there, strict=True):
                yield from pairs(mine, theirs)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(dated(), min_size=3, max_size=3), DAYS, st.sampled_from([EXPLICIT, IMPLICIT, BIG, DEFLATED]), st.booleans(),
    st.sampled_from([CT, PET, ENHANCED_PET]),
)  # fmt: skip
def test_shifting_a_study_back_restores_every_date(
    plans: list[Plan], days: int, uid: str, undefined: bool, sop_class: str
) -> None:
    """Every date that the table names, of one or several values, at any depth, in any encoding, is back byte for byte;
    in between each has moved, but for times of day and offsets from UTC."""
    first, second, third = plans
    data = instance({**first, SERIES: [{**second, INSTANCES: [third, {}]}]}, sop_class, uid, undefined)
    away, _ = moved(data, days)
    back, _ = moved(away, -days)
    before = read(data)
    found = [*pairs(before, read(back))]
    assert len(found) == len(first) + len(second) + len(third)
    assert all(old.raw == again.raw for _, old, again in found)
    for tag, old, new in pairs(before, read(away)):
        stays = TAGS[tag] in ("TM", "SH") or not old.raw
        assert (old.raw == new.raw) is stays and len(old.raw) == len(new.raw)


# ----------------------------------------------------------------------------------------------- what can't be moved


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(tag for tag in TAGS if TAGS[tag] in ("DA", "DT"))), PARTIAL, DAYS)
def test_a_date_that_cant_be_moved_is_emptied_and_recorded(tag: int, value: str, days: int) -> None:
    """Nothing of it stays; a dummy takes its place only where a value is needed; the audit's rule says why."""
    vr = TAGS[tag]
    data = instance({SERIES: [{tag: (vr, value)}]}, CT)
    out, changes = moved(data, days)
    (item,) = read(out)[SERIES]
    (change,) = [it for it in changes if it.path.startswith("(0008,1115)[0]")]
    assert change.rule in (f"E.1-1 {standard.NEWEST} {MODIFIED} unshiftable", f"supplement {MODIFIED} unshiftable")
    dummy = {"DA": b"19000101", "DT": b"19000101000000"}[vr]
    assert (change.action, item[tag].raw) in (("Z", b""), ("D", dummy))
    assert (change.vr, change.keyword) == (vr, standard.dictionary()[tag].keyword)


@pytest.mark.parametrize("undefined", [False, True])
def test_a_date_that_is_needed_gets_a_dummy(undefined: bool) -> None:
    """Radiopharmaceutical Start DateTime is of Type 1 in Enhanced PET, and of Type 3 in PET (PS3.3 C.8.22.4, C.8.9.2)."""
    data = {ISOTOPES: [{STARTED: ("DT", "202403"), 0x00181074: ("DS", "3.7E8")}], CONTENT_DATE: ("DA", "2024")}
    found = {}
    for sop_class in (PET, ENHANCED_PET):
        tree = read(moved(instance(data, sop_class, undefined=undefined), -77)[0])
        found[sop_class] = tree[ISOTOPES][0][STARTED].raw, tree[CONTENT_DATE].raw, tree[ISOTOPES][0][0x00181074].raw
    assert found[ENHANCED_PET] == (b"19000101000000", b"19000101", b"3.7E8 ")
    assert found[PET][0] == b"" and found[PET][2] == b"3.7E8 "


@pytest.mark.parametrize(
    ("tag", "vr", "value", "action"),
    [
        (ORIGIN, "OB", b"Zubika", "D"),
        (ORIGIN, "OB", bytes(6) + b"\xff\xff\xff\xff", "D"),
        (ZONE, "SH", "Zubikax", "Z"),
        (0x00080030, "TM", "Zubikax", "Z"),
    ],
)
def test_what_isnt_what_it_should_be_doesnt_stay(tag: int, vr: str, value: bytes | str, action: str) -> None:
    """Attributes of other VRs that hold times are moved or kept where they read as such, and else recorded."""
    out, changes = moved(instance({tag: (vr, value)}), -77)
    assert b"Zubika" not in out and b"\xff\xff\xff\xff" not in out
    assert [
        (it.action, it.rule.split(" ")[-1]) for it in changes if it.keyword == standard.dictionary()[tag].keyword
    ] == [(action, "unshiftable")]


@pytest.mark.parametrize("uid", [EXPLICIT, IMPLICIT, BIG])
def test_a_timestamp_of_a_frame_moves_with_the_dates(uid: str) -> None:
    """Ten bytes of IEEE 1588 in a Per-Frame group, as they stand on the wire in every transfer syntax."""
    raw = (1_700_000_000).to_bytes(6, "big") + b"\0\0\1\2"
    out, _ = moved(instance({0x52009230: [{0x00209111: [{ORIGIN: ("OB", raw)}]}]}, CT, uid), -30)
    kept = (1_700_000_000 - 30 * 86_400).to_bytes(6, "big") + b"\0\0\1\2"
    assert kept in out and raw not in out


def test_certificates_and_birth_dates_are_no_dates_of_the_study() -> None:
    """Certified Timestamp (OB) is a certificate's, and the table keeps birth dates under no Option."""
    rows = {row.keyword: row for row in standard.rows(standard.NEWEST)}
    others = {row.keyword for row in rows.values() if row.modified_dates and TAGS.get(_tag(row)) in ("OB", "SH")}
    assert others == {"FrameOriginTimestamp", "TimezoneOffsetFromUTC"} and shared_date(rows["CertifiedTimestamp"])
    assert rows["PatientBirthDate"].modified_dates == "" == rows["PatientBirthTime"].modified_dates
    tree = read(moved(instance({0x00100030: ("DA", "19530417"), 0x00100032: ("TM", "0900")}), -77)[0])
    assert tree[0x00100030].raw == b"" and 0x00100032 not in tree


def _tag(row: standard.Row) -> int:
    return standard.tag_number(row.tag) if "x" not in row.tag and "g" not in row.tag else 0


# ------------------------------------------------------------------------------------------------------- how far

BODY = "Options: [RetainLongitudinalModifiedDates]\n"


def asked(more: str, *plans: Plan) -> list[Tree]:
    """Outputs of a request, each made by an engine of its own, as in runs years apart."""
    return [
        read(Deidentifier(parse_request(BODY + more), key=KEY).rewrite(instance({0x00100020: ("LO", "4711"), **plan})))
        for plan in plans
    ]


def days_between(one: str, other: str) -> int:
    first, second = (datetime.date.fromisoformat(f"{it[:4]}-{it[4:6]}-{it[6:8]}") for it in (one, other))
    return (second - first).days


@settings(max_examples=60, deadline=None)
@given(WHOLE, WHOLE, st.tuples(st.integers(1, 2000), st.integers(0, 4000)))
def test_intervals_between_studies_stay_across_runs(first: str, second: str, span: tuple[int, int]) -> None:
    """Two studies of a patient, de-identified apart, lie as many days from each other as before, for every range."""
    fewest, most = span[0], sum(span)
    one, other = asked(
        f"DateShift: {{Range: [{fewest}, {most}]}}",
        {STUDY_DATE: ("DA", first), 0x0020000D: ("UI", "1.2.3.7")},
        {STUDY_DATE: ("DA", second), 0x0020000D: ("UI", "1.2.3.8")},
    )
    assert days_between(one[STUDY_DATE].text, other[STUDY_DATE].text) == days_between(first, second)
    assert fewest <= days_between(one[STUDY_DATE].text, first) <= most
    assert one[0x00280303].text == "MODIFIED"


def test_the_default_is_the_range_that_has_no_name() -> None:
    """30 days to 10 years back is what a request means that says nothing."""
    plan: Plan = {STUDY_DATE: ("DA", "20240315")}
    assert (
        asked("", plan)
        == asked("DateShift: {Range: [30, 3650]}", plan)
        != asked("DateShift: {Range: [30, 3651]}", plan)
    )


def test_without_an_anchor_a_study_is_set_aside() -> None:
    """An anchor comes from a crosswalk or from what was stored, never from the study: without one it is quarantined."""
    request = parse_request(BODY + 'DateShift: {AnchorTo: "20000101"}')
    scan = scan_instance(BytesSource(instance({0x00100020: ("LO", "4711"), STUDY_DATE: ("DA", "20240315")})))
    study_map = build_study_map([scan], Identities(KEYS, request))
    assert (study_map.conflict, study_map.days) == ("no-anchor", 0)
    unmoved = parse_request("{}")
    assert build_study_map([scan], Identities(KEYS, unmoved)).conflict == ""


MISTAKES = {
    "both": (BODY + "DateShift: {Range: [30, 3650], AnchorTo: '20000101'}", "choose Range or AnchorTo"),
    "no Option": ("DateShift: {Range: [30, 1000]}", "add RetainLongitudinalModifiedDates"),
    "an anchor without the Option": ("DateShift: {AnchorTo: '20000101'}", "add RetainLongitudinalModifiedDates"),
    "full dates": (
        "Options: [RetainLongitudinalFullDates]\nDateShift: {Range: [1, 9]}",
        "add RetainLongitudinalModified",
    ),
    "0 days": (BODY + "DateShift: {Range: [0, 3650]}", "write 1 or more"),
    "more than a century": (BODY + "DateShift: {Range: [30, 40000]}", "write 36500 or less"),
    "backwards": (BODY + "DateShift: {Range: [3650, 30]}", "write the fewest days first"),
    "one number": (BODY + "DateShift: {Range: [30]}", "the fewest and the most"),
    "three numbers": (BODY + "DateShift: {Range: [30, 31, 32]}", "the fewest and the most"),
    "no numbers": (BODY + "DateShift: {Range: [a, b]}", "write a whole number"),
    "half a day": (BODY + "DateShift: {Range: [30.5, 60]}", "write a whole number"),
    "no date": (BODY + "DateShift: {AnchorTo: '20240230'}", "write it as YYYYMMDD"),
    "part of a date": (BODY + "DateShift: {AnchorTo: 2024}", "write it as YYYYMMDD"),
    "an empty date": (BODY + "DateShift: {AnchorTo: ''}", "write it as YYYYMMDD"),
    "another member": (BODY + "DateShift: {Days: 30}", "there are Range and AnchorTo"),
    "a number": (BODY + "DateShift: 30", "write a mapping"),
    "nothing": (BODY + "DateShift:", "write a mapping"),
}


@pytest.mark.parametrize(("text", "remedy"), MISTAKES.values(), ids=MISTAKES)
def test_a_shift_that_cant_be_is_told(text: str, remedy: str) -> None:
    """Each mistake has its line and says what to write instead."""
    with pytest.raises(RequestError) as refused:
        parse_request(text, "r.yaml")
    assert any(remedy in it.remedy for it in refused.value.problems)
    assert {it.where.split(" ")[0] for it in refused.value.problems} == {f"r.yaml:{text.count(chr(10)) + 1}"}


def test_a_narrow_range_is_used_and_told() -> None:
    """Under three years the run says plainly how much each new date tells."""
    (notice,) = parse_request(BODY + "DateShift: {Range: [100, 1194]}").notices
    assert "1094 days, under 3 years" in notice
    for more in ("DateShift: {Range: [100, 1195]}", "DateShift: {AnchorTo: 20000101}", ""):
        assert parse_request(BODY + more).notices == ()


def test_the_statement_tells_the_range() -> None:
    """PS3.15 E.3.6 asks for the manner of modification."""
    assert "30 to 3650 back" in explain(parse_request(BODY))
    assert "7 to 2000 back" in explain(parse_request(BODY + "DateShift: {Range: [7, 2000]}"))
    assert "anchor date comes to lie on 20000101" in explain(parse_request(BODY + "DateShift: {AnchorTo: 20000101}"))
    assert " back." not in explain(Request())


def test_a_shift_survives_being_written_down() -> None:
    """A request written out in full is the same request, and another shift another one."""
    texts = ("", "DateShift: {Range: [7, 2000]}", "DateShift: {AnchorTo: 20000101}", "DateShift: {AnchorTo: 20000102}")
    requests = [parse_request(BODY + more) for more in texts]
    assert [parse_request(str(request.members())) for request in requests] == requests
    assert len({request.fingerprint for request in requests}) == len(requests)


# --------------------------------------------------------------------------------------------------------------- SUV


def when(date: str, time: str = "") -> datetime.datetime:
    """A DA and a TM, or a DT, as a moment; without an offset as if at UTC."""
    text, zone = f"{date[:8]}{date[8:] or time}", datetime.timezone.utc
    for sign in "+-":
        if sign in text:
            text, offset = text.split(sign)
            minutes = int(offset[:2]) * 60 + int(offset[2:])
            zone = datetime.timezone(datetime.timedelta(minutes=minutes if sign == "+" else -minutes))
    whole, _, fraction = text.partition(".")
    moment = datetime.datetime.strptime(whole.ljust(14, "0"), "%Y%m%d%H%M%S").replace(tzinfo=zone)
    return moment + datetime.timedelta(microseconds=int(fraction.ljust(6, "0") or 0))


def factors(ds: Dataset) -> dict[str, float]:
    """What stored activities are multiplied by for SUV by body weight, by what is taken for start and scan."""
    (isotope,) = ds.RadiopharmaceuticalInformationSequence
    dose, half_life = float(isotope.RadionuclideTotalDose), float(isotope.RadionuclideHalfLife)
    scans = {
        name: when(ds[f"{name}Date"].value, ds[f"{name}Time"].value)
        for name in ("Series", "Acquisition")
        if ds.get(f"{name}Date") and ds.get(f"{name}Time")
    }
    if ds.get("AcquisitionDateTime"):
        scans["AcquisitionDateTime"] = when(ds.AcquisitionDateTime)
    found = {}
    for name, scan in scans.items():
        starts = {"DateTime": when(isotope.RadiopharmaceuticalStartDateTime)} if _has(isotope, "DateTime") else {}
        if _has(isotope, "Time") and "DateTime" not in name:
            start = when(ds[f"{name}Date"].value, isotope.RadiopharmaceuticalStartTime)
            starts["Time"] = start if start <= scan else start - datetime.timedelta(1)  # injected before midnight
        for kind, start in starts.items():
            decayed = dose * 2 ** (-(scan - start).total_seconds() / half_life)
            found[f"{kind} to {name}"] = float(ds.PatientWeight) * 1000 / decayed
    return found


def _has(isotope: Dataset, what: str) -> bool:
    return bool(isotope.get(f"RadiopharmaceuticalStart{what}"))


def quantitative(data: bytes) -> tuple[Dataset, Dataset]:
    """A PET instance before and after the ready request for SUV."""
    request = parse_request((REQUESTS / "pet-quantitative.yaml").read_text("utf-8"))
    return tuple(pydicom.dcmread(io.BytesIO(it)) for it in (data, Deidentifier(request, key=KEY).rewrite(data)))  # type: ignore[return-value]


# Injection (DateTime, Time), scan (date, time, DateTime), minutes between them.
SCANS = {
    "an hour": (("20240315100000.00", "100000.00"), ("20240315", "110000", "20240315110000"), 60),
    "over midnight": (("20240229233000", "233000"), ("20240301", "001500.5", "20240301001500.5"), 45 + 0.5 / 60),
    "over New Year": (("20231231235959", "235959"), ("20240101", "005959", "20240101005959"), 60),
    "with offsets": (("20240315233000-0500", ""), ("", "", "20240316053000+0000"), 60),
    "over a change of the clocks": (("20240331013000+0100", ""), ("", "", "20240331033000+0200"), 60),
    "over a date line": (("20240316003000+1400", ""), ("", "", "20240314233000-1200"), 60),
}


@pytest.mark.parametrize(("injected", "scanned", "minutes"), SCANS.values(), ids=SCANS)
@pytest.mark.parametrize("uid", [EXPLICIT, IMPLICIT, BIG])
def test_decay_corrected_suv_stays(
    injected: tuple[str, str], scanned: tuple[str, str, str], minutes: float, uid: str
) -> None:
    """The factor from stored activity to SUV is the same number after dates have moved, also where two days or two
    offsets from UTC lie between injection and scan."""
    plan: Plan = {
        STUDY_DATE: ("DA", "20240315"), 0x00080021: ("DA", scanned[0]), 0x00080022: ("DA", scanned[0]),
        0x0008002A: ("DT", scanned[2]), 0x00080031: ("TM", scanned[1]), 0x00080032: ("TM", scanned[1]),
        0x00101030: ("DS", "73.5"),
        ISOTOPES: [{STARTED: ("DT", injected[0]), 0x00181072: ("TM", injected[1]), 0x00181074: ("DS", "370000000"), 0x00181075: ("DS", "6586.2")}],
    }  # fmt: skip
    before, after = quantitative(instance(plan, PET, uid))
    assert factors(after) == factors(before) != {}
    expected = 73500 / (370000000 * 2 ** (-minutes * 60 / 6586.2))
    assert factors(before) == pytest.approx(dict.fromkeys(factors(before), expected))
    old, new = (it.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime for it in (before, after))
    assert old[:8] != new[:8] and old[8:] == new[8:]


@pytest.mark.skipif(CORPUS is None, reason=NO_CORPUS)
def test_decay_corrected_suv_stays_of_real_scans() -> None:
    """The same of every PET at hand that tells its dose and times, whatever scanner wrote it."""
    compared = set()
    for path in sorted(CORPUS.joinpath("open").rglob("*.dcm")) if CORPUS else []:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = path.read_bytes() if b"1.2.840.10008.5.1.4.1.1.128" in path.open("rb").read(1024) else b""
            if not data or not open_instance(BytesSource(data)):
                continue
            before, after = quantitative(data)
            if before.get("RadiopharmaceuticalInformationSequence") and before.get("PatientWeight"):
                assert factors(after) == factors(before), label(path)
                compared.add(path.parent if factors(before) else None)
    assert len(compared - {None}) >= 3

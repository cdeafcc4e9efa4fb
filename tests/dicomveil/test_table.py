"""Every row of Table E.1-1 under every Option, through the engine, against a naive reading of the table's line."""

import itertools
from collections.abc import Iterator

import pytest

from dicomveil import Deidentifier, standard
from dicomveil.identity import identifying
from dicomveil.request import Request
from dicomveil.schema import OPTIONS
from dicomveil.testing import BIG, CT, DEFLATED, EXPLICIT, IMPLICIT
from tests.corpora import KEY
from tests.oracles.naive_reading import (
    FULL,
    KNOWN,
    MARKS,
    MODIFIED,
    PATIENT_ID,
    PATIENT_NAME,
    Naive,
    Plan,
    dictionary,
    instance,
    mismatches,
    read,
    rows,
    supplement,
)

SERIES, INSTANCES, REQUESTED = 0x00081115, 0x00081199, 0x00400275
"""Sequences that every edition and Option keeps, one to stand in the other."""
THICKNESS = 0x00180050
STRUCTURED = (0x00400555, 0x00400610, 0x0040A730, 0x0040B020)
UNKNOWN = "1.2.840.10008.5.1.1.27"
CLASSES = {
    "CT": CT,
    "Enhanced MR": "1.2.840.10008.5.1.4.1.1.4.1",
    "RT Structure Set": "1.2.840.10008.5.1.4.1.1.481.3",
    "Basic Text SR": "1.2.840.10008.5.1.4.1.1.88.11",
    "no Types": UNKNOWN,
}
VALUES = {
    "AE": "{}", "AS": "047Y", "CS": "{}", "DA": "20240315", "DS": "47.11", "DT": "20240315101112.5", "FD": bytes(7) + b"@",
    "IS": "4711", "LO": "{}", "LT": "{}", "OB": b"Zubika", "PN": "Zubikax^Wolemix", "SH": "{}", "ST": "{}", "TM": "101112",
    "UC": "{}", "UN": b"Zubika", "UR": "http://zubikax", "US": b"\x2f\x2f", "UT": "{}",
    "OW": b"Zubi", "OF": b"Zubi", "OD": b"Zubikaxx", "OL": b"Zubi", "OV": b"Zubikaxx", "SS": b"//", "UL": b"Zubi", "SL": b"Zubi", "FL": b"Zub@", "AT": b"\x10\0\x10\0",
    "SV": b"Zubikaxx", "UV": b"Zubikaxx",
}  # fmt: skip
CLEANED = {
    tag
    for tag, row in rows(standard.NEWEST).items()
    if "C" in (row["descriptors"], row["patient"], row["device"])
    and dictionary()[tag] != "SQ"
    and tag not in identifying()
}
"""Text that some Option cleans, but for what is itself taken for words that identify."""
PAIRS = [pair for pair in itertools.combinations(OPTIONS, 2) if pair != (FULL, MODIFIED)]
WORDS = ("Zubikax", f"{KNOWN} Zubikax")
OLDER = ("2017c", "2021b", "2023b")


def values(tags: list[int], text: str) -> Plan:
    """An element of each tag, with a value of its VR; `text` where some Option cleans text, and else a name."""
    plan: Plan = {}
    for number, tag in enumerate(tags):
        vr, cleaned = dictionary()[tag], tag in CLEANED
        if vr == "SQ":
            plan[tag] = [{PATIENT_NAME: ("PN", "Zubikax"), THICKNESS: ("DS", "1.5"), 0x00080020: ("DA", "20240315")}]
        elif vr == "UI":
            plan[tag] = ("UI", f"1.2.3.4.7.{number}")
        else:
            value = VALUES[vr]
            filled = value.format(text if cleaned else "Zubikax") if isinstance(value, str) else value
            plan[tag] = (vr, filled.upper() if vr in ("AE", "CS") and isinstance(filled, str) else filled)
    return plan


def everywhere(edition: str, text: str, ours: bool = True) -> Plan:
    """All rows of an edition, and what our supplement adds, at the top level, in an Item, and in an Item of an Item."""
    named = {*rows(edition), *(supplement() if ours else ())}
    top = sorted(tag for tag in named if tag >> 16 > 4 and tag not in MARKS and not _apart(tag))
    inside = values([tag for tag in sorted(named) if not _apart(tag)], text)
    deeper: Plan = {**inside, SERIES: [{INSTANCES: [inside]}]}
    return {**values(top, text), PATIENT_ID: ("LO", "Zubikax"), SERIES: [deeper]}


def _apart(tag: int) -> bool:
    """What has cases of its own: content items, and what tells how all is read."""
    return tag in (0x00080005, 0x00080102, 0x00080016, 0x7FE00010) or tag in STRUCTURED or tag >> 16 == 0x0028


def problems(
    edition: str, options: tuple[str, ...], sop_class: str, text: str, uid: str = EXPLICIT, ours: bool = True
) -> Iterator[str]:
    """Where the engine doesn't do what the table's lines say."""
    request = Request(dicom_version=edition, options=options, supplement=ours, burned_in="pass")
    data = instance(everywhere(edition, text, ours), sop_class, uid)
    out = read(Deidentifier(request, key=KEY).rewrite(data))
    for mark in MARKS:
        out.pop(mark, None)
    yield from mismatches(Naive(edition, options, ours=ours).expected(read(data), sop_class), out)


@pytest.mark.parametrize("sop_class", CLASSES.values(), ids=CLASSES)
def test_every_row_of_the_basic_profile(sop_class: str) -> None:
    """At any depth a row's attribute gets its action, by its Type in the IOD (PS3.15 E.1.1, second paragraph)."""
    assert list(problems(standard.NEWEST, (), sop_class, WORDS[0])) == []


@pytest.mark.parametrize("text", WORDS)
@pytest.mark.parametrize("option", OPTIONS)
def test_every_row_under_every_option(option: str, text: str) -> None:
    """What an Option retains or cleans overrides the profile at any depth, and nothing else changes (PS3.15 E.3)."""
    for sop_class in (CT, UNKNOWN):
        assert list(problems(standard.NEWEST, (option,), sop_class, text)) == []


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_every_row_under_every_two_options(pair: tuple[str, str]) -> None:
    """Where two Options speak of a row, cleaning wins over keeping; where one does, the other changes nothing."""
    assert list(problems(standard.NEWEST, pair, CT, WORDS[1])) == []


@pytest.mark.parametrize("edition", [edition for edition in standard.EDITIONS if edition != "2008"])
def test_every_row_of_every_edition(edition: str) -> None:
    """Each edition's own rows decide when a request names it, and our supplement what they don't name."""
    for ours in (True, False):
        assert list(problems(edition, (), CT, WORDS[0], ours=ours)) == []


@pytest.mark.parametrize("edition", OLDER)
@pytest.mark.parametrize("option", OPTIONS)
def test_every_row_of_older_editions_under_every_option(option: str, edition: str) -> None:
    """An edition's own columns say what its Options do."""
    if standard.has_option(edition, option):
        assert list(problems(edition, (option,), CT, WORDS[1])) == []


@pytest.mark.parametrize("uid", [IMPLICIT, BIG, DEFLATED], ids=["implicit", "explicit big", "deflated"])
def test_every_row_in_every_encoding(uid: str) -> None:
    """However a data set is encoded, each row means the same."""
    assert list(problems(standard.NEWEST, (), CT, WORDS[0], uid)) == []


@pytest.mark.parametrize("edition", standard.EDITIONS)
def test_repeating_groups_and_private_elements(edition: str) -> None:
    """Curves, overlays and private elements go in every edition, wherever they stand (rows 50xx, 60xx, gggg)."""
    groups: Plan = {
        0x50000010: ("US", 1), 0x50003000: ("OW", b"Zubi"), 0x501E2500: ("LO", "Zubikax"), 0x60003000: ("OW", b"Zubi"),
        0x60004000: ("LT", "Zubikax"), 0x60000022: ("LO", "Zubikax"), 0x601E3000: ("OW", b"Zubi"),
        0x00290010: ("LO", "Zubikax"), 0x00291010: ("LO", "Zubikax"), 0x00291020: [{PATIENT_NAME: ("PN", "Zubikax")}],
        0x00311010: ("LO", "Zubikax"), THICKNESS: ("DS", "1.5"),
    }  # fmt: skip
    data = instance({**groups, SERIES: [{**groups, INSTANCES: [groups]}]})
    out = Deidentifier(Request(dicom_version=edition), key=KEY).rewrite(data)
    tree = read(out)
    assert [tag for tag in tree if tag >> 16 > 0x0028 or tag & 0x10000] == []
    inside = tree[SERIES]
    assert isinstance(inside, list) and inside[0].keys() == {THICKNESS, INSTANCES} and b"Zubi" not in out


@pytest.mark.parametrize("kind", ["R", "G"])
def test_clean_graphics_keeps_what_marks_regions(kind: str) -> None:
    """Under Clean Graphics a region's bits and numbers stay, and no text; graphics may be text and go (E.3.3)."""
    overlay: Plan = {
        0x60000010: ("US", 2), 0x60000011: ("US", 8), 0x60000022: ("LO", "Zubikax"), 0x60000040: ("CS", kind),
        0x60000050: ("SS", b"\1\0\1\0"), 0x60000100: ("US", 1), 0x60000102: ("US", 0), 0x60001500: ("LO", "Zubikax"),
        0x60003000: ("OW", b"\1\2"), 0x60004000: ("LT", "Zubikax"), 0x50003000: ("OW", b"Zubi"),
    }  # fmt: skip
    data = instance({**overlay, SERIES: [overlay]})
    out = Deidentifier(Request(options=("CleanGraphics",)), key=KEY).rewrite(data)
    left = {0x60000010, 0x60000011, 0x60000040, 0x60000050, 0x60000100, 0x60000102, 0x60003000}
    tree = read(out)
    assert {tag for tag in tree if tag >> 24 in (0x50, 0x60)} == (left if kind == "R" else set())
    assert tree[SERIES] == [{}] and b"Zubi" not in out


@pytest.mark.parametrize("tag", STRUCTURED, ids="{:08X}".format)
@pytest.mark.parametrize("sop_class", CLASSES.values(), ids=CLASSES)
def test_structured_content_stays_only_under_its_option(sop_class: str, tag: int) -> None:
    """Content goes whole or is replaced by a dummy, as its Type asks; cleaned, it stays with what names nobody (E.3.4)."""
    code: Plan = {0x00080100: ("SH", "121071"), 0x00080102: ("SH", "DCM"), 0x00080104: ("LO", "Finding")}
    item: Plan = {
        0x0040A010: ("CS", "CONTAINS"),
        0x0040A040: ("CS", "TEXT"),
        0x0040A043: [code],
        0x0040A160: ("UT", "Zubikax"),
    }
    data = instance({tag: [item], PATIENT_NAME: ("PN", "Zubikax"), PATIENT_ID: ("LO", "4711")}, sop_class)
    basic = read(Deidentifier(key=KEY).rewrite(data))
    wish = Naive().expected(read(data), sop_class)
    for mark in MARKS:
        basic.pop(mark)
    assert list(mismatches(wish, basic)) == []
    cleaned = Deidentifier(Request(options=("CleanStructuredContent",)), key=KEY).rewrite(data)
    assert b"Finding" in cleaned and b"ubikax" not in cleaned


def test_2008_protects_what_it_names_and_each_sequence_as_a_whole() -> None:
    """Each of its attributes is protected; a sequence that holds one goes whole, or by its Type (PS3.15-2008 E.1.1)."""
    tags = [tag for tag in sorted(rows("2008")) if tag >> 16 > 4]
    accession: Plan = {0x00080050: ("SH", "Zubikax")}
    data = instance({**values(tags, "Zubikax"), SERIES: [{INSTANCES: [accession]}], REQUESTED: [accession]})
    request = Request(dicom_version="2008", supplement=False)
    before, after = read(data), read(Deidentifier(request, key=KEY).rewrite(data))
    for mark in MARKS:
        after.pop(mark, None)
    wish = Naive("2008", ours=False).expected(before)
    assert REQUESTED in before and REQUESTED not in after
    assert list(mismatches(wish, after)) == []
    plain = instance({PATIENT_ID: ("LO", "4711"), SERIES: [{INSTANCES: [{THICKNESS: ("DS", "1.5")}]}]})
    assert read(Deidentifier(request, key=KEY).rewrite(plain))[SERIES] == read(plain)[SERIES]

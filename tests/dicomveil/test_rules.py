"""A request's lines, against a naive reading of them: on random data sets, and case by case."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomveil import Deidentifier, standard
from dicomveil.body import parse_request
from dicomveil.compile import compile_request
from dicomveil.request import Request
from dicomveil.rewrite import Rewriter, Rewritten
from dicomveil.scan import scan_instance
from dicomveil.schema import MEMBERS, PIXEL_OPTIONS
from dicomveil.schema import OPTIONS as EVERY_OPTION
from dicomveil.stream import BytesSource
from dicomveil.study import Identities, build_study_map
from dicomveil.testing import BIG, CT, DEFLATED, EXPLICIT, IMPLICIT
from tests.corpora import KEY
from tests.dicomveil.test_options import check
from tests.dicomveil.test_options import rewritten as rewritten_case
from tests.oracles.naive_reading import (
    FULL,
    KEYS,
    MARKS,
    MODIFIED,
    Leaf,
    Line,
    Naive,
    Plan,
    Tree,
    instance,
    mismatches,
    read,
)

DCMDUMP = shutil.which("dcmdump")
RANDOM = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
FEWER = settings(RANDOM, max_examples=40)
MMC, MEDCOM = "MMCPrivate", "SIEMENS MEDCOM HEADER"
PET, DD = "Philips PET Private Group", "Philips Imaging DD 001"
SYNTAXES = st.sampled_from([EXPLICIT, IMPLICIT, BIG, DEFLATED])
OPTIONS = [option for option in EVERY_OPTION if option not in PIXEL_OPTIONS]
OPTION_SETS = st.lists(st.sampled_from(OPTIONS), max_size=3, unique=True).filter(
    lambda it: not {FULL, MODIFIED} <= set(it)
)

# By tag: VR, and values that a data set may hold.
LEAVES: dict[int, tuple[str, list[str]]] = {
    0x00080000: ("UL", ["abcd"]),
    0x00080050: ("SH", ["Zubikax", ""]),
    0x00080020: ("DA", ["20240315", ""]),
    0x00080080: ("LO", ["Zubikax"]),
    0x00081010: ("SH", ["Zubikax"]),
    0x00081030: ("LO", ["Zubikax", "Chest", "Chest Zubikax"]),
    0x0008103E: ("LO", ["Zubikax", "Chest"]),
    0x00081150: ("UI", [CT]),
    0x00081155: ("UI", ["1.2.3.4.5", "1.2.3.4", "1.2.3.77", ""]),
    0x00081195: ("UI", ["1.2.3.78"]),
    0x00080102: ("SH", ["DCM", "99LOCAL"]),
    0x00080104: ("LO", ["Zubikax"]),
    0x0008FFF0: ("LO", ["Zubikax"]),
    0x00100010: ("PN", ["Zubikax^Wolemix", ""]),
    0x00100020: ("LO", ["4711", "0815", "", "NONE"]),
    0x00101010: ("AS", ["047Y"]),
    0x00104000: ("LT", ["Zubikax"]),
    0x00180050: ("DS", ["1.5", ""]),
    0x00181000: ("LO", ["Zubikax"]),
    0x00181200: ("DA", ["20240315"]),
    0x0008002A: ("DT", ["20240315101112"]),
    0x00200052: ("UI", ["1.2.3.4.9", "1.2.840.10008.1.4.1.1"]),
}
SEQUENCES = [0x00081115, 0x00081140, 0x00081110, 0x00081199, 0x00400275, 0x00082112, 0x52009230]
# By group, Private Creator and low byte: VR and a value; known to pydicom, so that every encoding reads the same.
PRIVATE = {
    (0x0029, MMC, 0x00): ("LO", "Zubikax"),
    (0x0029, MMC, 0x34): ("UI", "1.2.3.79"),
    (0x0029, MMC, 0x31): ("SQ", ""),
    (0x0029, MEDCOM, 0x09): ("LO", "Zubikax"),
    (0x7053, PET, 0x00): ("DS", "1.5"),
    (0x2001, DD, 0x50): ("LO", "Zubikax"),
    (0x2001, DD, 0x52): ("UI", "1.2.3.80"),
    (0x2001, DD, 0x5F): ("SQ", ""),
}
BLOCKS = {
    MMC: (0x0029, (0x10, 0x11)),
    MEDCOM: (0x0029, (0x12, 0x40)),
    PET: (0x7053, (0x10, 0xEE)),
    DD: (0x2001, (0x10,)),
}
KNOWN_VRS = {key: vr for key, (vr, _) in PRIVATE.items()}
WRITTEN = {
    "AS": "009Y", "DA": "20010203", "DS": "9.5", "DT": "20010203", "LO": "New", "LT": "New", "PN": "New^Name", "SH": "New",
    "UI": "1.9.9",
}  # fmt: skip
IDENTIFIERS = ("00100020", "0020000D", "0020000E", "00080018")
MASKS = ["000810xx", "000811xx", "0018xxxx", "00290010", "002910xx", "0029xxxx", "7053xxxx"]
REPLACEABLE = [tag for tag, (vr, _) in LEAVES.items() if vr in WRITTEN and tag not in (0x00080102, 0x0008FFF0)]


@st.composite
def plans(draw, depth: int = 0) -> Plan:
    """A data set or Item: leaves, sequences to a depth of three, private blocks, and one element without a creator."""
    plan: Plan = {}
    for tag in draw(st.lists(st.sampled_from(sorted(LEAVES)), max_size=7, unique=True)):
        vr, values = LEAVES[tag]
        value = draw(st.sampled_from(values))
        plan[tag] = (vr, value.encode() if vr == "UL" else value)
    for tag in draw(st.lists(st.sampled_from(SEQUENCES), max_size=2, unique=True)) if depth < 3 else []:
        plan[tag] = draw(st.lists(plans(depth + 1), max_size=3))
    for creator in draw(st.lists(st.sampled_from(sorted(BLOCKS)), max_size=2, unique=True)):
        group, blocks = BLOCKS[creator]
        block = draw(st.sampled_from(blocks))
        plan[group << 16 | block] = ("LO", creator)
        for _, _, low in draw(st.lists(st.sampled_from([key for key in PRIVATE if key[1] == creator]), max_size=3)):
            vr, value = PRIVATE[group, creator, low]
            inside = draw(st.lists(plans(depth + 1), max_size=2)) if vr == "SQ" and depth < 3 else []
            plan[group << 16 | block << 8 | low] = inside if vr == "SQ" else (vr, value)
    if draw(st.booleans()):
        plan[0x00297701] = ("LO", "Zubikax")
    return plan


@st.composite
def steps(draw) -> tuple[str, str, int]:
    private = [key for key, (vr, _) in PRIVATE.items() if vr == "SQ"]
    of = draw(st.one_of(st.sampled_from(SEQUENCES), st.sampled_from(private)))
    item = draw(st.sampled_from([-1, -1, 0, 1]))
    return (*_names(of), item)


def _names(of: "int | tuple[int, str, int]") -> tuple[str, str]:
    return (f"{of:08X}", "") if isinstance(of, int) else (f"{of[0]:04X}00{of[2]:02X}", of[1])


@st.composite
def lines(draw) -> Line:
    """One entry of Keep, Replace or Remove that a request may have."""
    kind = draw(st.sampled_from(["keep", "replace", "remove"]))
    if kind == "replace":
        leaves = [key for key, (vr, _) in PRIVATE.items() if vr != "SQ"]
        of = draw(st.one_of(st.sampled_from(REPLACEABLE), st.sampled_from(leaves)))
        name, creator = _names(of)
        vr = LEAVES[of][0] if isinstance(of, int) else PRIVATE[of][0]
    else:
        every = [*LEAVES, *SEQUENCES, 0x0020000D, 0x0020000E, 0x00080018]
        known = [tag for tag in every if tag & 0xFFFF and tag != 0x0008FFF0]
        choices = st.one_of(st.sampled_from(known), st.sampled_from(sorted(PRIVATE)))
        name, creator = draw(st.one_of(choices.map(_names), st.sampled_from(MASKS).map(lambda mask: (mask, ""))))
    way = draw(st.one_of(st.just(()), st.lists(steps(), min_size=1, max_size=2).map(tuple)))
    anywhere = not way and draw(st.booleans())
    if kind == "remove" and (name == "00290010" or (not way and name in IDENTIFIERS)):
        kind = "keep"
    value = WRITTEN[vr] if kind == "replace" else ""
    if kind == "replace" and name not in ("00100020", "00200052"):
        value = draw(st.sampled_from([value, ""]))
    return Line(kind, name, creator, way, anywhere, value)


def sound(asked: list[Line]) -> tuple[Line, ...]:
    """Each attribute once in each member, and no path into what another line removes whole: a request has none."""
    once = {(line.kind, line.text): line for line in asked}.values()
    removed = [(line.steps, (line.name, line.creator)) for line in once if line.kind == "remove"]
    return tuple(
        line
        for line in once
        if not any((line.steps[:at], line.steps[at][:2]) in removed for at in range(len(line.steps)))
    )


ASKED = st.lists(lines(), max_size=6).map(sound)


def body(asked: tuple[Line, ...], **more: object) -> dict[str, object]:
    """The lines as a request has them."""
    told: dict[str, object] = {
        "Keep": [line.text for line in asked if line.kind == "keep"],
        "Remove": [line.text for line in asked if line.kind == "remove"],
        "Replace": {line.text: line.value for line in asked if line.kind == "replace"},
        "Force": True,
    }
    return told | more


def rewritten(request: Request, data: bytes) -> dict:
    """What the engine makes of a file, without the marks, as pydicom reads it."""
    tree = read(Deidentifier(request, key=KEY).rewrite(data))
    for mark in MARKS:
        tree.pop(mark, None)
    return tree


@RANDOM
@given(plans(), ASKED, OPTION_SETS, st.booleans(), st.booleans(), SYNTAXES, st.booleans())
def test_a_request_does_what_its_lines_say(
    plan: Plan,
    asked: tuple[Line, ...],
    options: list[str],
    keep_private: bool,
    map_in_kept: bool,
    uid: str,
    undefined: bool,
) -> None:
    """Any lines on any data set, in any encoding: what comes out is what a naive reading of the lines asks for."""
    told = body(asked, Options=options, KeepPrivateTags=keep_private, MapUIDsInKept=map_in_kept)
    request = parse_request(json.dumps(told))
    data = instance(plan, uid=uid, undefined=undefined)
    safe = frozenset(standard.safe_private(standard.NEWEST)) if "RetainSafePrivate" in options else frozenset()
    naive = Naive(
        options=request.options,
        lines=asked,
        keep_private=keep_private,
        map_in_kept=map_in_kept,
        vrs=KNOWN_VRS,
        safe=safe,
    )
    assert list(mismatches(naive.expected(read(data)), rewritten(request, data))) == []


def decided(request: Request, data: bytes) -> Rewritten:
    """An instance as the pipeline rewrites it."""
    identities, scan = Identities(KEYS, request), scan_instance(BytesSource(data), listening=request.cleans_text)
    study_map = build_study_map((scan,), identities)
    return Rewriter(compile_request(request), KEYS).rewrite(BytesSource(data), scan, study_map)


@FEWER
@given(plans(), ASKED, OPTION_SETS, st.booleans(), SYNTAXES)
def test_every_element_is_decided_once(
    plan: Plan, asked: tuple[Line, ...], options: list[str], keep_private: bool, uid: str
) -> None:
    """No element is changed twice, each change names its reason, and both doors of the engine open alike."""
    request = parse_request(json.dumps(body(asked, Options=options, KeepPrivateTags=keep_private)))
    data = instance(plan, uid=uid)
    out = decided(request, data)
    paths = [change.path for change in out.changes]
    assert len(paths) == len(set(paths)) and all(change.rule for change in out.changes)
    assert out.to_bytes() == Deidentifier(request, key=KEY).rewrite(data)


@FEWER
@given(plans(), ASKED, OPTION_SETS, st.randoms(use_true_random=False))
def test_how_a_body_is_written_changes_nothing(
    plan: Plan, asked: tuple[Line, ...], options: list[str], random: Random
) -> None:
    """Entries in another order, in another spelling or twice ask for the same: one fingerprint, the same bytes."""
    one = parse_request(json.dumps(body(asked, Options=options)))
    shuffled = list(asked)
    random.shuffle(shuffled)
    told = body(tuple(shuffled), Options=options[::-1])
    other = parse_request(
        yaml.safe_dump(
            {
                "Options": told["Options"],
                "Force": True,
                "Replace": {spelled(text, random): value for text, value in told["Replace"].items()},
                "Remove": [spelled(text, random) for text in (*told["Remove"], *told["Remove"])],
                "Keep": [spelled(text, random) for text in told["Keep"]],
            }
        )
    )
    data = instance(plan)
    assert one.fingerprint == other.fingerprint
    assert Deidentifier(one, key=KEY).rewrite(data) == Deidentifier(other, key=KEY).rewrite(data)


def spelled(text: str, random: Random) -> str:
    """A path with each plain tag in another of the ways that it may be written in."""

    def another(found: re.Match[str]) -> str:
        group, element = found[1], found[2]
        keyword = standard.dictionary().get(int(group + element, 16)) if "x" not in element else None
        ways = [f"{group}-{element}", f"{group}{element}", f"({group},{element})", f" {group.lower()} , {element} "]
        return random.choice([*ways, keyword.keyword] if keyword else ways)

    return re.sub(r"(?<![\[(])([0-9A-F]{4}),([0-9A-Fx]{4})", another, text)


@FEWER
@given(plans(), SYNTAXES, OPTION_SETS)
def test_without_lines_and_options_it_is_the_basic_profile(plan: Plan, uid: str, options: list[str]) -> None:
    """An empty body, and one that says every default, give the Basic Profile byte for byte; Options alone don't."""
    data = instance(plan, uid=uid)
    basic = Deidentifier(key=KEY).rewrite(data)
    defaults = {
        name: it.schema["default"]
        for name, it in MEMBERS.items()
        if "anonymize" in it.commands and "default" in it.schema
    }
    for text in ("", "{}", "Options: []\nKeep: []\nReplace: {}\n", json.dumps(defaults)):
        request = parse_request(text)
        assert request.fingerprint == Request().fingerprint
        assert Deidentifier(request, key=KEY).rewrite(data) == basic
    with_options = Request(options=parse_request(json.dumps({"Options": options})).options)
    assert Deidentifier(replace(with_options, options=()), key=KEY).rewrite(data) == basic
    assert (Deidentifier(with_options, key=KEY).rewrite(data) == basic) == (not options)


@pytest.mark.skipif(not DCMDUMP, reason="dcmdump (Debian: dcmtk) is not installed")
@pytest.mark.parametrize("uid", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
def test_another_reader_reads_what_lines_made(uid: str, tmp_path: Path) -> None:
    """dcmdump reads to its end whatever requests write, in every encoding, and counts the same elements."""

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(plans(), ASKED, OPTION_SETS)
    def dumped(plan: Plan, asked: tuple[Line, ...], options: list[str]) -> None:
        request = parse_request(json.dumps(body(asked, Options=options, KeepPrivateTags=True)))
        path = tmp_path / "out.dcm"
        path.write_bytes(Deidentifier(request, key=KEY).rewrite(instance(plan, uid=uid)))
        run = subprocess.run([str(DCMDUMP), "-q", str(path)], capture_output=True)
        told = [line for line in run.stdout.decode("latin-1").splitlines() if re.match(r" *\((?!fffe|0002)", line)]
        assert run.returncode == 0 and not run.stderr
        if uid != IMPLICIT:  # where it knows no private sequence
            assert len(told) == count(read(path.read_bytes()))

    dumped()


def count(tree: Tree) -> int:
    """All elements of a data set."""
    return sum(1 if isinstance(what, Leaf) else 1 + sum(map(count, what)) for what in tree.values())


CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "rules.yaml").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_each_line_does_what_its_case_says(case: dict) -> None:
    """Each attribute of a case comes out as its "after" says."""
    before, after = rewritten_case(case)
    check(case["after"], before, after, before)

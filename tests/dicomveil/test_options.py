"""tests/cases/options.yaml, through the engine: what each Option of PS3.15 E.3 keeps, cleans and says of itself."""

from pathlib import Path

import pytest
import yaml

from dicomveil import Deidentifier, standard
from dicomveil.body import parse_request
from dicomveil.schema import OPTIONS, PIXEL_OPTIONS
from dicomveil.testing import CT
from tests.corpora import KEY
from tests.oracles.naive_reading import Identities, Leaf, Naive, Plan, Tree, instance, legal, read

FOLDER = Path(__file__).parent.parent / "cases"
CASES = yaml.safe_load((FOLDER / "options.yaml").read_text())
KEYWORDS = {element.keyword: (tag, element.vr.split(" ")[0]) for tag, element in standard.dictionary().items()}


def plan(values: dict) -> Plan:
    """A data set of a case: by keyword, or by tag and VR, "00291010 LO"; lists are Items."""
    laid: Plan = {}
    for name, value in values.items():
        tag, vr = _meant(name)
        if isinstance(value, list):
            laid[tag] = [plan(item) for item in value]
        else:
            laid[tag] = (vr, value if isinstance(value, int) else str(value))
    return laid


def _meant(name: str) -> tuple[int, str]:
    if name in KEYWORDS:
        return KEYWORDS[name]
    tag, _, vr = name.partition(" ")
    return int(tag, 16), vr


def rewritten(case: dict) -> tuple[Tree, Tree]:
    """A case's data set, and what becomes of it."""
    patient = {"PatientID": "4711", "PatientName": "Bodox^Kalex"}
    data = instance(plan(patient | case["before"]), case.get("sop_class", CT))
    request = parse_request(yaml.safe_dump(case["request"]))
    return read(data), read(Deidentifier(request, key=KEY).rewrite(data))


def check(wishes: dict, before: Tree, after: Tree, whole: Tree) -> None:
    """Whether each attribute that a case names is what it says."""
    for name, wish in wishes.items():
        tag = _meant(name)[0]
        was, now = before.get(tag), after.get(tag)
        if isinstance(wish, list):
            assert isinstance(now, list) and len(now) == len(wish), name
            items = was if isinstance(was, list) and len(was) == len(now) else [{} for _ in now]
            for inside, one, other in zip(wish, items, now, strict=True):
                check(inside, one, other, whole)
        elif wish == "absent":
            assert now is None, name
        else:
            assert isinstance(now, Leaf), name
            assert now.text == _value(wish, was, whole) if wish != "dummy" else _is_dummy(tag, was, now), name


def _value(wish: object, was: "Leaf | list[Tree] | None", whole: Tree) -> str:
    known, old = Identities(whole, Naive()), was.text if isinstance(was, Leaf) else ""
    if wish == "kept":
        return old
    if wish == "mapped":
        return "\\".join(known.uid(uid, "") for uid in old.split("\\"))
    if wish == "shifted":
        return known.shifted(old)
    return known.name if wish == "pseudonym" else str(wish)


def _is_dummy(tag: int, was: "Leaf | list[Tree] | None", now: Leaf) -> bool:
    return legal(tag, now) and isinstance(was, Leaf) and now.text != was.text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_each_option_does_what_its_case_says(case: dict) -> None:
    """Each attribute of a case comes out as its "after" says."""
    before, after = rewritten(case)
    check(case["after"], before, after, before)


def test_each_option_has_a_case() -> None:
    """No Option that can be asked for goes without a case that someone can read."""
    asked = {option for case in CASES for option in case["request"].get("Options", [])}
    assert asked == set(OPTIONS) - set(PIXEL_OPTIONS)

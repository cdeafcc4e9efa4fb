"""A real Orthanc and dicomveil carry out the same bodies on the same studies, and differ only where a list says why.

The list is orthanc_differences.yaml. It says what such a difference is like, never in which file it stands.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dicomveil import Deidentifier
from dicomveil.body import parse_request
from dicomveil.errors import RequestError, Unsuitable
from dicomveil.testing import write_demo_study
from tests.corpora import KEY
from tests.oracles.orthanc_comparison import (
    Comparison,
    Difference,
    Explanation,
    Leaf,
    Tree,
    explanations,
    read,
    unexplained,
)
from tests.oracles.orthanc_server import ABSENT, ORTHANC, Answer, anonymize
from tests.oracles.orthanc_studies import MADE_UP, SMALL, made_up, real

needs_orthanc = pytest.mark.skipif(not ORTHANC, reason=ABSENT)
HERE = Path(__file__).parent
EDITIONS = ("2008", "2017c", "2021b")
Body = dict[str, Any]
CASES = yaml.safe_load((HERE / "orthanc_requests.yaml").read_text(encoding="utf-8"))
BODIES: dict[str, Body] = CASES["obeyed"]
BOTH, WE, THEY = CASES["refused"], CASES["refused by dicomveil"].values(), CASES["refused by Orthanc"].values()
FEW = {"nothing": EDITIONS, "keep private tags": EDITIONS[-1:]}
"""The bodies that large and real studies are put to, with the editions."""
PLAIN = {"Supplement": False, "PrivateSOPClass": "strip", "BurnedIn": "pass", "BitstreamComments": "keep"}
"""dicomveil as far as Table E.1-1 goes, and no further."""

Request = tuple[str, str, Body]  # (name of the studies, of the body, body)


def requests(studies: dict[str, list[Path]]) -> list[Request]:
    """Every body on small studies that are made for them; a few on others."""
    return [
        (study, name, body | {"DicomVersion": edition})
        for study in studies
        for name, body in BODIES.items()
        for edition in (EDITIONS if study in SMALL else FEW.get(name, ()))
    ]


def by_us(body: Body, paths: list[Path], folder: Path) -> Iterator[tuple[Path, Path]]:
    """What dicomveil makes of files; those that it sets aside are missing."""
    engine = Deidentifier(parse_request(json.dumps(body | PLAIN)), key=KEY)
    for path in paths:
        try:
            out = engine.rewrite(path.read_bytes())
        except Unsuitable:
            continue
        new = folder / hashlib.sha256(str(path).encode()).hexdigest()[:16]
        new.write_bytes(out)
        yield path, new


def compare(request: Request, answer: Answer, befores: dict[Path, Tree], folder: Path) -> tuple[list[Difference], int]:
    """What differs, and how many elements don't."""
    _, _, body = request
    ours = dict(by_us(body, list(answer.outputs), folder))
    comparison = Comparison(body["DicomVersion"], body)
    copies = [(befores[path], read(new), read(answer.outputs[path])) for path, new in ours.items()]
    return list(comparison.differences(copies)), comparison.agreed


@needs_orthanc
@pytest.mark.long
def test_every_difference_is_explained(tmp_path: Path) -> None:
    """Orthanc and dicomveil agree on every element, but for what a row of E.1-1 or a defect of Orthanc explains."""
    studies = made_up(tmp_path / "made up") | real()
    asked = requests(studies)
    (server := tmp_path / "orthanc").mkdir()
    answers = anonymize(server, studies, [(study, body) for study, _, body in asked])
    listed = explanations(HERE / "orthanc_differences.yaml")
    (folder := tmp_path / "ours").mkdir()
    befores: dict[Path, Tree] = {}
    strange: Counter[str] = Counter()
    agreed: Counter[str] = Counter()
    for request, answer in zip(asked, answers, strict=True):
        study, name, edition = request[0], request[1], request[2]["DicomVersion"]
        if study in MADE_UP:
            assert answer.status == 200, f"{name}: {answer.detail}"
        befores = {path: befores[path] if path in befores else read(path) for path in answer.outputs}
        differences, same = compare(request, answer, befores, folder)
        agreed[name] += same
        for it in unexplained(differences, listed):
            strange[
                f"{name} {edition} ({study}): {it.path} {it.code or 'no row'}, ours {it.ours}, theirs {it.theirs}"
            ] += 1
    assert sorted(strange) == []
    assert [it.name for it in listed if not it.explains] == []
    assert min(agreed[name] for name in BODIES) > 1000


def refusal(body: Body) -> bool:
    """Whether dicomveil refuses a body."""
    try:
        parse_request(json.dumps(body))
    except RequestError:
        return True
    return False


@needs_orthanc
def test_orthanc_refuses_what_the_list_says(tmp_path: Path) -> None:
    """The list of what Orthanc refuses is true, and so is that of what it takes though it shouldn't."""
    study = write_demo_study(tmp_path / "demo")
    (server := tmp_path / "orthanc").mkdir()
    bodies = [*BOTH, *THEY, *WE]
    answers = anonymize(server, {"demo": study}, [("demo", body) for body in bodies])
    obeyed = [body for body, answer in zip(bodies, answers, strict=True) if answer.status == 200]
    assert obeyed == list(WE)


@pytest.mark.parametrize("body", [*BOTH, *WE], ids=json.dumps)
def test_dicomveil_refuses_what_orthanc_refuses(body: Body) -> None:
    """What can't be meant, can't be done or can't be told apart is refused before anything runs."""
    assert refusal(body)


@pytest.mark.parametrize("body", [*THEY, *BODIES.values()], ids=json.dumps)
def test_dicomveil_takes_what_can_be_done(body: Body) -> None:
    """What Orthanc 1.10.1 obeys, and what only newer ones do, is no mistake."""
    assert not refusal(body)


def test_a_difference_that_nothing_explains_is_told() -> None:
    """An element that one copy has lost, changed or mapped to two names is found, so that silence means something."""
    uid, name = Leaf("UI", b"1.2"), Leaf("PN", b"Bodox")
    before: Tree = {0x00080018: uid, 0x00100010: name, 0x00081110: [{0x00081155: uid, 0x00100030: Leaf("DA", b"2024")}]}
    ours: Tree = {0x00080018: Leaf("UI", b"2.1"), 0x00081110: [{0x00081155: Leaf("UI", b"2.1")}]}
    theirs: Tree = {0x00080018: Leaf("UI", b"3.1"), 0x00081110: [{0x00081155: Leaf("UI", b"3.2")}], 0x00100010: name}
    listed = [Explanation("names", "", {"tag": {"PatientName"}, "theirs": {"kept"}})]
    found = list(Comparison("2021b", {}).differences([(before, ours, theirs)]))
    assert [(it.path, it.ours, it.theirs) for it in found] == [
        ("ReferencedStudySequence[0].ReferencedSOPInstanceUID", "mapped", "unlinked"),
        ("PatientName", "absent", "kept"),
    ]
    assert [it.tag for it in unexplained(found, listed)] == ["ReferencedSOPInstanceUID"]
    assert listed[0].explains == 1

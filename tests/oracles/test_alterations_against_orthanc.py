"""A real Orthanc and dicomveil modify, split and merge the same studies by the same bodies, and differ only where a
list says why.

The list is orthanc_alteration_differences.yaml, what is asked for orthanc_alterations.yaml. Instances that Orthanc
leaves alone count as its outputs as they were.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from dicomveil import standard
from dicomveil.body import parse_request
from dicomveil.errors import RequestError, Unsuitable
from dicomveil.testing import write_demo_study
from tests.oracles.altered_in_process import alter
from tests.oracles.orthanc_comparison import (
    INSTANCE,
    PATIENT_ID,
    SERIES,
    STUDY,
    Comparison,
    Difference,
    Leaf,
    Tree,
    explanations,
    read,
    unexplained,
)
from tests.oracles.orthanc_server import ABSENT, ORTHANC, Altered
from tests.oracles.orthanc_server import alter as alter_by_orthanc
from tests.oracles.orthanc_studies import awkward, clinic, every_attribute, real

needs_orthanc = pytest.mark.skipif(not ORTHANC, reason=ABSENT)
HERE = Path(__file__).parent
CASES = yaml.safe_load((HERE / "orthanc_alterations.yaml").read_text(encoding="utf-8"))
Case = dict[str, Any]
OBEYED: dict[str, Case] = CASES["obeyed"]
BOTH = CASES["refused"]
WE, THEY = list(CASES["refused by dicomveil"].values()), list(CASES["refused by Orthanc"].values())


def studies(folder: Path) -> dict[str, list[Path]]:
    """What the bodies are about, without what has no Patient ID: to Orthanc that is another study."""
    return {
        "demo": write_demo_study(folder / "demo"),
        "clinic": clinic(folder / "clinic"),
        "awkward": [path for path in awkward(folder / "awkward") if path.name != "2.dcm"],
        "every attribute": every_attribute(folder / "every"),
    }


def of_real_studies(there: dict[str, list[Path]], befores: dict[Path, Tree]) -> dict[str, Case]:
    """Bodies for real studies: all of each modified, and its first series split off where there are others."""
    cases = {}
    for name, paths in there.items():
        study = _text(befores[paths[0]], STUDY)
        written = {"Replace": {"StudyDescription": "X", "PatientComments": "Y"}, "Remove": ["PatientBirthDate"]}
        whole = {"Level": "Study", "Resources": [{"StudyInstanceUID": study}], **written}
        cases[f"modify {name}"] = {"of": name, "command": "modify", "body": whole}
        series = sorted({_text(befores[path], SERIES) for path in paths})
        if len(series) > 1:
            taken = {"Series": [{"SeriesInstanceUID": series[0]}], **written}
            cases[f"split {name}"] = {"of": name, "command": "split", "body": taken}
    return cases


def _text(tree: Tree, tag: int) -> str:
    leaf = tree.get(tag)
    return leaf.value.decode() if isinstance(leaf, Leaf) else ""


def plain(there: dict[str, list[Path]], befores: dict[Path, Tree]) -> dict[str, list[Path]]:
    """The studies that are one study to Orthanc too, without the instances that dicomveil sets aside."""
    found = {name: [path for path in paths if _suitable(path)] for name, paths in there.items()}
    ids = {name: {_text(befores[path], PATIENT_ID) for path in paths} for name, paths in found.items()}
    apart = {name for name, paths in found.items() if len({_told_apart(befores[it]) for it in paths}) < len(paths)}
    return {name: paths for name, paths in found.items() if len(ids[name]) == 1 and name not in apart}


def _suitable(path: Path) -> bool:
    try:
        return bool(alter("modify", {}, {"": path.read_bytes()}))
    except Unsuitable:
        return False


def _told_apart(tree: Tree) -> bytes:
    """What split and merge leave of an instance, so that a copy is known by it."""
    gone = standard.study_modules() | {SERIES, INSTANCE}
    left = {tag: node for tag, node in tree.items() if tag not in gone and not tag & 0x10000}
    return hashlib.sha256(repr(left).encode()).digest()


def by_orthanc(answer: Altered, befores: dict[Path, Tree]) -> dict[Path, Tree]:
    """What each instance is after Orthanc's work, by its source; of those that it left alone what they were."""
    by_content = {_told_apart(befores[path]): path for path in answer.stored}
    assert len(by_content) == len(answer.stored)
    found = {path: befores[path] for path in answer.stored}
    for source, new in answer.outputs:
        tree = read(new)
        found[source or by_content[_told_apart(tree)]] = tree
    return found


@needs_orthanc
@pytest.mark.long
def test_every_difference_is_explained(tmp_path: Path) -> None:
    """Orthanc and dicomveil agree on every element of what they modify, split and merge, but for what the list tells."""
    there, known = studies(tmp_path / "studies"), real()
    befores = {path: read(path) for paths in [*there.values(), *known.values()] for path in paths}
    known = plain(known, befores)
    cases = OBEYED | of_real_studies(known, befores)
    (server := tmp_path / "orthanc").mkdir()
    asked = [(it["of"], it["command"], it["body"]) for it in cases.values()]
    answers = alter_by_orthanc(server, there | known, asked)
    listed = explanations(HERE / "orthanc_alteration_differences.yaml")
    strange: Counter[str] = Counter()
    compared = 0
    for (name, case), answer in zip(cases.items(), answers, strict=True):
        if case["of"] in known and answer.status != 200:
            continue  # there are files that Orthanc doesn't take, or can't write
        assert answer.status == 200, f"{name}: {answer.detail}"
        differences, agreed, changed = _compared(case, answer, befores, tmp_path)
        assert agreed > 5 and len(answer.outputs) == changed, f"{name}: {len(answer.outputs)} {changed}"
        compared += 1
        for it in unexplained(differences, listed):
            strange[f"{name}: {it.path} {it.role}, ours {it.ours}, theirs {it.theirs}"] += 1
    assert sorted(strange) == []
    assert [it.name for it in listed if not it.explains] == []
    assert compared > len(OBEYED) + 20


def _compared(
    case: Case, answer: Altered, befores: dict[Path, Tree], folder: Path
) -> tuple[list[Difference], int, int]:
    """What differs, how many elements don't, and how many instances we changed."""
    theirs = by_orthanc(answer, befores)
    done = alter(case["command"], case["body"], {str(path): path.read_bytes() for path in answer.stored})
    comparison = Comparison("2021b", case["body"], pseudonyms=False)
    copies = []
    for source, content in done.outputs.items():
        (new := folder / "ours.dcm").write_bytes(content)
        copies.append((befores[Path(source)], read(new), theirs[Path(source)]))
    return list(comparison.differences(copies)), comparison.agreed, len(done.selected)


def test_each_difference_stands_in_the_documents() -> None:
    """Who comes from Orthanc finds each difference in docs/orthanc.md, by its name."""
    text = (HERE.parents[1] / "docs" / "orthanc.md").read_text(encoding="utf-8")
    section = text.split("## Modify, split and merge: what differs")[1].split("\n## ")[0]
    names = [it.name for it in explanations(HERE / "orthanc_alteration_differences.yaml")]
    assert [name for name in names if f"`{name}`" not in section] == []


def refusal(case: Case) -> bool:
    """Whether dicomveil refuses a body."""
    try:
        parse_request(json.dumps(case["body"]), command=case["command"])
    except RequestError:
        return True
    return False


@needs_orthanc
def test_orthanc_refuses_what_the_list_says(tmp_path: Path) -> None:
    """The list of what Orthanc refuses is true, and so is that of what it takes though it shouldn't."""
    (server := tmp_path / "orthanc").mkdir()
    cases = [*BOTH, *THEY, *WE]
    asked = [("demo", it["command"], it["body"]) for it in cases]
    answers = alter_by_orthanc(server, {"demo": write_demo_study(tmp_path / "demo")}, asked)
    assert [case for case, answer in zip(cases, answers, strict=True) if answer.status == 200] == WE


@pytest.mark.parametrize("case", [*BOTH, *WE], ids=json.dumps)
def test_dicomveil_refuses_what_orthanc_refuses(case: Case) -> None:
    """What can't be meant, can't be done or can't be told apart is refused before anything runs."""
    assert refusal(case)


@pytest.mark.parametrize("case", [*THEY, *OBEYED.values()], ids=json.dumps)
def test_dicomveil_takes_what_can_be_done(case: Case) -> None:
    """What Orthanc 1.10.1 obeys, and what only newer ones do, is no mistake."""
    assert not refusal(case)

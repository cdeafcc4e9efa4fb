"""What a run answers in Orthanc's members (`tests/cases/answers.yaml`), and that it takes no more memory for more."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dicomveil.orthanc_ids import is_resource_id, resource_id
from dicomveil.request import Request, Resource
from dicomveil.rewrite import Place
from pipelines.answer import LEVELS, Resources, Written, answer, written
from transforms.tables import INSTANCES, write_part

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "answers.yaml").read_text("utf-8"))


def instance(*identifiers: str) -> Written:
    place = Place(*identifiers)
    return Written(place, place.name)


def request(command: str = "anonymize", level: str = "Instance", resources: tuple[str, ...] = ()) -> Request:
    named = tuple(Resource(role, "1.2", False, "Resources[0]") for role in resources)
    return Request(command=command, level=level, resources=named)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_answers(case: dict[str, Any], tmp_path: Path) -> None:
    """Each command's answer has the members of Orthanc's, and names what is there."""
    there = [instance(*map(str, it)) for it in case["written"]]
    failed = case.get("failed", 0)
    told = answer(request(**case.get("request", {})), Resources(tmp_path, there), len(there) + failed, failed)
    for member, expected in case["answer"].items():
        if member in ("ID", "PatientID", "TargetStudy") and expected is not None:
            assert told[member] == resource_id(*str(expected).split("|"))
        else:
            assert told.get(member) == expected, member
    if "ID" in told:
        folder = {"Patient": "patients", "Study": "studies", "Series": "series", "Instance": "instances"}[told["Type"]]
        assert told["Path"] == f"/{folder}/{told['ID']}"
    assert [told["ResourcesCount"][level] for level in LEVELS] == case["resources"]
    assert told["ParentResources"] == []


def test_resources_are_in_orthancs_order() -> None:
    """Instances come first, then series, studies and patients, each level by identifier; each with where it is."""
    there = [instance("P1", "1.2", f"1.2.{series}", f"1.2.{series}.{n}") for series in (1, 2) for n in (1, 2)]
    entries = Resources(Path("unused"), there).entries()
    assert [entry["Type"] for entry in entries] == ["Instance"] * 4 + ["Series"] * 2 + ["Study", "Patient"]
    for level in LEVELS:
        found = [entry["ID"] for entry in entries if entry["Type"] == level]
        assert found == sorted(found) and all(map(is_resource_id, found))
    for entry in entries:
        assert entry["ID"] == resource_id(*entry["Identifiers"].values())
        assert entry["Output"].removesuffix(".dcm") == "/".join(entry["Identifiers"].values())
    assert not Path("unused").exists()


def test_what_was_set_aside_or_only_copied_is_no_answer(tmp_path: Path) -> None:
    """What the audit says was made is named; what is in the output beside it, or nowhere, isn't."""
    rows = [
        dict(zip(("patient_id", "study_instance_uid", "series_instance_uid", "sop_instance_uid"), place, strict=True))
        | {"name": place.name * (outcome not in ("quarantined", "filtered")), "outcome": outcome}
        for n, outcome in enumerate(("modified", "copied", "quarantined", "deidentified", "filtered"))
        for place in (Place("P1", "1.2", "1.3", f"1.4.{n}"),)
    ]
    name, _ = write_part(str(tmp_path), "r", INSTANCES, "0", rows)
    assert [it.place.sop_instance_uid for it in written([tmp_path / name])] == ["1.4.0", "1.4.3"]


places = st.tuples(st.sampled_from(["", "P1", "P2"]), *[st.sampled_from("abc")] * 2, st.sampled_from("abcdefgh"))


@given(st.lists(places, max_size=60, unique=True).flatmap(lambda them: st.tuples(st.just(them), st.permutations(them))))
def test_only_so_many_are_named_and_all_are_counted(
    tmp_path_factory: pytest.TempPathFactory, orders: tuple[list[tuple[str, ...]], list[tuple[str, ...]]]
) -> None:
    """Whatever is held in memory, and in whatever order instances come: the same are named, and each counts once."""
    one, other = [[instance(*it) for it in order] for order in orders]
    every = Resources(Path("unused"), one)
    few = Resources(tmp_path_factory.mktemp("resources") / "tokens", other, most=3, held=2)
    sizes = [len({it.place[: depth + 1] for it in one}) for depth in range(4)]
    assert list(every.counts().values()) == list(few.counts().values()) == sizes[::-1]
    for level in LEVELS:
        named = [
            [(it["ID"], it["Identifiers"]) for it in found.entries() if it["Type"] == level] for found in (every, few)
        ]
        assert named[1] == named[0][:3]


_MANY = """
import resource, sys
from pathlib import Path
from dicomveil.rewrite import Place
from pipelines.answer import Resources, Written

def there(count):
    for n in range(count):
        place = Place(f"P{n // 16}", f"1.2.{n // 8}", f"1.3.{n // 4}", f"1.4.{n}")
        yield Written(place, place.name)

resources = Resources(Path(sys.argv[2]), there(int(sys.argv[1])), most=1000, held=1 << 12)
resources.entries()
print(resources.counts()["Instance"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_instances(tmp_path: Path) -> None:
    """A million instances more take a few MiB more, far less than holding a name of each."""
    peaks = []
    for count in (400_000, 1_400_000):
        command = [sys.executable, "-c", _MANY, str(count), str(tmp_path / str(count))]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
        counted, peak = map(int, done.stdout.split())
        assert counted == count and not list((tmp_path / str(count)).glob("*/*"))
        peaks.append(peak * (1 if sys.platform == "darwin" else 1024))
    assert peaks[1] - peaks[0] < 24 << 20

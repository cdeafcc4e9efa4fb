"""Limits: whole studies and no more, and a run that stops in good order where too much fails."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomveil.errors import InvalidInstance
from pipelines.deferral import Total
from pipelines.limits import LimitRefused, Limits, check_failures, read_size
from pipelines.runs import Run
from tests.pipelines.test_known import Site
from tests.pipelines.test_ledger import outcomes, summary
from transforms import plans
from transforms.rewrite import Rewriting


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def studies(site: Site) -> Counter[str]:
    """How many instances of each study the ledger holds."""
    rows = [
        row
        for part in (site.restricted / "crosswalk" / "instances").rglob("*.parquet")
        for row in pq.read_table(part, partitioning=None).to_pylist()
    ]
    return Counter(row["original_study_instance_uid"] for row in rows)


def put_studies(site: Site, sizes: list[int]) -> None:
    for study, size in enumerate(sizes, 1):
        for number in range(1, size + 1):
            uid = f"1.2.{study}{number:02}"
            site.put(f"s{study}-{number}", uid=uid, study=f"1.2.3.{study}", patient=f"P{study}", frame=f"1.2.7.{study}")


def test_limited_runs_take_whole_studies_until_nothing_is_left(site: Site) -> None:
    """Each night takes as much as it may, never a part of a study, and the nights end as one run over all does."""
    sizes = [2, 3, 1, 4, 2]
    put_studies(site, sizes)
    left = sum(sizes)
    for _ in range(len(sizes)):
        site.run("--max-instances", "5")
        told = outcomes(site)
        taken = told.get("deidentified", 0)
        left -= taken
        assert 0 < taken <= 5 and told.get("not-attempted over-limit", 0) == left
        assert all(count == sizes[int(study[-1]) - 1] for study, count in studies(site).items())
        if not left:
            break
    assert left == 0 and summary(site)["Listed"] == sum(sizes)
    assert sum(studies(site).values()) == sum(sizes)
    limited = {path.name: path.read_bytes() for path in site.output.rglob("*.dcm")}
    other = Site(site.output.parent / "other")
    put_studies(other, sizes)
    other.run()
    assert limited == {path.name: path.read_bytes() for path in other.output.rglob("*.dcm")}


def test_a_plan_tells_what_a_limit_leaves(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """Which was scanned all the same, and costs that."""
    put_studies(site, [2, 2, 2])
    size = sum(path.stat().st_size for path in site.input.rglob("*") if path.is_file())
    site.run("--max-instances", "2", "--plan-only")
    told = capfd.readouterr().err
    assert "4 left for the next run" in told
    assert f"{size + size // 3:,}" in told  # all of them scanned, a third rewritten


def test_one_study_is_taken_however_large(site: Site) -> None:
    """A study beyond the limit would never be taken otherwise."""
    put_studies(site, [3, 3])
    site.run("--max-bytes", "1")
    assert outcomes(site) == {"deidentified": 3, "not-attempted over-limit": 3}


def test_a_study_too_large_to_be_held_is_set_aside(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, and nothing else; it comes out once there is room, and what was there stays as it is."""
    put_studies(site, [2, 9, 3])
    with monkeypatch.context() as small:
        small.setattr("transforms.study_groups.LARGEST", 1000)
        site.run(status=3)
        assert outcomes(site) == {"deidentified": 5, "quarantined study-too-large": 9}
        before = {path: path.stat().st_mtime_ns for path in site.output.rglob("*.dcm")}
        some = sorted(path for path in site.input.iterdir() if path.name < "s2-4")
        site.run("--reprocess", "quarantined", only=some)
        assert outcomes(site) == {"deidentified": 3, "unchanged": 2}
    site.run("--reprocess", "quarantined")
    assert outcomes(site) == {"deidentified": 6, "unchanged": 8}
    assert before.items() <= {path: path.stat().st_mtime_ns for path in site.output.rglob("*.dcm")}.items()


@pytest.mark.parametrize("limit", [[], ["--max-instances", "6"]], ids=["all", "limited"])
def test_a_plan_of_many_buckets_is_the_plan_of_few(
    limit: list[str], site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, the same studies come first, and the same bytes come out."""
    few = Site(tmp_path / "few")
    for it in (site, few):
        put_studies(it, [2, 3, 1, 4, 2])
    few.run(*limit)
    monkeypatch.setattr("transforms.plans._FEWEST", 1 << 20)
    monkeypatch.setattr("pipelines.local.Local.slice", 3)
    site.run(*limit)
    assert outcomes(site) == outcomes(few) and studies(site) == studies(few)
    written = ({path.name: path.read_bytes() for path in it.output.rglob("*.dcm")} for it in (site, few))
    assert next(written) == next(written) != {}


def test_a_plan_with_a_bucket_of_another_numbering_is_made_anew(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a cluster listed again for a worker that died, and found fewer: nothing is written, and nothing lost."""
    put_studies(site, [2, 3])

    def left_over(run: Run, _: object) -> Total:
        folder = str(run.folder)
        plans.write_instances(folder, 999, plans.read_instances(folder, plans.buckets(folder)[0]))
        return Total()

    with monkeypatch.context() as twice:
        twice.setattr("pipelines.plan.defer", left_over)
        assert "The inputs changed while they were listed once more" in site.run(status=1)
    assert not site.instances()
    site.run()
    assert outcomes(site) == {"deidentified": 5}


@pytest.mark.parametrize(("objects", "buckets"), [(0, 256), (2_000_000, 256), (10_000_000, 2048), (10**9, 131072)])
def test_a_bucket_holds_some_thousands(objects: int, buckets: int) -> None:
    """So that whoever writes or reads one needs no more memory for a larger archive."""
    assert plans.enough_buckets(objects) == buckets
    assert {plans.token_bucket(f"{digit:x}fffffff", 16) for digit in range(16)} == set(range(16))


def test_a_plan_with_too_many_failures_writes_nothing(site: Site) -> None:
    """What the plan sets aside is counted exactly, before anything is written."""
    put_studies(site, [3])
    for number in range(2):
        (site.input / f"broken{number}").write_bytes(bytes(128) + b"DICM" + b"\x02\0\x10\0UI\xff\0")
    told = site.run("--max-failures", "1", status=1)
    assert "more than --max-failures 1" in " ".join(told.split()) and not list(site.output.rglob("*.dcm"))
    site.run("--max-failures", "2", status=3)
    assert outcomes(site)["deidentified"] == 3


def test_a_run_stops_where_too_much_fails_while_it_writes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is not attempted, is in no ledger, and the next run does it."""
    monkeypatch.setattr("transforms.rewrite._SECONDS", -1)
    monkeypatch.setattr("pipelines.failures._POLL", 0.001)
    monkeypatch.setattr("pipelines.local.Local.slice", 1)
    monkeypatch.setattr("transforms.progress._SECONDS", -1)
    put_studies(site, [1] * 6)

    def refuse(*_: Any) -> None:
        raise InvalidInstance("vr")

    with monkeypatch.context() as broken:
        broken.setattr(Rewriting, "rewrite", refuse)
        site.run("--max-failures", "2", status=1)
    told = outcomes(site)
    assert told["quarantined vr"] == 3 and told["not-attempted stopped"] == 3
    assert "More failed than --max-failures bears" in " ".join(summary(site)["Warnings"])
    ledger = {
        row["outcome"]
        for part in (site.restricted / "ledger").rglob("*.parquet")
        for row in pq.read_table(part, partitioning=None).to_pylist()
    }
    assert ledger == {"quarantined"}
    site.run("--max-failures", "2")
    assert outcomes(site) == {"deidentified": 6}


@given(st.integers(1, 10**6), st.sampled_from(["", "K", "m", "G", "T"]), st.sampled_from(["", "B", "iB"]))
def test_sizes_are_read_with_their_units(number: int, unit: str, end: str) -> None:
    """Powers of ten, and with an i of two."""
    if end == "iB" and not unit:
        with pytest.raises(LimitRefused):
            read_size(f"{number}{unit}{end}")
        return
    base = 1024 if end == "iB" else 1000
    assert read_size(f"{number} {unit}{end}") == number * base ** " KMGT".index(unit.upper() or " ")


@pytest.mark.parametrize("text", ["", "-1", "101%", "1.5", "x", "5 %", "\u0665", "9" * 5000])
def test_what_is_no_number_of_failures_is_refused(text: str) -> None:
    with pytest.raises(LimitRefused, match="--max-failures takes"):
        check_failures(text)


def test_a_share_is_of_what_the_run_takes() -> None:
    """5% of 100 are five; of nothing, none."""
    assert Limits(failures="5%").borne(100) == 5 and Limits(failures="5%").borne(0) == 0
    assert Limits(failures="7").borne(0) == 7 and Limits().borne(1) == float("inf")

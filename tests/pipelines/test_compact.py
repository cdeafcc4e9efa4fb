"""Merging what runs have left: whoever reads it sees the same rows, before, after, and wherever the merge died."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import duckdb
import pytest
from click.testing import CliRunner

from pipelines import compact, runs
from pipelines.cli import cli
from pipelines.lookup import look_up
from tests.killing import dying
from tests.pipelines.test_anonymize import contents
from tests.pipelines.test_known import Site
from tests.pipelines.test_ledger import gone, outcomes, stamps
from transforms.lease import Lease, LeaseLost
from transforms.locations import locate
from transforms.manifests import listed_parts, read_slice

OTHER = "Conflicts: distinct\n"
Rows = Counter[tuple[str, str, str]]


def rows(root: Path) -> Rows:
    """(run, table, row) of all that finished runs list under a root."""
    return Counter(
        (part.run, part.table, str(row))
        for part in listed_parts(locate(str(root)))
        for batch in read_slice(part.rows)
        for row in batch.to_pylist()
    )


def files(root: Path) -> dict[str, int]:
    """How many files each table has."""
    return dict(Counter(str(path.parent.parent.relative_to(root)) for path in root.rglob("part-*.parquet")))


def invoke(*words: object, status: int | None = 0) -> str:
    done = CliRunner().invoke(cli, list(map(str, words)))
    assert status is None or done.exit_code == status, done.output
    return " ".join(done.output.split())


def merged(site: Site, *more: object) -> str:
    return invoke("compact", "--restricted", site.restricted, "--audit", site.audit, *more)


def make(folder: Path) -> Site:
    """Four nights: what is new, what is gone, what is set aside, and one under another request."""
    site = Site(folder)
    for number in range(12):
        site.put(f"a{number}", uid=f"1.2.1.{number}", study=f"1.2.3.{number}", patient=f"47{number}")
    site.put("b", uid="1.2.2", study="1.2.3.77")
    site.run()
    site.put("c", uid="1.2.3", study="1.2.3.0", patient="470", refers="1.2.1.0")
    site.put("d", uid="1.2.4", study="1.2.3.1", patient="stranger")
    (site.input / "a11").unlink()
    site.run("--retire", status=3)
    site.put("e", uid="1.2.5", study="1.2.3.2", patient="472")
    (site.input / "a10").unlink()
    site.run()
    site.put("f", uid="1.2.6", study="1.2.3.6", patient="476")
    site.run("--overwrite", request=OTHER, status=3)
    return site


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make(tmp_path_factory.mktemp("nights"))


@pytest.fixture
def site(nights: Site, tmp_path: Path) -> Iterator[Site]:
    """The same, whose tables may be changed: they are put back where they were made, since records name that."""
    for zone in (nights.restricted, nights.audit):
        shutil.copytree(zone, tmp_path / zone.name)
    yield nights
    for zone in (nights.restricted, nights.audit):
        shutil.rmtree(zone)
        shutil.copytree(tmp_path / zone.name, zone)


def asked(site: Site) -> list[object]:
    """What the readers that a user sees answer."""
    told: list[object] = []
    for value, original in (("471", True), ("1.2.3", True), ("1.2.1.3", True), (str(site.input / "e"), True)):
        told += [vars(match) for match in look_up(str(site.restricted), value, original)]
    told += [vars(match) for match in look_up(str(site.restricted), site.new("1.2.5").PatientID, False)]
    for manifest in sorted((site.restricted / "runs").glob("*.json")):
        told.append(invoke("purge", "--restricted", site.restricted, "--run", manifest.stem, "--dry-run", status=None))
    return told


def test_every_reader_sees_the_same_rows(site: Site) -> None:
    """Who was who, what a purge would delete, the audit in SQL and each table's rows are what they were; of the files of
    one request there is one left.
    """
    before, answers = (rows(site.restricted), rows(site.audit)), asked(site)
    many = files(site.restricted), files(site.audit)
    assert many[0]["ledger"] > 4 and many[0]["crosswalk/uids"] > 4 and many[1]["instances"] > 4
    told = merged(site)
    assert (rows(site.restricted), rows(site.audit)) == before and asked(site) == answers
    after = files(site.restricted), files(site.audit)
    assert all(after[zone][table] <= 4 for zone in (0, 1) for table in after[zone])
    assert f"ledger/ {many[0]['ledger']:,} files, {after[0]['ledger']:,} now" in told
    document = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    statements = document.split("```sql\n")[1].split("```")[0].replace("release-audit", str(site.audit))
    database = duckdb.connect()
    database.execute(statements)
    counted = database.execute("SELECT run_id, count(*) FROM instances GROUP BY ALL").fetchall()
    assert dict(counted) == Counter(run for run, table, _ in before[1].elements() if table == "instances")
    told = merged(site)
    assert "There is nothing to merge." in told and (rows(site.restricted), rows(site.audit)) == before


def test_what_comes_later_goes_on_as_if_nothing_were(tmp_path: Path) -> None:
    """The ledger holds what it held, studies know what they knew, and what was set aside stays so; it can be merged again
    with what has come since; and a purge deletes the sources of its run and no others.
    """
    site = make(tmp_path)
    first, *_ = sorted(path.stem for path in (site.restricted / "runs").glob("*.json"))
    stood, there = stamps(site.output), outcomes(site)
    merged(site)
    site.run("--overwrite", request=OTHER)
    assert outcomes(site) == {"unchanged": sum(there.values())} and stamps(site.output) == stood
    assert gone(site) == {"kept gone": 1}
    site.put("b2", uid="1.2.22", study="1.2.3.77", patient="4777")
    site.put("e", uid="1.2.55", study="1.2.3.2", patient="472")
    site.run("--overwrite", request=OTHER)
    assert outcomes(site)["deidentified"] == 3  # b rejoins
    assert site.new("1.2.2").PatientID == site.new("1.2.22").PatientID
    before = rows(site.restricted), rows(site.audit)
    merged(site)
    assert (rows(site.restricted), rows(site.audit)) == before
    assert all(count <= 4 for count in files(site.restricted).values())
    told = invoke("purge", "--restricted", site.restricted, "--run", first, status=3)
    assert "10 sources deleted" in told and "2 kept: gone" in told and "1 kept: output-missing" in told
    assert {path.name for path in site.input.iterdir()} == {"b", "b2", "c", "d", "e", "f"}
    site.run("--overwrite", "--retire", request=OTHER)
    assert gone(site) == {"retired gone": 1} and len(contents(site.output)) == 15


@pytest.mark.long
def test_death_at_any_step_loses_no_row(site: Site) -> None:
    """Whoever reads then sees all rows and none twice; the same command comes to the same end, and leaves nothing over."""
    folder, kept = site.input.parent, site.input.parent.with_name("as it was")
    for zone in (site.restricted, site.audit):
        shutil.copytree(zone, kept / zone.name)
    before = rows(site.restricted), rows(site.audit)
    step, ends = 0, set()
    while True:
        step += 1
        for zone in (site.restricted, site.audit):
            shutil.rmtree(zone)
            shutil.copytree(kept / zone.name, zone, copy_function=os.link)  # files are replaced, never changed
        died = dying(lambda: compact.merge(str(site.restricted), str(site.audit)), folder, step)
        assert (rows(site.restricted), rows(site.audit)) == before, step
        if died:
            compact.merge(str(site.restricted), str(site.audit))
            assert (rows(site.restricted), rows(site.audit)) == before, step
        ends.add(str(sorted(files(site.restricted).items()) + sorted(files(site.audit).items())))
        for zone in (site.restricted, site.audit):
            listed = {part.path for part in listed_parts(locate(str(zone)))}
            assert {str(path) for path in zone.rglob("part-*.parquet")} == set(map(str, listed)), step
            assert not list(zone.rglob("*.part"))
        if not died:
            break
    shutil.rmtree(kept)
    assert step > 30 and len(ends) == 1


def test_what_cannot_be_merged_is_told(nights: Site, tmp_path: Path) -> None:
    """A folder without records, and a zone in which a run is at work, are left alone."""
    assert "no finished run has its records there" in invoke("compact", "--restricted", tmp_path, status=2)
    with runs.locked(str(nights.restricted)):
        assert "Another run is at work" in invoke("compact", "--restricted", nights.restricted, status=2)


def test_parts_are_merged_up_to_a_size(site: Site) -> None:
    """What is large enough stays as it is, and what is merged isn't much larger."""
    before = rows(site.restricted)
    many = files(site.restricted)
    compact.merge(str(site.restricted), None, target=20_000)
    some = files(site.restricted)
    assert rows(site.restricted) == before and sum(some.values()) < sum(many.values())
    sizes = [path.stat().st_size for path in site.restricted.rglob("run=compacted-*/part-*.parquet")]
    assert max(sizes) < 40_000
    manifest = json.loads(max((site.restricted / "runs").glob("*.json")).read_bytes())
    assert manifest["places"]["output"] == str(site.output)


def test_a_folder_without_records_is_left_as_it_is(tmp_path: Path) -> None:
    """Named by a slip, it keeps its permissions and gets no lock; and none is made by a name that isn't there."""
    folder = tmp_path / "release"
    folder.mkdir(mode=0o755)
    assert "no finished run has its records there" in invoke("compact", "--restricted", folder, status=2)
    invoke("compact", "--restricted", tmp_path / "slip", status=2)
    assert folder.stat().st_mode & 0o777 == 0o755 and not list(folder.iterdir())
    assert list(tmp_path.iterdir()) == [folder]


class Lost:
    """A lease that another takes over once it was asked for so many times."""

    def __init__(self, times: int) -> None:
        self._left = times

    def settle(self) -> None:
        if not self._left:
            raise LeaseLost
        self._left -= 1


def test_who_has_lost_the_zone_changes_nothing_more(tmp_path: Path) -> None:
    """Whenever that comes to light, whoever reads sees the same rows, and a merge that holds the zone ends it."""
    site = make(tmp_path)
    before, untouched = (rows(site.restricted), rows(site.audit)), contents(site.restricted / "runs")
    for times in range(100):
        try:
            compact.merge(str(site.restricted), str(site.audit), cast(Lease, Lost(times)))
        except LeaseLost:
            assert (rows(site.restricted), rows(site.audit)) == before
            assert times or contents(site.restricted / "runs") == untouched
        else:
            break
    assert times > 3 and (rows(site.restricted), rows(site.audit)) == before

"""Moving instead of copying: what is deleted, what stays and why, and that no death of the process loses an instance."""

import hashlib
import io
import json
import os
import platform
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from pydicom import Dataset, dcmread

from dicomveil import Deidentifier
from pipelines import runs
from pipelines.cli import cli
from tests.corpora import KEY
from tests.killing import dying
from tests.pipelines.test_anonymize import contents, instance, table
from transforms.candidates import KEPT
from transforms.files import version_of

ROOT: Final = Path(__file__).parents[2]
MOVE: Final = "KeepSource: false\n"


class Archive:
    """A place where runs are made: what goes in, what comes out, and the records."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.input, self.output = folder, folder / "in", folder / "out"
        self.audit, self.restricted = folder / "out-audit", folder / "out-restricted"
        self.input.mkdir(parents=True)

    def put(self, name: str, content: bytes) -> Path:
        path = self.input / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def command(self, *more: object, body: str = "", output: Path | None = None, name: str = "anonymize") -> list[str]:
        """The words of a run over all of its input."""
        request = self.folder / f"{hashlib.sha256(body.encode()).hexdigest()[:8]}.yaml"
        request.write_text(body)
        words = [name, "--input", self.input, "--output", output or self.output, "--request", request]
        return [str(it) for it in (*words, "--key", "env:PURGE_KEY", "--restricted", self.restricted, *more)]

    def run(self, *more: object, status: int = 0, **how: Any) -> str:
        return invoke(*self.command(*more, **how), status=status)

    def purge(self, *more: str, run: str = "", status: int = 0) -> str:
        return invoke("purge", "--restricted", self.restricted, "--run", run or self.newest, *more, status=status)

    @property
    def newest(self) -> str:
        """The last run that has ended."""
        return max(path.stem for path in (self.restricted / "runs").glob("*.json"))

    @property
    def sources(self) -> set[str]:
        return {str(path.relative_to(self.input)) for path in self.input.rglob("*") if not path.is_dir()}

    def settled(self, run: str = "") -> dict[str, str]:
        """What became of each source that was to go: "deleted", or why it stays."""
        found = {}
        for part in (self.restricted / "purge" / f"run={run or self.newest}").glob("settled-*.parquet"):
            for row in pq.read_table(part, partitioning=None).to_pylist():
                assert row["outcome"] == ("kept" if row["reason"] else "deleted")
                found[row["source_uri"]] = row["reason"] or "deleted"
        return found

    def outputs(self) -> dict[str, Path]:
        """The output of each source, by its name in the input."""
        rows = table(self.restricted, "crosswalk/instances")
        return {os.path.relpath(row["source_uri"], self.input): self.output / row["name"] for row in rows}


def invoke(*words: object, status: int = 0) -> str:
    """What the command says, run in this process; its exit status is part of what is expected, and it names no source."""
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            done = CliRunner(env={"PURGE_KEY": KEY.hex()}).invoke(cli, [str(word) for word in words])
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
        said.seek(0)
        told = " ".join(f"{done.stdout} {done.stderr} {said.read().decode()}".split())
    assert done.exit_code == status, told
    assert "Zubikax" not in told
    return told


def few(archive: Archive, count: int = 3) -> dict[str, bytes]:
    """Some instances of two studies, by name: put into the input."""
    files = {
        f"{number % 2}/source Zubikax {number}": instance(
            f"1.2.3.{number}", study=f"1.2.9.{number % 2}", patient="MRN1"
        )
        for number in range(count)
    }
    for name, content in files.items():
        archive.put(name, content)
    return files


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


# ------------------------------------------------------------------------------------------------- what stays, and why


def written_again(source: Path, output: Path) -> None:
    """The same bytes, at another time."""
    os.utime(source, ns=(1, 1))


def replaced(source: Path, output: Path) -> None:
    """The same bytes and time in another file."""
    copy = shutil.copy2(source, source.with_name("copy"))
    os.replace(copy, source)


def longer(source: Path, output: Path) -> None:
    before = source.stat()
    source.write_bytes(source.read_bytes() + b"\0\0")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))


def gone(source: Path, output: Path) -> None:
    source.unlink()


def folder_gone(source: Path, output: Path) -> None:
    shutil.rmtree(source.parent)


def link(source: Path, output: Path) -> None:
    """A link to the very file that was read."""
    os.rename(source, source.with_name("elsewhere"))
    source.symlink_to("elsewhere")


def folder_of_its_name(source: Path, output: Path) -> None:
    source.unlink()
    source.mkdir()


def linked_folder(source: Path, output: Path) -> None:
    """Its folder stands elsewhere, with a link in its place: path, inode, size and time still agree."""
    os.rename(source.parent, source.parent.with_name("other place"))
    source.parent.symlink_to("other place")


def output_gone(source: Path, output: Path) -> None:
    output.unlink()


def output_of_a_byte_more(source: Path, output: Path) -> None:
    output.write_bytes(output.read_bytes() + b"\0")


def output_of_another_byte(source: Path, output: Path) -> None:
    before = output.stat()
    content = bytearray(output.read_bytes())
    content[-1] ^= 1
    output.write_bytes(content)
    os.utime(output, ns=(before.st_atime_ns, before.st_mtime_ns))


def output_is_a_link(source: Path, output: Path) -> None:
    os.rename(output, output.with_suffix(".moved"))
    output.symlink_to(output.with_suffix(".moved"))


def output_is_a_folder(source: Path, output: Path) -> None:
    output.unlink()
    output.mkdir()


def output_is_a_pipe(source: Path, output: Path) -> None:
    output.unlink()
    os.mkfifo(output)


def output_is_the_source(source: Path, output: Path) -> None:
    output.unlink()
    os.link(source, output)


def another_name(source: Path, output: Path) -> None:
    """A second name of the source, in another place."""
    os.link(source, source.with_name("second name"))


def nothing(source: Path, output: Path) -> None:
    pass


MISHAPS: Final[dict[str, tuple[Callable[[Path, Path], None], str]]] = {
    "untouched": (nothing, "deleted"),
    "has another name too": (another_name, "deleted"),
    "written again": (written_again, "changed"),
    "replaced by an equal file": (replaced, "changed"),
    "longer": (longer, "changed"),
    "gone": (gone, "gone"),
    "gone with its folder": (folder_gone, "gone"),
    "a link by now": (link, "no-plain-file"),
    "a folder by now": (folder_of_its_name, "no-plain-file"),
    "in a linked folder by now": (linked_folder, "no-plain-file"),
    "output gone": (output_gone, "output-missing"),
    "output longer": (output_of_a_byte_more, "output-differs"),
    "output of another byte": (output_of_another_byte, "output-differs"),
    "output a link by now": (output_is_a_link, "output-differs"),
    "output a folder by now": (output_is_a_folder, "output-differs"),
    "output a pipe by now": (output_is_a_pipe, "output-differs"),
    "output and source one file": (output_is_the_source, "is-output"),
}
"""What happens between the run and its purge, to a source and its output, and what becomes of the source."""
RECORDED: Final[dict[str, tuple[dict[str, str], str]]] = {
    "member of an archive": ({"source_uri": "{in}/member of an archive/source Zubikax/member"}, "no-plain-file"),
    "in another store": ({"source_uri": "zip://{in}/member"}, "no-plain-file"),
    "of a relative path": ({"source_uri": "source Zubikax"}, "no-plain-file"),
    "up the path": ({"source_uri": "{in}/x/../up the path/source Zubikax"}, "no-plain-file"),
    "not audited": ({"source_token": "0" * 32}, "unrecorded"),
    "audited under another name": ({"name": "X/Y/Z/1.dcm"}, "unrecorded"),
}
"""What the crosswalk says of a source, other than it was, and what becomes of it."""


@pytest.fixture(scope="module")
def mishaps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Archive, dict[str, str], str]:
    """A run over a source for each case, all mishaps, and one purge: what became of each, by case."""
    archive = Archive(tmp_path_factory.mktemp("mishaps"))
    cases = [*MISHAPS, *RECORDED]
    for number, name in enumerate(cases):
        archive.put(f"{name}/source Zubikax", instance(f"1.2.3.{number}", study=f"1.2.9.{number}", patient="MRN1"))
    outside = archive.folder / "outside"
    outside.write_bytes(instance("1.2.3.999"))
    (archive.input / "linked").symlink_to(outside)
    archive.run()
    outputs = archive.outputs()
    for name, (mishap, _) in MISHAPS.items():
        mishap(archive.input / name / "source Zubikax", outputs[f"{name}/source Zubikax"])
    uris = {}
    for part in (archive.restricted / "crosswalk" / "instances").rglob("*.parquet"):
        there = pq.read_table(part, partitioning=None)
        rows = there.to_pylist()
        for row in rows:
            case = Path(row["source_uri"]).parent.name
            said = RECORDED.get(case, ({},))[0]
            row |= {column: value.format(**{"in": archive.input}) for column, value in said.items()}
            uris[row["source_uri"]] = case
        pq.write_table(there.from_pylist(rows, schema=there.schema), part)
    done = archive.purge(status=3)
    settled = archive.settled()
    assert settled.pop(str(outside)) == "outside-input" and outside.exists()
    return archive, {uris[uri]: outcome for uri, outcome in settled.items()}, done


@pytest.mark.parametrize(
    ("case", "outcome"),
    [(name, outcome) for name, (_, outcome) in (*MISHAPS.items(), *RECORDED.items())],
    ids=[*MISHAPS, *RECORDED],
)
def test_a_source_goes_only_if_it_and_its_output_are_as_recorded(
    case: str, outcome: str, mishaps: tuple[Archive, dict[str, str], str]
) -> None:
    """The very version that was read goes, where its output is as the audit says; all else stays, with a reason."""
    archive, settled, _ = mishaps
    assert settled[case] == outcome
    source = archive.input / case / "source Zubikax"
    assert os.path.lexists(source) == (outcome not in ("deleted", "gone"))
    assert source.exists() == os.path.lexists(source)


def test_what_stays_is_counted_and_told(mishaps: tuple[Archive, dict[str, str], str]) -> None:
    """The number of candidates is told first, each reason with its remedy in the end, and the summary has the counts."""
    archive, settled, done = mishaps
    counts = Counter(settled.values())
    candidates = len(settled) - counts["unrecorded"] - 2  # two URIs that are none of a file's
    assert f"{candidates} sources will be deleted for good now" in done
    told = json.loads((archive.audit / "summary.json").read_bytes())["Purge"]
    assert told["Deleted"] == counts.pop("deleted") == 2
    assert told["Kept"] == counts | {"outside-input": 1}
    for reason in told["Kept"]:
        assert f"kept: {reason}" in done
    assert str(archive.input) not in (archive.audit / "summary.json").read_text()


def test_a_purge_is_closed_to_others(mishaps: tuple[Archive, dict[str, str], str]) -> None:
    """Only their owner may read the records of a purge, which name the sources."""
    folder = mishaps[0].restricted / "purge"
    found = list(folder.rglob("*"))
    assert {path.name for path in found} >= {"list.json", "list-00000.parquet", "settled-00000.parquet", "ended.json"}
    for path in (folder, *found):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_permissions_keep_a_source(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where a folder may not be entered or written, or the output not be read, the source stays with that reason."""
    folder = Path(shutil.copytree(tmp_path_factory.mktemp("none"), f"{os.path.realpath('/tmp')}/purge-{os.getpid()}"))
    try:
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
        child = os.fork()
        if not child:
            status = 1
            try:
                if os.geteuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                check_permissions(Archive(folder / "site"))
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        shutil.rmtree(folder)


def check_permissions(archive: Archive) -> None:
    for number, name in enumerate(("closed", "read only", "output closed")):
        archive.put(f"{name}/source", instance(f"1.2.3.{number}", study=f"1.2.9.{number}", patient="MRN1"))
    archive.run()
    (archive.input / "closed").chmod(0)
    (archive.input / "read only").chmod(0o500)
    archive.outputs()["output closed/source"].chmod(0)
    archive.purge(status=3)
    settled = {Path(uri).parent.name: reason for uri, reason in archive.settled().items()}
    (archive.input / "closed").chmod(0o700)
    (archive.input / "read only").chmod(0o700)
    assert settled == {"closed": "unreadable", "read only": "not-permitted", "output closed": "output-unreadable"}
    assert len(archive.sources) == 3


def test_every_reason_is_met_and_documented() -> None:
    """Each reason for which a source stays is shown by a test here, and told in docs/purge.md with its remedy."""
    shown = {outcome for _, outcome in (*MISHAPS.values(), *RECORDED.values())} - {"deleted"}
    shown |= {"outside-input", "inside-output", "unreadable", "not-permitted", "output-unreadable", "abandoned"}
    assert shown == KEPT.keys()
    text = (ROOT / "docs" / "purge.md").read_text()
    for name, reason in KEPT.items():
        assert f"| `{name}` | {reason.meaning} | {reason.remedy} |" in text


# --------------------------------------------------------------------------------------------------------- whole runs


def test_a_run_moves_what_it_de_identifies(archive: Archive) -> None:
    """KeepSource: false deletes the sources of what was de-identified; what was set aside, and equal copies, stay."""
    files = few(archive, 5)
    archive.put("copy", files["0/source Zubikax 0"])
    archive.put("cut", instance("1.2.3.77")[:-3])
    archive.put("letter", b"a letter")
    engine = Deidentifier(key=KEY)
    expected = sorted(hashlib.sha256(engine.rewrite(content)).hexdigest() for content in files.values())
    done = archive.run(body=MOVE, status=3)
    assert archive.sources == {"copy", "cut", "letter"}
    assert sorted(contents(archive.output).values()) == expected
    assert "up to 5 sources will be deleted for good" in done
    assert f"Of run {archive.newest} 5 sources will be deleted for good now" in done
    assert "5 sources deleted" in done and "stay: filtered: duplicate" in done
    told = json.loads((archive.audit / "summary.json").read_bytes())["Purge"]
    assert told["NeverListed"] == {"filtered duplicate": 1, "filtered not-dicom": 1, "quarantined truncated": 1}
    assert (told["Deleted"], told["Kept"]) == (5, {})


def test_sources_stay_unless_it_is_written(archive: Archive) -> None:
    """Neither an empty request nor KeepSource: true deletes anything, and the output is the same either way."""
    files = few(archive)
    archive.run()
    archive.run(body="KeepSource: true\n")
    assert archive.sources == files.keys() and not (archive.restricted / "purge").exists()
    before = contents(archive.output)
    archive.run(body=MOVE)
    assert archive.sources == set() and contents(archive.output) == before


def test_a_dry_run_only_counts(archive: Archive) -> None:
    """--dry-run looks at everything, and neither deletes nor writes."""
    files = few(archive)
    archive.run()
    archive.outputs()["1/source Zubikax 1"].unlink()
    before = contents(archive.folder)
    done = archive.purge("--dry-run", status=3)
    assert "2 sources would be deleted" in done and "kept: output-missing" in done
    assert contents(archive.folder) == before and archive.sources == files.keys()


def test_what_was_kept_is_tried_again(archive: Archive) -> None:
    """The same command goes over what stays; what is deleted stays so."""
    few(archive)
    archive.run()
    output = archive.outputs()["1/source Zubikax 1"]
    content = output.read_bytes()
    output.unlink()
    archive.purge(status=3)
    assert archive.sources == {"1/source Zubikax 1"}
    assert "0 sources would be deleted" in archive.purge("--dry-run", status=3)
    output.write_bytes(content)
    archive.purge()
    assert archive.sources == set() and set(archive.settled().values()) == {"deleted"}


def test_what_runs_write_is_never_deleted(archive: Archive) -> None:
    """A run over what another has written deletes none of it, though its request says so."""
    few(archive)
    archive.run()
    first = contents(archive.output)
    second = Archive(archive.folder / "second")
    second.input, second.restricted = archive.output, archive.restricted
    second.run(body=MOVE, output=second.output, status=3)
    assert set(second.settled().values()) == {"inside-output"}
    assert contents(archive.output) == first


# -------------------------------------------------------------------------------------------------------- what is refused


def no_such_run(archive: Archive) -> list[str]:
    archive.run()
    return ["--run", "20200101T000000Z-000000"]


def way_out(archive: Archive) -> list[str]:
    archive.run()
    return ["--run", f"../runs/{archive.newest}"]


def no_records(archive: Archive) -> list[str]:
    return ["--restricted", str(archive.input), "--run", "20200101T000000Z-000000"]


def begun_alone(archive: Archive) -> list[str]:
    archive.run("--plan-only")
    (folder,) = archive.restricted.glob("run=*")
    return ["--run", folder.name.removeprefix("run=")]


def beside_one_begun(archive: Archive) -> list[str]:
    archive.run()
    archive.run("--plan-only")
    return []


def own_key(archive: Archive) -> list[str]:
    command = archive.command()
    at = command.index("--key")
    invoke(*command[:at], *command[at + 2 :])
    return []


def no_audit(archive: Archive) -> list[str]:
    archive.run()
    (archive.audit / "runs" / f"{archive.newest}.json").unlink()
    return []


def part_gone(archive: Archive) -> list[str]:
    archive.run()
    next((archive.audit / "instances").rglob("*.parquet")).unlink()
    return []


def closed_by_another(archive: Archive) -> list[str]:
    """A run that died after a slice, which counts for what it wrote."""
    archive.run()
    manifest = archive.restricted / "runs" / f"{archive.newest}.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | {"whole": False}))
    return []


def given_up(archive: Archive) -> list[str]:
    archive.run()
    archive.purge("--abandon")
    return []


REFUSED: Final[dict[str, tuple[Callable[[Archive], list[str]], str]]] = {
    "no such run": (no_such_run, "no finished run '20200101T000000Z-000000' has its records"),
    "a path for a run": (way_out, "no finished run '../runs/"),
    "no records": (no_records, "no run has its records there"),
    "a run that hasn't ended": (begun_alone, "has begun and not ended: run its command again"),
    "beside one that hasn't ended": (beside_one_begun, "reads the same sources or writes to the same output"),
    "a run without a key": (own_key, "had a key of its own, so its sources stay"),
    "no audit of it": (no_audit, "--audit has no record of run"),
    "a part of its tables gone": (part_gone, "can't be read; bring it back"),
    "a run that died": (closed_by_another, "died, and another closed it: its sources stay"),
    "given up before": (given_up, "was given up, so its sources stay"),
}


@pytest.mark.parametrize(("prepare", "message"), REFUSED.values(), ids=REFUSED)
def test_a_purge_is_refused(prepare: Callable[[Archive], list[str]], message: str, archive: Archive) -> None:
    """Only a run that has ended well, under a key and with all its records, is purged; else nothing is deleted."""
    files = few(archive, 1)
    words = prepare(archive)
    words = words if "--run" in words else ["--run", archive.newest, *words]
    words = words if "--restricted" in words else ["--restricted", str(archive.restricted), *words]
    assert message in invoke("purge", *words, status=2)
    assert archive.sources == files.keys()


def test_moving_needs_a_key(archive: Archive) -> None:
    """Without a key a run that would delete its sources is refused before it reads them."""
    files = few(archive, 1)
    command = archive.command(body=MOVE)
    at = command.index("--key")
    assert "KeepSource: false needs --key" in invoke(*command[:at], *command[at + 2 :], status=2)
    assert archive.sources == files.keys() and not archive.output.exists()


def test_a_run_that_can_not_be_purged_has_ended_all_the_same(archive: Archive) -> None:
    """What hinders the purge at a run's end is told with what to do, and its outputs stand."""
    files = few(archive)
    archive.run("--plan-only")
    (other,) = archive.restricted.glob("run=*")
    state = json.loads((other / "state.json").read_bytes())
    state["fingerprints"]["key"] = "0" * 16  # of another key, which this one's runs don't close
    (other / "state.json").write_text(json.dumps(state))
    done = archive.run("--overwrite", body=MOVE, status=3)
    assert "reads the same sources" in done and "The run has ended well." in done
    assert archive.sources == files.keys() and len(contents(archive.output)) == 3
    shutil.rmtree(other)
    archive.run(body=MOVE)
    assert archive.sources == set() and len(list((archive.restricted / "runs").glob("*.json"))) == 1


def test_a_purge_waits_for_nobody(archive: Archive) -> None:
    """While a run is at work in the restricted zone, a purge is refused."""
    few(archive, 1)
    archive.run()
    with runs.locked(str(archive.restricted)):
        assert "Another run is at work" in archive.purge(status=2)


# -------------------------------------------------------------------------------------------------------- runs after it


def test_a_later_run_loses_nothing_of_what_was_purged(archive: Archive) -> None:
    """An instance whose study has changed can't be written again without its source: it is told, and its output stays."""
    archive.put("a", instance("1.2.3.1", study="1.2.9.1", patient=""))
    archive.run(body=MOVE)
    before = contents(archive.output)
    archive.put("b", instance("1.2.3.2", study="1.2.9.1", patient="MRN1"))
    done = archive.run(body=MOVE, status=3)
    assert "unreadable" in done
    after = contents(archive.output)
    assert after.items() > before.items() and len(after) == 2
    archive.run(body=MOVE)
    assert contents(archive.output) == after and archive.sources == set()


def test_a_copy_of_what_was_purged_takes_its_place(archive: Archive) -> None:
    """An equal file that comes later, or had stayed as a duplicate, is written again with the same bytes, and goes."""
    few(archive, 2)
    archive.put("copy", instance("1.2.3.0", study="1.2.9.0", patient="MRN1"))
    archive.run(body=MOVE)
    before = contents(archive.output)
    assert len(archive.sources) == 1
    archive.run(body=MOVE)
    assert contents(archive.output) == before and archive.sources == set()


def test_closing_a_run_that_died_removes_no_output_of_a_purged_one(archive: Archive) -> None:
    """What a run that died had written again over an earlier run's output stays, whichever audit tells of that."""
    few(archive, 2)
    copies = {path: path.read_bytes() for path in archive.input.rglob("*") if path.is_file()}
    archive.run(body=MOVE)
    before = contents(archive.output)
    for path, content in copies.items():
        path.write_bytes(content)
    more = ["--overwrite", "--audit", archive.folder / "other audit"]
    archive.run(*more, "--plan-only")
    (died,) = archive.restricted.glob("run=*")
    (died / "slices").mkdir(mode=0o700)  # it had begun to write
    shutil.rmtree(archive.input)
    archive.input = archive.folder / "others"
    archive.put("other", instance("1.2.3.5", study="1.2.9.5", patient="MRN5"))
    archive.run(*more)
    assert not died.exists()
    assert contents(archive.output).items() >= before.items()


def test_only_the_inputs_of_a_run_go(archive: Archive) -> None:
    """Sources of an earlier run that are written again, since their study has changed, aren't this run's to delete."""
    first = archive.put("a", instance("1.2.3.1", study="1.2.9.1", patient=""))
    archive.run()
    second = archive.folder / "later"
    second.mkdir()
    (second / "b").write_bytes(instance("1.2.3.2", study="1.2.9.1", patient="MRN1"))
    archive.input = second
    done = archive.run(body=MOVE, status=3)
    assert "written again" in done and "kept: outside-input" in done
    assert first.exists() and archive.sources == set()
    assert len({name.split("/")[0] for name in contents(archive.output)}) == 1


# --------------------------------------------------------------------------------------------------- death at any step


def versions(archive: Archive) -> dict[str, str]:
    """Every source that is there, with its version."""
    return {name: version_of((archive.input / name).lstat()) for name in archive.sources}


def check_nothing_is_lost(archive: Archive, before: dict[str, str], outputs: dict[str, str]) -> set[str]:
    """Each source is there as it was, or its output is, with the checksum that an undisturbed run gives.

    Args:
      outputs: the checksum of each source that has an output, by its name.

    Returns:
      The sources that are gone.
    """
    assert lost(archive, before, outputs) == set()
    return before.keys() - archive.sources


def lost(archive: Archive, before: dict[str, str], outputs: dict[str, str]) -> set[str]:
    """The sources that aren't there as they were, and whose outputs aren't either."""
    now, written = versions(archive), set(contents(archive.output).values()) if archive.output.exists() else set()
    return {
        name
        for name, version in before.items()
        if now.get(name) != version and (name in now or outputs.get(name) not in written)
    }


STEPS: Final = 400  # more than any purge here takes


def test_death_between_any_two_steps_of_a_purge_loses_nothing(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each of its steps in turn, a purge has every source or its output, and the same command ends it."""
    monkeypatch.setattr("transforms.purges.PART", 2)
    files = few(archive, 5)
    archive.run()
    outputs, run, gone = checksums(archive), archive.newest, set()
    for step in range(1, STEPS):
        before = versions(archive)
        killed = dying(archive.purge, archive.folder, step)
        missing = check_nothing_is_lost(archive, before, outputs)
        gone.add(len(missing))
        archive.purge()
        assert archive.sources == set() and set(archive.settled(run).values()) == {"deleted"}
        assert json.loads((archive.audit / "summary.json").read_bytes())["Purge"]["Deleted"] == 5
        if not killed:
            break
        bring_back(archive, run, files)
    assert missing == files.keys() and gone == {0, 1, 2, 3, 4, 5}


def checksums(archive: Archive) -> dict[str, str]:
    """Of the output of each source, by its name."""
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in archive.outputs().items()}


def bring_back(archive: Archive, run: str, files: dict[str, bytes]) -> None:
    """As it was before the purge: the sources in the versions that were read, and no record of one."""
    shutil.rmtree(archive.restricted / "purge")
    versions: dict[str, str] = {}
    for name, content in files.items():
        (archive.input / name).write_bytes(content)
        versions[str(archive.input / name)] = version_of((archive.input / name).stat())
    for part in (archive.restricted / "crosswalk" / "instances").rglob("*.parquet"):
        there = pq.read_table(part, partitioning=None)
        rows = [row | {"source_version": versions[row["source_uri"]]} for row in there.to_pylist()]
        pq.write_table(there.from_pylist(rows, schema=there.schema), part)


@pytest.mark.parametrize("step", [1, 12, 18, 20, 21, 22, 26, 30])
def test_a_purge_that_died_can_be_given_up(step: int, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """--abandon deletes nothing more, tells what was deleted, and no command goes on with it."""
    monkeypatch.setattr("transforms.purges.PART", 2)
    few(archive, 5)
    archive.run(body="")
    outputs = checksums(archive)
    before = versions(archive)
    dying(archive.purge, archive.folder, step)
    missing = check_nothing_is_lost(archive, before, outputs)
    done = archive.purge("--abandon")
    assert archive.sources == before.keys() - missing
    assert f"{len(missing)} sources deleted" in done and "given up" in done
    settled = Counter(archive.settled().values())
    assert settled["deleted"] == len(missing) and settled.keys() <= {"deleted", "abandoned"}
    archive.purge(status=2)
    assert archive.sources == before.keys() - missing


def test_the_same_command_goes_on_with_the_purge(archive: Archive) -> None:
    """A run that died in its purge doesn't begin anew: the same command ends the purge; a new one finds nothing to do."""
    few(archive, 5)
    archive.put("cut", instance("1.2.3.77")[:-3])
    archive.run(status=3)
    outputs = checksums(archive)
    manifest = archive.restricted / "runs" / f"{archive.newest}.json"
    # As if it had been written by a run whose request said so, and that died before its purge.
    manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | {"keep_source": False}))
    before = versions(archive)
    command = archive.command(body=MOVE)
    assert dying(lambda: invoke(*command), archive.folder, 15)
    check_nothing_is_lost(archive, before, outputs)
    now = archive.sources
    invoke(*command, "--plan-only")
    shutil.rmtree(next(archive.restricted.glob("run=*")))
    assert archive.sources == now
    done = invoke(*command, status=3)
    assert "has ended, but its sources are still there" in done and "Planning" not in done
    assert archive.sources == {"cut"} and len(list((archive.restricted / "runs").glob("*.json"))) == 1
    done = invoke(*command)
    assert "Nothing is new since earlier runs." in done and archive.sources == {"cut"}


# ------------------------------------------------------------------------------------------------------------ campaign

_ASKED: Final = os.environ.get("DICOMVEIL_CAMPAIGN", "")
KILLS: Final = int(_ASKED) if _ASKED.isdigit() else 10
COMMANDS: Final = {
    "anonymize": MOVE,
    "split": '{"Study": {"StudyInstanceUID": "1.2.9.0"}, "KeepSource": false, "Instances": '
    '[{"SOPInstanceUID": "1.2.3.2"}, {"SOPInstanceUID": "1.2.3.6"}, {"SOPInstanceUID": "1.2.3.8"}]}',
}
PHASES: Final = {"plan": "", "execute": "verdict.json", "commit": "summary.json", "purge": "out-restricted/runs/"}
"""Each phase of a run, and what is named by the step that it begins with."""


def whole(folder: Path) -> Archive:
    """An input of all kinds: instances of several studies, equal ones, broken ones and others."""
    archive = Archive(folder)
    few(archive, 24)
    archive.put("copy", instance("1.2.3.0", study="1.2.9.0", patient="MRN1"))
    archive.put("cut", instance("1.2.3.77")[:-3])
    archive.put("letter", b"a letter")
    for number in (1, 2):
        archive.put(f"conflict {number}", instance("1.2.3.78", text=f"{number}"))
    return archive


def killed(archive: Archive, command: list[str], step: int) -> tuple[int, list[str]]:
    """The command in a process that is killed before one of its steps: its exit status, and the steps it took."""
    log = archive.folder / "steps"
    log.unlink(missing_ok=True)
    words = [sys.executable, str(ROOT / "tests" / "killing.py"), str(step), str(archive.folder), str(log), *command]
    done = subprocess.run(words, env=os.environ | {"PURGE_KEY": KEY.hex()}, capture_output=True, text=True)
    return done.returncode, log.read_text("utf-8", "surrogateescape").splitlines() if log.exists() else []


class Undisturbed(NamedTuple):
    """A run that nobody kills.

    Attributes:
      written: its outputs.
      stay: the sources that it leaves.
      outputs: the checksum of each source's output.
    """

    status: int
    written: dict[str, str]
    stay: set[str]
    outputs: dict[str, str]
    steps: list[str]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Undisturbed]:
    """For each command; what anonymize writes is what the library gives."""
    return {name: left_alone(whole(tmp_path_factory.mktemp(name)), name) for name in COMMANDS}


def left_alone(archive: Archive, name: str) -> Undisturbed:
    sources = {name: (archive.input / name).read_bytes() for name in archive.sources}
    status, steps = killed(archive, archive.command(name=name, body=COMMANDS[name]), 0)
    rows = table(archive.restricted, "crosswalk/instances")
    written = contents(archive.output)
    outputs = {os.path.relpath(row["source_uri"], archive.input): written[row["name"]] for row in rows}
    assert len(outputs) == len(written) and status in (0, 3)
    if name == "anonymize":
        engine = Deidentifier(key=KEY)
        for source, checksum in outputs.items():
            assert hashlib.sha256(engine.rewrite(sources[source])).hexdigest() == checksum
        assert archive.sources == sources.keys() - outputs.keys()
    else:
        assert len(sources.keys() - archive.sources) == 3
    return Undisturbed(status, written, archive.sources, outputs, steps)


def chosen(steps: list[str], seed: int) -> tuple[str, int]:
    """A phase, and one of its steps."""
    begins = {
        phase: next(number for number, step in enumerate(steps, 1) if mark in step) for phase, mark in PHASES.items()
    }
    ends = dict(zip(begins, [*list(begins.values())[1:], len(steps) + 1], strict=True))
    draw = random.Random(seed)
    phase = list(PHASES)[seed % len(PHASES)]
    return phase, draw.randrange(begins[phase], ends[phase])


@pytest.fixture(scope="module")
def figures() -> Iterator[list[dict[str, Any]]]:
    """A line for each kill; a campaign keeps them, with commit, command and machine."""
    lines: list[dict[str, Any]] = []
    yield lines
    if "DICOMVEIL_CAMPAIGN" in os.environ:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        told = {
            "commit": commit,
            "command": " ".join(map(str, sys.orig_argv)),
            "machine": {"platform": platform.platform(), "python": sys.version, "cpus": os.cpu_count()},
            "kills": len(lines),
            "phases": dict(Counter(line["phase"] for line in lines if line["killed"])),
            "lost": sum(line.get("lost", 0) for line in lines),
            "same end": sum(line.get("same end", False) for line in lines),
            "figures": lines,
        }
        target = ROOT / "build" / "campaign" / "purge.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(told, indent=1) + "\n")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(KILLS))
def test_death_at_any_point_of_a_run_that_moves_loses_nothing(
    seed: int,
    undisturbed: dict[str, Undisturbed],
    figures: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    """Killed anywhere from plan to purge, every instance is there in one form or the other, and the end is the same."""
    name = "split" if seed % 5 in (2, 3) else "anonymize"
    calm = undisturbed[name]
    outputs, (phase, step) = calm.outputs, chosen(calm.steps, seed)
    archive, begun = whole(tmp_path), time.monotonic()
    before, command = versions(archive), archive.command(name=name, body=COMMANDS[name])
    line: dict[str, Any] = {"seed": seed, "command": name, "phase": phase, "step": step, "of": len(calm.steps)}
    figures.append(line)
    status, taken = killed(archive, command, step)
    line |= {"killed": status < 0, "after": " ".join(taken[-1:]).replace(str(tmp_path), "")}
    line["lost"] = len(lost(archive, before, outputs))
    line["deleted"] = len(check_nothing_is_lost(archive, before, outputs))
    again = random.Random(f"again {seed}")
    if again.random() < 0.5 and status < 0:  # a second death on the way back
        second, _ = killed(archive, command, again.randrange(1, len(calm.steps)))
        line["killed again"] = second < 0
        line["lost"] += len(lost(archive, before, outputs))
        line["deleted again"] = len(check_nothing_is_lost(archive, before, outputs))
    if list((archive.restricted / "purge").glob("run=*/ended.json")):
        line["by"] = "nobody"
    elif list((archive.restricted / "runs").glob("*.json")) and again.random() < 0.5:
        line["by"] = "purge"
        archive.purge()
    else:
        line["by"] = "run"
        invoke(*command, status=calm.status)
    assert contents(archive.output) == calm.written
    assert archive.sources == calm.stay
    line |= {"same end": True, "seconds": round(time.monotonic() - begun, 1)}


# ----------------------------------------------------------------------------------------------- the only copy there is


@pytest.mark.parametrize("name", ["anonymize", "modify"])
@pytest.mark.parametrize("place", ["a", "b"])
def test_an_output_whose_source_is_gone_is_never_written_over(archive: Archive, name: str, place: str) -> None:
    """What comes later under the same identifiers, from the same place or another, is set aside: the only copy stays."""
    first = instance("1.2.3.1", study="1.2.9", patient="MRN1")
    archive.put("a", first)
    archive.run(body=MOVE, name=name)
    before = contents(archive.output)
    other = dcmread(io.BytesIO(first))
    other.Rows = 7
    other.save_as(archive.input / place)
    archive.run(body=MOVE, name=name, status=3)
    assert contents(archive.output) == before
    assert archive.sources == {place}


def test_an_output_whose_source_is_gone_is_made_again_of_equal_bytes(archive: Archive) -> None:
    """Another file of the same bytes comes out as the one that is there, and goes as well."""
    files = few(archive, 1)
    archive.run(body=MOVE)
    archive.put("again", *files.values())
    archive.run(body=MOVE)
    assert archive.sources == set()


def test_references_to_what_has_moved_stay_when_more_comes(archive: Archive) -> None:
    """What stays beside a series that was taken out is written again with the rest of it, and still names what went."""

    def referring(uid: str, series: str, *uids: str) -> bytes:
        made = dcmread(io.BytesIO(instance(uid, study="1.2.9", patient="MRN1")))
        made.SeriesInstanceUID = series
        made.ReferencedImageSequence = [Dataset() for _ in uids]
        for item, referred in zip(made.ReferencedImageSequence, uids, strict=True):
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = made.SOPClassUID, referred
        made.save_as(buffer := io.BytesIO())
        return buffer.getvalue()

    body = MOVE + "Series: [{SeriesInstanceUID: 1.2.9.1}]\n"
    archive.put("moves", referring("1.2.3.1", "1.2.9.1"))
    archive.put("stays", referring("1.2.3.2", "1.2.9.2", "1.2.3.1"))
    archive.run(body=body, name="split")
    before = contents(archive.output)
    archive.put("moves too", referring("1.2.3.3", "1.2.9.1", "1.2.3.1"))
    archive.run(body=body, name="split")
    assert before.items() <= contents(archive.output).items()
    made = [dcmread(path) for path in archive.output.rglob("*.dcm")]
    named = {it.ReferencedSOPInstanceUID for ds in made for it in ds.get("ReferencedImageSequence", [])}
    assert len(made) == 3 and named < {ds.SOPInstanceUID for ds in made}

"""Moving instead of copying in object storage: what is deleted, what stays and why, and that no death loses an instance."""

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from pydicom import dcmread

from dicomveil import Deidentifier
from pipelines import runs
from pipelines.cli import cli
from tests import emulators
from tests.corpora import KEY
from tests.emulators import Emulator
from tests.faults import ALWAYS, Request, through
from tests.pipelines.test_anonymize import instance, table
from tests.pipelines.test_stores_end_to_end import STORES, Bucket, bucket_of
from transforms import only_copies, removals, stored_removals
from transforms.candidates import Kept, Removal, Seen
from transforms.files import version_of
from transforms.local_removals import LocalOutput
from transforms.locations import locate, table_file
from transforms.object_stores import NotAllowed, Unavailable, store_of
from transforms.purges import Purge
from transforms.store_failures import StoreFailed
from transforms.tables import encoded

MOVE: Final = "KeepSource: false\n"


class Archive:
    """An archive in a store, and what dicomveil makes of it; each of its four places may be a folder instead."""

    def __init__(self, bucket: Bucket, folder: Path, **places: str) -> None:
        self.bucket, self.folder = bucket, folder
        self.input = places.get("input", f"{bucket.input}/archive")
        self.output = places.get("output", f"{bucket.output}/out")
        self.audit = places.get("audit", f"{bucket.output}/audit")
        self.restricted = places.get("restricted", f"{bucket.restricted}/zone")

    def command(self, *more: str, body: str = MOVE, given: list[str] | None = None) -> list[str]:
        request = self.folder / f"{hashlib.sha256(body.encode()).hexdigest()[:8]}.yaml"
        request.write_text(body)
        return ["anonymize", *(given or ["--input", self.input]), "--output", self.output, "--audit", self.audit,
                "--restricted", self.restricted, "--key", "env:DICOMVEIL_KEY", "--request", str(request), *more]  # fmt: skip

    def run(self, *more: str, status: int = 0, **how: Any) -> str:
        return invoke(*self.command(*more, **how), status=status)

    def purge(self, *more: str, run: str = "", status: int = 0) -> str:
        return invoke("purge", "--restricted", self.restricted, "--run", run or self.newest, *more, status=status)

    @property
    def newest(self) -> str:
        """The last run that has ended."""
        return max(path.name.removesuffix(".json") for path in (locate(self.restricted) / "runs").glob("*.json"))

    def put(self, name: str, data: bytes) -> None:
        place = locate(f"{self.input}/{name}")
        if isinstance(place, Path):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        else:
            self.bucket.put(name, data)

    def versions(self) -> dict[str, str]:
        """Every source that is there, with its version."""
        return {name: found for name, (found, _) in self._below(self.input).items()}

    def written(self) -> dict[str, str]:
        """Every output, with the digest of its bytes."""
        return {name: hashlib.sha256(read()).hexdigest() for name, (_, read) in self._below(self.output).items()}

    def standing(self) -> dict[str, str]:
        """Every output, with its version."""
        return {name: found for name, (found, _) in self._below(self.output).items()}

    def records(self) -> dict[str, str]:
        """Everything in the restricted zone, with its version."""
        found = {name: found for name, (found, _) in self._below(self.restricted).items()}
        return {name: version for name, version in found.items() if not name.startswith(("lease", "lock"))}

    def _below(self, root: str) -> dict[str, tuple[str, Callable[[], bytes]]]:
        place = locate(root)
        if isinstance(place, Path):
            paths = [path for path in place.rglob("*") if path.is_file()]
            return {str(path.relative_to(place)): (version_of(path.stat()), path.read_bytes) for path in paths}
        return {
            it.uri.removeprefix(f"{root}/"): (it.version, lambda it=it: self.bucket.read(it.uri))  # type: ignore[misc]
            for it in place.below()
        }

    def outputs(self) -> dict[str, str]:
        """The output of each source, by its name in the input."""
        rows = table(locate(self.restricted), "crosswalk/instances")  # type: ignore[arg-type]
        return {row["source_uri"].removeprefix(f"{self.input}/"): row["name"] for row in rows}

    def settled(self, run: str = "") -> dict[str, str]:
        """What became of each source that was to go, by its name: "deleted", or why it stays."""
        folder = locate(self.restricted) / "purge" / f"run={run or self.newest}"
        rows = [
            row
            for part in folder.glob("settled-*.parquet")
            for row in pq.read_table(table_file(part), partitioning=None).to_pylist()
        ]
        return {row["source_uri"].removeprefix(f"{self.input}/"): row["reason"] or row["outcome"] for row in rows}

    def summary(self) -> dict[str, Any]:
        return dict(json.loads((locate(self.audit) / "summary.json").read_bytes()))

    def forget_lease(self) -> None:
        """What time does to the lease of a command that died."""
        (locate(self.restricted) / "lease").unlink(missing_ok=True)


def invoke(*words: str, status: int | None = 0) -> str:
    """What the command says, which names no source."""
    done = CliRunner().invoke(cli, list(words), env={"DICOMVEIL_KEY": KEY.hex()})
    told = " ".join(f"{done.stdout} {done.stderr}".split())
    assert status is None or done.exit_code == status, told
    assert "Zubikax" not in told
    return told


@pytest.fixture(params=STORES)
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    with bucket_of(request.getfixturevalue(request.param)) as bucket:
        yield Archive(bucket, tmp_path)


@pytest.fixture
def in_gs(fake_gcs: Emulator, tmp_path: Path) -> Iterator[Archive]:
    with bucket_of(fake_gcs) as bucket:
        yield Archive(bucket, tmp_path)


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


def another(files: dict[str, bytes]) -> bytes:
    """The first of them with other pixels."""
    made = dcmread(io.BytesIO(files["0/source Zubikax 0"]))
    made.Rows = 7
    made.save_as(buffer := io.BytesIO())
    return buffer.getvalue()


def digests(files: dict[str, bytes]) -> list[str]:
    """Of what the library makes of them."""
    engine = Deidentifier(key=KEY)
    return sorted(hashlib.sha256(engine.rewrite(content)).hexdigest() for content in files.values())


# --------------------------------------------------------------------------------------------------------- whole runs


def test_a_run_moves_what_it_de_identifies(archive: Archive) -> None:
    """KeepSource: false deletes the sources of what was de-identified; what was set aside, and equal copies, stay."""
    files = few(archive)
    archive.put("copy", files["0/source Zubikax 0"])
    archive.put("cut", instance("1.2.3.77")[:-3])
    archive.put("letter", b"a letter")
    done = archive.run(status=3)
    assert archive.versions().keys() == {"copy", "cut", "letter"}
    assert sorted(archive.written().values()) == digests(files)
    assert "3 sources deleted" in done and "stay: filtered: duplicate" in done
    told = archive.summary()["Purge"]
    assert told["NeverListed"] == {"filtered duplicate": 1, "filtered not-dicom": 1, "quarantined truncated": 1}
    assert (told["Deleted"], told["Kept"]) == (3, {}) and set(archive.settled().values()) == {"deleted"}
    before = archive.standing()
    archive.run()  # the copy stands for the one that is gone: the same bytes, which aren't written again
    assert archive.versions().keys() == {"cut", "letter"} and archive.standing() == before


@pytest.mark.parametrize(
    ("stored", "local"),
    [
        (("input",), ("output", "audit", "restricted")),
        (("output", "audit", "restricted"), ("input",)),
        (("input", "output"), ("audit", "restricted")),
        (("restricted",), ("input", "output", "audit")),
    ],
    ids=["from a store", "into a store", "records here", "records there"],
)
def test_folders_and_stores_go_together(
    stored: tuple[str, ...], local: tuple[str, ...], fake_gcs: Emulator, tmp_path: Path
) -> None:
    """Whatever of the four places is a folder, the sources go, the outputs are there, and are the only copy."""
    with bucket_of(fake_gcs) as bucket:
        archive = Archive(bucket, tmp_path, **{name: str(tmp_path / name) for name in local})
        files = few(archive)
        archive.run()
        assert archive.versions() == {} and sorted(archive.written().values()) == digests(files)
        before = archive.written()
        archive.put("0/source Zubikax 0", another(files))
        archive.run(status=3)
        assert archive.summary()["Outcomes"]["quarantined only-copy"] == 1
        assert archive.written() == before and archive.versions().keys() == {"0/source Zubikax 0"}


def test_an_input_that_a_purge_has_emptied_is_no_mistake(in_gs: Archive) -> None:
    """A store has no folder that would be left: the same command finds nothing; any other is told of its slip."""
    few(in_gs, 2)
    in_gs.run()
    assert in_gs.versions() == {}
    assert "Nothing was found below --input" in in_gs.run()
    assert "nothing is there" in in_gs.run(given=["--input", f"{in_gs.input}/0"], status=2)


def test_what_runs_write_or_never_meant_is_not_deleted(in_gs: Archive) -> None:
    """A member of an archive stays, and what a list names outside the inputs, and what another run has written."""
    files = few(in_gs, 2)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        made.writestr("1.dcm", instance("1.2.3.50", study="1.2.9.50", patient="MRN1"))
    in_gs.put("some.zip", packed.getvalue())
    beside = f"{in_gs.bucket.input}/beside"
    in_gs.bucket.store.create(beside, [instance("1.2.3.60", study="1.2.9.60", patient="MRN1")])
    names = in_gs.folder / "names.csv"
    names.write_text(f"uri\n{beside}\n")
    in_gs.run("--input-list", str(names), status=3)
    reasons = in_gs.settled()
    assert Counter(reasons.values()) == {"deleted": 2, "no-plain-file": 1, "outside-input": 1}
    assert in_gs.versions().keys() == {"some.zip"} and in_gs.bucket.store.head(beside)
    first = in_gs.standing()
    second = Archive(in_gs.bucket, in_gs.folder, output=f"{in_gs.bucket.output}/second",
                     input=in_gs.output, audit=f"{in_gs.bucket.output}/second-audit")  # fmt: skip
    second.run(status=3)
    assert set(second.settled().values()) == {"inside-output"} and in_gs.standing() == first
    assert files.keys() == reasons.keys() & files.keys()


# ------------------------------------------------------------------------------------------------- what stays, and why


def put_again(archive: Archive, name: str, output: str) -> None:
    """The same bytes in another object."""
    archive.put(name, archive.bucket.read(f"{archive.input}/{name}"))


def replaced(archive: Archive, name: str, output: str) -> None:
    archive.put(name, instance("1.2.3.99"))


def gone(archive: Archive, name: str, output: str) -> None:
    archive.bucket.store.delete(f"{archive.input}/{name}")


def output_gone(archive: Archive, name: str, output: str) -> None:
    archive.bucket.store.delete(f"{archive.output}/{output}")


def output_of_another_byte(archive: Archive, name: str, output: str) -> None:
    content = bytearray(archive.bucket.read(f"{archive.output}/{output}"))
    content[-1] ^= 1
    archive.bucket.store.create(f"{archive.output}/{output}", [bytes(content)])


def output_of_a_byte_more(archive: Archive, name: str, output: str) -> None:
    content = archive.bucket.read(f"{archive.output}/{output}")
    archive.bucket.store.create(f"{archive.output}/{output}", [content + b"\0"])


def output_put_again(archive: Archive, name: str, output: str) -> None:
    archive.bucket.store.create(f"{archive.output}/{output}", [archive.bucket.read(f"{archive.output}/{output}")])


def nothing(archive: Archive, name: str, output: str) -> None:
    pass


MISHAPS: Final[dict[str, tuple[Callable[[Archive, str, str], None], str]]] = {
    "untouched": (nothing, "deleted"),
    "replaced": (replaced, "changed"),
    "replaced by the same bytes": (put_again, "changed"),
    "gone": (gone, "gone"),
    "output gone": (output_gone, "output-missing"),
    "output of another byte": (output_of_another_byte, "output-differs"),
    "output longer": (output_of_a_byte_more, "output-differs"),
    "output put there again": (output_put_again, "deleted"),
}
"""What happens between the run and its purge, to a source and its output, and what becomes of the source."""


def test_a_source_goes_only_if_it_and_its_output_are_as_recorded(archive: Archive) -> None:
    """The very version that was read goes, where its output is as the audit says; a dry run tells so before."""
    expected = {name: outcome for name, (_, outcome) in MISHAPS.items()}
    if archive.bucket.server.scheme == "s3":
        expected["replaced by the same bytes"] = "deleted"  # its ETag stands for the bytes
    for number, name in enumerate(MISHAPS):
        archive.put(name, instance(f"1.2.3.{number}", study=f"1.2.9.{number}", patient="MRN1"))
    archive.run(body="")
    outputs = archive.outputs()
    for name, (mishap, _) in MISHAPS.items():
        mishap(archive, name, outputs[name])
    before, records = archive.versions(), archive.records()
    counts = Counter(expected.values())
    told = archive.purge("--dry-run", status=3)
    assert f"{counts['deleted']} sources would be deleted" in told
    assert archive.versions() == before and archive.records() == records
    told = archive.purge(status=3)
    assert f"{counts['deleted']} sources deleted" in told and archive.settled() == expected
    assert archive.versions().keys() == {name for name, it in expected.items() if it not in ("deleted", "gone")}
    assert archive.summary()["Purge"]["Kept"] == {name: n for name, n in counts.items() if name != "deleted"}
    damaged = outputs["output gone"], outputs["output longer"], outputs["output of another byte"]
    for output in damaged:
        assert not marked(archive, output)
    assert marked(archive, outputs["untouched"]) and not marked(archive, outputs["replaced"])


def marked(archive: Archive, output: str) -> bool:
    return only_copies.is_only_copy(locate(archive.output), output, locate(archive.restricted))


@pytest.mark.parametrize("which", ["source", "output"])
def test_the_last_look_is_right_before_the_deletion(
    which: str, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that is replaced after its output was read back stays, and so does one whose output is."""
    few(archive, 1)
    archive.run(body="")
    (name, output), *_ = archive.outputs().items()
    intend = Purge.intend

    def meddling(self: Purge, part: int, tokens: set[str]) -> None:
        intend(self, part, tokens)
        if which == "source":
            replaced(archive, name, output)
        else:
            output_of_another_byte(archive, name, output)

    monkeypatch.setattr(Purge, "intend", meddling)
    archive.purge(status=3)
    assert archive.settled() == {name: "changed" if which == "source" else "output-differs"}
    assert archive.versions().keys() == {name} and not marked(archive, output)


def test_a_source_that_stays_unmarks_nothing_that_was_marked(archive: Archive, tmp_path: Path) -> None:
    """What was the only copy before stays so: of a file as of an object in a store."""
    output, zone = locate(f"{archive.output}/x"), locate(archive.restricted)
    assert not isinstance(output, Path)
    seen = Seen(str(output), output.store.create(str(output), [b"it"]))
    removal = Removal("t", "u", "v", 1, "x", 2, hashlib.sha256(b"it").hexdigest())

    def stays(place: Any, seen: Seen) -> None:
        with pytest.raises(Kept), place.guarded(removal, seen):
            raise Kept("changed")

    stored = stored_removals.StoredOutput(output.parent, zone)
    stays(stored, seen)
    assert not marked(Archive(archive.bucket, tmp_path, output=str(output.parent)), "x")
    only_copies.mark(output, zone)
    stays(stored, seen)
    assert marked(Archive(archive.bucket, tmp_path, output=str(output.parent)), "x")
    file = tmp_path / "x"
    file.write_bytes(b"it")
    status = file.stat()
    here = Seen(f"{status.st_dev}-{status.st_ino}", version_of(status))
    stays(LocalOutput(tmp_path), here)
    assert os.access(file, os.W_OK) and file.stat().st_mode & 0o200
    file.chmod(0o400)
    stays(LocalOutput(tmp_path), here)
    assert not file.stat().st_mode & 0o200


def test_a_deletion_names_the_version(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """gs is asked to delete one generation; s3 and az are looked at right before, and again before another try."""
    monkeypatch.setattr("pipelines.purge._THREADS", 1)
    few(archive, 1)
    archive.run(body="")
    (version,) = archive.versions().values()
    with through(archive.bucket.server, tries=3) as between:
        between.inject("503", 1, of_source)
        archive.purge()
    asked = [request for request in between.seen if of_source(request)]
    assert len(asked) == 2 and archive.versions() == {}
    if archive.bucket.server.scheme == "gs":
        assert all(f"ifGenerationMatch={version}" in request.path for request in asked)
    else:
        about = [of_source(request) for request in between.seen if "archive" in request.path or of_source(request)]
        assert about[-4:] == [False, True, False, True]


@pytest.mark.parametrize(
    ("verb", "reason"),
    [
        ("source", "unreadable"),
        ("delete", "not-permitted"),
        ("output", "output-unreadable"),
        ("read", "output-unreadable"),
    ],
)
def test_what_a_store_refuses_stays(verb: str, reason: str, in_gs: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source stays where it, or its output, may not be looked at or read, and where it may not be deleted; where a
    store fails, nobody knows, and the purge stops.
    """
    store, output = store_of("gs"), locate(f"{in_gs.output}/x")
    zone, source = locate(in_gs.restricted), f"{in_gs.input}/x"
    store.create(str(output), [b"it"])
    version = store.create(source, [b"was it"])
    removal = Removal("t", source, version, 6, "x", 2, hashlib.sha256(b"it").hexdigest())
    where = removals.output_of(output.parent, zone)
    seen, asked = removals.confirm(removal, where), {"source": "head", "output": "head"}.get(verb, verb)
    answer, about = getattr(store, asked), str(output) if verb in ("output", "read") else source
    for failure in (NotAllowed("no"), Unavailable("no")):

        def answering(uri: str, *more: Any, failure: Exception = failure) -> Any:
            if uri == about:
                raise failure
            return answer(uri, *more)

        with monkeypatch.context() as patch:
            patch.setattr(store, asked, answering)
            stops = isinstance(failure, Unavailable) and verb != "read"
            with pytest.raises(StoreFailed if stops else Kept) as told:
                if verb == "delete":
                    removals.remove(removal, where, seen)
                else:
                    removals.confirm(removal, where)
        assert stops or reason in str(told.value)
        assert store.head(source)[0].version == version
        if verb == "delete":  # nobody knows whether it is gone
            assert marked(in_gs, "x") == stops


def test_an_object_on_lease_stays(azurite: Emulator, tmp_path: Path) -> None:
    """What az holds by a lease isn't taken for another version: it may not be removed."""
    from azure.storage.blob import BlobServiceClient

    with bucket_of(azurite) as bucket:
        archive = Archive(bucket, tmp_path)
        few(archive, 1)
        archive.run(body="")
        (name,) = archive.versions()
        client = BlobServiceClient(f"{azurite.url}/{emulators.ACCOUNT}", credential=emulators.ACCOUNT_KEY)
        held = client.get_blob_client(bucket.input.partition("://")[2], f"archive/{name}").acquire_lease(60)
        archive.purge(status=3)
        assert archive.settled() == {name: "not-permitted"} and archive.versions().keys() == {name}
        held.release()
        archive.purge()
        assert archive.versions() == {}


def of_source(request: Request) -> bool:
    """Whether it deletes a source; az takes deletions in batches."""
    batch = "comp=batch" in request.path and b"archive" in request.body
    return batch or (request.method == "DELETE" and "archive" in request.path)


# ------------------------------------------------------------------------------------------- the only copy that there is


def test_an_output_whose_source_is_gone_is_never_written_over(archive: Archive) -> None:
    """What comes later in the source's place is set aside, and the only copy stays."""
    files = few(archive, 2)
    archive.run()
    before = archive.standing()
    name = "0/source Zubikax 0"
    archive.put(name, another(files))
    archive.run(status=3)
    assert archive.summary()["Outcomes"]["quarantined only-copy"] == 1
    assert archive.standing() == before and archive.versions().keys() == {name}


def test_an_output_whose_source_is_gone_is_never_retired(in_gs: Archive) -> None:
    """--retire removes outputs of objects that are gone, and none that is the only copy."""
    few(in_gs, 2)
    in_gs.put("stays", instance("1.2.3.70", study="1.2.9.70", patient="MRN1"))
    in_gs.run(body="")
    stays = in_gs.outputs()["stays"]
    place = locate(f"{in_gs.output}/{stays}")
    assert not isinstance(place, Path)
    only_copies.mark(place, locate(in_gs.restricted))  # as if a purge had known it, whose records are elsewhere
    for name in in_gs.versions().keys() - {"0/source Zubikax 0"}:
        in_gs.bucket.store.delete(f"{in_gs.input}/{name}")
    told = in_gs.run("--retire", body="")
    assert "1 retired: gone" in told and "1 gone from the input: only-copy" in told
    assert in_gs.standing().keys() == {stays, in_gs.outputs()["0/source Zubikax 0"]}


def test_what_an_only_copy_would_move_to_is_set_aside(in_gs: Archive) -> None:
    """A former output is removed once another has come out in its stead; never one that is the only copy."""
    few(in_gs, 1)
    in_gs.run(body="")
    (output,) = in_gs.standing()
    place = locate(f"{in_gs.output}/{output}")
    assert not isinstance(place, Path)
    only_copies.mark(place, locate(in_gs.restricted))
    before = in_gs.standing()
    in_gs.put("0/source Zubikax 0", instance("1.2.3.0", study="1.2.9.77", patient="MRN1"))
    in_gs.run("--retire", body="", status=None)
    assert before.items() <= in_gs.standing().items()


# ------------------------------------------------------------------------------------------------- death at any request


def cut_off(archive: Archive, step: int, act: Callable[[], object]) -> bool:
    """Do something that reaches the store no more from one request on: whether it came to that request.

    To the store this is what a death is: the requests before are carried out, and none after.
    """
    with through(archive.bucket.server, tries=1) as between:
        counted = iter(range(1, ALWAYS))
        between.inject("reset sending", ALWAYS, lambda request: next(counted) >= step)
        act()
    archive.forget_lease()
    return between.hurt > 0


def lost(archive: Archive, before: dict[str, str], outputs: dict[str, str]) -> set[str]:
    """The sources that aren't there as they were, and whose outputs aren't either."""
    now, written = archive.versions(), set(archive.written().values())
    return {
        name
        for name, version in before.items()
        if now.get(name) != version and (name in now or outputs.get(name) not in written)
    }


def bring_back(archive: Archive, files: dict[str, bytes]) -> None:
    """As it was before the purge: the sources in the versions that were read, and no record of one."""
    for name, content in files.items():
        archive.put(name, content)
    versions = {f"{archive.input}/{name}": version for name, version in archive.versions().items()}
    zone = locate(archive.restricted)
    for folder in ("purge", "only-copies"):
        for found in (zone / folder).below():  # type: ignore[union-attr]
            archive.bucket.store.delete(found.uri)
    for part in (zone / "crosswalk" / "instances").glob("*/*.parquet"):
        there = pq.read_table(table_file(part), partitioning=None)
        rows = [row | {"source_version": versions[row["source_uri"]]} for row in there.to_pylist()]
        archive.bucket.store.create(str(part), [encoded(there.schema, rows)])


_ASKED = os.environ.get("DICOMVEIL_CAMPAIGN", "")
KILLS: Final = int(_ASKED) if _ASKED.isdigit() else 3
STEPS: Final = 400  # more than any purge here takes


@pytest.mark.parametrize("every", [17, 1] if _ASKED else [17])
def test_death_before_any_request_of_a_purge_loses_nothing(
    every: int, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off before each request in turn, a purge has every source or its output, and the same command ends it."""
    monkeypatch.setattr("transforms.purges.PART", 2)
    monkeypatch.setattr("pipelines.purge._THREADS", 1)
    files = few(archive)
    archive.run(body="")
    run, written = archive.newest, archive.written()
    outputs = {name: written[output] for name, output in archive.outputs().items()}
    counts = set()
    for step in range(every, STEPS, every):
        before = archive.versions()
        died = cut_off(archive, step, lambda: archive.purge(run=run, status=None))
        assert lost(archive, before, outputs) == set(), step
        counts.add(len(archive.versions()))
        for name in before.keys() - archive.versions().keys():
            assert marked(archive, archive.outputs()[name]), step
        archive.purge(run=run)
        assert archive.versions() == {} and archive.written() == written, step
        assert set(archive.settled(run).values()) == {"deleted"}, step
        assert archive.summary()["Purge"]["Deleted"] == 3, step
        assert not list((locate(archive.restricted) / "purge" / f"run={run}").glob("intent-*.json"))
        if not died:
            break
        bring_back(archive, files)
    assert step > 40 and (counts == {0, 1, 2, 3} or every > 1)


def test_a_purge_that_died_can_be_given_up(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """--abandon deletes nothing more, tells what was deleted, and no command goes on with it."""
    monkeypatch.setattr("transforms.purges.PART", 2)
    monkeypatch.setattr("pipelines.purge._THREADS", 1)
    files = few(archive)
    archive.run(body="")
    for left in (3, 2, 1):
        deleting = Deletions(3 - left)
        with through(archive.bucket.server, tries=1) as between:
            between.inject("reset sending", ALWAYS, deleting.over)
            archive.purge(status=1)
        archive.forget_lease()
        now = archive.versions()
        assert len(now) == left
        done = archive.purge("--abandon")
        assert archive.versions() == now and f"{3 - left} sources deleted" in done and "given up" in done
        assert Counter(archive.settled().values()) == Counter(deleted=3 - left, abandoned=left)
        assert "was given up" in archive.purge(status=2)
        bring_back(archive, files)


class Deletions:
    """Tells the requests that come once so many sources were deleted."""

    def __init__(self, count: int) -> None:
        self._left, self._over = count, False

    def over(self, request: Request) -> bool:
        if of_source(request):
            self._over = self._over or not self._left
            self._left -= 1
        return self._over


def test_the_same_command_goes_on_with_the_purge(in_gs: Archive) -> None:
    """A run that was cut off in its purge doesn't begin anew, also where nothing is left of its input by then."""
    few(in_gs, 2)
    deleting = Deletions(1)
    with through(in_gs.bucket.server, tries=1) as between:
        between.inject("reset sending", ALWAYS, deleting.over)
        told = in_gs.run(status=1)
    assert "the same command goes on deleting its sources" in told and len(in_gs.versions()) == 1
    in_gs.forget_lease()
    first = in_gs.newest
    in_gs.bucket.store.delete(f"{in_gs.input}/{next(iter(in_gs.versions()))}")
    in_gs.run()
    assert in_gs.newest == first and set(in_gs.settled().values()) == {"deleted"}


def test_a_purge_waits_for_nobody(archive: Archive) -> None:
    """While a run is at work in the restricted zone, a purge is refused."""
    few(archive, 1)
    archive.run(body="")
    with runs.locked(archive.restricted):
        assert "Another run is at work" in archive.purge(status=2)
    assert len(archive.versions()) == 1


def test_who_has_lost_the_zone_deletes_nothing(in_gs: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """A purge whose lease another has taken over stops before it removes anything."""
    few(in_gs, 1)
    in_gs.run(body="")
    taken = stored_removals.StoredOutput.settle

    def taking(self: Any, names: set[str]) -> None:
        taken(self, names)
        lease = f"{in_gs.restricted}/lease"
        in_gs.bucket.store.create(lease, [json.dumps({"holder": "somebody", "seconds": 60}).encode()])

    monkeypatch.setattr(stored_removals.StoredOutput, "settle", taking)
    assert "Another run has taken over" in in_gs.purge(status=1)
    assert len(in_gs.versions()) == 1


@pytest.mark.long
@pytest.mark.parametrize("seed", range(KILLS))
def test_a_killed_purge_goes_on_where_it_was(seed: int, archive: Archive) -> None:
    """Killed while it asks for something, with all threads at work: nothing is lost, and the same command ends it."""
    files = few(archive, 12)
    archive.run(body="")
    before, written = archive.versions(), archive.written()
    outputs = {name: written[output] for name, output in archive.outputs().items()}
    words = [sys.executable, "-m", "pipelines", "purge", "--restricted", archive.restricted, "--run", archive.newest]
    with through(archive.bucket.server) as between:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        counted, at = iter(range(ALWAYS)), random.Random(seed).randrange(30, 150)

        def killing(request: Request) -> bool:
            if next(counted) == at:
                os.kill(process.pid, signal.SIGKILL)
            return False

        between.inject("503", ALWAYS, killing)
        process.wait(120)
    assert lost(archive, before, outputs) == set()
    archive.forget_lease()
    archive.purge()
    assert archive.versions() == {} and archive.written() == written and len(files) == 12

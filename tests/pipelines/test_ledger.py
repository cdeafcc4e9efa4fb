"""Scheduled runs: what is as an earlier run has settled it isn't touched, and what isn't any more is told."""

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pydicom
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dicomveil.rewrite import Rewritten
from dicomveil.stream import Source
from pipelines import retire
from pipelines.cli import cli
from tests.corpora import KEY
from tests.oracles import in_process
from tests.oracles.reference_graph import Recipe, compare, edges, read
from tests.pipelines.test_anonymize import contents, table
from tests.pipelines.test_identity_over_runs import RESEARCH, check_links, late_project
from tests.pipelines.test_known import Site
from transforms.rewrite import Rewriting
from transforms.tables import read_part


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def summary(site: Site) -> dict[str, Any]:
    return dict(json.loads((site.audit / "summary.json").read_bytes()))


def outcomes(site: Site) -> dict[str, int]:
    """What became of each object listed in the last run: together they are all of them."""
    told = summary(site)
    assert sum(told["Outcomes"].values()) == told["Listed"]
    return dict(told["Outcomes"])


def touched(site: Site) -> set[str]:
    """The sources of which the last run has settled something."""
    run = max(path.stem for path in (site.restricted / "runs").glob("*.json"))
    parts = (site.restricted / "ledger" / f"run={run}").glob("*.parquet")
    return {Path(row["source_uri"]).name for part in parts for row in read_part(part)}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Of every output what changes when it is written again."""
    found = {path: path.stat() for path in folder.rglob("*.dcm")}
    return {str(path.relative_to(folder)): (it.st_ino, it.st_mtime_ns) for path, it in found.items()}


def names(site: Site) -> dict[str, str]:
    """The newest output of each source, by their names."""
    return {Path(row["source_uri"]).name: row["name"] for row in table(site.restricted, "ledger") if row["name"]}


def gone(site: Site) -> dict[str, int]:
    return dict(summary(site)["Gone"])


# ------------------------------------------------------------------------------------------------ night after night


def first_night(site: Site) -> dict[str, Path]:
    """Three studies of two patients, whose instances refer to each other."""
    return {
        "a1": site.put("a1", uid="1.2.11", study="1.2.3.1", patient="4711", frame="1.2.7.1", refers="1.2.12"),
        "a2": site.put("a2", uid="1.2.12", study="1.2.3.1", patient="4711", frame="1.2.7.1"),
        "b1": site.put("b1", uid="1.2.21", study="1.2.3.2", patient="4711", frame="1.2.7.1", refers="1.2.11"),
        "b2": site.put("b2", uid="1.2.22", study="1.2.3.2", patient="4711", frame="1.2.7.2"),
        "c1": site.put("c1", uid="1.2.31", study="1.2.3.3", patient="4712", frame="1.2.7.3"),
        "c2": site.put("c2", uid="1.2.32", study="1.2.3.3", patient="4712", frame="1.2.7.3", refers="1.2.31"),
    }


def test_the_second_night_touches_what_is_new_changed_or_gone(site: Site) -> None:
    """A new study, two more instances in an old one, one changed, one gone: those are processed, and no other output is
    as much as opened for writing; every reference leads where it led.
    """
    files = first_night(site)
    site.run()
    before, first = stamps(site.output), names(site)
    assert outcomes(site) == {"deidentified": 6}
    files |= {
        "d1": site.put("d1", uid="1.2.41", study="1.2.3.4", patient="4713", frame="1.2.7.4", refers="1.2.21"),
        "a3": site.put("a3", uid="1.2.13", study="1.2.3.1", patient="4711", frame="1.2.7.1", refers="1.2.12"),
        "a4": site.put("a4", uid="1.2.14", study="1.2.3.1", patient="4711", frame="1.2.7.2", refers="1.2.22"),
        "b2": site.put("b2", uid="1.2.22", study="1.2.3.2", patient="4711", frame="1.2.7.2", refers="1.2.41"),
    }
    files.pop("c1").unlink()
    told = site.run("--retire")
    assert "4 unchanged" in " ".join(told.split())
    assert outcomes(site) == {"deidentified": 4, "unchanged": 4}
    assert summary(site)["Listed"] == 8 and gone(site) == {"retired gone": 1}
    assert touched(site) == {"d1", "a3", "a4", "b2"}
    after, now = stamps(site.output), names(site)
    assert {name for name in before if after.get(name) == before[name]} == {now[it] for it in ("a1", "a2", "b1", "c2")}
    assert len(after) == 8 and first["c1"] not in after
    graph = read({name: site.output / now[name] for name in files})
    assert compare(read(files), graph, Recipe(KEY)) == [] and edges(graph) > 40
    (retired,) = [row for row in table(site.audit, "instances") if row["outcome"] == "retired"]
    assert (retired["name"], retired["reason"]) == (first["c1"], "gone")
    assert str(site.input) not in str(table(site.audit, "instances"))
    told = site.run("--retire")
    assert "Nothing is new since earlier runs." in told
    assert outcomes(site) == {"unchanged": 8} and gone(site) == {} and stamps(site.output) == after


@pytest.mark.long
def test_what_arrives_night_after_night_fits(tmp_path: Path) -> None:
    """A follow-up, and the RTSTRUCT, SEG and registration of images that are no longer looked at, fit them: frames of
    reference, contours and sources lead where they led, and the end is that of one run.
    """
    at_once, nights = (in_process.Site(tmp_path / name, request=RESEARCH) for name in ("at once", "nights"))
    folder, sizes = tmp_path / "in", []
    for part, files in late_project().items():
        (folder / part).mkdir(parents=True)
        for name, content in files.items():
            (folder / part / name).write_bytes(content)
        nights.run([folder])
        told = json.loads((nights.folder / "audit" / "summary.json").read_bytes())
        sizes.append(told["Outcomes"])
        assert told["Outcomes"]["deidentified"] == len(files)
    assert sizes[-1] == {"deidentified": 3, "unchanged": 4}
    at_once.run([folder])
    assert nights.outputs() == at_once.outputs()
    check_links(nights.graph())


def test_a_night_without_news_says_so_and_ends_well(site: Site) -> None:
    """Also of what was set aside, which isn't looked at again until it is asked for; of a key of its own a run has no
    ledger.
    """
    site.put("a", uid="1.2.1", patient="4711")
    site.put("b", uid="1.2.2", patient="4712")
    (site.input / "letter").write_text("about somebody")
    site.put("c", uid="1.2.3", study="1.2.3.2", patient="4711")
    site.run(status=3)
    before = stamps(site.output)
    told = " ".join(site.run().split())
    assert "Nothing is new since earlier runs." in told and "4 unchanged Since earlier runs. 3 of them were" in told
    assert stamps(site.output) == before and outcomes(site) == {"unchanged": 4}
    site.run("--reprocess", "quarantined", status=3)
    assert outcomes(site) == {"quarantined patient-conflict": 2, "unchanged": 2} and stamps(site.output) == before
    site.run("--reprocess", "all", status=3)
    assert "unchanged" not in outcomes(site) and contents(site.output).keys() == before.keys()
    unkeyed = ["anonymize", "--input", str(site.input / "c"), "--output", str(site.output.parent / "unkeyed")]
    assert "a run without --key" in CliRunner().invoke(cli, [*unkeyed, "--retire"]).output
    for _ in range(2):
        options = ["--overwrite"] * (site.output.parent / "unkeyed").exists()
        assert CliRunner().invoke(cli, [*unkeyed, *options]).exit_code == 0
    assert not (site.output.parent / "unkeyed-restricted" / "ledger").exists()


def test_what_could_not_be_read_is_tried_again(site: Site) -> None:
    """Of what says nothing of the object itself nothing is settled."""
    target = site.input.parent / "elsewhere"
    (site.input / "a").symlink_to(target)
    site.put("b", uid="1.2.2", patient="4711")
    site.run(status=3)
    assert outcomes(site) == {"deidentified": 1, "quarantined unreadable": 1} and touched(site) == {"b"}
    site.run(status=3)
    assert outcomes(site) == {"unchanged": 1, "quarantined unreadable": 1}
    shutil.move(site.put("a-", uid="1.2.1", patient="4711"), target)
    site.run()
    assert outcomes(site) == {"unchanged": 1, "deidentified": 1}
    site.run()
    assert outcomes(site) == {"unchanged": 2}  # what a link leads to is known again, though it lies elsewhere


def test_what_rejoins_is_counted_once(site: Site) -> None:
    """An instance that didn't change is written again once its patient becomes known: it isn't unchanged, then."""
    site.put("a", uid="1.2.1")
    site.put("z", uid="1.2.9", study="1.2.3.9", patient="4719")
    site.run()
    site.put("b", uid="1.2.2", patient="4711")
    site.run()
    assert outcomes(site) == {"deidentified": 2, "unchanged": 1} and summary(site)["Rejoined"] == 1
    assert len({ds.PatientID for ds in site.instances().values()}) == 2 and len(site.instances()) == 3
    site.run()
    assert outcomes(site) == {"unchanged": 3}


# -------------------------------------------------------------------------------------------------- what has changed


def test_a_changed_object_takes_the_place_of_its_former_version(site: Site) -> None:
    """With other content, another series or another SOP Instance UID: there is one output of it, and no conflict with
    what it was itself; also where two have changed places, or something else comes by the former UID.
    """
    site.put("pixels", uid="1.2.1", study="1.2.3.1", patient="4711")
    site.put("series", uid="1.2.2", study="1.2.3.1", patient="4711")
    site.put("instance", uid="1.2.3", study="1.2.3.1", patient="4711")
    one = site.put("one", uid="1.2.4", study="1.2.3.4", patient="4711")
    other = site.put("other", uid="1.2.5", study="1.2.3.5", patient="4712")
    site.put("freed", uid="1.2.6", study="1.2.3.1", patient="4711")
    site.run()
    before = names(site)
    site.put("pixels", uid="1.2.1", study="1.2.3.1", patient="4711", frame="1.2.77")
    site.put("series", uid="1.2.2", study="1.2.3.1", patient="4711", series="1.2.3.1.2")
    site.put("instance", uid="1.2.33", study="1.2.3.1", patient="4711")
    contents_of = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents_of[1])
    other.write_bytes(contents_of[0])
    site.put("freed", uid="1.2.66", study="1.2.3.1", patient="4711")
    site.put("taker", uid="1.2.6", study="1.2.3.1", patient="4711", frame="1.2.78")
    site.run()
    after = names(site)
    assert outcomes(site) == {"deidentified": 7}
    assert set(contents(site.output)) == set(after.values()) and len(set(after.values())) == 7
    assert after["pixels"] == before["pixels"] and site.new("1.2.1").FrameOfReferenceUID
    assert after["series"] != before["series"] and after["instance"] != before["instance"]
    assert (after["one"], after["other"]) == (before["other"], before["one"])
    assert after["taker"] == before["freed"] and site.new("1.2.6").FrameOfReferenceUID
    assert gone(site) == {"retired replaced": 2}
    site.run()
    assert outcomes(site) == {"unchanged": 7} and gone(site) == {} and set(contents(site.output)) == set(after.values())


def test_a_version_that_is_set_aside_leaves_the_former_output(site: Site) -> None:
    """It goes when one comes that passes, or when the object itself is gone and that is asked for."""
    site.put("a", uid="1.2.1", patient="4711")
    site.put("b", uid="1.2.2", patient="4711")
    site.run()
    before = contents(site.output)
    (site.input / "a").write_bytes(b"\0" * 200)
    site.run()
    assert outcomes(site) == {"filtered not-dicom": 1, "unchanged": 1} and contents(site.output) == before
    site.put("a", uid="1.2.11", patient="4711")
    site.run()
    assert gone(site) == {"retired replaced": 1} and set(site.instances()) == {
        site.new(uid).SOPInstanceUID for uid in ("1.2.11", "1.2.2")
    }
    (site.input / "a").write_bytes(b"\0" * 200)
    site.run()
    (site.input / "a").unlink()
    site.run("--retire")
    assert gone(site) == {"retired gone": 1} and list(contents(site.output)) == [names(site)["b"]]


@pytest.mark.parametrize("edition", ["2026c"])
def test_another_request_leaves_what_is_there_until_it_is_told_to_go_over_it(site: Site, edition: str) -> None:
    """In a mixed output what is new follows the new request, and --reprocess changed-request does the rest again."""
    site.put("a", uid="1.2.1", patient="4711")
    site.put("c", uid="1.2.3", patient="4711", study="1.2.3.3")
    site.put("d", uid="1.2.4", patient="4712", study="1.2.3.3")
    site.run(status=3)
    before, request = stamps(site.output), f"DicomVersion: {edition}\nPatientConflicts: split\n"
    site.put("b", uid="1.2.2", patient="4711")
    site.run(request=request, status=2)
    told = site.run("--overwrite", request=request)
    assert outcomes(site) == {"unchanged": 1, "deidentified": 3}  # what was set aside by the other one is tried again
    assert "1 output was made by another request" in told and summary(site)["UnchangedByOtherRequests"] == 1
    assert stamps(site.output).items() >= before.items()
    site.run("--overwrite", "--reprocess", "changed-request", request=request)
    assert outcomes(site) == {"unchanged": 3, "deidentified": 1}
    assert stamps(site.output).keys() >= before.keys() and not stamps(site.output).items() >= before.items()


def test_what_a_crosswalk_left_out_is_tried_again_with_another(site: Site, tmp_path: Path) -> None:
    """Nobody need say so; with the same crosswalk it stays as it is."""
    csv, request = tmp_path / "trial.csv", "Unlisted: quarantine\n"
    csv.write_text("original,new\n4711,TRIAL-001\n")
    site.put("a", uid="1.2.1", patient="4711")
    site.put("b", uid="1.2.2", patient="4712", study="1.2.3.2")
    site.run("--crosswalk-in", csv, request=request, status=3)
    site.run("--crosswalk-in", csv, request=request)
    assert outcomes(site) == {"unchanged": 2}
    csv.write_text("original,new\n4711,TRIAL-001\n4712,TRIAL-002\n")
    site.run("--crosswalk-in", csv, request=request)
    assert outcomes(site) == {"unchanged": 1, "deidentified": 1} and site.new("1.2.2").PatientID == "TRIAL-002"
    site.run(request=request)
    assert outcomes(site) == {"unchanged": 2}


# ---------------------------------------------------------------------------------------------------- what is gone


def test_an_output_stays_as_long_as_anything_stands_for_it(site: Site) -> None:
    """A duplicate takes the place of what is gone, a moved archive is the same, and who comes back is processed anew."""
    first = site.put("a", uid="1.2.1", patient="4711")
    shutil.copy(first, site.input / "copy")
    site.put("b", uid="1.2.2", patient="4711")
    site.run()
    before = contents(site.output)
    assert outcomes(site) == {"deidentified": 2, "filtered duplicate": 1}
    first.rename(site.input.parent / "kept")
    site.run("--retire")
    assert outcomes(site) == {"deidentified": 1, "unchanged": 1} and gone(site) == {"retired moved": 1}
    assert contents(site.output) == before and touched(site) == {"copy"}
    for name in ("copy", "b"):
        (site.input / name).rename(site.input / f"{name} moved")
    site.run("--retire")
    assert gone(site) == {"retired moved": 2} and contents(site.output) == before
    (site.input / "copy moved").unlink()
    site.run()
    assert gone(site) == {"kept gone": 1} and contents(site.output) == before
    site.run("--retire")
    assert gone(site) == {"retired gone": 1} and len(contents(site.output)) == 1
    (site.input.parent / "kept").rename(first)
    site.run("--retire")
    assert outcomes(site) == {"deidentified": 1, "unchanged": 1} and contents(site.output) == before


def test_only_what_was_looked_for_is_gone(site: Site) -> None:
    """Not what lies below other inputs, also where that alone stands for the output; and nothing below an input in which
    nothing at all was found, as in a disk that isn't mounted.
    """
    site.put("b", uid="1.2.2", patient="4711")
    first, second = (site.input.parent / name for name in ("first", "second"))
    site.input.rename(first)
    second.mkdir()
    shutil.copy(first / "b", second / "b")
    site.input = first
    site.put("a", uid="1.2.1", patient="4711")
    site.run(only=[first])
    site.run(only=[second])
    assert site.reasons() == ["duplicate"]
    before = contents(site.output)
    (first / "b").unlink()
    site.run("--retire", only=[first])
    assert gone(site) == {"kept others": 1} and contents(site.output) == before
    first.rename(site.input.parent / "unmounted")
    first.mkdir()
    site.run("--retire", only=[first, second])
    assert gone(site) == {} and contents(site.output) == before


def test_what_was_deleted_on_purpose_is_never_gone(site: Site) -> None:
    """Sources that a request has moved are neither told of nor retired, though nothing else is left of them."""
    site.put("a", uid="1.2.1", patient="4711")
    site.put("b", uid="1.2.2", patient="4711")
    site.run(request="KeepSource: false\n")
    before = contents(site.output)
    site.put("c", uid="1.2.3", patient="4711")
    site.run("--retire")
    assert (
        gone(site) == {} and contents(site.output).items() > before.items() and not (site.restricted / "gone").exists()
    )


@pytest.mark.parametrize(
    ("more", "told"), [([], "stays, without --retire"), (["--retire"], "is removed where nothing")]
)
def test_a_plan_tells_of_what_is_gone(
    more: list[str], told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And what would become of its output."""
    site = Site(tmp_path)
    for name in "ab":
        site.put(name, uid=f"1.2.{ord(name)}", study="1.2.3.1", patient="47")
    site.run()
    (site.input / "a").unlink()
    site.run(*more, "--plan-only")
    said = " ".join(capfd.readouterr().err.split())
    assert "1 objects that were settled aren't there any more" in said and told in said
    assert len(site.instances()) == 2


@pytest.mark.parametrize("closed", [False, True], ids=["gone on with", "closed by another"])
def test_a_run_that_dies_while_it_retires_loses_nothing(
    site: Site, closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is removed before it is recorded what will be; whoever comes next brings that to its end."""
    gone_one = site.put("a", uid="1.2.1", patient="4711")
    changed = site.put("b", uid="1.2.2", patient="4711")
    site.put("c", uid="1.2.3", patient="4711")
    site.run()
    kept = gone_one.read_bytes()
    gone_one.unlink()
    site.put("b", uid="1.2.22", patient="4711")

    def die(*_: Any) -> None:
        assert retire.record_of(next(site.restricted.glob("run=*"))).exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(retire, "remove_retired", die)
        site.run("--retire", status=1)
    assert len(contents(site.output)) == 4
    if closed:
        gone_one.write_bytes(kept)  # and came back before anybody looked
        site.run()
        assert outcomes(site) == {"deidentified": 1, "unchanged": 2} and len(contents(site.output)) == 3
    else:
        site.run("--retire")
        assert outcomes(site) == {"deidentified": 1, "unchanged": 1} and len(contents(site.output)) == 2
        assert gone(site) == {"retired gone": 1, "retired replaced": 1}
    assert changed.exists() and {names(site)[it] for it in ("b", "c")} <= set(contents(site.output))


# ------------------------------------------------------------------------------------------------------- any nights

NIGHTS = settings(
    max_examples=10 if "DICOMVEIL_CAMPAIGN" in os.environ else 1,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def change(site: Site, draw: random.Random) -> None:
    """One of the things that happen to an archive; an object is always of one patient, study and series."""
    here = sorted(path.name for path in site.input.iterdir())
    happens: list[Callable[[], Any]] = [lambda: put(site, f"{draw.randrange(12)}", draw)] * 3
    if here:
        one = draw.choice(here)
        happens += [
            lambda: (site.input / one).unlink(),
            lambda: (site.input / one).rename(site.input / f"m{draw.randrange(99)}"),
            lambda: put(site, one, draw, str(draw.randrange(12))),
        ]
    draw.choice(happens)()


def put(site: Site, name: str, draw: random.Random, number: str = "") -> None:
    """An instance of a number, of which there is none yet under another name, since those would be in conflict."""
    number = number or name.strip("m")
    uid = f"1.2.3.9.{number}"
    if any(path.name != name and pydicom.dcmread(path).SOPInstanceUID == uid for path in site.input.iterdir()):
        return
    study = int(number) % 3
    more = {"frame": f"1.2.7.{draw.randrange(3)}", "refers": f"1.2.3.9.{draw.randrange(12)}"}
    site.put(name, uid=uid, study=f"1.2.3.{study}", patient=f"47{study % 2}", **more)


@pytest.mark.long
@NIGHTS
@given(seed=st.integers(0, 1 << 30))
def test_any_nights_end_where_one_run_would(seed: int) -> None:
    """However an archive grows, changes and shrinks: with --retire the outputs are those of its last state, byte for
    byte, and nothing stands there for which nobody accounts.
    """
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        nights, once = Site(Path(folder) / "nights"), Site(Path(folder) / "once")
        put(nights, "0", draw)
        for _ in range(5):
            for _ in range(draw.randrange(6)):
                change(nights, draw)
            if any(nights.input.iterdir()):  # a listing without anything is believed by nobody
                nights.run("--retire")
                assert "quarantined" not in str(outcomes(nights))
        put(nights, "99", draw)  # so that the last listing holds something
        shutil.copytree(nights.input, once.input, dirs_exist_ok=True)
        nights.run("--retire")
        once.run()
        assert contents(nights.output) == contents(once.output)


def test_the_ledger_names_each_object_once_a_run(site: Site) -> None:
    """By its URI and version, with the fingerprints of what it was made by, and the name of its output."""
    site.put("a", uid="1.2.1", patient="4711")
    (site.input / "letter").write_text("about somebody")
    site.run()
    rows = {Path(row["source_uri"]).name: row for row in table(site.restricted, "ledger")}
    (audited,) = [row for row in table(site.audit, "instances") if row["name"]]
    assert rows.keys() == {"a", "letter"} and rows["letter"]["reason"] == "not-dicom"
    assert (rows["a"]["source_token"], rows["a"]["name"]) == (audited["source_token"], audited["name"])
    told = summary(site)["Fingerprints"]
    assert (rows["a"]["request_fingerprint"], rows["a"]["table_fingerprint"]) == (told["request"], told["table"])
    assert all((path.stat().st_mode & 0o777) == 0o600 for path in (site.restricted / "ledger").rglob("*.parquet"))
    (manifest,) = (site.restricted / "runs").glob("*.json")
    listed = [part["path"] for part in json.loads(manifest.read_bytes())["parts"]]
    parts = [path for path in listed if path.startswith("ledger/")]
    assert parts and sum(pq.read_metadata(site.restricted / path).num_rows for path in parts) == 2


def test_what_changes_while_it_is_read_leaves_no_output(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made of two states of a file is nobody's: it never gets its name, and the next run makes it anew."""
    path = site.put("torn", uid="1.2.99", study="1.2.3.99", patient="P99")
    rewrite = Rewriting.rewrite

    def meddled(rewriting: Rewriting, source: Source, *planned: Any) -> Rewritten:
        os.utime(path, ns=(1, 1))
        return rewrite(rewriting, source, *planned)

    with monkeypatch.context() as meddling:
        meddling.setattr(Rewriting, "rewrite", meddled)
        site.run(status=3)
    assert outcomes(site)["quarantined changed-during-run"] == 1
    named = {row["name"] for row in table(site.audit, "instances") if row["name"]}
    assert {str(it.relative_to(site.output)) for it in site.output.rglob("*.dcm")} == named == set()
    site.run()
    assert outcomes(site)["deidentified"] == 1

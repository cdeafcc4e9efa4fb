"""Runs that follow on each other: what one has settled holds for the next, in whichever order an archive comes in."""

import hashlib
import os
import shlex
import shutil
from pathlib import Path

import apache_beam as beam
import pyarrow.parquet as pq
import pydicom
import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from pipelines import course, execute
from pipelines.cli import cli
from tests.corpora import KEY
from tests.pipelines.test_anonymize import contents, table


class Site:
    """An archive, and what dicomveil makes of it, run after run."""

    def __init__(self, folder: Path, key: bytes = KEY) -> None:
        self.input, self.output = folder / "in", folder / "out"
        self.audit, self.restricted = folder / "out-audit", folder / "out-restricted"
        self.input.mkdir(parents=True)
        self._key, self._requests = key.hex(), 0

    def put(self, name: str, **values: object) -> Path:
        """An instance: study, series, uid, patient, refers, frame, text."""
        ds = Dataset()
        ds.SOPClassUID = CTImageStorage
        ds.SOPInstanceUID = values.get("uid", f"1.2.3.9.{int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)}")
        ds.StudyInstanceUID = values.get("study", "1.2.3.1")
        ds.SeriesInstanceUID = values.get("series", f"{ds.StudyInstanceUID}.1")
        ds.Modality, ds.StudyDate, ds.PatientName = "CT", values.get("date", "20200102"), "Zubikax^Zyta"
        if "patient" in values:
            ds.PatientID = values["patient"]
        if "issuer" in values:
            ds.IssuerOfPatientID = values["issuer"]
        if "frame" in values:
            ds.FrameOfReferenceUID = values["frame"]
        if "text" in values:
            ds.StudyDescription = values["text"]
        if "private" in values:
            block = ds.private_block(0x0011, "ZYTA 1", create=True)
            block.add_new(0x01, "UI", values["private"])
        if "refers" in values:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, values["refers"]
            ds.ReferencedImageSequence = Sequence([item])
        path = self.input / name
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta = meta
        ds.save_as(path, enforce_file_format=True)
        return path

    def run(self, *options: object, status: int = 0, request: str = "", only: list[Path] | None = None) -> str:
        """The command; what it printed."""
        arguments = ["anonymize", "--output", self.output, "--key", "env:DICOMVEIL_KEY", *options]
        arguments += ["--input", *(only or [self.input]), *shlex.split(os.environ.get("DICOMVEIL_RUNNER", ""))]
        if request:
            file = self.input.parent / "request.yaml"
            file.write_text(request)
            arguments += ["--request", file]
        done = CliRunner().invoke(cli, list(map(str, arguments)), env={"DICOMVEIL_KEY": self._key})
        assert done.exit_code == status, done.output
        return done.output

    def instances(self) -> dict[str, pydicom.Dataset]:
        """The outputs, by Patient ID and SOP Instance UID."""
        found = [pydicom.dcmread(path) for path in sorted(self.output.rglob("*.dcm"))]
        return {str(ds.SOPInstanceUID): ds for ds in found}

    def new(self, original: str) -> pydicom.Dataset:
        """The output of an instance, by its original SOP Instance UID."""
        rows = table(self.restricted, "crosswalk/instances")
        name = [row["name"] for row in rows if row["original_sop_instance_uid"] == original][-1]
        return pydicom.dcmread(self.output / name)

    def reasons(self) -> list[str]:
        """Why inputs of the last run were set aside."""
        last = sorted((self.restricted / "runs").glob("*.json"))[-1].stem
        parts = (self.restricted / "quarantine" / f"run={last}").glob("*.parquet")
        return sorted(row["reason"] for part in parts for row in pq.read_table(part, partitioning=None).to_pylist())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_an_instance_that_comes_later_without_patient_id_takes_its_studys(site: Site) -> None:
    """What an earlier run knows of a study holds for the instances that come to it."""
    first = site.put("a", uid="1.2.1", patient="4711")
    site.run(only=[first])
    second = site.put("b", uid="1.2.2")
    site.run(only=[second])
    assert site.new("1.2.2").PatientID == site.new("1.2.1").PatientID
    assert site.new("1.2.2").StudyInstanceUID == site.new("1.2.1").StudyInstanceUID


def test_instances_rejoin_when_their_patient_becomes_known(site: Site) -> None:
    """What was written without knowing the patient is written again, and the former file goes."""
    first = site.put("a", uid="1.2.1")
    site.run(only=[first])
    unknown = site.new("1.2.1").PatientID
    second = site.put("b", uid="1.2.2", patient="4711")
    told = site.run(only=[second])
    assert "1 instance" in told and "written again" in told
    assert len(site.instances()) == 2
    assert {ds.PatientID for ds in site.instances().values()} == {site.new("1.2.2").PatientID} != {unknown}


def test_a_run_in_one_part_or_in_several_ends_in_the_same(tmp_path: Path) -> None:
    """However an archive is split and ordered, its outputs are the same bytes."""
    ends = []
    for number, order in enumerate([["abc"], ["a", "b", "c"], ["b", "ca"]]):
        site = Site(tmp_path / str(number))
        paths = {
            "a": site.put("a", uid="1.2.1", refers="1.2.3", frame="1.2.77"),
            "b": site.put("b", uid="1.2.2", patient="4711", series="1.2.3.1.2", frame="1.2.77"),
            "c": site.put("c", uid="1.2.3", patient="4711", study="1.2.3.2", refers="1.2.1"),
        }
        for part in order:
            site.run(only=[paths[it] for it in part], request="ExternalReferences: remove\n")
        ends.append(contents(site.output))
    assert len(ends[0]) == 3 and all(end == ends[0] for end in ends)


def test_an_instance_of_another_patient_doesnt_join_a_settled_study(site: Site) -> None:
    """The study's patient is whom it was first seen with; who contradicts that is set aside."""
    site.run(only=[site.put("a", uid="1.2.1", patient="4711")])
    before = contents(site.output)
    site.run(only=[site.put("b", uid="1.2.2", patient="4712")], status=3)
    assert site.reasons() == ["patient-conflict"] and contents(site.output) == before
    site.run("--reprocess", "quarantined", status=3)
    assert site.reasons() == ["patient-conflict"] and contents(site.output) == before


def test_a_study_of_several_patients_stays_in_conflict(site: Site) -> None:
    """One of its instances alone isn't let through later, unless the user has it settled anew."""
    first, second = site.put("a", uid="1.2.1", patient="4711"), site.put("b", uid="1.2.2", patient="4712")
    site.run(only=[first, second], status=3)
    assert site.reasons() == ["patient-conflict"] * 2
    site.run(only=[first], status=3)
    assert site.reasons() == ["patient-conflict"]
    site.run("--settle-anew", only=[first])
    assert len(site.instances()) == 1


def test_a_study_of_several_patients_can_be_split(site: Site) -> None:
    """Each patient gets a study, to which its own references lead; an instance that names nobody is set aside."""
    site.put("a", uid="1.2.1", patient="4711")
    site.put("b", uid="1.2.2", patient="4712", series="1.2.3.1.2")
    site.put("c", uid="1.2.3", series="1.2.3.1.3")
    site.run(request="PatientConflicts: split\n", status=3)
    assert site.reasons() == ["patient-conflict"]
    one, other = site.new("1.2.1"), site.new("1.2.2")
    assert one.PatientID != other.PatientID and one.StudyInstanceUID != other.StudyInstanceUID
    site.run("--reprocess", "all", request="PatientConflicts: split\n", status=3)
    assert len(site.instances()) == 2


def test_the_same_sop_instance_uid_with_other_content_is_found_across_runs(site: Site) -> None:
    """What was written stays; what comes later is set aside, also when the first source is gone, and a copy takes its
    place.
    """
    first = site.put("a", uid="1.2.1", patient="4711", frame="1.2.77")
    site.run(only=[first])
    before = contents(site.output)
    second = site.put("b", uid="1.2.1", patient="4711", frame="1.2.78")
    site.run(only=[second], status=3)
    assert site.reasons() == ["sop-uid-conflict"]
    same = site.input / "c"
    same.write_bytes(first.read_bytes())
    site.run(only=[same])
    assert site.reasons() == ["duplicate"]
    first.unlink()
    site.run("--reprocess", "quarantined", only=[second], status=3)
    assert site.reasons() == ["sop-uid-conflict"]
    site.run("--reprocess", "all", only=[same])
    assert site.reasons() == [] and contents(site.output) == before


def test_a_conflict_is_remembered(site: Site) -> None:
    """One of two inputs that contradict each other isn't let through because the other is no longer there."""
    first = site.put("a", uid="1.2.1", patient="4711", frame="1.2.77")
    second = site.put("b", uid="1.2.1", patient="4711", frame="1.2.78")
    site.run(status=3)
    assert site.reasons() == ["sop-uid-conflict"] * 2
    second.unlink()
    site.run(only=[first], status=3)
    assert site.reasons() == ["sop-uid-conflict"]
    site.run("--settle-anew", only=[first])
    assert len(site.instances()) == 1


def test_instances_that_were_told_apart_stay_so(site: Site) -> None:
    """Under Conflicts: distinct each keeps the UID that it has got, also alone."""
    first = site.put("a", uid="1.2.1", patient="4711", frame="1.2.77")
    site.put("b", uid="1.2.1", patient="4711", frame="1.2.78")
    site.run(request="Conflicts: distinct\n")
    before = contents(site.output)
    assert len(before) == 2
    site.run(request="Conflicts: distinct\n", only=[first])
    assert contents(site.output) == before


def test_what_was_settled_anew_stays_settled(site: Site) -> None:
    """Runs that follow don't go back to a conflict once what is repaired has passed; others stay."""
    settled = site.put("a", uid="1.2.1", patient="4711", series="1.2.5")
    other_study = site.put("b", uid="1.2.2", patient="4711", study="1.2.3.2", series="1.2.5")
    site.put("c", uid="1.2.3", patient="4711", study="1.2.3.3")
    other_patient = site.put("d", uid="1.2.4", patient="4712", study="1.2.3.3")
    site.put("e", uid="1.2.6", patient="4711", study="1.2.3.4")
    other_content = site.put("f", uid="1.2.6", patient="4711", study="1.2.3.4", frame="1.2.78")
    site.run(status=3)
    assert site.reasons() == ["patient-conflict"] * 2 + ["series-conflict"] * 2 + ["sop-uid-conflict"] * 2
    for path in (other_study, other_patient, other_content):
        path.unlink()
    site.run("--settle-anew", only=[settled])
    site.run("--reprocess", "quarantined", status=3)
    assert site.reasons() == ["patient-conflict", "sop-uid-conflict"]
    site.run("--settle-anew")
    before = contents(site.output)
    site.run()
    assert len(before) == 3 and contents(site.output) == before


def test_a_series_in_two_studies_is_set_aside(site: Site) -> None:
    """Of a run all its instances are; where an earlier run has seen it in one study, those of another."""
    first = site.put("a", uid="1.2.1", patient="4711", series="1.2.5")
    second = site.put("b", uid="1.2.2", patient="4711", study="1.2.3.2", series="1.2.5")
    site.run(only=[first])
    site.run(only=[second], status=3)
    assert site.reasons() == ["series-conflict"] and len(site.instances()) == 1
    other = Site(site.input.parent / "other")
    for path in (first, second):
        (other.input / path.name).write_bytes(path.read_bytes())
    other.run(status=3)
    assert other.reasons() == ["series-conflict"] * 2 and not other.instances()


def test_patients_of_one_number_and_several_issuers_are_told(site: Site) -> None:
    """With the ID alone they are one, and the summary says so; with the issuer they are two."""
    site.put("a", uid="1.2.1", patient="4711", issuer="North")
    site.put("b", uid="1.2.2", patient="4711", study="1.2.3.2", issuer="South")
    site.put("c", uid="1.2.3", patient="4711", study="1.2.3.3")
    told = site.run()
    assert "1 Patient ID" in told and "issuer" in told
    assert len({ds.PatientID for ds in site.instances().values()}) == 1
    other = Site(site.input.parent / "other")
    for path in site.input.iterdir():
        (other.input / path.name).write_bytes(path.read_bytes())
    other.run(request="PatientIdentity: id+issuer\nDefaultIssuer: North\n")
    assert other.new("1.2.1").PatientID == other.new("1.2.3").PatientID != other.new("1.2.2").PatientID


def test_a_crosswalk_wins_over_derivation_and_stays_in_force(site: Site, tmp_path: Path) -> None:
    """Patients, their days and UIDs are what it says; a later run without it goes by it too."""
    csv = tmp_path / "trial.csv"
    csv.write_text("role,original,new,days\npatient,4711,TRIAL-001,-100\nuid,1.2.1,1.2.840.1.1,\n")
    request = "Options: [RetainLongitudinalModifiedDates]\n"
    site.put("a", uid="1.2.1", patient="4711", refers="1.2.2")
    site.put("b", uid="1.2.2", patient="4712", study="1.2.3.2", refers="1.2.1")
    site.run("--crosswalk-in", csv, request=request)
    one, other = site.new("1.2.1"), site.new("1.2.2")
    assert (one.PatientID, one.PatientName, one.SOPInstanceUID) == ("TRIAL-001", "TRIAL-001", "1.2.840.1.1")
    assert one.StudyDate == "20190924" and other.PatientID.startswith("DV")
    assert other.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.840.1.1"
    later = site.put("c", uid="1.2.9", patient="4711 ", study="1.2.3.9", refers="1.2.1")
    site.run(request=request, only=[later])
    late = site.new("1.2.9")
    assert (late.PatientID, late.StudyDate) == ("TRIAL-001", "20190924")
    assert late.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.840.1.1"


def test_what_a_crosswalk_doesnt_list_can_be_set_aside(site: Site, tmp_path: Path) -> None:
    """Under Unlisted: quarantine a patient whom it lists passes, another doesn't; likewise with UIDs."""
    csv = tmp_path / "trial.csv"
    csv.write_text("original,new\n4711,TRIAL-001\n")
    site.put("a", uid="1.2.1", patient="4711")
    site.put("b", uid="1.2.2", patient="4712", study="1.2.3.2")
    site.run("--crosswalk-in", csv, request="Unlisted: quarantine\n", status=3)
    assert site.reasons() == ["unlisted"] and site.new("1.2.1").PatientID == "TRIAL-001"
    uids = Site(tmp_path / "uids")
    uids.put("a", uid="1.2.1", patient="4711")
    uids.put("b", uid="1.2.2", patient="4711", refers="1.2.4")
    csv.write_text(
        "role,original,new\n" + "".join(f"uid,{it},9.{it}\n" for it in ("1.2.1", "1.2.2", "1.2.3.1", "1.2.3.1.1"))
    )
    csv.write_text(csv.read_text().replace(",9.", ",2.9."))
    uids.run("--crosswalk-in", csv, request="Unlisted: quarantine\n", status=3)
    assert uids.reasons() == ["unlisted"] and len(uids.instances()) == 1


def test_a_crosswalk_that_contradicts_what_was_written_stops_the_run(site: Site, tmp_path: Path) -> None:
    """A patient who was released under one ID isn't released under another; nothing is written."""
    site.put("a", uid="1.2.1", patient="4711")
    site.run()
    before = contents(site.output)
    csv = tmp_path / "late.csv"
    csv.write_text("original,new\n4711,TRIAL-001\n")
    told = site.run("--crosswalk-in", csv, status=2)
    assert "two new values" in told and "4711" not in told and contents(site.output) == before


def test_an_anchor_date_comes_from_a_crosswalk_alone(site: Site, tmp_path: Path) -> None:
    """Its day comes to lie on the day that the request names; a patient without one is set aside."""
    csv = tmp_path / "trial.csv"
    csv.write_text("original,new,anchor\n4711,TRIAL-001,20191231\n")
    request = 'Options: [RetainLongitudinalModifiedDates]\nDateShift: {AnchorTo: "20000101"}\n'
    site.put("a", uid="1.2.1", patient="4711", date="20200102")
    site.put("b", uid="1.2.2", patient="4712", study="1.2.3.2")
    site.run("--crosswalk-in", csv, request=request, status=3)
    assert site.reasons() == ["no-anchor"] and site.new("1.2.1").StudyDate == "20000103"


def test_instances_that_were_told_apart_rejoin_apart(site: Site) -> None:
    """Two inputs with one SOP Instance UID stay two outputs when their study's patient becomes known."""
    first, second = site.put("a", uid="1.2.1", frame="1.2.77"), site.put("b", uid="1.2.1", frame="1.2.78")
    site.run(request="Conflicts: distinct\n", only=[first, second])
    before = set(site.instances())
    site.run(request="Conflicts: distinct\n", only=[site.put("c", uid="1.2.2", patient="4711"), first])
    after = site.instances()
    assert len(after) == 3 and before < set(after) and len({ds.PatientID for ds in after.values()}) == 1


def test_a_copy_doesnt_keep_its_original_from_rejoining(site: Site) -> None:
    """The copy is a duplicate; what was written of the original is written again."""
    first = site.put("a", uid="1.2.1")
    site.run(only=[first])
    copy = site.input / "copy"
    copy.write_bytes(first.read_bytes())
    site.run(only=[copy, site.put("b", uid="1.2.2", patient="4711")])
    assert site.reasons() == ["duplicate"] and len(contents(site.output)) == 2
    assert {ds.PatientID for ds in site.instances().values()} == {site.new("1.2.2").PatientID}


def test_who_is_set_aside_doesnt_contest_a_series(site: Site) -> None:
    """The study that a series was first seen in keeps it, whoever came to it later."""
    first = site.put("a", uid="1.2.1", patient="4711", series="1.2.5")
    site.run(only=[first])
    site.run(only=[site.put("b", uid="1.2.2", patient="4711", study="1.2.3.2", series="1.2.5")], status=3)
    site.run(only=[first])
    assert site.reasons() == [] and len(site.instances()) == 1


def test_an_output_of_another_run_stands_for_nothing_in_this_one(site: Site) -> None:
    """Several outputs may share what is restricted: a copy of what one holds isn't missing from another."""
    first = site.put("a", uid="1.2.1", patient="4711")
    site.run(only=[first])
    copy = site.input / "copy"
    copy.write_bytes(first.read_bytes())
    other = site.output.parent / "other"
    site.run("--output", other, "--restricted", site.restricted, only=[copy])
    assert contents(other) == contents(site.output) != {}


def test_each_of_several_outputs_learns_of_a_patient(site: Site) -> None:
    """What became known while another output was written is made good in the next run into this one."""
    first, second = site.put("a", uid="1.2.1"), site.put("b", uid="1.2.2", patient="4711")
    site.run(only=[first])
    site.run("--output", site.output.parent / "other", "--restricted", site.restricted, only=[first, second])
    site.run(only=[second])
    assert len(contents(site.output)) == 2 and len({ds.PatientID for ds in site.instances().values()}) == 1


def test_a_plan_is_made_anew_where_another_run_came_first(site: Site) -> None:
    """What a plan that was left lying doesn't know decides on its instances too."""
    first = site.put("a", uid="1.2.1")
    site.run("--plan-only", only=[first])
    site.run(only=[site.put("b", uid="1.2.2", patient="4711")])
    site.run(only=[first])
    assert len(site.instances()) == 2 and len({ds.PatientID for ds in site.instances().values()}) == 1


def test_what_a_refused_plan_found_can_be_mended(site: Site) -> None:
    """The same command looks again once the input is put right."""
    site.put("a", uid="1.2.1", patient="4711")
    other = site.put("b", uid="1.2.1", patient="4711", frame="1.2.77")
    site.run(request="Permissive: false\n", status=1)
    other.unlink()
    site.run(request="Permissive: false\n")
    assert len(site.instances()) == 1


@pytest.mark.parametrize("request_", ["Options: [CleanDescriptors]\nVocabulary: [brain]\n", "Conflicts: distinct\n"])
def test_a_moved_archive_is_the_same_archive(site: Site, request_: str) -> None:
    """Of sources that are gone, equal ones elsewhere take the place, also where their study changes."""
    site.put("a", uid="1.2.1", text="head brain")
    site.put("b", uid="1.2.1", text="head brain", frame="1.2.78")
    again = [] if "distinct" in request_ else [site.input / "b"]
    for path in again:
        path.unlink()
    site.run(request=request_)
    before = site.instances().keys()
    site.input = site.input.rename(site.input.with_name("moved"))
    site.run(request=request_)
    assert site.reasons() == [] and site.instances().keys() == before
    site.put("c", uid="1.2.3", patient="4711")
    site.run(request=request_)
    assert site.reasons() == [] and len({ds.PatientID for ds in site.instances().values()}) == 1
    assert before <= site.instances().keys() and len(site.instances()) == len(before) + 1


def test_a_copy_takes_the_place_of_an_output_that_is_gone(site: Site) -> None:
    """What the records tell of is a duplicate only as long as it is there."""
    first = site.put("a", uid="1.2.1", patient="4711")
    site.run(only=[first])
    before = contents(site.output)
    shutil.rmtree(site.output)
    copy = site.input / "copy"
    copy.write_bytes(first.read_bytes())
    site.run(only=[copy])
    assert contents(site.output) == before


def test_a_crosswalk_reaches_what_private_elements_refer_to(site: Site, tmp_path: Path) -> None:
    """A UID that it gives is the same there, and the same command can be run again."""
    csv = tmp_path / "trial.csv"
    csv.write_text("role,original,new\nuid,1.2.1,1.2.840.1.1\n")
    site.put("a", uid="1.2.1", patient="4711")
    site.put("b", uid="1.2.2", patient="4711", private="1.2.1")
    for _ in range(2):
        site.run("--crosswalk-in", csv, request="KeepPrivateTags: true\n")
        assert site.new("1.2.2")[0x0011, 0x1001].value == "1.2.840.1.1"


def test_patients_are_told_apart_by_one_rule(site: Site) -> None:
    """Another rule under the same --restricted would take every known patient for somebody else."""
    site.put("a", uid="1.2.1", patient="4711")
    site.run()
    told = site.run("--overwrite", request="PatientIdentity: id+issuer\nDefaultIssuer: North\n", status=2)
    assert "another PatientIdentity" in told


def test_a_corrected_patient_comes_out_when_it_is_settled_anew(site: Site) -> None:
    """Until then it is set aside; the output under the wrong ID goes."""
    site.put("a", uid="1.2.1", patient="4711")
    site.run()
    wrong = site.new("1.2.1").PatientID
    site.put("a", uid="1.2.1", patient="4712")
    site.run(status=3)
    assert site.reasons() == ["patient-conflict"]
    site.run("--settle-anew")
    before = contents(site.output)
    site.run()
    assert len(before) == 1 and contents(site.output) == before and site.new("1.2.1").PatientID != wrong


def test_what_runs_have_written_themselves_is_never_a_mistake(site: Site, tmp_path: Path) -> None:
    """A crosswalk is compared with it, however odd the IDs that it came from, and whatever a constant made of them."""
    csv = tmp_path / "trial.csv"
    csv.write_text("original,new\n4712,TRIAL-1\n")
    request = "Replace: {PatientID: ANON, PatientName: Anon}\nForce: true\nAllowMerge: true\n"
    site.put("a", uid="1.2.1", patient="47\t11")
    site.put("b", uid="1.2.2", patient="4713", study="1.2.3.2")
    site.run(request=request)
    site.run("--crosswalk-in", csv, request=request)


def test_a_refused_launch_leaves_no_key_behind(site: Site, tmp_path: Path) -> None:
    """A run that never had a plan is nothing to go on from."""
    csv = tmp_path / "trial.csv"
    csv.write_text("original,new\n4712,UNKNOWN\n")
    site.put("a", uid="1.2.1", patient="4711")
    arguments = ["anonymize", "--input", site.input, "--output", site.output, "--crosswalk-in", csv]
    assert CliRunner().invoke(cli, list(map(str, arguments))).exit_code == 2
    assert not list(site.restricted.rglob("key")) and not list(site.restricted.glob("run=*"))


def test_what_a_run_had_written_when_it_died_counts(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run that comes first agrees with it, and it is planned anew where it would go on."""
    first = [site.put("a", uid="1.2.1"), site.put("b", uid="1.2.2", study="1.2.3.2", patient="4712")]
    build = execute.build

    def die(pipeline: object, number: int, **how: object) -> None:
        if number:
            raise RuntimeError
        build(pipeline, number=number, **how)

    with monkeypatch.context() as patch:
        patch.setattr(execute, "build", die)
        patch.setattr(course.plan, "slices", lambda verdict, size: [[it] for it in sorted(verdict.buckets)])
        site.run(only=first, status=1)
    assert len(site.instances()) == 1
    site.run(only=[site.put("c", uid="1.2.3", patient="4711"), site.put("d", uid="1.2.4", study="1.2.3.2")], status=0)
    assert len(list((site.audit / "runs").iterdir())) == 2
    site.run(only=first)
    assert len(site.instances()) == 4
    assert {site.new(uid).PatientID for uid in ("1.2.1", "1.2.3")} == {site.new("1.2.1").PatientID}
    assert {site.new(uid).PatientID for uid in ("1.2.2", "1.2.4")} == {site.new("1.2.2").PatientID}


def test_what_a_killed_run_leaves_half_done_goes(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a crosswalk that was mended in between, nothing stands there under the values of before."""
    csv = tmp_path / "trial.csv"
    csv.write_text("original,new\n4711,T1\n4712,T2\n")
    site.put("a", uid="1.2.1", patient="4711")
    site.put("b", uid="1.2.2", study="1.2.3.2", patient="4712")
    with monkeypatch.context() as patch:
        patch.setattr(execute, "WriteSliceRecord", lambda target: beam.Map(_die))
        site.run("--crosswalk-in", csv, status=1)
    assert {ds.PatientID for ds in site.instances().values()} == {"T1", "T2"}
    csv.write_text("original,new\n4711,T2\n4712,T1\n")
    site.run("--crosswalk-in", csv)
    assert len(site.instances()) == 2
    assert (site.new("1.2.1").PatientID, site.new("1.2.2").PatientID) == ("T2", "T1")
    assert not list(site.restricted.glob("run=*"))


def _die(part: object) -> None:
    raise RuntimeError


def test_a_crosswalk_takes_no_value_that_is_derived_for_somebody_else(site: Site, tmp_path: Path) -> None:
    """Neither a patient's nor an instance's: who would get it twice is set aside."""
    site.put("a", uid="1.2.1", patient="4711")
    site.put("b", uid="1.2.2", patient="4712", study="1.2.3.2")
    site.run()
    uid, patient = site.new("1.2.2").SOPInstanceUID, site.new("1.2.2").PatientID
    for number, row in enumerate([f"instance,1.2.1,{uid}", f"patient,4711,{patient}"]):
        other = Site(tmp_path / str(number))
        other.input = site.input
        csv = tmp_path / f"{number}.csv"
        csv.write_text(f"role,original,new\n{row}\n")
        other.run("--crosswalk-in", csv, status=3)
        assert other.reasons() == ["value-taken"] and len(other.instances()) == 1
        assert other.new("1.2.1")

"""Small archives whose instances go by name, and what modify, split and merge make of them, told in the same names.

An instance is called patient/study/series/number, such as P1/S/A/1; what it refers to stands in its evidence, as a
report's does, and image by image. Of a part of a name that has another UID than in the input, and no given one, `+`
tells, `$T` of one that is the UID of T. In bodies `$A` is the UID of the study or series A, `$A/1` of its first instance; `@P1/S/A` is Orthanc's identifier
of the series, and so on.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydicom
from click.testing import CliRunner
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from dicomveil import orthanc_ids
from dicomveil.part10 import open_instance
from dicomveil.stream import BytesSource
from pipelines.cli import cli
from tests.corpora import KEY
from tests.pipelines.test_anonymize import table
from tests.test_orthanc_cases import data_set, instance, reference, stored

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
PIXELS = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": 2, "Columns": 2,
          "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}  # fmt: skip


def uid_of(name: str) -> str:
    """The UID of a study, a series, or the instance of a series (A/1)."""
    first, *number = name.split("/")
    return ".".join(["1.2.3", *(str(ord(letter)) for letter in first), *number])


class Archive:
    """A folder of instances, and the outputs of commands beside it.

    Args:
      refers: to what each instance refers, by their names.
      more: values of the instances whose names start so.
    """

    def __init__(
        self,
        folder: Path,
        refers: dict[str, list[str]],
        more: dict[str, dict[str, Any]] | None = None,
        syntax: str = ExplicitVRLittleEndian,
    ) -> None:
        self.folder, self.refers = folder, refers
        (folder / "in").mkdir(parents=True)
        self.files = {name: folder / "in" / (name.replace("/", "-") + ".dcm") for name in refers}
        self.before = {name: self._instance(name, more or {}) for name in refers}
        for name, file in self.files.items():
            ds = self.before[name]
            if refers[name]:
                targets = [self.before[it] for it in refers[name]]
                ds.ReferencedImageSequence = Sequence([data_set(reference(it)) for it in targets])
                ds.CurrentRequestedProcedureEvidenceSequence = evidence(targets)
            file.write_bytes(stored(ds, syntax))

    @staticmethod
    def _instance(name: str, more: dict[str, dict[str, Any]]) -> Dataset:
        patient, study, series, number = name.split("/")
        values: dict[str, Any] = {
            "PatientID": patient, "PatientName": f"Name^{patient}", "StudyInstanceUID": uid_of(study),
            "SeriesInstanceUID": uid_of(series), "SOPInstanceUID": uid_of(f"{series}/{number}"),
            "FrameOfReferenceUID": f"{uid_of(study)}.9", "InstanceNumber": number, "StudyDescription": study,
            "SeriesDescription": series, **PIXELS, "(7FE0,0010) OB": f"{name:16.16}",
        }  # fmt: skip
        for start, given in more.items():
            if name.startswith(start):
                values |= given
        missing = [keyword for keyword, value in values.items() if value is None]
        return instance({keyword: value for keyword, value in values.items() if value is not None},
                        [keyword for keyword in missing if keyword in instance({})])  # fmt: skip

    def resolved(self, body: Any) -> Any:
        """A body with the names in it as the UIDs and Orthanc identifiers that they stand for."""
        if isinstance(body, dict):
            return {name: self.resolved(value) for name, value in body.items()}
        if isinstance(body, list):
            return [self.resolved(value) for value in body]
        if isinstance(body, str) and body.startswith("$"):
            return uid_of(body[1:])
        if isinstance(body, str) and body.startswith("@"):
            patient, *names = body[1:].split("/")
            names = [*names[:2], *("/".join(names[1:]) for _ in names[2:])]
            return orthanc_ids.resource_id(patient, *map(uid_of, names))
        return body

    def run(
        self,
        command: str,
        body: dict[str, Any] | None = None,
        *options: object,
        output: str = "out",
        status: int = 0,
        inputs: Iterable[Path] = (),
        key: bool = True,
    ) -> "Done":
        """A command as its user gives it."""
        request = self.folder / f"{output}.json"
        request.write_text(json.dumps(self.resolved(body or {})))
        arguments = [command, "--input", *(inputs or [self.folder / "in"]), "--output", self.folder / output]
        arguments += ["--request", request, *(["--key", "env:DICOMVEIL_KEY"] if key else []), *options]
        done = CliRunner().invoke(cli, list(map(str, arguments)), env={"DICOMVEIL_KEY": KEY.hex()})
        assert done.exit_code == status, done.output
        assert "Traceback" not in done.output
        return Done(self, output, done.output)


class Done:
    """What a command has left.

    Attributes:
      said: what it printed.
      after: the outputs, by the names of what they were made of.
      outcomes: of every input, "modified" and its like or a reason.
    """

    def __init__(self, archive: Archive, output: str, said: str) -> None:
        self.archive, self.said = archive, " ".join(said.split())
        self.output, self.audit, self.restricted = (
            archive.folder / f"{output}{zone}" for zone in ("", "-audit", "-restricted")
        )
        last = sorted((self.audit / "runs").glob("*.json"))[-1:] if self.audit.exists() else []
        rows = table(self.audit, "instances") if last else []
        tokens = {row["source_token"]: row for row in rows}
        self.outcomes: dict[str, str] = {}
        self.after: dict[str, Dataset] = {}
        self.changes: dict[str, list[dict[str, str]]] = {}
        names = {str(file): name for name, file in archive.files.items()}
        for kind in ("crosswalk/instances", "quarantine"):
            for row in table(self.restricted, kind) if last else []:
                name = names.get(row["source_uri"], row["source_uri"])
                told = tokens[row["source_token"]]
                self.outcomes[name] = told["reason"] or told["outcome"]
                self.changes[name] = told["changes"]
                if told["name"]:
                    self.after[name] = pydicom.dcmread(self.output / told["name"])

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.audit / "summary.json").read_bytes()))

    def path(self, name: str) -> Path:
        ds = self.after[name]
        (found,) = [path for path in self.output.rglob("*.dcm") if path.stem == ds.SOPInstanceUID]
        return found

    def names(self) -> dict[str, str]:
        """By each name what it came to: patient, study, series and instance, `+` where the UID is new."""
        told = {}
        archive_names = {uid_of(part): f"${part}" for name in self.archive.refers for part in name.split("/")[1:3]}
        for name, ds in self.after.items():
            before = self.archive.before[name]
            parts = [str(ds.get("PatientID", ""))]
            for keyword, part in zip(UIDS, name.split("/")[1:], strict=True):
                new, old = str(ds[keyword].value), str(before[keyword].value)
                other = archive_names.get(new, new)
                parts.append(part if new == old else f"{part}+" if new.startswith("2.25.") else other)
            told[name] = "/".join(parts)
        return told

    def check(self) -> None:
        """What holds whatever is asked for: the file is where its identifiers say, references lead to what they led to,
        evidence names the place where that is now, Pixel Data are the same bytes, and who isn't concerned is too."""
        archive, after = self.archive, self.after
        assert len(list(self.output.rglob("*.dcm"))) == len(after)
        assert [file.read_bytes() for file in archive.files.values()] == [
            stored(archive.before[name], self.syntax(name)) for name in archive.files
        ]
        now = {name: after.get(name, archive.before[name]) for name in archive.refers}
        uids: dict[tuple[str, str], str] = {}
        for name, ds in after.items():
            before = archive.before[name]
            assert ds.PixelData == before.PixelData
            assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
            for keyword, part in zip(UIDS[:2], self.names()[name].split("/")[1:3], strict=True):
                if part.endswith("+"):  # one name, one UID
                    assert uids.setdefault((keyword, part), ds[keyword].value) == ds[keyword].value
            targets = [now[it] for it in archive.refers[name]]
            if targets:
                named = [item.ReferencedSOPInstanceUID for item in ds.ReferencedImageSequence]
                assert named == [it.SOPInstanceUID for it in targets]
                assert sorted(places(ds)) == sorted(tuple(str(it[keyword].value) for keyword in UIDS) for it in targets)
            if self.outcomes[name] == "copied" and all(now[it] is archive.before[it] for it in archive.refers[name]):
                assert content(self.path(name)) == content(archive.files[name])

    def syntax(self, name: str) -> str:
        return str(pydicom.dcmread(self.archive.files[name]).file_meta.TransferSyntaxUID)


def evidence(targets: list[Dataset]) -> Sequence:
    """Where instances are, as evidence sequences tell it."""
    studies: dict[str, dict[str, list[Dataset]]] = {}
    for it in targets:
        studies.setdefault(it.StudyInstanceUID, {}).setdefault(it.SeriesInstanceUID, []).append(it)
    return Sequence(
        data_set(
            {
                "StudyInstanceUID": study,
                "ReferencedSeriesSequence": [
                    {"SeriesInstanceUID": uid, "ReferencedSOPSequence": [reference(it) for it in found]}
                    for uid, found in series.items()
                ],
            }
        )
        for study, series in studies.items()
    )


def places(ds: Dataset) -> list[tuple[str, str, str]]:
    """(study, series, instance) of what an instance's evidence lists."""
    return [
        (str(study.StudyInstanceUID), str(series.SeriesInstanceUID), str(item.ReferencedSOPInstanceUID))
        for study in ds.get("CurrentRequestedProcedureEvidenceSequence", [])
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]


def content(path: Path) -> bytes:
    """A file's data set, as it is encoded."""
    opened = open_instance(BytesSource(path.read_bytes()))
    return opened.source.read(opened.begin, opened.source.size - opened.begin)

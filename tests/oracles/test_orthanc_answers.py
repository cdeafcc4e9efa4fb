"""A real Orthanc names, numbers and answers as we say that it does: identifiers, the answers of its jobs, generate-uid."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dicomveil import charset
from dicomveil.orthanc_ids import ROUTES, path, patient_id, resource_id, study_id
from dicomveil.testing import EXPLICIT, Syntax, minimal, part10, write_demo_study
from dicomveil.uids import LEVELS
from pipelines.cli import cli
from tests.corpora import KEY
from tests.oracles.orthanc_server import ABSENT, ORTHANC, Asked, Call, ask

pytestmark = pytest.mark.skipif(not ORTHANC, reason=ABSENT)
E = Syntax(EXPLICIT)
TAGS = (0x00100020, 0x0020000D, 0x0020000E, 0x00080018)
PARENTS = ("ParentPatient", "ParentStudy", "ParentSeries", "ID")

# (Specific Character Set, Patient ID); what the character set doesn't have is read in as many ways as there are readers.
PATIENT_IDS: list[tuple[str, bytes]] = [
    *[("", it) for it in (b"", b"4711", b"47 11", b"  4 7 1 ", b"    ", b"\t47\t", b"47\r\n", b"aBcD", b"A|B", b"A\\B ", b"A \\ B", b"L" * 130)],
    *[("", it) for it in (b"47\0\0", b"4\x0071", b"47\0 ", b"47 \0", b"\x0047", b" \x0047", b"A\x01B", b"\x7fA")],
    ("", "Müller".encode("latin-1")),
    ("", "Müller ".encode()),
    ("ISO_IR 100", "Müller ".encode("latin-1")),
    ("ISO_IR 100", b"\xa0A\xa0 "),
    ("ISO_IR 101", "ľš".encode("iso8859_2")),
    ("ISO_IR 109", "Ħż".encode("iso8859_3")),
    ("ISO_IR 110", "Ģų".encode("iso8859_4")),
    ("ISO_IR 126", "Διο ".encode("iso8859_7")),
    ("ISO_IR 127", "قبا ".encode("iso8859_6")),
    ("ISO_IR 138", "שרון".encode("iso8859_8")),
    ("ISO_IR 144", "Люк ".encode("iso8859_5")),
    ("ISO_IR 148", "ğü".encode("iso8859_9")),
    ("ISO_IR 166", "สม".encode("tis_620")),
    ("ISO_IR 13", b"\xd4\xcf\xc0\xde"),
    ("ISO_IR 192", "患者７ é".encode()),
    ("ISO_IR 192", "\u00a0A1\u3000 ".encode()),
    ("ISO_IR 192", "e\u0301é".encode()),
    ("GB18030", "王x".encode("gb18030")),
    ("GBK", "王x".encode("gbk")),
    ("ISO 2022 IR 100", "Mü".encode("latin-1")),
    ("\\ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B1 "),
    ("\\ISO 2022 IR 149", b"\x1b$)C\xb1\xe8"),
]  # fmt: skip


def stored(folder: Path, held: list[dict[int, bytes]], calls: list[Call] | None = None) -> Asked:
    """What Orthanc says of small CT images of their own, which hold these values."""
    folder.mkdir()
    paths = []
    for number, values in enumerate(held):
        named = {tag: f"1.2.{tag}.{number}".encode() for tag in TAGS[1:]} | values
        padding = {tag: b" " if tag in (TAGS[0], 0x00080005) else b"\0" for tag in named}
        vrs = {TAGS[0]: "LO", 0x00080005: "CS"}
        elements = {
            tag: E.element(tag, vrs.get(tag, "UI"), value + padding[tag] * (len(value) % 2))
            for tag, value in named.items()
        }
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(part10(minimal(E, *({0x00080005: b"", TAGS[0]: b""} | elements).items())))
    (server := folder / "orthanc").mkdir()
    return ask(server, paths, calls or [])


def test_patients_are_named_as_orthanc_names_them(tmp_path: Path) -> None:
    """Whatever the character set, and whatever blanks and NULs are in a Patient ID, each level has Orthanc's identifier."""
    held = [{TAGS[0]: raw} | ({0x00080005: named.encode()} if named else {}) for named, raw in PATIENT_IDS]
    found = stored(tmp_path / "in", [*held, {}])
    for number, ((named, raw), answer) in enumerate(zip([*PATIENT_IDS, ("", b"")], found.stored, strict=True)):
        ids = [charset.decode(raw, named), *(f"1.2.{tag}.{number}" for tag in TAGS[1:])]
        assert [answer[level] for level in PARENTS] == [resource_id(*ids[: n + 1]) for n in range(4)], (named, raw)


def test_padding_counts_as_it_does_for_orthanc(tmp_path: Path) -> None:
    """Each mixture of blanks and NULs around each of the four identifiers."""
    paddings = [bytes(it) for length in range(4) for it in itertools.product(b" \0", repeat=length)]
    held = [
        {TAGS[0]: b"A"} | {tag: before + b"1.2.%d" % (100 * n + len(after) + 7) + after}
        for tag in TAGS
        for before in (b"", b" ", b"  ")
        for n, after in enumerate(paddings)
    ]
    found = stored(tmp_path / "in", held)
    for number, (values, answer) in enumerate(zip(held, found.stored, strict=True)):
        named = {tag: f"1.2.{tag}.{number}".encode() for tag in TAGS} | values
        ids = [named[tag].decode() for tag in TAGS]
        assert [answer[level] for level in PARENTS] == [resource_id(*ids[: n + 1]) for n in range(4)], values


def anonymized(folder: Path, *more: str) -> tuple[dict[str, Any], list[Path]]:
    """What the command answers of the demo study, and its outputs."""
    write_demo_study(folder / "in" / "one")
    out = folder / "out"
    arguments = ["anonymize", "--input", str(folder / "in"), "--output", str(out), "--key", "env:DICOMVEIL_KEY", *more]
    done = CliRunner(env={"DICOMVEIL_KEY": KEY.hex()}).invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    return json.loads((folder / "out-audit" / "summary.json").read_bytes()), sorted(out.rglob("*.dcm"))


def test_what_we_answer_is_what_orthanc_has(tmp_path: Path) -> None:
    """The outputs of a run, stored in an Orthanc, are the resources that the run has named, each at its path."""
    summary, outputs = anonymized(tmp_path)
    calls: list[Call] = [("GET", f"/{route}", None) for route in ROUTES.values()]
    calls += [("GET", entry["Path"], None) for entry in [*summary["Resources"], summary]]
    (server := tmp_path / "orthanc").mkdir()
    found = ask(server, outputs, calls)
    lists, each = found.answers[:4], found.answers[4:]
    for level, (_, listed) in zip(ROUTES, lists, strict=True):
        assert sorted(listed) == [entry["ID"] for entry in summary["Resources"] if entry["Type"] == level]
        assert len(listed) == summary["ResourcesCount"][level]
    for entry, (status, told) in zip([*summary["Resources"], summary], each, strict=True):
        assert status == 200 and (told["ID"], told["Type"]) == (entry["ID"], entry["Type"])
        for name, value in entry.get("Identifiers", {}).items():
            tags = told["MainDicomTags"] | told.get("PatientMainDicomTags", {})
            assert tags.get(name, value) == value
    assert summary["PatientID"] == each[-1][1]["ParentPatient"]


def members(answer: dict[str, Any]) -> dict[str, type]:
    return {name: type(value) for name, value in answer.items()}


ANSWERS: dict[str, Callable[[list[str]], tuple[str, dict[str, Any]]]] = {
    "a study": lambda studies: (f"/studies/{studies[0]}/anonymize", {}),
    "a patient": lambda studies: (f"/patients/{patient_id('P1')}/anonymize", {}),
    "bulk": lambda studies: ("/tools/bulk-anonymize", {"Resources": studies}),
    "all failed": lambda studies: (
        f"/studies/{studies[0]}/anonymize",
        {"Permissive": True, "Replace": {"Rows": "abc"}},
    ),
}


def test_our_answers_have_orthancs_members(tmp_path: Path) -> None:
    """Each member that Orthanc answers of a job is in ours too, of the same kind; so is each of its resources."""
    values = [(patient, f"1.2.{patient[1]}.{n}") for patient in ("P1", "P2") for n in (1, 2)]
    studies = [study_id(*it) for it in values]
    asked = [ANSWERS[name](studies) for name in ANSWERS]
    held = [{TAGS[0]: patient.encode(), TAGS[1]: study.encode()} for patient, study in values]
    theirs = stored(tmp_path / "in", held, [("POST", *it) for it in asked]).answers
    assert [status for status, _ in theirs] == [200] * len(asked)
    ours, _ = anonymized(tmp_path / "ours")
    for _, answer in theirs:
        assert members(answer).items() <= members(ours).items()
        types = [entry["Type"] for entry in answer.get("Resources", [])]
        assert types == sorted(types, key=list(reversed(ROUTES)).index)
        for entry in answer.get("Resources", []):
            assert entry["Path"] == path(entry["Type"], entry["ID"])
            assert entry.keys() <= ours["Resources"][0].keys()
    by_name = dict(zip(ANSWERS, (answer for _, answer in theirs), strict=True))
    assert by_name["a study"]["Type"] == "Study" and by_name["a patient"]["Type"] == "Patient"
    assert not {"ID", "Type", "Path", "PatientID"} & (by_name["bulk"].keys() | by_name["all failed"].keys())


ST = "StudyInstanceUID"
COMMANDS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "modify": ("/studies/{1}/modify", {}, "modify", {"Level": "Study", "Resources": [{ST: "1.2.7.1"}]}),
    "split": ("/studies/{1}/split", {"Series": ["{series}"]}, "split", {"Series": [{"SeriesInstanceUID": "1.2.7.1.1"}]}),
    "merge": ("/studies/{1}/merge", {"Resources": ["{2}"]}, "merge", {"Study": {ST: "1.2.7.1"}, "Resources": [{ST: "1.2.7.2"}]}),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_answers_as_orthancs_does(name: str, tmp_path: Path) -> None:
    """The members of Orthanc's answer are in ours, alike in what counts; and what ours names, its outputs are."""
    route, body, command, request = COMMANDS[name]
    names = {
        "1": study_id("P1", "1.2.7.1"),
        "2": study_id("P1", "1.2.7.2"),
        "series": resource_id("P1", "1.2.7.1", "1.2.7.1.1"),
    }
    filled = json.loads(
        re.sub(r"\{(\w+)\}", lambda found: names[found[1]], json.dumps([route, body | {"KeepSource": True}]))
    )
    values = [(f"1.2.7.{study}", f"1.2.7.{study}.{series}") for study in (1, 2) for series in (1, 2)]
    held = [{TAGS[0]: b"P1", TAGS[1]: study.encode(), TAGS[2]: series.encode()} for study, series in values]
    ((status, theirs),) = stored(tmp_path / "in", held, [("POST", *filled)]).answers
    assert status == 200, theirs
    inputs, out = tmp_path / "files", tmp_path / "out"
    inputs.mkdir()
    for path_ in (tmp_path / "in").glob("*.dcm"):
        path_.rename(inputs / path_.name)
    (tmp_path / "body.json").write_text(json.dumps(request))
    done = CliRunner().invoke(
        cli, [command, "--input", str(inputs), "--output", str(out), "--request", str(tmp_path / "body.json")]
    )
    assert done.exit_code == 0, done.output
    ours = json.loads((tmp_path / "out-audit" / "summary.json").read_bytes())
    assert members(theirs).items() <= members(ours).items()
    counts = ("InstancesCount", "FailedInstancesCount", "IsAnonymization", "Type")
    assert all(ours[member] == theirs[member] for member in counts if member in theirs)
    (server := tmp_path / "ours").mkdir()
    named = [*(entry["Path"] for entry in ours["Resources"]), f"/studies/{ours.get('TargetStudy', ours.get('ID'))}"]
    found = ask(server, sorted(out.rglob("*.dcm")), [("GET", it, None) for it in named])
    assert [status for status, _ in found.answers] == [200] * len(named)
    assert found.answers[-1][1]["MainDicomTags"][ST] == ours.get(
        "TargetStudyUID", found.answers[-1][1]["MainDicomTags"][ST]
    )


def test_identifiers_on_demand_are_of_orthancs_form(tmp_path: Path) -> None:
    """A patient gets a UUID, the others a UID, and a level is needed, in Orthanc and here."""
    levels = [*LEVELS, "frame"]
    theirs = stored(
        tmp_path / "in", [], [("GET", f"/tools/generate-uid?level={level}", None) for level in levels]
    ).answers
    for level, (status, told) in zip(levels, theirs, strict=True):
        ours = CliRunner().invoke(cli, ["generate-uid", "--level", level])
        assert (status == 200) == (ours.exit_code == 0)
        form = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}" if level == "patient" else r"[0-9]+(\.[0-9]+)+"
        assert status != 200 or (re.fullmatch(form, told) and re.fullmatch(form, ours.output.strip()))

"""What another key makes of the same input: nothing that could be matched; and no new UID bears its original's clock."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest

from dicomveil import standard
from dicomveil.marks import IMPLEMENTATION_CLASS_UID
from dicomveil.testing import write_demo_study
from tests.corpora import BUNDLED, CORPUS, KEY
from tests.pipelines.test_anonymize import contents, run, table
from transforms.tables import AUDIT, name_of

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
REQUEST = ROOT / "configs" / "requests" / "research-dates.yaml"
OTHER = KEY[::-1]
# What a key has a part in: new UIDs, pseudonyms, and tokens and digests of 16 hexadecimal digits or more.
DERIVED = re.compile(rb"2\.25\.[0-9]{20,39}|DV[A-Z2-7]{16}|(?<![0-9a-f])[0-9a-f]{16,64}(?![0-9a-f])")
DATES = ("DA", "DT")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up study and pydicom's real ones, of several patients and with dates."""
    folder = tmp_path_factory.mktemp("archive")
    write_demo_study(folder / "made-up")
    for name in ("dicomdirtests", "CT_small.dcm", "MR_small.dcm", "rtdose.dcm", "rtplan.dcm", "waveform_ecg.dcm"):
        source = BUNDLED / "test_files" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    return folder


Runs = dict[str, Path]


@pytest.fixture(scope="module")
def runs(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The same input under two keys, under one of them again, and twice under a key of the run's own."""
    folder = tmp_path_factory.mktemp("runs")
    for name, key in {"one": KEY, "other": OTHER, "one again": KEY, "ephemeral": None, "ephemeral too": None}.items():
        command = ["anonymize", "--input", archive, "--output", folder / name, "--request", REQUEST]
        if key:
            run(*command, "--key", "env:SITE_KEY", key=False, SITE_KEY=key.hex())
        else:
            run(*command, key=False)
    return {path.name: path for path in folder.iterdir() if not path.name.endswith(("-audit", "-restricted"))}


def beside(out: Path, zone: str) -> Path:
    return out.with_name(f"{out.name}-{zone}")


def texts(out: Path) -> Iterator[bytes]:
    """All that is shared: names and bytes of the outputs, and every value of the audit tables."""
    for path in out.rglob("*.dcm"):
        yield str(path.relative_to(out)).encode() + b"\n" + path.read_bytes()
    for schema in AUDIT:
        for path in beside(out, "audit").glob(f"{name_of(schema)}/*/*.parquet"):
            for row in pq.read_table(path, partitioning=None).to_pylist():
                # The request is the same, and so is its fingerprint.
                yield repr({name: value for name, value in row.items() if name != "request_fingerprint"}).encode()


def derived(out: Path) -> set[bytes]:
    return {found for text in texts(out) for found in DERIVED.findall(text)}


def originals(archive: Path) -> set[bytes]:
    """What looks derived and stood in the input already."""
    return {found for path in archive.rglob("*") if path.is_file() for found in DERIVED.findall(path.read_bytes())}


def pairs() -> list[tuple[str, str]]:
    return [("one", "other"), ("ephemeral", "ephemeral too"), ("one", "ephemeral")]


@pytest.mark.parametrize(("left", "right"), pairs())
def test_two_keys_share_nothing_derived(left: str, right: str, runs: Runs, archive: Path) -> None:
    """Two sites with different keys, or two runs without one, share no new identifier, no name and no token."""
    first, second = derived(runs[left]), derived(runs[right])
    assert len(first) == len(second) > 100
    assert first & second <= originals(archive) | {IMPLEMENTATION_CLASS_UID.encode()}
    assert not contents(runs[left]).keys() & contents(runs[right]).keys()
    assert not set(contents(runs[left]).values()) & set(contents(runs[right]).values())


@pytest.mark.parametrize(("left", "right"), pairs())
def test_two_keys_share_no_column_that_identifies(left: str, right: str, runs: Runs) -> None:
    """No cell of a column that names or tokens something is the same under two keys."""
    for zone, name, columns in (
        ("audit", "instances", ("source_token", "patient_id", "study_instance_uid", "series_instance_uid")),
        ("audit", "instances", ("sop_instance_uid", "name", "sha256")),
        ("audit", "studies", ("study_instance_uid", "patient_id")),
        ("restricted", "crosswalk/uids", ("new",)),
        ("restricted", "crosswalk/patients", ("new",)),
        ("restricted", "crosswalk/instances", ("source_token", "sop_instance_uid", "name")),
    ):
        first, second = (table(beside(runs[side], zone), name) for side in (left, right))
        for column in columns:
            cells = [{row[column] for row in rows} - {"", None} for rows in (first, second)]
            assert all(cells) and not cells[0] & cells[1], (name, column)


def test_one_key_shares_everything(runs: Runs) -> None:
    """What the comparisons above look at is the same under the same key: they would see a link."""
    assert derived(runs["one"]) == derived(runs["one again"])
    assert contents(runs["one"]) == contents(runs["one again"])
    assert shifts(runs["one"]) == shifts(runs["one again"])


def dates(ds: pydicom.Dataset) -> Iterator[tuple[str, str]]:
    """The dates of a data set, by keyword."""
    for element in ds:
        if element.VR in DATES and element.VM == 1 and len(str(element.value)) >= 8:
            yield element.keyword, str(element.value)[:8]


def shifts(out: Path) -> dict[str, set[int]]:
    """By how many days the dates of each original patient moved."""
    found: dict[str, set[int]] = {}
    for row in table(beside(out, "restricted"), "crosswalk/instances"):
        before = pydicom.dcmread(row["source_uri"], stop_before_pixels=True)
        after = dict(dates(pydicom.dcmread(out / row["name"], stop_before_pixels=True)))
        for keyword, old in dates(before):
            if keyword in after and re.fullmatch("[0-9]{8}", old) and keyword.startswith(("Study", "Series", "Acq")):
                moved = pydicom.valuerep.DA(after[keyword]) - pydicom.valuerep.DA(old)
                found.setdefault(str(before.PatientID or row["source_uri"]), set()).add(moved.days)
    return found


def test_two_keys_move_dates_by_other_days(runs: Runs) -> None:
    """A patient's dates move by one number of days under a key, and by another under another."""
    moved = {name: shifts(out) for name, out in runs.items()}
    assert len(moved["one"]) >= 4 and all(
        len(days) == 1 for by_patient in moved.values() for days in by_patient.values()
    )
    assert [patient for patient in moved["one"] if moved["one"][patient] == moved["other"][patient]] == []
    # One of some 3600 numbers of days may come twice for one patient by chance, and not for all of them.
    assert moved["ephemeral"] != moved["ephemeral too"]


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The crosswalk of UIDs of every real instance at hand."""
    out = tmp_path_factory.mktemp("links") / "out"
    sources = [BUNDLED / "test_files", *([CORPUS / "open"] if CORPUS else [])]
    run("anonymize", "--input", *sources, "--output", out, "--workers", 2, status=3)
    return table(beside(out, "restricted"), "crosswalk/uids")


def shared_digits(original: str, new: str) -> str:
    """A run of 8 digits of the original that stands in its replacement; "" for none."""
    return next(
        (
            run[at : at + 8]
            for run in re.findall("[0-9]{8,}", original)
            for at in range(len(run) - 7)
            if run[at : at + 8] in new
        ),
        "",
    )


def test_no_clock_of_an_original_is_left_in_its_replacement(links: list[dict]) -> None:
    """Vendors write date and time into UIDs: pair by pair, no 8 digits of an original stand in the new one (E.3.9)."""
    assert len(links) > 200
    with_runs = [link for link in links if re.search("[0-9]{8}", link["original"])]
    assert len(with_runs) > 100
    assert [link["role"] for link in links if shared_digits(link["original"], link["new"])] == []


@pytest.mark.parametrize(
    ("original", "new", "shared"),
    [
        ("1.3.12.2.1107.5.1.20080206123456.1", "2.25.920080206123459", "20080206"),
        ("1.2.20080206", "2.25.20080206", "20080206"),
        ("1.2.2008020.6", "2.25.20080206", ""),
        ("1.2.3", "2.25.3", ""),
    ],
)
def test_a_clock_would_be_seen(original: str, new: str, shared: str) -> None:
    """The comparison sees eight digits in a row wherever they stand."""
    assert shared_digits(original, new) == shared


def test_every_mapped_uid_is_new(links: list[dict]) -> None:
    """A UID in the crosswalk is no registered one, and its replacement is of our making, another for each."""
    assert not {link["original"] for link in links} & standard.registered_uids()
    assert all(re.fullmatch(r"2\.25\.[1-9][0-9]{30,38}", link["new"]) for link in links)
    by_original = {link["original"]: link["new"] for link in links}
    assert len(set(by_original.values())) == len(by_original)

"""Crosswalks from outside are read exactly, checked whole, and free of contradictions (`tests/cases/crosswalks.yaml`)."""

import json
import os
import pickle
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomveil.keys import Keys
from dicomveil.pseudonyms import patient_pseudonym
from dicomveil.uids import uid_token
from transforms import crosswalks, tables
from transforms.crosswalk_rows import Row, doubtful, mistakes, normalized
from transforms.crosswalks import CrosswalkRefused, CrosswalkVerdict, import_crosswalk
from transforms.locations import StoreError
from transforms.token_sort import TOKEN, TokenSort

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "crosswalks.yaml").read_text("utf-8"))
KEYS = Keys(bytes(range(32)))
READ = [case for case in CASES if "rows" in case]
REFUSED = [case for case in CASES if "refused" in case]
FEWER = settings(max_examples=40)


def name(case: dict[str, Any]) -> str:
    return case["name"].replace(" ", "-")


def rows_of(folder: Path, verdict: CrosswalkVerdict) -> list[dict[str, Any]]:
    return [row for part in verdict.parts for row in pq.read_table(folder / part).to_pylist()]


def by_original(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["kind"], row["original"], row["issuer"]


def imported(case: dict[str, Any], tmp_path: Path) -> tuple[CrosswalkVerdict, Path]:
    file = tmp_path / "table.csv"
    file.write_text(case["file"], "utf-8", newline="")
    folder = tmp_path / "imported"
    told = {name: case[name] for name in ("identity", "default_issuer") if name in case}
    return import_crosswalk([str(file)], folder, folder.with_name("sorting"), KEYS, **told), folder


@pytest.mark.parametrize("case", READ, ids=name)
def test_what_a_file_says_is_read(case: dict[str, Any], tmp_path: Path) -> None:
    """Values come out as they were written, each identity once, by the token that mentions of it have."""
    verdict, folder = imported(case, tmp_path)
    expected = []
    for row in case["rows"]:
        kind, original, new, issuer, days, anchor = [*row, *["", None, ""][len(row) - 3 :]]
        told_apart = issuer if case.get("identity") == "id+issuer" else ""
        patient = kind == "patient"
        token = patient_pseudonym(KEYS, original, told_apart) if patient else uid_token(KEYS, original).hex()
        expected.append(
            dict(zip(tables.CROSSWALK_GIVEN.names, (kind, token, original, issuer, new, days, anchor), strict=True))
        )
    assert sorted(rows_of(folder, verdict), key=by_original) == sorted(expected, key=by_original)
    assert verdict.rows == {kind: sum(row["kind"] == kind for row in expected) for kind in ("patient", "uid")}


@pytest.mark.parametrize("case", REFUSED, ids=name)
def test_what_is_wrong_is_told_by_row_and_without_values(case: dict[str, Any], tmp_path: Path) -> None:
    """All mistakes at once, where they stand, and never a value; nothing is kept."""
    with pytest.raises(CrosswalkRefused) as caught:
        imported(case, tmp_path)
    told = [(problem.where, problem.what) for problem in caught.value.problems]
    file = tmp_path / "table.csv"
    for row, what in case["refused"]:
        where = f"{file}, row {row}" if row else str(file)
        assert any(at.split(" and ")[0] == where and what in said for at, said in told), (row, what, told)
    assert len(told) == len(case["refused"]) == caught.value.count
    assert all(problem.remedy for problem in caught.value.problems)
    for value in ("Zubikax", "4711", "S01", "General"):
        assert value not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert not (tmp_path / "imported").exists()


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    """The first twenty in words, and how many more there are."""
    (tmp_path / "table.csv").write_text("original,new\n" + "UNKNOWN,S01\n" * 50)
    with pytest.raises(CrosswalkRefused) as caught:
        import_crosswalk([str(tmp_path / "table.csv")], tmp_path / "imported", tmp_path / "sorting", KEYS)
    assert [problem.where.split(" ")[-1] for problem in caught.value.problems] == [str(row) for row in range(2, 22)]
    assert caught.value.count == 50 and str(caught.value).endswith("\nand 30 more")


# ------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        ("original,new\n4711,Zubik\xe4x\n".encode("latin-1"), "can't be read as CSV in UTF-8"),
        ("original,new\n4711,S01\n".encode("utf-16"), "can't be read as CSV in UTF-8"),
        (b"PAR1 Zubikax", "can't be read as Parquet"),
    ],
    ids=["latin-1", "utf-16", "parquet"],
)
def test_files_that_are_none_are_refused(raw: bytes, what: str, tmp_path: Path) -> None:
    """Another encoding or a broken file is refused, and nothing of it quoted."""
    (tmp_path / "table").write_bytes(raw)
    with pytest.raises(CrosswalkRefused) as caught:
        import_crosswalk([str(tmp_path / "table")], tmp_path / "imported", tmp_path / "sorting", KEYS)
    assert what in str(caught.value) and "Zubik" not in str(caught.value)


def test_a_uri_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    """What isn't there, a folder of other things, and a store that isn't known."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "table.csv").write_text("original,new\n1,S01\n")
    (tmp_path / "root" / "crosswalk").mkdir(parents=True)
    for uri in (tmp_path / "none.csv", tmp_path / "folder", tmp_path / "root", "hdfs://bucket/table.csv"):
        with pytest.raises(StoreError):
            import_crosswalk([str(uri)], tmp_path / "imported", tmp_path / "sorting", KEYS)
        assert not (tmp_path / "imported").exists()


def write_parquet(path: Path, columns: dict[str, pa.Array]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_parquet_is_read_as_it_is_typed(tmp_path: Path) -> None:
    """Text, dictionaries, whole numbers of days and dates; a folder's parts are one crosswalk."""
    first = {"original": pa.array(["007"]).dictionary_encode(), "new": pa.array(["S01"], pa.large_string())}
    first |= {"days": pa.array([-400], pa.int64()), "anchor": pa.array([19737], pa.date32())}
    write_parquet(tmp_path / "parts" / "0.parquet", first)
    write_parquet(tmp_path / "parts" / "a" / "1.parquet", {"original": pa.array(["008"]), "new": pa.array(["S02"])})
    (tmp_path / "parts" / "_SUCCESS").touch()
    verdict = import_crosswalk([str(tmp_path / "parts")], tmp_path / "imported", tmp_path / "sorting", KEYS)
    read = {
        tuple(map(row.get, ("original", "new", "days", "anchor"))) for row in rows_of(tmp_path / "imported", verdict)
    }
    assert read == {("007", "S01", -400, "20240115"), ("008", "S02", None, "")}


def test_numbers_are_no_patient_ids(tmp_path: Path) -> None:
    """Parquet that holds IDs as numbers has lost their leading zeros."""
    uri = write_parquet(tmp_path / "t.parquet", {"original": pa.array([7]), "new": pa.array(["S01"])})
    with pytest.raises(CrosswalkRefused, match="`original` that isn't text"):
        import_crosswalk([uri], tmp_path / "imported", tmp_path / "sorting", KEYS)


def write_run(root: Path, run: str, listed: bool, patients: list[dict], uids: list[dict]) -> None:
    """What a run leaves under --restricted."""
    parts = []
    for schema, rows in ((tables.CROSSWALK_PATIENTS, patients), (tables.CROSSWALK_UIDS, uids)):
        path, count = tables.write_part(str(root), run, schema, "bucket-000", rows)
        parts.append({"path": path, "rows": count})
    if listed:
        (root / "runs").mkdir(exist_ok=True)
        (root / "runs" / f"{run}.json").write_text(json.dumps({"run": run, "parts": parts}))


def test_earlier_runs_are_read_by_what_they_list(tmp_path: Path) -> None:
    """Rows of finished runs count; studies without Patient ID and values that stayed say nothing."""
    write_run(
        tmp_path,
        "1",
        True,
        [
            {"original": "4711", "issuer": "", "new": "DV1", "study_instance_uid": "2.25.1"},
            {"original": "4711", "issuer": "", "new": "DV1", "study_instance_uid": "2.25.2"},
            {"original": "", "issuer": "", "new": "DV9", "study_instance_uid": "2.25.3"},
        ],
        [
            {"role": "study", "original": "1.2.1", "new": "2.25.1", "inside": True, "late": False},
            {"role": "series", "original": "1.2.9", "new": "1.2.9", "inside": True, "late": False},
            {"role": "instance", "original": "1.2.5", "new": "2.25.5", "inside": False, "late": True},
        ],
    )
    uid = {"role": "study", "original": "1.2.1", "new": "2.25.77", "inside": True, "late": False}
    write_run(tmp_path, "2", False, [], [uid])
    verdict = import_crosswalk([str(tmp_path)], tmp_path / "imported", tmp_path / "sorting", KEYS)
    read = {(row["original"], row["new"]) for row in rows_of(tmp_path / "imported", verdict)}
    assert read == {("4711", "DV1"), ("1.2.1", "2.25.1"), ("1.2.5", "2.25.5")}
    write_run(tmp_path, "2", True, [], [uid])
    with pytest.raises(CrosswalkRefused, match="one original two new values"):
        import_crosswalk([str(tmp_path)], tmp_path / "imported", tmp_path / "sorting", KEYS)


def test_one_part_of_ours_is_known_as_such(tmp_path: Path) -> None:
    """A part named by itself is read as within its root."""
    link = {"original": "", "issuer": "", "new": "DV9", "study_instance_uid": "2.25.3"}
    path, _ = tables.write_part(str(tmp_path), "1", tables.CROSSWALK_PATIENTS, "0", [link])
    verdict = import_crosswalk([str(tmp_path / path)], tmp_path / "imported", tmp_path / "sorting", KEYS)
    assert verdict.rows == {"patient": 0, "uid": 0} and verdict.parts == ()


def test_only_their_owner_may_read_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders 0700 and files 0600, while it sorts and after, and nothing else is left."""
    monkeypatch.setattr(crosswalks, "HELD", 2)
    modes = set()
    keep = crosswalks.stores.create_restricted

    def spy(target: Path, data: bytes) -> None:
        keep(target, data)
        modes.add((oct(target.stat().st_mode & 0o777), oct(target.parent.stat().st_mode & 0o777)))

    monkeypatch.setattr("transforms.stores.create_restricted", spy)
    (tmp_path / "table.csv").write_text("original,new\n" + "".join(f"P{n},S{n}\n" for n in range(9)))
    old = os.umask(0)
    try:
        verdict = import_crosswalk([str(tmp_path / "table.csv")], tmp_path / "imported", tmp_path / "sorting", KEYS)
    finally:
        os.umask(old)
    assert modes == {("0o600", "0o700")}
    assert sorted(path.name for path in (tmp_path / "imported").iterdir()) == list(verdict.parts)


# -------------------------------------------------------------------------------------------------------- properties

IDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\\"), max_size=70)
VALUES = st.sampled_from(["1.2.3", "1.2.840.10008.1.1", "2.25.1", "0", "1.50", "A", "B ", "UNKNOWN", ""]) | IDS
DAYS = st.sampled_from(["", "0", "-1", "99999", "-99999", "+5", "1000000", "-1000000", "x", "1.0", "-"])
ANCHORS = st.sampled_from(["", "20240229", "20230229", "2024"])
ROLES = st.sampled_from(["patient", "study", "uid", "Patient", "nobody", ""])
ROWS = st.builds(Row, VALUES, VALUES, ROLES, VALUES | st.just(""), DAYS, ANCHORS)


def table_of(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(
        [row._asdict() for row in rows], pa.schema([(name, pa.string()) for name in Row._fields])
    )


@given(st.lists(ROWS, min_size=1, max_size=20))
def test_no_mistake_slips_through_the_quick_look(rows: list[Row]) -> None:
    """What is looked at many rows at a time lets nothing pass that a look at one row alone would tell of."""
    table = normalized(table_of(rows), ours=False)
    for row, doubt in zip(table.to_pylist(), doubtful(table), strict=True):
        assert doubt or not list(mistakes(Row(**row)))


@st.composite
def consistent(draw: st.DrawFn) -> list[tuple[str, str, int | None]]:
    """Patients, each with a new ID of its own and perhaps a shift."""
    originals = draw(st.lists(st.from_regex(r"[A-Z0-9äЖ]{3,8}-0[0-9]{3}", fullmatch=True), unique=True, max_size=20))
    days = st.none() | st.integers(-90_000, 90_000).filter(bool)
    return [(original, f"S{at:03}", draw(days)) for at, original in enumerate(originals)]


@FEWER
@given(consistent(), st.randoms(use_true_random=False), st.sampled_from([7, 1000]), st.sampled_from([1, 4, 1000]))
def test_rows_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int | None]], random, held: int, part: int
) -> None:
    """However rows are spread over files, ordered, repeated and sorted on disk: the same rows in the same order."""
    tmp_path = tmp_path_factory.mktemp("rows")
    spread = [*rows, *random.sample(rows, len(rows) // 2)]
    random.shuffle(spread)
    uris = []
    for at, some in enumerate((spread[: len(spread) // 3], spread[len(spread) // 3 :])):
        if some:
            file = tmp_path / f"{at}.csv"
            file.write_text("original,new,days\n" + "".join(f"{o},{n},{d or ''}\n" for o, n, d in some), "utf-8")
            uris.append(str(file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crosswalks, "HELD", held)
        patch.setattr(crosswalks, "PART_ROWS", part)
        verdict = import_crosswalk(uris, tmp_path / "imported", tmp_path / "sorting", KEYS)
    read = rows_of(tmp_path / "imported", verdict)
    assert sorted((row["original"], row["new"], row["days"]) for row in read) == sorted(rows)
    assert len(verdict.parts) == -(-len(rows) // part)
    columns = {"original": pa.array([row[0] for row in rows], pa.string())}
    columns |= {
        "new": pa.array([row[1] for row in rows], pa.string()),
        "days": pa.array([r[2] for r in rows], pa.int32()),
    }
    if rows:
        other = write_parquet(tmp_path / "rows.parquet", columns)
        again = import_crosswalk([other], tmp_path / "again", tmp_path / "sorting", KEYS)
        assert rows_of(tmp_path / "again", again) == read


FEW = st.tuples(st.sampled_from("PQRSTU"), st.sampled_from("abcdef"), st.sampled_from(["", "1", "2"]))


@FEWER
@given(st.lists(FEW, min_size=1, max_size=12), st.sampled_from([4, 1000]))
def test_contradictions_are_those_that_there_are(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], held: int
) -> None:
    """Refused if and only if comparing each row with each other finds one original told twice, or one new value shared."""
    tmp_path = tmp_path_factory.mktemp("rows")
    told = "".join(f"{original},ID-{new},{days}\n" for original, new, days in rows)
    (tmp_path / "table.csv").write_text("original,new,days\n" + told)
    first: dict[str, str] = {}
    shifts: dict[str, set[str]] = defaultdict(set)
    split = set()
    for original, new, days in rows:
        shifts[original] |= {days} - {""}
        if first.setdefault(original, new) != new or len(shifts[original]) > 1:
            split.add(original)
    shared = {new for new in first.values() if list(first.values()).count(new) > 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crosswalks, "HELD", held)
        try:
            verdict = import_crosswalk([str(tmp_path / "table.csv")], tmp_path / "imported", tmp_path / "sorting", KEYS)
        except CrosswalkRefused as refused:
            kinds = ["one original" in problem.what for problem in refused.problems]
            assert kinds == [True] * len(split) + [False] * len(shared)
            assert refused.count == len(kinds) > 0
        else:
            assert not split and not shared
            assert verdict.rows == {"patient": len(first), "uid": 0}


@FEWER
@given(st.lists(st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 9)), max_size=60), st.integers(5, 70))
def test_a_sort_on_disk_is_a_stable_sort(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[bytes, int]], held: int
) -> None:
    """Whatever is held in memory, rows come in the order of their tokens, equal ones as they came, groups whole."""
    folder = tmp_path_factory.mktemp("sort") / "runs"
    rows = [(token, number) for token, number in [*rows, *rows]]
    sort = TokenSort(folder, pa.schema([("token", TOKEN), ("number", pa.int64())]), held)
    for token, number in rows:
        sort.add(pa.table({"token": pa.array([token], TOKEN), "number": pa.array([number])}))
    found = [table.to_pylist() for table in sort.sorted()]
    assert [(row["token"], row["number"]) for table in found for row in table] == sorted(rows, key=lambda row: row[0])
    tokens = [{row["token"] for row in table} for table in found]
    assert sum(map(len, tokens)) == len(set().union(*tokens))
    assert not folder.exists()


# -------------------------------------------------------------------------------------------------------------- size

_IMPORT = """
import resource, sys
from pathlib import Path
from dicomveil.keys import Keys
from transforms import crosswalks
crosswalks.HELD = 20_000
verdict = crosswalks.import_crosswalk([sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[2]).with_name("sorting"), Keys(bytes(range(32))))
print(verdict.rows["uid"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """What is sorted beyond the rows that are held (in a campaign: ten million) takes a quarter of what holding it would."""
    count = 10_000_000 if "DICOMVEIL_CAMPAIGN" in os.environ else 500_000
    fewer, more = _peak(tmp_path, 100_000), _peak(tmp_path, count)
    assert more - fewer < (64 << 20) + 40 * (count - 100_000)


def _peak(tmp_path: Path, count: int) -> int:
    """The bytes that an import takes at most."""
    with (tmp_path / "table.csv").open("w") as file:
        file.write("original,new,role\n")
        for number in range(count):
            file.write(f"1.2.3.{number * 7919},2.25.{10**37 + number * 104729},instance\n")
    command = [sys.executable, "-c", _IMPORT, str(tmp_path / "table.csv"), str(tmp_path / "imported")]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    rows, peak = map(int, done.stdout.split())
    assert rows == count
    return peak * (1 if sys.platform == "darwin" else 1024)

"""Both ways by which maps reach instances: the same pairs, whatever the plan holds."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline as InMemory
from apache_beam.testing.util import assert_that
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomveil.testing import write_demo_study
from pipelines.cli import cli
from tests.corpora import KEY
from tests.pipelines.test_anonymize import contents, table
from transforms import maps, plans
from transforms.maps import AUTO, JOIN, LARGEST_SIDE_INPUT, SIDE_INPUT, PairWithMaps, way
from transforms.records import Planned, PlannedStudy

STUDIES = st.dictionaries(
    st.sampled_from([f"{digit}0000000" for digit in "0123456789abcdef"]), st.integers(0, 5), max_size=8
)


def plan(
    folder: Path, studies: dict[str, int], mapless: frozenset[str] = frozenset(), size: int = 10
) -> list[tuple[str, bytes]]:
    """A plan of so many instances a study, and some of none; gives what must come of it."""
    instances = [
        Planned(f"{study}{number}", "", 0, "", study, scan=b"s" * size)
        for study, count in studies.items()
        for number in range(count)
    ]
    instances += [Planned(f"ffffffff{number}", "", 0, "", reason="not-dicom") for number in range(2)]
    for bucket in {plans.bucket_of(it) for it in instances} | {plans.token_bucket(study) for study in studies}:
        plans.write_instances(str(folder), bucket, [it for it in instances if plans.bucket_of(it) == bucket])
        here = [
            PlannedStudy(it, it.encode()) for it in studies if plans.token_bucket(it) == bucket and it not in mapless
        ]
        plans.write_studies(str(folder), bucket, here)
    return sorted((it.token, b"" if it.study_token in mapless else it.study_token.encode()) for it in instances)


@settings(max_examples=10)
@given(STUDIES, st.frozensets(st.sampled_from(["00000000", "50000000", "f0000000"])))
def test_both_ways_come_to_the_same(
    tmp_path_factory: pytest.TempPathFactory, studies: dict[str, int], mapless: frozenset[str]
) -> None:
    """Every instance once, with its study's map; b"" where it has none."""
    folder = tmp_path_factory.mktemp("plan")
    expected = plan(folder, studies, mapless)
    for how in (SIDE_INPUT, JOIN):
        with InMemory() as pipeline:
            pairs = pipeline | beam.Create(plans.buckets(str(folder))) | PairWithMaps(str(folder), how)
            assert_that(pairs, lambda found: _same(found, expected))


def _same(found: list[tuple[Planned, bytes]], expected: list[tuple[str, bytes]]) -> None:
    assert sorted((planned.token, study_map) for planned, study_map in found) == expected


def test_a_large_study_is_divided(tmp_path: Path) -> None:
    """Its instances travel in batches that weigh as much as its map, and never fewer than are worth a journey."""
    plan(tmp_path, {"00000000": 300}, size=1 << 10)
    batches = [batch for _, batch in maps._batches(0, str(tmp_path)) if batch[0].study_token]
    assert Counter(map(len, batches)) == {64: 4, 44: 1}
    large = [PlannedStudy("00000000", b"m" * (200 << 10))]
    plans.write_studies(str(tmp_path), 0, large)
    batches = [batch for _, batch in maps._batches(0, str(tmp_path)) if batch[0].study_token]
    assert Counter(map(len, batches)) == {200: 1, 100: 1}


@pytest.mark.parametrize(
    ("asked", "size", "gone"),
    [(AUTO, 0, SIDE_INPUT), (AUTO, LARGEST_SIDE_INPUT, SIDE_INPUT), (AUTO, LARGEST_SIDE_INPUT + 1, JOIN),
     (JOIN, 0, JOIN), (SIDE_INPUT, LARGEST_SIDE_INPUT + 1, SIDE_INPUT)],
)  # fmt: skip
def test_the_size_of_the_maps_decides(asked: str, size: int, gone: str) -> None:
    """Where the user leaves it to that."""
    assert way(asked, size) == gone


def test_a_run_writes_the_same_either_way(tmp_path: Path) -> None:
    """Outputs byte for byte, and what the audit tells of them."""
    write_demo_study(tmp_path / "in")
    for how in ("side-input", "join"):
        command = ["anonymize", "--input", tmp_path / "in", "--output", tmp_path / how, "--key", "env:K", "--maps", how]
        done = CliRunner().invoke(cli, [*map(str, command)], env={"K": KEY.hex()}, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert contents(tmp_path / "join") == contents(tmp_path / "side-input")
    for name in ("instances", "studies"):
        assert _rows(tmp_path / "join-audit", name) == _rows(tmp_path / "side-input-audit", name)


def _rows(folder: Path, name: str) -> list[str]:
    rows: list[dict[str, Any]] = [row | {"run_id": ""} for row in table(folder, name)]
    return sorted(json.dumps(row, sort_keys=True) for row in rows)

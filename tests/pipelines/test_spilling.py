"""The local runner with its stages' data on disk: it comes to the same as in memory, in bundles of bounded size."""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam import coders
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.portability.fn_api_runner.execution import GroupingBuffer, ListBuffer
from apache_beam.transforms.core import Windowing
from apache_beam.transforms.window import GlobalWindows
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from dicomveil.testing import write_demo_study
from pipelines import spilling
from pipelines.cli import cli
from pipelines.spilling import SpillingRunner
from tests.corpora import KEY
from tests.pipelines.test_anonymize import contents

PAIR = coders.WindowedValueCoder(
    coders.TupleCoder([coders.StrUtf8Coder(), coders.VarIntCoder()]), coders.coders.GlobalWindowCoder()
)
GROUP = coders.WindowedValueCoder(
    coders.TupleCoder([coders.StrUtf8Coder(), coders.IterableCoder(coders.VarIntCoder())]),
    coders.coders.GlobalWindowCoder(),
)
WHOLE = GlobalWindows.windowed_value
BATCHES = st.lists(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 999)), max_size=6), max_size=8)
SIZES = st.sampled_from([0, 1, 40, 1 << 20])


def encoded(pairs: Iterable[tuple[str, int]]) -> bytes:
    return PAIR.get_impl().encode_all([WHOLE(pair) for pair in pairs])


def grouped(shares: Iterable[Iterable[bytes]]) -> list[dict[str, list[int]]]:
    """What each share holds; a key that it holds twice is a failure."""
    found: list[dict[str, list[int]]] = []
    for share in shares:
        pairs = [it.value for data in share for it in GROUP.get_impl().decode_all(data)]
        assert len({key for key, _ in pairs}) == len(pairs)
        found.append({key: list(values) for key, values in pairs})
    return found


def groups(folder: Path, kept: int) -> spilling._Groups:
    return spilling._Groups(GroupingBuffer(PAIR, GROUP, Windowing(GlobalWindows())), folder, kept)


# ---------------------------------------------------------------------------------------------------------- buffers


@given(BATCHES, BATCHES, SIZES, SIZES, st.integers(1, 5))
def test_each_key_is_in_one_share_with_all_its_values(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[tuple[str, int]]],
    more: list[list[tuple[str, int]]],
    kept: int,
    others: int,
    count: int,
) -> None:
    """Whatever came when, from one stage or two, in memory or on disk."""
    folder = tmp_path_factory.getbasetemp()
    one, other = groups(folder, kept), groups(folder, others)
    for batch in batches:
        one.append(encoded(batch))
    for batch in more:
        other.append(encoded(batch))
    one.extend(other)
    expected: dict[str, list[int]] = {}
    for key, value in (pair for batch in [*batches, *more] for pair in batch):
        expected.setdefault(key, []).append(value)
    shares = grouped(one.partition(count))
    assert len(shares) == count
    assert sorted(key for share in shares for key in share) == sorted(expected)
    assert {key: sorted(values) for share in shares for key, values in share.items()} == {
        key: sorted(values) for key, values in expected.items()
    }
    assert grouped(one.partition(count)) == shares


@given(BATCHES, SIZES, st.integers(1, 5))
def test_a_list_is_divided_without_a_loss(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[str, int]]], kept: int, count: int
) -> None:
    """And a copy of it is another list."""
    made = ListBuffer(PAIR.get_impl())
    made.append(encoded([("first", 1)]))
    one = spilling._List(made, tmp_path_factory.getbasetemp(), kept)
    for batch in batches:
        one.append(encoded(batch))
    again = one.copy()
    shares = one.partition(count)
    assert len(shares) == count
    read = sorted(it.value for share in shares for data in share for it in PAIR.get_impl().decode_all(data))
    assert read == sorted([("first", 1), *(pair for batch in batches for pair in batch)])
    one.clear()
    again.append(encoded([("last", 2)]))
    assert len([it for data in again for it in PAIR.get_impl().decode_all(data)]) == len(read) + 1


def test_nothing_of_it_has_a_name(tmp_path: Path) -> None:
    """A process that dies leaves no file behind."""
    one = groups(tmp_path, 0)
    one.append(encoded([("a", 1)] * 9999))
    assert grouped(one.partition(2)) == [{}, {"a": [1] * 9999}] or grouped(one.partition(2)) == [{"a": [1] * 9999}, {}]
    assert os.listdir(tmp_path) == []


# --------------------------------------------------------------------------------------------------------- pipelines


def run(folder: Path, workers: int, build: Any, bundle: int = 100) -> None:
    options = PipelineOptions()
    direct = options.view_as(DirectOptions)
    direct.direct_num_workers, direct.direct_running_mode = workers, "multi_threading" if workers > 1 else "in_memory"
    pipeline = beam.Pipeline(runner=SpillingRunner(folder, bundle), options=options)
    build(pipeline)
    pipeline.run().wait_until_finish()


class _WriteFn(beam.DoFn):
    """Each element to a file of its own, and how many elements each bundle held to one beside."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start_bundle(self) -> None:
        self._count = 0

    def process(self, element: Any) -> None:
        self._count += 1
        (self._folder / f"{element}").touch()

    def finish_bundle(self) -> None:
        (self._folder.parent / f"bundle-{id(self)}-{os.urandom(4).hex()}").write_text(str(self._count))


def ends(folder: Path) -> Iterator[str]:
    yield from (file.name for file in (folder / "out").iterdir())


@pytest.mark.parametrize("workers", [1, 3])
def test_a_graph_of_every_kind_comes_to_the_same(tmp_path: Path, workers: int) -> None:
    """Grouping, joining, flattening, side inputs and a collection that several stages read."""
    (tmp_path / "out").mkdir()

    def build(pipeline: beam.Pipeline) -> None:
        numbers = pipeline | beam.Create(range(500)) | beam.Reshuffle()
        keyed = numbers | "Key" >> beam.Map(lambda it: (it % 7, it))
        sums = keyed | beam.GroupByKey() | "Sum" >> beam.MapTuple(lambda key, values: (key, sum(values)))
        other = numbers | "Other" >> beam.Map(lambda it: (it % 5, -it))
        joined = {"a": sums, "b": other} | beam.CoGroupByKey()
        told = joined | "Tell" >> beam.MapTuple(lambda key, told: f"joined-{key}-{list(told['a'])}-{len(told['b'])}")
        least = numbers | beam.CombineGlobally(min)
        beside = (
            sums
            | "Again" >> beam.Reshuffle()
            | "Beside" >> beam.Map(lambda it, low, all_: f"{it}-{low}-{len(all_)}", beam.pvalue.AsSingleton(least),
                                   beam.pvalue.AsDict(keyed | "Distinct" >> beam.Map(lambda it: it)))
        )  # fmt: skip
        (told, beside) | beam.Flatten() | "End" >> beam.Reshuffle() | beam.ParDo(_WriteFn(tmp_path / "out"))

    run(tmp_path, workers, build)
    sums = {key: sum(range(key, 500, 7)) for key in range(7)}
    expected = {f"joined-{key}-{[sums[key]]}-{100 if key < 5 else 0}" for key in range(7)}
    expected |= {f"{pair}-0-7" for pair in sums.items()}
    assert set(ends(tmp_path)) == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_no_bundle_is_large(tmp_path: Path, workers: int) -> None:
    """What a stage reads goes to its workers in parts, and all of it once."""
    (tmp_path / "out").mkdir()
    run(
        tmp_path,
        workers,
        lambda it: it | beam.Create(range(3000)) | beam.Reshuffle() | beam.ParDo(_WriteFn(tmp_path / "out")),
        bundle=1 << 10,
    )
    counts = [int(file.read_text()) for file in tmp_path.glob("bundle-*")]
    assert len(set(ends(tmp_path))) == sum(counts) == 3000
    assert max(counts) < 300


def test_a_failure_ends_its_stage(tmp_path: Path) -> None:
    """It is told, and what is left of the stage isn't begun."""
    (tmp_path / "out").mkdir()

    def fail(number: int) -> int:
        raise IndexError("no such thing")

    with pytest.raises(Exception, match="no such thing"):
        run(tmp_path, 2, lambda it: it | beam.Create(range(3000)) | beam.Reshuffle() | beam.Map(fail), bundle=1 << 10)


# -------------------------------------------------------------------------------------------------------- the command


def anonymize(folder: Path, name: str, *more: str) -> Any:
    command = ["anonymize", "--input", folder / "in", "--output", folder / name, "--key", "env:K", *more]
    return CliRunner().invoke(cli, [*map(str, command)], env={"K": KEY.hex()}, catch_exceptions=False)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_run_on_disk_writes_the_same(tmp_path: Path, workers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice over: the second run finds by its ledger that nothing is new."""
    write_demo_study(tmp_path / "in")
    assert anonymize(tmp_path, "memory").exit_code == 0
    monkeypatch.setattr(SpillingRunner.__init__, "__defaults__", (200,))
    assert anonymize(tmp_path, "disk", "--workers", workers).exit_code == 0
    assert contents(tmp_path / "disk") == contents(tmp_path / "memory")
    again = anonymize(tmp_path, "disk", "--workers", workers)
    assert again.exit_code == 0 and "unchanged" in again.output
    assert not list((tmp_path / "disk-restricted").glob("run=*"))


def test_a_full_disk_stops_the_run_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback, and the same command goes on."""
    write_demo_study(tmp_path / "in")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as at:
        at.setattr(SpillingRunner.__init__, "__defaults__", (200,))
        at.setattr(spilling.os, "pwrite", full)
        told = anonymize(tmp_path, "out", "--workers", "1")
    assert told.exit_code == 1
    assert "There is no space left" in told.output + told.stderr
    assert anonymize(tmp_path, "out").exit_code == 0

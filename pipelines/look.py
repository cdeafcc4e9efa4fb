"""Before the plan, where there is a ledger: list, hold against what earlier runs have settled, and keep what is due."""

import apache_beam as beam
import pyarrow.parquet as pq

from pipelines import ledger
from pipelines.runs import Run
from transforms.due import WriteDue, WriteUnchanged, due_parts
from transforms.formers import REVIVED, TellFormers, WriteFormers, former_parts
from transforms.ledger import FORMER, UNCHANGED, CompareWithLedger, CountUnchanged, Unchanged
from transforms.locations import table_file
from transforms.match import MatchSources
from transforms.plan import SumListed
from transforms.records import SourceObject

NOTED, REVIVED_NOTED = "unchanged", "revived"
"""Notes of how many objects are as they were settled, and how many of them are processed all the same."""


def build(pipeline: beam.Pipeline, run: Run) -> None:
    """LOOK: objects + ledger -> what is due, what is unchanged, and what is over."""
    folder = str(run.folder)
    sources = pipeline | "Match" >> MatchSources(f"{folder}/inputs.json", run.key)
    compared = sources | "Compare" >> CompareWithLedger(run.ledger, run.key)
    told = compared[FORMER], compared[UNCHANGED], sources
    formers = told | "Formers" >> TellFormers(run.ledger, ledger.purges(run))
    revived = formers[REVIVED]
    again = revived | "Looked at again" >> beam.Map(_source).with_output_types(SourceObject)
    (compared.due, again) | "Due" >> beam.Flatten() | "Keep due" >> WriteDue(folder)
    formers.formers | "Keep formers" >> WriteFormers(folder)
    compared[UNCHANGED] | "Keep unchanged" >> WriteUnchanged(folder)
    compared[UNCHANGED] | "Count unchanged" >> CountUnchanged(run.folder / NOTED)
    revived | "Count again" >> CountUnchanged(run.folder / REVIVED_NOTED)
    sources | "Listed" >> SumListed(folder)


def _source(unchanged: Unchanged) -> SourceObject:
    assert unchanged.source
    return unchanged.source


def due(run: Run) -> int:
    """How many objects are to be processed."""
    return sum(pq.read_metadata(table_file(part)).num_rows for part in due_parts(str(run.folder)))


def former(run: Run) -> int:
    """How many versions of objects aren't there any more."""
    return sum(pq.read_metadata(table_file(part)).num_rows for part in former_parts(str(run.folder)))

"""What is told as gone: only that whose absence a listing would have shown."""

from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from dicomveil.keys import Keys
from tests.corpora import KEY
from transforms.formers import TellFormers
from transforms.ledger import LedgerPart, Lost, Question, uri_token
from transforms.records import SourceObject
from transforms.tables import LEDGER, write_part

KEYS = Keys(KEY)
KNOWN = ("/in/a/1", "/in/a/2", "/in/b/1", "/in/z.zip!/1", "/elsewhere/1")
SEEN = SourceObject("00" * 16, "/in/c/1", 9, "9-9-9")


def token(uri: str) -> str:
    return KEYS.token("source", uri.encode(), b"1")


def unread(uri: str, reason: str, version: str = "") -> SourceObject:
    return SourceObject("11" * 16, uri, 0, version, reason)


CASES = {
    "an input that was listed": ([SEEN], ("/in",), (), {"/in/a/1", "/in/a/2", "/in/b/1", "/in/z.zip!/1"}),
    "an input in which nothing was found": ([], ("/in",), (), set()),
    "a folder that can't be listed": (
        [SEEN, unread("/in/a", "unreadable")], ("/in",), (), {"/in/b/1", "/in/z.zip!/1"},
    ),
    "a zip file that can't be opened": (
        [SEEN, unread("/in/z.zip", "zip-damaged", "1")], ("/in",), (), {"/in/a/1", "/in/a/2", "/in/b/1"},
    ),
    "a zip file itself": ([SEEN, unread("/in/z.zip!/2", "", "1")], ("/in/z.zip",), (), {"/in/z.zip!/1"}),
    "a pattern": ([unread("/in/c/1", "", "1")], (), ("/in/*/1",), {"/in/a/1", "/in/b/1"}),
    "a pattern of zip files": ([unread("/in/y.zip!/1", "", "1")], (), ("/in/*.zip",), {"/in/z.zip!/1"}),
    "one of two inputs": (
        [SEEN], ("/in/a", "/in/c"), (), set(),
    ),
    "other inputs": ([SEEN], ("/in/c",), (), set()),
}  # fmt: skip


@pytest.mark.parametrize(("sources", "roots", "patterns", "told"), CASES.values(), ids=CASES)
def test_only_what_a_listing_would_show_is_gone(
    tmp_path: Path, sources: list[SourceObject], roots: tuple[str, ...], patterns: tuple[str, ...], told: set[str]
) -> None:
    """Of what the ledger knows and nobody has listed, that is gone which lies where the listing was whole."""
    rows = [
        {"source_token": token(uri), "uri_token": uri_token(KEYS, uri), "source_uri": uri, "source_version": "1",
         "outcome": "deidentified", "reason": "", "name": f"out{uri}", "study_token": "", "sop_token": "",
         "request_fingerprint": "r", "table_fingerprint": "t"}
        for uri in KNOWN
    ]  # fmt: skip
    name, _ = write_part(str(tmp_path), "r1", LEDGER, "0", rows)
    parts = (LedgerPart(str(tmp_path / name), "r1"),)
    question = Question(parts, (), ("r1",), (), roots, "r", "t", patterns=patterns)
    file = tmp_path / "ledger.json"
    file.write_bytes(question.encode())
    lost = [(uri_token(KEYS, uri), Lost("", (token(uri),))) for uri in KNOWN]
    with TestPipeline() as pipeline:
        given = (
            pipeline | "Lost" >> beam.Create(lost),
            pipeline | "Unchanged" >> beam.Create([]),
            pipeline | "Sources" >> beam.Create(sources),
        )
        formers = given | TellFormers(str(file), ())
        assert_that(formers.formers | beam.Map(lambda it: it.uri), equal_to(sorted(told)))

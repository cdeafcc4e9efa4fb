"""What a run counts for whoever watches its engine: Beam's counters and distributions, in one namespace.

They tell outcomes and amounts, never a value, a name or a place. What counts in the end is the audit: an engine that
does some work again counts that again.
"""

from collections import Counter
from functools import cache
from typing import Any, Final

from apache_beam.metrics import Metrics

from transforms.records import Outcome

NAMESPACE: Final = "dicomveil"
COUNTERS: Final = {
    "scanned": "objects that were scanned",
    "outcome_*": "objects by what became of them, as `outcome` in the audit has it",
    "reason_*": "objects that were set aside, by reason",
    "action_*": "elements that were changed, by action: X, Z, D, U, C",
}
DISTRIBUTIONS: Final = {
    "scan_milliseconds": "how long a scan took, with what it waited for its store",
    "rewrite_milliseconds": "how long rewriting took, likewise",
    "bytes_read": "size of a source that was rewritten",
    "bytes_written": "size of its output",
}


def count_scanned(seconds: float) -> None:
    """Count one scan; in the worker's own thread."""
    _counter("scanned").inc()
    _distribution("scan_milliseconds").update(round(seconds * 1000))


def count_settled(outcome: Outcome, seconds: float) -> None:
    """Count what became of one object; in the worker's own thread."""
    _counter(f"outcome_{outcome.outcome}").inc()
    if outcome.reason:
        _counter(f"reason_{outcome.reason}").inc()
    if not outcome.name:
        return
    for action, count in Counter(change.action for change in outcome.changes).items():
        _counter(f"action_{action}").inc(count)
    _distribution("rewrite_milliseconds").update(round(seconds * 1000))
    _distribution("bytes_read").update(outcome.source_size)
    _distribution("bytes_written").update(outcome.size)


@cache
def _counter(name: str) -> Any:
    return Metrics.counter(NAMESPACE, name)


@cache
def _distribution(name: str) -> Any:
    return Metrics.distribution(NAMESPACE, name)

"""How many of what, and why: the table in which every command tells a person what it came to."""

from collections.abc import Iterable

from rich.table import Table

from dicomveil.errors import REASONS


def tally() -> Table:
    """An empty table of counts, of what was counted, and of what is to be said of it."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_column(style="dim", overflow="fold")
    return table


def any_failed(reasons: Iterable[str]) -> bool:
    """Whether anything was left out for a reason that counts as failed: all do but those of filters."""
    return any(reason not in REASONS or REASONS[reason].outcome == "quarantined" for reason in reasons)

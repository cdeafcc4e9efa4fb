"""How many of what, and why: the table in which every command tells a person what it came to."""

from rich.table import Table


def tally() -> Table:
    """An empty table of counts, of what was counted, and of what is to be said of it."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_column(style="dim", overflow="fold")
    return table

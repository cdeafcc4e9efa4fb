"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from pipelines.plan import Verdict
from transforms.progress import counted

_POLL: Final = 0.3
_LINE_EVERY: Final = 30.0
_TASKS_EVERY: Final = 2.0


class Report:
    """Tells a person what is going on, on standard error.

    Args:
      tasks: of the pipeline at work, how many are done and how many there are; None where nobody tells.
    """

    def __init__(self, console: Console, tasks: Callable[[], tuple[int, int] | None]) -> None:
        self.console, self._tasks = console, tasks

    def plan(self, verdict: Verdict, keep_source: bool = True) -> None:
        """Say what the plan comes to, and what will be deleted in the end."""
        aside = sum(verdict.reasons.values())
        passed = f"{verdict.unchanged:,} of them unchanged, " if verdict.unchanged else ""
        passed += f"{verdict.deferred:,} left for the next run, " if verdict.deferred else ""
        self.console.print(
            f"Plan: {verdict.listed:,} objects, {passed}{verdict.bytes:,} bytes, {verdict.studies:,} studies, "
            f"{aside:,} set aside; study maps {verdict.map_bytes:,} bytes",
            soft_wrap=True,
            highlight=False,
        )
        if not keep_source:
            told = f"up to {verdict.due - aside:,} sources will be deleted for good when the run has ended"
            self.console.print(f"KeepSource: false: {told}.", style="bold yellow", soft_wrap=True, highlight=False)

    @contextmanager
    def stage(self, name: str, folder: str, total: int | None = None) -> Iterator[None]:
        """Show the workers' counts in `folder`, and what the cluster tells, while a stage runs."""
        before, stop = counted(folder), threading.Event()
        show = self._bar if self.console.is_terminal else self._lines
        thread = threading.Thread(target=show, args=(name, folder, before, total, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _bar(self, name: str, folder: str, before: int, total: int | None, stop: threading.Event) -> None:
        columns = (TextColumn("{task.description}{task.fields[tasks]}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True) as progress:
            task: TaskID = progress.add_task(name, total=total, tasks="")
            asked = 0.0
            while not stop.wait(_POLL):
                progress.update(task, completed=counted(folder) - before)
                if time.monotonic() - asked > _TASKS_EVERY:
                    asked = time.monotonic()
                    progress.update(task, tasks=self._told())

    def _lines(self, name: str, folder: str, before: int, total: int | None, stop: threading.Event) -> None:
        last = time.monotonic()
        of = f" of {total:,}" if total else ""
        self.console.print(f"{name}{of} ...", highlight=False)
        while not stop.wait(_POLL):
            if time.monotonic() - last > _LINE_EVERY:
                last = time.monotonic()
                self.console.print(f"{name}{self._told()}: {counted(folder) - before:,}{of}", highlight=False)

    def _told(self) -> str:
        """What the cluster tells, as it stands behind a stage's name."""
        tasks = self._tasks()
        return f" ({tasks[0]} of {tasks[1]} tasks)" if tasks else ""

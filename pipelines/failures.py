"""How many failures a run bears: counted exactly once it is planned, and while it writes by what its workers tell."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dicomveil.errors import REASONS
from pipelines.deferral import Total
from pipelines.plan import Verdict
from pipelines.runs import Run
from transforms import plans, stores
from transforms.progress import failed

_POLL: Final = 0.2


def planned(verdict: Verdict) -> dict[str, int]:
    """How many objects the plan quarantines, by reason."""
    return {reason: count for reason, count in verdict.reasons.items() if _is_failure(reason)}


class Watch:
    """Looks on while a run writes, and tells its workers to stop where more fails than is borne.

    A slice that has ended tells its failures exactly; of one at work they are what its workers have told so far.
    """

    def __init__(self, run: Run, verdict: Verdict) -> None:
        self._run, self._settled, self._told = run, sum(planned(verdict).values()), 0
        self._borne = run.choices.limits.borne(verdict.due)

    @property
    def stopped(self) -> bool:
        """Whether the workers were told to stop, by this command or an earlier one."""
        return bool(self._run.choices.limits.failures) and self._run.stop.exists()

    def look(self) -> None:
        """Count, and tell them."""
        self._judge(failed(str(self._run.progress)) - self._told)

    def settle(self, buckets: list[int], outcomes: dict[str, int]) -> None:
        """Count what a slice that has ended has failed at.

        Args:
          outcomes: how many, by "outcome reason".
        """
        if self._run.choices.limits.failures:
            self._settled += _of_slice(self._run, buckets, outcomes)
            self._told = failed(str(self._run.progress))
            self._judge(0)

    def _judge(self, more: int) -> None:
        if self._settled + more > self._borne and not self._run.stop.exists():
            stores.create_restricted(self._run.stop, b"")

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look now and then, as long as the context lasts."""
        if not self._run.choices.limits.failures:
            yield
            return
        done = threading.Event()
        thread = threading.Thread(target=self._look_on, args=(done,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _look_on(self, done: threading.Event) -> None:
        while not done.wait(_POLL):
            self.look()


def _of_slice(run: Run, buckets: list[int], outcomes: dict[str, int]) -> int:
    """How many more a slice has quarantined than its plan had."""
    settled = sum(count for name, count in outcomes.items() if name.startswith("quarantined "))
    instances = (planned for bucket in buckets for planned in plans.read_instances(str(run.folder), bucket))
    return settled - sum(_is_failure(it.reason) for it in instances)


def _is_failure(reason: str) -> bool:
    """Whether what is set aside for it counts as failed; "" is no reason."""
    return bool(reason) and REASONS[reason].outcome == "quarantined"


def left(run: Run, buckets: list[int]) -> Total:
    """What a slice holds that was never begun."""
    total = Total()
    for bucket in buckets:
        total = total.plus(plans.read_instances(str(run.folder), bucket))
    return total

"""A lease keeps two runs apart, on servers that speak like the real ones; what is under test are other processes."""

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

import pytest

from dicomveil.errors import DicomveilError
from tests import emulators
from transforms.lease import CLOCK, LEASE, Lease, LeaseHeld, LeaseLost, Note, leased
from transforms.object_stores import scheme_of, store_of

SHORT = 2
PROCESSES: ForkServerContext = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["google.cloud.storage", "obstore", "tenacity", "tests.emulators", "transforms.lease"])


@pytest.fixture(
    scope="module", params=[name for name, it in emulators.SERVERS.items() if it is not emulators.gcs_in_python]
)
def server(request: pytest.FixtureRequest) -> Iterator[emulators.Emulator]:
    """Every server that judges conditions."""
    with emulators.SERVERS[request.param]() as running, emulators.environment(running.env):
        store_of.cache_clear()
        yield running
    store_of.cache_clear()


@pytest.fixture
def zone(server: emulators.Emulator) -> str:
    return f"{server.bucket()}/restricted"


def note(zone: str) -> Note:
    """What the lease says now."""
    store, uri = store_of(scheme_of(zone)), f"{zone}/{LEASE}"
    return Note.decode(store.read(uri, "", 0, 4096))


# ------------------------------------------------------------------------------------------------- other processes


def hold(env: dict[str, str], zone: str, talk: Connection, seconds: int, skew: float, run: str) -> None:
    """Another command: takes the lease, works until it is told to commit, and says what came of it.

    Args:
      skew: how far the clock of its machine is off, which it doesn't know.
    """
    os.environ.update(env)
    try:
        with leased(zone, seconds, lambda: time.monotonic() + skew) as lease:
            lease.name(run)
            talk.send("holds")
            talk.recv()
            lease.confirm()
            store_of(scheme_of(zone)).create(f"{zone}/runs/{run}.json", [json.dumps(lease.told).encode()])
        talk.send("committed")
    except (LeaseHeld, LeaseLost) as refused:
        talk.send(f"{type(refused).__name__}: {refused}")


class Command:
    """One of those."""

    def __init__(self, server: emulators.Emulator, zone: str, run: str, seconds: int = SHORT, skew: float = 0) -> None:
        self.talk, other = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=hold, args=(server.env, zone, other, seconds, skew, run), daemon=True)
        self.process.start()

    def said(self) -> str:
        assert self.talk.poll(30)
        return str(self.talk.recv())

    def commit(self) -> str:
        self.talk.send("commit")
        return self.said()

    def kill(self, number: int) -> None:
        assert self.process.pid
        os.kill(self.process.pid, number)


@pytest.fixture
def start(server: emulators.Emulator, zone: str) -> Iterator[Any]:
    started: list[Command] = []

    def begin(run: str, **how: Any) -> Command:
        started.append(Command(server, zone, run, **how))
        return started[-1]

    yield begin
    for it in started:
        it.process.kill()
        it.process.join()


def committed(zone: str) -> list[str]:
    return [found.uri.rpartition("/")[2] for found in store_of(scheme_of(zone)).list(f"{zone}/runs/")]


# ------------------------------------------------------------------------------------------------------ one at a time


def test_of_several_that_race_one_wins(start: Any, zone: str) -> None:
    """Whoever comes at the same moment, one run is at work; the others are told whose it is, and by when it ends."""
    racing = [start(f"run-{number}") for number in range(3)]
    said = [it.said() for it in racing]
    assert sorted(word.partition(":")[0] for word in said) == ["LeaseHeld", "LeaseHeld", "holds"]
    winner = said.index("holds")
    late = start("late").said()
    assert f"at work in --restricted: run-{winner}, since 2" in late
    assert "runs out at 2" in late
    assert racing[winner].commit() == "committed"
    assert committed(zone) == [f"run-{winner}.json"]


def test_what_was_let_go_is_free_at_once(start: Any, zone: str) -> None:
    """One night's run after the other."""
    for run in ("first", "second"):
        it = start(run, seconds=600)
        assert it.said() == "holds"
        assert it.commit() == "committed"
    assert note(zone).holder == ""


@pytest.mark.long
def test_a_lease_is_renewed_while_its_run_is_at_work(start: Any) -> None:
    """A run may take longer than its lease lasts."""
    slow = start("slow")
    assert slow.said() == "holds"
    time.sleep(2.5 * SHORT + 2)
    assert start("other").said().startswith("LeaseHeld")
    assert slow.commit() == "committed"


# -------------------------------------------------------------------------------------------------- death and absence


def test_a_dead_runs_lease_runs_out(start: Any, zone: str) -> None:
    """Nobody has to clear away what a killed run held."""
    dead = start("dead")
    assert dead.said() == "holds"
    dead.kill(signal.SIGKILL)
    assert start("early").said().startswith("LeaseHeld")
    heir = taken_after(start, "heir")
    assert heir.commit() == "committed"
    assert committed(zone) == ["heir.json"]


def test_who_was_paused_cannot_commit_what_another_took_over(start: Any, zone: str) -> None:
    """A machine that sleeps through its lease wakes up as one that has lost it."""
    paused = start("paused")
    assert paused.said() == "holds"
    paused.kill(signal.SIGSTOP)
    heir = taken_after(start, "heir")
    paused.talk.send("commit")
    paused.kill(signal.SIGCONT)
    assert paused.said().startswith("LeaseLost")
    assert heir.commit() == "committed"
    assert committed(zone) == ["heir.json"]


@pytest.mark.long
def test_who_was_paused_goes_on_where_nobody_came(start: Any, zone: str) -> None:
    """A lease that ran out and that nobody wanted is still its holder's."""
    paused = start("paused")
    assert paused.said() == "holds"
    paused.kill(signal.SIGSTOP)
    time.sleep(2 * SHORT)
    paused.kill(signal.SIGCONT)
    assert paused.commit() == "committed"


@pytest.mark.long
@pytest.mark.parametrize("skew", [-86400.0, 86400.0])
def test_the_time_of_a_machine_does_not_matter(start: Any, skew: float) -> None:
    """A clock that is a day off neither takes what is held, nor waits for what has run out."""
    dead = start("dead", skew=-skew)
    assert dead.said() == "holds"
    assert start("early", skew=skew).said().startswith("LeaseHeld")
    dead.kill(signal.SIGKILL)
    taken_after(start, "heir", skew=skew)


def taken_after(start: Any, run: str, **how: Any) -> Command:
    """A command that holds the lease once it has run out; begun anew, as a scheduler does, until it does."""
    patience = time.monotonic() + 30
    while True:
        it: Command = start(run, **how)
        if (said := it.said()) == "holds":
            return it
        assert said.startswith("LeaseHeld") and time.monotonic() < patience
        time.sleep(0.5)


# ---------------------------------------------------------------------------------------------------- in this process


def test_a_run_is_interrupted_when_its_lease_is_lost(zone: str) -> None:
    """It stops where it is, and needn't come to its end to hear of it."""
    with pytest.raises(LeaseLost):
        with leased(zone, 1):
            store_of(scheme_of(zone)).create(f"{zone}/{LEASE}", [Note("somebody", seconds=60).encode()])
            time.sleep(20)
    assert note(zone).holder == "somebody"


def test_what_fails_in_anothers_hands_is_told_as_the_loss(zone: str) -> None:
    """Waking up, a run may stumble over what its heir did before it hears of the heir; that isn't the user's mistake."""
    asleep = 0.0
    with pytest.raises(LeaseLost):
        with leased(zone, 60, lambda: asleep):
            store_of(scheme_of(zone)).create(f"{zone}/{LEASE}", [Note("somebody", seconds=60).encode()])
            asleep = 61
            raise DicomveilError("A folder is gone.")


def test_a_failure_of_its_own_stays_one(zone: str) -> None:
    """However long it slept, as long as nobody came."""
    asleep = 0.0
    with pytest.raises(DicomveilError, match="A folder is gone"):
        with leased(zone, 60, lambda: asleep):
            asleep = 61
            raise DicomveilError("A folder is gone.")


def test_beside_the_main_thread_it_is_heard_at_the_commit(zone: str) -> None:
    """Where nothing can be interrupted, nothing is committed all the same."""
    heard: list[str] = []

    def work() -> None:
        with contextlib.suppress(LeaseLost), leased(zone, 1) as lease:
            store_of(scheme_of(zone)).create(f"{zone}/{LEASE}", [Note("somebody", seconds=60).encode()])
            time.sleep(1)
            try:
                lease.confirm()
            except LeaseLost:
                heard.append("lost")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == ["lost"]


def test_an_answer_that_was_lost_costs_no_lease(zone: str) -> None:
    """What a store did and didn't tell of is found again: it says who did it."""
    lease = Lease(zone)
    lease.take()
    store_of(scheme_of(zone)).create(f"{zone}/{LEASE}", [Note(note(zone).holder, renewed=99).encode()])
    lease.confirm()
    again = Lease(zone)
    again._note = lease._note  # the same command, whose first request was answered by nothing
    again.take()
    again.confirm()


def test_a_manifest_tells_its_lease(zone: str) -> None:
    """Who it was, and the version that held."""
    with leased(zone) as lease:
        lease.confirm()
        stored, _ = store_of(scheme_of(zone)).head(f"{zone}/{LEASE}")
        assert lease.told == {"holder": note(zone).holder, "version": stored.version}


def test_what_is_no_lease_is_somebodys(zone: str) -> None:
    """An object that can't be read as a lease isn't taken as none."""
    for content in (b"", b"{}", b"[1]", b'{"holder": 3}', b'{"holder": "x", "seconds": "y"}'):
        store_of(scheme_of(zone)).create(f"{zone}/{LEASE}", [content])
        with pytest.raises(LeaseHeld):
            Lease(zone).take()


def test_nothing_else_is_left(zone: str) -> None:
    """The lease, the clock, and nothing that grows."""
    for _ in range(3):
        with leased(zone), contextlib.suppress(LeaseHeld):
            Lease(zone).take()
    names = [found.uri.rpartition("/")[2] for found in store_of(scheme_of(zone)).list(f"{zone}/")]
    assert names == [LEASE, CLOCK]

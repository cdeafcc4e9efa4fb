"""A lease on a restricted zone in object storage: one run is at work there at a time. A folder is locked instead.

It is one object, which its holder replaces again and again, each time on the condition that it is the one that this
holder wrote last. So it is never in two hands, however long anybody sleeps. Whether it has run out is told by the
store's clock alone: its age is reckoned from when it was written to when a write of our own was.
"""

import contextlib
import datetime
import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Final

from dicomveil.errors import DicomveilError
from transforms.object_stores import (
    ABSENT,
    NotAllowed,
    NotThere,
    ObjectStore,
    OtherVersion,
    Stored,
    Unavailable,
    scheme_of,
    store_of,
)

SECONDS: Final = 60
"""How long a lease lasts that isn't renewed, if LASTING doesn't say otherwise; it is three times in that span."""
LASTING: Final = "DICOMVEIL_LEASE_SECONDS"
LEASE: Final = "lease"
CLOCK: Final = "lease-clock"
_COARSE: Final = 2.0  # stores tell whole seconds
_LARGEST: Final = 4096
_TRIES: Final = 3


class LeaseHeld(DicomveilError):
    """Another run holds the zone; says which, since when, and when its lease runs out."""


class LeaseLost(DicomveilError):
    """Another run has taken the zone over, or may have: nothing more of this one counts."""

    def __init__(self) -> None:
        super().__init__(
            "Another run has taken over --restricted, since this one couldn't renew its lease in time: it was paused, "
            "or cut off from the store. Nothing was committed. Run the same command again when the other one has ended."
        )


@dataclass(frozen=True)
class Note:
    """What a lease says of its holder; nothing in it is an original.

    Attributes:
      holder: drawn anew by each command; "" where nobody holds it any more.
      run: its run, as soon as it has one.
      since: when it took the lease, by the store's clock.
      seconds: how long it lasts unless it is renewed.
      renewed: how often it was, so that no two writes are alike: an ETag may stand for the content alone.
    """

    holder: str
    run: str = ""
    since: str = ""
    seconds: int = SECONDS
    renewed: int = 0

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> "Note":
        """What was written; somebody unknown's, where it is nothing of the kind."""
        try:
            note = cls(**json.loads(data))
            return note if isinstance(note.holder, str) and note.seconds >= 0 else cls("unknown")
        except (ValueError, TypeError):
            return cls("unknown")


class Lease:
    """One command's hold on a zone. Renewed by a thread, asked by the run.

    Args:
      root: the zone's URI.
      clock: seconds that go on while the process sleeps; only spans of it count, never the time of day.
    """

    def __init__(self, root: str, seconds: int = SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._store: ObjectStore = store_of(scheme_of(root))
        self._uri, self._clock_uri = (f"{root.rstrip('/')}/{name}" for name in (LEASE, CLOCK))
        self._note = Note(secrets.token_hex(8), seconds=seconds)
        self._clock, self._until = clock, 0.0
        self._version = ABSENT
        self._mutex = threading.Lock()
        self.lost = False

    @property
    def told(self) -> dict[str, str]:
        """What a manifest says of the lease under which it was committed."""
        return {"holder": self._note.holder, "version": self._version}

    # --------------------------------------------------------------------------------------------------- taking it

    def take(self) -> None:
        """Take the lease where it is free, or has run out.

        Raises:
          LeaseHeld: it is neither.
          NotThere, NotAllowed, Unavailable: the store can't be used.
        """
        for _ in range(_TRIES):
            if self._created():
                break
            there, note = self._look()
            if note.holder == self._note.holder:
                self._version = there.version  # we had it, and weren't told
                break
            if note.holder and not self._ran_out(there, note):
                raise LeaseHeld(_who(there, note))
            with contextlib.suppress(OtherVersion):
                self._write(there.version)
                break
        else:
            raise LeaseHeld("Other runs are just taking --restricted: wait for them, or choose another.")
        self._since()

    def _created(self) -> bool:
        try:
            self._write(ABSENT)
        except OtherVersion:
            return False
        return True

    def _since(self) -> None:
        there, _ = self._store.head(self._uri)
        self._change(since=_text(there.modified))

    def _ran_out(self, there: Stored, note: Note) -> bool:
        """Whether a lease is older than it lasts, both ends told by the store."""
        self._store.create(self._clock_uri, [b""])
        now, _ = self._store.head(self._clock_uri)
        if now.modified is None or there.modified is None:
            return False
        return (now.modified - there.modified).total_seconds() > note.seconds + _COARSE

    def _look(self) -> tuple[Stored, Note]:
        """The lease as it is, whoever holds it; nobody's where it went meanwhile."""
        for _ in range(_TRIES):
            try:
                there, _ = self._store.head(self._uri)
                return there, Note.decode(self._store.read(self._uri, there.version, 0, _LARGEST))
            except OtherVersion:
                continue
            except NotThere:
                return Stored(self._uri, 0, ABSENT), Note("")
        raise LeaseHeld("Another run is just renewing its lease on --restricted: wait for it, or choose another.")

    # -------------------------------------------------------------------------------------------------- keeping it

    def confirm(self) -> None:
        """Renew it now: until so many seconds after this began, nobody else can have it.

        Raises:
          LeaseLost: somebody else has it, or may have.
        """
        with self._mutex:
            if not self.lost:
                try:
                    self._renew()
                except (NotThere, NotAllowed, Unavailable):
                    self.lost = self._clock() > self._until
            if self.lost:
                raise LeaseLost

    def settle(self) -> None:
        """Find out whether a failure means anything: what goes wrong behind another's back is that other's doing.

        Raises:
          LeaseLost: as above, and this says it in the failure's stead.
        """
        if self.lost or self._clock() > self._until:
            self.confirm()

    def name(self, run: str) -> None:
        """Tell which run holds it."""
        with self._mutex:
            self._change(run=run)
        self.confirm()

    def release(self) -> None:
        """Let go of it, so that the next run needn't wait; where that fails, it runs out."""
        with self._mutex, contextlib.suppress(NotThere, OtherVersion, NotAllowed, Unavailable):
            if not self.lost:
                self.lost = True
                self._store.create(self._uri, [Note("", self._note.run).encode()], version=self._version)

    def _renew(self) -> None:
        """One renewal, or two: an answer that was lost on its way leaves a version that we didn't know of."""
        try:
            self._write(self._version)
        except OtherVersion:
            there, note = self._look()
            if note.holder != self._note.holder:
                self.lost = True
                return
            self._version = there.version
            try:
                self._write(self._version)
            except OtherVersion:
                self.lost = True

    def _write(self, version: str) -> None:
        begun = self._clock()
        self._change(renewed=self._note.renewed + 1)
        self._version = self._store.create(self._uri, [self._note.encode()], version=version)
        self._until = begun + self._note.seconds

    def _change(self, **changes: str | int) -> None:
        self._note = Note(**{**asdict(self._note), **changes})


def lasting() -> int:
    """How long a lease of this command lasts, in seconds."""
    text = os.environ.get(LASTING, "")
    return int(text) if text.isdecimal() and int(text) else SECONDS


@contextmanager
def leased(root: str, seconds: int = 0, clock: Callable[[], float] = time.monotonic) -> Iterator[Lease]:
    """Hold a zone for this command alone, and renew the lease while it is at work.

    When it is lost, what goes on in the main thread is interrupted.

    Args:
      seconds: how long it lasts unless it is renewed; 0 for what the environment says.

    Raises:
      LeaseHeld: another run has it.
      LeaseLost: on leaving, where it was lost on the way.
      NotThere, NotAllowed, Unavailable: the store can't be used.
    """
    seconds = seconds or lasting()
    lease = Lease(root, seconds, clock)
    lease.take()
    ended = threading.Event()
    with _interrupted() as interrupt:
        keeper = threading.Thread(target=_keep, args=(lease, seconds / 3, ended, interrupt), daemon=True)
        keeper.start()
        try:
            try:
                yield lease
            finally:  # nobody interrupts what is settled below
                ended.set()
                keeper.join()
        except (Exception, KeyboardInterrupt):
            lease.settle()
            raise
        finally:
            lease.release()


def _keep(lease: Lease, every: float, ended: threading.Event, interrupt: Callable[[], None]) -> None:
    while not ended.wait(every):
        try:
            lease.confirm()
        except LeaseLost:
            if not ended.is_set():
                interrupt()
            return


@contextmanager
def _interrupted() -> Iterator[Callable[[], None]]:
    """A way to interrupt what goes on here; of no effect beside the main thread, where no signal is handled."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    thread = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, _interrupt)
    try:
        yield lambda: signal.pthread_kill(thread, signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _who(there: Stored, note: Note) -> str:
    run = f": {note.run}" if note.run else ""
    since = f", since {note.since}" if note.since else ""
    out = ""
    if there.modified:
        ends = there.modified + datetime.timedelta(seconds=note.seconds)
        out = f" Its lease runs out at {_text(ends)} by the store's clock, unless it renews it."
    return (
        f"Another run is at work in --restricted{run}{since}.{out} Wait for it, or choose another. If it died, the "
        "same command goes on once its lease has run out."
    )


def _text(moment: datetime.datetime | None) -> str:
    return moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else ""

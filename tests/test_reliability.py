"""Every fault on every verb of each store, as docs/reliability.md tells it; run as a script it writes that."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from dicomveil.errors import DicomveilError  # noqa: E402
from tests import emulators  # noqa: E402
from tests.emulators import AZURITE, NO_AZURITE, Emulator  # noqa: E402
from tests.faults import ALWAYS, FAULTS, Proxy, Request, proxy  # noqa: E402
from transforms.object_stores import ABSENT, NotThere, ObjectStore, Stored  # noqa: E402
from transforms.patience import PART  # noqa: E402

DOCUMENT = ROOT / "docs" / "reliability.md"
SERVERS = {"gs": "fake-gcs-server", "s3": "moto", "az": "azurite"}
STALL, SILENCE, TRIES = 1.8, 1.5, 3
UNTIL_BACK = 8  # tries, where somebody comes back in a while

OLD = b"the older one" * 20
SMALL = random.Random(1).randbytes(4000)
LARGE = random.Random(2).randbytes(PART + 1000)

ASKING, SENDING, DELETING = ("GET", "HEAD"), ("PUT", "POST"), ("DELETE", "POST")


class Wrong(AssertionError):
    """What may never be, whatever happens on the way."""


class Trial:
    """One verb on a bucket of its own: prepared at the server, tried through the proxy, judged at the server again."""

    def __init__(self, through: ObjectStore, straight: ObjectStore, server: Emulator, verb: str) -> None:
        self.through, self.straight, self.server, self.verb = through, straight, server, verb
        self.root = server.bucket()
        self.uri = f"{self.root}/o"
        self.data = LARGE if "large" in verb else SMALL
        self.before = b"" if verb.startswith("create") else OLD if verb.startswith("replace") else SMALL
        self.version = straight.create(self.uri, [self.before]) if self.before else ABSENT
        self.answer: object = None

    @property
    def methods(self) -> tuple[str, ...]:
        if self.verb == "delete":
            return DELETING
        return SENDING if self.verb.startswith(("create", "replace")) else ASKING

    def suits(self, request: Request) -> bool:
        """Whether a request is one that carries the verb out; not what is asked in case that it fails."""
        return request.method in self.methods and ("last" not in self.verb or completes(request))

    def run(self) -> None:
        self.answer = VERBS[self.verb](self)

    def now(self) -> bytes | None:
        """What everybody sees."""
        try:
            return self.straight.read(self.uri, "", 0, 1 << 26)
        except NotThere:
            return None

    def left(self) -> bool:
        """Whether parts are kept of what will never be complete."""
        return bool(self.server.uploads and self.server.uploads(self.root.partition("://")[2]))

    def judge(self, done: bool) -> str:
        """What became of it, in a word.

        Raises:
          Wrong: part of an object is visible, or an answer isn't true.
        """
        now = self.now()
        if self.methods == ASKING:
            if now != self.before:
                raise Wrong(f"{self.verb}: an object changed that was only looked at")
            if done and not self._true():
                return "**damaged, unnoticed**"
            return "done" if done else ""
        wanted = None if self.verb == "delete" else self.data
        if now not in (wanted, self.before or None):
            if done:
                return "**damaged, unnoticed**"
            raise Wrong(f"{self.verb}: what is visible is neither what was there nor what was to be")
        if done and now != wanted:
            raise Wrong(f"{self.verb}: done, it says, and it isn't")
        if done and wanted and self.straight.head(self.uri)[0].version != self.answer:
            raise Wrong(f"{self.verb}: it tells another version than there is")
        return "done" if done else "" if now != wanted else "but it is there" if wanted else "but it is gone"

    def _true(self) -> bool:
        stored = Stored(self.uri, len(self.before), self.version)
        if self.verb == "read":
            return self.answer == self.before
        assert isinstance(self.answer, list)
        return [found[:3] for found in self.answer] == [stored[:3]]


def completes(request: Request) -> bool:
    """Whether it is the last of a large object, by which it becomes visible."""
    span = request.headers.get("content-range", "/*")
    return (
        not span.endswith("/*")
        or "comp=blocklist" in request.path
        or (request.method == "POST" and "uploadId=" in request.path)
    )


VERBS: dict[str, Callable[[Trial], object]] = {
    "list": lambda trial: list(trial.through.list(trial.root + "/")),
    "level": lambda trial: list(trial.through.level(trial.root + "/")),
    "head": lambda trial: [trial.through.head(trial.uri)[0]],
    "read": lambda trial: trial.through.read(trial.uri, trial.version, 0, 1 << 16),
    "create, small": lambda trial: trial.through.create(trial.uri, [trial.data], version=ABSENT),
    "create, large": lambda trial: trial.through.create(trial.uri, [trial.data], version=ABSENT),
    "create, large, last request": lambda trial: trial.through.create(trial.uri, [trial.data], version=ABSENT),
    "replace, small": lambda trial: trial.through.create(trial.uri, [trial.data], version=trial.version),
    "replace, large": lambda trial: trial.through.create(trial.uri, [trial.data]),
    "delete": lambda trial: trial.through.delete(trial.uri, trial.version),
}
NOT_DAMAGED = ("list", "level", "head", "delete", "create, large, last request")


def cell(server: Emulator, between: Proxy, fault: str, verb: str) -> str:
    """What becomes of a verb under a fault: once, and then as long as it is asked.

    Raises:
      Wrong: what may never be.
    """
    if fault == "damaged" and verb in NOT_DAMAGED:
        return "–"
    tries = UNTIL_BACK if fault == "refused" else TRIES
    with server.store() as straight, server.store(between.url, tries=tries, silence=SILENCE) as through:
        once, ever = (tried(Trial(through, straight, server, verb), between, fault, times) for times in (1, ALWAYS))
    return once if once == ever else f"{once}; {ever}"


def tried(trial: Trial, between: Proxy, fault: str, times: int) -> str:
    between.inject(fault, times, trial.suits)
    between.stall = STALL
    try:
        trial.run()
        failure = ""
    except DicomveilError as failed:
        failure = type(failed).__name__
    finally:
        hurt = between.hurt
        between.heal()
    if not hurt:
        raise Wrong(f"{trial.verb}: nothing was done to any request")
    said = [failure, trial.judge(not failure), "an upload is left" if trial.left() else ""]
    return ", ".join(filter(None, said))


def lines(scheme: str, rows: dict[str, list[str]]) -> Iterator[str]:
    yield f"\n## {scheme}://, against {SERVERS[scheme]}\n"
    yield f"| verb | {' | '.join(FAULTS)} |"
    yield "|" + " --- |" * (len(FAULTS) + 1)
    for verb, cells in rows.items():
        yield f"| {verb} | {' | '.join(cells)} |"


def documented(scheme: str) -> dict[tuple[str, str], str]:
    """The cells of a store's table, by verb and fault."""
    text = DOCUMENT.read_text("utf-8").split(f"\n## {scheme}://")[1].split("\n## ")[0]
    rows = [[part.strip() for part in line.strip("|").split(" | ")] for line in text.splitlines() if line[:2] == "| "]
    return {(row[0], fault): told for row in rows[2:] for fault, told in zip(FAULTS, row[1:], strict=True)}


@contextmanager
def served(scheme: str) -> Iterator[Emulator]:
    with emulators.SERVERS[SERVERS[scheme]]() as server:
        yield server


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scheme", SERVERS)
def test_faults_end_as_documented(scheme: str, fault: str, request: pytest.FixtureRequest) -> None:
    """What passes is outlasted, what lasts is told; and whatever happens no part of an object is ever visible."""
    fixture = {"gs": "fake_gcs", "s3": "moto", "az": "azurite"}[scheme]
    server: Emulator = request.getfixturevalue(fixture)
    with proxy(server.url) as between:
        found = {(verb, fault): cell(server, between, fault, verb) for verb in VERBS}
    assert found == {key: told for key, told in documented(scheme).items() if key[1] == fault}


def test_a_passing_fault_does_no_harm(fake_gcs: Emulator) -> None:
    """The same for one fault, so that it is tried in every run: an object is created although an answer was lost."""
    with proxy(fake_gcs.url) as between:
        assert (
            cell(fake_gcs, between, "reset answering", "create, small")
            == documented("gs")["create, small", "reset answering"]
        )


def test_conditions_go_with_the_requests(fake_gcs: Emulator) -> None:
    """What the emulator doesn't judge is asked of it all the same: conditions of large objects and of deletions."""
    with proxy(fake_gcs.url) as between, fake_gcs.store(between.url) as store:
        uri = f"{fake_gcs.bucket()}/o"
        version = store.create(uri, [LARGE], version=ABSENT)
        assert "ifGenerationMatch=0" in sent(between, "POST")
        store.create(uri, [LARGE], version=version, encryption_key="projects/p/locations/l/keyRings/r/cryptoKeys/k")
        assert f"ifGenerationMatch={version}" in sent(between, "POST") and "kmsKeyName=projects" in sent(
            between, "POST"
        )
        store.delete(uri, "17")
        assert "ifGenerationMatch=17" in sent(between, "DELETE")


def test_a_session_is_cancelled(fake_gcs: Emulator) -> None:
    """Where the source of a large object fails its upload's session is ended."""

    def chunks() -> Iterator[bytes]:
        yield LARGE
        raise RuntimeError

    with proxy(fake_gcs.url) as between, fake_gcs.store(between.url) as store:
        with pytest.raises(RuntimeError):
            store.create(f"{fake_gcs.bucket()}/o", chunks())
        assert "upload_id=" in sent(between, "DELETE")


def test_a_read_is_one_request(fake_gcs: Emulator, moto: Emulator) -> None:
    """A range, a listing, a look and a small creation cost one request each, with whatever client they are made."""
    for server in fake_gcs, moto:
        with proxy(server.url) as between, server.store(between.url) as store:
            root = server.bucket()
            version = store.create(f"{root}/o", [SMALL])
            store.read(f"{root}/o", version, 10, 20)
            store.head(f"{root}/o")
            list(store.list(root + "/"))
            assert [request.method for request in between.seen][1:] in (["GET", "GET", "GET"], ["GET", "HEAD", "GET"])
            assert between.seen[1].headers["range"] == "bytes=10-29"


def sent(between: Proxy, method: str) -> str:
    return [request.path for request in between.seen if request.method == method][-1]


def main() -> None:
    """Write the tables anew, below what stands above them."""
    told = DOCUMENT.read_text("utf-8").split("\n## gs://")[0]
    for scheme in SERVERS:
        with served(scheme) as server, proxy(server.url) as between:
            rows = {verb: [cell(server, between, fault, verb) for fault in FAULTS] for verb in VERBS}
        told += "\n".join(lines(scheme, rows)) + "\n"
    DOCUMENT.write_text(told, "utf-8")


if __name__ == "__main__":
    assert AZURITE, NO_AZURITE
    main()

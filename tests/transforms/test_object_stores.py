"""The verbs of object storage: one set of tests, and every implementation passes it against each server there is."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from dicomveil.errors import DicomveilError
from tests.emulators import Emulator
from transforms import object_stores
from transforms.object_stores import (
    ABSENT,
    NotAllowed,
    NotRestored,
    NotThere,
    ObjectStore,
    OtherVersion,
    Stored,
    Unavailable,
    name_in_bucket,
    scheme_of,
)
from transforms.patience import PART, Patience, parts

MIB = 1 << 20
NAMES = [
    "plain",
    "a b/c d.dcm",
    "ü/日本/🩻.dcm",
    "100%41",
    "#1",
    "is?it=a&b",
    "a+b",
    "x/.y",
    "~(';:@,!$*)",
    "-",
    "CAPITAL",
]


class Bucket(NamedTuple):
    """A store, an empty bucket in it, and the server behind both."""

    store: ObjectStore
    root: str
    server: Emulator

    def uri(self, name: str) -> str:
        return f"{self.root}/{name}"

    def put(self, name: str, data: bytes = b"data", version: str | None = None) -> str:
        return self.store.create(self.uri(name), [data], version=version)

    def get(self, name: str, version: str = "") -> bytes:
        return self.store.read(self.uri(name), version, 0, 1 << 26)

    def names(self, prefix: str = "") -> list[str]:
        return [name_in_bucket(found.uri) for found in self.store.list(self.uri(prefix))]

    def uploads(self) -> list[str]:
        return self.server.uploads(self.root.partition("://")[2]) if self.server.uploads else []

    def send(self, name: str, data: bytes) -> None:
        """Put an object as somebody else would."""
        self.server.sends(self.root.partition("://")[2], name, data)


@pytest.fixture(params=["fake_gcs", "gcs_in_python", "moto", "azurite"])
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    server: Emulator = request.getfixturevalue(request.param)
    with server.store() as store:
        yield Bucket(store, server.bucket(), server)


def must_judge(bucket: Bucket, request: str) -> None:
    if request not in bucket.server.judges:
        pytest.skip("this server doesn't judge conditions there, unlike the real one")


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, 70_000, PART, PART + 1, 20 * MIB], ids=str)
def test_what_is_created_is_read_back(bucket: Bucket, size: int) -> None:
    """An object of any size comes back as it was, in one request or in parts, and nothing else is left behind."""
    data = noise(size)
    chunks = (data[at : at + 300_000] for at in range(0, size, 300_000))
    version = bucket.store.create(bucket.uri("o"), chunks)
    (found,) = bucket.store.list(bucket.root + "/")
    assert (found.uri, found.size, found.version) == (bucket.uri("o"), size, version)
    assert bucket.get("o", version) == data
    assert bucket.store.read(bucket.uri("o"), version, 5, 10) == data[5:15]
    assert bucket.store.read(bucket.uri("o"), version, size - 1, 10) == data[-1:] if size else True
    assert bucket.store.read(bucket.uri("o"), version, size, 10) == b""
    assert bucket.uploads() == []


def test_any_name_is_kept(bucket: Bucket) -> None:
    """Blanks, other scripts, percent and question marks are part of a name, as it is."""
    for name in NAMES:
        bucket.put(name, name.encode())
    assert sorted(bucket.names()) == sorted(NAMES)
    for name in NAMES:
        stored, _ = bucket.store.head(bucket.uri(name))
        assert stored.uri == bucket.uri(name)
        assert bucket.get(name, stored.version) == name.encode()
        assert bucket.names(name) == [name]
        bucket.store.delete(bucket.uri(name), stored.version)
    assert bucket.names() == []


def test_what_others_put_is_read_as_it_is(bucket: Bucket) -> None:
    """An object that came by other means than ours is listed and read alike."""
    for name in NAMES:
        bucket.send(name, name.encode())
    for found in bucket.store.list(bucket.root + "/"):
        name = name_in_bucket(found.uri)
        assert bucket.get(name, found.version) == name.encode()


def test_metadata_comes_back(bucket: Bucket) -> None:
    """What an object is created with is told by a look at it, without what the store adds."""
    tokens = {"source": "0" * 64, "request": "aZ-_=09"}
    for name, data in ("small", b""), ("large", noise(PART + 1)):
        bucket.store.create(bucket.uri(name), [data], tokens)
        stored, metadata = bucket.store.head(bucket.uri(name))
        assert dict(metadata) == tokens
        assert stored.size == len(data) and stored.modified is not None and stored.modified.tzinfo is not None
    bucket.put("bare")
    assert dict(bucket.store.head(bucket.uri("bare"))[1]) == {}


@pytest.mark.parametrize("size", [10, PART + 10], ids=["small", "large"])
def test_nothing_is_created_where_something_is(bucket: Bucket, size: int) -> None:
    """What must not be there yet is created once; the second comes too late, and changes nothing."""
    must_judge(bucket, "small" if size < PART else "large")
    first, other = noise(size), bytes(size)
    version = bucket.put("o", first, ABSENT)
    with pytest.raises(OtherVersion):
        bucket.put("o", other, ABSENT)
    assert bucket.get("o", version) == first and bucket.uploads() == []


@pytest.mark.parametrize("size", [10, PART + 10], ids=["small", "large"])
def test_only_the_named_version_is_replaced(bucket: Bucket, size: int) -> None:
    """Who has seen an older version may not replace the one that came after it."""
    must_judge(bucket, "small" if size < PART else "large")
    first = bucket.put("o", b"first")
    second = bucket.put("o", noise(size), first)
    assert second != first
    with pytest.raises(OtherVersion):
        bucket.put("o", bytes(size), first)
    assert bucket.get("o", second) == noise(size)
    bucket.store.delete(bucket.uri("o"))
    with pytest.raises(NotThere):
        bucket.put("o", bytes(size), second)
    assert bucket.names() == [] and bucket.uploads() == []


def test_whatever_is_there_is_replaced(bucket: Bucket) -> None:
    """Without a condition the last one stays."""
    for data in b"1", b"22", noise(PART + 3), b"4444":
        version = bucket.put("o", data)
        assert bucket.get("o", version) == data


def test_one_of_many_wins(bucket: Bucket) -> None:
    """Of any number that create one object at once, exactly one is told that it did, and its bytes stay."""
    must_judge(bucket, "small")

    def attempt(number: int) -> str:
        try:
            return bucket.put("lease", b"%d" % number, ABSENT)
        except OtherVersion:
            return ""

    with ThreadPoolExecutor(8) as threads:
        versions = list(threads.map(attempt, range(8)))
    winners = [number for number, version in enumerate(versions) if version]
    assert len(winners) == 1
    assert bucket.get("lease", versions[winners[0]]) == b"%d" % winners[0]


def test_another_version_is_never_read(bucket: Bucket) -> None:
    """Who asks for the version that was listed gets no byte of the one that replaced it."""
    must_judge(bucket, "read")
    first = bucket.put("o", b"first")
    second = bucket.put("o", b"second")
    with pytest.raises(OtherVersion):
        bucket.store.read(bucket.uri("o"), first, 1, 3)
    assert bucket.store.read(bucket.uri("o"), second, 1, 3) == b"eco"
    bucket.store.delete(bucket.uri("o"))
    with pytest.raises(NotThere):
        bucket.get("o", second)


def test_only_the_named_version_is_deleted(bucket: Bucket) -> None:
    """What replaced the version that was read stays."""
    must_judge(bucket, "delete")
    first = bucket.put("o", b"first")
    second = bucket.put("o", b"second")
    with pytest.raises(OtherVersion):
        bucket.store.delete(bucket.uri("o"), first)
    assert bucket.get("o", second) == b"second"
    bucket.store.delete(bucket.uri("o"), second)
    bucket.store.delete(bucket.uri("o"), second)
    bucket.store.delete(bucket.uri("never"))
    assert bucket.names() == []


def test_a_listing_is_a_stream_by_prefix(bucket: Bucket) -> None:
    """More than a page is listed in order, each object once, by any prefix, whether or not it ends a folder's name."""
    names = [f"{number % 2}/{number:05}" for number in range(1100 if bucket.server.judges else 100)] + [
        "0x",
        "00",
        "1.",
        "10/a",
    ]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(bucket.put, names))
    names.sort()
    assert bucket.names() == names
    for prefix in "0/", "0", "1/0000", "1/00", "0/00002", "1.", "2":
        assert bucket.names(prefix) == [name for name in names if name.startswith(prefix)]
    listing = bucket.store.list(bucket.root + "/")
    assert name_in_bucket(next(listing).uri) == names[0]


def test_a_level_is_listed_without_what_is_below(bucket: Bucket) -> None:
    """Folders are told by name, so that they can be listed side by side."""
    for name in "a", "b/1", "b/2", "b/c/3", "bb", "d e/f/g", "d e/h":
        bucket.put(name)

    def level(prefix: str) -> list[str]:
        found = bucket.store.level(bucket.uri(prefix))
        return sorted(name_in_bucket(one.uri if isinstance(one, Stored) else one) for one in found)

    assert level("") == ["a", "b/", "bb", "d e/"]
    assert level("b/") == ["b/1", "b/2", "b/c/"]
    assert level("b") == ["b/", "bb"]
    assert level("d e/") == ["d e/f/", "d e/h"]
    assert level("x") == []


@pytest.mark.parametrize("failure", [FileNotFoundError, OtherVersion])
@pytest.mark.parametrize("size", [100, PART + 100, 3 * PART], ids=["small", "large", "larger"])
def test_what_can_not_be_read_is_not_written(bucket: Bucket, size: int, failure: type[Exception]) -> None:
    """Where the source fails halfway its failure passes through, and the store holds no part of the object."""

    def chunks() -> Iterator[bytes]:
        yield noise(size)
        raise failure("mine")

    with pytest.raises(failure, match="mine"):
        bucket.store.create(bucket.uri("o"), chunks(), version=ABSENT)
    assert bucket.names() == [] and bucket.uploads() == []


def test_an_object_is_made_of_another(bucket: Bucket) -> None:
    """A large object streams from the store into itself, each part read while others are written."""
    data = noise(3 * PART)
    version = bucket.put("from", data)
    chunks = (bucket.store.read(bucket.uri("from"), version, at, MIB) for at in range(0, len(data), MIB))
    assert bucket.get("to", bucket.store.create(bucket.uri("to"), chunks)) == data


@pytest.mark.parametrize("gone", ["object", "bucket"])
def test_what_is_not_there_is_told_so(bucket: Bucket, gone: str) -> None:
    """Neither a missing object nor a missing bucket is an empty one, nor a failure of the store."""
    uri = bucket.uri("o") if gone == "object" else f"{bucket.root}gone/o"
    asked: list[Callable[[], object]] = [lambda: bucket.store.head(uri), lambda: bucket.store.read(uri, "", 0, 10)]
    if gone == "bucket":
        asked += [
            lambda: list(bucket.store.list(uri)),
            lambda: list(bucket.store.level(uri)),
            lambda: bucket.store.create(uri, [b"data"]),
            lambda: bucket.store.create(uri, [noise(PART + 1)]),
        ]
    for ask in asked:
        with pytest.raises(NotThere):
            ask()


def test_a_failure_names_nothing(bucket: Bucket) -> None:
    """What is told of a failure holds neither bucket nor object, nor what the library said."""
    bucket.put("o")
    secret = bucket.uri("patient-42")
    for ask in (
        lambda: bucket.store.head(secret),
        lambda: bucket.store.read(secret, "17", 0, 10),
        lambda: bucket.store.create(f"{bucket.root}-patient-42/o", [b"data"]),
        lambda: list(bucket.store.list(f"{bucket.root}-patient-42/o")),
    ):
        with pytest.raises(DicomveilError) as told:
            ask()
        failure: BaseException | None = told.value
        while failure is not None:
            assert isinstance(failure, DicomveilError)
            assert "patient" not in repr(failure) and "bucket-" not in repr(failure) and "http" not in repr(failure)
            failure = failure.__cause__ or failure.__context__


def test_an_archived_object_is_told_before_it_is_asked_for_in_vain(moto: Emulator, azurite: Emulator) -> None:
    """What must be restored first raises its own failure when it is read."""
    import boto3
    from azure.storage.blob import BlobServiceClient, StandardBlobTier

    from tests.emulators import ACCOUNT, ACCOUNT_KEY, environment

    with moto.store() as store, environment(moto.env):
        root = moto.bucket()
        boto3.client("s3", endpoint_url=moto.url).put_object(
            Bucket=root[5:], Key="o", Body=b"x", StorageClass="GLACIER"
        )
        (found,) = store.list(root + "/")
        with pytest.raises(NotRestored):
            store.read(found.uri, found.version, 0, 10)
    with azurite.store() as store:
        root = azurite.bucket()
        store.create(f"{root}/o", [b"x"])
        service = BlobServiceClient(f"{azurite.url}/{ACCOUNT}", credential=ACCOUNT_KEY)
        service.get_blob_client(root[5:], "o").set_standard_blob_tier(StandardBlobTier.ARCHIVE)
        stored, _ = store.head(f"{root}/o")
        with pytest.raises(NotRestored):
            store.read(stored.uri, stored.version, 0, 10)


def test_a_key_is_passed_on(fake_gcs: Emulator, moto: Emulator, azurite: Emulator) -> None:
    """The key that encrypts an object is named to the store, or refused where it can't be."""
    import boto3

    from tests.emulators import environment

    key = "arn:aws:kms:us-east-1:123456789012:key/one"
    with moto.store() as store, environment(moto.env):
        root = moto.bucket()
        for name, data in ("small", b"x"), ("large", noise(PART + 1)):
            store.create(f"{root}/{name}", [data], encryption_key=key)
            told = boto3.client("s3", endpoint_url=moto.url).head_object(Bucket=root[5:], Key=name)
            assert (told["ServerSideEncryption"], told["SSEKMSKeyId"]) == ("aws:kms", key)
    with azurite.store() as store, pytest.raises(NotAllowed, match="encryption scope"):
        store.create(f"{azurite.bucket()}/o", [b"x"], encryption_key="key")


@pytest.mark.parametrize("name", ["a//b", "./a", "a/../b", "a\x01b"])
def test_a_name_that_can_not_be_asked_for_is_refused(moto: Emulator, name: str) -> None:
    """Where the library would take a name for another, nothing is asked at all, and a listing says what is wrong."""
    with moto.store() as store:
        root = moto.bucket()
        for ask in (
            lambda: store.head(f"{root}/{name}"),
            lambda: store.create(f"{root}/{name}", [b""]),
            lambda: store.delete(f"{root}/{name}"),
        ):
            with pytest.raises(NotAllowed, match="empty part"):
                ask()
        moto.sends(root[5:], name, b"x")
        with pytest.raises(NotAllowed, match="empty part"):
            list(store.list(root + "/"))


def test_parts_are_of_one_size() -> None:
    """However the bytes come, all parts but the last are of one size, and there is at least one."""
    for chunks in [], [b""], [b"abc"], [b"a"] * 7, [b"abcdefg", b"", b"h"]:
        cut = list(parts(chunks, 3))
        assert b"".join(part for part, _ in cut) == b"".join(chunks)
        assert [last for _, last in cut] == [False] * (len(cut) - 1) + [True]
        assert all(len(part) == 3 for part, last in cut if not last) and len(cut[-1][0]) <= 3


def test_patience_is_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """How often and how long a store is asked can be told without a change to a job."""
    monkeypatch.setenv("DICOMVEIL_STORE_TRIES", "3")
    monkeypatch.setenv("DICOMVEIL_STORE_FIRST_WAIT", "0.01")
    assert Patience.from_environment() == Patience(tries=3, first_wait=0.01)
    tried = []

    def fail() -> None:
        tried.append(1)
        raise Unavailable("down")

    with pytest.raises(Unavailable):
        Patience.from_environment().insist(fail)
    assert len(tried) == 3


def test_schemes_are_told_apart() -> None:
    """A URI of object storage is told from a path and from what we don't serve."""
    assert [scheme_of(uri) for uri in ("gs://b/o", "s3://b", "az://c/x", "file:///a", "/a", "gs", "hdfs://x")] == [
        "gs", "s3", "az", "", "", "", ""
    ]  # fmt: skip
    assert object_stores.bucket_of("gs://b/o/p") == "b" and name_in_bucket("gs://b/o/p") == "o/p"

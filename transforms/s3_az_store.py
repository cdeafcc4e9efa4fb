"""Amazon S3, what speaks like it, and Azure Blob Storage behind the verbs of `object_stores`, by obstore.

What that library can't do stands in the docstring of `S3AzStore`, with what is done instead.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from queue import Full, Queue
from secrets import token_hex
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, S3Store

from transforms.object_stores import (
    ABSENT,
    NotAllowed,
    NotRestored,
    NotThere,
    OtherVersion,
    Stored,
    Unavailable,
    Unnameable,
    bucket_of,
    name_in_bucket,
)
from transforms.patience import ATTEMPT, PART, Interrupted, Patience, given, parts, settle

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta

_PAGE: Final = 1000
_ENDPOINTS: Final = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_CONNECTION: Final = "AZURE_STORAGE_CONNECTION_STRING"
_FIRST_OF_KEY: Final = {"AccountName": "account_name", "AccountKey": "account_key", "BlobEndpoint": "endpoint",
                        "SharedAccessSignature": "sas_key"}  # fmt: skip
_NO_METADATA: Final = frozenset(("Content-Type", "Content-Encoding", "Content-Disposition", "Content-Language",
                                 "Cache-Control", "Storage-Class"))  # fmt: skip
_UNNAMEABLE: Final = "a name has an empty part, a dot for one, or a control character: it can't be asked for here"
_STATUS: Final = re.compile(r"(?:status code|\(code): (\d{3})")
_ARCHIVED: Final = re.compile(r"<Code>(InvalidObjectState|BlobArchived|BlobBeingRehydrated)</Code>")
_PASSING: Final = re.compile(r"<Code>(BadDigest|InternalError|RequestTimeout|XAmzContentSHA256Mismatch)</Code>")
_REGION: Final = (301, 307)
_NO_NAME: Final = re.compile(r"(^|/)(\.{0,2})(/|$)|[\x00-\x1f\x7f]")
_HELD: Final = 0.05  # seconds between two looks whether a part can still be taken

Answer = TypeVar("Answer")
Client = S3Store | AzureStore


class S3AzStore:
    """s3:// or az://, by obstore.

    Configured by the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
    AWS_ENDPOINT_URL and so on, or the roles of containers and instances, but not ~/.aws;
    AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY and so on, or the
    identities of Azure.

    What differs from `gs`:
    * An object above 8 MiB is not created or replaced under a condition in one step: the library completes uploads
      without one. It is looked at before the last request, and the upload aborted if the condition doesn't hold. Who
      comes between the two is overwritten. Up to 8 MiB the store decides, and exactly one of several wins.
    * A version is deleted by a look, and a deletion then; by another look before the deletion is tried again.
    * Lists tell no storage class. An archived object is told by `NotRestored` when it is read.
    * Keys with empty parts, "." or "..", or control characters can't be listed or named: `NotAllowed`. A key that ends
      in "/" is listed without that.
    * `level` holds all that it finds in memory.
    * What is read can't be verified, as the library shows no checksum. What is written to s3 is verified by the store,
      as its SHA-256 is part of the request's signature; to az by nothing but TLS.
    * On az a creation names no key of its own: there `encryption_key` is refused, and a container's encryption scope
      decides.

    Args:
      scheme: "s3" or "az".
      patience: as the environment says, if it isn't given.
    """

    def __init__(self, scheme: str, patience: Patience | None = None) -> None:
        self._scheme, self._patience = scheme, patience or Patience.from_environment()
        self._clients: dict[tuple[str, str, int], Client] = {}
        self._lock = Lock()

    # ------------------------------------------------------------------------------------------------------ listing

    def list(self, prefix: str) -> Iterator[Stored]:
        bucket, begins = bucket_of(prefix), name_in_bucket(prefix)
        folder = begins.rpartition("/")[0]
        after = "" if begins.endswith("/") or _NO_NAME.search(begins[:-1]) else begins[:-1]
        pages = _Pages(self._client(bucket), folder, after)
        while (page := self._insist(pages.next)) is not None:
            for meta in page:
                name = meta["path"]
                if name.startswith(begins):
                    yield self._stored(bucket, meta)
                elif name > begins and self._in_order(bucket):
                    return

    def _in_order(self, bucket: str) -> bool:
        """Whether names surely come in the order of UTF-8, which is that of `str`, as in all but S3 Express buckets."""
        return self._scheme == "s3" and not bucket.endswith("--x-s3")

    def level(self, prefix: str) -> Iterator[Stored | str]:
        bucket, begins = bucket_of(prefix), name_in_bucket(prefix)
        folder = begins.rpartition("/")[0]
        found = self._insist(lambda: obstore.list_with_delimiter(self._client(bucket), folder or None))
        for longer in found["common_prefixes"]:
            if len(longer) <= len(folder):
                raise Unnameable(_UNNAMEABLE)
            if f"{longer}/".startswith(begins):
                yield f"{self._scheme}://{bucket}/{longer}/"
        for meta in found["objects"]:
            if meta["path"].startswith(begins):
                yield self._stored(bucket, meta)

    # --------------------------------------------------------------------------------------------------- one object

    def head(self, uri: str) -> tuple[Stored, Mapping[str, str]]:
        stored, metadata = self._look(uri)
        return stored, given(metadata)

    def _look(self, uri: str) -> tuple[Stored, Mapping[str, str]]:
        client, name = self._client(bucket_of(uri)), _name(uri)
        found = self._insist(lambda: obstore.get(client, name, options={"head": True}))
        return self._stored(bucket_of(uri), found.meta), {
            key.lower(): value for key, value in found.attributes.items() if key not in _NO_METADATA
        }

    def read(self, uri: str, version: str, offset: int, length: int) -> bytes:
        if length <= 0:
            return b""
        client, name = self._client(bucket_of(uri)), _name(uri)
        options: GetOptions = {"range": (offset, offset + length)}
        if version:
            options["if_match"] = _quoted(version)

        def once() -> bytes:
            found = obstore.get(client, name, options=options)
            data = bytes(found.bytes())
            if len(data) != min(length, max(found.meta["size"] - offset, 0)):
                raise Unavailable("what was read arrived in part")
            if version and _version(found.meta["e_tag"]) != version:
                raise OtherVersion("the object was replaced")
            return data

        try:
            return self._insist(once)
        except _Beyond:
            return b""
        except OtherVersion:
            pass
        self.head(uri)
        raise OtherVersion("the object was replaced")

    def checksum(self, uri: str, version: str) -> str:
        return ""

    def delete(self, uri: str, version: str = "") -> None:
        client, name = self._client(bucket_of(uri)), _name(uri)

        def once() -> None:
            if version and _version(obstore.get(client, name, options={"head": True}).meta["e_tag"]) != version:
                raise OtherVersion("the object is there in another version")
            _delete(client, name)

        with suppress(NotThere):
            self._insist(once)

    def create(
        self,
        uri: str,
        chunks: Iterable[bytes],
        metadata: Mapping[str, str] | None = None,
        version: str | None = None,
        encryption_key: str = "",
    ) -> str:
        attempt, name = token_hex(16), _name(uri)
        attributes = {**(metadata or {}), ATTEMPT: attempt}
        pieces = parts(chunks)
        try:
            first, only = next(pieces)
            if only:
                client = self._client(bucket_of(uri), encryption_key)
                return self._insist(
                    lambda: _version(
                        obstore.put(
                            client, name, first, attributes=attributes, mode=_mode(version), use_multipart=False
                        )["e_tag"]
                    )
                )
            return self._upload(uri, first, pieces, attributes, version, encryption_key)
        except (NotAllowed, NotThere, OtherVersion, Unavailable) as failure:
            failed = failure
        except Interrupted as interrupted:
            raise interrupted.failure  # noqa: B904  # it is passed through as it came
        return settle(lambda: self._look(uri), version, attempt, failed)

    def _upload(
        self,
        uri: str,
        first: bytes,
        pieces: Iterator[tuple[bytes, bool]],
        attributes: dict[str, str],
        version: str | None,
        encryption_key: str,
    ) -> str:
        """Send an object in parts; what `pieces` raises passes through, once the upload is aborted."""
        client = self._client(bucket_of(uri), encryption_key, int(self._patience.tries) - 1)
        feed = _Feed()
        with ThreadPoolExecutor(1) as sender:  # the library drives its own runtime, in which nothing else may be read
            result = sender.submit(
                obstore.put, client, _name(uri), iter(feed), attributes=attributes, chunk_size=PART, max_concurrency=1
            )
            try:
                feed.give(first, result)
                for piece, _ in pieces:
                    feed.give(piece, result)
                self._check(uri, version)
                feed.end(result)
            except _Refused:
                pass  # the upload has failed, as its result tells
            except BaseException:
                feed.fail(result)
                raise
            return _version(self._told(result)["e_tag"])

    def _check(self, uri: str, version: str | None) -> None:
        """Hold a condition as late as that can be done.

        Raises:
          OtherVersion, NotThere: it doesn't hold.
        """
        if version is None:
            return
        try:
            found = self.head(uri)[0].version
        except NotThere:
            if version == ABSENT:
                return
            raise
        if found != version:
            raise OtherVersion("the object is there in another version")

    def _told(self, result: "Future[Any]") -> Any:
        failure = result.exception()
        if failure is None:
            return result.result()
        raise _failure(failure) from None

    # ------------------------------------------------------------------------------------------------------ clients

    def _client(self, bucket: str, encryption_key: str = "", retries: int = 0) -> Client:
        """The bucket's client: the one whose requests are repeated by us, or the one that repeats parts by itself."""
        key = bucket, encryption_key, retries
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._made(*key)
            return self._clients[key]

    def _made(self, bucket: str, encryption_key: str, retries: int) -> Client:
        patience = self._patience
        config: Any = _connection() if self._scheme == "az" else {"disable_bulk_delete": True}
        endpoints = [config.get("endpoint", ""), *(os.environ.get(name, "") for name in _ENDPOINTS[self._scheme])]
        made: dict[str, Any] = {
            "client_options": {
                "connect_timeout": timedelta(seconds=min(patience.silence, 10)),
                "read_timeout": timedelta(seconds=patience.silence),
                "timeout": timedelta(seconds=patience.total),
                **({"allow_http": True} if any(url.startswith("http://") for url in endpoints) else {}),
            },
            "retry_config": {
                "max_retries": retries,
                "retry_timeout": timedelta(seconds=patience.total),
                "backoff": {
                    "init_backoff": timedelta(seconds=patience.first_wait),
                    "max_backoff": timedelta(seconds=patience.longest_wait),
                    "base": 2,
                },
            },
        }
        if self._scheme == "az":
            if encryption_key:
                raise NotAllowed("az:// takes no key for one object: give the container a default encryption scope")
            return AzureStore(bucket, config=config, **made)
        if encryption_key:
            config |= {"server_side_encryption": "aws:kms", "sse_kms_key_id": encryption_key}
        return S3Store(bucket, config=config, **made)

    def _stored(self, bucket: str, meta: "ObjectMeta") -> Stored:
        return Stored(
            f"{self._scheme}://{bucket}/{meta['path']}", meta["size"], _version(meta["e_tag"]), meta["last_modified"]
        )

    def _insist(self, ask: Callable[[], Answer]) -> Answer:
        """Ask as often as patience goes."""
        return self._patience.insist(ask, _failure)


class _Beyond(NotAllowed):
    """What is asked for begins behind the object's end."""


class _Stopped(Exception):
    """What should be written can't be read."""


class _Refused(Exception):
    """What should be written isn't taken any more."""


class _Pages:
    """A listing by pages that goes on behind what was seen, when it broke off.

    Args:
      folder: whose names are listed; the library takes none but whole parts of names for a prefix.
      after: a name behind which it begins; a server may take no notice of it.
    """

    def __init__(self, client: Client, folder: str, after: str) -> None:
        self._client, self._folder, self._after = client, folder, after
        self._stream: Iterator[Sequence[ObjectMeta]] | None = None
        self._first, self._last, self._behind = "", "", ""
        self._page: frozenset[str] = frozenset()
        self._known: frozenset[str] = frozenset()

    def next(self) -> "Sequence[ObjectMeta] | None":
        """The next page, each object once; None at the end.

        Raises:
          BaseError: it broke off.
        """
        stream, self._stream = self._stream or self._opened(), None
        page = next(stream, None)
        self._stream = stream
        if page is None:
            return None
        names = [meta["path"] for meta in page]
        if self._known and names[0] == self._first:  # it began anew
            self._behind = self._last
        fresh = [meta for meta in page if meta["path"] not in self._known and meta["path"] > self._behind]
        self._first, self._page = self._first or names[0], frozenset(names)
        self._last = max(self._last, names[-1]) if self._behind else names[-1]
        return fresh

    def _opened(self) -> "Iterator[Sequence[ObjectMeta]]":
        self._known, self._behind = self._page, ""
        after = self._last or self._after
        return iter(obstore.list(self._client, self._folder or None, offset=after or None, chunk_size=_PAGE))


class _Feed:
    """Parts on their way to another thread, one at a time."""

    def __init__(self) -> None:
        self._queue: Queue[bytes | None] = Queue(1)
        self._failed = False

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self._queue.get()) is not None:
            yield piece
        if self._failed:
            yield b""  # the library waits for the parts under way before it takes this one, and aborts none of them
            raise _Stopped

    def give(self, piece: bytes | None, result: "Future[Any]") -> None:
        """Hand a part over.

        Raises:
          _Refused: nobody takes it any more.
        """
        while True:
            try:
                return self._queue.put(piece, timeout=_HELD)
            except Full:
                if result.done():
                    raise _Refused from None

    def end(self, result: "Future[Any]") -> None:
        self.give(None, result)

    def fail(self, result: "Future[Any]") -> None:
        """Have the upload aborted, and wait until it is."""
        self._failed = True
        while not result.done():
            try:
                self._queue.put(None, timeout=_HELD)
                break
            except Full:
                pass
        result.exception()


def _delete(client: Client, name: str) -> None:
    """Delete whatever is there; no condition goes with it, so that a conflict is the store's refusal.

    Raises:
      NotAllowed: a lease, a snapshot or a policy holds it.
    """
    try:
        obstore.delete(client, name)
    except Exception as failed:
        failure = _failure(failed)
        held = isinstance(failure, OtherVersion)
        raise (NotAllowed("the store holds the object by a lease or policy") if held else failure) from None


def _name(uri: str) -> str:
    name = name_in_bucket(uri)
    if _NO_NAME.search(name):
        raise Unnameable(_UNNAMEABLE)
    return name


def _version(e_tag: str | None) -> str:
    """An ETag without its quotes, which az leaves out in lists."""
    return (e_tag or "").strip('"')


def _quoted(version: str) -> str:
    return f'"{version}"'


def _mode(version: str | None) -> Any:
    if version is None:
        return "overwrite"
    return {"e_tag": _quoted(version)} if version else "create"


def _connection() -> dict[str, Any]:
    """What Azure's connection string says, as obstore calls it."""
    pairs = (part.partition("=")[::2] for part in os.environ.get(_CONNECTION, "").split(";"))
    return {_FIRST_OF_KEY[key]: value for key, value in pairs if key in _FIRST_OF_KEY}


def _failure(failed: BaseException) -> BaseException:
    """What the protocol calls a failure of the library; any other is left as it is."""
    text = str(failed) if isinstance(failed, (BaseError, FileNotFoundError, ValueError, OSError)) else ""
    found = _STATUS.search(text)
    status = int(found[1]) if found else 0
    if _ARCHIVED.search(text):
        return NotRestored("the object is archived: it must be restored before it can be read")
    if isinstance(failed, FileNotFoundError) or status == 404:
        return NotThere("there is no such object or bucket")
    if isinstance(failed, (AlreadyExistsError, PreconditionError)) or status in (409, 412):
        return OtherVersion("the object is there in another version")
    if status == 416 or (not status and "Wanted range starting at" in text):
        return _Beyond("the object ends before")
    if isinstance(failed, (PermissionDeniedError, UnauthenticatedError)) or status in (401, 403):
        return NotAllowed("the store refuses access")
    if status in _REGION:
        return NotAllowed("the bucket is in another region: set AWS_REGION")
    if isinstance(failed, InvalidPathError):
        return Unnameable(_UNNAMEABLE)
    if 400 <= status < 500 and status not in (408, 429) and not _PASSING.search(text):
        return NotAllowed(f"the store refuses what it is asked (HTTP {status})")
    if isinstance(failed, BaseError):
        return Unavailable("the store fails, or can't be reached")
    return failed

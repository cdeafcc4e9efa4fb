"""Google Cloud Storage behind the verbs of `object_stores`: generations, CRC32C, resumable uploads.

The client library makes the requests that carry metadata; what carries bytes is asked for here, because it must be
one request each, in bounded memory, checked, and in the bytes that are stored: nothing is ever decompressed on the way.
"""

import base64
import builtins
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from secrets import token_hex
from threading import Lock
from typing import Any, Final, TypeVar
from urllib.parse import quote

import google.auth
import google_crc32c
import requests
import urllib3
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import AuthorizedSession
from google.cloud.storage import Blob, Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from requests.adapters import HTTPAdapter

from transforms.object_stores import (
    ABSENT,
    NotAllowed,
    NotThere,
    OtherVersion,
    Stored,
    Unavailable,
    bucket_of,
    name_in_bucket,
)
from transforms.patience import ATTEMPT, Interrupted, Patience, given, parts, settle

EMULATOR: Final = "STORAGE_EMULATOR_HOST"
_FIELDS: Final = "items(name,size,generation,timeCreated,storageClass),prefixes,nextPageToken"
_CONNECTIONS: Final = 32
_PAGE: Final = 1000
_REMEMBERED: Final = 256
_TYPE: Final = "application/octet-stream"
_RESUME: Final = 308
_RANGE: Final = re.compile(r"bytes (\d+)-(-?\d+)/(\d+)")
_RECEIVED: Final = re.compile(r"bytes=0-(\d+)")
_PASSING: Final = frozenset((408, 429, 499))

Answer = TypeVar("Answer")


class GcsStore:
    """gs://, by google-cloud-storage.

    Credentials are the application's default ones; with STORAGE_EMULATOR_HOST there are none, and none are looked for.
    A small object's CRC32C goes with it, and that of a large one with its last part: the store refuses what was
    damaged on the way. What is read whole is verified at once; a range can't be, for the store tells the checksum of
    the whole: who puts ranges together asks for it (`checksum`).

    Args:
      patience: as the environment says, if it isn't given.

    Raises:
      NotAllowed: there are no credentials.
    """

    def __init__(self, patience: Patience | None = None) -> None:
        self._patience = patience or Patience.from_environment()
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")  # else one more GET a bucket
        credentials = _credentials()
        self._session = AuthorizedSession(credentials)
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))
        self._client = Client(project=None, credentials=credentials, _http=self._session)
        self._checksums: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._lock = Lock()
        self._endpoint = self._client.api_endpoint
        self._silence = (min(self._patience.silence, 10.0), self._patience.silence)
        self._calling: dict[str, Any] = {"retry": None, "timeout": self._silence}

    def list(self, prefix: str) -> Iterator[Stored]:
        for found in self._pages(prefix, None):
            if isinstance(found, Stored):
                yield found

    def level(self, prefix: str) -> Iterator[Stored | str]:
        yield from self._pages(prefix, "/")

    def _pages(self, prefix: str, delimiter: str | None) -> Iterator[Stored | str]:
        token: str | None = ""
        while token is not None:
            found, token = self.insist(partial(self._page, prefix, delimiter, token))
            yield from found

    def _page(self, prefix: str, delimiter: str | None, token: str) -> tuple[builtins.list[Stored | str], str | None]:
        bucket = bucket_of(prefix)
        answer = self._client.list_blobs(
            bucket,
            prefix=name_in_bucket(prefix) or None,
            delimiter=delimiter,
            fields=_FIELDS,
            page_token=token or None,
            page_size=_PAGE,
            **self._calling,
        )
        page = next(answer.pages, None)
        if page is None:
            return [], None
        found: builtins.list[Stored | str] = [_stored(blob) for blob in page]
        found += [f"gs://{bucket}/{longer}" for longer in page.prefixes]
        return sorted(found, key=_uri), answer.next_page_token

    def head(self, uri: str) -> tuple[Stored, Mapping[str, str]]:
        stored, metadata = self._look(uri)
        return stored, given(metadata)

    def _look(self, uri: str) -> tuple[Stored, Mapping[str, str]]:
        blob = self._blob(uri)
        self.insist(lambda: blob.reload(**self._calling))
        return _stored(blob), blob.metadata or {}

    def read(self, uri: str, version: str, offset: int, length: int) -> bytes:
        if length <= 0:
            return b""
        try:
            return self.insist(lambda: self._range(uri, version, offset, length))
        except NotThere:
            if not version:
                raise
        self.head(uri)
        raise OtherVersion("the object was replaced")

    def _range(self, uri: str, version: str, offset: int, length: int) -> bytes:
        at = f"/download/storage/v1/b/{quote(bucket_of(uri), safe='')}/o/{quote(name_in_bucket(uri), safe='')}"
        asked = {"alt": "media"} | ({"generation": version} if version else {})
        headers = {"Range": f"bytes={offset}-{offset + length - 1}", "Accept-Encoding": "gzip"}
        with self._session.get(
            self._endpoint + at, params=asked, headers=headers, stream=True, timeout=self._silence
        ) as answer:
            if answer.status_code == 416:
                return b""
            if answer.status_code not in (200, 206):
                raise _told(answer.status_code, "")
            if version and answer.headers.get("X-Goog-Generation", version) != version:
                raise OtherVersion("the object was replaced")
            self._remember(uri, version, _told_checksum(answer))
            data = answer.raw.read(offset + length if answer.status_code == 200 else length, decode_content=False)
            return _checked(answer, data, offset, length)

    def checksum(self, uri: str, version: str) -> str:
        told = self._checksums.get((uri, version))
        if told is None:
            blob = self._blob(uri)
            self.insist(lambda: blob.reload(if_generation_match=int(version), **self._calling))
            told = blob.crc32c or ""
        return told

    def _remember(self, uri: str, version: str, checksum: str) -> None:
        if version and checksum:
            with self._lock:
                self._checksums[uri, version] = checksum
                while len(self._checksums) > _REMEMBERED:
                    self._checksums.popitem(last=False)

    def create(
        self,
        uri: str,
        chunks: Iterable[bytes],
        metadata: Mapping[str, str] | None = None,
        version: str | None = None,
        encryption_key: str = "",
    ) -> str:
        attempt = token_hex(16)
        condition = None if version is None else int(version or 0)

        def blob() -> Blob:
            made = self._blob(uri, encryption_key)
            made.metadata = {**(metadata or {}), ATTEMPT: attempt}
            return made

        pieces = parts(chunks)
        failed: Exception
        try:
            first, only = next(pieces)
            if only:
                return self.insist(lambda: self._insert(blob(), first, condition))
            return self._upload(blob(), first, pieces, condition)
        except _Lost:
            failed = Unavailable("the store has given an upload up")
        except (NotAllowed, NotThere, OtherVersion, Unavailable) as failure:
            failed = failure
        except Interrupted as interrupted:
            raise interrupted.failure  # noqa: B904  # it is passed through as it came
        return settle(lambda: self._look(uri), version, attempt, failed)

    def _insert(self, blob: Blob, data: bytes, condition: int | None) -> str:
        blob.upload_from_string(
            data, content_type=_TYPE, checksum="crc32c", if_generation_match=condition, **self._calling
        )
        return self._kept(blob, str(blob.generation), blob.crc32c, _crc32c(google_crc32c.Checksum(data)))

    def _upload(self, blob: Blob, first: bytes, pieces: Iterator[tuple[bytes, bool]], condition: int | None) -> str:
        """Send an object in parts; what `pieces` raises passes through, once the session is cancelled."""
        session = self.insist(
            lambda: blob.create_resumable_upload_session(
                content_type=_TYPE, client=self._client, checksum=None, if_generation_match=condition, **self._calling
            )
        )
        try:
            checksum, offset, part, last = google_crc32c.Checksum(), 0, first, False
            while True:
                checksum.update(part)
                answer = _Part(self, session, part, offset, checksum if last else None).send()
                if last:
                    break
                offset += len(part)
                part, last = next(pieces)
        except BaseException:
            with suppress(Exception):
                self.insist(lambda: self._cancel(session))
            raise
        return self._kept(blob, str(answer["generation"]), answer.get("crc32c"), _crc32c(checksum))

    def _cancel(self, session: str) -> None:
        status = self._session.delete(session, headers={"Content-Length": "0"}, timeout=self._silence).status_code
        if status in _PASSING - {499} or status >= 500:
            raise Unavailable("the store doesn't cancel an upload")

    def _kept(self, blob: Blob, generation: str, told: str | None, computed: str) -> str:
        """The generation of what was stored, unless it isn't what was sent: then it is deleted."""
        if told in (None, computed):
            return generation
        with suppress(NotThere, OtherVersion):
            self.insist(lambda: blob.delete(if_generation_match=int(generation), **self._calling))
        raise Unavailable("what was written was damaged on its way to the store")

    def delete(self, uri: str, version: str = "") -> None:
        blob = self._blob(uri)
        with suppress(NotThere):
            self.insist(
                lambda: blob.delete(if_generation_match=int(version) if version != ABSENT else None, **self._calling)
            )

    def _blob(self, uri: str, encryption_key: str = "") -> Blob:
        return self._client.bucket(bucket_of(uri)).blob(name_in_bucket(uri), kms_key_name=encryption_key or None)

    def put(self, url: str, data: bytes, headers: Mapping[str, str]) -> requests.Response:
        """One request of an upload's session; its status isn't judged."""
        return self._session.put(
            url, data=data, headers={"Content-Type": _TYPE, **headers}, timeout=self._silence, allow_redirects=False
        )

    def insist(self, ask: Callable[[], Answer]) -> Answer:
        """Ask as often as patience goes."""
        return self._patience.insist(ask, _failure)


class _Part:
    """One part of a resumable upload. Where an answer is lost it is sent again: the store takes no notice of bytes that
    it has already, and says how far it has come.

    Args:
      whole: the checksum of all parts, where this is the last.
    """

    def __init__(
        self, store: GcsStore, session: str, data: bytes, offset: int, whole: google_crc32c.Checksum | None
    ) -> None:
        self._store, self._session, self._data, self._offset, self._whole = store, session, data, offset, whole
        self._sent = 0

    def send(self) -> dict[str, Any]:
        """Send all of it; what the store says of the object, after the last part.

        Raises:
          Unavailable: the store has given the upload up, or can't be had.
        """
        while True:
            stored = self._store.insist(self._send)
            if stored is not None or (self._sent == len(self._data) and not self._whole):
                return stored or {}

    def _send(self) -> dict[str, Any] | None:
        data = self._data[self._sent :]
        begin, end = self._offset + self._sent, self._offset + len(self._data)
        span = f"{begin}-{end - 1}" if data else "*"
        headers = {"Content-Range": f"bytes {span}/{end if self._whole else '*'}"}
        if self._whole:
            headers["X-Goog-Hash"] = f"crc32c={_crc32c(self._whole)}"
        return self._understood(self._store.put(self._session, data, headers))

    def _understood(self, answer: requests.Response) -> dict[str, Any] | None:
        if answer.status_code in (200, 201):
            if not self._whole:
                raise Unavailable("the store ended an upload too early")
            return answer.json()
        if answer.status_code in (404, 410):
            raise _Lost("the store has given an upload up")
        if answer.status_code != _RESUME:
            raise _told(answer.status_code, answer.text)
        received = _RECEIVED.fullmatch(answer.headers.get("Range", ""))
        self._sent = (int(received[1]) + 1 if received else 0) - self._offset
        if not 0 <= self._sent <= len(self._data):
            raise _Lost("the store has lost a part of an upload")
        return None


class _Lost(NotThere):
    """An upload's session is no more."""


def _credentials() -> Credentials:
    if os.environ.get(EMULATOR):
        return AnonymousCredentials()
    try:
        return google.auth.default(scopes=Client.SCOPE)[0]
    except GoogleAuthError:
        pass
    raise NotAllowed("Google Cloud Storage needs credentials: give the account that runs this its own.")


def _checked(answer: requests.Response, data: bytes, offset: int, length: int) -> bytes:
    """What was asked for, if it arrived whole, and as it is stored where that can be told."""
    span = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if answer.status_code == 200:
        declared = int(answer.headers.get("Content-Length", len(data)))
        short, whole = len(data) < min(declared, offset + length), declared == len(data)
    elif span:
        begin, end, size = map(int, span.groups())
        if offset >= size:
            return b""
        short = begin != offset or len(data) != end + 1 - begin or end + 1 != min(offset + length, size)
        whole = begin == 0 and end + 1 == size
    else:
        short, whole = True, False
    if short:
        raise Unavailable("what was read arrived in part")
    if whole and _told_checksum(answer) not in ("", _crc32c(google_crc32c.Checksum(data))):
        raise Unavailable("what was read was damaged on its way")
    return data[offset : offset + length] if answer.status_code == 200 else data


def _told_checksum(answer: requests.Response) -> str:
    """The CRC32C of the whole object, whatever part of it was read; "" where it isn't told."""
    told = re.search(r"crc32c=([A-Za-z0-9+/=]+)", answer.headers.get("X-Goog-Hash", ""))
    return told[1] if told else ""


def _crc32c(checksum: google_crc32c.Checksum) -> str:
    return base64.b64encode(checksum.digest()).decode()


def _stored(blob: Blob) -> Stored:
    created: datetime | None = blob.time_created
    return Stored(
        f"gs://{blob.bucket.name}/{blob.name}",
        int(blob.size or 0),
        str(blob.generation),
        created,
        blob.storage_class or "",
    )


def _uri(found: Stored | str) -> bytes:
    return (found if isinstance(found, str) else found.uri).encode()


def _failure(failed: Exception) -> Exception:
    """What the protocol calls a failure of the libraries; any other is left as it is."""
    if isinstance(failed, GoogleAPICallError):
        return _told(int(failed.code or 0), failed.message or "")
    if isinstance(failed, InvalidResponse):
        return _told(failed.response.status_code, failed.response.text)
    if isinstance(failed, GoogleAuthError) and not isinstance(failed, TransportError):
        return NotAllowed("the credentials are not accepted")
    if isinstance(failed, (DataCorruption, ValueError)):  # ValueError: an answer that isn't JSON
        return Unavailable("the store's answer was damaged on its way")
    if isinstance(failed, (requests.RequestException, urllib3.exceptions.HTTPError, TransportError, OSError)):
        return Unavailable("the store can't be reached, or breaks off")
    return failed


def _told(status: int, text: str) -> Exception:
    """What an HTTP status says; of the text only whether a checksum is what it is about."""
    if status == 404:
        return NotThere("there is no such object or bucket")
    if status == 412:
        return OtherVersion("the object is there in another version")
    if status in (401, 403):
        return NotAllowed(f"the store refuses access (HTTP {status})")
    if status in _PASSING or status >= 500 or status == 0 or re.search("crc32c|checksum", text, re.IGNORECASE):
        return Unavailable(f"the store fails (HTTP {status})")
    return NotAllowed(f"the store refuses what it is asked (HTTP {status})")

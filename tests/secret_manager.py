"""A Secret Manager of our own: real gRPC, the client library's own messages, and whatever trouble a test asks for."""

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import google_crc32c
import grpc
from google.cloud.secretmanager_v1.types import AccessSecretVersionRequest, AccessSecretVersionResponse, SecretPayload

_SERVICE = "google.cloud.secretmanager.v1.SecretManagerService"
PROJECT = "projects/hospital/secrets"


@dataclass
class SecretManager:
    """Answers on a port of this machine.

    Attributes:
      versions: payloads by secret, the first is version 1; None is one that was disabled.
      aliases: version numbers by name, beside `latest`.
      refused: the status with which each call fails.
      answered: changes an answer before it is sent.
      asked: the names that were asked for, and by which caller.
    """

    versions: dict[str, list[bytes | None]]
    aliases: dict[str, int] = field(default_factory=dict)
    refused: grpc.StatusCode | None = None
    answered: Callable[[AccessSecretVersionResponse], None] = lambda answer: None
    asked: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""

    def access(self, request: AccessSecretVersionRequest, context: grpc.ServicerContext) -> AccessSecretVersionResponse:
        self.asked.append((request.name, context.peer()))
        if self.refused:
            context.abort(self.refused, f"no: {request.name}")
        _, _, _, secret, _, version = request.name.split("/")
        held = self.versions.get(secret, [])
        number = self.aliases.get(version) or (len(held) if version == "latest" else int(version))
        if not 1 <= number <= len(held):
            context.abort(grpc.StatusCode.NOT_FOUND, f"{request.name} not found")
        payload = held[number - 1]
        if payload is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{request.name} is DISABLED")
        answer = AccessSecretVersionResponse(
            name=f"projects/4711/secrets/{secret}/versions/{number}",
            payload=SecretPayload(data=payload, data_crc32c=google_crc32c.value(payload)),
        )
        self.answered(answer)
        return answer


@contextmanager
def serving(manager: SecretManager) -> Iterator[SecretManager]:
    """Serve until left; `address` is host:port."""
    method = grpc.unary_unary_rpc_method_handler(
        lambda request, context: manager.access(request, context),
        AccessSecretVersionRequest.deserialize,
        AccessSecretVersionResponse.serialize,
    )
    handler = grpc.method_handlers_generic_handler(_SERVICE, {"AccessSecretVersion": method})
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[handler])
    manager.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield manager
    finally:
        server.stop(0).wait()

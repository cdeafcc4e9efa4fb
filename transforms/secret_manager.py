"""A key that Google Cloud Secret Manager keeps: which version answers, and what it holds.

What a key must be, and how the reference to one is written, is decided elsewhere. The client library is an extra
(`dicomveil[gcp]`), imported when a key is fetched and at no other time.
"""

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dicomveil.errors import KeyRefused

if TYPE_CHECKING:
    from google.api_core.exceptions import GoogleAPICallError
    from google.cloud.secretmanager import SecretManagerServiceClient

EMULATOR: Final = "SECRET_MANAGER_EMULATOR_HOST"
"""Names host:port of a stand-in that is spoken to without encryption or credentials, as for Google's own clients."""

PATIENCE: Final = 20.0  # seconds for all tries together

_NAME: Final = re.compile(r"projects/([^/:]+)/secrets/([^/:]+)/versions/([^/:]+)")
_TOLD: Final = {
    "NOT_FOUND": "Secret Manager knows no such secret or version: check what --key names.",
    "INVALID_ARGUMENT": "Secret Manager can't read the name of the secret: check what --key names.",
    "PERMISSION_DENIED": "Secret Manager refuses to show the key: the account that runs this, also on workers, needs "
    "roles/secretmanager.secretAccessor on the secret.",
    "UNAUTHENTICATED": "Secret Manager doesn't know who asks: give the account that runs this its credentials.",
    "FAILED_PRECONDITION": "The version of the secret is disabled or destroyed: enable it, or name another.",
    "RESOURCE_EXHAUSTED": "Secret Manager answers no more questions for now (quota): try again later.",
}
_UNREACHED: Final = "Secret Manager can't be reached, or doesn't answer: check the network, and try again."


@dataclass(frozen=True)
class SecretVersion:
    """What one version of a secret holds.

    Attributes:
      name: of the version that answered, never `latest` or another alias.
      payload: the text of the key; no repr shows it.
    """

    name: str
    payload: bytes = field(repr=False)


def access(name: str) -> SecretVersion:
    """Fetch a version of a secret, and check that it arrived whole.

    Args:
      name: projects/P/secrets/S/versions/V, V a number, `latest` or another alias.

    Raises:
      KeyRefused: no such name or secret, not permitted, out of reach, damaged on the way, or no client library. Neither
        the name nor anything of the payload is part of the message.
    """
    asked = _NAME.fullmatch(name)
    if not asked:
        raise KeyRefused("--key names a secret as gcp-secret:projects/P/secrets/S/versions/V.")
    answered, payload = _answer(name)
    found = _NAME.fullmatch(answered)
    # The answer may name the project by its number.
    if not found or found[2] != asked[2] or not found[3].isdecimal():
        raise KeyRefused("Secret Manager answered for another secret than the one that --key names.")
    if asked[3].isdecimal() and found[3] != asked[3]:
        raise KeyRefused("Secret Manager answered with another version than the one that --key names.")
    return SecretVersion(f"projects/{asked[1]}/secrets/{asked[2]}/versions/{found[3]}", payload)


def _answer(name: str) -> tuple[str, bytes]:
    """The name of the version that answered, and its payload, held to the checksum that came with it."""
    try:
        import google_crc32c
        from google.api_core.exceptions import GoogleAPICallError, RetryError, ServiceUnavailable
        from google.api_core.retry import Retry, if_exception_type
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.secretmanager import SecretManagerServiceClient
    except ImportError:
        raise KeyRefused("A key in Secret Manager needs one more package: pip install 'dicomveil[gcp]'.") from None
    again = Retry(predicate=if_exception_type(ServiceUnavailable), initial=0.25, maximum=4, timeout=PATIENCE)
    try:
        with _client(SecretManagerServiceClient) as client:
            answer = client.access_secret_version(request={"name": name}, retry=again, timeout=PATIENCE)
    except GoogleAPICallError as failed:
        raise KeyRefused(_told(failed)) from None
    except RetryError:
        raise KeyRefused(_UNREACHED) from None
    except GoogleAuthError:
        raise KeyRefused(_TOLD["UNAUTHENTICATED"]) from None
    payload = answer.payload.data
    if "data_crc32c" not in answer.payload or answer.payload.data_crc32c != google_crc32c.value(payload):
        raise KeyRefused("The key was damaged on its way from Secret Manager: try again.")
    return answer.name, payload


def _client(service: "type[SecretManagerServiceClient]") -> "SecretManagerServiceClient":
    host = os.environ.get(EMULATOR)
    if not host:
        return service()
    import grpc

    transport = service.get_transport_class("grpc")
    return service(transport=transport(host=host, channel=grpc.insecure_channel(host)))


def _told(failed: "GoogleAPICallError") -> str:
    return _TOLD.get(failed.grpc_status_code.name, _UNREACHED) if failed.grpc_status_code else _UNREACHED

"""The certificates that originals are encrypted for: read from PEM, and refused where they can't serve.

Only what is public stands here; who opens what was sealed for them is in `envelopes`. No file is read and no clock.
"""

import datetime
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

LEAST_BITS: Final = 2048
_PRIVATE_KEY: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")


class CertificateProblem(ValueError):
    """A certificate that nothing may be encrypted for: `what` is wrong with it, and the `remedy`. Quotes nothing."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


def read_certificate(pem: bytes, today: datetime.date | None = None) -> str:
    """The one certificate in a PEM text, as PEM of its own: whatever else the text holds is left behind.

    Args:
      today: what its validity is compared with; None compares with nothing.

    Raises:
      CertificateProblem: no certificate or several, a private key beside it, no RSA key of 2048 bits or more, not
        valid on that day, or not meant to encipher keys (RFC 5280 4.2.1.3).

    Source: PS3.15 2026d E.1.1 item 4 (RSA key transport).
    """
    if _PRIVATE_KEY.search(pem):
        raise CertificateProblem("holds a private key", "give the certificate alone, and keep the key to its owner")
    certificate = _parsed(pem)
    _check_key(certificate)
    if today is not None:
        _check_validity(certificate, today)
    _check_usage(certificate)
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def _parsed(pem: bytes) -> "Certificate":
    from cryptography import x509

    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError:
        certificates = []
    if not certificates:
        raise CertificateProblem("is no certificate in PEM", "convert it, as with: openssl x509 -inform DER")
    if len(certificates) > 1:
        raise CertificateProblem("holds several certificates", "give each recipient's own certificate alone")
    return certificates[0]


def _check_key(certificate: "Certificate") -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        key = None
    if not isinstance(key, RSAPublicKey) or key.key_size < LEAST_BITS:
        raise CertificateProblem(f"has no RSA key of {LEAST_BITS} bits or more", "ask for a certificate of such a key")


def _check_validity(certificate: "Certificate", today: datetime.date) -> None:
    """Valid on that day somewhere on earth: the day has no time zone, and a day more or less is no matter here."""
    if certificate.not_valid_after_utc.date() < today:
        raise CertificateProblem("has expired", "ask its owner for the one that took its place")
    if certificate.not_valid_before_utc.date() > today:
        raise CertificateProblem("isn't valid yet", "wait, or ask its owner for the one in use")


def _check_usage(certificate: "Certificate") -> None:
    from cryptography.x509 import ExtensionNotFound, KeyUsage

    try:
        usage = certificate.extensions.get_extension_for_class(KeyUsage).value
    except ExtensionNotFound:
        return
    except ValueError:
        raise CertificateProblem("has extensions that can't be read", "ask for another certificate") from None
    if not usage.key_encipherment:
        raise CertificateProblem("isn't meant to encipher keys", "ask for one whose key usage has keyEncipherment")


def fingerprint(pem: str) -> str:
    """SHA-256 of a certificate as 64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` tells it."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509 import load_pem_x509_certificate

    return load_pem_x509_certificate(pem.encode()).fingerprint(SHA256()).hex()

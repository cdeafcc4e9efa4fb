"""Recipients to encrypt for: certificates and their keys, made on the spot."""

import datetime
from functools import cache
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dicomveil.envelopes import Opener

SINCE, UNTIL = datetime.datetime(2020, 1, 1), datetime.datetime(2099, 1, 1)


class Recipient(NamedTuple):
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def opener(self) -> Opener:
        return Opener(self.certificate, self.key)

    def key_pem(self, password: bytes | None = None) -> bytes:
        locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


@cache
def recipient(
    name: str = "first",
    bits: int = 2048,
    since: datetime.datetime = SINCE,
    until: datetime.datetime = UNTIL,
    key_encipherment: bool | None = None,
) -> Recipient:
    """One of a name, always the same in a run; `bits` 0 for a key that isn't RSA, None for no key usage at all."""
    key = rsa.generate_private_key(65537, bits) if bits else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), since, until)
    if key_encipherment is not None:
        usage = x509.KeyUsage(True, False, key_encipherment, False, False, False, False, False, False)
        builder = builder.add_extension(usage, critical=True)
    return Recipient(builder.sign(key, hashes.SHA256()), key)

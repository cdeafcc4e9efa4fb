"""One secret, many keys: what is derived for one purpose says nothing about another.

Every new value is HMAC-SHA256 under a key of its own purpose. Only bytes come in here; where a key is kept, and how
it is fetched, is the caller's business.
"""

import base64
import binascii
import hmac
import itertools
import re
import secrets
from typing import Final, NoReturn

from dicomveil.errors import KeyRefused

KEY_BYTES: Final = 32
_FEW_DISTINCT_BYTES: Final = 12  # 32 random bytes hold fewer with a chance below 1e-14
_TYPED: Final = frozenset(range(32, 127))  # 32 random bytes are all among these with a chance below 1e-13

# What random hexadecimal or base64 digits have more of with a chance below 1e-6: words are typed, and numbers.
_MOST_OF_A_KIND: Final = {rb"[a-z]": 0.75, rb"[A-Z]": 0.75, rb"[0-9]": 0.9}


def _framed(parts: tuple[bytes, ...]) -> bytes:
    """Join parts so that no two different tuples give the same bytes: each after its length (8 bytes, big endian)."""
    return b"".join([len(part).to_bytes(8, "big") + part for part in parts])


def _repeats(key: bytes) -> bool:
    """Whether it is a shorter one, written several times: 128 bits twice are 128 bits."""
    return (key + key).find(key, 1) < len(key)


def _counts(key: bytes) -> bool:
    """Whether it goes up or down by one step, as 00 01 02 does: the key of published test vectors."""
    steps = {(after - before) % 256 for before, after in itertools.pairwise(key)}
    return len(steps) == 1 and 0 not in steps


class Keys:
    """The keys derived from one secret of 256 bits or more.

    It can't be pickled, so that no pipeline graph can carry it, and its repr shows the fingerprint only.

    Raises:
      KeyRefused: the key is shorter than 32 bytes, or plainly not drawn at random: it has few different bytes, repeats
        a shorter one, or is a text that can be typed.
    """

    __slots__ = ("_purposes", "_root", "fingerprint")

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES:
            raise KeyRefused(f"The key is shorter than {KEY_BYTES} bytes (256 bits); make one with: dicomveil keygen")
        if len(set(key)) < _FEW_DISTINCT_BYTES or _repeats(key) or _TYPED.issuperset(key):
            raise KeyRefused("The key isn't random; make one with: dicomveil keygen")
        self._root = hmac.digest(b"dicomveil 1", key, "sha256")
        self._purposes: dict[str, hmac.HMAC] = {}
        self.fingerprint = self.derive("fingerprint").hex()[:16]

    def derive(self, purpose: str, *parts: bytes) -> bytes:
        """HMAC-SHA256 over the length-framed parts, under the purpose's key: 32 bytes."""
        begun = self._purposes.get(purpose) or self._begin(purpose)
        code = begun.copy()
        code.update(_framed(parts))
        return code.digest()

    def _begin(self, purpose: str) -> hmac.HMAC:
        """An HMAC under the key of one purpose that has read nothing yet: copying it is cheaper than keying another."""
        key = hmac.digest(self._root, purpose.encode(), "sha256")
        begun = self._purposes[purpose] = hmac.new(key, digestmod="sha256")
        return begun

    def token(self, purpose: str, *parts: bytes) -> str:
        """The same as a name of 32 hexadecimal digits, for what must be told apart but not known."""
        return self.derive(purpose, *parts).hex()[:32]

    def __reduce__(self) -> NoReturn:
        raise TypeError("Keys are never pickled: pass the reference to the key and its fingerprint")

    def __repr__(self) -> str:
        return f"Keys(fingerprint={self.fingerprint!r})"


def parse_key(text: bytes) -> bytes:
    """The secret in the text of a key file or variable.

    Args:
      text: 64 or more hexadecimal digits, or base64 (also its URL-safe form) of 32 bytes or more; white space around
        it is ignored.

    Raises:
      KeyRefused: neither of the two, or shorter, or the key of the published test vectors. The text is never part of
        the message.
    """
    word = text.strip()
    if re.fullmatch(rb"0[xX][0-9a-fA-F]+", word):
        raise KeyRefused("The key begins with 0x; leave that out.")
    if re.fullmatch(rb"[0-9a-fA-F]+", word):
        # Not left to base64, which takes such a word too: a digit that was lost would make another key, unnoticed.
        if len(word) % 2:
            raise KeyRefused("The key has an odd number of hexadecimal digits, so one was lost; copy it anew.")
        key = binascii.unhexlify(word)
    else:
        try:
            key = base64.b64decode(
                word.translate(bytes.maketrans(b"-_", b"+/")) + b"=" * (-len(word) % 4), validate=True
            )
        except binascii.Error:
            raise KeyRefused("The key is neither hexadecimal nor base64; make one with: dicomveil keygen") from None
    if len(key) < KEY_BYTES:
        raise KeyRefused(f"The key is shorter than {KEY_BYTES} bytes (256 bits); make one with: dicomveil keygen")
    if _counts(key):
        raise KeyRefused("The key only counts, and everybody knows it; make one with: dicomveil keygen")
    if any(len(re.findall(kind, word)) > most * len(word) for kind, most in _MOST_OF_A_KIND.items()):
        raise KeyRefused("The key isn't random; make one with: dicomveil keygen")
    return key


def generate_key() -> str:
    """A new secret of 256 bits from the operating system, as 64 hexadecimal digits."""
    return secrets.token_hex(KEY_BYTES)

"""Outputs in object storage: each bears tokens of what it was made of and by, so that it is known again.

Of a folder's outputs the tables of the runs tell the same.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from dicomveil.compile import fingerprint_of
from dicomveil.errors import InvalidInstance
from dicomveil.keys import Keys
from dicomveil.request import Request
from transforms.ledger import uri_token
from transforms.locations import Location, ObjectLocation
from transforms.object_stores import ABSENT, NotThere, OtherVersion
from transforms.only_copies import is_only_copy, leave
from transforms.records import Planned
from transforms.store_failures import StoreUnavailable, serving

# Azure takes names that are identifiers of C#, and some proxies none with "_".
_SOURCE: Final = "dicomveilsource"
_MADE: Final = "dicomveilmade"


class Outputs:
    """Puts outputs where they belong: new ones, and in place of what was made of the same source otherwise.

    Args:
      restricted: where it is marked which of them are the only copy that there is.
      kms_key: name of the store's key that encrypts them; "" where their bucket decides.
    """

    def __init__(self, keys: Keys, request: Request, restricted: Location, kms_key: str = "") -> None:
        self._restricted, self._kms_key = restricted, kms_key
        self._keys, self._by = keys, (request.fingerprint.encode(), fingerprint_of(request).encode())

    def put(self, root: ObjectLocation, name: str, planned: Planned, study_map: bytes, chunks: Iterable[bytes]) -> None:
        """Create an output, unless it is there as it would be; its chunks are read to their end in any case.

        Args:
          study_map: encoded, by which it is made.

        Raises:
          InvalidInstance: "output-conflict" where another source's output has the name, "only-copy" where nothing
            else is left of what that was made of, "unwritten" where the store couldn't take it, after all retries.
          StoreFailed: the store takes nothing.
        """
        target, tokens = root / name, self._tokens(planned, study_map)
        mine = planned.former == name
        try:
            with serving("written"):
                version = _replaced(target, tokens, mine)
                if version is None:
                    for _ in chunks:
                        pass
                elif version != ABSENT and is_only_copy(root, name, self._restricted):
                    leave(target, chunks)
                else:
                    try:
                        target.store.create(target.uri, chunks, tokens, version, self._kms_key)
                    except OtherVersion:
                        # Somebody was faster: a worker that was thought dead, with the same bytes.
                        if _replaced(target, tokens, mine) is not None:
                            raise InvalidInstance("output-conflict") from None
        except StoreUnavailable:
            raise InvalidInstance("unwritten") from None

    def _tokens(self, planned: Planned, study_map: bytes) -> dict[str, str]:
        """Of the object that it is made of, and of its version, the request, the tables and recipe, and the map."""
        return {
            _SOURCE: uri_token(self._keys, planned.uri),
            _MADE: self._keys.token("output-made", planned.token.encode(), *self._by, study_map),
        }


def is_output(target: ObjectLocation) -> bool:
    """Whether there is an object that one of our runs made, by what it says of itself."""
    with serving("read"):
        try:
            return _MADE in target.store.head(target.uri)[1]
        except NotThere:
            return False


def _replaced(target: ObjectLocation, tokens: Mapping[str, str], mine: bool) -> str | None:
    """The version that an output is to replace, `ABSENT` for none; None where it is there already.

    Args:
      mine: whether it is known for this source's, whatever it says itself.
    """
    try:
        stored, there = target.store.head(target.uri)
    except NotThere:
        return ABSENT
    if there.get(_MADE) == tokens[_MADE]:
        return None
    if not mine and there.get(_SOURCE) != tokens[_SOURCE]:
        raise InvalidInstance("output-conflict")
    return stored.version

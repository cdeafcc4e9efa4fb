"""Originals sealed for their recipients in the Encrypted Attributes Sequence, and taken out again by one of them.

What goes into an envelope is what the walk changed, as it stood in the source. Here alone an output isn't the same in
every run: a content key is drawn at random for each instance, as CMS demands (RFC 5652 6.3).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dicomveil import marks, standard
from dicomveil.compile import ENCRYPT_FOR, ENCRYPTED_ATTRIBUTES, SPECIFIC_CHARACTER_SET
from dicomveil.decision import Decision
from dicomveil.errors import InvalidInstance
from dicomveil.marks import LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED as LONGITUDINAL
from dicomveil.part10 import EXPLICIT_UID, Instance
from dicomveil.stream import (
    EXPLICIT_LITTLE,
    ITEM,
    LARGEST_CHUNK,
    BytesSource,
    Encoding,
    Path,
    Window,
    inner,
    items,
    skip,
    tag_text,
)
from dicomveil.transcoding import Place, is_undefined, transcoded
from dicomveil.walk import Edit, Walk

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate

TRANSFER_SYNTAX: Final = 0x04000510
CONTENT: Final = 0x04000520
MODIFIED_ATTRIBUTES: Final = 0x04000550
MOST: Final = 16 * LARGEST_CHUNK
"""Bytes of originals that one instance may have sealed; they are held in memory."""

NEVER: Final = frozenset(
    (
        SPECIFIC_CHARACTER_SET,
        marks.PATIENT_IDENTITY_REMOVED,
        marks.DEIDENTIFICATION_METHOD,
        marks.DEIDENTIFICATION_METHOD_CODE_SEQUENCE,
        LONGITUDINAL,
        ENCRYPTED_ATTRIBUTES,
    )
)
"""What says how to read, and what was done: never among the originals as such."""
_BULK: Final = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
_NO_ORIGINALS: Final = ("charset", "mark", ENCRYPT_FOR)
"""Rules that change how something is written, or write what was done."""
_TEMPORAL: Final = frozenset(("DA", "DT", "TM"))
_TIMEZONE: Final = 0x00080201
_SEQUENCE_HEADER: Final = 12


class Envelopes:
    """Seals data sets for the holders of some certificates; made once a process.

    Args:
      certificates: PEM, one each, as `certificates.read_certificate` gives them.
    """

    def __init__(self, certificates: tuple[str, ...]) -> None:
        from cryptography.hazmat.primitives.ciphers.algorithms import AES256
        from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7EnvelopeBuilder
        from cryptography.x509 import load_pem_x509_certificate

        builder = PKCS7EnvelopeBuilder().set_content_encryption_algorithm(AES256)
        for pem in certificates:
            builder = builder.add_recipient(load_pem_x509_certificate(pem.encode()))
        self._builder = builder

    def seal(self, content: bytes) -> bytes:
        """CMS EnvelopedData in DER: AES-256 in CBC mode, its key sealed by RSA for each recipient (RFC 3370, 3565)."""
        from cryptography.hazmat.primitives.serialization import Encoding as Form
        from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options

        return self._builder.set_data(content).encrypt(Form.DER, [PKCS7Options.Binary])


class Opener:
    """Opens what was sealed for the holder of one certificate.

    Its repr shows nothing of the key, and it can't be pickled.
    """

    def __init__(self, certificate: "Certificate", key: "RSAPrivateKey") -> None:
        self._certificate, self._key = certificate, key
        self._issuer = certificate.issuer.public_bytes()

    def addressed(self, envelope: bytes) -> bool:
        """Whether the envelope names this certificate's issuer and serial number among its recipients."""
        number = self._certificate.serial_number
        serial = number.to_bytes(number.bit_length() // 8 + 1, "big")
        return self._issuer + b"\x02" + bytes([len(serial)]) + serial in envelope

    def open(self, envelope: bytes) -> bytes | None:
        """What was sealed; None where it doesn't open. Nothing vouches for it: CMS seals, and doesn't sign."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization.pkcs7 import pkcs7_decrypt_der

        try:
            return pkcs7_decrypt_der(envelope, self._certificate, self._key, [])
        except (ValueError, UnsupportedAlgorithm):
            return None

    def __reduce__(self) -> str:
        raise TypeError("A private key is never pickled")


# ---------------------------------------------------------------------------------------------------------- sealing


def settle_encrypted(walk: Walk, instance: Instance, envelopes: Envelopes, named: frozenset[int]) -> None:
    """Seal the originals of what the walk changed, and put them where the walk has kept their place.

    Without any, no sequence is written. What the source had sealed itself is gone, as Table E.1-1 says.

    Args:
      named: tags at the top level; empty for every attribute there that is changed or removed and that is neither
        bulk nor a sequence nor private.

    Raises:
      InvalidInstance: "envelope-size" where originals are larger than can be held, or what is wrong with the encoding
        of a sequence that is named.

    Source: PS3.15 2026d E.1.1 items 1, 4 and 5; PS3.3 C.12.1.1.4.
    """
    edits = walk.edits
    sealed = _data_set(instance, _chosen(edits, named), edits)
    new = _element(instance.encoding, envelopes.seal(sealed)) if sealed else b""
    for at in [at for at, edit in enumerate(edits) if edit[6] is not None and edit[6].rule == ENCRYPT_FOR]:
        start, stop, _, parent, tag, vr, decision = edits[at]
        assert decision is not None
        told = decision if new else replace(decision, action="X")
        edits[at] = Edit(start, stop, new, parent, tag, vr, told if new or start < stop else None)
        new = b""  # once, also where the source had several


def _chosen(edits: list[Edit], named: frozenset[int]) -> frozenset[int]:
    """The top-level attributes whose originals are sealed."""
    if named:
        return named.intersection(_top(edit[3], edit[4]) for edit in _of_attributes(edits))
    return frozenset(edit[4] for edit in _of_attributes(edits) if edit[3] is None and _plain(edit[4], edit[5]))


def _of_attributes(edits: list[Edit]) -> Iterator[Edit]:
    """Edits that take an original away."""
    return (edit for edit in edits if edit[6] is not None and edit[6].rule not in _NO_ORIGINALS)


def _top(parent: Path | None, tag: int) -> int:
    """The attribute at the top level in which an element stands."""
    return tag if parent is None else _top(parent.parent, parent.tag)


def _plain(tag: int, encoded_vr: bytes) -> bool:
    element = standard.dictionary().get(tag)
    if element is None or encoded_vr == b"SQ" or tag in NEVER or tag & 0x10000 or tag >> 16 <= 0x0004:
        return False
    return element.vr != "SQ" and not _BULK.intersection(element.vr.split(" "))


def _data_set(instance: Instance, chosen: frozenset[int], edits: list[Edit]) -> bytes:
    """The Encrypted Attributes Data Set: its one sequence of one Item; empty where there is no original."""
    found = _originals(instance, chosen | {SPECIFIC_CHARACTER_SET, LONGITUDINAL})
    originals = {tag: element for tag, element in found.items() if tag in chosen}
    if not originals:
        return b""
    if found.get(SPECIFIC_CHARACTER_SET):
        originals[SPECIFIC_CHARACTER_SET] = found[SPECIFIC_CHARACTER_SET]
    if not _keeps_dates_changed(edits, chosen):
        unmodified = EXPLICIT_LITTLE.element(LONGITUDINAL, "CS", b"UNMODIFIED")
        originals[LONGITUDINAL] = found.get(LONGITUDINAL) or unmodified
    content = b"".join(element for _, element in sorted(originals.items()))
    return EXPLICIT_LITTLE.element(MODIFIED_ATTRIBUTES, "SQ", item(EXPLICIT_LITTLE, content))


def _originals(instance: Instance, wanted: frozenset[int]) -> dict[int, bytes]:
    """The wanted top-level elements of the source, in explicit little endian; of a tag that comes twice the first."""
    window, found, room = Window(instance.source), dict[int, bytes](), MOST
    for tag, vr, start, value, stop in instance.encoding.elements(window, instance.begin, window.size, False):
        end = stop
        if stop < 0:
            end = skip(window, value, window.size, instance.encoding, vr, tag)
        if tag in wanted and tag not in found:
            place: Place = tag, vr, start, value, end
            found[tag] = transcoded(window, place, instance.encoding, EXPLICIT_LITTLE, room)
            room -= len(found[tag])
        window.after = end
        if room < 0:
            raise InvalidInstance("envelope-size", tag_text(tag), start)
    return found


def _keeps_dates_changed(edits: list[Edit], chosen: frozenset[int]) -> bool:
    """Whether a date or time stays changed when the originals are put back; what is gone as a whole may hold one."""
    return any(
        _top(edit[3], edit[4]) not in chosen and _may_tell_time(edit[4], edit[5], edit[1] - edit[0], edit[6])
        for edit in _of_attributes(edits)
    )


def _may_tell_time(tag: int, encoded_vr: bytes, size: int, decision: Decision | None) -> bool:
    vr = decision.vr if decision is not None else ""
    if vr == "SQ" or encoded_vr == b"SQ" or tag == ITEM:
        return size > _SEQUENCE_HEADER
    return vr in _TEMPORAL or encoded_vr.decode("latin-1") in _TEMPORAL or tag == _TIMEZONE


def item(encoding: Encoding, content: bytes) -> bytes:
    """One Item of defined length."""
    return encoding.item.pack(ITEM >> 16, ITEM & 0xFFFF, len(content)) + content


def _element(encoding: Encoding, envelope: bytes) -> bytes:
    """The Encrypted Attributes Sequence of one Item."""
    content = encoding.element(TRANSFER_SYNTAX, "UI", EXPLICIT_UID.encode()) + encoding.element(CONTENT, "OB", envelope)
    return encoding.element(ENCRYPTED_ATTRIBUTES, "SQ", item(encoding, content))


# ---------------------------------------------------------------------------------------------------------- opening


def read_envelopes(window: Window, sequence: Place, encoding: Encoding) -> Iterator[tuple[str, bytes]]:
    """(transfer syntax UID, CMS) of each Item of an Encrypted Attributes Sequence.

    Raises:
      InvalidInstance: "envelope-size" of one that can't be held, or what is wrong with the encoding.
    """
    inside = inner(encoding, sequence[1])
    for places in _items(window, sequence, inside):
        values = {place[0]: place for place in places}
        if TRANSFER_SYNTAX in values and CONTENT in values:
            uid, content = (_value(window, values[tag]) for tag in (TRANSFER_SYNTAX, CONTENT))
            yield uid.decode("latin-1").strip(" \0"), _unpadded(content)


def _value(window: Window, place: Place) -> bytes:
    if place[4] - place[3] > 2 * MOST:
        raise InvalidInstance("envelope-size", tag_text(place[0]), place[2])
    return window.slice(place[3], place[4])


def _unpadded(der: bytes) -> bytes:
    """DER without the byte that made its length even."""
    if len(der) < 2 or der[1] < 0x80:
        return der
    size = der[1] & 0x7F
    return der[: 2 + size + int.from_bytes(der[2 : 2 + size], "big")] if size else der


def modified_attributes(content: bytes, encoding: Encoding) -> tuple[Window, list[Place]]:
    """Where the originals stand in an Encrypted Attributes Data Set.

    Raises:
      InvalidInstance: it is none, or isn't encoded so.
    """
    window = Window(BytesSource(content))
    for tag, vr, start, value, stop in encoding.elements(window, 0, window.size, False):
        end = skip(window, value, window.size, encoding, vr, tag) if stop < 0 else stop
        if tag == MODIFIED_ATTRIBUTES:
            (places,) = [*_items(window, (tag, vr, start, value, end), inner(encoding, vr))][:1] or [[]]
            return window, places
        window.after = end
    raise InvalidInstance("item", tag_text(MODIFIED_ATTRIBUTES))


def _items(window: Window, sequence: Place, encoding: Encoding) -> Iterator[list[Place]]:
    """The elements of each Item."""
    tag, _, _, value, end = sequence
    stop = -1 if is_undefined(window, sequence) else end
    for _, content, behind in items(window, value, stop, end, encoding, tag):
        places = []
        limit = behind if behind >= 0 else end
        for inside, vr, start, at, after in encoding.elements(window, content, limit, behind < 0):
            ends = skip(window, at, limit, encoding, vr, inside) if after < 0 else after
            places.append((inside, vr, start, at, ends))
            window.after = ends
        done = window.after
        yield places
        window.after = done

"""What takes the place of an encapsulated document: a legal one of the same type that says nothing (PS3.15 E.1.1).

The type and the length stand behind the document, so it is settled when the walk has seen all three.
"""

from typing import Final

from dicomveil import dummies
from dicomveil.decision import Decision
from dicomveil.stream import Encoding
from dicomveil.walk import Edit, Walk

DOCUMENT: Final = 0x00420011
MIME_TYPE: Final = 0x00420012
LENGTH: Final = 0x00420015

_LENGTH = Decision(LENGTH, "EncapsulatedDocumentLength", "UL", "D", "of the dummy document")


def settle_documents(walk: Walk, encoding: Encoding, document: Decision) -> None:
    """Put the dummy in the place of the document that the walk noted, and its length where the length stands."""
    mime_type = next((raw.strip(b" \0").decode("latin-1") for tag, *_, raw in walk.notes if tag == MIME_TYPE), "")
    dummy = dummies.document_dummy(mime_type)
    for tag, vr, start, _, stop, _, _ in walk.notes:
        if tag == DOCUMENT:
            new = encoding.element(DOCUMENT, "OB", dummy)
            walk.edits.append(Edit(start, stop, new, None, DOCUMENT, vr, document))
        elif tag == LENGTH:
            new = encoding.element(LENGTH, "UL", encoding.u32.pack(len(dummy)))
            walk.edits.append(Edit(start, stop, new, None, LENGTH, vr, _LENGTH))

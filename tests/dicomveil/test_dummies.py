"""What takes a value's place is legal where it stands, and says nothing."""

import io

import pydicom
import pytest

from dicomveil import Deidentifier
from dicomveil.testing import BIG, DEFLATED, EXPLICIT, IMPLICIT, Syntax, minimal, part10
from tests.corpora import KEY

PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
GRAPHIC_ANNOTATIONS, GRAPHIC_LAYER = 0x00700001, 0x00700002


@pytest.mark.parametrize("uid", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
def test_numbers_in_dummy_items_are_in_the_data_sets_byte_order(uid: str) -> None:
    """A dummy annotation is one point in two dimensions in every transfer syntax (PS3.3 C.10.5, PS3.5 7.3)."""
    e = Syntax(uid)
    annotations = e.sequence(GRAPHIC_ANNOTATIONS, [e.element(GRAPHIC_LAYER, "CS", "LAYER")])
    own = (0x00080016, e.element(0x00080016, "UI", PRESENTATION_STATE))
    data = part10(minimal(e, own, (GRAPHIC_ANNOTATIONS, annotations)), uid, PRESENTATION_STATE)
    ds = pydicom.dcmread(io.BytesIO(Deidentifier(key=KEY).rewrite(data)))
    point = ds.GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    assert (point.GraphicDimensions, point.NumberOfGraphicPoints, list(point.GraphicData)) == (2, 1, [0, 0])

"""The same decisions carried out by a plain pydicom walk: slow, obvious, sharing nothing with the engine's bytes."""

import struct

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicomveil import dummies, marks, standard
from dicomveil.compile import RECIPE, DecisionTable
from dicomveil.decision import Decision, Node
from dicomveil.keys import Keys
from dicomveil.pseudonyms import known_patient_id, patient_pseudonym
from dicomveil.uids import new_uid

LAYOUT = ("Rows", "Columns", "BitsAllocated")


def deidentify(ds: Dataset, table: DecisionTable, keys: Keys, patient: str, compressed: bool) -> Dataset:
    """The data set that the table asks for, as pydicom sees it.

    Args:
      patient: the pseudonym of the study's patient; "" for objects that are no patient's.
      compressed: whether its Pixel Data is, so that its length says nothing.
    """
    out = _walk(ds, table.node(str(ds.SOPClassUID)), keys, patient, top=True)
    if patient:
        out.PatientID = patient
    out.PatientIdentityRemoved = "YES"
    text = marks.method_text(table.request.dicom_version, RECIPE, table.claims, table.fingerprint)
    there = out.get("DeidentificationMethod", None) or []
    there = [there] if isinstance(there, str) else list(there)
    out.DeidentificationMethod = [*there, *([] if text in there else [text])]
    items = list(out.get("DeidentificationMethodCodeSequence", None) or [])
    items += [_item(item) for item in marks.code_items(table.claims)]
    out.DeidentificationMethodCodeSequence = Sequence(items)
    out.LongitudinalTemporalInformationModified = "REMOVED"
    frames = str(ds.get("NumberOfFrames", 1))
    if "PixelData" in out and not compressed and frames.isdigit() and all(ds.get(need) for need in LAYOUT):
        bits = ds.Rows * ds.Columns * ds.get("SamplesPerPixel", 1) * int(frames) * ds.BitsAllocated
        length = (bits + 7) // 8
        out["PixelData"].value = ds.PixelData[: length + length % 2]
    return out


def _walk(ds: Dataset, node: Node, keys: Keys, patient: str, top: bool) -> Dataset:
    out = Dataset()
    for element in ds:
        tag = int(element.tag)
        if element.tag.is_private:
            continue
        decision = node[tag]
        mark = top and decision is not None and decision.rule == "mark"
        new = element if mark else _element(element, decision, ds, keys, patient, top)
        if new is not None and new.VR == "SQ" and new.value is element.value:
            child = node.child(tag)
            new = DataElement(
                tag, "SQ", Sequence([_walk(item, child, keys, patient, False) for item in element.value or []])
            )
        if new is not None:
            out.add(new)
    return out


def _element(
    element: DataElement, decision: Decision | None, ds: Dataset, keys: Keys, patient: str, top: bool
) -> DataElement | None:
    """What takes the element's place; the element itself where it stays, None where it goes."""
    tag = int(element.tag)
    if decision is None or decision.action == "K":
        return element
    if tag == 0x00420011 and top:
        return DataElement(tag, "OB", dummies.document_dummy(ds.get("MIMETypeOfEncapsulatedDocument", "")))
    if decision.action == "X":
        return None
    if decision.action == "Z":
        empty = (element.VM == 0 and element.VR != "SQ") or (element.VR == "SQ" and not element.value)
        return element if empty else DataElement(tag, decision.vr, [] if decision.vr == "SQ" else None)
    if decision.action == "U":
        values = element.value if element.VM > 1 else [element.value] if element.value else []
        return DataElement(tag, "UI", [new_uid(keys, str(value)) if value else "" for value in values])
    if tag in (0x00100010, 0x00100020) and top:
        return DataElement(tag, decision.vr, patient)
    if tag == 0x00100020:
        known = known_patient_id(str(element.value or ""))
        return DataElement(tag, "LO", patient_pseudonym(keys, known) if known else "")
    if tag == 0x00080104 and ds.get("CodingSchemeDesignator", "") in standard.coding_schemes():
        return element
    return _dummy(tag, decision.vr)


def _dummy(tag: int, vr: str) -> DataElement:
    if vr == "SQ":
        return DataElement(tag, "SQ", Sequence([_item(dummies.dummy_item(tag))]))
    raw = dummies.dummy_bytes(tag, vr)
    return DataElement(tag, vr, _value(vr, raw))


def _item(nodes: tuple[dummies.Node, ...]) -> Dataset:
    item = Dataset()
    for node in nodes:
        if isinstance(node.value, bytes):
            item.add_new(node.tag, node.vr, _value(node.vr, node.value))
        else:
            item.add_new(node.tag, node.vr, Sequence([_item(inside) for inside in node.value]))
    return item


def _value(vr: str, raw: bytes) -> object:
    numbers = {"US": ("H", 2), "UL": ("I", 4), "SL": ("i", 4), "SS": ("h", 2), "FL": ("f", 4), "FD": ("d", 8)}
    if vr in numbers:
        code, size = numbers[vr]
        values = [v for at in range(0, len(raw), size) for v in struct.unpack("<" + code, raw[at : at + size])]
        return values[0] if len(values) == 1 else values
    return raw if vr in ("OB", "OW", "UN", "OF", "OD", "OL", "OV") else raw.decode()

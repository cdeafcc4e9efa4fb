"""Images to transcode, made of little: a native instance of any layout, written by pydicom."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

LAYOUT = {
    "rows": 21, "columns": 18, "samples": 1, "frames": 1, "allocated": 16, "stored": 12, "signed": False, "high": None,
    "photometric": "MONOCHROME2", "planar": 0, "content": "smooth", "spare": "sign", "syntax": "explicit",
}  # fmt: skip
SYNTAXES = {"explicit": ExplicitVRLittleEndian, "implicit": ImplicitVRLittleEndian, "big": ExplicitVRBigEndian}


def values(layout: dict[str, Any], seed: int = 0) -> np.ndarray:
    """Pixels of (frames, rows, columns, samples) that use all of Bits Stored."""
    shape = layout["frames"], layout["rows"], layout["columns"], layout["samples"]
    least = -(1 << (layout["stored"] - 1)) if layout["signed"] else 0
    random = np.random.default_rng(seed)
    if layout["content"] == "noise":
        return random.integers(least, least + (1 << layout["stored"]), shape)
    frame, row, column, sample = np.indices(shape)
    wave = (np.sin(row / 9 + frame + sample / 5) * np.cos(column / 7) + 1) / 2
    extent = (1 << layout["stored"]) - 1
    if layout["content"] == "narrow":  # far from the least and the greatest value
        return (least + extent // 4 + wave * (extent // 2)).astype(np.int64)
    return least + np.round(wave * extent).astype(np.int64)


def image(seed: int = 0, **given: Any) -> Dataset:
    """A native instance of a layout, `LAYOUT` where nothing else is given."""
    layout = LAYOUT | given
    pixels = values(layout, seed)
    mask = (1 << layout["stored"]) - 1
    if layout["spare"] == "zero":
        pixels = pixels & mask
    elif layout["spare"] == "noise":
        pixels = (pixels & mask) | 1 << layout["stored"]
    if layout["high"] is not None:
        pixels = (pixels & mask) << (layout["high"] + 1 - layout["stored"])
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = SYNTAXES[layout["syntax"]]
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    ds.Modality = "OT"
    ds.PatientName = "Bodox^Kalex"
    ds.SamplesPerPixel = layout["samples"]
    ds.PhotometricInterpretation = layout["photometric"]
    if layout["samples"] > 1:
        ds.PlanarConfiguration = layout["planar"]
    if layout["frames"] > 1:
        ds.NumberOfFrames = layout["frames"]
    ds.Rows, ds.Columns = layout["rows"], layout["columns"]
    ds.BitsAllocated, ds.BitsStored = layout["allocated"], layout["stored"]
    ds.HighBit = layout["stored"] - 1 if layout["high"] is None else layout["high"]
    ds.PixelRepresentation = int(layout["signed"])
    if layout["planar"] and layout["samples"] > 1:
        pixels = pixels.transpose(0, 3, 1, 2)
    order = ">" if layout["syntax"] == "big" else "<"
    if layout["allocated"] == 1:
        data = np.packbits(pixels.astype(np.uint8).ravel(), bitorder="little").tobytes()
    else:
        kind = "i" if layout["signed"] and layout["spare"] == "sign" and layout["high"] is None else "u"
        data = pixels.astype(f"{order}{kind}{layout['allocated'] // 8}").tobytes()
    if layout["photometric"] == "YBR_FULL_422":
        pairs = np.frombuffer(data, np.uint8).reshape(-1, 2, 3)
        data = np.concatenate([pairs[:, :, 0], pairs[:, 0, 1:]], axis=1).tobytes()
    ds.PixelData = data + bytes(len(data) % 2)
    ds["PixelData"].VR = "OW" if layout["allocated"] > 8 or layout["syntax"] == "implicit" else "OB"
    return ds


def written(ds: Dataset, path: Path) -> Path:
    """An instance in a file."""
    ds.save_as(path, enforce_file_format=True)
    return path

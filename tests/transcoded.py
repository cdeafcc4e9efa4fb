"""What a transcoded instance must agree with: its source's pixels and data set, as pydicom reads both."""

import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicomveil import syntaxes
from dicomveil.stream import tag_text
from dicomveil.transcoder import Transcoded

NO_DCMTK = "dcmdjpeg isn't installed, and pydicom decodes no lossless JPEG"
HAS_DCMTK = shutil.which("dcmdjpeg") is not None
OF_PIXELS = (0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00010)


def read(path: Path | str) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path, force=True)


def pixels(path: Path | str) -> np.ndarray:
    """The pixels of an instance as pydicom decodes them, in the byte order of this machine.

    JPEG that it can't decode with packages of a permissive licence is decoded by DCMTK before.
    """
    ds = read(path)
    uid = ds.file_meta.TransferSyntaxUID
    lossless_jpeg = uid in (syntaxes.JPEG_LOSSLESS, syntaxes.JPEG_LOSSLESS_SV1)
    if "PixelData" in ds and (lossless_jpeg or (uid == syntaxes.JPEG_EXTENDED and ds.BitsStored > 8)):
        if not HAS_DCMTK:
            pytest.skip(NO_DCMTK)
        with tempfile.TemporaryDirectory() as folder:
            native = Path(folder) / "native.dcm"
            subprocess.run(["dcmdjpeg", "--conv-never", str(path), str(native)], check=True, capture_output=True)
            ds = read(native)
            ds.PixelData  # noqa: B018  # before it goes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = ds.pixel_array
    return array.astype(array.dtype.newbyteorder("="))


def differences(source: Dataset, target: Dataset, transcoded: Transcoded) -> list[str]:
    """Paths of what differs, besides pixels and what the audit says was changed."""
    swapped = source.original_encoding[1] != target.original_encoding[1]
    told = {change.path for change in transcoded.changes} | {tag_text(tag) for tag in OF_PIXELS}
    return [path for path in _differences(source, target, "", swapped) if path not in told]


def _differences(source: Dataset, target: Dataset, prefix: str, swapped: bool) -> Iterator[str]:
    tags = {tag for ds in (source, target) for tag in ds.keys() if tag & 0xFFFF}  # noqa: SIM118  # keys convert nothing
    for tag in sorted(tags):
        path = prefix + tag_text(tag)
        if tag not in source or tag not in target:
            yield path
            continue
        yield from _unlike(source[tag], target[tag], path, swapped)


def _unlike(one: DataElement, other: DataElement, path: str, swapped: bool) -> Iterator[str]:
    if one.VR == other.VR == "SQ":
        if len(one.value) != len(other.value):
            yield path
        for number, (item, counterpart) in enumerate(zip(one.value, other.value, strict=False)):
            yield from _differences(item, counterpart, f"{path}[{number}].", swapped)
    elif one.VR != other.VR and (one.tag.is_private or "UN" in (one.VR, other.VR)):
        return  # one encoding leaves out the VR of what is private
    elif one.tag != 0x7FE00010 and _plain(one, False) != _plain(other, swapped):
        yield path


def _plain(element: DataElement, swapped: bool) -> object:
    value = element.value
    if isinstance(value, bytes):  # of which pydicom swaps none
        size = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}.get(element.VR, 1) if swapped else 1
        return np.frombuffer(value, f"u{size}").byteswap().tobytes() if size > 1 else value
    return repr(value) if value else None

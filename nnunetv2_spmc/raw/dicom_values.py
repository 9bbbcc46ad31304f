"""The voxels of DICOM slices in physical values: stored value x slope + intercept of that slice.

Values of all slices are kept exactly: as integers where slopes and intercepts are integers, in the
smallest type that holds what the headers allow, else as 64 bit floating point numbers. Padding
stays as it is, and so does MONOCHROME1, which only tells a screen to show high values as dark.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from nnunetv2_spmc.raw.cases import ConversionError
from nnunetv2_spmc.raw.dicom_files import PLAIN_SYNTAXES, DicomFile, damaged, naming, printable
from nnunetv2_spmc.raw.dicom_geometry import Stack
from nnunetv2_spmc.raw.dicom_slices import Slice

PIXEL_MODULE = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored"),
    *("HighBit", "PixelRepresentation", "PixelData"),
)
PIXEL_DATA = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# What pydicom decodes by itself; the other syntaxes are left to GDCM, which SimpleITK brings along.
DECODED_BY_PYDICOM = (*PLAIN_SYNTAXES, DeflatedExplicitVRLittleEndian, RLELossless)


def physical_values(stack: Stack) -> np.ndarray:
    """Return the voxels of a volume, axes z, y, x.

    Raises:
        ConversionError: If a file is damaged, or compressed in a way that cannot be decoded.
    """
    types: set[np.dtype] = set()
    places: dict[Path, list[int]] = {}
    for index, image in enumerate(stack.slices):
        with naming(image.file.path):
            types.add(_value_type(image))
        places.setdefault(image.file.path, []).append(index)
    dtype = np.result_type(*types)
    voxels = np.empty(stack.size[::-1], dtype)
    for indices in places.values():
        file = stack.slices[indices[0]].file
        with naming(file.path):
            stored = _stored_values(file)  # of all frames in the file
            for index in indices:
                image = stack.slices[index]
                voxels[index] = _physical(stored[image.frame], image, dtype)
    return voxels


def _scale(image: Slice) -> tuple[float, float]:
    slope = image.number("RescaleSlope")
    if slope is None:
        slope = image.number("DoseGridScaling")
    slope = 1.0 if slope is None else slope
    intercept = image.number("RescaleIntercept") or 0.0
    if slope == 0 or not np.isfinite((slope, intercept)).all():
        raise ConversionError(
            f"{image.file.path} states a RescaleSlope of {slope:g} and a RescaleIntercept of "
            f"{intercept:g}, which give no values; get it again."
        )
    return slope, intercept


def _value_type(image: Slice) -> np.dtype:
    """Return the type for all values that a slice may hold by its header."""
    header = image.file.header
    if "PixelRepresentation" not in header:  # stored as floating point numbers
        return np.dtype(np.float64)
    slope, intercept = _scale(image)
    low, high = _stored_range(header)
    if header.get("ModalityLUTSequence"):
        low, high = 0, 2**16 - 1
    elif slope != int(slope) or intercept != int(intercept):
        return np.dtype(np.float64)
    elif (slope, intercept) == (1, 0):
        return np.dtype(f"{'i' if low else 'u'}{max(int(header.BitsAllocated), 8) // 8}")
    ends = sorted((low * int(slope) + int(intercept), high * int(slope) + int(intercept)))
    for size in (1, 2, 4, 8):
        kind = np.iinfo(f"{'i' if ends[0] < 0 else 'u'}{size}")
        if kind.min <= ends[0] and ends[1] <= kind.max:
            return kind.dtype
    return np.dtype(np.float64)


def _stored_range(header: Dataset) -> tuple[int, int]:
    bits = int(header.get("BitsStored") or header.BitsAllocated)
    if header.PixelRepresentation == 1:
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


def _physical(stored: np.ndarray, image: Slice, dtype: np.dtype) -> np.ndarray:
    header = image.file.header
    if header.get("ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(stored, header))
    slope, intercept = _scale(image)
    if (slope, intercept) == (1, 0):
        return stored
    if dtype.kind == "f":
        return stored.astype(np.float64) * slope + intercept
    return stored.astype(np.int64) * int(slope) + int(intercept)


def _stored_values(file: DicomFile) -> np.ndarray:
    """Return the values of a file as they are stored, axes frame, y, x."""
    dataset = dcmread(file.path, force=True)
    if not any(keyword in dataset for keyword in PIXEL_DATA):
        raise damaged(file.path, "its voxels are missing")
    syntax = _syntax(dataset)
    if syntax in DECODED_BY_PYDICOM:
        stored = pixel_array(dataset, raw=True, correct_unused_bits=False)
        stored = _without_unused_bits(stored, dataset, file)
    else:
        stored = _decompressed(dataset, syntax, file)
        low, high = _stored_range(file.header)
        if stored.min() < low or stored.max() > high:
            raise _too_large(file)
    shape = (file.num_frames, *file.size[::-1])
    if stored.size != math.prod(shape):
        raise damaged(file.path, f"{stored.size} voxels instead of {math.prod(shape)}")
    return stored.reshape(shape)


def _syntax(dataset: Dataset) -> UID:
    """Return the transfer syntax; a file that does not name it is not compressed."""
    if not getattr(dataset, "file_meta", None):
        dataset.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit, is_little_endian = dataset.original_encoding
        plain = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = plain if is_little_endian else ExplicitVRBigEndian
    return UID(dataset.file_meta.TransferSyntaxUID)


def _without_unused_bits(stored: np.ndarray, header: Dataset, file: DicomFile) -> np.ndarray:
    """Extend the sign from the last bit in use, and cut off overlays in the bits above it.

    Raises:
        ConversionError: If the values themselves need more bits than the header states.
    """
    if stored.dtype.kind == "f" or int(header.BitsAllocated) < 8:
        return stored
    bits = int(header.get("BitsStored") or header.BitsAllocated)
    shift = int(header.get("HighBit") or bits - 1) + 1 - bits  # left-aligned in old files
    unused = 8 * stored.dtype.itemsize - bits
    if unused == 0:
        return stored
    aligned = stored >> max(shift, 0)
    values = (aligned << unused) >> unused
    if np.any((values != aligned) & (aligned >> bits != 0)) and not _has_overlay(header):
        raise _too_large(file)
    return values


def _has_overlay(header: Dataset) -> bool:
    positions = [header.get((group, 0x0102)) for group in range(0x6000, 0x6020, 2)]
    return any(position is not None and position.value for position in positions)


def _too_large(file: DicomFile) -> ConversionError:
    return ConversionError(
        f"{file.path} has values that need more than the {file.header.get('BitsStored')} bits that "
        "its header states (BitsStored); get it again, or give a .nii.gz file."
    )


def _decompressed(dataset: Dataset, syntax: UID, file: DicomFile) -> np.ndarray:
    """Let GDCM decode the voxels, and nothing but them: it knows one slope for a whole file."""
    pixels = Dataset()
    for keyword in PIXEL_MODULE:
        if keyword in dataset:
            pixels[keyword] = dataset[keyword]
    pixels.PhotometricInterpretation = "MONOCHROME2"
    pixels.SOPClassUID = (
        SecondaryCaptureImageStorage
        if file.num_frames == 1
        else MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    )
    pixels.SOPInstanceUID = "1.2.3"
    pixels.file_meta = FileMetaDataset()
    pixels.file_meta.TransferSyntaxUID = syntax
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "pixels.dcm"
        reader.SetFileName(str(copy))
        try:
            pixels.save_as(copy, enforce_file_format=True)
            image = reader.Execute()
        except (RuntimeError, ValueError) as error:
            raise ConversionError(
                f"{file.path} is compressed as {printable(syntax.name)} and cannot be decoded "
                "here, or is damaged; convert the series with dcm2niix and give the .nii.gz file."
            ) from error
    return sitk.GetArrayFromImage(image)

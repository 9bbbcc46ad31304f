"""Write small DICOM series: one file for each slice, or one enhanced multi-frame file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
)

SERIES = "1.2.3.4"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
FUNCTIONAL_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "FrameType": "MRImageFrameTypeSequence",
}


def random_slices(
    number: int, dtype: Any = np.uint16, bits: int = 8, shape: tuple[int, int] = (6, 8)
) -> np.ndarray:
    """Return voxels that need so many bits, half of them negative where the type has a sign."""
    offset = 2 ** (bits - 1) if np.dtype(dtype).kind == "i" else 0
    values = np.random.default_rng(0).integers(0, 2**bits, (number, *shape)) - offset
    values[:, 0, 0], values[:, 0, 1] = -offset, 2**bits - 1 - offset
    return values.astype(dtype)


def write_slices(
    folder: Path,
    voxels: np.ndarray,
    *,
    positions: Sequence[Sequence[float]] | None = None,
    each: Sequence[Mapping[str, Any]] | None = None,
    series: str = SERIES,
    name: str = "{:03d}.dcm",
    **header: Any,
) -> list[Path]:
    """Write a file for each slice, 3 mm apart unless told otherwise; None leaves an entry out."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index, image in enumerate(voxels):
        dataset = _dataset(image, CTImageStorage, f"{series}.{index + 1}")
        dataset.SeriesInstanceUID = series
        dataset.InstanceNumber = index + 1
        dataset.ImagePositionPatient = [0, 0, 3 * index]
        if positions is not None:
            dataset.ImagePositionPatient = list(positions[index])
        dataset.ImageOrientationPatient = list(AXIAL)
        dataset.PixelSpacing = [1, 1]
        dataset.SliceThickness = 3
        _set(dataset, {**header, **(each[index] if each else {})})
        files.append(folder / name.format(index + 1))
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def write_enhanced(
    file: Path,
    voxels: np.ndarray,
    *,
    positions: Sequence[Sequence[float]],
    each: Sequence[Mapping[str, Any]] | None = None,
    shared: Mapping[str, Any] | None = None,
    **header: Any,
) -> Path:
    """Write all slices as frames of one file, each with its place in its functional groups."""
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset = _dataset(voxels, EnhancedMRImageStorage, f"1.2.9.{len(file.name)}")
    dataset.SeriesInstanceUID = SERIES
    dataset.NumberOfFrames = len(voxels)
    common = {"ImageOrientationPatient": list(AXIAL), "PixelSpacing": [1, 1], **(shared or {})}
    dataset.SharedFunctionalGroupsSequence = [_groups(common)]
    dataset.PerFrameFunctionalGroupsSequence = [
        _groups({"ImagePositionPatient": list(position), **(each[index] if each else {})})
        for index, position in enumerate(positions)
    ]
    _set(dataset, header)
    dataset.save_as(file, enforce_file_format=True)
    return file


def write_without_image(file: Path) -> Path:
    """Write a DICOM object that holds no image: the structures of a treatment plan."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, "1.2.8"
    dataset.SeriesInstanceUID, dataset.Modality = "1.2.8.1", "RTSTRUCT"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(file, enforce_file_format=True)
    return file


def _dataset(voxels: np.ndarray, object_class: str, uid: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = object_class, uid
    dataset.Modality = "MR" if object_class == EnhancedMRImageStorage else "CT"
    dataset.StudyInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = voxels.shape[-2:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * voxels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(voxels.dtype.kind == "i")
    dataset.PixelData = voxels.tobytes()
    return dataset


def _set(dataset: Dataset, header: Mapping[str, Any]) -> None:
    for keyword, value in header.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
        if keyword == "BitsStored" and "HighBit" not in header:
            dataset.HighBit = value - 1


def _groups(values: Mapping[str, Any]) -> Dataset:
    group = Dataset()
    for keyword, value in values.items():
        sequence = FUNCTIONAL_GROUPS[keyword]
        if sequence not in group:
            setattr(group, sequence, [Dataset()])
        setattr(group[sequence][0], keyword, value)
    return group

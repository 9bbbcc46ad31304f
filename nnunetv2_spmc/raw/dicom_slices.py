"""The images of DICOM files, one `Slice` each, and what every slice must say.

An image lies where its own header puts it. In an enhanced multi-frame file that header is split:
what a frame says of itself stands in the per-frame functional groups, what all share in the shared
ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from nnunetv2_spmc.raw.cases import ConversionError
from nnunetv2_spmc.raw.dicom_files import (
    SIEMENS_CREATOR,
    SIEMENS_MOSAIC,
    DicomFile,
    naming,
    printable,
)

CONVERT = "convert it with dcm2niix and give the .nii.gz file of one volume for each case"
# How far two directions may be from perpendicular, and each from length 1; both are then corrected.
COSINE_TOLERANCE = 1e-2
# Where a keyword stands in the functional groups of an enhanced file.
FUNCTIONAL_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "FrameType": "MRImageFrameTypeSequence",
    "NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
}
PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


@dataclass(frozen=True)
class Slice:
    """One image: where it lies, and how its stored values become physical ones."""

    file: DicomFile
    frame: int  # in its file, from 0
    groups: tuple[Dataset, ...]  # the functional groups of an enhanced file, else the header
    position: np.ndarray  # center of the first voxel, in mm
    row: np.ndarray  # unit vector along a row of the image
    column: np.ndarray  # unit vector down a column
    spacing: tuple[float, float]  # along a row, down a column, in mm

    @property
    def name(self) -> str:
        """The image, as a message names it."""
        if self.file.num_frames == 1:
            return self.file.name
        return f"frame {self.frame + 1} of {self.file.name}"

    @property
    def normal(self) -> np.ndarray:
        """Unit vector from one slice to the next."""
        return np.cross(self.row, self.column)

    def value(self, keyword: str) -> Any:
        """Return what the header says of this image, None where it says nothing."""
        with naming(self.file.path):
            return _value(self.groups, keyword)

    def number(self, keyword: str) -> float | None:
        """Return a number of the header, None where there is none."""
        value = self.value(keyword)
        with naming(self.file.path):
            return None if value is None else float(value)


def slices_of(file: DicomFile) -> list[Slice]:
    """Return the images of a file in the order in which they are stored.

    Raises:
        ConversionError: If one is no slice of a volume, or does not say where it lies.
    """
    with naming(file.path):
        _check_is_slice(file)
        groups = _groups(file)
        offsets = _frame_offsets(file)
        return [
            _slice(file, frame, groups[frame], offsets[frame]) for frame in range(file.num_frames)
        ]


def _check_is_slice(file: DicomFile) -> None:
    header = file.header
    samples = int(header.get("SamplesPerPixel") or 1)
    photometric = printable(header.get("PhotometricInterpretation") or "")
    if samples != 1 or photometric.startswith("PALETTE"):
        raise ConversionError(
            f"{file.path} has {max(samples, 3)} values per voxel ({photometric}): it is a picture "
            "in colors, not a scan; give the series that it was made from."
        )
    is_siemens = "SIEMENS" in str(header.get(SIEMENS_CREATOR))
    if "MOSAIC" in (header.get("ImageType") or []) or (is_siemens and SIEMENS_MOSAIC in header):
        raise ConversionError(
            f"{file.path} is a mosaic, a picture with all slices of a volume side by side; "
            f"{CONVERT}."
        )


def _groups(file: DicomFile) -> list[tuple[Dataset, ...]]:
    """Return for each frame the parts of the header that hold for it, the closest one first."""
    header = file.header
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    if not frames and not shared:
        detector = list(header.get("DetectorInformationSequence") or [])[:1]  # nuclear medicine
        return [(header, *detector)] * file.num_frames
    if frames and len(frames) != file.num_frames:
        raise ValueError(f"it states {file.num_frames} frames and describes {len(frames)}")
    return [(*frames[k : k + 1], *shared[:1], header) for k in range(file.num_frames)]


def _value(groups: Sequence[Dataset], keyword: str) -> Any:
    sequence = FUNCTIONAL_GROUPS.get(keyword)
    for group in groups:
        inner = group.get(sequence) if sequence else None
        for dataset in (*list(inner or [])[:1], group):
            value = dataset.get(keyword)
            if value not in (None, ""):
                return value
    return None


def _frame_offsets(file: DicomFile) -> Sequence[float]:
    """How far each frame lies from the position in its header, in mm along the normal.

    Raises:
        ConversionError: If the header has one position for many frames and no such distances.
    """
    header, num_frames = file.header, file.num_frames
    if num_frames == 1 or header.get("PerFrameFunctionalGroupsSequence"):
        return [0.0] * num_frames
    offsets = header.get("GridFrameOffsetVector")  # of a radiation dose
    if offsets is not None and len(offsets) == num_frames:
        return [float(offset) - float(offsets[0]) for offset in offsets]
    indices = header.get("SliceVector")  # of nuclear medicine
    distance = header.get("SpacingBetweenSlices")
    if distance and indices is not None and len(indices) == num_frames:
        return [(int(index) - int(indices[0])) * float(distance) for index in indices]
    raise ConversionError(
        f"{file.path} holds {num_frames} frames and does not say where each of them lies; "
        f"{CONVERT}."
    )


def _slice(file: DicomFile, frame: int, groups: tuple[Dataset, ...], offset: float) -> Slice:
    place = {keyword: _value(groups, keyword) for keyword in PLACE}
    missing = [keyword for keyword, value in place.items() if value is None]
    if missing:
        detail = "" if file.num_frames == 1 else f" of frame {frame + 1}"
        raise ConversionError(
            f"{file.path} does not say where its voxels lie in the patient: {', '.join(missing)}"
            f"{detail} is missing; get the original series, or give a .nii.gz file with the right "
            "spacing."
        )
    position = _vector(place["ImagePositionPatient"], 3)
    cosines = _vector(place["ImageOrientationPatient"], 6)
    down, along = _vector(place["PixelSpacing"], 2)
    if not (down > 0 and along > 0):
        raise ValueError(f"PixelSpacing is {down:g} by {along:g} mm")
    row, column = _orthonormal(cosines[:3], cosines[3:])
    position = position + offset * np.cross(row, column)
    return Slice(file, frame, groups, position, row, column, (float(along), float(down)))


def _vector(values: Any, length: int) -> np.ndarray:
    vector = np.array([float(value) for value in values])
    if vector.shape != (length,) or not np.all(np.isfinite(vector)):
        raise ValueError(f"{[float(value) for value in values]} instead of {length} numbers")
    return vector


def _orthonormal(row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Remove the rounding of two directions."""
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not np.allclose((*lengths, 1 + row @ column), 1, rtol=0, atol=COSINE_TOLERANCE):
        raise ValueError(
            f"ImageOrientationPatient {[float(c) for c in (*row, *column)]} is not two "
            "perpendicular directions of length 1"
        )
    row = row / lengths[0]
    column = column - (column @ row) * row
    return row, column / np.linalg.norm(column)

"""Put slices into order, and refuse those that do not form one volume.

A volume has one image at each position, all of one size, orientation and pixel spacing, at equal
distances along the normal of the images and straight above each other. Anything else would be
written with a geometry that is not the patient's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.multival import MultiValue

from nnunetv2_spmc.raw.cases import ConversionError, count_of
from nnunetv2_spmc.raw.checks import DIRECTION_TOLERANCE, SPACING_TOLERANCE
from nnunetv2_spmc.raw.dicom_files import printable
from nnunetv2_spmc.raw.dicom_slices import CONVERT, Slice

# Share of the slice distance by which a gap may differ from the others, and a slice from its place.
MAX_SLICE_DEVIATION = 0.1
# Share of a pixel by which a slice may lie to the side of the others; over a long scan the drift
# may also be as large as the tolerance of its direction.
MAX_SIDEWAYS = 0.1
# Share of the mean distance of neighbors below which two images lie at one position.
SAME_POSITION = 0.01
# What may tell the volumes of a series apart, as a message names it.
DIFFERENCES = {
    "time point": ("TemporalPositionIndex", "TemporalPositionIdentifier"),
    "b-value": ("DiffusionBValue",),
    "echo time": ("EffectiveEchoTime", "EchoTime", "EchoNumbers"),
    "trigger time": ("NominalCardiacTriggerDelayTime", "TriggerTime"),
    "acquisition": ("AcquisitionNumber",),
    "image type": ("FrameType", "ImageType"),
    "time": ("AcquisitionTime", "ContentTime"),
}


@dataclass(frozen=True)
class Stack:
    """The slices of one volume, the first one where the normal begins, and its geometry."""

    slices: tuple[Slice, ...]
    spacing: tuple[float, float, float]  # x, y, z in mm

    @property
    def size(self) -> tuple[int, int, int]:
        """Number of voxels along x, y, z."""
        return (*_size(self.slices[0]), len(self.slices))

    @property
    def origin(self) -> tuple[float, ...]:
        """Position of the first voxel in mm."""
        return tuple(self.slices[0].position.tolist())

    @property
    def direction(self) -> tuple[float, ...]:
        """Direction cosines as SimpleITK takes them."""
        first = self.slices[0]
        return tuple(np.column_stack([first.row, first.column, first.normal]).ravel().tolist())


def stack_of(slices: Sequence[Slice], folder: Path) -> Stack:
    """Order the slices of a series.

    Raises:
        ConversionError: If they are not one volume; says what they are instead.
    """
    _check_one(slices, _size, folder, "sizes", _same)
    _check_one(slices, lambda s: (*s.row, *s.column), folder, "orientations", _same_direction)
    _check_one(slices, lambda s: s.spacing, folder, "pixel spacings", _same_spacing)
    normal = slices[0].normal
    ordered = sorted(slices, key=lambda s: float(s.position @ normal))
    depths = np.array([s.position @ normal for s in ordered])
    if len(ordered) == 1:
        return Stack(tuple(ordered), (*ordered[0].spacing, _thickness(ordered[0])))
    _check_positions(ordered, depths, folder)
    _check_straight(ordered, depths, folder)
    _check_distances(ordered, depths, folder)
    distance = float(depths[-1] - depths[0]) / (len(ordered) - 1)
    return Stack(tuple(ordered), (*ordered[0].spacing, distance))


def _size(image: Slice) -> tuple[int, int]:
    return image.file.size


def _same(a: Any, b: Any) -> bool:
    return bool(a == b)


def _same_direction(a: Any, b: Any) -> bool:
    return bool(np.allclose(a, b, rtol=0, atol=DIRECTION_TOLERANCE))


def _same_spacing(a: Any, b: Any) -> bool:
    return bool(np.allclose(a, b, rtol=SPACING_TOLERANCE, atol=0))


def _check_one(
    slices: Sequence[Slice],
    fact: Callable[[Slice], tuple[float, ...]],
    folder: Path,
    noun: str,
    same: Callable[[Any, Any], bool],
) -> None:
    """Raise if the slices differ in a fact that those of a volume share."""
    kinds: list[list[Slice]] = []
    for image in slices:
        known = next((kind for kind in kinds if same(fact(kind[0]), fact(image))), None)
        if known is None:
            kinds.append([image])
        else:
            known.append(image)
    if len(kinds) == 1:
        return
    kinds.sort(key=len, reverse=True)
    parts = [
        f"{len(kind)} with ({', '.join(f'{value:.4g}' for value in fact(kind[0]))}) such as "
        f"{kind[0].name}"
        for kind in kinds[:3]
    ]
    more = f" and {count_of(len(kinds) - 3, 'more kind')}" if len(kinds) > 3 else ""
    raise ConversionError(
        f"The DICOM images in {folder} have {len(kinds)} {noun}, so they are not one volume: "
        f"{'; '.join(parts)}{more}; keep only those of one volume (no localizer), "
        f"or {CONVERT}."
    )


def _thickness(image: Slice) -> float:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = image.number(keyword)
        if value is not None and np.isfinite(value) and value > 0:
            return value
    raise ConversionError(
        f"{image.file.path} is a single slice and does not say how thick it is (SliceThickness); "
        "give all slices of the series, or a .nii.gz file with the right spacing."
    )


def _check_positions(ordered: Sequence[Slice], depths: np.ndarray, folder: Path) -> None:
    """Raise if there is more than one image at a position."""
    gaps = np.diff(depths)
    starts = np.flatnonzero(gaps > SAME_POSITION * gaps.mean()) + 1
    places = [list(place) for place in np.split(np.array(ordered, object), starts)]
    if len(places) == len(ordered):
        return
    counts = sorted({len(place) for place in places})
    fullest = max(places, key=len)
    names = f"{fullest[0].name} and {fullest[1].name}"
    if len({str(image.file.header.get("SOPInstanceUID")) for image in fullest}) == 1 and (
        fullest[0].file.num_frames == 1
    ):
        raise ConversionError(
            f"The DICOM series in {folder} holds the same image twice ({names}); remove the copies."
        )
    each = " or ".join(str(count) for count in counts)
    raise ConversionError(
        f"The DICOM series in {folder} is several volumes: {len(ordered)} images at "
        f"{count_of(len(places), 'position')}, {each} at each, such as {names}"
        f"{_difference(fullest)}; {CONVERT}."
    )


def _difference(images: Sequence[Slice]) -> str:
    """Say in what the images at one position differ, if the header tells."""
    for name, keywords in DIFFERENCES.items():
        for keyword in keywords:
            values = list(dict.fromkeys(_shown(image.value(keyword)) for image in images))
            if len(values) > 1:
                return f", which differ in {name} ({values[0]}, {values[1]})"
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return printable("/".join(value) if isinstance(value, MultiValue) else value)


def _check_straight(ordered: Sequence[Slice], depths: np.ndarray, folder: Path) -> None:
    """Raise if the slices are not straight above each other, as with a tilted gantry."""
    first = ordered[0]
    steps = np.array([image.position for image in ordered]) - first.position
    sideways = steps - np.outer(depths - depths[0], first.normal)
    off = np.linalg.norm(sideways, axis=1)
    length = depths[-1] - depths[0]
    if off.max() <= max(MAX_SIDEWAYS * min(first.spacing), DIRECTION_TOLERANCE * length):
        return
    drift = sideways[-1] / length  # mm to the side for each mm along the normal
    bend = np.linalg.norm(sideways - np.outer(depths - depths[0], drift), axis=1).max()
    if bend <= MAX_SLICE_DEVIATION * off.max():
        angle = np.degrees(np.arctan(np.linalg.norm(drift)))
        step = np.linalg.norm(sideways[-1]) / (len(ordered) - 1)
        raise ConversionError(
            f"The DICOM series in {folder} is sheared, as by a tilted gantry: each slice lies "
            f"{step:.3g} mm to the side of the one before, an angle of {angle:.1f} degrees, which "
            "an image file cannot say; convert it with dcm2niix, which straightens it, and give "
            "the .nii.gz file."
        )
    worst = int(off.argmax())
    raise ConversionError(
        f"The slices of the DICOM series in {folder} are not straight above each other: "
        f"{ordered[worst].name} lies {off[worst]:.3g} mm to the side of {first.name}; keep the "
        f"images of one volume, or {CONVERT}."
    )


def _check_distances(ordered: Sequence[Slice], depths: np.ndarray, folder: Path) -> None:
    """Raise if slices are missing, or not at equal distances."""
    gaps = np.diff(depths)
    usual = float(np.median(gaps))
    places = np.linspace(depths[0], depths[-1], len(depths))
    uneven = np.any(np.abs(gaps - usual) > MAX_SLICE_DEVIATION * usual)
    if not uneven and np.all(np.abs(depths - places) <= MAX_SLICE_DEVIATION * usual):
        return
    steps = np.maximum(np.rint(gaps / gaps.min()).astype(int), 1)
    unit = float(depths[-1] - depths[0]) / int(steps.sum())
    at = int(gaps.argmax())
    between = f"between {ordered[at].name} and {ordered[at + 1].name}"
    fits = np.all(np.abs(gaps - steps * unit) <= MAX_SLICE_DEVIATION * unit)
    if fits and steps.max() > 1 and np.count_nonzero(steps == 1) * 2 >= len(steps):
        missing = int(steps.sum()) - len(steps)
        verb = "slice is missing" if missing == 1 else "slices are missing"
        raise ConversionError(
            f"{missing} {verb} in the DICOM series in {folder}: the {len(ordered)} images lie "
            f"{unit:.3g} mm apart, but {gaps[at]:.3g} mm {between}; get the whole series."
        )
    raise ConversionError(
        f"The slices of the DICOM series in {folder} are not at equal distances: "
        f"{gaps.min():.3g} to {gaps.max():.3g} mm along their normal, the widest gap {between}; "
        f"keep the images of one volume, or resample it to equal distances, or {CONVERT}."
    )

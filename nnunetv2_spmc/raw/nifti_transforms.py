"""Where a NIfTI file places its voxels: its sform and its qform, and which of the two counts."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Header

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.geometry import SHEAR_TOLERANCE

SCALE_TOLERANCE = 1e-2  # relative
ITK_SHEAR_TOLERANCE = 1e-4  # an sform further from right angles counts for nothing in ITK
QUATERNION_TOLERANCE = 1e-3
DISTANCE_TOLERANCE = 0.1  # of the smallest voxel size


class ScanWarning(UserWarning):
    """What is not wrong with a scan but should be known."""


def check_transforms(file: Path, header: Nifti1Header, shape: Sequence[int]) -> None:
    """Check the transforms that a header sets; warn where the two differ.

    SimpleITK goes by the sform if its code is 1 (scanner) and its axes are at right angles, or if
    there is no qform; nibabel by the sform wherever there is one. nnU-Net reads with SimpleITK
    unless dataset.json says otherwise, or SimpleITK cannot read the first scan.

    Raises:
        DataError: If one is not finite, or the one that counts shears or contradicts the spacing.
    """
    has_qform, has_sform = int(header["qform_code"]) > 0, int(header["sform_code"]) > 0
    qform = _qform(header) if has_qform else None
    sform = np.asarray(header.get_sform(), float) if has_sform else None
    for name, transform in (("qform", qform), ("sform", sform)):
        if transform is not None and not np.isfinite(transform).all():
            raise DataError(
                f"{file} has a damaged {name} in its header, which places its voxels; get it again"
            )
    if sform is None or len(shape) < 3:
        return
    spacing = np.asarray(header["pixdim"][1:4], float)
    sform_counts = qform is None or (
        int(header["sform_code"]) == 1 and _shear(sform) <= ITK_SHEAR_TOLERANCE
    )
    if sform_counts:
        _check_sform(file, sform, spacing)
    if qform is None:
        return
    distance = _largest_distance(sform, qform, shape[:3])
    if distance > DISTANCE_TOLERANCE * spacing.min():
        counts, nibabels = ("sform", "too") if sform_counts else ("qform", "goes by the sform")
        warnings.warn(
            f"{file}: its sform and qform differ by up to {distance:.3g} mm; the {counts} counts "
            f"here and for SimpleITK, with which nnU-Net reads by default (nibabel {nibabels})",
            ScanWarning,
            stacklevel=2,
        )


def _qform(header: Nifti1Header) -> np.ndarray:
    """Return the qform, of NaN if its quaternion cannot be; one too long by rounding is none."""
    header = header.copy()
    names = ("quatern_b", "quatern_c", "quatern_d")
    length = float(np.linalg.norm([header[name] for name in names]))
    qfac = float(header["pixdim"][0])
    if not length <= 1 + QUATERNION_TOLERANCE or qfac not in (-1, 0, 1):  # NaN is not
        return np.full((4, 4), np.nan)
    header["pixdim"][0] = qfac or 1
    for name in names:
        header[name] = header[name] / max(length, 1)
    return np.asarray(header.get_qform(), float)


def _shear(sform: np.ndarray) -> float:
    """Return how far the axes are from right angles: 0, and 1 where they are of no use."""
    axes = sform[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not lengths.all():
        return 1.0
    return float(np.abs((axes / lengths).T @ (axes / lengths) - np.eye(3)).max())


def _check_sform(file: Path, sform: np.ndarray, spacing: np.ndarray) -> None:
    """Raise DataError if an sform shears, or does not fit to the spacing."""
    if _shear(sform) > SHEAR_TOLERANCE:
        raise DataError(f"{file} has an sform whose axes are not at right angles; resample it")
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    if not np.allclose(lengths, spacing, rtol=SCALE_TOLERANCE, atol=0):
        sizes = (" x ".join(f"{size:.4g}" for size in values) for values in (lengths, spacing))
        raise DataError(
            "{} contradicts itself: its sform has voxels of {} mm, its pixdim {} mm; correct its "
            "header".format(file, *sizes)
        )


def _largest_distance(one: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    """Return how far apart two transforms put a corner of the volume, in mm."""
    corners = np.array(list(itertools.product(*((0, size - 1) for size in shape))))
    difference = (one - other)[:3]
    return float(np.linalg.norm(corners @ difference[:, :3].T + difference[:, 3], axis=1).max())

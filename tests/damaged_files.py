"""Scans as broken copies and broken programs leave them: most readers raise nothing."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest


def halved(scan: Path, target: Path) -> None:
    """A copy that stopped half-way."""
    content = scan.read_bytes()
    target.write_bytes(content[: len(content) // 2])


def halved_nii(scan: Path, target: Path) -> None:
    """The same, of a file that was not compressed; its name is the target's, without .gz."""
    content = gzip.decompress(scan.read_bytes())
    target.with_suffix("").write_bytes(content[: len(content) // 2])


def with_bad_checksum(scan: Path, target: Path) -> None:
    """A copy with a wrong byte in the gzip trailer."""
    content = bytearray(scan.read_bytes())
    content[-8] ^= 1
    target.write_bytes(content)


def with_nan(scan: Path, target: Path) -> None:
    """The scan with a slice of NaN, as a division by zero leaves it."""
    image = nibabel.load(scan)
    array = image.get_fdata(dtype=np.float32)
    array[:, :, 3] = np.nan
    nibabel.save(nibabel.Nifti1Image(array, image.affine), target)


def with_infinity(scan: Path, target: Path) -> None:
    """The scan with one infinite voxel."""
    image = nibabel.load(scan)
    array = image.get_fdata(dtype=np.float32)
    array[1, 2, 3] = np.inf
    nibabel.save(nibabel.Nifti1Image(array, image.affine), target)


Damage = Callable[[Path, Path], None]
every_damage = pytest.mark.parametrize(
    ("damage", "message"),
    [
        (halved, "is truncated or damaged"),
        (halved_nii, "is truncated"),
        (with_bad_checksum, "is truncated or damaged"),
        (with_nan, "NaN or infinite voxels"),
        (with_infinity, "has 1 NaN or infinite voxels"),
    ],
)

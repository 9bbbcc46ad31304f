"""Read volumes: image files, frames of 4D files, arrays in h5 files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.cases import ConversionError
from nnunetv2_spmc.raw.nifti_check import num_dimensions
from nnunetv2_spmc.raw.pictures import PICTURE_ENDINGS
from nnunetv2_spmc.raw.scan import VOLUME_ENDINGS, read_header, read_scan
from nnunetv2_spmc.raw.voxel_values import check_values

__all__ = ["PICTURE_ENDINGS", "VOLUME_ENDINGS"]  # known to converters from here


@dataclass(frozen=True)
class ImageFile:
    """A file that SimpleITK reads."""

    path: Path

    def __str__(self) -> str:
        """The source, as messages and split.json name it."""
        return str(self.path)

    @property
    def is_3d_nifti_gz(self) -> bool:
        """Whether the file already has the format and the dimensions that are written."""
        return self.path.name.endswith(".nii.gz") and num_dimensions(self.path) == 3

    def read(self) -> sitk.Image:
        """Return the 3D volume; a fourth dimension of length 1 is dropped."""
        return _as_volume(_read(self.path), self.path)


@dataclass(frozen=True)
class FrameOf4D:
    """One time frame of a 4D file, counted from 1 as in the file names of ACDC."""

    path: Path
    frame: int

    def __str__(self) -> str:
        """The source, as messages and split.json name it."""
        return f"{self.path} (frame {self.frame})"

    def read(self) -> sitk.Image:
        """Return the 3D volume of the frame, time dropped from spacing and direction."""
        if not self.path.is_file():
            _read(self.path)  # says so
        stat = self.path.stat()
        image = _checked_file(self.path, stat.st_mtime_ns, stat.st_size)
        size = image.GetSize()
        if len(size) != 4 or not 1 <= self.frame <= size[3]:
            raise ConversionError(f"{self.path} has no frame {self.frame}, its size is {size}.")
        return _as_volume(image[:, :, :, self.frame - 1], self.path)


@lru_cache(maxsize=1)  # a worker meets the frames of a file one after the other
def _checked_file(path: Path, _mtime_ns: int, _size: int) -> sitk.Image:
    return _read(path)


def _read(path: Path) -> sitk.Image:
    """Read a scan or a label; which of the two it is, and may be constant, the writer knows."""
    try:
        return read_scan(path, kind="label")
    except DataError as error:
        raise ConversionError(f"{error}.") from error


@dataclass(frozen=True)
class H5Volume:
    """An array in an h5 file. h5 files of the literature hold no spacing: it is assumed."""

    path: Path
    key: str
    spacing_mm: tuple[float, float, float]  # x, y, z
    axes: Literal["xyz", "zyx"]

    def __str__(self) -> str:
        """The source, as messages and split.json name it."""
        return f"{self.path} ({self.key})"

    def read(self) -> sitk.Image:
        """Return the array as a volume with identity direction and origin 0."""
        try:
            import h5py
        except ImportError as error:
            raise ConversionError("Reading h5 files needs h5py: pip install h5py.") from error
        try:
            with h5py.File(self.path, "r") as file:
                array = self._array(file[self.key])
        except (OSError, KeyError) as error:
            raise ConversionError(f"Cannot read {self.key!r} of {self.path}: {error}.") from error
        try:
            check_values(array, str(self), "label")
        except DataError as error:
            raise ConversionError(f"{error}.") from error
        image = sitk.GetImageFromArray(array if self.axes == "zyx" else array.transpose(2, 1, 0))
        image.SetSpacing(self.spacing_mm)
        return image

    def _array(self, stored: Any) -> np.ndarray:
        """Return the voxels in a type of SimpleITK that loses nothing."""
        if not hasattr(stored, "dtype"):
            raise ConversionError(f"{self} is a group of arrays, expected an array.")
        if stored.ndim != 3:
            raise ConversionError(f"{self} has {stored.ndim} dimensions, expected 3.")
        if stored.dtype.kind not in "buif" or stored.dtype.itemsize > 8:
            raise ConversionError(
                f"{self} has values of type {stored.dtype}, expected numbers of up to 64 bits; "
                "convert them to float32."
            )
        if stored.is_virtual or stored.external or _is_partly_unwritten(stored):
            raise ConversionError(
                f"{self} is incomplete: voxels are in other files, or were never written, and "
                "would be read as zeros; write it again in one piece."
            )
        array = np.asarray(stored)
        exact = {"bool": np.uint8, "float16": np.float32}.get(array.dtype.name)
        return array.astype(exact or array.dtype.newbyteorder("="), copy=False)


def _is_partly_unwritten(stored: Any) -> bool:
    if stored.chunks is None:
        return bool(stored.size and not stored.id.get_storage_size())
    chunks = [-(-size // chunk) for size, chunk in zip(stored.shape, stored.chunks, strict=True)]
    return bool(stored.id.get_num_chunks() < math.prod(chunks))


def image_size(path: Path) -> tuple[int, ...]:
    """Return the size (x, y, z[, t]) that the header of an image file states."""
    try:
        return tuple(read_header(path).GetSize())
    except DataError as error:
        raise ConversionError(f"{error}.") from error


def _as_volume(image: sitk.Image, path: Path) -> sitk.Image:
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() == 4:
        raise ConversionError(
            f"{path} is a 4D file with {image.GetSize()[3]} volumes; split it into 3D files."
        )
    if image.GetDimension() != 3:
        raise ConversionError(f"{path} is a 2D image; only 3D volumes are supported.")
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise ConversionError(
            f"{path} has {image.GetNumberOfComponentsPerPixel()} values per voxel; "
            "write each channel to a file of its own."
        )
    return image

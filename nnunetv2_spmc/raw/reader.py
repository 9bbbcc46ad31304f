"""Read volumes: image files, frames of 4D files, arrays in h5 files."""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.cases import ConversionError
from nnunetv2_spmc.raw.nifti_check import NIFTI_ENDINGS, check_nifti, num_dimensions

VOLUME_ENDINGS = (
    ".nii.gz",
    ".nii",
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
    ".hdr",
    ".gipl.gz",
    ".gipl",
    ".mnc",
    ".vtk",
)
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


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
        check_complete(self.path)
        return _as_volume(_execute(sitk.ImageFileReader(), self.path), self.path)


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
            check_complete(self.path)  # says so
        stat = self.path.stat()
        image = _checked_file(self.path, stat.st_mtime_ns, stat.st_size)
        size = image.GetSize()
        if len(size) != 4 or not 1 <= self.frame <= size[3]:
            raise ConversionError(f"{self.path} has no frame {self.frame}, its size is {size}.")
        return _as_volume(image[:, :, :, self.frame - 1], self.path)


@lru_cache(maxsize=1)  # a worker meets the frames of a file one after the other
def _checked_file(path: Path, _mtime_ns: int, _size: int) -> sitk.Image:
    check_complete(path)
    return _execute(sitk.ImageFileReader(), path)


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
                array = np.asarray(file[self.key])
        except (OSError, KeyError) as error:
            raise ConversionError(f"Cannot read {self.key!r} of {self.path}: {error}.") from error
        if array.ndim != 3:
            raise ConversionError(f"{self} has {array.ndim} dimensions, expected 3.")
        image = sitk.GetImageFromArray(array if self.axes == "zyx" else array.transpose(2, 1, 0))
        image.SetSpacing(self.spacing_mm)
        return image


def read_file(path: Path) -> sitk.Image:
    """Return the image of a file as it is, of any dimension; nothing is checked.

    Raises:
        ConversionError: SimpleITK cannot read it.
    """
    return _execute(sitk.ImageFileReader(), path)


class _Quiet:
    """Keep ITK's warnings off the screen; what matters is checked here and raised."""

    def __enter__(self) -> None:
        self._shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)

    def __exit__(self, *_: object) -> None:
        sitk.ProcessObject.SetGlobalWarningDisplay(self._shown)


def _execute(reader: sitk.ImageFileReader, path: Path) -> sitk.Image:
    reader.SetFileName(str(path))
    if path.name.lower().endswith(NIFTI_ENDINGS):
        reader.SetImageIO("NiftiImageIO")  # else it tries all formats
    try:
        with _Quiet():
            return reader.Execute()
    except RuntimeError as error:
        raise ConversionError(
            f"Cannot read {path} ({_reason(error)}); get it again, or convert it to .nii.gz."
        ) from error


def _reason(error: RuntimeError) -> str:
    """The line of ITK's message that says most, without the `errno` of some earlier call."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("Reason:")]
    return re.sub(r"^sitk::ERROR: |ITK ERROR: |\(0x[0-9a-f]+\)", "", (telling or lines)[-1]).rstrip(
        ".!"
    )


def image_size(path: Path) -> tuple[int, ...]:
    """Return the size (x, y, z[, t]) that the header of an image file states."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with _Quiet():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise ConversionError(f"Cannot read the header of {path}; get it again.") from error
    return tuple(reader.GetSize())


def _as_volume(image: sitk.Image, path: Path) -> sitk.Image:
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() == 4:
        raise ConversionError(
            f"{path} is a 4D file with {image.GetSize()[3]} volumes; split it into 3D files."
        )
    if image.GetDimension() != 3:
        raise ConversionError(f"{path} is a 2D image; only 3D volumes are supported.")
    if "complex" in image.GetPixelIDTypeAsString():
        raise ConversionError(f"{path} has complex voxels; write their magnitude to a file.")
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise ConversionError(
            f"{path} has {image.GetNumberOfComponentsPerPixel()} values per voxel; "
            "write each channel to a file of its own."
        )
    return image


def check_complete(path: Path) -> None:
    """Raise if a file is missing, truncated or damaged, or a NIfTI file with NaN voxels.

    For NIfTI SimpleITK itself is silent: it fills a missing end and NaN voxels with zeros.
    """
    if not path.is_file():
        raise ConversionError(f"The file {path} does not exist; get it, or remove the case.")
    if path.name.lower().endswith(NIFTI_ENDINGS):
        try:
            check_nifti(path)
        except DataError as error:
            raise ConversionError(f"{error}.") from error
        return
    is_gzip = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path) if is_gzip else path.open("rb") as file:
            is_empty = not file.read(1)
            while is_gzip and file.read(1 << 22):  # to the checksum at the end
                pass
    except (EOFError, OSError, zlib.error) as error:
        raise ConversionError(f"{path} is truncated or damaged ({error}); get it again.") from error
    if is_empty:
        raise ConversionError(f"{path} is empty; get it again.")

"""Find what image readers pass over in silence: truncated NIfTI files, NaN in them, and twins.

ITK fills the missing end of a NIfTI file with zeros, replaces NaN and infinite voxels by zero, and
reads scan.nii where it is asked for a scan.nii.gz beside it, all without a word; a scan would then
be trained on that is not the scan.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any, Protocol

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError

from nnunetv2_spmc.common.errors import DataError

NIFTI_ENDINGS = (".nii", ".nii.gz")
BLOCK_BYTES = 1 << 22  # a multiple of every voxel size


class ByteStream(Protocol):
    """An open file, compressed or not."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        ...


def check_nifti(file: Path) -> None:
    """Read a NIfTI file once, in blocks, to its end.

    Raises:
        DataError: If it is truncated, damaged, has NaN or infinite voxels, or would not be read.
    """
    uncompressed = file.with_suffix("")
    if file.suffix.lower() == ".gz" and uncompressed.is_file():
        raise DataError(
            f"{file} and {uncompressed} lie side by side, and ITK reads the second for the first; "
            "remove one of them"
        )
    try:
        image: Any = nibabel.load(file)
        array = image.dataobj  # not read yet
        num_bytes = math.prod(array.shape) * array.dtype.itemsize
        with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as stream:
            _skip(stream, int(array.offset))
            missing, bad_voxels = _read_voxels(stream, num_bytes, array.dtype)
            while stream.read(BLOCK_BYTES):  # gzip compares its checksum at the very end
                pass
    except (OSError, EOFError, zlib.error, ValueError, ImageFileError) as error:
        raise DataError(f"{file} is truncated or damaged ({error}); get it again") from error
    if missing:
        raise DataError(f"{file} is truncated, {missing} bytes are missing; get it again")
    if bad_voxels:
        raise DataError(
            f"{file} has {bad_voxels} NaN or infinite voxels; replace them by a sensible value"
        )


def check_gzip(file: Path, num_bytes: int) -> None:
    """Check a file that was just written by its checksum, at half the cost of `check_nifti`.

    Raises:
        DataError: If it is not whole, or holds less than so many bytes.
    """
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # of gzip
    size = 0
    try:
        with file.open("rb") as compressed:
            while block := compressed.read(1 << 16):  # may become a thousand times as long
                size += len(stream.decompress(block))
    except (OSError, zlib.error) as error:
        raise DataError(f"{file} is damaged ({error})") from error
    if not stream.eof or size < num_bytes:
        raise DataError(f"{file} is truncated")


def num_dimensions(file: Path) -> int:
    """Return how many axes the header of a NIfTI file states; the file has been checked."""
    image: Any = nibabel.load(file)
    return len(image.shape)


def _skip(stream: ByteStream, num_bytes: int) -> None:
    while num_bytes > 0 and (block := stream.read(min(num_bytes, BLOCK_BYTES))):
        num_bytes -= len(block)


def _read_voxels(stream: ByteStream, num_bytes: int, dtype: np.dtype) -> tuple[int, int]:
    """Return how many bytes are missing and how many voxels are NaN or infinite."""
    bad_voxels = 0
    while num_bytes > 0 and (block := stream.read(min(num_bytes, BLOCK_BYTES))):
        num_bytes -= len(block)
        if dtype.kind in "fc":
            whole = len(block) // dtype.itemsize * dtype.itemsize
            finite = np.isfinite(np.frombuffer(block[:whole], dtype))
            bad_voxels += int(finite.size - np.count_nonzero(finite))
    return num_bytes, bad_voxels

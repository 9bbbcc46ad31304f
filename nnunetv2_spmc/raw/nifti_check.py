"""Find what image readers pass over in silence in NIfTI and Analyze files.

ITK fills the missing end of such a file with zeros, replaces NaN and infinite voxels by zero, takes
a spacing of 0 for 1 and a factor of NaN for none, and reads scan.nii where it is asked for a
scan.nii.gz next to it, all without a word; a scan would then be trained on that is not the scan.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.analyze import AnalyzeHeader
from nibabel.nifti1 import Nifti1Header, data_type_codes
from nibabel.nifti2 import Nifti2Header

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.detached_data import pair_image
from nnunetv2_spmc.raw.geometry import check_spacing
from nnunetv2_spmc.raw.nifti_transforms import check_transforms
from nnunetv2_spmc.raw.voxel_data import VoxelData, check_length
from nnunetv2_spmc.raw.voxel_values import Kind, ValueRange

NIFTI_ENDINGS = (".nii", ".nii.gz")
PAIR_ENDING = ".hdr"
GZIP_START = b"\x1f\x8b"
READABLE_TYPES = {  # code -> numpy's name
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
VALUES_PER_VOXEL = {128: 3, 2304: 4}  # RGB, RGBA
COMPLEX_TYPES = (32, 1792, 2048)


def check_nifti(file: Path, *, kind: Kind = "label") -> int:
    """Compare a NIfTI or Analyze file with its own header, and read it once, in blocks, to its end.

    Args:
        file: a .nii, a .nii.gz, or the .hdr of a pair; capitals do not matter.
        kind: an image must have more than one value.

    Returns:
        2 for NIfTI-2, which SimpleITK does not read, else 1.

    Raises:
        DataError: If it is truncated, damaged, has NaN or infinite voxels, contradicts itself, or
            would not be read.
    """
    uncompressed = file.with_suffix("")
    if file.suffix.lower() == ".gz" and uncompressed.is_file():
        raise DataError(
            f"{file} and {uncompressed} lie side by side, and ITK reads the second for the first; "
            "remove one of them"
        )
    header = _read_header(file)
    shape, dtype = _shape(file, header), _dtype(file, header)
    _check_spacing(file, header, min(len(shape), 3))
    slope, inter = 1.0, 0.0
    if isinstance(header, Nifti1Header):
        slope, inter = _scaling(file, header)
        check_transforms(file, header, shape)
    values = ValueRange()
    check_length(file, _voxel_data(file, header), shape, dtype, values)
    values.check(str(file), kind, slope, inter)
    return 2 if isinstance(header, Nifti2Header) else 1


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


def _read_header(file: Path) -> AnalyzeHeader:
    """Return the header as it is, in the byte order of the file; nibabel.load would correct it."""
    try:
        with file.open("rb") as stream:
            is_gzip = stream.read(2) == GZIP_START
        if is_gzip != (file.suffix.lower() == ".gz"):
            raise DataError(
                f"{file} is compressed by gzip; name it .nii.gz"
                if is_gzip
                else f"{file} is truncated or damaged, or not compressed by gzip; compress it, or "
                "name it .nii"
            )
        with gzip.open(file) if is_gzip else file.open("rb") as stream:
            start = stream.read(Nifti2Header.sizeof_hdr)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} is truncated or damaged ({error}); get it again") from error
    is_pair = file.suffix.lower() == PAIR_ENDING
    for header_class in (Nifti2Header, Nifti1Header, *([AnalyzeHeader] if is_pair else [])):
        size = header_class.sizeof_hdr
        if len(start) >= size and header_class.may_contain_header(start):
            header = header_class(start[:size], check=False)
            if is_pair and bytes(header.get("magic", b"")).startswith(b"n+"):
                break  # of a file with header and voxels
            return header
    raise DataError(
        f"{file} is truncated or damaged, or no NIfTI file: it does not begin with a header; get "
        "it again, or convert it to .nii.gz"
    )


def _shape(file: Path, header: AnalyzeHeader) -> tuple[int, ...]:
    dim = [int(number) for number in header["dim"]]
    shape = tuple(dim[1 : 1 + dim[0]])
    if not 1 <= dim[0] <= 7 or min(shape) < 1:
        raise DataError(
            f"{file} has a damaged header: {dim[0]} axes of {', '.join(map(str, dim[1:]))} voxels; "
            "get it again"
        )
    values = math.prod(shape[4:])
    if values > 1 and shape[3] == 1:
        raise _several_values(file, values)
    if values > 1 or len(shape) == 1:
        raise DataError(
            f"{file} has {' x '.join(map(str, shape))} voxels, expected three axes; write each "
            "volume to a file of its own"
        )
    return shape


def _several_values(file: Path, number: int) -> DataError:
    return DataError(
        f"{file} has {number} values per voxel, expected 1; write each channel to a file of its own"
    )


def _dtype(file: Path, header: AnalyzeHeader) -> np.dtype:
    code, bits = int(header["datatype"]), int(header["bitpix"])
    if code in VALUES_PER_VOXEL:
        raise _several_values(file, VALUES_PER_VOXEL[code])
    if code in COMPLEX_TYPES:
        raise DataError(f"{file} has complex voxels; write their magnitude to a file")
    if code not in READABLE_TYPES:
        name = f" ({data_type_codes.label[code]})" if code in data_type_codes.code else ""
        raise DataError(
            f"{file} has voxels of datatype {code}{name}, which SimpleITK does not read; convert "
            "it to float32, or get it again"
        )
    dtype = np.dtype(f"{header.endianness}{READABLE_TYPES[code]}")
    if bits not in (0, 8 * dtype.itemsize):
        raise DataError(
            f"{file} contradicts itself: voxels of datatype {code} ({dtype.name}) have "
            f"{8 * dtype.itemsize} bits, its header says {bits}; get it again"
        )
    return dtype


def _check_spacing(file: Path, header: AnalyzeHeader, num_axes: int) -> None:
    """Check it as the header has it; readers replace what is not positive."""
    unit_mm = 1.0
    if isinstance(header, Nifti1Header):
        unit_mm = {1: 1000.0, 3: 0.001}.get(int(header["xyzt_units"]) & 7, 1.0)  # m, micrometres
    check_spacing(file, [float(size) * unit_mm for size in header["pixdim"][1 : 1 + num_axes]])


def _scaling(file: Path, header: AnalyzeHeader) -> tuple[float, float]:
    """Return by what voxels are multiplied and what is added; refuse what readers take differently.

    A factor of 0 means that there is none.
    """
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    is_none = slope == 0 and inter == 0
    if not is_none and not (abs(slope) > np.finfo(float).eps and np.isfinite([slope, inter]).all()):
        raise DataError(
            f"{file} scales its voxels by scl_slope {slope:g} and scl_inter {inter:g}, which "
            "readers take differently; correct its header, with 1 and 0 if the voxels are right"
        )
    return (1.0, 0.0) if is_none else (slope, inter)


def _voxel_data(file: Path, header: AnalyzeHeader) -> VoxelData:
    offset, single = float(header["vox_offset"]), file.suffix.lower() != PAIR_ENDING
    smallest = 0
    if single:
        smallest = header.sizeof_hdr + 4  # by the standard; readers begin at different bytes
    if not smallest <= offset < 2**62:  # NaN is not
        raise DataError(
            f"{file} has its voxels at byte {offset:g} by its header (vox_offset), but they begin "
            f"at {smallest} or later; get it again, or correct the header"
        )
    image = file if single else pair_image(file)
    is_gzip = image.suffix.lower() == ".gz"
    return VoxelData((image,), skip=int(offset), encoding="gzip" if is_gzip else "raw")

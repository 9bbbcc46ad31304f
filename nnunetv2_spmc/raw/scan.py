"""What every scan and every label must be before it is used, whichever command reads it.

Whole by its own header, finite, not constant, one value per voxel, two or three axes (four where a
file holds several volumes), a geometry that can be, and of a type that is read without a loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import SimpleITK as sitk

from nnunetv2_spmc.common.errors import DataError, reason_of
from nnunetv2_spmc.common.text import check_name
from nnunetv2_spmc.raw.detached_data import find_voxels, pair_image
from nnunetv2_spmc.raw.geometry import check_placement, check_spacing
from nnunetv2_spmc.raw.nifti_check import NIFTI_ENDINGS, PAIR_ENDING, check_nifti
from nnunetv2_spmc.raw.pictures import PICTURE_ENDINGS, TIF_ENDINGS, check_picture
from nnunetv2_spmc.raw.voxel_data import check_length
from nnunetv2_spmc.raw.voxel_values import Kind, check_values

IMAGE_IO = {  # of SimpleITK, which would try all of them
    ".nii.gz": "NiftiImageIO",
    ".nii": "NiftiImageIO",
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
    ".hdr": "NiftiImageIO",
    ".gipl.gz": "GiplImageIO",
    ".gipl": "GiplImageIO",
    ".mnc": "MINCImageIO",
    ".vtk": "VTKImageIO",
}
VOLUME_ENDINGS = tuple(IMAGE_IO)
LARGEST_PACKING = 1100  # bytes in one of a gzip file, at most
NUMPY_TYPES = {
    sitk.sitkUInt8: "u1",
    sitk.sitkInt8: "i1",
    sitk.sitkUInt16: "u2",
    sitk.sitkInt16: "i2",
    sitk.sitkUInt32: "u4",
    sitk.sitkInt32: "i4",
    sitk.sitkUInt64: "u8",
    sitk.sitkInt64: "i8",
    sitk.sitkFloat32: "f4",
    sitk.sitkFloat64: "f8",
}


def check_scan(file: Path, *, kind: Kind = "image") -> None:
    """Check a file that another library reads.

    Args:
        file: any file; of formats that nnU-Net does not read, only that it is there is checked.
        kind: an image must have more than one value, a label may be empty.

    Raises:
        DataError: If it is not what a scan or a label must be.
    """
    ending = _ending(file, (*VOLUME_ENDINGS, *PICTURE_ENDINGS))
    _check_there(file)
    if ending in PICTURE_ENDINGS:
        check_picture(file, kind=kind)
    elif ending in (*NIFTI_ENDINGS, PAIR_ENDING):
        check_nifti(file, kind=kind)  # not with SimpleITK: nnU-Net may read it with nibabel
    elif ending:
        _read_checked(file, ending, kind)


def read_scan(file: Path, *, kind: Kind = "image") -> sitk.Image:
    """Read a file that SimpleITK reads, of two to four axes, and check it.

    Args:
        file: a file with one of `VOLUME_ENDINGS`, or any other that SimpleITK knows.
        kind: an image must have more than one value, a label may be empty.

    Raises:
        DataError: If it is not what a scan or a label must be.
    """
    _check_there(file)
    ending = _ending(file, VOLUME_ENDINGS)
    if ending in (*NIFTI_ENDINGS, PAIR_ENDING):
        if check_nifti(file, kind=kind) == 2:
            raise DataError(
                f"{file} is a NIfTI-2 file, which SimpleITK does not read; write it as NIfTI-1, "
                "with nibabel.Nifti1Image.from_image for example"
            )
        with _reader(file, ending) as reader:
            _check_header(file, reader)
            return execute(reader, file)
    if _ending(file, TIF_ENDINGS):
        check_picture(file, kind=kind)
    return _read_checked(file, ending, kind)


def read_as_it_is(file: Path) -> sitk.Image:
    """Return the image of a file, of any dimension and number of values per voxel.

    Nothing is checked but that the file is there and may hold as many voxels as its header says.

    Raises:
        DataError: If it cannot be read.
    """
    _check_there(file)
    ending = _ending(file, VOLUME_ENDINGS)
    is_nifti = ending in (*NIFTI_ENDINGS, PAIR_ENDING)
    data_files = () if is_nifti else find_voxels(file, ending).files
    with _reader(file, ending, data_files) as reader:
        files = (pair_image(file),) if ending == PAIR_ENDING else data_files or (file,)
        num_bytes = sum(path.stat().st_size for path in files)
        if ending and math.prod(reader.GetSize()) > LARGEST_PACKING * num_bytes:
            raise DataError(f"{file} is truncated, or its header is damaged; get it again")
        return execute(reader, file)


def _read_checked(file: Path, ending: str, kind: Kind) -> sitk.Image:
    data = find_voxels(file, ending)
    with _reader(file, ending, data.files) as reader:
        _check_header(file, reader)
        dtype = np.dtype(NUMPY_TYPES[reader.GetPixelID()])
        check_length(file, data, reader.GetSize(), dtype)
        image = execute(reader, file)
    check_values(sitk.GetArrayViewFromImage(image), str(file), kind)
    return image


def _ending(file: Path, endings: Sequence[str]) -> str:
    """Return which of the endings a file has, in capitals or not; "" for none."""
    return next((ending for ending in endings if file.name.lower().endswith(ending)), "")


def _check_there(file: Path) -> None:
    check_name(file)  # the libraries that read it would end the program
    if file.is_dir():
        raise DataError(f"{file} is a folder, not a file; name a file")
    if file.is_symlink() and not file.exists():
        raise DataError(
            f"{file} is a link to {file.readlink()}, which does not exist; get it, or remove the "
            "case"
        )
    if not file.is_file():
        raise DataError(f"The file {file} does not exist; get it, or remove the case")
    try:
        with file.open("rb") as stream:
            is_empty = not stream.read(1)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})") from error
    if is_empty:
        raise DataError(f"{file} is truncated, it is empty; get it again")


@contextmanager
def _reader(
    file: Path, ending: str, data_files: Sequence[Path] = ()
) -> Iterator[sitk.ImageFileReader]:
    """Give a reader that has read the header of a file."""
    reader = sitk.ImageFileReader()
    if ending:
        reader.SetImageIO(IMAGE_IO[ending])
    with ExitStack() as stack:
        path = file
        links = _links(file, ending, data_files)
        if links:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            for name, target in links.items():
                (folder / name).symlink_to(target.resolve())
            path = folder / f"scan{ending}"
        reader.SetFileName(str(path))
        try:
            with Quiet():
                reader.ReadImageInformation()
        except RuntimeError as error:
            raise _unreadable(file, error, path) from error
        yield reader


def _links(file: Path, ending: str, data_files: Sequence[Path]) -> dict[str, Path]:
    """Return under which names SimpleITK reads a file, which knows most endings in lower case only.

    Nothing where it reads it under its own.
    """
    if ending == PAIR_ENDING:
        image = pair_image(file)
        image_ending = ".img.gz" if image.suffix.lower() == ".gz" else ".img"
        if file.name.removesuffix(ending) == image.name.removesuffix(image_ending):
            return {}
        return {f"scan{ending}": file, f"scan{image_ending}": image}
    if file.name.endswith(ending):
        return {}
    return {data.name: data for data in data_files} | {f"scan{ending}": file}


def read_header(file: Path) -> sitk.ImageFileReader:
    """Return a reader that has read the header of a file, which is not checked.

    Raises:
        DataError: If it is missing, or has no header that SimpleITK reads.
    """
    _check_there(file)
    with _reader(file, _ending(file, VOLUME_ENDINGS)) as reader:
        return reader


def execute(reader: sitk.ImageFileReader | sitk.ImageSeriesReader, file: Path) -> sitk.Image:
    """Read what a reader is set to; raise DataError if it cannot be read."""
    try:
        with Quiet():
            return reader.Execute()
    except RuntimeError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: RuntimeError, linked_as: Path | None = None) -> DataError:
    reason = reason_of(error).replace(str(linked_as or file), str(file))
    if "orthonormal" in reason:
        return DataError(
            f"{file} has an sform whose axes are not quite at right angles, and SimpleITK does not "
            "read it; with nibabel, save it after set_qform(affine) and set_sform(get_qform())"
        )
    return DataError(f"Cannot read {file} ({reason}); get it again, or convert it to .nii.gz")


def _check_header(file: Path, reader: sitk.ImageFileReader) -> None:
    """Check what a header says before any memory is taken for the voxels."""
    size, num_values = reader.GetSize(), reader.GetNumberOfComponents()
    if num_values != 1:
        raise DataError(
            f"{file} has {num_values} values per voxel, expected 1; write each channel to a file "
            "of its own"
        )
    if reader.GetPixelID() not in NUMPY_TYPES:
        name = sitk.GetPixelIDValueAsString(reader.GetPixelID())
        if "complex" in name:
            raise DataError(f"{file} has complex voxels; write their magnitude to a file")
        raise DataError(f"{file} has voxels of type {name}; convert them to float32")
    if not 2 <= len(size) <= 4:
        raise DataError(
            f"{file} has {len(size)} axes of {' x '.join(map(str, size))} voxels, expected 3; "
            "write each volume to a file of its own"
        )
    if min(size) < 1 or math.prod(size) >= 2**62:
        raise DataError(
            f"{file} has a damaged header: {' x '.join(map(str, size))} voxels; get it again"
        )
    check_spacing(file, reader.GetSpacing()[:3])
    check_placement(file, reader.GetDirection(), reader.GetOrigin())


class Quiet:
    """Keep ITK's warnings off the screen; what matters is checked here and raised."""

    def __enter__(self) -> None:
        self._shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)

    def __exit__(self, *_: object) -> None:
        sitk.ProcessObject.SetGlobalWarningDisplay(self._shown)

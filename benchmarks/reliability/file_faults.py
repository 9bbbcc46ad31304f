"""What can be wrong with the file of a scan: a function each, which breaks a whole .nii.gz file."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk

Break = Callable[[Path], None]


@dataclass(frozen=True)
class FileFault:
    """A fault of a file, and what it applies to: "image", "label" or both."""

    name: str
    apply: Break
    images: bool = True
    labels: bool = True


def _header(offset: int, layout: str, *values: float) -> Break:
    """Overwrite bytes of the NIfTI header: https://nifti.nimh.nih.gov/nifti-1."""

    def apply(file: Path) -> None:
        content = bytearray(gzip.decompress(file.read_bytes()))
        struct.pack_into(layout, content, offset, *values)
        file.write_bytes(gzip.compress(bytes(content)))

    return apply


def _voxels(change: Callable[[np.ndarray], np.ndarray]) -> Break:
    def apply(file: Path) -> None:
        image: Any = nibabel.load(file)
        array = change(np.asarray(image.dataobj))
        nibabel.save(nibabel.Nifti1Image(array, image.affine), file)

    return apply


def _bytes(change: Callable[[bytes], bytes]) -> Break:
    def apply(file: Path) -> None:
        file.write_bytes(change(file.read_bytes()))

    return apply


def _raw_bytes(change: Callable[[bytes], bytes]) -> Break:
    return _bytes(lambda content: gzip.compress(change(gzip.decompress(content))))


def _one(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float32)
        array[tuple(size // 2 for size in array.shape)] = value
        return array

    return change


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _dangling(file: Path) -> None:
    file.unlink()
    os.symlink(file.parent / "gone.nii.gz", file)


def _rgb(file: Path) -> None:
    image = sitk.ReadImage(str(file))
    grey = sitk.Cast(sitk.RescaleIntensity(image), sitk.sitkUInt8)
    sitk.WriteImage(sitk.Compose(grey, grey, grey), str(file))


def _with_twin(file: Path) -> None:
    """scan.nii next to scan.nii.gz: ITK reads the first when asked for the second."""
    file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes())[:400])


def _noise(content: bytes) -> bytes:
    return np.random.default_rng(0).integers(0, 256, len(content), np.uint8).tobytes()


def _flipped_checksum(content: bytes) -> bytes:
    return content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]


FILE_FAULTS = (
    FileFault("an empty file", _bytes(lambda content: b"")),
    FileFault("half of the file", _bytes(lambda content: content[: len(content) // 2])),
    FileFault("the last byte missing", _bytes(lambda content: content[:-1])),
    FileFault("a wrong checksum", _bytes(_flipped_checksum)),
    FileFault("random bytes", _bytes(_noise)),
    FileFault("a text file", _bytes(lambda content: b"see the other disk\n")),
    FileFault("a header alone", _raw_bytes(lambda content: content[:352])),
    FileFault("half of the header", _raw_bytes(lambda content: content[:174])),
    FileFault("a voxel missing at the end", _raw_bytes(lambda content: content[:-2])),
    FileFault("a folder of that name", _folder),
    FileFault("a dangling link", _dangling),
    FileFault("a broken .nii next to the .nii.gz", _with_twin),
    FileFault("one NaN", _voxels(_one(np.nan))),
    FileFault("one infinite voxel", _voxels(_one(np.inf))),
    FileFault("one value everywhere", _voxels(lambda a: np.full_like(a, 7)), labels=False),
    FileFault("complex voxels", _voxels(lambda a: a.astype(np.complex64))),
    FileFault("three values per voxel", _rgb),
    FileFault("two time points", _voxels(lambda a: np.stack([a, a], axis=-1))),
    FileFault("an unknown datatype", _header(70, "<h", 999)),
    FileFault("voxels that start before the file", _header(108, "<f", -352.0)),
    FileFault("voxels that start behind its end", _header(108, "<f", 1e9)),
    FileFault("no axes", _header(40, "<h", 0)),
    FileFault("a size of zero", _header(42, "<h", 0)),
    FileFault("a size below zero", _header(42, "<h", -4)),
    FileFault("sizes beyond the file", _header(42, "<3h", 30000, 30000, 30000)),
    FileFault("a voxel size of NaN", _header(80, "<f", np.nan)),
    FileFault("a voxel size of zero", _header(80, "<3f", 0, 0, 0)),
    FileFault("a voxel of a kilometre", _header(80, "<f", 1e6)),
    FileFault("values that are not integers", _voxels(lambda a: a + np.float32(0.3)), images=False),
    FileFault("a value of no class", _voxels(_one(77)), images=False),
    FileFault("another shape", _voxels(lambda a: a[:-2]), images=False),
)

"""Write the maps of a case in the geometry of its images."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import SimpleITK as sitk
import tifffile
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from nnunetv2_spmc.common.errors import DataError, reason_of
from nnunetv2_spmc.common.whole_file import WriteError, files_below, whole_files, writing
from nnunetv2_spmc.inference.case_maps import CaseMaps
from nnunetv2_spmc.methods import TRAINERS
from nnunetv2_spmc.raw.scan import check_scan
from nnunetv2_spmc.unlabeled.raw_images import NATURAL_IMAGE_ENDINGS

# as those of nnU-Net's readers and writers
Reader = Callable[[str], tuple[np.ndarray, dict[str, Any]]]
Writer = Callable[[np.ndarray, str, dict[str, Any]], None]

CONFIDENCE = "confidence"
SUSPICIOUS = "suspicious"
COMMON_DIFFICULTY = "common_difficulty"
SECOND_BRANCHES = {name for trainer in TRAINERS for name in getattr(trainer, "branches", ())[1:]}
MAP_FOLDERS = (CONFIDENCE, SUSPICIOUS, COMMON_DIFFICULTY, *sorted(SECOND_BRANCHES))


class StoredMaps(NamedTuple):
    """What is shown of the maps of a case, (z, y, x): float confidence, bool common difficulty."""

    confidence: np.ndarray
    common_difficulty: np.ndarray | None


def write_maps(
    output_folder: Path, case: str, maps: CaseMaps, reader_writer: Any, file_ending: str
) -> list[Path]:
    """Write all maps of a case, or none of them.

    OUT/CASE.nii.gz is the segmentation of the main branch; the other maps have the same file name
    in the subfolders confidence, suspicious, common_difficulty and that of the second branch's name
    (auxiliary in SPMC). A map of an earlier model that this one does not give is removed.

    Args:
        output_folder: created if need be.
        case: identifier of the case.
        maps: from `predict_case`.
        reader_writer: nnU-Net's reader and writer of the dataset.
        file_ending: of the dataset. Formats that cannot hold float32 (pictures) and .tiff get their
            confidence as .tif.

    Returns:
        The written files; the segmentation last, so that it marks a finished case.

    Raises:
        WriteError: a map could not be written, or one of an earlier model not removed.
    """
    output_folder.mkdir(parents=True, exist_ok=True)
    labels = {
        SUSPICIOUS: maps.suspicious,
        COMMON_DIFFICULTY: maps.common_difficulty,
        **({} if maps.second is None else {maps.second_name: maps.second}),
        "": maps.segmentation,
    }

    def write(path: Path, array: np.ndarray, write: Writer, read: Reader) -> None:
        with writing(root / path, output_folder / path, partial(_check, array, read)):
            (root / path).parent.mkdir(exist_ok=True)
            write(array, str(root / path), maps.properties)

    confidence = maps.confidence.astype(np.float32, copy=False)
    with whole_files(output_folder) as root:
        if maps.properties.keys() & {"sitk_stuff", "nibabel_stuff"}:
            file = Path(CONFIDENCE, f"{case}{file_ending}")
            write(file, confidence, _write_float, lambda name: reader_writer.read_images([name]))
        else:
            is_picture = file_ending in NATURAL_IMAGE_ENDINGS and len(confidence) == 1
            array = confidence[0] if is_picture else confidence
            write(Path(CONFIDENCE, f"{case}.tif"), array, _write_tif, _read_tif)
        for name, array in labels.items():
            if array is not None:
                file = Path(name, f"{case}{file_ending}")
                write(file, array, reader_writer.write_seg, reader_writer.read_seg)
        written = files_below(root)
        _give_one_time([root / file for file in written])
        names = (f"{case}{file_ending}", f"{case}.tif")
        _remove_others(output_folder, [Path(f, n) for f in MAP_FOLDERS for n in names], written)
    return [output_folder / path for path in written]


def read_stored_maps(
    folder: Path, case: str, reader_writer: Any, file_ending: str, newer_than: float = 0
) -> StoredMaps | None:
    """Return the maps of a case that `write_maps` has written, None without its confidence.

    A map that is older than the segmentation belongs to an earlier one, and is not read.

    Args:
        folder: where the segmentation lies.
        case: identifier of the case.
        reader_writer: nnU-Net's reader and writer of the dataset.
        file_ending: of the dataset.
        newer_than: seconds; older maps are those of an earlier model.

    Raises:
        DataError: a map is damaged.
    """
    name = f"{case}{file_ending}"
    oldest = max(newer_than, _time_of(folder / name))
    file = folder / CONFIDENCE / name
    if not file.is_file():
        file = file.with_name(f"{case}.tif")
    if not file.is_file() or _time_of(file) < oldest:
        return None
    if file.suffix == ".tif":
        confidence = _read_map(file, _read_tif)
    else:
        confidence = _read_map(file, lambda name: reader_writer.read_images([name]))
    difficult = folder / COMMON_DIFFICULTY / name
    if not difficult.is_file() or _time_of(difficult) < oldest:
        return StoredMaps(confidence, None)
    return StoredMaps(confidence, _read_map(difficult, reader_writer.read_seg) > 0)


def _remove_others(folder: Path, maps: Iterable[Path], written: Collection[Path]) -> None:
    """Remove those maps of a case that were not written now, and folders that are empty then."""
    for path in maps:
        file = folder / path
        if path in written or not file.is_file():
            continue
        try:
            file.unlink()
        except OSError as error:
            raise WriteError(
                f"{file} is of an earlier model and cannot be removed ({error.strerror}); remove "
                "it, or name another folder"
            ) from error
        with suppress(OSError):  # of other cases
            file.parent.rmdir()


def _time_of(file: Path) -> float:
    return file.stat().st_mtime if file.is_file() else 0


def _give_one_time(files: Sequence[Path]) -> None:
    """Give files the time of the last one, which tells them from those of an earlier prediction."""
    last = files[-1].stat()
    for file in files:
        with suppress(OSError):  # a file system that keeps its own times
            os.utime(file, ns=(last.st_atime_ns, last.st_mtime_ns))


def _read_map(file: Path, read: Reader) -> np.ndarray:
    check_scan(file, kind="label")  # a map may be constant
    try:
        array = read(str(file))[0][0]
    except Exception as error:  # readers raise all kinds
        raise DataError(f"{file} cannot be read ({reason_of(error)})") from error
    return array if array.ndim == 3 else array[None]


def _check(array: np.ndarray, read: Reader, file: Path) -> None:
    """Read a map back: SimpleITK and others do not say that a disk is full."""
    check_scan(file, kind="label")  # a map may be constant
    if not np.array_equal(read(str(file))[0][0], array):
        raise DataError(f"{file} does not hold what was written")


def _write_float(array: np.ndarray, file: str, properties: dict[str, Any]) -> None:
    """Write a float32 map, which nnU-Net's writers of segmentations would round to integers."""
    if "sitk_stuff" in properties:
        sitk.WriteImage(_sitk_image(array, properties["sitk_stuff"]), file, True)
    else:
        nibabel.save(_nibabel_image(array, properties["nibabel_stuff"]), file)


def _write_tif(array: np.ndarray, file: str, _properties: dict[str, Any]) -> None:
    tifffile.imwrite(file, array)


def _read_tif(file: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the array as nnU-Net's readers do, with a channel in front."""
    return tifffile.imread(file)[None], {}


def _sitk_image(array: np.ndarray, geometry: dict[str, Any]) -> sitk.Image:
    """Mirror SimpleITKIO.write_seg and SimpleITKIOWithReorient.write_seg (nnunetv2 2.8.1)."""
    image = sitk.GetImageFromArray(array if len(geometry["spacing"]) == 3 else array[0])
    image.SetSpacing(geometry["spacing"])
    image.SetOrigin(geometry["origin"])
    image.SetDirection(geometry["direction"])
    orientation = geometry.get("original_orientation")
    return image if orientation is None else sitk.DICOMOrient(image, orientation)


def _nibabel_image(array: np.ndarray, geometry: dict[str, Any]) -> nibabel.Nifti1Image:
    """Mirror NibabelIO.write_seg and NibabelIOWithReorient.write_seg (nnunetv2 2.8.1)."""
    original = geometry["original_affine"]
    affine = geometry.get("reoriented_affine", original)
    image = nibabel.Nifti1Image(array.transpose((2, 1, 0)), affine=affine)
    if "reoriented_affine" not in geometry:
        return image
    return image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), io_orientation(original)))

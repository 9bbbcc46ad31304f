"""Write the maps of a case in the geometry of its images."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from nnunetv2_spmc.data.unlabeled_cases import PICTURE_ENDINGS
from nnunetv2_spmc.reports.case_maps import CaseMaps

CONFIDENCE = "confidence"
AUXILIARY = "auxiliary"
SUSPICIOUS = "suspicious"
COMMON_DIFFICULTY = "common_difficulty"


def write_case(
    output_folder: Path, case: str, maps: CaseMaps, reader_writer: Any, file_ending: str
) -> list[Path]:
    """Write all maps of a case, or none of them.

    OUT/CASE.nii.gz is the segmentation of the main branch; the other maps have the same file name
    in the subfolders confidence, auxiliary, suspicious and common_difficulty.

    Args:
        output_folder: created if need be.
        case: identifier of the case.
        maps: from `predict_case`.
        reader_writer: nnU-Net's reader and writer of the dataset.
        file_ending: of the dataset. Formats that cannot hold float32 (pictures) and .tiff get their
            confidence as .tif.

    Returns:
        The written files; the segmentation last, so that it marks a finished case.
    """
    output_folder.mkdir(parents=True, exist_ok=True)
    labels = {
        AUXILIARY: maps.auxiliary,
        SUSPICIOUS: maps.suspicious,
        COMMON_DIFFICULTY: maps.common_difficulty,
        "": maps.segmentation,
    }
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=output_folder) as temporary:
        root = Path(temporary)
        _write_float(root / CONFIDENCE, case, file_ending, maps.confidence, maps.properties)
        for name, array in labels.items():
            if array is not None:
                (root / name).mkdir(exist_ok=True)
                file = root / name / f"{case}{file_ending}"
                reader_writer.write_seg(array, str(file), maps.properties)
        written = sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())
        written.sort(key=lambda path: len(path.parts), reverse=True)
        for path in written:
            (output_folder / path).parent.mkdir(exist_ok=True)
            os.replace(root / path, output_folder / path)
    return [output_folder / path for path in written]


def _write_float(
    folder: Path, case: str, file_ending: str, array: np.ndarray, properties: dict[str, Any]
) -> None:
    """Write a float32 map, which nnU-Net's writers of segmentations would round to integers."""
    folder.mkdir()
    file = str(folder / f"{case}{file_ending}")
    array = array.astype(np.float32, copy=False)
    if "sitk_stuff" in properties:
        sitk.WriteImage(_sitk_image(array, properties["sitk_stuff"]), file, True)
    elif "nibabel_stuff" in properties:
        nibabel.save(_nibabel_image(array, properties["nibabel_stuff"]), file)
    else:
        import tifffile

        is_picture = file_ending in PICTURE_ENDINGS and len(array) == 1
        tifffile.imwrite(folder / f"{case}.tif", array[0] if is_picture else array)


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

"""The same body in files of many orientations: a block on its right, in front, and above."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from nibabel.orientations import axcodes2ornt, ornt_transform
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from scipy.spatial.transform import Rotation

from nnunetv2_spmc.reports.case_views import CaseView

READERS = (SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient)
SPACING_MM = (1.0, 1.5, 3.0)  # along right, anterior, superior
SHAPE = (20, 26, 14)
BLOCK = (slice(13, 17), slice(16, 23), slice(8, 11))
DARK = tuple(slice(0, size // 4) for size in SHAPE)  # so that the rest is grey, not black
ORIENTATIONS = ("LPS", "RAS", "LAS", "RPI", "PSR", "ILA", "SRP")
# degrees about x, y, z: a slight tilt, and a short axis of the heart, whose axes lie between those
# of the body: NiiVue would name them otherwise than nibabel does
TILTS = {"tilted": ("LAS", (10, 15, -25)), "short axis": ("LPS", (-46, -42, -13))}
NAMES = (*ORIENTATIONS, *TILTS)


def write_scan(folder: Path, name: str) -> Path:
    """Write a scan of 80 with a block of 200 in the orientation of this name."""
    codes, tilt_degrees = TILTS.get(name, (name, (0, 0, 0)))
    body = np.full(SHAPE, 80, np.uint8)
    body[DARK] = 0
    body[BLOCK] = 200
    scan = nibabel.Nifti1Image(body, np.diag([*SPACING_MM, 1.0]))
    scan = scan.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes)))
    tilt = np.eye(4)
    tilt[:3, :3] = Rotation.from_euler("xyz", tilt_degrees, degrees=True).as_matrix()
    file = folder / f"{name}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(scan.dataobj, tilt @ scan.affine), file)
    return file


def view_of(file: Path, reader: type = SimpleITKIO) -> CaseView:
    """Return the scan in a file as nnU-Net reads it, with a prediction of the wrong class."""
    image, properties = reader().read_images([str(file)])
    block = (image[0] > 150).astype(np.uint8)
    return CaseView(
        run_name="run",
        image=image[0],
        reference=block,
        prediction=2 * block,
        confidence=np.where(block, 0.6, 1).astype(np.float32),
        common_difficulty=block.astype(bool),
        spacing_mm=tuple(float(size) for size in properties["spacing"]),
        properties=properties,
        dice=0.0,
    )


def side_of_block(picture: np.ndarray) -> tuple[str, str]:
    """Return on which side of a picture its bright pixels are, and whether above or below."""
    rows, columns = np.nonzero(picture > (picture.min() + picture.max()) / 2)
    height, width = picture.shape
    return (
        "left" if columns.mean() < (width - 1) / 2 else "right",
        "top" if rows.mean() < (height - 1) / 2 else "bottom",
    )

"""Slices are drawn as radiologists see them, whatever the header of the scan says."""

from __future__ import annotations

import io

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.image import imread
from nibabel.affines import apply_affine
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from skimage.io import imsave

from nnunetv2_spmc.reports.case_figure import draw_case, slice_to_show
from nnunetv2_spmc.reports.case_views import on_axes_of
from nnunetv2_spmc.reports.orientation import closest_axes
from tests.reports.oriented_scans import (
    NAMES,
    ORIENTATIONS,
    READERS,
    SPACING_MM,
    side_of_block,
    view_of,
    write_scan,
)

SIDES_OF_PLANES = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
ALONG = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}  # world axes
TOWARDS = {"R": 1, "L": -1, "A": 1, "P": -1, "S": 1, "I": -1}


def panels(figure):
    """Title -> what is drawn in a panel of a one-row figure, as (height, width, 3) pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi)
    buffer.seek(0)
    pixels = imread(buffer, format="png")[..., :3]
    drawn = {}
    for axes in figure.axes:
        box = axes.get_window_extent()
        rows = slice(round(len(pixels) - box.y1) + 2, round(len(pixels) - box.y0) - 2)
        drawn[axes.get_title()] = pixels[rows, round(box.x0) + 2 : round(box.x1) - 2]
    return drawn


def letters(axes):
    """The letters in a panel in the order left, right, top, bottom, by where they stand."""
    places = {text.get_position(): text.get_text() for text in axes.texts}
    order = sorted(places), sorted(places, key=lambda place: -place[1])
    return places[order[0][0]] + places[order[0][-1]] + places[order[1][0]] + places[order[1][-1]]


@pytest.mark.parametrize("name", [*ORIENTATIONS, "tilted"])
def test_in_every_orientation_the_block_is_where_nibabel_finds_it(name, tmp_path):
    """The letters at the sides towards which the block lies are those of its place in the world."""
    file = write_scan(tmp_path, name)
    scan = nibabel.load(file)
    center, middle = (
        apply_affine(scan.affine, np.mean(voxels, axis=0))
        for voxels in (np.argwhere(scan.get_fdata() > 150), np.argwhere(scan.get_fdata() >= 0))
    )
    view = view_of(file)
    figure = draw_case(name, [view])
    drawn = panels(figure)["image"].mean(axis=2)
    assert side_of_block(drawn) == ("left", "top")
    left, right, top, bottom = letters(figure.axes[0])
    for letter, sign in ((left, 1), (right, -1), (top, 1), (bottom, -1)):
        offset_mm = (center - middle)[ALONG[letter]] * TOWARDS[letter]
        assert np.sign(offset_mm) == sign
    assert left + right + top + bottom == SIDES_OF_PLANES[view.display.plane]


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_all_panels_show_the_block_at_the_same_place_with_the_same_letters(name, tmp_path):
    figure = draw_case(name, [view_of(write_scan(tmp_path, name))])
    drawn = panels(figure)
    colours = {title: np.ptp(pixels, axis=2) for title, pixels in drawn.items()}  # of overlays
    assert side_of_block(colours["prediction and reference"]) == ("left", "top")
    assert side_of_block(colours["errors"]) == ("left", "top")
    assert side_of_block(colours["common-difficulty voxels"]) == ("left", "top")
    assert side_of_block(-drawn["confidence"].mean(axis=2)) == ("left", "top")  # low in the block
    shown = [axes for axes in figure.axes if axes.images]
    assert len({letters(axes) for axes in shown}) == 1
    assert len(shown) == 5


@pytest.mark.parametrize("name", NAMES)
def test_the_plane_is_that_of_the_axis_closest_to_the_slices(name, tmp_path):
    file = write_scan(tmp_path, name)
    across = nibabel.aff2axcodes(nibabel.load(file).affine)[2]  # the first axis of nnU-Net's arrays
    planes = {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal"}
    display = view_of(file).display
    assert display.plane == planes.get(across, "axial")
    assert display.sides == SIDES_OF_PLANES[display.plane]


def test_a_short_axis_of_the_heart_is_named_after_the_closest_axes(tmp_path):
    file = write_scan(tmp_path, "short axis")
    affine = nibabel.load(file).affine
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    assert np.abs(directions).max(axis=0).max() < 0.85
    assert nibabel.aff2axcodes(closest_axes(affine)) == nibabel.aff2axcodes(affine)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", [*ORIENTATIONS, "tilted"])
def test_every_reader_of_nnunet_gives_the_same_side(name, reader, tmp_path):
    view = view_of(write_scan(tmp_path, name), reader)
    picture = view.display.picture(view.image, slice_to_show([view]))
    assert side_of_block(picture) == ("left", "top")


@pytest.mark.parametrize("name", [*ORIENTATIONS, "tilted"])
def test_voxels_are_drawn_in_proportion(name, tmp_path):
    """A voxel of the figure is as high and as wide as the axes that it lies along."""
    view = view_of(write_scan(tmp_path, name))
    axes = draw_case(name, [view]).axes[0]
    left, _, top, _ = view.display.sides
    expected = SPACING_MM[ALONG[top]] / SPACING_MM[ALONG[left]]
    assert axes.get_aspect() == pytest.approx(expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_title_counts_the_slices_of_the_array(name, tmp_path):
    view = view_of(write_scan(tmp_path, name))
    title = draw_case(name, [view]).get_suptitle()
    number = int(title.split(" slice ")[1].split()[0])
    assert title == f"{name}, slice {number} of {len(view.image)} ({view.display.plane})"
    assert view.reference[number - 1].any()


# ---- without an orientation ----------------------------------------------------------------------


def stored_slice():
    """A slice with a block on the left, below."""
    array = np.full((30, 20), 100, np.uint8)
    array[20:26, 2:9] = 200
    return array


def write_png(path):
    imsave(path, stored_slice(), check_contrast=False)


def write_2d_nifti(path):
    sitk.WriteImage(sitk.GetImageFromArray(stored_slice()), str(path))


def write_tiff(path):
    import tifffile

    tifffile.imwrite(path, np.stack([stored_slice()] * 3), photometric="minisblack")


@pytest.mark.parametrize(
    ("name", "write", "reader"),
    [
        ("picture.png", write_png, NaturalImage2DIO),
        ("picture.nii.gz", write_2d_nifti, SimpleITKIO),
        ("scan.tif", write_tiff, Tiff3DIO),
    ],
)
def test_without_an_orientation_slices_are_drawn_as_stored_and_without_letters(
    name, write, reader, tmp_path
):
    write(tmp_path / name)
    view = view_of(tmp_path / name, reader)
    figure = draw_case("case", [view])
    assert side_of_block(panels(figure)["image"].mean(axis=2)) == ("left", "bottom")
    assert [text.get_text() for axes in figure.axes if axes.images for text in axes.texts] == []
    assert figure.get_suptitle() == f"case, slice 1 of {len(view.image)}"


# ---- several runs --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_run_whose_reader_reorients_is_shown_on_the_axes_of_the_first(name, tmp_path):
    file = write_scan(tmp_path, name)
    first, reoriented = view_of(file), view_of(file, NibabelIOWithReorient)
    turned = on_axes_of(reoriented, first)
    for field in ("image", "reference", "prediction", "confidence", "common_difficulty"):
        assert np.array_equal(getattr(turned, field), getattr(first, field))
    assert turned.display == first.display
    assert turned.spacing_mm == first.spacing_mm

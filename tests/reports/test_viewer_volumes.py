import base64
import gzip

import nibabel
import numpy as np
import pytest
from nibabel.affines import apply_affine
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from skimage.io import imsave

from nnunetv2_spmc.reports.case_figure import slice_to_show
from nnunetv2_spmc.reports.case_views import CaseView
from nnunetv2_spmc.reports.viewer_volumes import ras_affine, reduction_factors, viewer_case
from tests.reports.oriented_scans import NAMES, SPACING_MM, view_of, write_scan

GEOMETRY = {
    "spacing": (0.5, 0.75, 2.0),
    "origin": (3.0, -4.0, 5.0),
    "direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
}


def decoded(text):
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def view(image, mask):
    return CaseView(
        run_name="run",
        image=image,
        reference=mask.astype(np.uint8) * 2,
        prediction=mask.astype(np.uint8),
        confidence=np.where(mask, 0.6, 1.0).astype(np.float32),
        common_difficulty=mask,
        spacing_mm=(2.0, 0.75, 0.5),
        properties={"sitk_stuff": GEOMETRY},
        dice=0.5,
    )


def test_small_volumes_are_kept_voxel_by_voxel(box):
    image = np.linspace(0, 1, box.size).reshape(box.shape)
    case = viewer_case("case", [view(image, box)])
    grey = decoded(case["image"]).get_fdata().transpose(2, 1, 0)
    assert (grey.min(), grey.max()) == (0, 255)
    assert np.all(np.diff(grey.ravel()) >= 0)
    layers = case["runs"][0]
    assert np.array_equal(decoded(case["reference"]).get_fdata().T, box * 2)
    assert np.array_equal(decoded(layers["prediction"]).get_fdata().T, box)
    assert np.array_equal(decoded(layers["difficulty"]).get_fdata().T, box)
    assert np.array_equal(decoded(layers["doubt"]).get_fdata().T, box * 102)  # 0.4 * 255


def test_the_viewer_starts_at_the_slice_of_the_figure(box):
    """Most wrong voxels lie in the slices 1 and 2; spacing 2 mm, origin at 5 mm."""
    start = viewer_case("case", [view(np.zeros(box.shape), box)])["start_mm"]
    assert start[2] == pytest.approx(5 + 1 * 2.0)
    assert start[0] == pytest.approx(-(3 + 3.5 * 0.5))


def test_labels_say_so_and_greys_do_not(box):
    case = viewer_case("case", [view(np.zeros(box.shape), box)])
    assert decoded(case["reference"]).header.get_intent()[0] == "label"
    assert decoded(case["runs"][0]["difficulty"]).header.get_intent()[0] == "label"
    assert decoded(case["image"]).header.get_intent()[0] == "none"


def test_without_auxiliary_branch_there_is_no_difficulty(box):
    from dataclasses import replace

    without = replace(view(np.zeros(box.shape), box), common_difficulty=None, reference=None)
    case = viewer_case("case", [without])
    assert case["runs"][0].keys() == {"name", "prediction", "doubt"}
    assert "reference" not in case


def test_reduction_keeps_a_lonely_difficult_voxel_and_the_place_of_things(monkeypatch):
    from nnunetv2_spmc.reports import viewer_volumes

    monkeypatch.setattr(viewer_volumes, "reduction_factors", lambda shape: (1, 2, 3))
    mask = np.zeros((2, 4, 9), bool)
    mask[1, 3, 8] = True
    case = viewer_case("case", [view(np.zeros(mask.shape), mask)])
    volume = decoded(case["runs"][0]["difficulty"])
    assert volume.shape == (3, 2, 2)
    assert np.argwhere(volume.get_fdata()).tolist() == [[2, 1, 1]]
    # the block of x 6-8, y 2-3, z 1 has its centre at voxel (7, 2.5, 1) of the full grid
    full = ras_affine({"sitk_stuff": GEOMETRY}, ())
    assert np.allclose(volume.affine @ [2, 1, 1, 1], full @ [7, 2.5, 1, 1])


def test_affine_of_itk_is_turned_to_right_anterior_superior():
    affine = ras_affine({"sitk_stuff": GEOMETRY}, ())
    assert np.allclose(affine @ [2, 4, 1, 1], [-(3 + 1.0), -(-4 + 3.0), 5 + 2.0, 1])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((10, 10, 10), (1, 1, 1)), ((10, 20, 10), (1, 2, 1)), ((2, 40, 40), (1, 2, 2))],
)
def test_the_longest_axes_are_reduced_first(shape, expected):
    assert reduction_factors(shape, max_voxels=1000) == expected


@pytest.mark.parametrize("name", NAMES)
def test_image_and_overlays_keep_the_orientation_of_the_header(name, tmp_path):
    file = write_scan(tmp_path, name)
    header = nibabel.load(file)
    case = viewer_case(name, [view_of(file)])
    layers = case["runs"][0]
    for content in (case["image"], case["reference"], *(layers[k] for k in layers if k != "name")):
        volume = decoded(content)
        assert nibabel.aff2axcodes(volume.affine) == nibabel.aff2axcodes(header.affine)
        assert np.allclose(nibabel.affines.voxel_sizes(volume.affine), header.header.get_zooms())
        voxels = volume.get_fdata()
        assert np.array_equal(voxels == voxels.max(), header.get_fdata() > 150)


@pytest.mark.parametrize("name", NAMES)
def test_volumes_lie_along_the_axes_so_that_niivue_has_nothing_to_choose(name, tmp_path):
    volume = decoded(viewer_case(name, [view_of(write_scan(tmp_path, name))])["image"])
    assert np.count_nonzero(volume.affine[:3, :3]) == 3
    canonical = nibabel.as_closest_canonical(volume)
    assert sorted(canonical.header.get_zooms()) == pytest.approx(sorted(SPACING_MM))


@pytest.mark.parametrize("name", NAMES)
def test_the_viewer_starts_inside_the_slice_of_the_figure_and_in_its_plane(name, tmp_path):
    view = view_of(write_scan(tmp_path, name))
    case = viewer_case(name, [view])
    volume = decoded(case["image"])
    voxel = apply_affine(np.linalg.inv(volume.affine), case["start_mm"])
    assert round(voxel[2]) == slice_to_show([view])
    assert case["plane"] == view.display.plane
    axis = ("sagittal", "coronal", "axial").index(case["plane"])
    runs_backwards = nibabel.aff2axcodes(volume.affine)[2] in "LPI"
    assert case["axes"][axis] == {
        "size": len(view.image),
        "factor": 1,
        "reversed": runs_backwards,
    }


def test_a_picture_is_stored_so_that_a_radiological_viewer_shows_it_as_it_is(tmp_path):
    imsave(tmp_path / "picture.png", np.eye(4, 6, dtype=np.uint8) * 255, check_contrast=False)
    case = viewer_case("picture", [view_of(tmp_path / "picture.png", NaturalImage2DIO)])
    volume = decoded(case["image"])
    assert nibabel.aff2axcodes(volume.affine) == ("L", "P", "S")  # columns to the right, rows down
    assert case["is_oriented"] is False

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc.dataset_conversion.la import SPACING_MM, convert_la
from nnunetv2_spmc.dataset_conversion.protocol_lists import LA_TEST, LA_TRAIN
from nnunetv2_spmc.raw.cases import ConversionError


@pytest.fixture
def challenge(tmp_path, write_volume):
    """All 100 scans in the challenge's layout."""
    folder = tmp_path / "Training Set"
    for i, scan in enumerate(LA_TRAIN + LA_TEST):
        write_volume(folder / scan / "lgemri.nrrd", seed=i, spacing=SPACING_MM)
        # The label's origin is not the image's, which does not matter in this data set.
        label = folder / scan / "laendo.nrrd"
        write_volume(label, fill=255, origin=(9, 9, 9), spacing=SPACING_MM)
    return folder


def written_spacings(folder) -> dict[str, set[tuple[float, ...]]]:
    """The spacings of the images and the label of each scan."""
    found: dict[str, set[tuple[float, ...]]] = {}
    for file in folder.rglob("*.nii.gz"):
        scan = file.name.removesuffix(".nii.gz").removesuffix("_0000")
        found.setdefault(scan, set()).add(sitk.ReadImage(str(file)).GetSpacing())
    return found


def test_lists_are_the_literature_s(shared_data) -> None:
    for name, ours in (("train", LA_TRAIN), ("test", LA_TEST)):
        theirs = (shared_data / "splits" / "LA" / f"{name}.list").read_text().split()
        assert ours == theirs


def test_challenge_layout(challenge, nnunet_folders) -> None:
    summary = convert_la(challenge.parent, labeled=16)
    content = json.loads((summary.folder / "split.json").read_text())
    assert content["cases"]["labeled"] == sorted(LA_TRAIN[:16])
    assert content["cases"]["test"] == sorted(LA_TEST)
    assert content["counts"]["unlabeled"]["cases"] == 64
    assert content["notes"] == []
    label = sitk.ReadImage(str(summary.folder / "labelsTr" / f"{LA_TRAIN[0]}.nii.gz"))
    image = sitk.ReadImage(str(summary.folder / "imagesTr" / f"{LA_TRAIN[0]}_0000.nii.gz"))
    assert np.unique(sitk.GetArrayFromImage(label)).tolist() == [0, 1]
    assert label.GetOrigin() == image.GetOrigin()
    assert summary.splits is None


def test_headers_that_say_1_mm_are_written_as_0625(challenge, write_volume, nnunet_folders) -> None:
    native, half = LA_TRAIN[0], LA_TRAIN[50]
    for scan, image, label in ((native, (1, 1, 1), (1, 1, 1)), (half, SPACING_MM, (1, 1, 1))):
        write_volume(
            challenge / scan / "lgemri.nrrd",
            seed=1000 + len(set(image)) + (scan == half),
            spacing=image,
        )
        write_volume(challenge / scan / "laendo.nrrd", fill=255, spacing=label)
    summary = convert_la(challenge)
    spacings = written_spacings(summary.folder)
    assert len(spacings) == 100
    assert all(found == {SPACING_MM} for found in spacings.values())
    note = (
        "spacing: the headers of 1 scan say 1 mm, where the scans have 0.625 mm in every "
        f"direction, which is written: {native}"
    )
    assert f"note: {note}" in str(summary)
    assert json.loads((summary.folder / "split.json").read_text())["notes"] == [note]


def test_a_header_with_another_spacing_is_kept_and_named(
    challenge, write_volume, nnunet_folders
) -> None:
    for name in ("lgemri", "laendo"):
        file = challenge / LA_TRAIN[1] / f"{name}.nrrd"
        write_volume(file, seed=777 if name == "lgemri" else None, spacing=(1.25, 1.25, 2.5))
    summary = convert_la(challenge)
    assert written_spacings(summary.folder)[LA_TRAIN[1]] == {(1.25, 1.25, 2.5)}
    assert f"it is kept: {LA_TRAIN[1]} (1.25 x 1.25 x 2.5 mm)" in str(summary)


def test_scans_of_no_list_and_other_masks_are_named(
    challenge, write_volume, nnunet_folders
) -> None:
    (challenge / LA_TRAIN[0] / "lawall.nrrd").touch()
    write_volume(challenge / "UNLISTED" / "lgemri.nrrd", seed=0)
    write_volume(challenge / "UNLISTED" / "laendo.nrrd", fill=255)
    (challenge / LA_TRAIN[1] / "scan.mgz").touch()
    summary = convert_la(challenge)
    content = json.loads((summary.folder / "split.json").read_text())
    unused = [f"{LA_TRAIN[1]}/scan.mgz", f"{LA_TRAIN[0]}/lawall.nrrd", "UNLISTED/"]
    assert sorted(content["unused"]) == sorted(unused)
    assert f"1 file of formats that are not read (all in split.json): {unused[0]};" in str(summary)
    assert "not used from the input, 2 (" in str(summary)


def test_missing_scans_are_named(challenge, nnunet_folders) -> None:
    (challenge / LA_TRAIN[3] / "laendo.nrrd").unlink()
    with pytest.raises(ConversionError, match=rf"1 of the 100 scans .*: {LA_TRAIN[3]};"):
        convert_la(challenge)
    summary = convert_la(challenge, allow_missing=True)
    assert summary.count("labeled") == 7
    assert f"1 missing and not replaced: {LA_TRAIN[3]}" in str(summary)
    content = json.loads((summary.folder / "split.json").read_text())
    assert content["missing"] == [LA_TRAIN[3]]
    assert LA_TRAIN[8] in content["cases"]["unlabeled"]


@pytest.mark.parametrize("name", ["lgemri.nrrd", "mri_norm2.h5"])
def test_two_folders_of_one_scan_are_both_named(tmp_path, write_volume, name) -> None:
    files = [tmp_path / parent / LA_TRAIN[0] / name for parent in ("Testing Set", "Training Set")]
    for seed, file in enumerate(files):
        write_volume(file.with_name("laendo.nrrd"), seed=seed)
        file.touch()
    with pytest.raises(ConversionError, match=f"Scan {LA_TRAIN[0]} is there twice") as error:
        convert_la(tmp_path, allow_missing=True)
    assert all(str(file) in str(error.value) for file in files)


@pytest.mark.parametrize("labeled", [0, 80])
def test_some_scans_have_to_be_labeled_and_some_unlabeled(tmp_path, labeled) -> None:
    with pytest.raises(ConversionError, match="between 1 and 79"):
        convert_la(tmp_path, labeled=labeled)


def test_an_empty_folder_is_an_error(tmp_path) -> None:
    with pytest.raises(ConversionError, match="There are no LA scans in"):
        convert_la(tmp_path)


def test_h5_layout(shared_data, nnunet_folders) -> None:
    h5py = pytest.importorskip("h5py")
    with pytest.raises(ConversionError, match="94 of the 100 scans"):
        convert_la(shared_data / "la_h5")
    summary = convert_la(shared_data / "la_h5", labeled=2, allow_missing=True)
    assert (summary.count("labeled"), summary.count("unlabeled"), summary.count("test")) == (
        2,
        2,
        2,
    )
    assert "cropped around the ground truth" in str(summary)
    scan = LA_TRAIN[0]
    image = sitk.ReadImage(str(summary.folder / "imagesTr" / f"{scan}_0000.nii.gz"))
    assert image.GetSpacing() == (0.625, 0.625, 0.625)
    source = shared_data / "la_h5" / "2018LA_Seg_Training Set" / scan / "mri_norm2.h5"
    with h5py.File(source) as file:
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(image).transpose(2, 1, 0), file["image"]
        )

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc.dataset_conversion.heart import GOOD, POOR, heart_arrays
from nnunetv2_spmc.dataset_conversion.phantom import (
    convert_phantom,
    phantom_arrays,
    write_phantom,
)
from nnunetv2_spmc.raw.cases import ConversionError
from nnunetv2_spmc.raw.writer import WriteOptions

SMALL = (20, 20, 16)


@pytest.fixture(autouse=True)
def _no_folders_of_the_user(monkeypatch) -> None:
    """Keep a Dataset500_Phantom that the demo wrote out of the tests."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.delenv(variable, raising=False)


def content(folder) -> dict[str, np.ndarray]:
    return {
        p.relative_to(folder).as_posix(): sitk.GetArrayFromImage(sitk.ReadImage(str(p)))
        for p in sorted(folder.rglob("*.nii.gz"))
    }


def test_counts_and_layout(tmp_path) -> None:
    folder = write_phantom(tmp_path, labeled=5, unlabeled=3, test=2, size=SMALL)
    split = json.loads((folder / "split.json").read_text())
    assert folder.name == "Dataset500_Phantom"
    assert [split["counts"][r]["cases"] for r in ("labeled", "unlabeled", "test")] == [5, 3, 2]
    assert len(list((folder / "labelsUn").iterdir())) == 3
    image = sitk.ReadImage(str(folder / "imagesTr" / "train_000_0000.nii.gz"))
    assert image.GetSize() == SMALL
    assert image.GetSpacing() == (1, 1, 2)


def test_workers_do_not_change_the_scans(tmp_path) -> None:
    one = write_phantom(tmp_path / "one", unlabeled=2, test=1, size=SMALL)
    options = WriteOptions(raw=tmp_path / "two", processes=2)
    two = convert_phantom(unlabeled=2, test=1, size=SMALL, options=options).folder
    first, second = content(one), content(two)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_more_unlabeled_scans_leave_the_others_as_they_are(tmp_path) -> None:
    few = content(write_phantom(tmp_path / "few", unlabeled=1, test=1, size=SMALL))
    many = content(write_phantom(tmp_path / "many", unlabeled=3, test=1, size=SMALL))
    assert all(np.array_equal(few[name], many[name]) for name in few)


def test_another_seed_gives_other_scans(tmp_path) -> None:
    one = content(write_phantom(tmp_path / "one", unlabeled=1, test=0, size=SMALL))
    two = content(write_phantom(tmp_path / "two", unlabeled=1, test=0, size=SMALL, seed=1))
    assert not any(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("seed", range(5))
def test_both_classes_are_in_every_scan(seed) -> None:
    image, label = phantom_arrays(np.random.default_rng(seed), (48, 48, 32))
    assert image.shape == label.shape == (32, 48, 48)
    share = np.bincount(label.ravel(), minlength=3) / label.size
    assert share[1] > 0.01
    assert share[2] > 0.001
    assert share[0] > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": -1}, "cannot be negative"),
        ({"seed": -1}, "seed cannot be negative"),
        ({"size": (8, 48, 48)}, "at least 16 voxels"),
        ({"unlabeled": 0}, "no unlabeled case"),
    ],
)
def test_senseless_requests_are_refused(tmp_path, options, message) -> None:
    with pytest.raises(ConversionError, match=message):
        write_phantom(tmp_path, **options)


def test_hearts_have_their_own_labels_size_and_spacing(tmp_path) -> None:
    options = WriteOptions(raw=tmp_path)
    folder = convert_phantom(
        labeled=5, unlabeled=1, test=1, look="heart", size=(32, 32, 8), options=options
    ).folder
    image = sitk.ReadImage(str(folder / "imagesTr" / "train_000_0000.nii.gz"))
    assert image.GetSize() == (32, 32, 8)
    assert image.GetSpacing() == (1.5, 1.5, 8.0)
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "myocardium": 1, "left_ventricle": 2}
    assert json.loads((folder / "split.json").read_text())["options"]["look"] == "heart"


def test_labeled_hearts_come_from_a_good_scanner_the_others_from_poor_ones(tmp_path) -> None:
    options = WriteOptions(raw=tmp_path)
    folder = convert_phantom(labeled=5, unlabeled=5, test=5, look="heart", options=options).folder
    noise, unevenness = {}, {}
    for part in ("imagesTr", "imagesUn", "imagesTs"):
        files = sorted((folder / part).glob("*.nii.gz"))
        scans = np.array([sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in files])
        chest = scans[:, :, 20:44, 20:44]
        noise[part] = scans[:, :, :3, :3].std(axis=(1, 2, 3)).mean()
        unevenness[part] = (chest.std(axis=(1, 2, 3)) / chest.mean(axis=(1, 2, 3))).mean()
    for values in (noise, unevenness):
        assert values["imagesTr"] < 0.8 * min(values["imagesUn"], values["imagesTs"]), values


@pytest.mark.parametrize("scanner", [GOOD, POOR])
@pytest.mark.parametrize("seed", range(4))
def test_a_heart_has_both_classes_the_muscle_around_the_cavity(seed, scanner) -> None:
    image, label = heart_arrays(np.random.default_rng(seed), (64, 64, 8), scanner)
    assert image.shape == label.shape == (8, 64, 64)
    assert image.dtype == np.int16
    assert set(np.unique(label)) == {0, 1, 2}
    cavity = label == 2
    for axis in (1, 2):  # nothing else touches it
        for step in (-1, 1):
            assert set(np.unique(np.roll(label, step, axis)[cavity])) <= {1, 2}
    assert image[cavity].mean() > image[label == 1].mean()


def test_an_unknown_look_is_named(tmp_path) -> None:
    with pytest.raises(ConversionError, match=r"one of organ, heart, got 'loud'"):
        convert_phantom(look="loud", options=WriteOptions(raw=tmp_path))

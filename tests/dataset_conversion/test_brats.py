from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc.data.raw_cases import ConversionError
from nnunetv2_spmc.dataset_conversion.brats import convert_brats
from nnunetv2_spmc.dataset_conversion.protocol_lists import (
    BRATS2019_TEST,
    BRATS2019_TRAIN,
    BRATS2019_VALIDATION,
)

TUMOR = np.zeros((4, 6, 8), np.uint8)
TUMOR[1, 1, 1:5] = (1, 2, 4, 4)


@pytest.fixture
def write_case(write_volume):
    def write(folder: Path, seed: int, ending: str = ".nii.gz") -> None:
        for n, contrast in enumerate(("flair", "t1", "t1ce", "t2")):
            name = f"{folder.name}_{contrast}{ending}"
            write_volume(folder / name, seed=4 * seed + n)
        write_volume(folder / f"{folder.name}_seg{ending}", TUMOR)

    return write


@pytest.fixture
def year_2019(tmp_path, write_volume):
    """All 335 cases of 2019, FLAIR and label only."""
    for i, case in enumerate(BRATS2019_TRAIN + BRATS2019_VALIDATION + BRATS2019_TEST):
        folder = tmp_path / ("HGG" if i % 4 else "LGG") / case
        write_volume(folder / f"{case}_flair.nii", seed=i)
        write_volume(folder / f"{case}_seg.nii", TUMOR)
    return tmp_path


def values(path: Path) -> list[int]:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[1, 1, 1:5].tolist()


def test_lists_are_the_literature_s(shared_data) -> None:
    for name, ours in (
        ("train", BRATS2019_TRAIN),
        ("val", BRATS2019_VALIDATION),
        ("test", BRATS2019_TEST),
    ):
        theirs = (shared_data / "splits" / "BraTS2019" / f"{name}.txt").read_text().split()
        assert ours == theirs


def test_2019_follows_the_lists(year_2019, nnunet_folders) -> None:
    summary = convert_brats(year_2019)
    content = json.loads((summary.folder / "split.json").read_text())
    assert {role: count["cases"] for role, count in content["counts"].items()} == {
        "labeled": 25,
        "validation": 25,
        "unlabeled": 225,
        "test": 60,
    }
    assert content["cases"]["labeled"] == sorted(BRATS2019_TRAIN[:25])
    dataset = json.loads((summary.folder / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "FLAIR"}
    assert dataset["labels"] == {"background": 0, "whole tumor": 1}
    assert dataset["spmc"] == {"tau": 0.65}
    assert values(summary.folder / "labelsTs" / f"{BRATS2019_TEST[0]}.nii.gz") == [1, 1, 1, 1]


def test_missing_cases_of_2019_are_named(year_2019, nnunet_folders) -> None:
    case = BRATS2019_TRAIN[0]
    for file in year_2019.glob(f"*/{case}/*_seg.nii"):
        file.unlink()
    with pytest.raises(ConversionError, match=rf"1 of the 335 .*: {case} \(no label\);"):
        convert_brats(year_2019)
    assert convert_brats(year_2019, allow_missing=True).count("labeled") == 24


@pytest.mark.parametrize(
    ("target", "expected", "order"),
    [
        ("labels", [1, 2, 3, 3], None),
        ("regions", [2, 1, 3, 3], [1, 2, 3]),
    ],
)
def test_targets(tmp_path, write_case, nnunet_folders, target, expected, order) -> None:
    for i in range(10):
        write_case(tmp_path / f"BraTS2021_{i:05d}", i)
    summary = convert_brats(tmp_path, labeled=2, target=target)
    label = next((summary.folder / "labelsTr").iterdir())
    assert values(label) == expected
    dataset = json.loads((summary.folder / "dataset.json").read_text())
    assert dataset.get("regions_class_order") == order


def test_modalities_are_channels_in_the_order_given(tmp_path, write_case, nnunet_folders) -> None:
    for i in range(10):
        write_case(tmp_path / f"BraTS2021_{i:05d}", i)
    summary = convert_brats(tmp_path, labeled=2, modalities=["t2", "flair"])
    dataset = json.loads((summary.folder / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "T2", "1": "FLAIR"}
    content = json.loads((summary.folder / "split.json").read_text())
    first, second = content["files"]["BraTS2021_00000"]["images"]
    assert first.endswith("_t2.nii.gz")
    assert second.endswith("_flair.nii.gz")


@pytest.mark.parametrize("contrast", ["t2", "flair"])
def test_a_missing_channel_is_named(tmp_path, write_case, nnunet_folders, contrast) -> None:
    for i in range(10):
        write_case(tmp_path / f"BraTS2021_{i:05d}", i)
    (tmp_path / "BraTS2021_00003" / f"BraTS2021_00003_{contrast}.nii.gz").unlink()
    with pytest.raises(ConversionError, match=rf"00003_{contrast}\.nii\.gz does not exist"):
        convert_brats(tmp_path, labeled=2, modalities=["all"])


def test_other_years_are_split_at_random_and_say_so(tmp_path, write_case, nnunet_folders) -> None:
    for i in range(12):
        write_case(tmp_path / "HGG" / f"Brats18_2013_{i // 2}_{i % 2 + 1}", i)
    summary = convert_brats(tmp_path, labeled=2, seed=1)
    content = json.loads((summary.folder / "split.json").read_text())
    assert content["protocol"].startswith("random")
    assert content["seed"] == 1
    assert "split at random" in str(summary)
    assert content["groups"]["Brats18_2013_0_2"] == "Brats18_2013_0"


def test_the_oddly_named_label_of_2020_is_found(tmp_path, write_case, nnunet_folders) -> None:
    for i in range(350, 360):
        write_case(tmp_path / f"BraTS20_Training_{i}", i, ".nii")
    odd = tmp_path / "BraTS20_Training_355"
    (odd / "BraTS20_Training_355_seg.nii").rename(odd / "W39_1998.09.19_Segm.nii")
    summary = convert_brats(tmp_path, labeled=2)
    content = json.loads((summary.folder / "split.json").read_text())
    assert content["files"]["BraTS20_Training_355"]["label"].endswith("Segm.nii")


def test_unknown_values_are_refused(tmp_path, write_case, write_volume, nnunet_folders) -> None:
    for i in range(10):
        write_case(tmp_path / f"BraTS2021_{i:05d}", i)
    write_volume(tmp_path / "BraTS2021_00004" / "BraTS2021_00004_seg.nii.gz", fill=3)
    with pytest.raises(ConversionError, match=r"Case BraTS2021_00004: .* \[3\]"):
        convert_brats(tmp_path, labeled=2)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "There are no BraTS cases"),
        (["BraTS-GLI-00000-000"], "not named as in BraTS 2018-2021"),
        (["BraTS2021_00000", "BraTS20_Training_001"], "mixes the BraTS years"),
    ],
)
def test_folders_that_are_no_single_year_are_refused(tmp_path, write_case, names, message) -> None:
    for i, name in enumerate(names):
        write_case(tmp_path / name, i)
    with pytest.raises(ConversionError, match=message):
        convert_brats(tmp_path)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc.dataset_conversion.brats import convert_brats
from nnunetv2_spmc.dataset_conversion.protocol_lists import (
    BRATS2019_TEST,
    BRATS2019_TRAIN,
    BRATS2019_VALIDATION,
)
from nnunetv2_spmc.methods import TRAINERS
from nnunetv2_spmc.raw.cases import ConversionError
from nnunetv2_spmc.raw.writer import WriteOptions

TUMOR = np.zeros((4, 6, 8), np.uint8)
TUMOR[1, 1, 1:5] = (1, 2, 4, 4)
CAVITY = TUMOR.copy()
CAVITY[1, 1, 1:5] = (1, 2, 3, 4)  # under the names since 2023


@pytest.fixture
def write_case(write_volume):
    def write(folder: Path, seed: int, ending: str = ".nii.gz") -> None:
        for n, contrast in enumerate(("flair", "t1", "t1ce", "t2")):
            name = f"{folder.name}_{contrast}{ending}"
            write_volume(folder / name, seed=4 * seed + n)
        write_volume(folder / f"{folder.name}_seg{ending}", TUMOR)

    return write


@pytest.fixture
def write_new_case(write_volume):
    """Write a case under the names since 2023, its label as floating point numbers."""

    def write(folder: Path, seed: int, label: np.ndarray | None = CAVITY) -> None:
        for n, contrast in enumerate(("t2f", "t1n", "t1c", "t2w")):
            write_volume(folder / f"{folder.name}-{contrast}.nii.gz", seed=4 * seed + n)
        if label is not None:
            write_volume(folder / f"{folder.name}-seg.nii.gz", label.astype(np.float32))

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


def read(summary, name: str) -> dict[str, Any]:
    return json.loads((summary.folder / name).read_text())


def test_contrasts_and_files_that_are_not_used_are_named(
    tmp_path, write_case, nnunet_folders
) -> None:
    for number in range(4):
        write_case(tmp_path / f"BraTS2021_0000{number}", seed=number)
    (tmp_path / "BraTS2021_00000" / "more.PAR").touch()
    summary = convert_brats(tmp_path, labeled=1, options=WriteOptions(dry_run=True))
    cases = [f"BraTS2021_0000{number}" for number in range(4)]
    surplus = [f"{c}/{c}_{contrast}.nii.gz" for c in cases for contrast in ("t1", "t1ce", "t2")]
    assert sorted(summary.dataset.unused) == sorted([*surplus, "BraTS2021_00000/more.PAR"])
    assert "1 file of formats that are not read" in str(summary)
    assert "not used from the input, 12 (all in split.json): " in str(summary)


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
    assert dataset["spmc"] == {"SPMC": {"tau": 0.65}}
    for trainer in TRAINERS:  # those of other methods leave it alone
        resolved = trainer.resolved_settings(dataset, {})
        assert resolved.flat().get("tau") == (0.65 if trainer.method == "SPMC" else None)
    assert values(summary.folder / "labelsTs" / f"{BRATS2019_TEST[0]}.nii.gz") == [1, 1, 1, 1]


def test_missing_cases_of_2019_are_named(year_2019, nnunet_folders) -> None:
    case = BRATS2019_TRAIN[0]
    for file in year_2019.glob(f"*/{case}/*_seg.nii"):
        file.unlink()
    with pytest.raises(ConversionError, match=rf"1 of the 335 .*: {case} \(no label\);"):
        convert_brats(year_2019)
    assert convert_brats(year_2019, allow_missing=True).count("labeled") == 24


def test_many_missing_cases_are_a_count_and_three_names(year_2019, nnunet_folders) -> None:
    for case in BRATS2019_TRAIN[20:200]:
        next(year_2019.glob(f"*/{case}/*_seg.nii")).unlink()
    first = ", ".join(f"{case} (no label)" for case in BRATS2019_TRAIN[20:23])
    with pytest.raises(ConversionError, match=r"180 of the 335 cases") as error:
        convert_brats(year_2019)
    assert f": {first} and 177 more; get them" in str(error.value)
    text = str(summary := convert_brats(year_2019, allow_missing=True))
    assert f"180 missing, not on disk (all in split.json): {first} and 177 more" in text
    assert len(read(summary, "split.json")["missing"]) == 180
    assert BRATS2019_TRAIN[100] not in text


def test_cases_of_2019_with_other_capitals_are_those_of_the_lists(
    year_2019, nnunet_folders
) -> None:
    case = BRATS2019_TRAIN[0]
    (folder,) = year_2019.glob(f"*/{case}")
    for file in list(folder.iterdir()):
        file.rename(folder / file.name.replace("BraTS19", "brats19").replace("_seg", "_Seg"))
    content = read(convert_brats(year_2019), "split.json")
    assert case in content["cases"]["labeled"]
    assert content["files"][case]["label"].endswith("_Seg.nii")


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


@pytest.mark.parametrize("target", ["whole-tumor", "regions", "labels"])
def test_a_3_under_the_names_until_2021_is_refused(
    tmp_path, write_case, write_volume, nnunet_folders, target
) -> None:
    for i in range(10):
        write_case(tmp_path / f"BraTS2021_{i:05d}", i)
    write_volume(tmp_path / "BraTS2021_00004" / "BraTS2021_00004_seg.nii.gz", CAVITY)
    with pytest.raises(
        ConversionError, match=r"Case BraTS2021_00004: .*_seg\.nii\.gz has label values \[3\]"
    ) as error:
        convert_brats(tmp_path, labeled=2, target=target)
    assert "BraTS 2021 has no others: correct the label, or use the folder" in str(error.value)
    assert "--labels" not in str(error.value)
    assert list(nnunet_folders.raw.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "expected", "labels"),
    [
        ("whole-tumor", [1, 1, 1, 0], {"background": 0, "whole tumor": 1}),
        (
            "regions",
            [2, 1, 3, 0],
            {
                "background": 0,
                "whole tumor": [1, 2, 3],
                "tumor core": [2, 3],
                "enhancing tumor": [3],
            },
        ),
        (
            "labels",
            [1, 2, 3, 4],
            {
                "background": 0,
                "non-enhancing core": 1,
                "edema": 2,
                "enhancing tumor": 3,
                "resection cavity": 4,
            },
        ),
    ],
)
def test_since_2023_a_3_is_enhancing_tumor_and_a_4_the_resection_cavity(
    tmp_path, write_new_case, nnunet_folders, target, expected, labels
) -> None:
    for i in range(10):
        write_new_case(tmp_path / f"BraTS-GLI-0200{i}-100", i)
    summary = convert_brats(tmp_path, labeled=2, target=target)
    written = sorted(summary.folder.glob("labels*/*.nii.gz"))
    assert len(written) == 10
    assert all(values(file) == expected for file in written)
    assert read(summary, "dataset.json")["labels"] == labels
    assert "a label value of 4 is taken for the resection cavity" in str(summary)


@pytest.mark.parametrize("task", ["GLI", "MET", "MEN", "SSA"])
def test_a_release_without_resection_cavities_has_no_such_class(
    tmp_path, write_new_case, nnunet_folders, task
) -> None:
    label = np.where(CAVITY == 4, 3, CAVITY)
    for i in range(10):
        write_new_case(tmp_path / f"BraTS-{task}-0000{i}-000", i, label)
    summary = convert_brats(tmp_path, labeled=2, target="labels")
    assert list(read(summary, "dataset.json")["labels"].values()) == [0, 1, 2, 3]
    assert values(next((summary.folder / "labelsTr").iterdir())) == [1, 2, 3, 3]


@pytest.mark.parametrize("target", ["whole-tumor", "regions", "labels"])
@pytest.mark.parametrize(("task", "value"), [("MEN", 4), ("SSA", 4), ("GLI", 5)])
def test_other_values_since_2023_are_refused(
    tmp_path, write_new_case, nnunet_folders, task, value, target
) -> None:
    for i in range(10):
        label = np.where(CAVITY == 4, value if i == 7 else 3, CAVITY)
        write_new_case(tmp_path / f"BraTS-{task}-0000{i}-000", i, label)
    with pytest.raises(ConversionError, match=rf"Case BraTS-{task}-00007-000: .*\[{value}\]"):
        convert_brats(tmp_path, labeled=2, target=target)


@pytest.mark.parametrize("seed", range(4))
def test_time_points_of_a_patient_stay_on_one_side(
    tmp_path, write_new_case, nnunet_folders, seed
) -> None:
    for i in range(24):  # scans before and after treatment, and some without a label
        time_point = (0, 1, 100, 101)[i % 4]
        label = None if i in (5, 10) else CAVITY
        write_new_case(tmp_path / f"BraTS-GLI-0000{i // 4}-{time_point:03d}", i, label)
    content = read(convert_brats(tmp_path, labeled=4, seed=seed), "split.json")
    sides = ("test", "validation", "labeled", "unlabeled")
    patients = [{name[:15] for name in content["cases"][side]} for side in sides]
    test, validation, training = patients[0], patients[1], patients[2] | patients[3]
    assert content["groups"]["BraTS-GLI-00001-101"] == "BraTS-GLI-00001"
    assert len(test) == len(validation) == 1
    assert len(test | validation | training) == len(test) + len(validation) + len(training) == 6


@pytest.mark.parametrize("names", [["t1n", "t2f"], ["t1", "flair"], ["t1", "t1n", "t2f"]])
def test_contrasts_go_by_their_names_of_both_times(
    tmp_path, write_case, write_new_case, nnunet_folders, names
) -> None:
    for i in range(10):
        write_case(tmp_path / "old" / f"BraTS2021_{i:05d}", i)
        write_new_case(tmp_path / "new" / f"BraTS-GLI-{i:05d}-000", i)
    for folder, case, first, second in (
        ("old", "BraTS2021_00000", "_t1.nii.gz", "_flair.nii.gz"),
        ("new", "BraTS-GLI-00000-000", "-t1n.nii.gz", "-t2f.nii.gz"),
    ):
        options = WriteOptions(overwrite=True)
        summary = convert_brats(tmp_path / folder, labeled=2, modalities=names, options=options)
        assert read(summary, "dataset.json")["channel_names"] == {"0": "T1", "1": "FLAIR"}
        images = read(summary, "split.json")["files"][case]["images"]
        assert [Path(image).name for image in images] == [case + first, case + second]


def test_labels_of_too_few_patients_are_refused_without_options_of_others(
    tmp_path, write_case, write_volume, nnunet_folders
) -> None:
    for i in range(10):
        write_case(tmp_path / f"BraTS2021_{i:05d}", i)
        if i > 1:
            (tmp_path / f"BraTS2021_{i:05d}" / f"BraTS2021_{i:05d}_seg.nii.gz").unlink()
    with pytest.raises(
        ConversionError, match="has labels of 2 patients: a random split needs 3"
    ) as error:
        convert_brats(tmp_path, labeled=2)
    assert "--" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "There are no BraTS cases"),
        (["BraTS-GLI-00000-000"], "not named as in BraTS 2018-2021, nor as in BraTS-GLI"),
        (["BraTS2021_00000_normalized"], "BraTS2021_00000_normalized .* not named as in BraTS"),
        (["BraTS2021_00000", "BraTS20_Training_001"], "mixes BraTS 20.*; convert one release"),
    ],
)
def test_folders_that_are_no_single_release_are_refused(
    tmp_path, write_case, names, message
) -> None:
    for i, name in enumerate(names):
        write_case(tmp_path / name, i)
    with pytest.raises(ConversionError, match=message) as error:
        convert_brats(tmp_path)
    if "not named" in message:
        assert "the folder converter (nnUNetv2_spmc_convert folder) with" in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("BraTS2021_00000", "BraTS-GLI-00000-000", "mixes BraTS.* and BraTS.*; convert one"),
        (None, "BraTS-PED-00000-000", "BraTS-PED, whose label values mean other tissues .*folder"),
        (None, "BraTS-MEN-RT-0308-1", "BraTS-MEN-RT-0308-1 .* not named as"),
        (None, "BraTS2021_00000", "BraTS2021_00000 .* not named as"),
    ],
)
def test_names_of_two_times_or_other_tasks_are_refused(
    tmp_path, write_case, write_new_case, old, new, message
) -> None:
    if old:
        write_case(tmp_path / old, 0)
    write_new_case(tmp_path / new, 1)
    with pytest.raises(ConversionError, match=message):
        convert_brats(tmp_path)

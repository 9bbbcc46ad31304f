"""Which file is whose: every file belongs to a case by its whole name, or is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc.dataset_conversion.brats import convert_brats
from nnunetv2_spmc.raw.cases import ConversionError
from nnunetv2_spmc.raw.writer import WriteOptions

ODD = "W39_1998.09.19_Segm.nii"


@pytest.fixture
def write_case(write_volume):
    """Write FLAIR and a label that no other case has."""

    def write(folder: Path, case: str, seed: int, ending: str = ".nii.gz") -> None:
        contrast, label = ("-t2f", "-seg") if "-" in case else ("_flair", "_seg")
        write_volume(folder / f"{case}{contrast}{ending}", seed=seed)
        write_volume(folder / f"{case}{label}{ending}", tumor_of(seed))

    return write


@pytest.fixture
def cases(tmp_path, write_case):
    """Six cases of 2021, each in a folder of its own."""
    for i in range(6):
        write_case(tmp_path / f"BraTS2021_0000{i}", f"BraTS2021_0000{i}", i)
    return tmp_path


@pytest.fixture
def flat(tmp_path, write_case):
    """Six cases of 2021 in one folder."""
    for i in range(6):
        write_case(tmp_path / "flat", f"BraTS2021_0000{i}", i)
    return tmp_path / "flat"


def tumor_of(seed: int) -> np.ndarray:
    label = np.zeros((4, 6, 8), np.uint8)
    label[1, 1 + seed // 6, 1 + seed % 6] = 1  # of every release
    return label


def labels(source: Path, **options) -> dict[str, str]:
    """Case -> name of its label's file, of those that have one."""
    summary = convert_brats(source, labeled=2, options=WriteOptions(dry_run=True), **options)
    return {case.identifier: case.label.path.name for case in summary.dataset.cases if case.label}


def mentions(text: str, file: Path) -> bool:
    """Whether a text names a file, and not only one whose name begins alike."""
    return re.search(rf"{re.escape(str(file))}(?![.\w])", text) is not None


def refusal(source: Path) -> str:
    with pytest.raises(ConversionError) as error:
        labels(source)
    return str(error.value)


@pytest.mark.parametrize(
    "names",
    [
        [f"BraTS2021_{i:05d}" for i in range(11)],
        [f"BraTS-GLI-{i // 2:05d}-00{i % 2}" for i in range(11)],
        # names of which one begins with another
        ["BraTS2021_1", *(f"BraTS2021_1{i}" for i in range(10))],
        [
            "Brats18_A_1_1",
            *(f"Brats18_A_1_1{i}" for i in range(5)),
            *(f"Brats18_A_{i}_1" for i in "bcde"),
        ],
    ],
    ids=["2021", "GLI", "prefixes", "prefixes of patients"],
)
def test_cases_in_one_folder_keep_their_own_labels(
    tmp_path, write_case, nnunet_folders, names
) -> None:
    for i, case in enumerate(names):
        write_case(tmp_path / "flat", case, i)
    summary = convert_brats(tmp_path / "flat", labeled=2)
    written = {file.name.removesuffix(".nii.gz"): file for file in summary.folder.glob("labels*/*")}
    assert sorted(written) == sorted(names)
    for i, case in enumerate(names):
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(written[case])))
        assert np.array_equal(array, tumor_of(i) > 0)


def test_capitals_do_not_matter(flat, nnunet_folders) -> None:
    for old, new in (
        ("BraTS2021_00001_seg.nii.gz", "BraTS2021_00001_SEG.nii.gz"),
        ("BraTS2021_00002_seg.nii.gz", "brats2021_00002_Seg.nii.gz"),
        ("BraTS2021_00003_flair.nii.gz", "BraTS2021_00003_FLAIR.NII.GZ"),
    ):
        (flat / old).rename(flat / new)
    found = labels(flat)
    assert len(found) == 6
    assert found["BraTS2021_00001"] == "BraTS2021_00001_SEG.nii.gz"
    assert found["BraTS2021_00002"] == "brats2021_00002_Seg.nii.gz"
    assert convert_brats(flat, labeled=2).count("labeled") == 2


@pytest.mark.parametrize("layout", ["cases", "flat"])
@pytest.mark.parametrize(
    "stray",
    [
        "BraTS2021_00002_auto_seg.nii.gz",
        "BraTS2021_00002_seg.nii",
        "BraTS2021_00002_SEG.nii.gz",
        "BraTS2021_00002_seg_pred.nii.gz",
        "BraTS2021_00002-seg.nii.gz",
        "BraTS2021_00002_seg.nrrd",
        "auto_BraTS2021_00002_seg.nii.gz",
    ],
)
def test_two_files_that_may_be_a_label_are_both_named(
    request, layout, write_volume, nnunet_folders, stray
) -> None:
    source = request.getfixturevalue(layout)
    folder = source / "BraTS2021_00002" if layout == "cases" else source
    write_volume(folder / stray)
    text = refusal(source)
    assert "Case BraTS2021_00002 has 2 files that may be its label" in text
    assert mentions(text, folder / "BraTS2021_00002_seg.nii.gz")
    assert mentions(text, folder / stray)


@pytest.mark.parametrize("stray", ["auto_seg.nii.gz", "BraTS2021_00099_seg.nii.gz", ODD])
def test_a_foreign_segmentation_in_a_case_s_folder_is_refused(
    cases, write_volume, nnunet_folders, stray
) -> None:
    folder = cases / "BraTS2021_00002"
    write_volume(folder / stray)
    text = refusal(cases)
    assert mentions(text, folder / "BraTS2021_00002_seg.nii.gz")
    assert mentions(text, folder / stray)


@pytest.mark.parametrize("stray", ["auto_seg.nii.gz", "BraTS2021_00099_seg.nii.gz", ODD])
def test_a_segmentation_of_no_case_in_the_folder_of_many_is_refused(
    flat, write_volume, nnunet_folders, stray
) -> None:
    write_volume(flat / stray)
    assert f"{flat / stray} belongs to no case by its name" in refusal(flat)


@pytest.mark.parametrize("name", ["BraTS2021_00002_auto_seg.nii.gz", "BraTS2021_00002_pred.nii"])
def test_what_may_be_the_only_label_of_a_case_is_not_passed_over(
    cases, write_volume, nnunet_folders, name
) -> None:
    folder = cases / "BraTS2021_00002"
    (folder / "BraTS2021_00002_seg.nii.gz").unlink()
    write_volume(folder / name)
    expected = "is not called BraTS2021_00002_seg.nii.gz; rename it"
    assert f"{folder / name} may be the label of case BraTS2021_00002" in refusal(cases)
    assert expected in refusal(cases)


def test_a_prediction_in_another_folder_is_no_label(cases, nnunet_folders) -> None:
    own = cases / "BraTS2021_00002" / "BraTS2021_00002_seg.nii.gz"
    (cases / "predicted").mkdir()
    moved = own.rename(cases / "predicted" / own.name)
    text = refusal(cases)
    assert "The label of case BraTS2021_00002 lies apart from its scans" in text
    assert mentions(text, moved)


def test_a_label_whose_scans_are_missing_is_refused(cases, nnunet_folders) -> None:
    (cases / "BraTS2021_00002" / "BraTS2021_00002_flair.nii.gz").unlink()
    assert "BraTS2021_00002_seg.nii.gz belongs to no case" in refusal(cases)


@pytest.mark.parametrize(
    "twin",
    [
        "BraTS2021_00002_flair.nii",
        "BraTS2021_00002_FLAIR.nii.gz",
        "../BraTS2021_00002_flair.nii.gz",
    ],
)
def test_a_channel_that_is_there_twice_names_both_files(
    cases, write_volume, nnunet_folders, twin
) -> None:
    folder = cases / "BraTS2021_00002"
    other = write_volume((folder / twin).resolve(), seed=99)
    text = refusal(cases)
    assert "Case BraTS2021_00002 has one channel twice" in text
    assert mentions(text, folder / "BraTS2021_00002_flair.nii.gz")
    assert mentions(text, other)


def test_a_case_in_two_folders_is_refused(cases, write_volume, nnunet_folders) -> None:
    write_volume(cases / "other" / "BraTS2021_00002_t1.nii.gz", seed=99)
    text = refusal(cases)
    assert f"{cases / 'BraTS2021_00002'} and {cases / 'other'}" in text


@pytest.mark.parametrize("layout", ["cases", "flat"])
def test_other_files_are_passed_over(request, layout, write_volume, nnunet_folders) -> None:
    source = request.getfixturevalue(layout)
    folder = source / "BraTS2021_00002" if layout == "cases" else source
    write_volume(folder / "BraTS2021_00002_brainmask.nii.gz")
    write_volume(source / "atlas" / "tissue_labels.nii.gz")
    for name in ("._BraTS2021_00002_seg.nii.gz", ".auto_seg.nii.gz", "BraTS2021_00002_seg.txt"):
        (folder / name).touch()
    assert labels(source) == {
        f"BraTS2021_0000{i}": f"BraTS2021_0000{i}_seg.nii.gz" for i in range(6)
    }


@pytest.fixture
def year_2020(tmp_path, write_case):
    """Six cases of 2020; the label of case 355 has another name, as it is distributed."""
    for i in range(350, 356):
        case = f"BraTS20_Training_{i}"
        write_case(tmp_path / case, case, i - 350, ".nii")
    odd = tmp_path / "BraTS20_Training_355"
    (odd / "BraTS20_Training_355_seg.nii").rename(odd / ODD)
    return tmp_path


def test_the_oddly_named_label_of_case_355_of_2020_is_found(year_2020, nnunet_folders) -> None:
    found = labels(year_2020)
    assert len(found) == 6
    assert found["BraTS20_Training_355"] == ODD


@pytest.mark.parametrize(
    "second",
    ["BraTS20_Training_355_seg.nii", "BraTS20_Training_355_auto_seg.nii", "second_Segm.nii"],
)
def test_case_355_with_another_label_is_refused(
    year_2020, write_volume, nnunet_folders, second
) -> None:
    folder = year_2020 / "BraTS20_Training_355"
    write_volume(folder / second)
    text = refusal(year_2020)
    assert mentions(text, folder / ODD)
    assert mentions(text, folder / second)


def test_the_odd_name_is_that_of_no_other_case(year_2020, nnunet_folders) -> None:
    folder = year_2020 / "BraTS20_Training_352"
    (folder / "BraTS20_Training_352_seg.nii").rename(folder / ODD)
    assert f"{folder / ODD} may be the label of case BraTS20_Training_352" in refusal(year_2020)


def test_the_odd_name_says_nothing_in_the_folder_of_many(year_2020, nnunet_folders) -> None:
    (year_2020 / "flat").mkdir()
    for file in list(year_2020.glob("BraTS20*/*.nii")):
        file.rename(year_2020 / "flat" / file.name)
    assert f"{ODD} belongs to no case by its name" in refusal(year_2020 / "flat")

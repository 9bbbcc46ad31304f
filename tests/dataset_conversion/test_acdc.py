from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.dataset_conversion.acdc import convert_acdc, find_patients
from nnunetv2_spmc.dataset_conversion.protocol_lists import (
    ACDC_TEST,
    ACDC_TRAIN,
    ACDC_VALIDATION,
)
from nnunetv2_spmc.raw.cases import ConversionError
from nnunetv2_spmc.raw.writer import WriteOptions


@pytest.fixture
def challenge(tmp_path, write_volume):
    """All 100 patients with frames 4 and 11 of a cycle of 12; end-diastole is frame 11."""
    for i, number in enumerate(ACDC_TRAIN + ACDC_VALIDATION + ACDC_TEST):
        folder = tmp_path / "training" / f"patient{number}"
        for frame in (4, 11):
            write_volume(folder / f"patient{number}_frame{frame:02d}.nii.gz", seed=100 * frame + i)
            write_volume(folder / f"patient{number}_frame{frame:02d}_gt.nii.gz", fill=3)
        (folder / "Info.cfg").write_text("ED: 11\nES: 4\nGroup: DCM\n")
    (tmp_path / "testing" / "patient101").mkdir(parents=True)
    return tmp_path


def write_cycle(challenge: Path, number: str, seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 99, (12, 4, 6, 8)).astype(np.int16)
    image = sitk.GetImageFromArray(array, False)
    image.SetSpacing((1, 1, 2, 1))
    folder = challenge / "training" / f"patient{number}"
    sitk.WriteImage(image, str(folder / f"patient{number}_4d.nii.gz"))


def split_of(summary) -> dict:
    return json.loads((summary.folder / "split.json").read_text())


def test_files_that_are_not_used_are_named(challenge, write_volume, nnunet_folders) -> None:
    write_cycle(challenge, "001", seed=7)
    write_volume(challenge / "training" / "patient002" / "patient002_frame07.nii.gz", seed=8)
    (challenge / "testing" / "patient101" / "patient101_frame01.mgz").touch()
    summary = convert_acdc(challenge, options=WriteOptions(dry_run=True))
    assert set(summary.dataset.unused) == {
        "testing/",
        "training/patient001/patient001_4d.nii.gz",
        "training/patient002/patient002_frame07.nii.gz",
    }
    assert "not used from the input, 3 (all in split.json): testing/" in str(summary)


def test_lists_are_the_literature_s(shared_data) -> None:
    for name, ours in (("train", ACDC_TRAIN), ("val", ACDC_VALIDATION), ("test", ACDC_TEST)):
        theirs = (shared_data / "splits" / "ACDC" / f"{name}.list").read_text().split()
        assert [f"patient{n}_frame0{f}" for n in ours for f in (1, 2)] == theirs


def test_challenge_layout(challenge, nnunet_folders) -> None:
    summary = convert_acdc(challenge, labeled=14)
    content = split_of(summary)
    assert {role: tuple(count.values()) for role, count in content["counts"].items()} == {
        "labeled": (28, 14),
        "validation": (20, 10),
        "unlabeled": (112, 56),
        "test": (40, 20),
    }
    assert content["remarks"]["patient001_frame11"] == {"phase": "ED"}
    assert content["remarks"]["patient001_frame04"] == {"phase": "ES"}
    file = nnunet_folders.preprocessed / "Dataset502_ACDC" / "splits_final.json"
    (fold,) = json.loads(file.read_text())
    assert fold["train"] == content["cases"]["labeled"]
    assert fold["val"] == content["cases"]["validation"]


def test_the_earlier_frame_is_end_diastole_without_info(challenge, nnunet_folders) -> None:
    (challenge / "training" / "patient001" / "Info.cfg").unlink()
    content = split_of(convert_acdc(challenge / "training"))
    assert content["remarks"]["patient001_frame04"] == {"phase": "ED"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(range(256)), "Info.cfg is not UTF-8"),
        (b"ED: 11\0", "Info.cfg is not text"),
        (b"", "Info.cfg does not say which frame is end-diastole"),
        (b"ED: eleven\n", "Info.cfg does not say which frame is end-diastole"),
    ],
)
def test_a_damaged_info_is_named(tmp_path, write_volume, content, message) -> None:
    folder = tmp_path / "patient001"
    for name in ("patient001_frame01", "patient001_frame01_gt"):
        write_volume(folder / f"{name}.nii.gz")
    (folder / "Info.cfg").write_bytes(content)
    with pytest.raises(DataError, match=message):
        find_patients(tmp_path)


def test_other_frames_are_of_training_patients_only(challenge, nnunet_folders) -> None:
    for seed, number in enumerate(ACDC_TRAIN):
        write_cycle(challenge, number, seed)
    write_cycle(challenge, ACDC_TEST[0], 99)
    summary = convert_acdc(challenge, use_4d_frames=True)
    content = split_of(summary)
    assert content["counts"]["unlabeled"] == {"cases": 126 + 70 * 10, "patients": 70}
    assert content["counts"]["test"]["cases"] == 40
    labeled_patient = f"patient{ACDC_TRAIN[0]}"
    frames = [c for c in content["cases"]["unlabeled"] if c.startswith(labeled_patient)]
    assert len(frames) == 10
    assert f"{labeled_patient}_frame04" not in frames
    frame = sitk.ReadImage(str(summary.folder / "imagesUn" / f"{frames[0]}_0000.nii.gz"))
    assert frame.GetSpacing() == (1, 1, 2)


def test_a_missing_4d_file_is_named(challenge, nnunet_folders) -> None:
    for number in ACDC_TRAIN[1:]:
        write_cycle(challenge, number, int(number))
    with pytest.raises(ConversionError, match=rf"1 of .*patient{ACDC_TRAIN[0]} \(no 4D file\)"):
        convert_acdc(challenge, use_4d_frames=True)


def test_a_4d_file_without_time_is_named(challenge, nnunet_folders, write_volume) -> None:
    for number in ACDC_TRAIN:
        write_cycle(challenge, number, int(number))
    folder = challenge / "training" / f"patient{ACDC_TRAIN[0]}"
    write_volume(folder / f"patient{ACDC_TRAIN[0]}_4d.nii.gz", seed=1)
    with pytest.raises(ConversionError, match=f"patient{ACDC_TRAIN[0]}_4d.nii.gz is not 4D"):
        convert_acdc(challenge, use_4d_frames=True)


@pytest.mark.parametrize(
    ("twin", "of"),
    [
        ("patient001_frame04.nii", "patient001_frame04.nii.gz"),
        ("patient001_frame04_gt.nii", "patient001_frame04_gt.nii.gz"),
        ("patient001_frame4.nii.gz", "patient001_frame04.nii.gz"),
    ],
)
def test_two_files_of_one_frame_are_both_named(
    challenge, nnunet_folders, write_volume, twin, of
) -> None:
    folder = challenge / "training" / "patient001"
    write_volume(folder / twin)
    if "frame4" in twin:
        write_volume(folder / "patient001_frame4_gt.nii.gz")
    with pytest.raises(
        ConversionError, match=rf"{folder / twin}[ ,;].*remove one of them"
    ) as error:
        convert_acdc(challenge)
    assert str(folder / of) in str(error.value)


def test_two_4d_files_of_a_patient_are_both_named(challenge, nnunet_folders, write_volume) -> None:
    write_cycle(challenge, ACDC_TRAIN[0], 1)
    folder = challenge / "training" / f"patient{ACDC_TRAIN[0]}"
    twin = write_volume(folder / f"patient{ACDC_TRAIN[0]}_4d.nii", seed=1)
    with pytest.raises(ConversionError) as error:
        convert_acdc(challenge, use_4d_frames=True)
    assert f"{twin} and {twin}.gz are both there" in str(error.value)


def test_a_frame_in_the_folder_of_another_patient_is_refused(
    challenge, nnunet_folders, write_volume
) -> None:
    folder = challenge / "training" / "patient001"
    file = write_volume(folder / "patient002_frame04.nii.gz", seed=1)
    write_volume(folder / "patient002_frame04_gt.nii.gz")
    with pytest.raises(ConversionError, match="folder of another patient; move it to patient002"):
        convert_acdc(challenge)
    assert file.is_file()


def test_a_label_may_be_compressed_where_its_image_is_not(challenge, nnunet_folders) -> None:
    file = challenge / "training" / "patient001" / "patient001_frame04.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(file)), str(file.with_suffix("")))
    file.unlink()
    content = split_of(convert_acdc(challenge))
    assert content["files"]["patient001_frame04"]["label"].endswith("frame04_gt.nii.gz")


@pytest.mark.parametrize("ending", [".NII.GZ", ".Nii.gz"])
def test_endings_in_capitals_are_found(challenge, nnunet_folders, ending) -> None:
    images = {}
    for file in sorted((challenge / "training" / "patient001").glob("*.nii.gz")):
        images[file.name] = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        file.rename(file.with_name(file.name.replace(".nii.gz", ending)))
    folder = convert_acdc(challenge).folder
    for frame in ("patient001_frame04", "patient001_frame11"):
        (written,) = folder.glob(f"images*/{frame}_0000.nii.gz")
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(written)))
        np.testing.assert_array_equal(array, images[f"{frame}.nii.gz"])


def test_an_unknown_label_value_names_no_option_of_another_converter(
    challenge, nnunet_folders, write_volume
) -> None:
    write_volume(challenge / "training" / "patient001" / "patient001_frame04_gt.nii.gz", fill=7)
    with pytest.raises(ConversionError, match=r"\[7\].*; get the file again, or use") as error:
        convert_acdc(challenge)
    assert "--labels" not in str(error.value)


def test_a_missing_phase_is_named(challenge, nnunet_folders) -> None:
    (challenge / "training" / "patient001" / "patient001_frame04_gt.nii.gz").unlink()
    with pytest.raises(ConversionError, match=r"patient001 \(one of two phases\)"):
        convert_acdc(challenge)


@pytest.mark.parametrize("labeled", [0, 70])
def test_some_patients_have_to_be_labeled_and_some_unlabeled(tmp_path, labeled) -> None:
    with pytest.raises(ConversionError, match="between 1 and 69"):
        convert_acdc(tmp_path, labeled=labeled)


def test_an_empty_folder_is_an_error(tmp_path) -> None:
    with pytest.raises(ConversionError, match="There are no ACDC volumes in"):
        convert_acdc(tmp_path)


def test_real_scans_with_missing_patients(shared_data, nnunet_folders) -> None:
    source = shared_data / "acdc128"
    with pytest.raises(ConversionError, match=r"10 of the 100 patients .*: patient013, patient033"):
        convert_acdc(source)
    assert list(nnunet_folders.raw.iterdir()) == []
    summary = convert_acdc(source, allow_missing=True)
    content = split_of(summary)
    assert len(content["missing"]) == 10
    assert content["cases"]["labeled"][0] == "patient021_frame01"
    assert {role: count["cases"] for role, count in content["counts"].items()} == {
        "labeled": 14,
        "validation": 20,
        "unlabeled": 126,
        "test": 20,
    }
    assert "patient074_frame01 and patient076_frame01 are the same scan" in str(summary)


def test_h5_layout(shared_data, tmp_path, nnunet_folders) -> None:
    h5py = pytest.importorskip("h5py")
    for i, number in enumerate(("099", "038", "028", "011")):
        for frame in (1, 2):
            source = shared_data / "acdc_h5" / "data" / f"patient001_frame0{frame}.h5"
            with (
                h5py.File(source) as real,
                h5py.File(tmp_path / f"patient{number}_frame0{frame}.h5", "w") as copy,
            ):
                copy["image"] = np.roll(real["image"][()], i)
                copy["label"] = real["label"][()]
    summary = convert_acdc(tmp_path, labeled=1, allow_missing=True)
    assert [summary.count(role) for role in ("labeled", "validation", "unlabeled", "test")] == [
        2
    ] * 4
    assert "spacing assumed to be 1.5625 x 1.5625 x 10 mm" in str(summary)
    image = sitk.ReadImage(str(summary.folder / "imagesTr" / "patient099_frame01_0000.nii.gz"))
    assert image.GetSize() == (216, 256, 10)
    assert image.GetSpacing() == (1.5625, 1.5625, 10)


def test_the_shared_h5_files_are_found(shared_data, nnunet_folders) -> None:
    with pytest.raises(ConversionError, match="99 of the 100 patients"):
        convert_acdc(shared_data / "acdc_h5")

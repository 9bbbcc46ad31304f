from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc.dataset_conversion.folder import LabelDefinition, convert_folder
from nnunetv2_spmc.dataset_conversion.folder_arguments import (
    parse_channel_files,
    parse_label_map,
    parse_labels,
)
from nnunetv2_spmc.dataset_conversion.folder_files import FolderLayout
from nnunetv2_spmc.dataset_conversion.folder_layout import find_cases
from nnunetv2_spmc.dataset_conversion.split_request import SplitRequest, parse_selection
from nnunetv2_spmc.raw.cases import ConversionError
from nnunetv2_spmc.raw.writer import WriteOptions
from tests.raw.dicom_series import random_slices, write_slices

LIVER = LabelDefinition({"background": 0, "liver": 1})


@pytest.fixture
def scans(tmp_path, write_volume) -> FolderLayout:
    """Six scans, the first four with a label."""
    for i in range(6):
        write_volume(tmp_path / "images" / f"p{i // 2}_scan{i}.nii.gz", seed=i)
    for i in range(4):
        write_volume(tmp_path / "labels" / f"p{i // 2}_scan{i}.nii.gz")
    return FolderLayout(tmp_path / "images", tmp_path / "labels", ("MRI",))


def convert(layout: FolderLayout, split: SplitRequest | None = None, **options) -> dict:
    classes = options.pop("classes", LIVER)
    summary = convert_folder(
        layout,
        classes,
        split or SplitRequest(),
        dataset_id=510,
        name="Liver",
        options=WriteOptions(**options),
    )
    return json.loads((summary.folder / "split.json").read_text())


def test_a_case_without_label_is_unlabeled(scans, nnunet_folders) -> None:
    content = convert(scans)
    assert content["cases"]["labeled"] == ["p0_scan0", "p0_scan1", "p1_scan2", "p1_scan3"]
    assert content["cases"]["unlabeled"] == ["p2_scan4", "p2_scan5"]


def test_withheld_labels_go_to_labels_un(scans, nnunet_folders) -> None:
    content = convert(scans, SplitRequest(labeled=("p0_scan0", "p1_scan2")))
    folder = nnunet_folders.raw / "Dataset510_Liver"
    assert content["counts"]["unlabeled"]["cases"] == 4
    assert sorted(p.name for p in (folder / "labelsUn").iterdir()) == [
        "p0_scan1.nii.gz",
        "p1_scan3.nii.gz",
    ]


def test_patients_by_regular_expression_stay_together(scans, nnunet_folders) -> None:
    content = convert(scans, SplitRequest(test=0.5, group_by=r"^(p\d+)_"))
    test = content["cases"]["test"]
    assert len(test) == 2
    assert len({content["groups"][case] for case in test}) == 1


def test_a_number_of_patients_and_what_they_were_drawn_from_is_said(scans, nnunet_folders) -> None:
    content = convert(scans, SplitRequest(test=1, group_by=r"^(p\d+)_"))
    assert content["counts"]["test"] == {"cases": 2, "patients": 1}
    assert content["protocol"].startswith("test: 1 patient drawn with seed 0;")
    assert content["notes"] == ["--test 1: 2 cases of 1 patient, drawn from those with a label"]


def test_scans_of_one_patient_without_a_pattern_get_a_hint(scans, nnunet_folders) -> None:
    (hint,) = convert(scans)["notes"]
    assert hint.startswith("p0_scan0 and p0_scan1 look like scans of one patient")
    content = convert(scans, SplitRequest(group_by=r"^(p\d+)_"), overwrite=True)
    assert content["notes"] == []
    named = SplitRequest(test=("p0_scan0",), validation=("p0_scan1",))
    assert convert(scans, named, overwrite=True)["notes"] == []


def test_a_name_without_patient_is_an_error(scans, nnunet_folders) -> None:
    with pytest.raises(ConversionError, match="does not match the case p0_scan0"):
        convert(scans, SplitRequest(group_by=r"^patient(\d+)"))


def test_values_are_mapped(tmp_path, scans, write_volume, nnunet_folders) -> None:
    write_volume(tmp_path / "labels" / "p0_scan0.nii.gz", fill=255)
    with pytest.raises(ConversionError, match=r"p0_scan0.*\[255\].*--map OLD=NEW"):
        convert(scans)
    convert(scans, classes=LabelDefinition(LIVER.labels, {255: 1}))
    label = nnunet_folders.raw / "Dataset510_Liver" / "labelsTr" / "p0_scan0.nii.gz"
    assert np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(label)))).tolist() == [0, 1]


def test_labels_without_a_header_are_taken_where_that_is_asked_for(
    tmp_path, scans, write_volume, nnunet_folders
) -> None:
    write_volume(tmp_path / "labels" / "p0_scan0.nii.gz", spacing=(1, 1, 1))
    with pytest.raises(ConversionError, match=r"p0_scan0.*--trust_label_grid"):
        convert(scans)
    content = convert(scans, classes=LabelDefinition(LIVER.labels, trust_grid=True))
    assert content["options"]["trust_label_grid"] is True
    label = nnunet_folders.raw / "Dataset510_Liver" / "labelsTr" / "p0_scan0.nii.gz"
    assert sitk.ReadImage(str(label)).GetSpacing() == (1, 1, 2)


def test_channels_by_suffix(tmp_path, write_volume) -> None:
    for i, name in enumerate(("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.mha", "b_0001.mha")):
        write_volume(tmp_path / "images" / name, seed=i)
    write_volume(tmp_path / "labels" / "a.nrrd")
    layout = FolderLayout(tmp_path / "images", tmp_path / "labels", ("T1", "T2"))
    found = find_cases(layout)
    assert [case.name for case in found] == ["a", "b"]
    assert [str(source)[-13:] for source in found[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert found[0].label is not None
    assert found[1].label is None
    (tmp_path / "images" / "b_0001.mha").unlink()
    with pytest.raises(ConversionError, match=r"Case b lacks the channel T2 \(b_0001\)"):
        find_cases(layout)


def test_a_channel_too_many_is_an_error(tmp_path, write_volume) -> None:
    for n in range(2):
        write_volume(tmp_path / "images" / f"a_000{n}.nii.gz", seed=n)
    write_volume(tmp_path / "labels" / "a.nii.gz")
    with pytest.raises(ConversionError, match="2 channels but --channels names 1"):
        find_cases(FolderLayout(tmp_path / "images", tmp_path / "labels", ("CT",)))


@pytest.mark.parametrize(
    ("images", "labels", "names"),
    [
        (["a_0000", "b_0000"], ["a"], ["a", "b"]),
        (["case_0000", "case_0001"], ["case_0001"], ["case_0000", "case_0001"]),
        (["case_0001", "case_0002"], [], ["case_0001", "case_0002"]),
        (["case_0000"], ["case_0000"], ["case_0000"]),
    ],
)
def test_running_numbers_are_not_taken_for_channels(
    tmp_path, write_volume, images, labels, names
) -> None:
    (tmp_path / "labels").mkdir()
    for i, name in enumerate(images):
        write_volume(tmp_path / "images" / f"{name}.nii.gz", seed=i)
    for name in labels:
        write_volume(tmp_path / "labels" / f"{name}.nii.gz")
    found = find_cases(FolderLayout(tmp_path / "images", tmp_path / "labels", ("CT",)))
    assert [case.name for case in found] == names


def test_a_folder_for_each_case(tmp_path, write_volume) -> None:
    for i, case in enumerate(("a", "b")):
        write_volume(tmp_path / case / f"{case}_t1.nii.gz", seed=2 * i)
        write_volume(tmp_path / case / f"{case}_t2.nii.gz", seed=2 * i + 1)
    write_volume(tmp_path / "a" / "a_seg.nii.gz")
    patterns = {"T2": "*_t2.nii.gz", "T1": "*_t1.nii.gz"}
    layout = FolderLayout(tmp_path, None, ("T2", "T1"), patterns, "*_seg.nii.gz")
    found = find_cases(layout)
    assert [Path(str(source)).name for source in found[0].images] == ["a_t2.nii.gz", "a_t1.nii.gz"]
    assert [case.label is not None for case in found] == [True, False]
    (tmp_path / "b" / "b_t1.nii.gz").unlink()
    with pytest.raises(ConversionError, match=r"Case b lacks the channel T1: no \*_t1"):
        find_cases(layout)
    write_volume(tmp_path / "b" / "b_t1.nii.gz", seed=1)
    write_volume(tmp_path / "b" / "again_t1.nii.gz", seed=1)
    with pytest.raises(ConversionError, match=r"again_t1\.nii\.gz, b_t1\.nii\.gz"):
        find_cases(layout)


def test_one_file_is_never_two_channels_or_a_channel_and_the_label(tmp_path, write_volume) -> None:
    for i, case in enumerate(("a", "b")):
        write_volume(tmp_path / case / f"{case}_t1ce.nii.gz", seed=i)
    patterns = {"T1": "*_t1*.nii.gz", "T1CE": "*_t1ce.nii.gz"}
    with pytest.raises(ConversionError, match=r"Case a: .*a_t1ce\.nii\.gz would be two of its cha"):
        find_cases(FolderLayout(tmp_path, None, ("T1", "T1CE"), patterns, "*_seg.nii.gz"))
    layout = FolderLayout(tmp_path, None, ("T1CE",), {"T1CE": "*_t1ce.nii.gz"}, "*.nii.gz")
    with pytest.raises(ConversionError, match=r"or a channel and the label"):
        find_cases(layout)


def test_a_folder_of_dicom_folders(tmp_path, write_volume) -> None:
    (tmp_path / "images" / "patient1").mkdir(parents=True)
    write_volume(tmp_path / "labels" / "patient1.nii.gz")
    layout = FolderLayout(tmp_path / "images", tmp_path / "labels", ("CT",))
    assert [case.name for case in find_cases(layout)] == ["patient1"]


def test_dicom_folders_are_written_in_physical_values(
    tmp_path, write_volume, nnunet_folders
) -> None:
    voxels = {"p0": random_slices(4), "p1": random_slices(4)[::-1]}
    each = [{"RescaleSlope": slope, "RescaleIntercept": -7} for slope in (1, 0.5, 2, 0.3)]
    for case, array in voxels.items():
        write_slices(tmp_path / "images" / case / "series", array, each=each)
    write_volume(tmp_path / "labels" / "p0.nii.gz", np.ones((4, 6, 8)), spacing=(1, 1, 3))
    convert(FolderLayout(tmp_path / "images", tmp_path / "labels", ("CT",)))
    for case, folder in (("p0", "imagesTr"), ("p1", "imagesUn")):
        (file,) = nnunet_folders.raw.glob(f"*/{folder}/{case}_0000.nii.gz")
        image = sitk.ReadImage(str(file))
        expected = voxels[case] * np.reshape((1, 0.5, 2, 0.3), (4, 1, 1)) - 7
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected)
        assert image.GetSpacing() == (1, 1, 3)


def test_a_dicom_folder_that_is_no_volume_is_named_with_its_case(
    tmp_path, write_volume, nnunet_folders
) -> None:
    for case, depths in (("p0", (0, 3, 6, 9)), ("p1", (0, 0, 3, 3))):
        positions = [(0, 0, depth) for depth in depths]
        write_slices(tmp_path / "images" / case, random_slices(4), positions=positions)
    write_volume(tmp_path / "labels" / "p0.nii.gz", np.ones((4, 6, 8)), spacing=(1, 1, 3))
    with pytest.raises(ConversionError, match=r"Case p1: .* several volumes: 4 images at 2 pos"):
        convert(FolderLayout(tmp_path / "images", tmp_path / "labels", ("CT",)))
    assert list(nnunet_folders.raw.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("images/p0_scan0.nrrd", r"p0_scan0 is there twice: p0_scan0\.nii\.gz and p0_scan0\.nrrd"),
        ("labels/p0_scan0.mha", "p0_scan0 is there twice"),
        ("labels/nobody.nii.gz", "1 label in .* without an image of that name in .*: nobody"),
        ("images/slice.dcm", "put the slices of each DICOM series into a folder"),
        ("images/slice.png", "not a 3D volume"),
    ],
)
def test_stray_files_are_named(tmp_path, scans, spoil, message) -> None:
    (tmp_path / spoil).touch()
    with pytest.raises(ConversionError, match=message):
        find_cases(scans)


def test_notes_and_hidden_files_are_passed_over(tmp_path, scans) -> None:
    for name in ("notes.txt", ".DS_Store", "._p0_scan0.nii.gz"):
        (tmp_path / "images" / name).touch()
    assert len(find_cases(scans)) == 6


def test_an_empty_folder_is_an_error(tmp_path) -> None:
    with pytest.raises(ConversionError, match="There are no images in"):
        find_cases(FolderLayout(tmp_path, tmp_path, ("CT",)))


def test_an_absent_folder_is_an_error(tmp_path) -> None:
    with pytest.raises(ConversionError, match="nowhere does not exist"):
        find_cases(FolderLayout(tmp_path / "nowhere", tmp_path, ("CT",)))


def test_names_that_become_equal_are_refused(tmp_path, scans, write_volume) -> None:
    write_volume(tmp_path / "images" / "a b.nii.gz", seed=8)
    write_volume(tmp_path / "images" / "a_b.nii.gz", seed=9)
    with pytest.raises(ConversionError, match="would both be called 'a_b'"):
        convert(scans)


def test_selections_are_numbers_fractions_files_or_names(tmp_path) -> None:
    path = tmp_path / "some.list"
    path.write_text("a\n\n# a comment\nb.nii.gz\na\n")
    assert parse_selection(None) is None
    assert parse_selection("8") == 8
    assert parse_selection("0.25") == 0.25
    assert parse_selection(str(path)) == ("a", "b")
    assert parse_selection("b,a") == ("b", "a")
    assert parse_selection(".") == ("_",)  # a name, which no case has


@pytest.mark.parametrize("text", ["0", "-3", "1.5", "0.0", "absent.txt", ",", ""])
def test_senseless_selections_are_refused(text) -> None:
    with pytest.raises(ConversionError):
        parse_selection(text)


def test_labels_maps_and_patterns_are_parsed() -> None:
    assert parse_labels(["background=0", "whole=1,2"]) == {"background": 0, "whole": (1, 2)}
    assert parse_label_map(["255=1"]) == {255: 1}
    assert parse_channel_files(["t1=*=t1.nii"]) == {"t1": "*=t1.nii"}
    for parse, items in (
        (parse_labels, ["liver"]),
        (parse_labels, ["liver=one"]),
        (parse_labels, ["a=1", "a=2"]),
        (parse_label_map, ["a=1"]),
    ):
        with pytest.raises(ConversionError, match="--"):
            parse(items)


def test_la_at_half_resolution(shared_data, nnunet_folders) -> None:
    images = shared_data / "la_half" / "images"
    present = {path.name.removesuffix(".nii.gz") for path in images.iterdir()}
    train = parse_selection(str(shared_data / "splits" / "LA" / "train.list"))
    test = parse_selection(str(shared_data / "splits" / "LA" / "test.list"))
    assert isinstance(train, tuple)
    assert isinstance(test, tuple)
    layout = FolderLayout(images, shared_data / "la_half" / "labels", ("MRI",))
    with pytest.raises(ConversionError, match="--test names 10 cases not among"):
        convert(layout, SplitRequest(test=test, labeled=train[:8]))
    split = SplitRequest(test=tuple(c for c in test if c in present), labeled=train[:8])
    content = convert(layout, split, link=True)
    counts = {role: count["cases"] for role, count in content["counts"].items()}
    assert counts == {"labeled": 8, "validation": 0, "unlabeled": 72, "test": 10}
    folder = nnunet_folders.raw / "Dataset510_Liver"
    assert len(list((folder / "labelsUn").iterdir())) == 72
    assert all(path.is_symlink() for path in (folder / "imagesUn").iterdir())

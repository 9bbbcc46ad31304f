"""Which label is whose in a folder that people have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc.cli.convert import main
from nnunetv2_spmc.dataset_conversion.folder_files import FolderLayout
from nnunetv2_spmc.dataset_conversion.folder_layout import find_cases
from nnunetv2_spmc.raw.cases import ConversionError

Make = Callable[..., FolderLayout]


@pytest.fixture
def make(tmp_path, write_volume) -> Make:
    """Write images and labels of some names; return where they are."""

    def write(images: str, labels: str, folders=("images", "labels"), **options) -> FolderLayout:
        for seed, name in enumerate(images.split()):
            write_volume(tmp_path / folders[0] / f"{name}.nii.gz", seed=seed)
        for name in labels.split():
            write_volume(tmp_path / folders[1] / f"{name}.nii.gz")
        channels = options.pop("channels", ("CT",))
        return FolderLayout(tmp_path / folders[0], tmp_path / folders[1], channels, **options)

    return write


def labels_of(layout: FolderLayout) -> dict[str, str]:
    """The label of each case, relative to the folder of the labels."""
    root = layout.labels or layout.images
    return {
        case.name: Path(str(case.label)).relative_to(root).as_posix().removesuffix(".nii.gz")
        for case in find_cases(layout)
        if case.label is not None
    }


@pytest.mark.parametrize(
    "suffix", ["_seg", "-seg", "_label", "_labels", "_mask", "_gt", "_segmentation", ".seg", "_Seg"]
)
def test_common_suffixes_are_found(make, suffix) -> None:
    layout = make("a b c", f"a{suffix} b{suffix}")
    assert labels_of(layout) == {"a": f"a{suffix}", "b": f"b{suffix}"}


def test_any_suffix_can_be_said(make) -> None:
    layout = make("a b", "a_reader1 a_reader2", label_suffix="_reader2")
    assert labels_of(layout) == {"a": "a_reader2"}


def test_a_suffix_may_follow_names_without_their_channel(make) -> None:
    assert labels_of(make("a_0000 b_0000", "a_seg")) == {"a": "a_seg"}


def test_a_suffix_may_follow_names_with_several_channels(make) -> None:
    layout = make("a_0000 a_0001 b_0000 b_0001", "b_mask", channels=("T1", "T2"))
    assert labels_of(layout) == {"b": "b_mask"}


def test_a_suffix_may_follow_the_whole_name_of_an_image_file(make) -> None:
    assert labels_of(make("a_0000 b_0000", "a_0000_seg")) == {"a_0000": "a_0000_seg"}


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        ("a_seg b_seg", "a_seg", {"a_seg": "a_seg"}),
        ("a_seg b_seg", "a_seg_seg b_seg_seg", {"a_seg": "a_seg_seg", "b_seg": "b_seg_seg"}),
        ("a b_seg", "a_seg b_seg", {"a": "a_seg", "b_seg": "b_seg"}),
        ("a a_seg", "a_seg", {"a_seg": "a_seg"}),
    ],
)
def test_a_case_whose_name_ends_in_a_suffix_is_not_mistaken(make, images, labels, expected) -> None:
    assert labels_of(make(images, labels)) == expected


def test_a_label_that_could_be_of_two_cases_is_refused_and_the_suffix_decides(make) -> None:
    layout = make("a b b_seg", "a_seg b_seg")
    with pytest.raises(ConversionError, match=r"b_seg\.nii\.gz may be the label of case b or of"):
        find_cases(layout)
    layout = make("a b b_seg", "a_seg b_seg", label_suffix="_seg")
    assert labels_of(layout) == {"a": "a_seg", "b": "b_seg"}


@pytest.mark.parametrize("second", ["a", "a_label"])
def test_two_labels_of_one_case_are_both_named(make, second) -> None:
    with pytest.raises(ConversionError, match="Case a has two labels") as error:
        find_cases(make("a b", f"a_seg {second}"))
    assert "a_seg" in str(error.value)
    assert second in str(error.value)


def test_labels_with_several_suffixes_are_refused(make) -> None:
    with pytest.raises(ConversionError, match=r"several suffixes, as a_gt, b_seg; say which one"):
        find_cases(make("a b", "a_gt b_seg"))


def test_a_label_with_a_suffix_but_no_image_is_refused(make) -> None:
    with pytest.raises(
        ConversionError, match=r"1 label .* called as they are without _seg .*: z_s"
    ):
        find_cases(make("a b", "a_seg z_seg"))


def test_a_suffix_that_no_label_has_is_refused(make) -> None:
    with pytest.raises(ConversionError, match=r"No file in .* is called CASE_sge"):
        find_cases(make("a b", "a_seg", label_suffix="_sge"))


def test_labels_may_lie_beside_the_images(make) -> None:
    layout = make("a b", "a_seg", folders=("data", "data"))
    assert labels_of(layout) == {"a": "a_seg"}
    assert [case.name for case in find_cases(layout)] == ["a", "b"]


@pytest.mark.parametrize("folder", ["a", "a_seg", "a.nii.gz"])
def test_a_folder_in_the_place_of_a_label_is_refused(make, write_volume, folder) -> None:
    layout = make("a b", "b")
    write_volume(layout.labels / folder / "liver.nii.gz")
    with pytest.raises(ConversionError, match=r"is a folder and no label file; .*--label_file"):
        find_cases(layout)


@pytest.mark.parametrize(
    ("labels", "pattern"),
    [
        ("a/seg b/seg", "seg.nii.gz"),  # a folder for each case
        ("a_manual b_manual", "*_manual.nii.gz"),
        ("manual/a_x manual/b_x", "manual/*_x.nii.gz"),
        ("a/x/seg b/x/seg", "**/seg.nii.gz"),
    ],
)
def test_a_pattern_finds_labels_of_image_files(make, labels, pattern) -> None:
    layout = make("a b ab c", labels, label_file=pattern)
    assert labels_of(layout) == dict(zip("ab", labels.split(), strict=True))


def test_a_pattern_finds_labels_beside_image_files(make) -> None:
    layout = make("a b", "a_manual", folders=("data", "data"), label_file="*_manual.nii.gz")
    assert labels_of(layout) == {"a": "a_manual"}
    assert [case.name for case in find_cases(layout)] == ["a", "b"]


def test_a_pattern_finds_labels_of_folders_of_files_in_one_folder(make, tmp_path) -> None:
    make("a/ct b/ct", "a_seg", folders=("images", "labels"))
    layout = FolderLayout(
        tmp_path / "images", tmp_path / "labels", ("CT",), {"CT": "ct.nii.gz"}, "*_seg.nii.gz"
    )
    assert labels_of(layout) == {"a": "a_seg"}


def test_a_pattern_finds_labels_in_dicom_folders(make, tmp_path) -> None:
    layout = make("", "a/label", folders=("images", "images"), label_file="label.nii.gz")
    (tmp_path / "images" / "b").mkdir()
    assert labels_of(layout) == {"a": "a/label"}


def test_what_fits_a_pattern_with_the_name_of_no_case_is_refused(make) -> None:
    with pytest.raises(ConversionError, match=r"1 label in .*: z_seg\.nii\.gz; rename"):
        find_cases(make("a b", "a_seg z_seg", label_file="*_seg.nii.gz"))


def test_a_pattern_that_is_absolute_is_refused(make) -> None:
    with pytest.raises(ConversionError, match=r"pattern '/x/.*' .*give one that is relative to it"):
        find_cases(make("a b", "a", label_file="/x/*"))


def test_several_labels_of_a_case_point_to_one_mask_for_each_class(make) -> None:
    layout = make("a b", "a/liver a/spleen", label_file="*.nii.gz")
    with pytest.raises(
        ConversionError, match=r"Case a: .* fits a/liver.* --label_files NAME=PATTERN"
    ):
        find_cases(layout)


@pytest.mark.parametrize("labels", ["a_liver a_spleen", "a_mask a_seg"])
def test_several_files_called_as_one_case_point_to_masks_of_classes(make, labels) -> None:
    with pytest.raises(ConversionError, match=r"mask of one class, name them with --label_files"):
        find_cases(make("a b", labels))


def test_labels_may_lie_in_a_folder_among_the_images(make, tmp_path) -> None:
    layout = make("a b", "a", folders=("data", "data/labels"))
    assert [case.name for case in find_cases(layout)] == ["a", "b"]
    again = FolderLayout(layout.images, tmp_path / "data" / ".." / "data" / "labels", ("CT",))
    assert labels_of(again) == {"a": "a"}


def test_two_ways_to_name_labels_are_refused(make) -> None:
    with pytest.raises(ConversionError, match="--label_file and --label_suffix say twice"):
        find_cases(make("a b", "a", label_file="*", label_suffix="_seg"))


def box(*slices: int, value: float = 1) -> np.ndarray:
    array = np.zeros((4, 6, 8), np.uint8 if value == int(value) else np.float32)
    array[list(slices), 2:4, 2:4] = value
    return array


FOLDER = [
    *("folder", "-d", "510", "-n", "Organs", "-np", "1", "--channels", "CT"),
    *("--labels", "background=0", "liver=1", "spleen=2"),
]


@pytest.fixture
def organs(tmp_path, write_volume) -> list[str]:
    """Six scans as TotalSegmentator has them, five of them with masks; the command."""
    for number in range(6):
        case = tmp_path / "scans" / f"s{number}"
        write_volume(case / "ct.nii.gz", seed=number)
        if number < 5:
            write_volume(case / "segmentations" / "liver.nii.gz", box(0, 1))
            write_volume(case / "segmentations" / "spleen.nii.gz", box(3, value=255))
            write_volume(case / "segmentations" / "lung.nii.gz", box(2))
    patterns = ["liver=segmentations/liver.nii.gz", "spleen=segmentations/spleen.nii.gz"]
    files = ["--channel_files", "CT=ct.nii.gz", "--label_files", *patterns]
    return [*FOLDER, "-i", str(tmp_path / "scans"), *files]


def test_masks_of_classes_become_one_label(organs, nnunet_folders, capsys) -> None:
    main(organs)
    folder = nnunet_folders.raw / "Dataset510_Organs"
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "labelsTr" / "s0.nii.gz")))
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, box(0, 1) + box(3, value=2))
    content = json.loads((folder / "split.json").read_text())
    assert content["files"]["s1"]["label"] == (
        "s1/segmentations/liver.nii.gz, s1/segmentations/spleen.nii.gz"
    )
    assert content["cases"]["unlabeled"] == ["s5"]
    assert content["unused"] == [f"s{n}/segmentations/lung.nii.gz" for n in range(5)]
    assert "note: not used from the input, 5 (all in split.json): s0/seg" in capsys.readouterr().out


def test_masks_of_classes_may_lie_in_a_folder_for_each_class(
    tmp_path, write_volume, nnunet_folders
) -> None:
    for number in range(6):
        write_volume(tmp_path / "images" / f"c{number}.nii.gz", seed=number)
    for number in range(5):
        write_volume(tmp_path / "labels" / "liver" / f"c{number}.nii.gz", box(0))
        write_volume(tmp_path / "labels" / "spleen" / f"c{number}.nii.gz", box(1))
    folders = ["-i", str(tmp_path / "images"), "-l", str(tmp_path / "labels")]
    main([*FOLDER, *folders, "--label_files", "liver=liver/*.nii.gz", "spleen=spleen/*.nii.gz"])
    file = nnunet_folders.raw / "Dataset510_Organs" / "labelsTr" / "c4.nii.gz"
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    np.testing.assert_array_equal(label, box(0) + box(1, value=2))


def test_masks_that_overlap_are_refused_unless_the_later_counts(
    organs, tmp_path, write_volume, nnunet_folders
) -> None:
    write_volume(tmp_path / "scans" / "s2" / "segmentations" / "spleen.nii.gz", box(1, 2))
    with pytest.raises(
        SystemExit,
        match=r"Case s2: the masks .*liver\.nii\.gz \(liver\) and .*spleen\.nii\.gz \(spleen\) "
        r"overlap in 4 voxels; .*--later_mask_counts",
    ):
        main(organs)
    assert list(nnunet_folders.raw.iterdir()) == []
    main([*organs, "--later_mask_counts"])
    file = nnunet_folders.raw / "Dataset510_Organs" / "labelsTr" / "s2.nii.gz"
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    np.testing.assert_array_equal(label, box(0) + box(1, 2, value=2))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            box(3, value=2),
            r"label values \[2\] .*a mask of --label_files is 0 outside and 1 or 255",
        ),
        (box(3, value=0.5), "values that are not integers"),
        (np.ones((4, 6, 7), np.uint8), r"mask .*spleen\.nii\.gz has shape \(7, 6, 4\) instead of"),
    ],
)
def test_a_mask_that_is_none_is_refused(
    organs, tmp_path, write_volume, nnunet_folders, mask, message
) -> None:
    write_volume(tmp_path / "scans" / "s2" / "segmentations" / "spleen.nii.gz", mask)
    with pytest.raises(SystemExit, match=f"Case s2: .*{message}"):
        main(organs)


def test_a_case_that_lacks_one_of_its_masks_is_refused(organs, tmp_path, nnunet_folders) -> None:
    (tmp_path / "scans" / "s2" / "segmentations" / "spleen.nii.gz").unlink()
    with pytest.raises(SystemExit, match=r"Case s2 has a mask of liver but none of spleen: no seg"):
        main(organs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label_files", "liver=liver.nii.gz"], "no pattern for spleen"),
        (["--label_files", "liver=a", "spleen=b", "lung=c"], "correct lung"),
        (["--label_files", "liver=a", "spleen=b", "background=c"], "correct background"),
        (["--map", "255=1"], "leave --map out"),
        (["--labels", "background=0", "both=1,2", "liver=1"], "one value, liver"),
        (["--label_file", "*.nii.gz"], "--label_file and --label_files say twice"),
    ],
)
def test_masks_that_do_not_fit_the_classes_are_refused(
    organs, nnunet_folders, options, message
) -> None:
    with pytest.raises(SystemExit, match=message):
        main([*organs, *options])


def test_the_suffix_is_named_in_the_output(make, nnunet_folders, capsys) -> None:
    layout = make("a b c d e f", "a_seg b_seg c_seg d_seg e_seg")
    main([*FOLDER, "-i", str(layout.images), "-l", str(layout.labels)])
    assert "note: 5 labels are called CASE_seg (--label_suffix names" in capsys.readouterr().out
    content = json.loads((nnunet_folders.raw / "Dataset510_Organs" / "split.json").read_text())
    assert content["cases"]["labeled"] == ["a", "b", "c", "d", "e"]
    assert content["files"]["a"]["label"] == "../labels/a_seg.nii.gz"


def test_scans_in_formats_that_are_not_read_are_named(make, nnunet_folders, capsys) -> None:
    layout = make("a b c d e f", "a b c d e")
    for name in ("g.mgz", "h.PAR", "h.REC", "i+orig.BRIK", "notes.txt"):
        (layout.images / name).touch()
    (layout.labels / "f.mgz").touch()
    main([*FOLDER, "-i", str(layout.images), "-l", str(layout.labels)])
    text = capsys.readouterr().out
    assert "note: 5 files of formats that are not read (all in split.json): g.mgz, h.PAR" in text
    assert "note: not used from the input, 1 (all in split.json): notes.txt" in text
    content = json.loads((nnunet_folders.raw / "Dataset510_Organs" / "split.json").read_text())
    assert content["unused"][-1] == "../labels/f.mgz"


def test_only_files_of_other_formats_are_named_in_the_error(tmp_path) -> None:
    (tmp_path / "a.mgz").touch()
    with pytest.raises(ConversionError, match=r"no images .* 1 file there .* a\.mgz: convert them"):
        find_cases(FolderLayout(tmp_path, tmp_path, ("CT",)))


@pytest.mark.parametrize("name", ["labels/b.nii.gz", "labels/b.NRRD", "images/c.nii.gz"])
def test_a_folder_named_as_a_file_is_named_and_no_case_becomes_unlabeled(make, name) -> None:
    layout = make("a b", "a")
    (layout.images.parent / name).mkdir()
    with pytest.raises(ConversionError, match=f"{name}.* is a folder"):
        find_cases(layout)


@pytest.mark.parametrize(
    ("pattern", "link"), [("seg.nii.gz", "seg.nii.gz"), ("masks/*.nii.gz", "masks")]
)
def test_a_link_to_nothing_is_named_and_no_case_becomes_unlabeled(
    tmp_path, write_volume, pattern, link
) -> None:
    for seed, case in enumerate("ab"):
        write_volume(tmp_path / case / "ct.nrrd", seed=seed)
    write_volume(tmp_path / "a" / pattern.replace("*", "seg"))
    (tmp_path / "b" / link).symlink_to(tmp_path / "unmounted")
    layout = FolderLayout(tmp_path, None, ("CT",), {"CT": "ct.nrrd"}, label_file=pattern)
    with pytest.raises(ConversionError, match=f"b/{link} is a link to .*, which does not exist"):
        find_cases(layout)


def test_a_link_to_nothing_that_a_star_fits_is_named_when_it_is_read(
    tmp_path, write_volume
) -> None:
    write_volume(tmp_path / "b" / "ct.nrrd", seed=1)
    (tmp_path / "b" / "seg.nii.gz").symlink_to(tmp_path / "unmounted")
    layout = FolderLayout(tmp_path, None, ("CT",), {"CT": "ct.nrrd"}, label_file="*.nii.gz")
    (case,) = find_cases(layout)
    message = r"seg\.nii\.gz is a link to .*, which does not exist; get it"
    with pytest.raises(ConversionError, match=message):
        case.label.read()

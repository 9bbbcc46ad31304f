"""How split.json names files, and what of the input is named as not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2_spmc.raw.cases import RawCase, RawDataset
from nnunetv2_spmc.raw.dicom import DicomSeries
from nnunetv2_spmc.raw.reader import FrameOf4D, H5Volume, ImageFile
from nnunetv2_spmc.raw.sources import is_unread, source_name, unused_files


def dataset(root: Path, *images, label=None, **more) -> RawDataset:
    return RawDataset(
        dataset_id=1,
        name="X",
        converter="test",
        source=str(root),
        protocol="",
        channel_names=("CT",),
        labels={},
        cases=tuple(RawCase(f"c{n}", (image,), "labeled", label) for n, image in enumerate(images)),
        **more,
    )


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("voxels")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (lambda f: ImageFile(f / "in" / "a" / "b.nii.gz"), "a/b.nii.gz"),
        (lambda f: FrameOf4D(f / "in" / "b.nii.gz", 3), "b.nii.gz (frame 3)"),
        (lambda f: H5Volume(f / "in" / "b.h5", "image", (1, 1, 1), "xyz"), "b.h5 (image)"),
        (lambda f: DicomSeries(f / "in" / "b"), "b"),
        (lambda f: ImageFile(f / "labels" / "b.nii.gz"), "../labels/b.nii.gz"),
    ],
)
def test_files_are_named_relative_to_the_input(tmp_path, source, name) -> None:
    assert source_name(source(tmp_path), tmp_path / "in") == name


def test_what_is_not_used_is_named_and_an_unused_folder_is_one_entry(tmp_path) -> None:
    touch(tmp_path, "a/ct.nii.gz", "a/mr.nii.gz", "b/x/1.nii.gz", "b/2.nii.gz", "table.csv", ".x")
    (tmp_path / "empty").mkdir()
    found = unused_files(dataset(tmp_path, ImageFile(tmp_path / "a" / "ct.nii.gz")))
    assert found == ("a/mr.nii.gz", "b/", "table.csv")


def test_a_folder_of_labels_elsewhere_is_looked_at_too(tmp_path) -> None:
    touch(tmp_path, "images/a.nii.gz", "labels/a.nii.gz", "labels/b.mgz")
    case = ImageFile(tmp_path / "images" / "a.nii.gz")
    label = ImageFile(tmp_path / "labels" / "a.nii.gz")
    folder = str(tmp_path / "labels")
    ours = dataset(tmp_path / "images", case, label=label, label_source=folder)
    assert unused_files(ours) == ("../labels/b.mgz",)


def test_a_folder_of_labels_in_the_input_is_named_once(tmp_path) -> None:
    touch(tmp_path, "a.nii.gz", "labels/a.nii.gz", "labels/b.mgz")
    case = ImageFile(tmp_path / "a.nii.gz")
    label = ImageFile(tmp_path / "labels" / "a.nii.gz")
    ours = dataset(tmp_path, case, label=label, label_source=str(tmp_path / "labels"))
    assert unused_files(ours) == ("labels/b.mgz",)


def test_files_with_the_voxels_of_a_header_are_used(tmp_path) -> None:
    touch(tmp_path, "a.hdr", "a.img", "b.zraw", "c 1.raw", "c2.raw", "other.raw", "d.img")
    (tmp_path / "b.mhd").write_text("NDims = 3\nElementDataFile = b.zraw\n")
    (tmp_path / "c.nhdr").write_text("NRRD0004\ndata file: LIST\nc 1.raw\nc2.raw\n")
    headers = [ImageFile(tmp_path / name) for name in ("a.hdr", "b.mhd", "c.nhdr")]
    assert unused_files(dataset(tmp_path, *headers)) == ("d.img", "other.raw")


def test_files_of_a_dicom_folder_are_used_but_scans_of_other_formats(tmp_path) -> None:
    touch(tmp_path, "p1/1.dcm", "p1/IM0002", "p1/more/3.dcm", "p1/seg.nii.gz", "p1/more/pet.mgz")
    series = DicomSeries(tmp_path / "p1")
    assert unused_files(dataset(tmp_path, series)) == ("p1/more/pet.mgz", "p1/seg.nii.gz")
    label = ImageFile(tmp_path / "p1" / "seg.nii.gz")
    assert unused_files(dataset(tmp_path, series, label=label)) == ("p1/more/pet.mgz",)


def test_scans_that_come_from_no_folder_leave_nothing() -> None:
    assert unused_files(dataset(Path("synthetic"))) == ()


@pytest.mark.parametrize("name", ["a.MGZ", "a.par", "a+orig.BRIK.gz", "a.mif", "a.npy", "a.zip"])
def test_formats_that_are_not_read_are_told_from_other_files(name) -> None:
    assert is_unread(name)
    assert not is_unread("notes.txt")
    assert not is_unread("a.nii.gz")

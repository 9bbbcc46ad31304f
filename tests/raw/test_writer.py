from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunetv2_spmc.common import whole_file
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.cases import (
    ConversionError,
    ImageSource,
    RawCase,
    RawDataset,
    check_labels,
    safe_identifier,
)
from nnunetv2_spmc.raw.reader import ImageFile
from nnunetv2_spmc.raw.writer import WriteOptions, write_raw_dataset
from tests.full_disk import file_size_limit
from tests.killed_at import killed_at, of_ended_process


@dataclass(frozen=True)
class Volume:
    """A volume made on the spot, picklable for workers."""

    value: int | None = None  # of a label, random image where None
    seed: int = 0
    spacing: tuple[float, ...] = (1, 1, 2)
    origin: tuple[float, ...] = (0, 0, 0)
    direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1)
    shape: tuple[int, ...] = (4, 6, 8)
    dtype: str = "int16"
    special: float | None = None  # value of one voxel

    def read(self) -> sitk.Image:
        if self.value is None:
            array = np.random.default_rng(self.seed).normal(0, 99, self.shape).astype(self.dtype)
        else:
            array = np.zeros(self.shape, self.dtype)
            array[1:3] = self.value
        if self.special is not None:
            array[0, 0, 0] = self.special
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image


@dataclass(frozen=True)
class Twin:
    """The same voxels as floating point numbers."""

    volume: Volume
    scale: float = 1
    shift: float = 0

    def read(self) -> sitk.Image:
        return sitk.Cast(self.volume.read(), sitk.sitkFloat32) * self.scale + self.shift


class Terminated:
    """Has this process terminated while it is read."""

    def read(self) -> sitk.Image:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("still alive")


class DeadlyToWorkers:
    """Ends the worker that receives it, as the kernel does when memory runs out."""

    def __reduce__(self) -> tuple[Callable[[int], object], tuple[int]]:
        return os._exit, (1,)

    def read(self) -> sitk.Image:
        raise AssertionError("only for workers")


LABEL = Volume(value=1)


def cases(labeled: int = 5, unlabeled: int = 2, test: int = 1) -> tuple[RawCase, ...]:
    return (
        *(RawCase(f"l{i}", (Volume(seed=i),), "labeled", LABEL) for i in range(labeled)),
        *(RawCase(f"u{i}", (Volume(seed=100 + i),), "unlabeled") for i in range(unlabeled)),
        *(RawCase(f"t{i}", (Volume(seed=200 + i),), "test", LABEL) for i in range(test)),
    )


def dataset(*extra: RawCase, base: tuple[RawCase, ...] | None = None, **changes) -> RawDataset:
    return replace(
        RawDataset(
            dataset_id=510,
            name="Liver",
            converter="test",
            source="nowhere",
            protocol="by hand",
            channel_names=("CT",),
            labels={"background": 0, "liver": 1},
            cases=(cases() if base is None else base) + extra,
        ),
        **changes,
    )


def labeled_case(image: ImageSource | None = None, label: ImageSource = LABEL) -> RawCase:
    return RawCase("odd", (image or Volume(seed=77),), "labeled", label)


@pytest.fixture
def on_disk(tmp_path, write_volume) -> tuple[RawCase, ...]:
    """Cases that worker processes can read."""
    label = ImageFile(write_volume(tmp_path / "in" / "label.nrrd"))
    return tuple(
        replace(
            case,
            images=(ImageFile(write_volume(tmp_path / "in" / f"{i}.nrrd", seed=i)),),
            label=label if case.label else None,
        )
        for i, case in enumerate(cases())
    )


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_layout_of_a_dataset(nnunet_folders) -> None:
    withheld = RawCase("w", (Volume(seed=50),), "unlabeled", LABEL)
    validation = RawCase("v", (Volume(seed=51),), "validation", LABEL)
    base = cases(labeled=2, unlabeled=1)
    summary = write_raw_dataset(dataset(withheld, validation, base=base), WriteOptions())
    assert summary.folder == nnunet_folders.raw / "Dataset510_Liver"
    assert files_below(summary.folder) == {
        "dataset.json",
        "split.json",
        *(f"imagesTr/{n}_0000.nii.gz" for n in ("l0", "l1", "v")),
        *(f"labelsTr/{n}.nii.gz" for n in ("l0", "l1", "v")),
        *(f"imagesUn/{n}_0000.nii.gz" for n in ("u0", "w")),
        "labelsUn/w.nii.gz",
        "imagesTs/t0_0000.nii.gz",
        "labelsTs/t0.nii.gz",
    }
    splits = nnunet_folders.preprocessed / "Dataset510_Liver" / "splits_final.json"
    assert json.loads(splits.read_text()) == [{"train": ["l0", "l1"], "val": ["v"]}]


def test_dataset_json_is_what_nnunet_reads(nnunet_folders) -> None:
    changes = {
        "labels": {"background": 0, "whole": (1, 2), "core": (2,)},
        "regions_class_order": (1, 2),
        "settings": {"tau": 0.65},
    }
    summary = write_raw_dataset(dataset(**changes), WriteOptions())
    content = json.loads((summary.folder / "dataset.json").read_text())
    assert content == {
        "name": "Liver",
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "whole": [1, 2], "core": [2]},
        "numTraining": 5,
        "file_ending": ".nii.gz",
        "regions_class_order": [1, 2],
        "spmc": {"tau": 0.65},
    }


def test_split_json_tells_where_each_case_went(nnunet_folders) -> None:
    summary = write_raw_dataset(dataset(seed=3, notes=("a note",)), WriteOptions())
    content = json.loads((summary.folder / "split.json").read_text())
    assert content["seed"] == 3
    assert content["notes"] == ["a note"]
    assert content["counts"]["labeled"] == {"cases": 5, "patients": 5}
    assert content["cases"]["test"] == ["t0"]
    assert content["groups"]["u1"] == "u1"
    assert content["files"]["u1"]["label"] is None


def test_workers_write_the_same_as_one_process(nnunet_folders, tmp_path, on_disk) -> None:
    ours = dataset(base=on_disk)
    one = write_raw_dataset(ours, WriteOptions(raw=tmp_path / "one"))
    two = write_raw_dataset(ours, WriteOptions(raw=tmp_path / "two", processes=2))
    assert files_below(one.folder) == files_below(two.folder)
    for name in files_below(one.folder):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (labeled_case(label=replace(LABEL, shape=(5, 6, 8))), r"label .* has shape \(8, 6, 5\)"),
        (labeled_case(label=replace(LABEL, spacing=(1, 1, 3))), "label .* has spacing"),
        (labeled_case(label=replace(LABEL, origin=(5, 0, 0))), "label .* has origin"),
        (
            labeled_case(label=replace(LABEL, direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))),
            "label .* has direction",
        ),
        (labeled_case(label=Volume(value=7)), r"label values \[7\] .* not among .* \[0, 1\]"),
        (labeled_case(label=replace(LABEL, dtype="float32", special=0.5)), "not integers"),
        (labeled_case(Volume(dtype="float32", special=np.nan)), "1 NaN or infinite voxels"),
        (labeled_case(Volume(dtype="float32", special=np.inf)), "1 NaN or infinite voxels"),
        (labeled_case(ImageFile(Path("absent.nii.gz"))), "absent.nii.gz does not exist"),
    ],
)
def test_a_bad_case_is_named_and_nothing_stays(nnunet_folders, case, message) -> None:
    with pytest.raises(ConversionError, match=f"Case odd: .*{message}"):
        write_raw_dataset(dataset(case), WriteOptions())
    assert list(nnunet_folders.raw.iterdir()) == []
    assert list(nnunet_folders.preprocessed.iterdir()) == []


RAS = (-1, 0, 0, 0, -1, 0, 0, 0, 1)
PLACED = Volume(seed=77, spacing=(0.8, 0.8, 2.5), origin=(-123, 215, 271), direction=RAS)


@pytest.mark.parametrize(
    "header",
    [
        {"spacing": (1, 1, 1)},
        {"spacing": (1, 1, 1), "direction": RAS},  # nibabel's identity
        {"spacing": PLACED.spacing},  # without a position
    ],
)
def test_a_label_that_lost_its_header_is_not_to_be_resampled(nnunet_folders, header) -> None:
    case = labeled_case(PLACED, replace(LABEL, **header))
    sentence = r"label .* no geometry \(identity header\): .* header, with --trust_label_grid"
    with pytest.raises(ConversionError, match=sentence):
        write_raw_dataset(dataset(case), WriteOptions())
    summary = write_raw_dataset(dataset(case, trust_label_grid=True), WriteOptions())
    assert "1 label took the header of the image in place of another" in str(summary)
    image, label = (
        sitk.ReadImage(str(summary.folder / name))
        for name in ("imagesTr/odd_0000.nii.gz", "labelsTr/odd.nii.gz")
    )
    assert label.GetSpacing() == pytest.approx(PLACED.spacing)
    for fact in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(label, fact)() == getattr(image, fact)()
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(label), sitk.GetArrayFromImage(LABEL.read())
    )


@pytest.mark.parametrize("trust_label_grid", [True, False])
def test_a_label_of_another_shape_is_to_be_resampled(nnunet_folders, trust_label_grid) -> None:
    case = labeled_case(PLACED, Volume(value=1, shape=(4, 6, 9), spacing=(1, 1, 1)))
    with pytest.raises(ConversionError, match=r"has shape .*; resample the label"):
        write_raw_dataset(dataset(case, trust_label_grid=trust_label_grid), WriteOptions())


def test_a_label_on_another_place_is_to_be_resampled(nnunet_folders) -> None:
    case = labeled_case(PLACED, replace(LABEL, spacing=PLACED.spacing, origin=(1, 2, 3)))
    with pytest.raises(ConversionError, match=r"has direction .*; resample the label"):
        write_raw_dataset(dataset(case), WriteOptions())


def test_an_image_or_a_channel_that_lost_its_header_is_named(nnunet_folders) -> None:
    bare = Volume(seed=78, spacing=(1, 1, 1))
    label = replace(PLACED, value=1)
    with pytest.raises(ConversionError, match="the image has no geometry"):
        write_raw_dataset(dataset(labeled_case(bare, label)), WriteOptions())
    base = tuple(replace(case, images=case.images * 2) for case in cases())
    odd = RawCase("odd", (PLACED, bare), "unlabeled")
    with pytest.raises(ConversionError, match=r"channel .* it has no geometry .*: copy the other"):
        write_raw_dataset(dataset(odd, base=base, channel_names=("T1", "T2")), WriteOptions())


@pytest.mark.parametrize("value", [0, 2])
def test_a_dataset_without_a_voxel_of_a_class_is_refused(nnunet_folders, value) -> None:
    empty = Volume(value=value)
    base = tuple(replace(c, label=empty) if c.role == "labeled" else c for c in cases())
    labels = {"background": 0, "liver": 1, "ignore": 2}
    with pytest.raises(ConversionError, match=r"No label of the 5 labeled cases .* l0, l1, l2, l3"):
        write_raw_dataset(dataset(base=base, labels=labels), WriteOptions())
    one = write_raw_dataset(dataset(labeled_case(label=empty), labels=labels), WriteOptions())
    assert ("1 label with nothing but background: odd" in str(one)) == (value == 0)


def test_channels_on_different_grids_are_refused(nnunet_folders) -> None:
    base = tuple(replace(case, images=case.images * 2) for case in cases())
    odd = RawCase("odd", (Volume(seed=1), Volume(spacing=(1, 1, 3))), "unlabeled")
    with pytest.raises(ConversionError, match=r"Case odd: channel .* has spacing"):
        write_raw_dataset(dataset(odd, base=base, channel_names=("T1", "T2")), WriteOptions())


def test_all_bad_cases_are_reported(nnunet_folders, on_disk) -> None:
    bad = [RawCase(f"bad{i}", (ImageFile(Path(f"{i}.nii")),), "unlabeled") for i in range(3)]
    with pytest.raises(ConversionError, match=r"Case bad0: .* 2 more cases .*: bad1, bad2\.$"):
        write_raw_dataset(dataset(*bad, base=on_disk), WriteOptions(processes=2))


def test_another_reason_than_that_of_the_first_bad_case_is_said(
    nnunet_folders, on_disk, write_volume, tmp_path
) -> None:
    array = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)
    array[1, 2, 3] = np.nan
    with_nan = ImageFile(write_volume(tmp_path / "nan.nrrd", array))
    bad = (
        RawCase("bad0", (ImageFile(Path("0.nii")),), "unlabeled"),
        RawCase("bad1", (with_nan,), "unlabeled"),
    )
    with pytest.raises(ConversionError, match=r": bad1 \(has 1 NaN or infinite voxels\)\.$"):
        write_raw_dataset(dataset(*bad, base=on_disk), WriteOptions())


def test_header_noise_is_removed(nnunet_folders) -> None:
    noisy = replace(LABEL, spacing=(1.00001, 1, 2), origin=(0.001, 0, 0))
    folder = write_raw_dataset(dataset(labeled_case(label=noisy)), WriteOptions()).folder
    image = sitk.ReadImage(str(folder / "imagesTr" / "odd_0000.nii.gz"))
    label = sitk.ReadImage(str(folder / "labelsTr" / "odd.nii.gz"))
    assert label.GetSpacing() == image.GetSpacing()
    assert label.GetOrigin() == image.GetOrigin()


def test_labels_are_mapped_and_written_as_integers(nnunet_folders) -> None:
    base = cases(labeled=0)
    odd = labeled_case(label=Volume(value=255, dtype="float32"))
    options = WriteOptions()
    folder = write_raw_dataset(dataset(odd, base=base, label_map={255: 1}), options).folder
    label = sitk.ReadImage(str(folder / "labelsTr" / "odd.nii.gz"))
    # The label of the test case has no 255; its value 1 stays.
    assert label.GetPixelID() == sitk.sitkUInt8
    assert np.unique(sitk.GetArrayFromImage(label)).tolist() == [0, 1]


def test_a_map_to_a_value_of_no_label_is_refused_before_a_scan_is_read(nnunet_folders) -> None:
    unread = RawCase("x", (ImageFile(Path("absent.nii.gz")),), "unlabeled")
    with pytest.raises(ConversionError, match="mapped to 9, but no label has that value"):
        write_raw_dataset(dataset(unread, label_map={255: 1, 3: 9}), WriteOptions())


def test_one_folder_for_raw_and_preprocessed_data_is_refused(nnunet_folders, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(nnunet_folders.raw / "."))
    with pytest.raises(ConversionError, match="nnUNet_raw and nnUNet_preprocessed are both"):
        write_raw_dataset(dataset(base=cases(labeled=2)), WriteOptions())
    assert list(nnunet_folders.raw.iterdir()) == []


def test_a_closed_map_refuses_what_it_does_not_name_even_if_a_class_has_it(nnunet_folders) -> None:
    changes = {"labels": {"background": 0, "a": 1, "b": 2, "c": 3}, "label_map": {0: 0, 1: 1, 4: 3}}
    closed = dataset(labeled_case(label=Volume(value=3)), closed_label_map=True, **changes)
    with pytest.raises(
        ConversionError, match=r"Case odd: .* \[3\] that are not among the labels \[0, 1, 4\]; get"
    ):
        write_raw_dataset(closed, WriteOptions())
    write_raw_dataset(replace(closed, closed_label_map=False), WriteOptions())


@pytest.mark.parametrize("withheld", [1, 2])
def test_an_optional_class_is_declared_where_any_label_holds_it(nnunet_folders, withheld) -> None:
    extra = RawCase("w", (Volume(seed=50),), "unlabeled", Volume(value=withheld))
    labels = {"background": 0, "liver": 1, "cavity": 2}
    summary = write_raw_dataset(
        dataset(extra, labels=labels, optional_labels=("cavity",)), WriteOptions()
    )
    written = json.loads((summary.folder / "dataset.json").read_text())["labels"]
    assert list(written.values()) == [0, 1, 2][: withheld + 1]


def test_the_same_scan_in_two_roles_is_refused(nnunet_folders) -> None:
    copy = RawCase("copy", (Volume(seed=0),), "unlabeled")
    with pytest.raises(
        ConversionError, match=r"copy \(unlabeled\) and l0 \(labeled\) are the same"
    ):
        write_raw_dataset(dataset(copy), WriteOptions())


def test_other_orientation_of_unlabeled_scans_is_warned_of(nnunet_folders) -> None:
    flipped = Volume(seed=9, direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))
    summary = write_raw_dataset(dataset(RawCase("f", (flipped,), "unlabeled")), WriteOptions())
    assert "oriented RAS, labeled ones LPS" in str(summary)


def test_other_spacing_of_unlabeled_scans_is_warned_of(nnunet_folders) -> None:
    base = cases(unlabeled=0)
    coarse = RawCase("c", (Volume(seed=9, spacing=(1, 1, 5)),), "unlabeled")
    summary = write_raw_dataset(dataset(coarse, base=base), WriteOptions())
    assert "1 x 1 x 5 mm" in str(summary)


def test_a_taken_id_is_refused(nnunet_folders) -> None:
    (nnunet_folders.preprocessed / "Dataset510_Other").mkdir()
    with pytest.raises(ConversionError, match=r"510 is already taken by .*Dataset510_Other"):
        write_raw_dataset(dataset(), WriteOptions(overwrite=True))


def test_an_existing_dataset_is_kept_unless_overwritten(nnunet_folders) -> None:
    old = nnunet_folders.raw / "Dataset510_Liver" / "old.txt"
    old.parent.mkdir()
    old.touch()
    (old.parent / "dataset.json").write_text('{"labels": {"background": 0}}')
    with pytest.raises(ConversionError, match="already exists; --overwrite replaces it"):
        write_raw_dataset(dataset(), WriteOptions())
    with pytest.raises(ConversionError, match="label values"):
        write_raw_dataset(
            dataset(labeled_case(label=Volume(value=9))), WriteOptions(overwrite=True)
        )
    assert old.exists()
    write_raw_dataset(dataset(), WriteOptions(overwrite=True))
    assert not old.exists()
    assert [p.name for p in nnunet_folders.raw.iterdir()] == ["Dataset510_Liver"]


def home(target: Path) -> Path:
    target.mkdir()
    (target / "thesis.tex").touch()
    return target / "thesis.tex"


def a_folder_with_another_dataset_json(target: Path) -> Path:
    target.mkdir()
    (target / "dataset.json").write_text('{"name": "of another program"}')
    return target / "dataset.json"


def damaged_dataset_json(target: Path) -> Path:
    target.mkdir()
    (target / "dataset.json").write_text("{")
    return target / "dataset.json"


def file(target: Path) -> Path:
    target.touch()
    return target


def link_to_a_dataset(target: Path) -> Path:
    elsewhere = target.parents[1] / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "dataset.json").write_text('{"labels": {"background": 0}}')
    target.symlink_to(elsewhere)
    return target / "dataset.json"


@pytest.mark.parametrize(
    "make",
    [home, a_folder_with_another_dataset_json, damaged_dataset_json, file, link_to_a_dataset],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_is_no_dataset_is_not_overwritten(nnunet_folders, make, dry_run) -> None:
    target = nnunet_folders.raw / "Dataset510_Liver"
    kept = make(target)
    with pytest.raises(ConversionError, match=f"{target} is .* choose another id with -d"):
        write_raw_dataset(dataset(), WriteOptions(overwrite=True, dry_run=dry_run))
    assert kept.exists()
    assert [p.name for p in nnunet_folders.raw.iterdir()] == [target.name]


def test_an_id_of_results_that_are_kept_is_refused(nnunet_folders, monkeypatch, tmp_path) -> None:
    (tmp_path / "results" / "Dataset510_Old").mkdir(parents=True)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    with pytest.raises(ConversionError, match=r"taken by .*_Old, so Dataset510_Liver cannot"):
        write_raw_dataset(dataset(), WriteOptions())


def test_overwriting_replaces_or_removes_the_fixed_split(nnunet_folders) -> None:
    splits = nnunet_folders.preprocessed / "Dataset510_Liver" / "splits_final.json"
    write_raw_dataset(dataset(base=cases(labeled=3)), WriteOptions())
    assert len(json.loads(splits.read_text())) == 3
    (splits.parent / "nnUNetPlans.json").touch()
    summary = write_raw_dataset(dataset(), WriteOptions(overwrite=True))
    assert not splits.exists()
    assert "preprocess again" in str(summary)


def test_a_run_goes_on_that_was_killed_between_the_fixed_split_and_the_dataset(
    nnunet_folders,
) -> None:
    splits = nnunet_folders.preprocessed / "Dataset510_Liver" / "splits_final.json"
    few = dataset(base=cases(labeled=3))
    killed_at(lambda: write_raw_dataset(few, WriteOptions()), whole_file, "_replace_folder")
    before = splits.read_bytes()
    with pytest.raises(ConversionError, match=r"splits_final\.json already exists"):
        write_raw_dataset(dataset(base=cases(labeled=2)), WriteOptions())  # another dataset
    folder = write_raw_dataset(few, WriteOptions()).folder
    assert splits.read_bytes() == before
    assert list(nnunet_folders.raw.iterdir()) == [folder]
    assert list(splits.parent.iterdir()) == [splits]


def test_a_split_beside_the_plans_of_a_dataset_that_was_removed_is_refused(nnunet_folders) -> None:
    splits = nnunet_folders.preprocessed / "Dataset510_Liver" / "splits_final.json"
    few = dataset(base=cases(labeled=3))
    shutil.rmtree(write_raw_dataset(few, WriteOptions()).folder)
    (splits.parent / "nnUNetPlans.json").write_text("{}")
    with pytest.raises(ConversionError, match=r"splits_final\.json already exists"):
        write_raw_dataset(few, WriteOptions())


def refuse_to_replace(monkeypatch, folder: Path) -> None:
    """Let a folder keep its name, as one that is in use does on some systems."""
    replace_file = os.replace

    def replace_other(source: Path, target: Path) -> None:
        if Path(target) == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(target))
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", replace_other)


@pytest.mark.parametrize("number", [1, 3, 4])
def test_a_dataset_that_cannot_be_published_leaves_no_split(
    nnunet_folders, monkeypatch, number
) -> None:
    refuse_to_replace(monkeypatch, nnunet_folders.raw / "Dataset510_Liver")
    with pytest.raises(DataError, match="Dataset510_Liver could not be written: Permission"):
        write_raw_dataset(dataset(base=cases(labeled=number)), WriteOptions())
    assert list(nnunet_folders.raw.iterdir()) == list(nnunet_folders.preprocessed.iterdir()) == []


@pytest.mark.parametrize("number", [2, 5])
def test_a_dataset_that_cannot_be_overwritten_keeps_its_split(
    nnunet_folders, monkeypatch, number
) -> None:
    splits = nnunet_folders.preprocessed / "Dataset510_Liver" / "splits_final.json"
    folder = write_raw_dataset(dataset(base=cases(labeled=3)), WriteOptions()).folder
    before = splits.read_bytes(), sorted(folder.rglob("*"))

    def stop(new: Path, path: Path, overwrite: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(whole_file, "_replace_folder", stop)
    with pytest.raises(KeyboardInterrupt):
        write_raw_dataset(dataset(base=cases(labeled=number)), WriteOptions(overwrite=True))
    assert (splits.read_bytes(), sorted(folder.rglob("*"))) == before
    assert list(nnunet_folders.raw.iterdir()) == [folder]
    assert list(splits.parent.iterdir()) == [splits]


def test_a_refused_conversion_leaves_no_folder_above_it(nnunet_folders, tmp_path) -> None:
    options = WriteOptions(raw=tmp_path / "new" / "raw", preprocessed=tmp_path / "other" / "pre")
    bad = dataset(labeled_case(label=Volume(value=9)), base=cases(labeled=3))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConversionError, match="label values"):
        write_raw_dataset(bad, options)
    assert sorted(tmp_path.iterdir()) == before


def test_one_labeled_case_is_warned_of(nnunet_folders) -> None:
    summary = write_raw_dataset(dataset(base=cases(labeled=1)), WriteOptions())
    assert "training and validation at once" in str(summary)


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_an_unset_folder_is_named(nnunet_folders, monkeypatch, variable) -> None:
    monkeypatch.delenv(variable)
    with pytest.raises(DataError, match=f"{variable} is not set; export {variable}="):
        write_raw_dataset(dataset(base=cases(labeled=2)), WriteOptions())


def test_preprocessed_is_not_needed_without_a_fixed_split(nnunet_folders, monkeypatch) -> None:
    monkeypatch.delenv("nnUNet_preprocessed")
    assert write_raw_dataset(dataset(), WriteOptions()).splits is None


def test_a_dry_run_writes_nothing(nnunet_folders) -> None:
    text = str(write_raw_dataset(dataset(base=cases(labeled=2)), WriteOptions(dry_run=True)))
    assert "imagesTr/l0_0000.nii.gz <- " in text
    assert "Would write" in text
    assert list(nnunet_folders.raw.iterdir()) == []
    assert list(nnunet_folders.preprocessed.iterdir()) == []


def test_termination_leaves_nothing(nnunet_folders) -> None:
    case = RawCase("z", (Terminated(),), "unlabeled")
    with pytest.raises(SystemExit):
        write_raw_dataset(dataset(case), WriteOptions())
    assert list(nnunet_folders.raw.iterdir()) == []


def test_a_killed_worker_leaves_nothing(nnunet_folders, on_disk) -> None:
    killer = RawCase("z", (DeadlyToWorkers(),), "unlabeled")
    with pytest.raises(ConversionError, match="worker process was killed"):
        write_raw_dataset(dataset(killer, base=on_disk), WriteOptions(processes=2))
    assert list(nnunet_folders.raw.iterdir()) == []


def test_what_a_killed_run_left_is_removed(nnunet_folders) -> None:
    leftover = nnunet_folders.raw / of_ended_process(".writing-Dataset510_Liver@")
    (leftover / "imagesTr").mkdir(parents=True)
    write_raw_dataset(dataset(), WriteOptions())
    assert not leftover.exists()


@pytest.mark.parametrize("link", [True, False])
def test_files_that_are_right_are_linked_or_copied(
    nnunet_folders, tmp_path, write_volume, link
) -> None:
    image = write_volume(tmp_path / "in" / "odd.nii.gz", seed=1)
    label = write_volume(tmp_path / "in" / "odd_seg.nii.gz")
    odd = labeled_case(ImageFile(image), ImageFile(label))
    folder = write_raw_dataset(dataset(odd), WriteOptions(link=link)).folder
    for source, name in ((image, "imagesTr/odd_0000.nii.gz"), (label, "labelsTr/odd.nii.gz")):
        assert (folder / name).is_symlink() == link
        assert (folder / name).read_bytes() == source.read_bytes()


def test_links_hold_when_scans_and_dataset_move_together(tmp_path, write_volume) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    image = write_volume(old / "in" / "odd.nii.gz", seed=1)
    options = WriteOptions(link=True, raw=old / "raw", preprocessed=old / "preprocessed")
    folder = write_raw_dataset(dataset(labeled_case(ImageFile(image))), options).folder
    link = folder.relative_to(old) / "imagesTr" / "odd_0000.nii.gz"
    assert not os.path.isabs(os.readlink(old / link))
    old.rename(new)
    assert (new / link).read_bytes() == (new / "in" / "odd.nii.gz").read_bytes()


def test_links_hold_where_the_raw_folder_is_a_link_itself(tmp_path, write_volume) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "raw").symlink_to(tmp_path / "far" / "away")
    image = write_volume(tmp_path / "in" / "odd.nii.gz", seed=1)
    options = WriteOptions(link=True, raw=tmp_path / "raw", preprocessed=tmp_path / "preprocessed")
    folder = write_raw_dataset(dataset(labeled_case(ImageFile(image))), options).folder
    assert (folder / "imagesTr" / "odd_0000.nii.gz").read_bytes() == image.read_bytes()


@pytest.mark.parametrize("value", [0.9999, 1.0001, 254.9999])
def test_a_label_a_ten_thousandth_off_is_the_integer(nnunet_folders, value) -> None:
    odd = labeled_case(label=Volume(value=1, dtype="float32", special=value))
    ours = dataset(odd, label_map={255: 1})
    folder = write_raw_dataset(ours, WriteOptions()).folder
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "labelsTr" / "odd.nii.gz")))
    assert written.dtype == np.uint8
    assert written[0, 0, 0] == 1
    assert np.unique(written).tolist() == [0, 1]


@pytest.mark.parametrize("value", [0.999, 1.001, 0.5, np.nan])
def test_a_label_further_off_is_refused(nnunet_folders, value) -> None:
    odd = labeled_case(label=Volume(value=1, dtype="float32", special=value))
    with pytest.raises(ConversionError, match="label values that are not integers"):
        write_raw_dataset(dataset(odd), WriteOptions())


def test_the_summary_says_who_validates_in_which_fixed_fold(nnunet_folders) -> None:
    text = str(write_raw_dataset(dataset(base=cases(labeled=2)), WriteOptions()))
    assert "splits_final.json:\n    fold 0 validates on l0\n    fold 1 validates on l1\n" in text
    text = str(write_raw_dataset(dataset(base=cases(labeled=1)), WriteOptions(overwrite=True)))
    assert "    fold 0 validates on l0, which it is trained on\n" in text


def test_the_summary_says_who_validates_in_which_fold_of_nnunet(nnunet_folders) -> None:
    summary = write_raw_dataset(dataset(base=cases(labeled=11)), WriteOptions())
    assert summary.splits is None
    names = sorted(path.name[:-12] for path in (summary.folder / "imagesTr").iterdir())
    folds = generate_crossval_split(names)  # as nnU-Net's trainer calls it
    lines = [f"    fold {n} validates on {', '.join(f['val'])}\n" for n, f in enumerate(folds)]
    assert f"nnU-Net makes 5 folds when training starts:\n{''.join(lines)}" in str(summary)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ((), "no cases"),
        (cases(labeled=0), "no labeled case"),
        (cases(unlabeled=0), "no unlabeled case: .*--labeled"),
        ((*cases(), RawCase("L0", (Volume(),), "test")), "called 'L0'"),
        ((*cases(), RawCase("x", (Volume(),), "labeled")), "x is meant to be labeled"),
        (
            (*cases(), RawCase("x", (Volume(),), "unlabeled", group="t0")),
            "Patient t0 would be on two sides",
        ),
    ],
)
def test_a_dataset_that_cannot_train_is_refused(nnunet_folders, base, message) -> None:
    with pytest.raises(ConversionError, match=message):
        write_raw_dataset(dataset(base=base), WriteOptions())


@pytest.mark.parametrize(
    ("labels", "order", "message"),
    [
        ({"liver": 1}, (), "background=0"),
        ({"background": 0, "liver": 2}, (), "consecutive"),
        ({"background": 0}, (), "at least one class"),
        ({"background": 0, "ignore": 1, "liver": 2}, (), "ignore label .* highest value, 2"),
        ({"background": 0, "whole": (1, 2), "core": 2}, (), "whole, core: add --regions_class"),
        ({"background": 0, "liver": 1}, (1,), "no label here is a region"),
    ],
)
def test_labels_that_nnunet_refuses_are_refused_early(labels, order, message) -> None:
    with pytest.raises(ConversionError, match=message):
        check_labels(labels, order)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("case_01", "case_01"),
        ("a b/c", "a_b_c"),
        ("x_seg", "x-seg"),
        (".x", "x"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_case_names_are_changed_only_where_nnunet_stumbles(name, safe) -> None:
    assert safe_identifier(name) == safe


def test_a_split_that_cannot_be_written_stops_the_dataset(nnunet_folders) -> None:
    nnunet_folders.preprocessed.rmdir()
    nnunet_folders.preprocessed.write_text("a file where the folder should be")
    with pytest.raises(ConversionError, match=r"nnUNet_preprocessed is .* set it to another"):
        write_raw_dataset(dataset(base=cases(labeled=2)), WriteOptions())
    assert list(nnunet_folders.raw.iterdir()) == []


@pytest.mark.parametrize("link", [True, False])
def test_a_dataset_is_not_made_of_the_files_it_replaces(nnunet_folders, on_disk, link) -> None:
    folder = write_raw_dataset(dataset(base=on_disk), WriteOptions()).folder
    own = RawCase("own", (ImageFile(folder / "imagesUn" / "u0_0000.nii.gz"),), "unlabeled")
    with pytest.raises(ConversionError, match=r"own: .* in the dataset that would be replaced"):
        write_raw_dataset(dataset(own), WriteOptions(overwrite=True, link=link))
    (nnunet_folders.raw.parent / "link").symlink_to(folder)
    linked = ImageFile(nnunet_folders.raw.parent / "link" / "imagesUn" / "u0_0000.nii.gz")
    with pytest.raises(ConversionError, match=r"own: .* in the dataset that would be replaced"):
        write_raw_dataset(
            dataset(replace(own, images=(linked,))), WriteOptions(overwrite=True, link=link)
        )
    assert (folder / "imagesUn" / "u0_0000.nii.gz").is_file()


def test_a_4d_file_with_one_volume_is_written_as_3d(nnunet_folders, tmp_path) -> None:
    path = tmp_path / "odd.nii.gz"
    array = np.arange(4 * 6 * 8, dtype=np.int16).reshape(1, 4, 6, 8)
    sitk.WriteImage(sitk.GetImageFromArray(array, False), str(path))
    folder = write_raw_dataset(
        dataset(RawCase("odd", (ImageFile(path),), "unlabeled")), WriteOptions()
    ).folder
    written = sitk.ReadImage(str(folder / "imagesUn" / "odd_0000.nii.gz"))
    assert written.GetSize() == (8, 6, 4)


def test_a_constant_image_is_a_problem(nnunet_folders) -> None:
    constant = RawCase("odd", (Volume(value=0),), "unlabeled")
    with pytest.raises(ConversionError, match=r"Case odd: .* is constant, all its voxels are 0"):
        write_raw_dataset(dataset(constant), WriteOptions())


def test_an_empty_label_is_no_problem(nnunet_folders) -> None:
    text = str(write_raw_dataset(dataset(labeled_case(label=Volume(value=0))), WriteOptions()))
    assert "1 label with nothing but background: odd" in text


def test_scans_whose_sform_and_qform_differ_are_named(nnunet_folders, tmp_path) -> None:
    odd = []
    for name in ("odd", "odd2"):
        array = np.random.default_rng(len(odd)).integers(0, 999, (8, 6, 4)).astype(np.int16)
        image = nibabel.Nifti1Image(array, np.diag([-1, -1, 2, 1]))
        image.set_qform(np.diag([-1, -1, 2, 1]), 1)
        image.set_sform(np.diag([1, -1, 2, 1]), 4)
        nibabel.save(image, tmp_path / f"{name}.nii.gz")
        odd.append(RawCase(name, (ImageFile(tmp_path / f"{name}.nii.gz"),), "unlabeled"))
    for processes in (1, 2):
        options = WriteOptions(processes=processes, overwrite=True)
        text = str(write_raw_dataset(dataset(*odd), options))
        said = [line for line in text.splitlines() if ": its sform" in line]
        assert len(said) == 1
        assert said[0].startswith(f"  warning: {tmp_path / 'odd.nii.gz'}: its sform and qform")
        assert "the qform counts here" in said[0]
        assert said[0].endswith("1 more case like it: odd2.")


def test_the_same_scan_in_another_data_type_is_found(nnunet_folders) -> None:
    twin = RawCase("twin", (Twin(Volume(seed=0)),), "unlabeled")
    with pytest.raises(ConversionError, match=r"l0 \(labeled\) and twin \(unlabeled\)"):
        write_raw_dataset(dataset(twin), WriteOptions())


@pytest.mark.parametrize("rescaled", [{"scale": 0.5, "shift": -3}, {"shift": 1024}])
def test_the_same_scan_with_rescaled_values_is_found(nnunet_folders, rescaled) -> None:
    twin = RawCase("twin", (Twin(Volume(seed=0), **rescaled),), "unlabeled")
    with pytest.raises(ConversionError, match=r"l0 \(labeled\) and twin \(unlabeled\)"):
        write_raw_dataset(dataset(twin), WriteOptions())


def large_cases(folder: Path, write_volume: Callable[..., Path]) -> tuple[RawCase, ...]:
    """Cases of 256 KB each that cannot be compressed; half of the images need no conversion."""
    noise = np.random.default_rng(0).integers(0, 60000, (32, 64, 64)).astype(np.uint16)
    label = ImageFile(write_volume(folder / "label.nii.gz", (noise > 30000).astype(np.uint8)))
    made = []
    for number, case in enumerate(cases()):
        ending = "nrrd" if number % 2 else "nii.gz"
        image = write_volume(folder / f"{case.identifier}.{ending}", np.roll(noise, number))
        made.append(replace(case, images=(ImageFile(image),), label=label if case.label else None))
    return tuple(made)


@pytest.mark.parametrize("processes", [1, 2])
def test_images_that_ulimit_cuts_are_not_published(
    nnunet_folders, tmp_path, write_volume, processes
) -> None:
    """SimpleITK raises nothing then; files that need no conversion are copied."""
    ours = dataset(base=large_cases(tmp_path / "in", write_volume))
    options = WriteOptions(processes=processes)
    sentence = (
        r"^Case l0: imagesTr/l0_0000\.nii\.gz could not be written: file too large, the limit of "
        r"ulimit -f is 100000 bytes; raise it\. 7 more cases with problems: .*$"
    )
    with file_size_limit(100_000), pytest.raises(ConversionError, match=sentence):
        write_raw_dataset(ours, options)
    assert list(nnunet_folders.raw.iterdir()) == []
    summary = write_raw_dataset(ours, options)
    assert len(list(summary.folder.rglob("*.nii.gz"))) == 14


@pytest.mark.parametrize("kilobytes", [16, 100, 300, 700])
def test_images_are_not_published_on_a_full_disk(
    nnunet_folders, tmp_path, write_volume, small_disk, kilobytes
) -> None:
    small_disk.resize(kilobytes)
    ours = dataset(base=large_cases(tmp_path / "in", write_volume))
    options = WriteOptions(raw=small_disk.folder)
    with pytest.raises(ConversionError, match=r"could not be written: no space left on its disk"):
        write_raw_dataset(ours, options)
    assert list(small_disk.folder.iterdir()) == []
    small_disk.resize(10_000)
    summary = write_raw_dataset(ours, options)
    for case in ours.cases:
        read = ImageFile(next(summary.folder.rglob(f"{case.identifier}_0000.nii.gz"))).read()
        assert np.array_equal(
            sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(case.images[0].read())
        )


def test_a_record_that_cannot_be_written_is_named(nnunet_folders, monkeypatch) -> None:
    (nnunet_folders.raw / "keep").touch()
    ours = dataset(notes=("a long note " * 10_000,))
    with file_size_limit(50_000), pytest.raises(DataError, match=r"split\.json could not be writ"):
        write_raw_dataset(ours, WriteOptions())
    assert [path.name for path in nnunet_folders.raw.iterdir()] == ["keep"]


def test_single_slices_go_on_with_2d(nnunet_folders) -> None:
    flat = replace(LABEL, shape=(1, 6, 8), special=1)
    slices = tuple(
        replace(
            case,
            images=(replace(case.images[0], shape=(1, 6, 8)),),
            label=flat if case.label else None,
        )
        for case in cases()
    )
    text = str(write_raw_dataset(dataset(base=slices), WriteOptions()))
    assert "nnUNetv2_train 510 2d 0" in text


def test_the_next_commands_can_be_pasted(nnunet_folders, tmp_path) -> None:
    raw = tmp_path / "my scans"
    text = str(write_raw_dataset(dataset(), WriteOptions(raw=raw)))
    assert f"-i '{raw}/Dataset510_Liver/imagesTs'" in text

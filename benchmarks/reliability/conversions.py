"""Definitions and layouts that no dataset can be made of."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import SimpleITK as sitk

from benchmarks.reliability.sandbox import BadInput, Here
from benchmarks.reliability.scans import FOLDER, convert_folder, folder_dataset

Arguments = Sequence[str | Path]

# ---- definitions --------------------------------------------------------------------------------

DEFINITIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("no background", "--labels a=1 b=2", ("background",)),
    ("a gap between values", "--labels background=0 a=1 b=3", ("3",)),
    ("two names of one value", "--labels background=0 a=1 b=1 c=2", ("b",)),
    ("one name twice", "--labels background=0 a=1 a=2", ("a",)),
    ("ignore in capitals", "--labels background=0 a=1 Ignore=2", ("Ignore",)),
    ("background in capitals", "--labels Background=0 a=1 b=2", ("background",)),
    ("background alone", "--labels background=0", ("class",)),
    ("a value below zero", "--labels background=0 a=-1", ("-1",)),
    ("a value that is not a number", "--labels background=0 a=one", ("one",)),
    ("a class without a name", "--labels background=0 =1 b=2", ("=1",)),
    ("a value that no label may have", "--labels background=0 a=1", ("2",)),
    ("regions without an order", "--labels background=0 w=1,2 c=2", ("order",)),
    (
        "a region order that loses a region",
        "--labels background=0 c=2 w=1,2 --regions_class_order 2 1",
        ("order",),
    ),
    (
        "a region order with other values",
        "--labels background=0 w=1,2 c=2 --regions_class_order 1 7",
        ("7",),
    ),
    ("a map of text", "--labels background=0 a=1 b=2 --map x=1", ("x=1",)),
)


def definitions() -> Iterator[BadInput]:
    """Label definitions, names and requests that contradict themselves."""
    for name, options, names in DEFINITIONS:
        yield BadInput(name, "convert", _defined(options.split()), names)
    for name, more, names in (
        ("an id of 0", ("-d", "0"), ("0",)),
        ("an id of 1000", ("-d", "1000"), ("1000",)),
        ("an id of text", ("-d", "five"), ("five",)),
        ("a name with a slash", ("-n", "a/b"), ("a/b",)),
        ("a name that leaves its folder", ("-n", ".."), ("..",)),
        ("an empty name", ("-n", ""), ("name",)),
        ("more test cases than there are", ("--test", "99"), ("99",)),
        ("a fraction of 2.5", ("--val", "2.5"), ("2.5",)),
        ("a list that does not exist", ("--test", "gone.txt"), ("gone.txt",)),
        ("an unknown case", ("--labeled", "no_such_case,train_000"), ("no_such_case",)),
        ("a pattern that is not one", ("--group_by", "(train"), ("(train",)),
        ("a pattern that matches nothing", ("--group_by", "patient"), ("patient",)),
        ("processes below zero", ("-np", "-3"), ("-3",)),
    ):
        yield BadInput(name, "convert", _asked_for(more), names)
    yield BadInput("a pattern that never ends", "convert", _endless, ("group_by",))
    yield BadInput(
        "~ in nnUNet_raw", "convert", _asked_for(()), ("~",), environment={"nnUNet_raw": "~/raw"}
    )
    yield BadInput(
        "nnUNet_raw is a file",
        "convert",
        _raw_is_a_file,
        ("a_file",),
        environment={"nnUNet_raw": "a_file"},
    )


def _defined(labels: Sequence[str]) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        target = folder_dataset(here)
        return (*FOLDER, "-i", target / "images", "-l", target / "labels", *labels)

    return make


def _asked_for(more: Arguments) -> Callable[[Here], Arguments]:
    return lambda here: (*convert_folder(folder_dataset(here)), *more)


def _endless(here: Here) -> Arguments:
    target = folder_dataset(here)
    image = sorted((target / "images").iterdir())[-1]
    image.rename(image.with_name(f"train_{'a' * 60}.nii.gz"))
    return (*convert_folder(target), "--group_by", r"train_(\w+)+-")


def _raw_is_a_file(here: Here) -> Arguments:
    (here.root / "a_file").write_text("not a folder\n")
    return convert_folder(folder_dataset(here))


# ---- layouts ------------------------------------------------------------------------------------


def layouts() -> Iterator[BadInput]:
    """Folders whose files do not belong together."""
    for name, change, names in (
        ("no labels at all", _no_labels, ("label",)),
        ("empty labels only", _empty_labels, ("label",)),
        ("a label of no image", _stray_label, ("stray",)),
        ("a label on another grid", _moved_label, ("train_00", "origin")),
        ("a label without a header", _headless_label, ("train_00", "header")),
        ("two cases that differ in capitals", _capitals, ("TRAIN_000",)),
        ("one scan under two names", _copy, ("copy",)),
        ("a 2D image", _plane, ("plane",)),
        ("every case labeled", _all_labeled, ("unlabeled",)),
        ("an empty image folder", _nothing, ("images",)),
    ):
        yield BadInput(name, "convert", _changed(change), names)
    yield BadInput(
        "--overwrite over a folder that is not a dataset", "convert", _no_dataset, ("X",)
    )
    yield BadInput("a dataset that exists", "convert", _exists, ("overwrite",))
    for converter in ("la", "acdc", "brats"):
        yield BadInput(
            f"{converter}: an empty folder", "convert", _of_nothing(converter), ("mine",)
        )


def _changed(change: Callable[[Path], None]) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        target = folder_dataset(here)
        change(target)
        return convert_folder(target)

    return make


def _labels(target: Path) -> list[Path]:
    return sorted((target / "labels").iterdir())


def _no_labels(target: Path) -> None:
    for label in _labels(target):
        label.unlink()


def _empty_labels(target: Path) -> None:
    for label in _labels(target):
        sitk.WriteImage(sitk.ReadImage(str(label)) * 0, str(label))


def _stray_label(target: Path) -> None:
    shutil.copy(_labels(target)[0], target / "labels" / "stray.nii.gz")


def _moved_label(target: Path) -> None:
    label = sitk.ReadImage(str(_labels(target)[0]))
    label.SetOrigin((30, 0, 0))
    sitk.WriteImage(label, str(_labels(target)[0]))


def _headless_label(target: Path) -> None:
    for image in sorted((target / "images").iterdir()):
        with_header = sitk.ReadImage(str(image))
        with_header.SetOrigin((5, 6, 7))
        with_header.SetSpacing((0.7, 0.7, 3))
        sitk.WriteImage(with_header, str(image))
    for label in _labels(target):
        bare = sitk.GetImageFromArray(sitk.GetArrayFromImage(sitk.ReadImage(str(label))))
        sitk.WriteImage(bare, str(label))


def _capitals(target: Path) -> None:
    image = sorted((target / "images").iterdir())[0]
    shutil.copy(image, image.with_name(image.name.replace("train", "TRAIN")))


def _copy(target: Path) -> None:
    shutil.copy(sorted((target / "images").iterdir())[0], target / "images" / "copy.nii.gz")


def _plane(target: Path) -> None:
    image = sitk.ReadImage(str(sorted((target / "images").iterdir())[0]))
    sitk.WriteImage(image[:, :, 4], str(target / "images" / "plane.nii.gz"))


def _all_labeled(target: Path) -> None:
    sorted((target / "images").iterdir())[-1].unlink()


def _nothing(target: Path) -> None:
    for image in (target / "images").iterdir():
        image.unlink()


def _no_dataset(here: Here) -> Arguments:
    folder = here.root / "nnUNet_raw" / "Dataset510_X"
    folder.mkdir()
    (folder / "thesis.txt").write_text("keep\n")
    return (*convert_folder(folder_dataset(here)), "--overwrite")


def _exists(here: Here) -> Arguments:
    shutil.copytree(here.raw, here.root / "nnUNet_raw" / "Dataset510_X")
    return convert_folder(folder_dataset(here))


def _of_nothing(converter: str) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        (here.root / "mine").mkdir()
        return (converter, "-i", here.root / "mine", "-d", "520", "-np", "1")

    return make

"""Definitions, layouts and DICOM folders that no dataset can be made of, and wrong commands."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from benchmarks.reliability.sandbox import BadInput, Here
from benchmarks.reliability.scans import FOLDER, PREPROCESS, convert_folder, folder_dataset

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
    ("a value that is no number", "--labels background=0 a=one", ("one",)),
    ("a class without a name", "--labels background=0 =1 b=2", ("=1",)),
    ("a value that no label may have", "--labels background=0 a=1", ("2",)),
    ("regions without an order", "--labels background=0 w=1,2 c=2", ("order",)),
    (
        "a region order that loses a region",
        "--labels background=0 c=2 w=1,2 --regions-class-order 2 1",
        ("order",),
    ),
    (
        "a region order with other values",
        "--labels background=0 w=1,2 c=2 --regions-class-order 1 7",
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
        ("a pattern that is none", ("--group-by", "(train"), ("(train",)),
        ("a pattern that matches nothing", ("--group-by", "patient"), ("patient",)),
        ("processes below zero", ("-np", "-3"), ("-3",)),
    ):
        yield BadInput(name, "convert", _asked_for(more), names)
    yield BadInput("a pattern that never ends", "convert", _endless, ("group-by",))
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
    return (*convert_folder(target), "--group-by", r"train_(\w+)+-")


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
    yield BadInput("--overwrite over a folder that is no dataset", "convert", _no_dataset, ("X",))
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


# ---- DICOM --------------------------------------------------------------------------------------

Slice = dict[str, Any]


def dicom() -> Iterator[BadInput]:
    """Series whose slices do not form one volume."""
    for name, change, names in (
        ("a missing slice", lambda s: s[:4] + s[5:], ("slice",)),
        ("two slices at one position", lambda s: [*s, s[3] | {"number": 99}], ("position",)),
        (
            "four time points",
            lambda s: [x | {"number": n} for n in range(4) for x in s],
            ("volumes",),
        ),
        ("a tilted gantry", _tilted, ("tilt",)),
        ("mixed orientations", _one_turned, ("orientation",)),
        ("two series", _two_series, ("series",)),
        ("one slice of another size", _one_larger, ("size",)),
        ("colours", lambda s: [x | {"rgb": True} for x in s], ("values per voxel",)),
        ("no positions", lambda s: [x | {"position": None} for x in s], ("position",)),
        ("uneven slices", _uneven, ("slice",)),
        ("a slice cut short", _one_cut, ("slice_03",)),
        ("nothing but a text", lambda s: [], ("mine",)),
    ):
        yield BadInput(f"DICOM: {name}", "convert", _series(change), ("scan", *names))


def _series(change: Callable[[list[Slice]], list[Slice]]) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        target = folder_dataset(here)
        folder = target / "images" / "scan"
        folder.mkdir()
        (folder / "readme.txt").write_text("a scan from mine\n")
        slices = [{"number": n, "position": (0.0, 0.0, 2.5 * n)} for n in range(10)]
        for index, one in enumerate(change(slices)):
            _write_slice(folder / f"slice_{index:02d}.dcm", **one)
        return convert_folder(target)

    return make


def _tilted(slices: list[Slice]) -> list[Slice]:
    return [s | {"position": (0.0, 0.7 * n, 2.5 * n)} for n, s in enumerate(slices)]


def _one_turned(slices: list[Slice]) -> list[Slice]:
    return [*slices[:-1], slices[-1] | {"orientation": (0, 1, 0, 0, 0, -1)}]


def _two_series(slices: list[Slice]) -> list[Slice]:
    return [*slices, *(s | {"series": "1.2.3.9"} for s in slices)]


def _one_larger(slices: list[Slice]) -> list[Slice]:
    return [*slices[:-1], slices[-1] | {"rows": 20}]


def _uneven(slices: list[Slice]) -> list[Slice]:
    return [s | {"position": (0.0, 0.0, float(n * n))} for n, s in enumerate(slices)]


def _one_cut(slices: list[Slice]) -> list[Slice]:
    return [s | {"cut": n == 3} for n, s in enumerate(slices)]


def _write_slice(
    file: Path,
    *,
    number: int,
    position: tuple[float, ...] | None,
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    series: str = "1.2.3.4",
    rows: int = 16,
    rgb: bool = False,
    cut: bool = False,
) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    voxels = np.random.default_rng(number).integers(0, 99, (rows, 16, 3 if rgb else 1), np.uint8)
    values: Mapping[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"{series}.{file.stem.rpartition('_')[2].lstrip('0') or 0}",
        "SeriesInstanceUID": series,
        "StudyInstanceUID": "1.2.3",
        "Modality": "CT",
        "InstanceNumber": number,
        "ImagePositionPatient": None if position is None else list(position),
        "ImageOrientationPatient": list(orientation),
        "PixelSpacing": [1.0, 1.0],
        "SliceThickness": 2.5,
        "Rows": rows,
        "Columns": 16,
        "SamplesPerPixel": voxels.shape[2],
        "PhotometricInterpretation": "RGB" if rgb else "MONOCHROME2",
        "PlanarConfiguration": 0 if rgb else None,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": voxels.tobytes(),
    }
    dataset = Dataset()
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(file, enforce_file_format=True)
    if cut:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) - 100])


# ---- command lines ------------------------------------------------------------------------------

REQUIRED = {
    "convert": "folder",
    "plan": "small -d 500 -c 2d --name mine",
    "preprocess": " ".join(PREPROCESS),
    "trainers": "",
    "export": "-i MODEL -o out/x",
    "evaluate": "-ref MODEL -pred MODEL",
    "compare": "a=out b=out",
    "uncertainty": "-i out -o out/x -m MODEL",
    "rank": "-d 500 -m MODEL",
    "report": "-o out/x.html MODEL",
}


def command_lines() -> Iterator[BadInput]:
    """Options that no command has, that have no value, or that a habit shortens."""
    for command, line in REQUIRED.items():
        for name, more, names in (
            ("an unknown option", "-zzz 3", ("-zzz",)),
            ("an unknown long option", "--no-such-option", ("--no-such-option",)),
            ("an option of nnU-Net's", "-num_gpus 2", ("-num_gpus",)),
            ("a short form of a long option", "--hel", ("--hel",)),
        ):
            yield BadInput(name, command, _line(f"{line} {more}"), names)
    for command, line, names in (
        ("uncertainty", "-i out -o out/x -m MODEL -d 500", ("-d",)),
        ("export", "-i MODEL -o out/x -fold 0", ("-fold",)),
        ("preprocess", "-d 501 -c 2d", ("501",)),
        ("preprocess", "-d Dataset500 -c 2d", ("Dataset500",)),
        ("preprocess", "-d 500 -c 2d -num_parts 2 -part_id 5", ("part_id",)),
        ("rank", "-d 500 -m gone", ("gone",)),
        ("report", "-o out/x.html gone", ("gone",)),
        ("compare", "a=gone b=out", ("gone",)),
        ("evaluate", "-ref gone -pred out", ("gone",)),
        ("plan", "small -d 500 -c 3d_gone", ("3d_gone",)),
        ("plan", "small -d 500 -c 2d --name ../x", ("../x",)),
        ("plan", "small -d 500 -c 2d --features 0 4", ("features",)),
        ("plan", "small -d 500 -c 2d --patch-size 7", ("patch",)),
        ("trainers", "--shell cobol", ("cobol",)),
    ):
        yield BadInput(f"{line}", command, _line(line), names)


def _line(line: str) -> Callable[[Here], Arguments]:
    return lambda here: [str(here.model) if w == "MODEL" else w for w in line.split()]

"""Bad scans, on every way into the package."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from benchmarks.reliability.file_faults import FILE_FAULTS, FileFault
from benchmarks.reliability.sandbox import CONFIGURATION, BadInput, Here

Arguments = Sequence[str | Path]
Way = tuple[str, str, bool, Callable[[Here], tuple[Path, Arguments]]]  # of a label or an image

PREPROCESS = ("-d", "500", "-c", CONFIGURATION, "-np", "0", "--no_pbar")
ON_CPU = ("-device", "cpu", "--disable_tta")
FOLDER = ("folder", "-d", "510", "-n", "X", "-np", "1", "--channels", "CT")
CLASSES = ("--labels", "background=0", "large=1", "small=2")


def folder_dataset(here: Here, labeled: int = 3) -> Path:
    """The phantom as two folders, images and labels; the last image has no label."""
    target = here.root / "mine"
    for folder in ("images", "labels"):
        (target / folder).mkdir(parents=True)
    for image in here.images("imagesTr")[: labeled + 1]:
        name = image.name.replace("_0000", "")
        shutil.copy(image, target / "images" / name)
        if len(list((target / "labels").iterdir())) < labeled:
            shutil.copy(here.raw / "labelsTr" / name, target / "labels" / name)
    return target


def convert_folder(target: Path) -> Arguments:
    """Convert what `folder_dataset` made."""
    return (*FOLDER, "-i", target / "images", "-l", target / "labels", *CLASSES)


def _convert_image(here: Here) -> tuple[Path, Arguments]:
    target = folder_dataset(here)
    return sorted((target / "images").iterdir())[-1], convert_folder(target)


def _convert_label(here: Here) -> tuple[Path, Arguments]:
    target = folder_dataset(here)
    return sorted((target / "labels").iterdir())[1], convert_folder(target)


def _preprocess(here: Here) -> tuple[Path, Arguments]:
    for made in here.preprocessed.glob("*_unlabeled*"):
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    return here.images("imagesUn")[1], PREPROCESS


def _uncertainty(here: Here) -> tuple[Path, Arguments]:
    scans = here.images("imagesUn")
    options = ("-i", scans[0].parent, "-o", here.out / "maps", "-m", here.model)
    return scans[1], (*options, *ON_CPU)


def _rank(here: Here) -> tuple[Path, Arguments]:
    options = ("-d", "500", "-m", here.model, "-o", here.out / "ranking.csv")
    return here.images("imagesUn")[1], (*options, *ON_CPU)


def _predict(here: Here) -> tuple[Path, Arguments]:
    return here.images("imagesTs")[0], (here.fold, here.images("imagesTs")[0])


def _evaluate(kind: str) -> Callable[[Here], tuple[Path, Arguments]]:
    def make(here: Here) -> tuple[Path, Arguments]:
        for folder in ("reference", "prediction"):
            shutil.copytree(here.raw / "labelsTr", here.root / folder)
        options = ("-ref", here.root / "reference", "-pred", here.root / "prediction")
        more = ("-djfile", here.raw / "dataset.json", "-o", here.out / "metrics", "-np", "0")
        return sorted((here.root / kind).iterdir())[1], (*options, *more, "--no_pbar")

    return make


def _report(here: Here) -> tuple[Path, Arguments]:
    predictions = sorted((here.fold / "validation").glob("*.nii.gz"))
    options = ("-o", here.out / "report.html", here.fold, "--cases", "9", "--no_viewer")
    return predictions[0], (*options, "--no_maps")


WAYS: tuple[Way, ...] = (
    ("convert", "image", False, _convert_image),
    ("convert", "label", True, _convert_label),
    ("preprocess", "unlabeled image", False, _preprocess),
    ("uncertainty", "image", False, _uncertainty),
    ("rank", "unlabeled image", False, _rank),
    ("predict", "image", False, _predict),
    ("evaluate", "prediction", True, _evaluate("prediction")),
    ("evaluate", "reference", True, _evaluate("reference")),
    ("report", "prediction", True, _report),
)


def scans() -> Iterator[BadInput]:
    """Every fault of a file on every way that it applies to."""
    for command, what, is_label, way in WAYS:
        for fault in FILE_FAULTS:
            if fault.labels if is_label else fault.images:
                yield _bad_scan(command, what, way, fault)


def _bad_scan(
    command: str, what: str, way: Callable[[Here], tuple[Path, Arguments]], fault: FileFault
) -> BadInput:
    def make(here: Here) -> Arguments:
        file, arguments = way(here)
        fault.apply(file)
        return arguments

    names = {"convert": "train_00", "preprocess": "unlabeled_", "rank": "unlabeled_"}
    return BadInput(f"{what}: {fault.name}", command, make, (names.get(command, ""),))


# ---- formats ------------------------------------------------------------------------------------

FORMATS = (".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".gipl.gz", ".vtk", ".hdr", ".NII.GZ")
DATA_ENDINGS = {".nhdr": ".raw", ".mhd": ".raw", ".hdr": ".img"}


def formats() -> Iterator[BadInput]:
    """Files of other formats: cut short, with NaN, with the data elsewhere or nowhere."""
    for ending in FORMATS:
        yield BadInput(f"half of a {ending} file", "convert", _other_format(ending, _cut), ("one",))
        yield BadInput(f"NaN in a {ending} file", "convert", _other_format(ending, None), ("one",))
    for ending, data_ending in DATA_ENDINGS.items():
        yield BadInput(
            f"a {ending} file without its {data_ending}",
            "convert",
            _other_format(ending, lambda file: file.unlink()),
            ("one",),
        )
    for ending, key in ((".mhd", "ElementDataFile"), (".nhdr", "data file")):
        yield BadInput(
            f"a {ending} file whose data lie in another folder",
            "convert",
            _data_elsewhere(ending, key),
            ("one",),
        )


def _cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _other_format(
    ending: str, damage: Callable[[Path], None] | None
) -> Callable[[Here], Arguments]:
    """An image of another format; without `damage` it has a NaN."""

    def make(here: Here) -> Arguments:
        target = folder_dataset(here)
        scan = sorted((target / "images").iterdir())[-1]
        file = write_as(scan, target / "images" / f"one{ending}", nan=damage is None)
        scan.unlink()
        if damage is not None:
            damage(file)
        return convert_folder(target)

    return make


def write_as(scan: Path, file: Path, *, nan: bool = False) -> Path:
    """Write a scan in another format; return the file that has its voxels."""
    image = sitk.Cast(sitk.ReadImage(str(scan)), sitk.sitkFloat32)
    if nan:
        image[3, 3, 3] = np.nan
    lower = file.with_name(file.name.replace(".NII.GZ", ".nii.gz"))
    sitk.WriteImage(image, str(lower))
    if lower != file:
        lower.rename(file)
    data_ending = DATA_ENDINGS.get(file.suffix)
    return file.with_suffix(data_ending) if data_ending else file


def _data_elsewhere(ending: str, key: str) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        target = folder_dataset(here)
        scan = sorted((target / "images").iterdir())[-1]
        file = target / "images" / f"one{ending}"
        data = write_as(scan, file)
        scan.unlink()
        data.rename(here.root / data.name)
        header = file.read_bytes().replace(data.name.encode(), f"../../{data.name}".encode())
        assert key.encode() in header
        file.write_bytes(header)
        return convert_folder(target)

    return make


# ---- folders of scans ---------------------------------------------------------------------------


def folders_of_scans() -> Iterator[BadInput]:
    """Files that are whole, and yet not what a folder of cases holds."""
    for command, _, _, way in (w for w in WAYS if w[0] in ("preprocess", "uncertainty", "rank")):
        yield BadInput("a file without channel number", command, _renamed(way, "x.nii.gz"), ("x",))
        yield BadInput("a channel too many", command, _added(way, "_0001.nii.gz"), ("0001",))
        yield BadInput(
            "a file of another format", command, _added(way, "_0000.mgz"), (".mgz",), goes_on=True
        )
        yield BadInput(
            "an ending in capitals", command, _renamed(way, "y_0000.NII.GZ"), ("y",), goes_on=True
        )
    for command, what, _, way in (w for w in WAYS if w[0] in ("uncertainty", "evaluate")):
        yield BadInput(f"an empty folder of {what}s", command, _emptied(way), ("has no",))


Make = Callable[[Here], tuple[Path, Arguments]]


def _renamed(way: Make, name: str) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        file, arguments = way(here)
        file.rename(file.with_name(name))
        return arguments

    return make


def _added(way: Make, ending: str) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        file, arguments = way(here)
        shutil.copy(file, file.with_name(file.name.replace("_0000.nii.gz", ending)))
        return arguments

    return make


def _emptied(way: Make) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        file, arguments = way(here)
        for other in file.parent.iterdir():
            other.unlink()
        return arguments

    return make

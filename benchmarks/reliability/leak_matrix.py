"""Which copy of a test or labeled scan is found at which door: conversion, preprocessing, training.

python -m benchmarks.reliability.leak_matrix
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from benchmarks.performance.tables import markdown
from nnunetv2_spmc import discovery
from nnunetv2_spmc.common.errors import DataError

DATASET, CONFIGURATION = "Dataset500_Leaks", "2d_small"
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
DOORS = ("convert", "preprocess", "training", "training without raw data")
FOUND, WARNED, MISSED = "refused", "warned", "missed"
SAYS_SO = ("same images", "same scan", "same time", "of a patient", "not those that were made")
SHAPE = (24, 32, 32)
Save = Callable[[sitk.Image, Path], None]
Door = Callable[[Path], str]


def scan(seed: int) -> sitk.Image:
    """Return a volume with structure of its own."""
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 2)
    return sitk.GetImageFromArray(np.rint(texture * 8000).astype(np.int16))


def label(image: sitk.Image) -> sitk.Image:
    """Return a label: what is bright."""
    made = sitk.Cast(image > 300, sitk.sitkUInt8)
    made.CopyInformation(image)
    return made


def _write(change: Callable[[sitk.Image], sitk.Image]) -> Save:
    return lambda image, file: sitk.WriteImage(change(image), str(file))


def _array(change: Callable[[np.ndarray], np.ndarray]) -> Save:
    def changed(image: sitk.Image) -> sitk.Image:
        return sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))

    return _write(changed)


def _recompressed(image: sitk.Image, file: Path) -> None:
    sitk.WriteImage(image, str(file))
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()), 1, mtime=1))


def _elsewhere(image: sitk.Image) -> sitk.Image:
    moved = sitk.Image(image)
    moved.SetOrigin((10, -20, 30))
    moved.SetSpacing((1.5, 1.5, 1.5))
    return moved


def _one_voxel(array: np.ndarray) -> np.ndarray:
    array[3, 4, 5] += 4000
    return array


def _noised(array: np.ndarray) -> np.ndarray:
    return array + np.random.default_rng(9).normal(0, 0.1 * array.std(), array.shape)


def _moved(array: np.ndarray) -> np.ndarray:
    return ndimage.shift(array, (2, -3, 3), order=0, cval=array.min())


COPIES: Mapping[str, Save] = {
    "the same file": _write(lambda image: image),
    "re-compressed": _recompressed,
    "32 bit floating point": _write(lambda image: sitk.Cast(image, sitk.sitkFloat32)),
    "offset of 1024": _write(lambda image: image + 1024),
    "z-scored": _write(sitk.Normalize),
    "another spacing and origin": _write(_elsewhere),
    "axes exchanged and flipped": _write(lambda image: sitk.DICOMOrient(image, "RSA")),
    "one voxel changed": _array(_one_voxel),
    "noise, 10 % of the standard deviation": _array(_noised),
    "resampled to 2/3": _array(lambda array: ndimage.zoom(array, 2 / 3, order=1)),
    "cropped by a tenth": _array(lambda array: array[2:, 1:-2, :-3]),
    "shifted by a tenth": _array(_moved),
}


def make_base(base: Path) -> None:
    """Make a dataset of 5 labeled, 2 unlabeled and 2 test cases, planned and preprocessed."""
    for name in FOLDERS:
        (base / name).mkdir(parents=True)
    raw = base / "nnUNet_raw" / DATASET
    for folder in ("imagesTr", "labelsTr", "imagesUn", "imagesTs"):
        (raw / folder).mkdir(parents=True)
    names = {"imagesTr": ["l0", "l1", "l2", "l3", "l4"], "imagesUn": ["u0", "u1"]}
    names["imagesTs"] = ["p7_a", "t1"]
    for start, (folder, cases) in enumerate(names.items()):
        for number, case in enumerate(cases):
            image = scan(10 * start + number)
            sitk.WriteImage(image, str(raw / folder / f"{case}_0000.nii.gz"))
            if folder == "imagesTr":
                sitk.WriteImage(label(image), str(raw / "labelsTr" / f"{case}.nii.gz"))
    content = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "bright": 1}}
    content |= {"numTraining": 5, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(content))
    groups = {case: case for cases in names.values() for case in cases} | {"p7_a": "p7"}
    (raw / "split.json").write_text(json.dumps({"groups": groups}))
    small = "--features 4 8 --patch_size 16 16 --batch_size 2"
    for command in (
        "nnUNetv2_plan_and_preprocess -d 500 -c 2d -np 1 -npfp 1 --no_pbar",
        f"nnUNetv2_spmc_plan small -d 500 -c 2d {small}",
        f"nnUNetv2_spmc_preprocess -d 500 -c {CONFIGURATION} -np 0 --no_pbar",
    ):
        program, *arguments = command.split()
        environment = os.environ | {name: str(base / name) for name in FOLDERS}
        environment["nnUNet_n_proc_DA"] = "1"
        beside_python = Path(sys.executable).with_name(program)
        subprocess.run(
            [beside_python, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL
        )


def verdict(act: Callable[[], str]) -> str:
    """Say what a door did: it raised, what it said warns, or neither."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            said = act()
    except (DataError, SystemExit) as error:
        return FOUND if any(word in str(error) for word in SAYS_SO) else f"fails: {error}"
    return WARNED if "look alike" in said else MISSED


def at_conversion(raw: Path) -> str:
    """Convert what the raw dataset holds, once more, with its test cases."""
    from nnunetv2_spmc.cli.convert import main as convert

    images, labels = raw.parents[1] / "images", raw.parents[1] / "labels"
    images.mkdir()
    test = []
    for folder in ("imagesTr", "imagesUn", "imagesTs"):
        for file in (raw / folder).iterdir():
            name = file.name.replace("_0000", "")
            shutil.copy(file, images / name)
            test += [name.split(".")[0]] * (folder == "imagesTs")
    shutil.copytree(raw / "labelsTr", labels)
    options = "-d 501 -n Again -np 1 --channels MRI --labels background=0 bright=1 --test"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        convert(["folder", "-i", str(images), "-l", str(labels), *options.split(), ",".join(test)])
    return said.getvalue()


def at_preprocessing(_: Path) -> str:
    """Preprocess."""
    from nnunetv2_spmc.unlabeled.preprocessing import PreprocessingOptions, preprocess_unlabeled

    said: list[str] = []
    options = PreprocessingOptions(num_processes=0, show_progress=False, log=said.append)
    preprocess_unlabeled(500, CONFIGURATION, options=options)
    return "\n".join(said)


def at_training(raw: Path) -> str:
    """Start a training, up to its first step."""
    import torch

    from nnunetv2_spmc.methods import nnUNetTrainerSPMC

    preprocessed = raw.parents[1] / "nnUNet_preprocessed" / DATASET
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    dataset_json = json.loads((preprocessed / "dataset.json").read_text())
    trainer = nnUNetTrainerSPMC(
        plans | {"continue_training": False}, CONFIGURATION, 0, dataset_json, torch.device("cpu")
    )
    trainer.on_train_start()
    logs = Path(trainer.output_folder).glob("training_log*.txt")
    return "".join(log.read_text() for log in logs)


class Matrix:
    """The table that is being filled, on fresh copies of a base."""

    def __init__(self, base: Path, root: Path) -> None:
        self.base, self.root = base, root
        self.rows: list[dict[str, str]] = []
        self.raw = root / "nnUNet_raw" / DATASET
        self.preprocessed = root / "nnUNet_preprocessed" / DATASET
        self.unlabeled = self.preprocessed / "nnUNetPlans_2d_unlabeled"

    def fresh(self) -> None:
        """Take a fresh copy of the base."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.base, self.root)

    def add(
        self,
        copy: str,
        place: Callable[[], None],
        doors: tuple[str, ...] = DOORS,
    ) -> None:
        """Try a copy, which `place` makes, at some doors."""
        row = {"copy": copy} | dict.fromkeys(DOORS, "")
        for door in doors:
            self.fresh()
            place()
            if door == "convert":
                row[door] = verdict(lambda: at_conversion(self.raw))
            elif door == "preprocess":
                row[door] = verdict(lambda: at_preprocessing(self.raw))
            elif door == "training":
                row[door] = verdict(lambda: at_training(self.raw))
            else:
                row[door] = verdict(self._train_without_raw)
        self.rows.append(row)
        print(row, file=sys.stderr, flush=True)

    def _train_without_raw(self) -> str:
        """Preprocess with the overlap allowed, then train where the raw data is not."""
        from nnunetv2_spmc.unlabeled.preprocessing import (
            PreprocessingOptions,
            preprocess_unlabeled,
        )

        options = PreprocessingOptions(num_processes=0, show_progress=False, allow_overlap=True)
        preprocess_unlabeled(500, CONFIGURATION, options=options)
        shutil.rmtree(self.raw)
        return at_training(self.raw)


def fill(matrix: Matrix) -> None:
    """Try all copies."""
    raw, unlabeled = matrix.raw, matrix.unlabeled
    for name, save in COPIES.items():
        for folder, source in (("imagesTs", "p7_a"), ("imagesTr", "l0")):

            def place(save: Save = save, folder: str = folder, source: str = source) -> None:
                image = sitk.ReadImage(str(raw / folder / f"{source}_0000.nii.gz"))
                save(image, raw / "imagesUn" / "hospital7_0000.nii.gz")

            matrix.add(f"{name}, of a {'test' if folder == 'imagesTs' else 'labeled'} scan", place)

    def copy_unlabeled(name: str) -> Callable[[], None]:
        def place() -> None:
            image = sitk.ReadImage(str(raw / "imagesUn" / "u0_0000.nii.gz"))
            sitk.WriteImage(image, str(raw / "imagesTs" / name))

        return place

    later = DOORS[1:3]
    matrix.add("test scan added after preprocessing", copy_unlabeled("late_0000.nii.gz"), later)
    matrix.add("test scan with another ending", copy_unlabeled("late.mha"), later)

    def other_letters() -> None:
        sitk.WriteImage(scan(77), str(raw / "imagesUn" / "T1_0000.nii.gz"))

    matrix.add("name of a test case in other letters", other_letters, DOORS[1:])

    def no_entry() -> None:
        sitk.WriteImage(scan(77), str(raw / "imagesUn" / "p7_b_0000.nii.gz"))

    matrix.add("patient of a test case, no entry in split.json", no_entry, DOORS[1:])

    def exchanged() -> None:
        for file in (matrix.preprocessed / "nnUNetPlans_2d").glob("l0*"):
            shutil.copy(file, unlabeled / file.name.replace("l0", "u0"))

    matrix.add("preprocessed files of a labeled case as u0", exchanged, ("training",))


def main() -> None:
    """Print the matrix."""
    os.environ |= {"nnUNet_n_proc_DA": "0", "nnUNet_compile": "f"}
    os.environ["nnUNet_extTrainer"] = str(Path(discovery.__file__).parent)
    os.environ["nnUNet_spmc_settings"] = json.dumps({"epochs": 1, "iterations_per_epoch": 1})
    with tempfile.TemporaryDirectory(prefix="leaks-") as temporary:
        base, root = Path(temporary, "base"), Path(temporary, "here")
        make_base(base)
        os.environ |= {name: str(root / name) for name in FOLDERS}
        matrix = Matrix(base, root)
        fill(matrix)
        print(markdown(matrix.rows))


if __name__ == "__main__":
    main()

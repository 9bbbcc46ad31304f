"""What is killed: commands with what they start from, and what they must keep.

Each starts from a copy of a small dataset that is planned, preprocessed and trained on. A start is
made once, and copied for every kill.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.reliability.contents import read_checkpoint
from benchmarks.reliability.sandbox import Here, ended, killed, main_of, started
from benchmarks.reliability.scans import CLASSES, folder_dataset
from nnunetv2_spmc.dataset_conversion.protocol_lists import ACDC_TEST, ACDC_TRAIN, ACDC_VALIDATION
from nnunetv2_spmc.unlabeled.cases import CASE_ENDINGS, finished_cases

Arguments = Sequence[str | Path]
Finished = Mapping[str, object]  # what is finished -> what shows that it was not made again
MODEL = "nnUNetTrainerSPMC__nnUNetPlans__{}"
SCHEDULE = {
    "epochs": 6,
    "iterations_per_epoch": 3,
    "validation_iterations": 1,
    "seed": 0,
    "save_every": 1,
}
IN_THIS_PROCESS = {"nnUNet_n_proc_DA": "0", "nnUNet_spmc_settings": json.dumps(SCHEDULE)}
TWO_WORKERS = {**IN_THIS_PROCESS, "nnUNet_n_proc_DA": "2"}


def _nothing(here: Here) -> Finished:
    return {}


@dataclass(frozen=True)
class Kind:
    """A command that is killed.

    Args:
        command: nnUNetv2_spmc_COMMAND.
        name: tells what is special.
        kills: how many of them.
        start: makes what it starts from in a copy of the base; returns the arguments.
        again: arguments that are added when it is run again.
        refuses_when_done: run again after its end it says so, and changes nothing.
        finished: what is finished and must not be made again.
        repeats: two runs give the same bytes; otherwise checkpoints have the same form.
        grows: files that may be otherwise after a kill; JSON and checkpoints must be whole.
        environment: variables to set.
        main: what runs, if it is not one of the package's commands.
    """

    command: str
    name: str
    kills: int
    start: Callable[[Here], Arguments]
    again: Arguments = ()
    refuses_when_done: bool = False
    finished: Callable[[Here], Finished] = _nothing
    repeats: bool = True
    grows: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    main: Callable[[list[str]], None] | None = None

    def begin(self, here: Here, arguments: Arguments) -> int:
        """Start the command; return the number of its process."""
        line = [f"nnUNetv2_spmc_{self.command}", *map(str, arguments)]
        log = here.root.with_suffix(".log")
        return started(self.main or main_of(self.command), line, here.root, log, self.environment)


def kinds() -> tuple[Kind, ...]:
    """Return what is killed, some two hundred times in all."""
    return (
        Kind("convert", "folder", 22, _folder(), refuses_when_done=True),
        Kind("convert", "folder, 2 processes", 4, _folder("-np", "2"), refuses_when_done=True),
        Kind("convert", "folder --overwrite", 14, _overwritten),
        Kind("convert", "acdc", 14, _acdc, refuses_when_done=True),
        _preprocess("2d", 18),
        _preprocess("3d", 16),
        _preprocess("2d, 2 processes", 4, "-np", "2"),
        _preprocess("2d --overwrite", 10, "--overwrite"),
        _preprocess("2d, damaged cases", 6),
        _train("2d", 18, _untrained),
        _train("3d", 14, _untrained),
        _train("2d, 2 workers", 8, _untrained),
        _train("3d, 2 workers", 8, _untrained),
        _train("2d --c", 10, _half_trained),
        _train("2d --c, more epochs", 6, _trained_shorter),
        Kind("uncertainty", "maps", 18, _uncertainty),
        Kind(
            "uncertainty",
            "maps --continue_prediction",
            16,
            _uncertainty,
            ("--continue_prediction",),
            finished=_mapped_cases,
        ),
    )


# ---- convert ------------------------------------------------------------------------------------

FOLDER = ("folder", "-d", "510", "-n", "X", "--channels", "CT")


def _folder(*more: str) -> Callable[[Here], Arguments]:
    def start(here: Here) -> Arguments:
        target = folder_dataset(here, labeled=3)  # fewer than five: splits_final.json is written
        for copies in range(3):  # of unlabeled scans
            for image in here.images("imagesUn"):
                copy = target / "images" / f"more{copies}_{image.name.replace('_0000', '')}"
                _shifted(image, copy, copies + 1)
        folders = ("-i", target / "images", "-l", target / "labels")
        return (*FOLDER, *folders, *CLASSES, *(more or ("-np", "1")))

    return start


def _shifted(image: Path, copy: Path, steps: int) -> None:
    """Write another scan: one that is the same under another name would be refused."""
    import numpy as np
    import SimpleITK as sitk

    scan = sitk.ReadImage(str(image))
    voxels = sitk.GetArrayFromImage(scan)[:, ::-1]
    voxels = np.roll(voxels, (steps % 20, steps // 20), axis=(2, 1))
    other = sitk.GetImageFromArray(voxels)
    other.CopyInformation(scan)
    sitk.WriteImage(other, str(copy))


def _overwritten(here: Here) -> Arguments:
    arguments = _folder()(here)
    _convert_other(here)
    return (*arguments, "--overwrite")


def _convert_other(here: Here) -> None:
    """Leave another dataset under the name: the phantom's own."""
    target = here.root / "nnUNet_raw" / "Dataset510_X"
    shutil.copytree(here.raw, target)


def _acdc(here: Here) -> Arguments:
    source = here.root / "mine"
    labels = sorted((here.raw / "labelsTr").iterdir())
    images = here.images("imagesTr")
    patients = [*ACDC_TRAIN[:10], *ACDC_VALIDATION[:2], *ACDC_TEST[:2]]
    for number, patient in enumerate(patients):
        folder = source / f"patient{patient}"
        folder.mkdir(parents=True)
        (folder / "Info.cfg").write_text("ED: 1\nES: 8\n")
        for frame in (1, 8):
            which = (number + frame) % len(images)
            name = f"patient{patient}_frame{frame:02d}"
            _shifted(images[which], folder / f"{name}.nii.gz", 2 * number + (frame > 1) + 1)
            _shifted(labels[which], folder / f"{name}_gt.nii.gz", 2 * number + (frame > 1) + 1)
    more = ("--labeled", "3", "--allow_missing", "-np", "1")
    return ("acdc", "-i", source, "-d", "520", *more)


# ---- preprocess ---------------------------------------------------------------------------------

RECORDS = ("*/spmc_*", "*_unlabeled.json")


def _preprocess(name: str, kills: int, *more: str) -> Kind:
    configuration = f"{name[:2]}_small" if name.startswith("2d") else "3d_fullres_small"
    overwrites = "--overwrite" in more
    processes = () if "-np" in more else ("-np", "0")

    def start(here: Here) -> Arguments:
        if "damaged" in name:
            _damage(here)
        elif not overwrites:
            _remove_unlabeled(here)
        return ("-d", "500", "-c", configuration, "--no_pbar", *processes, *more)

    return Kind(
        "preprocess",
        name,
        kills,
        start,
        finished=_nothing if overwrites else _preprocessed_cases,
        grows=RECORDS,
    )


def _remove_unlabeled(here: Here) -> None:
    for pattern in ("*_unlabeled*", "spmc_*"):
        for made in here.preprocessed.glob(pattern):
            shutil.rmtree(made) if made.is_dir() else made.unlink()


def _damage(here: Here) -> None:
    """Cut some preprocessed cases short, which are to be made again then."""
    (folder,) = here.preprocessed.glob("*_2d_unlabeled")
    for file in sorted(folder.glob("*[0-9].b2nd"))[:3]:
        file.write_bytes(file.read_bytes()[:-20])


def _preprocessed_cases(here: Here) -> Finished:
    """Return the unlabeled cases whose files are all there and whole."""
    return {
        f"{folder.name}/{case}": [_state(folder / f"{case}{ending}") for ending in CASE_ENDINGS]
        for folder in here.preprocessed.glob("*_unlabeled")
        for case in finished_cases(folder)
    }


def _state(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_ino, status.st_mtime_ns


# ---- train --------------------------------------------------------------------------------------


def _train(name: str, kills: int, start: Callable[[Here, Arguments], Arguments]) -> Kind:
    configuration = "3d_fullres_small" if name.startswith("3d") else "2d_small"
    has_workers = "workers" in name
    line = ("500", configuration, "0", "-device", "cpu")
    return Kind(
        "train",
        name,
        kills,
        lambda here: start(here, line),
        again=() if "--c" in name else ("--c",),
        finished=_trained_epochs,
        grows=("nnUNet_results/*", "*/splits_final.json"),  # nnU-Net writes most of it in place
        repeats=not has_workers,  # whichever worker is faster hands out its patches first
        environment=TWO_WORKERS if has_workers else IN_THIS_PROCESS,
        main=_train_quickly,
    )


def _train_quickly(arguments: list[str]) -> None:
    """Train without what takes most of the time of so short a training, and is nnU-Net's own.

    No curves are drawn, the workers of nnU-Net's validation are forked, not started afresh, and
    PyTorch computes in one thread: several wait for each other where others are at work.
    """
    import torch
    from nnunetv2.training.logging.nnunet_logger import LocalLogger

    from nnunetv2_spmc.training import semi_supervised

    context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: context("fork")  # type: ignore
    torch.set_num_threads = lambda nthreads: None
    LocalLogger.plot_progress_png = semi_supervised.plot_epochs = lambda *_: None
    main_of("train")(arguments)


def _untrained(here: Here, line: Arguments) -> Arguments:
    shutil.rmtree(here.root / "nnUNet_results")
    (here.root / "nnUNet_results").mkdir()
    (here.preprocessed / "splits_final.json").unlink(missing_ok=True)
    return line


def _half_trained(here: Here, line: Arguments) -> Arguments:
    """Kill a training when it has a checkpoint; it goes on from there."""
    _untrained(here, line)
    child = _begin_training(here, line)
    deadline = time.monotonic() + 60
    while not list(here.root.rglob("fold_0/checkpoint_latest.pth")) and time.monotonic() < deadline:
        time.sleep(0.01)
    killed(child)
    return (*line, "--c")


def _trained_shorter(here: Here, line: Arguments) -> Arguments:
    """Train to the end; more epochs follow."""
    _untrained(here, line)
    if ended(_begin_training(here, (*line, "--set", "epochs=3"))):
        raise RuntimeError("the training to go on from failed")
    return (*line, "--c", "--set", "epochs=6")


def _begin_training(here: Here, arguments: Arguments) -> int:
    return _train("2d", 0, _untrained).begin(here, arguments)


def _trained_epochs(here: Here) -> Finished:
    """Return the epochs in the checkpoint that --c takes, with the times at which they began."""
    for name in ("final", "latest", "best"):
        for file in (here.root / "nnUNet_results").rglob(f"fold_0/checkpoint_{name}.pth"):
            begun = read_checkpoint(file)["logging"]["epoch_start_timestamps"]
            return {f"epoch {number}": moment for number, moment in enumerate(begun)}
    return {}


# ---- uncertainty --------------------------------------------------------------------------------


def _uncertainty(here: Here) -> Arguments:
    folders = ("-i", here.raw / "imagesUn", "-o", here.out / "maps", "-m", here.model)
    return (*folders, "-device", "cpu", "--disable_tta")


def _mapped_cases(here: Here) -> Finished:
    return {file.name: _state(file) for file in (here.out / "maps").glob("*.nii.gz")}

"""Trainings that cannot start: settings, names, data and checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reliability.sandbox import CONFIGURATION, BadInput, Here

Arguments = Sequence[str | Path]

TRAIN = ("500", CONFIGURATION, "0", "-device", "cpu")
SETTINGS: tuple[tuple[str, Any], ...] = (
    ("tau", 7),
    ("tau", "high"),
    ("tau", None),
    ("epochs", 1e23),
    ("epochs", 0),
    ("epochs", -1),
    ("epochs", 2.5),
    ("epochs", True),
    ("lambda_max", "much"),
    ("initial_lr", float("nan")),
    ("ramp_start", 2),
    ("views", "sideways"),
    ("epoch", 3),
)


def trainings() -> Iterator[BadInput]:
    """Settings in dataset.json and on the command line, arguments, data, checkpoints."""
    for key, value in SETTINGS:
        name = f"the setting {key}: {json.dumps(value)}"
        yield BadInput(name, "train", _setting(key, value), (key,))
    for line, names in (
        ("--set tau=7", ("tau",)),
        ("--set tau", ("tau",)),
        ("--set tua=0.7", ("tua",)),
        ("--settings gone.json", ("gone.json",)),
        ("-tr nnUNetTrainerSPCM", ("nnUNetTrainerSPCM",)),
        ("-p gonePlans", ("gonePlans",)),
        ("-pretrained_weights gone.pth", ("gone.pth",)),
        ("-num_gpus 0", ("num_gpus",)),
    ):
        yield BadInput(f"train {line}", "train", _line(*TRAIN, *line.split()), names)
    for name, line, names in (
        ("a fold that is not there", f"500 {CONFIGURATION} 9 -device cpu", ("9",)),
        ("a fold of text", f"500 {CONFIGURATION} one -device cpu", ("one",)),
        ("an unknown configuration", "500 3d_gone 0 -device cpu", ("3d_gone",)),
        ("an unknown dataset", f"7 {CONFIGURATION} 0 -device cpu", ("7",)),
    ):
        yield BadInput(name, "train", _line(*line.split()), names)
    for name, change, names in (
        ("no unlabeled cases at all", _no_unlabeled, ("imagesUn",)),
        ("no labeled cases preprocessed", _no_labeled, ("preprocess",)),
        ("a labeled case cut short", _cut_labeled, ("train_00",)),
        ("splits that are not JSON", _broken_splits, ("splits_final.json",)),
        ("splits that name another case", _other_splits, ("nobody",)),
    ):
        yield BadInput(name, "train", _changed(change), names)
    for name, content in (("empty", b""), ("a text", b"not yet"), ("half of one", None)):
        make = _resumed(content)
        yield BadInput(f"--c with a checkpoint: {name}", "train", make, ("checkpoint_final.pth",))


def _line(*arguments: str) -> Callable[[Here], Arguments]:
    return lambda here: arguments


def _setting(key: str, value: Any) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        for folder in (here.raw, here.preprocessed):
            file = folder / "dataset.json"
            content = json.loads(file.read_text(encoding="utf-8"))
            file.write_text(json.dumps(content | {"spmc": {key: value}}), encoding="utf-8")
        return TRAIN

    return make


def _changed(change: Callable[[Here], None]) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        change(here)
        return TRAIN

    return make


def _no_unlabeled(here: Here) -> None:
    for made in here.preprocessed.glob("*_unlabeled*"):
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    shutil.rmtree(here.raw / "imagesUn")  # a training preprocesses what is there


def _no_labeled(here: Here) -> None:
    shutil.rmtree(here.preprocessed / "nnUNetPlans_2d")


def _cut_labeled(here: Here) -> None:
    for file in (here.preprocessed / "nnUNetPlans_2d").glob("train_00?.b2nd"):
        file.write_bytes(file.read_bytes()[:100])


def _broken_splits(here: Here) -> None:
    (here.preprocessed / "splits_final.json").write_text("[{")


def _other_splits(here: Here) -> None:
    splits = [{"train": ["nobody"], "val": ["train_000"]}]
    (here.preprocessed / "splits_final.json").write_text(json.dumps(splits))


def _resumed(content: bytes | None) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        file = here.fold / "checkpoint_final.pth"
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2] if content is None else content)
        return (*TRAIN, "--c")

    return make

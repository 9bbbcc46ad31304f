"""What a training is asked for: checked first, then done with nnU-Net's functions."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import nnunetv2
import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.nnunet_folders import results_folder
from nnunetv2_spmc.loading.case_files import reading_as_data
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.training.as_data import read_as_data
from nnunetv2_spmc.training.checkpoint import (
    BEST,
    FINAL,
    LATEST,
    CheckpointError,
    check_resumed_weights,
    read_resumable,
)
from nnunetv2_spmc.training.configured import nnUNetTrainerConfigured
from nnunetv2_spmc.training.devices import check_device
from nnunetv2_spmc.training.few_labels import check_fold
from nnunetv2_spmc.training.settings_sources import options_in
from nnunetv2_spmc.training.warm_start import load_pretrained_main_branch
from nnunetv2_spmc.unlabeled.target import UnlabeledTarget, find_training_target

TRAINER_VARIABLE = "nnUNet_extTrainer"
STOCK_TRAINERS = Path(nnunetv2.__path__[0], "training", "nnUNetTrainer")
CLASS = re.compile(r"^class (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class TrainingRequest:
    """What nnUNetv2_train is asked for, by the names of its arguments."""

    dataset: str
    configuration: str
    fold: int | str
    trainer: str
    plans: str
    device: str
    processes: int = 1
    pretrained_weights: Path | None = None
    continues: bool = False
    validates_only: bool = False
    validates_best: bool = False
    writes_checkpoints: bool = True
    saves_probabilities: bool = False


def check_request(request: TrainingRequest, own_trainers: Collection[str]) -> UnlabeledTarget:
    """Check what can be checked before a folder is made, and return what is trained on.

    Args:
        request: what is asked for.
        own_trainers: the names of those of this package.

    Raises:
        DataError: something that it names is not there; says what there is, or what to run first.
    """
    check_device(request.device, request.processes)
    results_folder()
    check_trainer(request.trainer, own_trainers)
    target = find_training_target(request.dataset, request.configuration, request.plans)
    identifiers = target.labeled_cases()
    if request.trainer in own_trainers:  # stock nnU-Net makes up a fold that is not there
        cases = check_fold(target.preprocessed_dataset, identifiers, request.fold)
        _check_cases(target, set(cases) - set(identifiers))
    elif request.trainer in _classes_in(STOCK_TRAINERS) and options_in(os.environ):
        raise DataError(
            f"{request.trainer} is nnU-Net's own and has no settings: leave --set and --settings "
            "out, or take nnUNetTrainerSupervisedControl, which is the same with settings."
        )
    batch_size = target.configuration_manager.batch_size
    if request.processes > batch_size:
        raise DataError(
            f"{request.processes} processes cannot share the {batch_size} patches of a step of "
            f"{request.configuration}; take {batch_size} at most."
        )
    weights = request.pretrained_weights
    if weights is not None and not request.validates_only and not weights.is_file():
        raise CheckpointError(f"{weights} does not exist; give -pretrained_weights a checkpoint.")
    return target


# ---- trainers ----------------------------------------------------------------------------------


def add_trainer_folder(folder: Path) -> None:
    """Let nnU-Net find the trainers of a folder, in addition to those of other folders."""
    folders = [name for name in os.environ.get(TRAINER_VARIABLE, "").split(os.pathsep) if name]
    if not any(Path(name).resolve() == folder.resolve() for name in folders):
        os.environ[TRAINER_VARIABLE] = os.pathsep.join([*folders, str(folder)])


def check_trainer(name: str, own: Collection[str]) -> None:
    """Raise DataError if nnU-Net would not find a trainer; names those that are like it."""
    known = {*own, *_classes_in(STOCK_TRAINERS)}
    for folder in os.environ.get(TRAINER_VARIABLE, "").split(os.pathsep):
        word = re.compile(rf"\b{re.escape(name)}\b")
        if folder and any(word.search(text) for text in _sources(Path(folder))):
            return  # defined there, or imported from elsewhere
        known.update(_classes_in(Path(folder)) if folder else ())
    if name not in known:
        raise _no_trainer(name, known, own)


def _no_trainer(name: str, known: Collection[str], own: Collection[str]) -> DataError:
    similar = get_close_matches(name, known, n=3, cutoff=0.75)
    if similar:
        return DataError(f"There is no trainer {name}; did you mean {' or '.join(similar)}?")
    there = f"those of this package are {', '.join(own)}" if own else f"see ${TRAINER_VARIABLE}"
    return DataError(f"There is no trainer {name}; {there}.")


def _classes_in(folder: Path) -> set[str]:
    return {name for text in _sources(folder) for name in CLASS.findall(text)}


def _sources(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*.py"):
        yield file.read_text(encoding="utf-8", errors="replace")


# ---- labeled cases -----------------------------------------------------------------------------


def _check_cases(target: UnlabeledTarget, missing: Collection[str]) -> None:
    """Raise DataError if cases of a fold are not preprocessed."""
    if missing:
        raise DataError(
            f"{len(missing)} of the labeled cases are not preprocessed for "
            f"{target.configuration_name} ({name_some(sorted(missing))}), though splits_final.json "
            f"names them; run {target.labeled_command}."
        )


# ---- training ----------------------------------------------------------------------------------


def train(request: TrainingRequest) -> None:
    """Train and validate in this process; mirrors nnunetv2.run.run_training.run_ddp (2.8.1)."""
    device = torch.device(request.device)
    trainer: Any = _trainer(request, device)
    trainer.disable_checkpointing = not request.writes_checkpoints
    folder = Path(trainer.output_folder)
    if request.validates_only:
        _require_checkpoint(folder / FINAL, "--val validates a training that is done")
    trainer.initialize()
    trainer.dataset_class = reading_as_data(trainer.dataset_class)  # of a stock trainer, too
    if request.pretrained_weights and not request.validates_only:
        load_pretrained_main_branch(trainer.network, request.pretrained_weights)
    names = [FINAL, LATEST, BEST] if request.continues else [FINAL] * request.validates_only
    with _loading(trainer, [folder / name for name in names]):
        maybe_load_checkpoint(trainer, request.continues, request.validates_only)
    if not request.validates_only:
        trainer.run_training()
    if request.validates_best:
        _require_checkpoint(folder / BEST, "--val_best validates it")
        with _loading(trainer, [folder / BEST]):
            trainer.load_checkpoint(str(folder / BEST))
    trainer.perform_actual_validation(request.saves_probabilities)


@contextmanager
def _loading(trainer: Any, files: Sequence[Path]) -> Iterator[None]:
    """Let a trainer load the first checkpoint of those that are there, as data.

    Those of this package do so themselves. For the others it is read here first, for the sentences.
    """
    found = [file for file in files if file.is_file()]
    if not found or isinstance(trainer, nnUNetTrainerConfigured):
        yield
        return
    checkpoint = read_resumable(found[0])
    with read_as_data():
        yield
    check_resumed_weights(checkpoint, found[0])


def _trainer(request: TrainingRequest, device: torch.device) -> Any:
    names = (request.dataset, request.configuration, request.fold, request.trainer, request.plans)
    try:
        return get_trainer_from_args(*names, request.continues, device)
    except (ImportError, RuntimeError) as error:
        if "Could not find requested nnunet trainer" in str(error):
            raise _no_trainer(request.trainer, (), ()) from None
        if "torchvision" not in str(error):
            raise
        raise DataError(
            f"nnU-Net cannot load its trainers ({str(error).splitlines()[0]}): torchvision is not "
            "there or does not fit torch; install both again, together."
        ) from error


def _require_checkpoint(file: Path, why: str) -> None:
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist, and {why}; train first, or go on with --c.")

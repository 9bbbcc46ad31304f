"""The commands that train, go on and predict with a fold, as one would type them."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import distributed as dist

from nnunetv2_spmc.common.nnunet_folders import number_of
from nnunetv2_spmc.training.processes import processes_of_machine
from nnunetv2_spmc.training.settings_sources import OPTIONS_VARIABLE, options_in

DEFAULT_PLANS, DEFAULT_DEVICE = "nnUNetPlans", "cuda"
KEPT_FLAGS = ("--npz", "--val_best", "--disable_checkpointing")  # nnU-Net does not tell the trainer
PRETRAINED = "-pretrained_weights"


def train_command(trainer: nnUNetTrainer, *options: str) -> str:
    """Return the command that started this training, with other options."""
    dataset = trainer.plans_manager.dataset_name
    numbered = re.match(r"Dataset(\d{3})_", dataset)
    words, processes = _launcher()
    words += [str(int(numbered[1])) if numbered else dataset, trainer.configuration_name]
    words += [str(trainer.fold), "-tr", type(trainer).__name__]
    if trainer.plans_manager.plans_name != DEFAULT_PLANS:
        words += ["-p", trainer.plans_manager.plans_name]
    if trainer.device.type != DEFAULT_DEVICE:
        words += ["-device", trainer.device.type]
    words += [*processes, *(flag for flag in KEPT_FLAGS if flag in sys.argv), *options]
    return shlex.join([*words, *_setting_options()])


def _setting_options() -> list[str]:
    """Return the options of nnUNetv2_spmc_train that gave settings."""
    words = []
    for option, block in options_in(os.environ).items():
        words += option.split(" ", 1)
        if option == "--set":
            words += [f"{key}={_as_typed(value)}" for key, value in block.items()]
    return words


def _as_typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _launcher() -> tuple[list[str], list[str]]:
    """Return what comes before the arguments of nnUNetv2_train, and the one for its processes."""
    program = "nnUNetv2_spmc_train" if OPTIONS_VARIABLE in os.environ else "nnUNetv2_train"
    if not (dist.is_available() and dist.is_initialized()):
        return [program], []
    processes = dist.get_world_size()
    if "LOCAL_RANK" not in os.environ:
        return [program], ["-num_gpus", str(processes)]
    here = processes_of_machine()
    nodes = ["--nnodes", str(processes // here)] if here < processes else []
    where = ["..."] if nodes else []  # where they meet: torchrun does not tell
    per_node = ["--nproc-per-node", str(here)]
    return ["torchrun", *nodes, *per_node, *where, "-m", "nnunetv2_spmc.train"], []


def new_start_option() -> list[str]:
    """Return the option of a start without a checkpoint: `--c` too, but for a warm start."""
    if PRETRAINED not in sys.argv:
        return ["--c"]
    return sys.argv[sys.argv.index(PRETRAINED) :][:2]


def labeled_preprocessing(trainer: nnUNetTrainer) -> str:
    """Return the command that preprocesses the labeled cases of a training."""
    plans = trainer.plans_manager
    words = ["nnUNetv2_preprocess", "-d", str(number_of(plans.dataset_name))]
    return shlex.join([*words, "-plans_name", plans.plans_name, "-c", trainer.configuration_name])


def how_to_predict(trainer: nnUNetTrainer) -> str:
    """Say with which command one predicts with the fold of a training."""
    plans = trainer.plans_manager
    words = ["nnUNetv2_predict", "-d", plans.dataset_name, "-c", trainer.configuration_name]
    words += ["-p", plans.plans_name, "-tr", type(trainer).__name__, "-f", str(trainer.fold)]
    command = shlex.join([*words, "-i", "INPUT", "-o", "OUTPUT"])
    return f"Predict with this fold (without -f nnU-Net expects folds 0 to 4):\n  {command}"

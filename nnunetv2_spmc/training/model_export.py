"""Export of a trained model to a folder that stock nnU-Net can use without this package."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

FILES = ("plans.json", "dataset.json", "dataset_fingerprint.json")
INFERENCE_KEYS = ("network_weights", "inference_allowed_mirroring_axes")


class ExportError(RuntimeError):
    """A model folder cannot be exported."""


def export_model(
    model_folder: Path,
    output_folder: Path,
    folds: Sequence[str] | None = None,
    checkpoint_name: str = "checkpoint_final.pth",
) -> list[str]:
    """Write a model folder whose trainer is nnUNetTrainer, after checking equal logits.

    Kept are the main branch and what inference needs; the auxiliary branch, the optimizer and the
    curves are dropped.

    Args:
        model_folder: the folder TRAINER__PLANS__CONFIGURATION of a training.
        output_folder: the folder to create; it must not exist.
        folds: names of the folds such as "0" or "all"; None takes every fold with the checkpoint.
        checkpoint_name: the checkpoint to export.

    Returns:
        The exported folds.

    Raises:
        ExportError: a file is missing, the output exists, or the logits differ.
    """
    for name in FILES[:2]:
        if not (model_folder / name).is_file():
            raise ExportError(
                f"{model_folder} is not a model folder: it has no {name}; give the folder "
                "TRAINER__PLANS__CONFIGURATION inside nnUNet_results/DatasetXXX_Name."
            )
    if output_folder.exists():
        raise ExportError(f"{output_folder} exists already; remove it or choose another folder.")
    found = sorted(path.parent.name for path in model_folder.glob(f"fold_*/{checkpoint_name}"))
    wanted = found if folds is None else [f"fold_{fold}" for fold in folds]
    missing = [fold for fold in wanted if fold not in found]
    if missing or not wanted:
        raise ExportError(
            f"{model_folder} has no {checkpoint_name} in {', '.join(missing) or 'any fold'}: "
            "finish the training, or name another file with -chk."
        )
    output_folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output_folder.name}-", dir=output_folder.parent))
    try:
        for name in FILES:
            if (model_folder / name).is_file():
                shutil.copyfile(model_folder / name, temporary / name)
        for fold in wanted:
            (temporary / fold).mkdir()
            exported = stock_checkpoint(model_folder, fold, checkpoint_name)
            torch.save(exported, temporary / fold / checkpoint_name)
        temporary.chmod(0o755)
        os.replace(temporary, output_folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [fold.removeprefix("fold_") for fold in wanted]


def stock_checkpoint(model_folder: Path, fold: str, checkpoint_name: str) -> dict[str, Any]:
    """Read a checkpoint and reduce it to what stock nnU-Net needs, checking equal logits."""
    path = model_folder / fold / checkpoint_name
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    init_args = {key: checkpoint["init_args"][key] for key in ("plans", "configuration", "fold")}
    plans_manager = PlansManager(load_json(str(model_folder / "plans.json")))
    dataset_json = load_json(str(model_folder / "dataset.json"))
    trainer = recursive_find_trainer_class_by_name(checkpoint["trainer_name"])
    weights = checkpoint["network_weights"]
    check_equal_logits(
        _network(trainer, plans_manager, init_args["configuration"], dataset_json, weights),
        _network(nnUNetTrainer, plans_manager, init_args["configuration"], dataset_json, weights),
        plans_manager.get_configuration(init_args["configuration"]).patch_size,
        determine_num_input_channels(
            plans_manager, plans_manager.get_configuration(init_args["configuration"]), dataset_json
        ),
        path,
    )
    return {
        **{key: checkpoint[key] for key in INFERENCE_KEYS},
        "init_args": {**init_args, "dataset_json": dataset_json},
        "trainer_name": nnUNetTrainer.__name__,
    }


@torch.inference_mode()
def check_equal_logits(
    network: nn.Module, stock: nn.Module, patch_size: Sequence[int], channels: int, path: Path
) -> None:
    """Raise an ExportError unless both networks give the same logits on a random patch."""
    generator = torch.Generator().manual_seed(0)
    patch = torch.randn(1, channels, *patch_size, generator=generator)
    if not torch.equal(network.eval()(patch), stock.eval()(patch)):
        raise ExportError(
            f"The network of {path} and stock nnU-Net with its weights give different logits, so "
            "the model cannot be exported; predict with this package installed instead."
        )


def _network(
    trainer: type[nnUNetTrainer],
    plans_manager: PlansManager,
    configuration: str,
    dataset_json: dict,
    weights: dict[str, torch.Tensor],
) -> nn.Module:
    configuration_manager = plans_manager.get_configuration(configuration)
    network = trainer.build_network_architecture(
        plans_manager,
        configuration_manager,
        determine_num_input_channels(plans_manager, configuration_manager, dataset_json),
        plans_manager.get_label_manager(dataset_json).num_segmentation_heads,
        enable_deep_supervision=False,
    )
    network.load_state_dict(weights)
    return network

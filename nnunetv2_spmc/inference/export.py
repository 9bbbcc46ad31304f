"""Export of a trained model to a folder that stock nnU-Net can use without this package."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

from nnunetv2_spmc.common.errors import SPMCError, reason_of
from nnunetv2_spmc.common.json_files import read_json
from nnunetv2_spmc.common.whole_file import whole_folder, writing
from nnunetv2_spmc.inference.loaded_fold import COPY_AGAIN, read_model_plans
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.raw.dataset_json import read_dataset_json
from nnunetv2_spmc.training.as_data import read_as_data
from nnunetv2_spmc.training.checkpoint import not_finite, read_checkpoint

FILES = ("plans.json", "dataset.json", "dataset_fingerprint.json")
INIT_ARGUMENTS = ("plans", "configuration", "fold")
INFERENCE_KEYS = ("network_weights", "inference_allowed_mirroring_axes")


class ExportError(SPMCError, RuntimeError):
    """A model folder cannot be exported."""


def export_model(
    model_folder: Path,
    output_folder: Path,
    folds: Sequence[str] | None = None,
    checkpoint_name: str = "checkpoint_final.pth",
) -> list[str]:
    """Write a model folder whose trainer is nnUNetTrainer, after checking equal logits.

    Kept are the main branch and what inference needs; what else was trained, the optimizer and
    the curves are dropped.

    Args:
        model_folder: the folder TRAINER__PLANS__CONFIGURATION of a training.
        output_folder: the folder to create; it must not exist.
        folds: names of the folds such as "0" or "all"; None takes every fold with the checkpoint.
        checkpoint_name: the checkpoint to export.

    Returns:
        The exported folds.

    Raises:
        ExportError: a file is missing, the output exists, or the logits differ.
        DataError: a file is damaged.
        WriteError: the output could not be written.
    """
    for name in FILES[:2]:
        if not (model_folder / name).is_file():
            raise ExportError(
                f"{model_folder} is not a model folder: it has no {name}; give the folder "
                "TRAINER__PLANS__CONFIGURATION inside nnUNet_results/DatasetXXX_Name."
            )
    if os.path.lexists(output_folder):
        raise ExportError(f"{output_folder} exists already; remove it or choose another folder.")
    found = sorted(path.parent.name for path in model_folder.glob(f"fold_*/{checkpoint_name}"))
    wanted = found if folds is None else [f"fold_{fold}" for fold in folds]
    missing = [fold for fold in wanted if fold not in found]
    if missing or not wanted:
        raise ExportError(
            f"{model_folder} has no {checkpoint_name} in {', '.join(missing) or 'any fold'}: "
            "finish the training, or name another file with -chk."
        )
    fingerprint = model_folder / FILES[2]
    if os.path.lexists(fingerprint):
        read_json(fingerprint, "remove it, a prediction does not need it")
    dataset_json = read_dataset_json(model_folder / "dataset.json", COPY_AGAIN)
    with whole_folder(output_folder) as temporary:
        for name in FILES:
            if (model_folder / name).is_file():
                with writing(temporary / name, output_folder / name):
                    shutil.copyfile(model_folder / name, temporary / name)
        for fold in wanted:
            exported = stock_checkpoint(model_folder / fold / checkpoint_name, dataset_json)
            file = temporary / fold / checkpoint_name
            with writing(file, output_folder / fold / checkpoint_name):
                file.parent.mkdir()
                torch.save(exported, file)
        folds = [fold.removeprefix("fold_") for fold in wanted]
        check_equal_logits(model_folder, temporary, folds, checkpoint_name)
    return folds


def stock_checkpoint(path: Path, dataset_json: dict[str, Any]) -> dict[str, Any]:
    """Read a checkpoint and keep what stock nnU-Net needs for prediction.

    Raises:
        DataError: it is damaged, or the plans next to it are.
        ExportError: the checkpoint lacks something, or has NaN in it.
    """
    checkpoint = read_checkpoint(path)
    given = checkpoint["init_args"]
    missing = [key for key in INFERENCE_KEYS if key not in checkpoint]
    missing += [f"init_args.{key}" for key in INIT_ARGUMENTS if key not in given]
    if missing:
        raise ExportError(f"{path} has no {', '.join(missing)}; export another with -chk.")
    if bad := not_finite(checkpoint["network_weights"]):
        raise ExportError(
            f"{path} has NaN or infinite weights ({name_some(bad, limit=3)}); export another with "
            "-chk."
        )
    read_model_plans(path.parents[1], given["configuration"])
    init_args = {key: given[key] for key in INIT_ARGUMENTS}
    return {
        **{key: checkpoint[key] for key in INFERENCE_KEYS},
        "init_args": {**init_args, "dataset_json": dataset_json},
        "trainer_name": nnUNetTrainer.__name__,
    }


def check_equal_logits(
    model_folder: Path, exported_folder: Path, folds: Sequence[str], checkpoint_name: str
) -> None:
    """Load both folders as prediction does and compare their logits on a random patch.

    Raises:
        ExportError: a network cannot be built, or the logits differ.
    """
    predictors = []
    for folder in (model_folder, exported_folder):
        predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
        try:
            with (
                read_as_data(),
                contextlib.redirect_stdout(None),
            ):  # where it looked for the trainer
                predictor.initialize_from_trained_model_folder(
                    str(folder), tuple(folds), checkpoint_name
                )
        except Exception as error:  # plans and checkpoints can be wrong in any way
            raise ExportError(
                f"{model_folder} cannot be loaded: {reason_of(error)}. If its trainer is of this "
                "package, set nnUNet_extTrainer first: "
                'export nnUNet_extTrainer="$(nnUNetv2_spmc_trainers)".'
            ) from error
        predictors.append(predictor)
    for fold, weights in zip(
        folds, zip(*(p.list_of_parameters for p in predictors), strict=True), strict=True
    ):
        try:
            ours, theirs = (
                _logits(predictor, parameters)
                for predictor, parameters in zip(predictors, weights, strict=True)
            )
        except RuntimeError as error:
            raise ExportError(
                f"Fold {fold} of {model_folder} does not fit its plans.json and dataset.json "
                f"({reason_of(error)}); {COPY_AGAIN}."
            ) from error
        if not torch.equal(ours.nan_to_num(), theirs.nan_to_num()):
            raise ExportError(
                f"Fold {fold} of {model_folder} and stock nnU-Net with its weights give different "
                "logits, so it cannot be exported; predict with this package installed instead."
            )


@torch.inference_mode()
def _logits(predictor: nnUNetPredictor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    channels = determine_num_input_channels(
        predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
    )
    patch_size = predictor.configuration_manager.patch_size
    patch = torch.randn(1, channels, *patch_size, generator=torch.Generator().manual_seed(0))
    predictor.network.load_state_dict(weights)
    return predictor.network.eval()(patch)

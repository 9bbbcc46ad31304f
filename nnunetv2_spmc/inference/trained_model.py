"""A trained model with both branches: found on disk, loaded, ready to predict a case."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from nnunetv2_spmc.common.errors import DataError, reason_of
from nnunetv2_spmc.methods import TRAINERS
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.raw.dataset_json import channel_names, read_dataset_json
from nnunetv2_spmc.raw.plans_json import check_classes, read_plans
from nnunetv2_spmc.training.checkpoint import (
    CheckpointError,
    not_finite,
    own_state,
    read_checkpoint,
)
from nnunetv2_spmc.training.weights import MAIN_PREFIX

FINAL_CHECKPOINT = "checkpoint_final.pth"
COPY_AGAIN = "copy the model folder again"


class OneOutput(nn.Module):
    """One branch of a training network that cannot give it alone: computed with all others."""

    def __init__(self, network: nn.Module, index: int) -> None:
        super().__init__()
        self.network = network
        self.index = index

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, channels, ...) images to (B, C, ...) logits."""
        return self.network(images)[self.index]


@dataclass(frozen=True)
class TrainedModel:
    """One fold of a trained model.

    Args:
        fold_folder: where the checkpoint lies.
        trainer_name: class name of the trainer.
        main: nnU-Net's predictor of the main branch.
        second: the same for the second branch of the method ("auxiliary" in SPMC); None where the
            method or the checkpoint has none.
        second_name: the name of that branch; empty without one.
        settings: what the trainer stored; empty for stock nnU-Net.
    """

    fold_folder: Path
    trainer_name: str
    main: nnUNetPredictor
    second: nnUNetPredictor | None
    second_name: str
    settings: Mapping[str, Any]

    @property
    def tau(self) -> float | None:
        """The threshold of the training below which a voxel is suspicious, if it had one."""
        return self.settings.get("tau")

    @property
    def channels(self) -> list[str]:
        """The names of the images that a case consists of."""
        return channel_names(self.main.dataset_json)

    @property
    def file_ending(self) -> str:
        """Ending of images and segmentations, '.nii.gz' for example."""
        return self.main.dataset_json["file_ending"]


def find_fold(
    model_folder: Path, fold: str | None = None, checkpoint_name: str = FINAL_CHECKPOINT
) -> Path:
    """Return the folder of a fold that has the checkpoint.

    Args:
        model_folder: TRAINER__PLANS__CONFIGURATION inside nnUNet_results/DatasetXXX_Name, or a
            fold inside of it.
        fold: "0" or "all", for example; None takes the only fold with the checkpoint.
        checkpoint_name: file name of the checkpoint.

    Raises:
        DataError: there is no such folder, fold or checkpoint, or several folds and none chosen.
    """
    if model_folder.name.startswith("fold_") and (model_folder.parent / "plans.json").is_file():
        inner = model_folder.name.removeprefix("fold_")
        if fold not in (None, inner):
            raise DataError(f"{model_folder} is fold {inner}, not fold {fold}; drop one of them.")
        model_folder, fold = model_folder.parent, inner
    for name in ("plans.json", "dataset.json"):
        if not (model_folder / name).is_file():
            raise DataError(
                f"{model_folder} is not a model folder: it has no {name}; give the folder "
                "TRAINER__PLANS__CONFIGURATION inside nnUNet_results/DatasetXXX_Name."
            )
    found = sorted(path.parent for path in model_folder.glob(f"fold_*/{checkpoint_name}"))
    wanted = found if fold is None else [f for f in found if f.name == f"fold_{fold}"]
    if not wanted:
        where = "any fold" if fold is None else f"fold_{fold}"
        there = ", ".join(str(p.relative_to(model_folder)) for p in _checkpoints(model_folder))
        raise DataError(
            f"{model_folder} has no {checkpoint_name} in {where}: finish the training, or name "
            f"another file with -chk{f' (there is {there})' if there else ''}."
        )
    if len(wanted) > 1:
        names = ", ".join(path.name.removeprefix("fold_") for path in wanted)
        raise DataError(f"{model_folder} has the folds {names}; choose one with -f.")
    return wanted[0]


def _checkpoints(model_folder: Path) -> list[Path]:
    return sorted(model_folder.glob("fold_*/checkpoint_*.pth"))


def load_model(
    fold_folder: Path,
    checkpoint_name: str = FINAL_CHECKPOINT,
    *,
    device: str = "cpu",
    mirroring: bool = True,
) -> TrainedModel:
    """Load a fold as nnUNetv2_predict does, and the second branch if the checkpoint has one.

    Args:
        fold_folder: a folder from `find_fold`.
        checkpoint_name: file name of the checkpoint.
        device: "cpu", "cuda" or "mps".
        mirroring: average over mirrored images where the training allowed it.

    Raises:
        DataError: the checkpoint is unreadable or has NaN in it, or its trainer or the device
            cannot be found.
    """
    check_device(device)
    path = fold_folder / checkpoint_name
    checkpoint = read_checkpoint(path)
    try:
        state = own_state(checkpoint, path)
    except CheckpointError as error:
        raise DataError(str(error)) from error
    _check_weights({**checkpoint["network_weights"], **state.get("parts", {})}, path)
    configuration_name = checkpoint["init_args"]["configuration"]
    plans = read_model_plans(fold_folder.parent, configuration_name)
    dataset_json = read_dataset_json(fold_folder.parent / "dataset.json", COPY_AGAIN)
    configuration = plans.get_configuration(configuration_name)
    trainer_name = checkpoint["trainer_name"]
    trainer = _trainer_class(trainer_name, fold_folder)
    try:
        network = _planned_network(trainer, plans, configuration, dataset_json)
        network.load_state_dict(checkpoint["network_weights"])
    except Exception as error:  # plans can be wrong in any way
        raise DataError(
            f"{path} does not fit {fold_folder.parent / 'plans.json'} and dataset.json "
            f"({reason_of(error)}); {COPY_AGAIN}."
        ) from error
    name, second = _second_branch(trainer, network, state)  # before torch.compile may wrap it

    def predictor(branch: nn.Module) -> nnUNetPredictor:
        with contextlib.redirect_stdout(None):  # on a CPU it prints what only CUDA users can do
            made = nnUNetPredictor(
                use_mirroring=mirroring, device=torch.device(device), allow_tqdm=False
            )
        axes = checkpoint.get("inference_allowed_mirroring_axes")
        weights = branch.state_dict()
        made.manual_initialization(
            branch, plans, configuration, [weights], dataset_json, trainer_name, axes
        )
        return made

    return TrainedModel(
        fold_folder=fold_folder,
        trainer_name=trainer_name,
        main=predictor(network),
        second=None if second is None else predictor(second),
        second_name=name,
        settings=state.get("settings", {}),
    )


def check_device(device: str) -> None:
    """Raise DataError if this machine has no such device."""
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there[device]:
        raise DataError(
            f"This machine has no {device.upper()} device that torch can use; take -device cpu."
        )


def best_device() -> str:
    """Return "cuda" where there is a GPU that torch can use, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def read_model_plans(model_folder: Path, configuration: str) -> PlansManager:
    """Return the plans of a model folder.

    Raises:
        DataError: they are damaged, lack the configuration, or name a class that nnU-Net lacks.
    """
    file = model_folder / "plans.json"
    plans = PlansManager(read_plans(file, COPY_AGAIN, configuration))
    if configuration not in plans.available_configurations:
        raise DataError(
            f"{file} has no configuration {configuration}, which the checkpoint was trained with; "
            f"{COPY_AGAIN}."
        )
    check_classes(plans, configuration, file, COPY_AGAIN)
    return plans


def _planned_network(
    trainer: Any,
    plans: PlansManager,
    configuration: ConfigurationManager,
    dataset_json: dict[str, Any],
) -> nn.Module:
    """Build what nnU-Net predicts with."""
    network: nn.Module = trainer.build_network_architecture(
        plans,
        configuration,
        determine_num_input_channels(plans, configuration, dataset_json),
        plans.get_label_manager(dataset_json).num_segmentation_heads,
        enable_deep_supervision=False,
    )
    return network


def _check_weights(weights: Mapping[str, Any], path: Path) -> None:
    bad = not_finite(weights)
    if bad:
        raise DataError(
            f"{path} has NaN or infinite weights ({name_some(bad, limit=3)}), so it predicts "
            "nothing; take an earlier checkpoint with -chk, or train again."
        )


def _trainer_class(name: str, fold_folder: Path) -> Any:
    """Find the trainer; this package's own are found without nnUNet_extTrainer."""
    ours = {trainer.__name__: trainer for trainer in TRAINERS}
    if name in ours:
        return ours[name]
    try:
        found = recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise DataError(
            f"{fold_folder} was trained with {name}, which is neither in nnU-Net nor in this "
            f"package: set nnUNet_extTrainer to the folder that has it ({error})."
        ) from error
    if "plans_manager" not in inspect.signature(found.build_network_architecture).parameters:
        raise DataError(
            f"The trainer {name} of {fold_folder} builds its network in the manner of nnU-Net "
            "before 2.7: update its build_network_architecture."
        )
    return found


def _second_branch(
    trainer: Any, main: nn.Module, state: Mapping[str, Any]
) -> tuple[str, nn.Module | None]:
    """Rebuild the second branch around the planned network; None if the method has only one.

    None, too, where the parts that are stored do not fit the trainer of that name.
    """
    branches: tuple[str, ...] = getattr(trainer, "branches", ("main",))
    stored = state.get("parts", {})
    if len(branches) < 2 or not stored:
        return "", None
    defaults = trainer.default_method_settings
    own = {field.name for field in dataclasses.fields(defaults)}
    settings = {key: value for key, value in state.get("settings", {}).items() if key in own}
    network = trainer.training_network(main, dataclasses.replace(defaults, **settings))
    # the main branch gets its weights with the planned network, which it is
    missing, unexpected = network.load_state_dict(stored, strict=False)
    if unexpected or any(not key.startswith(MAIN_PREFIX) for key in missing):
        return "", None
    if hasattr(network, "branch"):
        return branches[1], network.branch(branches[1])
    return branches[1], OneOutput(network, 1)

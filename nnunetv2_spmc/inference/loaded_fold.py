"""One fold of a trained model: its checkpoint read, its networks built again."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from nnunetv2_spmc.common.errors import DataError, reason_of
from nnunetv2_spmc.methods import TRAINERS
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.raw.dataset_json import read_dataset_json
from nnunetv2_spmc.raw.plans_json import check_classes, read_plans
from nnunetv2_spmc.training.checkpoint import (
    CheckpointError,
    not_finite,
    own_state,
    read_checkpoint,
)
from nnunetv2_spmc.training.weights import MAIN_PREFIX

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
class LoadedFold:
    """What the checkpoint of a fold gives; `network` and `second` have its weights."""

    plans: PlansManager
    configuration: str
    dataset_json: dict[str, Any]
    trainer_name: str
    network: nn.Module
    second_name: str
    second: nn.Module | None
    mirror_axes: Any
    settings: Mapping[str, Any]


def load_fold(fold_folder: Path, checkpoint_name: str) -> LoadedFold:
    """Load a fold.

    Raises:
        DataError: the checkpoint is unreadable, has NaN in it or does not fit its plans, or its
            trainer cannot be found.
    """
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
    trainer = _trainer_class(checkpoint["trainer_name"], fold_folder)
    try:
        network = _planned_network(trainer, plans, configuration, dataset_json)
        network.load_state_dict(checkpoint["network_weights"])
    except Exception as error:  # plans can be wrong in any way
        raise DataError(
            f"{path} does not fit {fold_folder.parent / 'plans.json'} and dataset.json "
            f"({reason_of(error)}); {COPY_AGAIN}."
        ) from error
    name, second = _second_branch(trainer, network, state)
    return LoadedFold(
        plans=plans,
        configuration=configuration_name,
        dataset_json=dataset_json,
        trainer_name=checkpoint["trainer_name"],
        network=network,
        second_name=name,
        second=second,
        mirror_axes=checkpoint.get("inference_allowed_mirroring_axes"),
        settings=state.get("settings", {}),
    )


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

"""A trained model with both branches: found on disk, loaded, ready to predict a case."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Mapping, Sequence
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
from nnunetv2_spmc.common.nnunet_folders import find_dataset, results_folder
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
from nnunetv2_spmc.training.devices import check_device
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
    """A trained model: one fold, or several that predict together as in nnUNetv2_predict.

    Args:
        fold_folder: where the checkpoint lies; of several folds, that of the first.
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


def find_model(dataset: str, configuration: str, trainer: str, plans: str) -> Path:
    """Return the model folder of a dataset in nnUNet_results.

    Raises:
        DataError: there is no such dataset or model; says which models there are.
    """
    root = results_folder()
    folder = root / find_dataset(dataset, root)
    name = f"{trainer}__{plans}__{configuration}"
    if not (folder / name).is_dir():
        there = sorted(path.parent.name for path in folder.glob("*__*__*/plans.json"))
        raise DataError(
            f"{folder} has no model {name}; there is {name_some(there) if there else 'none'}: "
            "choose with -tr, -p and -c, or train it."
        )
    return folder / name


def find_folds(
    model_folder: Path,
    folds: Sequence[str] | None = None,
    checkpoint_name: str = FINAL_CHECKPOINT,
) -> list[Path]:
    """Return the folders of folds that have the checkpoint.

    Args:
        model_folder: TRAINER__PLANS__CONFIGURATION inside nnUNet_results/DatasetXXX_Name, or a
            fold inside of it.
        folds: "0" or "all", for example; None takes the only fold with the checkpoint.
        checkpoint_name: file name of the checkpoint.

    Raises:
        DataError: there is no such folder, fold or checkpoint, or several folds and none chosen.
    """
    if model_folder.name.startswith("fold_") and (model_folder.parent / "plans.json").is_file():
        inner = model_folder.name.removeprefix("fold_")
        if folds and set(folds) != {inner}:
            raise DataError(
                f"{model_folder} is fold {inner}, not fold {', '.join(folds)}; drop one of them."
            )
        model_folder, folds = model_folder.parent, [inner]
    for name in ("plans.json", "dataset.json"):
        if not (model_folder / name).is_file():
            raise DataError(
                f"{model_folder} is not a model folder: it has no {name}; give the folder "
                "TRAINER__PLANS__CONFIGURATION inside nnUNet_results/DatasetXXX_Name."
            )
    found = {path.parent.name: path.parent for path in model_folder.glob(f"*/{checkpoint_name}")}
    found = {name: found[name] for name in sorted(found) if name.startswith("fold_")}
    wanted = list(found) if folds is None else [f"fold_{fold}" for fold in dict.fromkeys(folds)]
    missing = [name for name in wanted if name not in found]
    if missing or not wanted:
        where = ", ".join(missing) or "any fold"
        there = ", ".join(str(p.relative_to(model_folder)) for p in _checkpoints(model_folder))
        raise DataError(
            f"{model_folder} has no {checkpoint_name} in {where}: finish the training, or name "
            f"another file with -chk{f' (there is {there})' if there else ''}."
        )
    if folds is None and len(wanted) > 1:
        names = [name.removeprefix("fold_") for name in wanted]
        raise DataError(
            f"{model_folder} has the folds {', '.join(names)}; choose with -f, one or several: "
            f"-f {' '.join(names)}."
        )
    return [found[name] for name in wanted]


def _checkpoints(model_folder: Path) -> list[Path]:
    return sorted(model_folder.glob("fold_*/checkpoint_*.pth"))


def load_model(
    folds: Path | Sequence[Path],
    checkpoint_name: str = FINAL_CHECKPOINT,
    *,
    device: str = "cpu",
    mirroring: bool = True,
) -> TrainedModel:
    """Load folds as nnUNetv2_predict does, and the second branch if the checkpoints have one.

    Args:
        folds: a folder from `find_folds`, or several of one model, whose logits are averaged.
        checkpoint_name: file name of the checkpoint.
        device: "cpu", "cuda" or "mps".
        mirroring: average over mirrored images where the training allowed it.

    Raises:
        DataError: a checkpoint is unreadable or has NaN in it, its trainer or the device cannot be
            found, or the folds differ in what they predict with.
    """
    check_device(device)
    folders = [folds] if isinstance(folds, Path) else list(folds)
    loaded = [_load_fold(folder, checkpoint_name) for folder in folders]
    first = loaded[0]
    for folder, fold in zip(folders, loaded, strict=True):
        _check_alike((folders[0], first), (folder, fold), mirroring)

    def predictor(branches: Sequence[nn.Module]) -> nnUNetPredictor:
        with contextlib.redirect_stdout(None):  # on a CPU it prints what only CUDA users can do
            made = nnUNetPredictor(
                use_mirroring=mirroring, device=torch.device(device), allow_tqdm=False
            )
        made.manual_initialization(
            branches[0],
            first.plans,
            first.plans.get_configuration(first.configuration),
            [_copied(branch.state_dict()) for branch in branches],
            first.dataset_json,
            first.trainer_name,
            first.mirror_axes,
        )
        return made

    seconds = [fold.second for fold in loaded if fold.second is not None]
    return TrainedModel(
        fold_folder=folders[0],
        trainer_name=first.trainer_name,
        main=predictor([fold.network for fold in loaded]),
        second=predictor(seconds) if seconds else None,
        second_name=first.second_name,
        settings=first.settings,
    )


def _copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy weights: a network whose own they are gets those of other folds, too."""
    return {key: value.clone() for key, value in weights.items()}


@dataclass(frozen=True)
class _Fold:
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


def _check_alike(first: tuple[Path, _Fold], other: tuple[Path, _Fold], mirroring: bool) -> None:
    """Raise DataError if two folds differ in what they predict with, and which they do not share.

    nnUNetv2_predict takes all of it from the first fold, and silently.
    """
    (folder, one), (other_folder, two) = first, other
    facts = {
        "trainer": (one.trainer_name, two.trainer_name),
        "configuration": (one.configuration, two.configuration),
        "second branch": (one.second_name or "none", two.second_name or "none"),
        "setting tau": (one.settings.get("tau"), two.settings.get("tau")),
    }
    if mirroring:
        facts["mirroring axes"] = (_axes(one.mirror_axes), _axes(two.mirror_axes))
    for what, (ours, theirs) in facts.items():
        if ours != theirs:
            raise DataError(
                f"{folder} and {other_folder.name} differ in the {what} ({ours}; {theirs}), so "
                "they do not predict together; choose folds with -f that agree."
            )


def _axes(allowed: Any) -> Any:
    return tuple(allowed) if isinstance(allowed, (list, tuple)) else allowed


def _load_fold(fold_folder: Path, checkpoint_name: str) -> _Fold:
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
    return _Fold(
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

"""A trained model with both branches: its folds, loaded, ready to predict a case together."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import Tensor, nn

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.inference.loaded_fold import LoadedFold, load_fold
from nnunetv2_spmc.inference.model_folders import FINAL_CHECKPOINT
from nnunetv2_spmc.raw.dataset_json import channel_names
from nnunetv2_spmc.training.devices import check_device


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
    loaded = [load_fold(folder, checkpoint_name) for folder in folders]
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


def _check_alike(
    first: tuple[Path, LoadedFold], other: tuple[Path, LoadedFold], mirroring: bool
) -> None:
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

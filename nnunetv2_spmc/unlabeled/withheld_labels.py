"""Patches of unlabeled cases with the labels that were withheld: to look at, never to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from torch import Tensor

from nnunetv2_spmc.raw.layout import LABELS_UNLABELED
from nnunetv2_spmc.raw.scan import check_scan
from nnunetv2_spmc.unlabeled.cases import raw_unlabeled_cases

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager


@dataclass(frozen=True)
class WithheldPatches:
    """One patch per case, around its foreground."""

    identifiers: tuple[str, ...]
    images: Tensor  # (cases, channels, ...) float32
    labels: Tensor  # (cases, ...) int64, as in the label files


def withheld_patches(
    dataset_folder: Path,
    identifiers: Sequence[str],
    number: int,
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    dataset_json: Mapping[str, Any],
) -> WithheldPatches | None:
    """Preprocess a few cases of imagesUn with their labels in labelsUn.

    Args:
        dataset_folder: the dataset in nnUNet_raw.
        identifiers: the unlabeled cases of the training.
        number: how many cases; always the same ones, spread over the sorted identifiers.
        plans_manager: the plans of the training.
        configuration_manager: the configuration of the training.
        dataset_json: the dataset.json of the training.

    Returns:
        The patches, or None where no label was withheld.

    Raises:
        DataError: an image or a label is damaged.
    """
    ending = dataset_json["file_ending"]
    label_of = {i: dataset_folder / LABELS_UNLABELED / f"{i}{ending}" for i in sorted(identifiers)}
    known = [identifier for identifier, file in label_of.items() if file.is_file()]
    if not known or number < 1:
        return None
    chosen = [known[i] for i in np.linspace(0, len(known) - 1, min(number, len(known))).astype(int)]
    channels = len(dataset_json.get("channel_names") or dataset_json["modality"])
    files = raw_unlabeled_cases(dataset_folder, ending, channels)
    preprocessor = configuration_manager.preprocessor_class(verbose=False)
    patches = []
    for identifier in chosen:
        for file in (*files[identifier], str(label_of[identifier])):
            check_scan(Path(file), kind="label")
        image, labels, _ = preprocessor.run_case(
            files[identifier],
            str(label_of[identifier]),
            plans_manager,
            configuration_manager,
            dict(dataset_json),
        )
        ignore_label = dataset_json["labels"].get("ignore")
        foreground = (labels[0] > 0) & (labels[0] != ignore_label)
        patches.append(
            _patch_around(foreground, image, labels[0], configuration_manager.patch_size)
        )
    images, targets = zip(*patches, strict=True)
    return WithheldPatches(tuple(chosen), torch.stack(images), torch.stack(targets))


def _patch_around(
    foreground: np.ndarray, image: np.ndarray, labels: np.ndarray, patch_size: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Cut out the patch around the foreground's center; in 2D the slice with most of it."""
    if len(patch_size) == 2:
        position = int(foreground.sum(axis=(1, 2)).argmax())
        image, labels, foreground = image[:, position], labels[position], foreground[position]
    voxels = np.argwhere(foreground)
    center = voxels.mean(axis=0) if len(voxels) else np.array(labels.shape) / 2
    starts = [round(c) - size // 2 for c, size in zip(center, patch_size, strict=True)]
    box = [[start, start + size] for start, size in zip(starts, patch_size, strict=True)]
    patch = torch.from_numpy(crop_and_pad_nd(image, box, 0)).float()
    target = torch.from_numpy(crop_and_pad_nd(labels[None], box, 0)[0]).long()
    return patch, target.clamp(min=0)  # nnU-Net writes -1 outside of the nonzero region

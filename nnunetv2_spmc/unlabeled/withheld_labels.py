"""Patches of unlabeled cases with the labels that were withheld: to look at, never to train on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from torch import Tensor

from nnunetv2_spmc.common.errors import DataError, reason_of
from nnunetv2_spmc.raw.dataset_json import channel_names
from nnunetv2_spmc.raw.layout import LABELS_UNLABELED
from nnunetv2_spmc.raw.scan import check_scan
from nnunetv2_spmc.unlabeled.raw_images import raw_unlabeled_cases

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
    log: Callable[[str], None],
) -> WithheldPatches | None:
    """Preprocess a few cases of imagesUn with their labels in labelsUn; leave out damaged ones.

    Args:
        dataset_folder: the dataset in nnUNet_raw.
        identifiers: the unlabeled cases of the training.
        number: how many cases; always the same ones, spread over the sorted identifiers.
        plans_manager: the plans of the training.
        configuration_manager: the configuration of the training.
        dataset_json: the dataset.json of the training.
        log: receives a line for each case of them that cannot be used.

    Returns:
        The patches, or None where no label was withheld.
    """
    ending = dataset_json["file_ending"]
    label_of = {i: dataset_folder / LABELS_UNLABELED / f"{i}{ending}" for i in sorted(identifiers)}
    known = [identifier for identifier, file in label_of.items() if os.path.lexists(file)]
    if not known or number < 1:
        return None
    chosen = [known[i] for i in np.linspace(0, len(known) - 1, min(number, len(known))).astype(int)]
    files = raw_unlabeled_cases(dataset_folder, ending, channel_names(dataset_json)).cases
    patches = {}
    for identifier in chosen:
        try:
            patches[identifier] = _patch_of(
                files[identifier],
                label_of[identifier],
                plans_manager,
                configuration_manager,
                dataset_json,
            )
        except Exception as error:  # readers raise all kinds
            what = str(error) if isinstance(error, DataError) else reason_of(error)
            log(f"No pseudo-label Dice on {identifier}, because of {label_of[identifier]}: {what}")
    if not patches:
        return None
    images, targets = zip(*patches.values(), strict=True)
    return WithheldPatches(tuple(patches), torch.stack(images), torch.stack(targets))


def _patch_of(
    images: Sequence[str],
    label: Path,
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    dataset_json: Mapping[str, Any],
) -> tuple[Tensor, Tensor]:
    """Check, read and preprocess a case with its label, and cut out a patch of both."""
    for file in images:
        check_scan(Path(file))
    check_scan(label, kind="label")
    preprocessor = configuration_manager.preprocessor_class(verbose=False)
    image, labels, _ = preprocessor.run_case(
        list(images), str(label), plans_manager, configuration_manager, dict(dataset_json)
    )
    ignore_label = dataset_json["labels"].get("ignore")
    foreground = (labels[0] > 0) & (labels[0] != ignore_label)
    return _patch_around(foreground, image, labels[0], configuration_manager.patch_size)


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

"""Labeled and unlabeled patches of a training step, drawn together in one worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.utilities.label_handling.label_handling import LabelManager

WORKERS_VARIABLE = "nnUNet_n_proc_DA"


class UnlabeledDataLoader(nnUNetDataLoader):
    """nnU-Net's loader on unlabeled cases: uniform patch positions, the same transforms.

    Patches are never foreground-oversampled: where the foreground lies is what nobody knows here.

    Args:
        data: the preprocessed unlabeled cases.
        batch_size: patches per step.
        labeled: the loader of the labeled cases, whose patch sizes and transforms are taken over.
        label_manager: the label manager of the plans.
    """

    def __init__(
        self,
        data: nnUNetBaseDataset,
        batch_size: int,
        labeled: nnUNetDataLoader,
        label_manager: LabelManager,
    ) -> None:
        first_axis = 1 if labeled.patch_size_was_2d else 0  # 2D patches are kept as (1, y, x)
        super().__init__(
            data,
            batch_size,
            labeled.patch_size[first_axis:],
            labeled.final_patch_size[first_axis:],
            label_manager,
            oversample_foreground_percent=0.0,
            transforms=labeled.transforms,
        )
        # with an ignore label nnU-Net centers patches on annotated voxels: there are none here
        self.has_ignore = False

    def generate_train_batch(self) -> dict[str, Any]:
        """Draw a batch without target: "data" (B, channels, ...) float32 and the case "keys"."""
        batch = super().generate_train_batch()
        return {"data": batch["data"], "keys": batch["keys"]}


class PairedDataLoader:
    """One item = one labeled batch and, under "unlabeled", one unlabeled batch.

    Both are made by the same worker, so the number of worker processes stays what
    nnUNet_n_proc_DA says. Instances are picklable, for workers that are spawned.

    Args:
        labeled: nnU-Net's loader of the labeled training cases.
        unlabeled: the loader of the unlabeled cases.
    """

    def __init__(self, labeled: nnUNetDataLoader, unlabeled: UnlabeledDataLoader) -> None:
        self.labeled = labeled
        self.unlabeled = unlabeled

    def set_thread_id(self, thread_id: int) -> None:
        """Pass the number of the worker on, as batchgenerators' workers do."""
        self.labeled.set_thread_id(thread_id)
        self.unlabeled.set_thread_id(thread_id)

    def __iter__(self) -> PairedDataLoader:
        return self

    def __next__(self) -> dict[str, Any]:
        batch = next(self.labeled)
        batch["unlabeled"] = next(self.unlabeled)
        return batch


@contextmanager
def single_process_loading() -> Iterator[None]:
    """Let nnU-Net build its loaders without starting workers on them.

    Inside, nnUNetTrainer.get_dataloaders returns SingleThreadedAugmenters, whose `data_loader` can
    be wrapped before the real workers are started.
    """
    before = os.environ.get(WORKERS_VARIABLE)
    os.environ[WORKERS_VARIABLE] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[WORKERS_VARIABLE]
        else:
            os.environ[WORKERS_VARIABLE] = before

"""Labeled and unlabeled patches of a training step, drawn together in one worker."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor

WORKERS_VARIABLE = "nnUNet_n_proc_DA"


def ignored_voxels(target: Tensor, label_manager: LabelManager) -> Tensor:
    """Return where a target at full resolution is under the ignore label, which must exist.

    Args:
        target: (B, 1, ...) labels; with regions (B, R + 1, ...), the last marks ignored voxels.
        label_manager: the label manager of the plans.

    Returns:
        Bool, (B, 1, ...).
    """
    if label_manager.has_regions:
        return target[:, -1:] != 0
    return target == label_manager.ignore_label


class JoinedDataset:
    """Several of nnU-Net's datasets as one; of cases of the same name the last one counts."""

    def __init__(self, datasets: Sequence[nnUNetBaseDataset]) -> None:
        self.dataset_of = {name: dataset for dataset in datasets for name in dataset.identifiers}
        self.identifiers = list(self.dataset_of)

    def load_case(self, identifier: str) -> Any:
        """Load a case from the dataset that has it."""
        return self.dataset_of[identifier].load_case(identifier)


class UnlabeledDataLoader(nnUNetDataLoader):
    """nnU-Net's loader on unlabeled cases: uniform patch positions, the same transforms.

    Patches are never foreground-oversampled: where the foreground lies is what nobody knows here.

    Args:
        data: the preprocessed unlabeled cases, None if there are none.
        batch_size: patches per step.
        labeled: the loader of the labeled cases, whose patch sizes and transforms are taken over.
        label_manager: the label manager of the plans.
        sparse: labeled cases whose voxels under the ignore label are unlabeled: they are drawn like
            the others. nnU-Net's labeled patches lie around annotated voxels, and would never show
            the slices that nobody annotated.
    """

    def __init__(
        self,
        data: nnUNetBaseDataset | None,
        batch_size: int,
        labeled: nnUNetDataLoader,
        label_manager: LabelManager,
        sparse: nnUNetBaseDataset | None = None,
    ) -> None:
        self.label_manager = label_manager
        self.unlabeled_cases = set() if data is None else set(data.identifiers)
        self.is_mixed = sparse is not None
        data = JoinedDataset([dataset for dataset in (data, sparse) if dataset is not None])
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
        """Draw a batch without target: "data" (B, channels, ...) float32 and the case "keys".

        With sparsely annotated cases also "unlabeled_voxels", bool (B, 1, ...).
        """
        batch = super().generate_train_batch()
        drawn = {"data": batch["data"], "keys": batch["keys"]}
        if self.is_mixed:
            target = batch["target"]
            target = target[0] if isinstance(target, list) else target
            unlabeled = ignored_voxels(target, self.label_manager)
            for patch, key in zip(unlabeled, batch["keys"], strict=True):
                if key in self.unlabeled_cases:
                    patch[:] = True
            drawn["unlabeled_voxels"] = unlabeled
        return drawn


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


def started(
    loader: Any, seeds: Sequence[int], num_cached: int, pin_memory: bool
) -> SingleThreadedAugmenter | NonDetMultiThreadedAugmenter:
    """Start workers on a loader, as nnU-Net does.

    Args:
        loader: a labeled or a paired loader.
        seeds: one per worker process; without any the loader works in this process.
        num_cached: how many batches may wait.
        pin_memory: put them into memory from which a GPU can copy.

    Raises:
        RuntimeError: the first batch failed, so that errors come before training.
    """
    if not seeds:
        augmenter = SingleThreadedAugmenter(loader, None)
    else:
        augmenter = NonDetMultiThreadedAugmenter(
            loader,
            None,
            num_processes=len(seeds),
            num_cached=num_cached,
            seeds=list(seeds),
            pin_memory=pin_memory,
            wait_time=0.002,
        )
    next(augmenter)
    return augmenter

"""Labeled and unlabeled patches of a training step, drawn together in one worker."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.signals import signals_deferred
from nnunetv2_spmc.loading.image_transforms import image_transforms
from nnunetv2_spmc.loading.two_views import two_views
from nnunetv2_spmc.loading.watched import InThisProcess, Workers, why_unreadable

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


def ignored_shares(dataset: nnUNetBaseDataset, ignore_label: int) -> dict[str, float]:
    """Return the preprocessed cases with voxels under the ignore label, and their share."""
    shares = {}
    for name in dataset.identifiers:
        _, segmentation, *_ = dataset.load_case(name)
        shares[name] = float(np.mean(segmentation[:] == ignore_label))
    return {name: share for name, share in shares.items() if share > 0}


class JoinedDataset:
    """Cases of several of nnU-Net's datasets; of those of the same name the last one counts.

    Args:
        identifiers: the cases.
        datasets: the datasets that have them.
        segmentations: load them; without, they have no channel.
    """

    def __init__(
        self,
        identifiers: Sequence[str],
        datasets: Sequence[nnUNetBaseDataset],
        *,
        segmentations: bool = True,
    ) -> None:
        self.dataset_of = {name: dataset for dataset in datasets for name in dataset.identifiers}
        # an array: nnU-Net's loader draws from it at each step, and would convert a list each time
        self.identifiers = np.array(identifiers)
        self.segmentations = segmentations
        self.last = ""  # that was loaded, or could not be

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Load a case from the dataset that has it."""
        self.last = str(identifier)
        image, segmentation, *others = self.dataset_of[identifier].load_case(identifier)
        if not self.segmentations:
            segmentation = np.empty((0, *image.shape[1:]), np.int8)
        return (image, segmentation, *others)


class UnlabeledDataLoader(nnUNetDataLoader):
    """nnU-Net's loader on unlabeled cases: uniform patch positions, the same transforms.

    Patches are never foreground-oversampled: where the foreground lies is what nobody knows here.
    Segmentations are loaded and transformed only where the images depend on them.

    Args:
        data: the preprocessed unlabeled cases, None if there are none.
        batch_size: patches per step.
        labeled: the loader of the labeled cases, whose patch sizes and transforms are taken over.
        label_manager: the label manager of the plans.
        ignored_shares: labeled cases -> share of their voxels under the ignore label. These are
            unlabeled voxels, so the cases are drawn too, less often the smaller the share: nnU-Net
            puts labeled patches around annotated voxels, never where nobody annotated.
        weak_view: give each patch a second time, of the same place and orientation but without
            intensity augmentation.
    """

    def __init__(
        self,
        data: nnUNetBaseDataset | None,
        batch_size: int,
        labeled: nnUNetDataLoader,
        label_manager: LabelManager,
        ignored_shares: Mapping[str, float] | None = None,
        weak_view: bool = False,
    ) -> None:
        self.label_manager = label_manager
        self.has_weak_view = weak_view
        shares = dict(ignored_shares or {})
        self.is_mixed = bool(shares)
        cases = [] if data is None else data.identifiers
        self.unlabeled_cases = {name for name in cases if name not in shares}
        self.unreadable: dict[str, str] = {}  # unlabeled cases that are left out -> why
        images_alone = None if self.is_mixed else image_transforms(labeled.transforms)
        datasets = [dataset for dataset in (data, labeled._data) if dataset is not None]
        joined = JoinedDataset(
            [*sorted(self.unlabeled_cases), *shares],
            datasets if self.is_mixed else datasets[:1],
            segmentations=images_alone is None,
        )
        transforms = labeled.transforms if images_alone is None else images_alone
        probabilities = np.array([shares.get(name, 1.0) for name in joined.identifiers])
        first_axis = 1 if labeled.patch_size_was_2d else 0  # 2D patches are kept as (1, y, x)
        self.indices: Any  # of nnU-Net's loader, which draws from them with these probabilities
        self.sampling_probabilities: Any
        super().__init__(
            joined,
            batch_size,
            labeled.patch_size[first_axis:],
            labeled.final_patch_size[first_axis:],
            label_manager,
            oversample_foreground_percent=0.0,
            sampling_probabilities=probabilities / probabilities.sum() if self.is_mixed else None,
            transforms=two_views(transforms) if weak_view else transforms,
        )
        # with an ignore label nnU-Net centers patches on annotated voxels: there are none here
        self.has_ignore = False

    def generate_train_batch(self) -> dict[str, Any]:
        """Draw a batch without target: "data" (B, channels, ...) float32 and the case "keys".

        With a weak view also "weak", of the shape of "data"; with sparsely annotated cases also
        "valid", bool (B, 1, ...); after unlabeled cases that could not be read also "unreadable",
        which of them and why. These are drawn no more.
        """
        batch = self._readable_batch()
        drawn = {"data": batch["data"], "keys": batch["keys"]}
        if self.has_weak_view:
            views = batch["data"].chunk(2, dim=1)
            drawn["data"], drawn["weak"] = (view.contiguous() for view in views)
        if self.is_mixed:
            target = batch["target"]
            target = target[0] if isinstance(target, list) else target
            unlabeled = ignored_voxels(target, self.label_manager)
            for patch, key in zip(unlabeled, batch["keys"], strict=True):
                if key in self.unlabeled_cases:
                    patch[:] = True
            drawn["valid"] = unlabeled
        if self.unreadable:
            drawn["unreadable"] = dict(self.unreadable)
        return drawn

    def _readable_batch(self) -> dict[str, Any]:
        while True:
            try:
                batch: dict[str, Any] = super().generate_train_batch()
                return batch
            except Exception as error:  # damaged files raise anything
                name = self._data.last
                reason = why_unreadable(self._data, name) if name in self.unlabeled_cases else None
                if reason is None:
                    raise
                self.unreadable[name] = reason
                self._leave_out(name, error)

    def _leave_out(self, name: str, error: Exception) -> None:
        kept = self.indices != name
        if not kept.any():
            reason = self.unreadable[name]
            raise DataError(f"No unlabeled case can be read; {name}: {reason}.") from error
        self.indices = self.indices[kept]
        if self.sampling_probabilities is not None:
            left = self.sampling_probabilities[kept]
            self.sampling_probabilities = left / left.sum()


class PairedDataLoader:
    """One item = one labeled batch and, in every Nth item, one unlabeled batch ("unlabeled").

    Both are made by the same worker, so the number of worker processes stays what
    nnUNet_n_proc_DA says. Instances are picklable, for workers that are spawned.

    Args:
        labeled: nnU-Net's loader of the labeled training cases.
        unlabeled: the loader of the unlabeled cases.
        every: N. Each worker counts its own items, and its first one has both.
    """

    def __init__(
        self, labeled: nnUNetDataLoader, unlabeled: UnlabeledDataLoader, every: int = 1
    ) -> None:
        self.labeled = labeled
        self.unlabeled = unlabeled
        self.every = every
        self.number = 0  # of the coming item

    def set_thread_id(self, thread_id: int) -> None:
        """Pass the number of the worker on, as batchgenerators' workers do."""
        self.labeled.set_thread_id(thread_id)
        self.unlabeled.set_thread_id(thread_id)

    def __iter__(self) -> PairedDataLoader:
        return self

    def __next__(self) -> dict[str, Any]:
        batch = next(self.labeled)
        if self.number % self.every == 0:
            batch["unlabeled"] = next(self.unlabeled)
        self.number += 1
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
    loader: Any, seeds: Sequence[int | None], num_cached: int, pin_memory: bool
) -> tuple[InThisProcess | Workers, dict[str, Any]]:
    """Start workers on a loader, as nnU-Net does.

    Args:
        loader: a labeled or a paired loader.
        seeds: one per worker process; without any the loader works in this process.
        num_cached: how many batches may wait.
        pin_memory: put them into memory from which a GPU can copy.

    Returns:
        What gives the batches, and the first one, which is drawn so that errors come before
        training.

    Raises:
        RuntimeError: the first batch failed.
        DataError: a labeled case of it cannot be read.
    """
    augmenter: InThisProcess | Workers
    if not seeds:
        augmenter = InThisProcess(loader, None)
    else:
        options = {"num_cached": num_cached, "pin_memory": pin_memory, "wait_time": 0.002}
        augmenter = Workers(loader, seeds, **options)
        with signals_deferred():  # a worker that is forked but not yet noted would be left behind
            augmenter._start()
    return augmenter, next(augmenter)

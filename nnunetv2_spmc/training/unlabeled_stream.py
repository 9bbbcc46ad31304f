"""The stream of unlabeled patches beside nnU-Net's labeled ones."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import distributed as dist

from nnunetv2_spmc.data.errors import DataError
from nnunetv2_spmc.data.leak_checks import check_no_leak, read_groups
from nnunetv2_spmc.data.paired_loader import (
    PairedDataLoader,
    UnlabeledDataLoader,
    ignored_shares,
    single_process_loading,
    started,
)
from nnunetv2_spmc.data.raw_layout import IMAGES_UNLABELED
from nnunetv2_spmc.data.unlabeled_cases import raw_dataset_folder, test_cases, unlabeled_folder
from nnunetv2_spmc.data.unlabeled_preprocessing import ensure_unlabeled_preprocessed
from nnunetv2_spmc.training.checkpoint import refuse_to_resume
from nnunetv2_spmc.training.scheduled import nnUNetTrainerScheduled
from nnunetv2_spmc.training.settings import SemiSupervisedSettings, require


class nnUNetTrainerUnlabeledStream(nnUNetTrainerScheduled):
    """nnU-Net's trainer whose training batches hold unlabeled patches too, under "unlabeled"."""

    default_settings: ClassVar[SemiSupervisedSettings] = SemiSupervisedSettings()

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        # refuse before nnU-Net creates the output folder
        if PlansManager(plans).get_configuration(configuration).previous_stage_name is not None:
            raise NotImplementedError(
                f"{type(self).__name__} cannot train the configuration {configuration}: unlabeled "
                "cases have no segmentation of the previous stage; use 3d_fullres or 3d_lowres."
            )
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.unlabeled_cases: list[str] = []

    @property
    def uses_unlabeled_data(self) -> bool:
        """Whether there are unsupervised terms, so that unlabeled cases are looked for."""
        return self.settings.lambda_max > 0

    @property
    def learns_from_ignored(self) -> bool:
        """Whether voxels under the ignore label of labeled cases count as unlabeled ones."""
        return (
            self.uses_unlabeled_data
            and self.settings.learn_from_ignored
            and self.label_manager.has_ignore_label
        )

    @property
    def needs_weak_view(self) -> bool:
        """Whether unlabeled patches come without intensity augmentation too, under "weak"."""
        return False

    def on_train_start(self) -> None:
        """Find the unlabeled cases, which a resumed run must share, before data is loaded."""
        self.check_resumed_settings()
        if self.uses_unlabeled_data:
            self.unlabeled_cases = self._find_unlabeled_cases()
        self._check_resumed_cases()
        super().on_train_start()
        if self.uses_unlabeled_data:
            self.print_to_log_file(
                f"Each step: {self.batch_size} labeled and {self._unlabeled_batch_size()} "
                f"unlabeled patches; {len(self.unlabeled_cases)} unlabeled cases."
            )

    def _find_unlabeled_cases(self) -> list[str]:
        return ensure_unlabeled_preprocessed(
            self.plans_manager.dataset_name,
            self.plans_manager,
            self.configuration_name,
            self.dataset_json,
            self.preprocessed_dataset_folder,
            allowed_to_run=not self.is_ddp,
            log=self.print_to_log_file,
            num_processes=max(1, get_allowed_n_proc_DA()),
            allow_overlap=self.settings.allow_overlap,
            required=not self.learns_from_ignored,
        )

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """Split the labeled cases as nnU-Net does; refuse unlabeled ones that leak into them."""
        train, validation = super().get_tr_and_val_datasets()
        if self.unlabeled_cases:
            raw = raw_dataset_folder(self.plans_manager.dataset_name)
            if raw is None:
                self.print_to_log_file(
                    "nnUNet_raw has no such dataset: unlabeled cases are not compared with test "
                    "cases, nor with the patients of validation cases."
                )
            check_no_leak(
                labeled=self.dataset_class.get_identifiers(self.preprocessed_dataset_folder),
                unlabeled=self.unlabeled_cases,
                validation=[] if self.fold == "all" else validation.identifiers,
                test=test_cases(raw, self.dataset_json["file_ending"]) if raw else [],
                groups=read_groups(raw) if raw else None,
                allow_overlap=self.settings.allow_overlap,
                log=self.print_to_log_file,
            )
        return train, validation

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Pair nnU-Net's labeled loader with an unlabeled one, then start workers on the pair."""
        with single_process_loading():
            augmenters = super().get_dataloaders()
        train, validation = (augmenter.data_loader for augmenter in augmenters)
        shares = self._ignored_shares(train._data) if self.learns_from_ignored else {}
        if self.unlabeled_cases or shares:
            unlabeled = UnlabeledDataLoader(
                self._unlabeled_dataset(),
                self._unlabeled_batch_size(),
                train,
                self.label_manager,
                shares,
                weak_view=self.needs_weak_view,
            )
            train = PairedDataLoader(train, unlabeled)
        # mirrors the end of nnUNetTrainer.get_dataloaders (nnunetv2 2.8.1); differs in the seeds
        workers = get_allowed_n_proc_DA()
        validation_workers = min(workers, max(1, workers // 2))
        pin_memory = self.device.type == "cuda"
        return (
            started(train, self._worker_seeds(0, workers), max(6, workers // 2), pin_memory),
            started(
                validation,
                self._worker_seeds(1, validation_workers),
                max(3, workers // 4),
                pin_memory,
            ),
        )

    def _ignored_shares(self, labeled: Any) -> dict[str, float]:
        shares = ignored_shares(labeled, self.label_manager.ignore_label)
        if not shares and not self.unlabeled_cases:
            raise DataError(
                f"Nothing is unlabeled in {self.plans_manager.dataset_name}: no training case has "
                f"voxels under the ignore label, and there is no {IMAGES_UNLABELED}; put unlabeled "
                "scans there, or train with nnUNetTrainer."
            )
        self.print_to_log_file(
            f"{len(shares)} of {len(labeled.identifiers)} training cases have voxels under the "
            "ignore label; these are used as unlabeled ones."
        )
        return shares

    def _worker_seeds(self, stream: int, workers: int) -> list[int]:
        sequence = self.seed_sequence(2, self.local_rank, self.current_epoch, stream)
        return [int(seed) for seed in sequence.generate_state(workers)]

    def _unlabeled_dataset(self) -> Any:
        if not self.unlabeled_cases:
            return None
        folder = str(unlabeled_folder(self.preprocessed_dataset_folder))
        return infer_dataset_class(folder)(folder, list(self.unlabeled_cases))

    def _unlabeled_batch_size(self) -> int:
        requested = self.settings.unlabeled_batch_size
        if requested is None:
            return self.batch_size
        if not self.is_ddp:
            return requested
        world_size, rank = dist.get_world_size(), dist.get_rank()
        expected = f"at least 1 per GPU, so {world_size}"
        require(requested >= world_size, "unlabeled_batch_size", requested, expected)
        return requested // world_size + (rank < requested % world_size)

    def _check_resumed_cases(self) -> None:
        if self._resumed_from is None:
            return
        before, now = set(self._resumed_from["unlabeled_cases"]), set(self.unlabeled_cases)
        if before != now:
            refuse_to_resume(
                f"unlabeled cases: {len(before - now)} gone, {len(now - before)} new, such as "
                f"{min(before ^ now)}",
                self.print_to_log_file,
            )

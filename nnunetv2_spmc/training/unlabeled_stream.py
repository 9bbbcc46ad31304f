"""The stream of unlabeled patches, in addition to nnU-Net's labeled ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetBaseDataset
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import distributed as dist

from nnunetv2_spmc.common.errors import DataError, UnsupportedError
from nnunetv2_spmc.common.nnunet_folders import raw_dataset_folder
from nnunetv2_spmc.common.setting_checks import require
from nnunetv2_spmc.loading.case_files import reading_as_data
from nnunetv2_spmc.loading.early_patches import EarlyPatches
from nnunetv2_spmc.loading.paired_loader import (
    PairedDataLoader,
    UnlabeledDataLoader,
    ignored_shares,
    started,
)
from nnunetv2_spmc.loading.watched import InThisProcess, WatchedDataset, Workers, cases_named
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.raw.layout import IMAGES_TEST, IMAGES_UNLABELED, OVERLAP_KEY
from nnunetv2_spmc.training.commands import labeled_preprocessing
from nnunetv2_spmc.training.expectations import warnings_of
from nnunetv2_spmc.unlabeled.cases import describe_failures, unlabeled_folder
from nnunetv2_spmc.unlabeled.dataset_cases import annotated_since
from nnunetv2_spmc.unlabeled.leak_checks import current_record, warn_of_lookalikes
from nnunetv2_spmc.unlabeled.overlap import check_contents, check_no_leak, check_validated
from nnunetv2_spmc.unlabeled.plans_check import plans_file_name
from nnunetv2_spmc.unlabeled.preprocessing import PreprocessingOptions
from nnunetv2_spmc.unlabeled.target import UnlabeledTarget
from nnunetv2_spmc.unlabeled.training_cases import ensure_unlabeled_preprocessed

if TYPE_CHECKING:
    from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised

Loader: TypeAlias = nnUNetDataLoader | PairedDataLoader
Augmenter: TypeAlias = InThisProcess | Workers
MOST_UNREADABLE = 0.05  # share of the unlabeled cases


def refuse_cascade(plans: dict[str, Any], configuration: str, trainer_name: str) -> None:
    """Raise UnsupportedError if a configuration needs a segmentation of a previous stage."""
    if PlansManager(plans).get_configuration(configuration).previous_stage_name is not None:
        raise UnsupportedError(
            f"{trainer_name} cannot train the configuration {configuration}: unlabeled cases have "
            "no segmentation of the previous stage; use 3d_fullres or 3d_lowres."
        )


class UnlabeledStream:
    """The unlabeled cases of a training, and the loader that pairs their patches with labeled ones.

    Args:
        trainer: whose plans, settings and log it takes.
    """

    def __init__(self, trainer: nnUNetTrainerSemiSupervised) -> None:
        self.trainer = trainer
        self.cases: list[str] = []
        self.annotated: set[str] = set()  # since the run to continue was started
        self.overlap = ""  # what is shared with evaluated cases, where that is allowed
        self.unreadable: dict[str, str] = {}  # those that turned out so -> why
        self.pairs: PairedDataLoader | None = None  # -> paired
        self.early = EarlyPatches(trainer.settings.unlabeled_every)

    @property
    def target(self) -> UnlabeledTarget:
        """The dataset and the configuration that are trained on."""
        trainer = self.trainer
        plans, folder = trainer.plans_manager, Path(trainer.preprocessed_dataset_folder_base)
        return UnlabeledTarget(
            plans.dataset_name,
            plans,
            trainer.configuration_name,
            trainer.dataset_json,
            folder,
            plans_file_name(folder, plans.plans),
        )

    def check_labeled_cases(self) -> None:
        """Refuse a configuration whose labeled cases are not preprocessed."""
        trainer = self.trainer
        if not Path(trainer.preprocessed_dataset_folder).is_dir():
            raise DataError(
                f"{trainer.plans_manager.dataset_name} is not preprocessed for "
                f"{trainer.configuration_name}: {trainer.preprocessed_dataset_folder} does not "
                f"exist; run {labeled_preprocessing(trainer)}."
            )

    def find_cases(self) -> None:
        """Find the unlabeled cases; preprocess what is missing."""
        trainer = self.trainer
        options = PreprocessingOptions(
            num_processes=max(1, get_allowed_n_proc_DA()),
            allow_overlap=trainer.settings.allow_overlap,
            log=trainer.print_to_log_file,
        )
        self.cases = ensure_unlabeled_preprocessed(
            self.target,
            options,
            allowed_to_run=not trainer.is_ddp,
            required=not trainer.learns_from_ignored,
        )

    def check_leaks(self, validation: list[str], train: list[str]) -> None:
        """Refuse unlabeled cases that are labeled, validation or test cases, too.

        Where the record of the scans shows that they may not help, say so.
        """
        trainer = self.trainer
        if not self.cases:
            return
        allowed, log = trainer.settings.allow_overlap, trainer.print_to_log_file
        validation = [] if trainer.fold == "all" else validation
        folder = Path(trainer.preprocessed_dataset_folder_base)
        record = current_record(
            trainer.plans_manager.dataset_name,
            trainer.dataset_json,
            folder,
            log,
            num_processes=get_allowed_n_proc_DA(),
        )
        found = [
            check_no_leak(
                labeled=trainer.dataset_class.get_identifiers(trainer.preprocessed_dataset_folder),
                unlabeled=self.cases,
                validation=validation,
                test=record.folders.get(IMAGES_TEST, ()),
                groups=record.groups,
                allow_overlap=allowed,
                log=log,
            ),
            check_contents(record, self.cases, allow_overlap=allowed, log=log),
            check_validated(
                self.annotated.intersection(validation), allow_overlap=allowed, log=log
            ),
        ]
        warn_of_lookalikes(folder, record, log)
        for warning in warnings_of(self.target, record, train, self.cases):
            log(f"WARNING: {warning}")
        self.overlap = "; ".join(filter(None, found))
        if not allowed:
            return
        if not self.overlap:
            log("Overlap allowed: no unlabeled case is a labeled, validation or test case.")
        # nnU-Net writes it next to the model, and from there next to every prediction
        trainer.dataset_json[OVERLAP_KEY] = self.overlap or "none found"

    def paired(self, labeled: nnUNetDataLoader) -> Loader:
        """Pair a labeled loader with one of unlabeled patches; itself if there are none."""
        trainer = self.trainer
        shares = self._ignored_shares(labeled._data) if trainer.learns_from_ignored else {}
        if not self.cases and not shares:
            return labeled
        unlabeled = UnlabeledDataLoader(
            self._dataset(),
            self.batch_size,
            labeled,
            trainer.label_manager,
            shares,
            weak_view=trainer.views.weak_to_strong,
        )
        self.pairs = PairedDataLoader(labeled, unlabeled, self.early.every)
        return self.pairs

    def start(self, train: Loader, validation: nnUNetDataLoader) -> tuple[Augmenter, Augmenter]:
        """Start workers on the loaders; mirrors the end of nnUNetTrainer.get_dataloaders (2.8.1).

        It differs in the seeds.
        """
        workers = get_allowed_n_proc_DA()
        validation_workers = min(workers, max(1, workers // 2))
        pin_memory = self.trainer.device.type == "cuda"
        seeds, validation_seeds = self._seeds(0, workers), self._seeds(1, validation_workers)
        training, first = started(train, seeds, max(6, workers // 2), pin_memory)
        cached = max(3, workers // 4)
        validating, _ = started(validation, validation_seeds, cached, pin_memory)
        self.early.keep(self._noted(first))
        return training, validating

    def start_epoch(self) -> None:
        """Let a loader in this process draw unlabeled patches in the steps that learn from them."""
        if self.pairs is not None:
            self.pairs.number = self.trainer.iteration

    def hand_out(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch of the coming step: unlabeled patches if it learns from some."""
        return self.early.hand_out(self._noted(batch), self.trainer.iteration)

    def _noted(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.note_unreadable(batch.get("unlabeled", {}).pop("unreadable", {}))
        return batch

    def _seeds(self, stream: int, workers: int) -> list[int]:
        trainer = self.trainer
        sequence = trainer.seeds.sequence(2, trainer.local_rank, trainer.current_epoch, stream)
        return [int(seed) for seed in sequence.generate_state(workers)]

    def _dataset(self) -> WatchedDataset | None:
        if not self.cases:
            return None
        folder = str(unlabeled_folder(self.trainer.preprocessed_dataset_folder))
        dataset = reading_as_data(infer_dataset_class(folder))(folder, list(self.cases))
        return WatchedDataset(dataset, "unlabeled", self._repair_command)

    @property
    def _repair_command(self) -> str:
        return f"{self.target.command} --verify"

    def note_unreadable(self, found: Mapping[str, str]) -> None:
        """Name unlabeled cases that a loader could not read, and left out.

        Raises:
            DataError: there are too many of them.
        """
        new = {name: why for name, why in found.items() if name not in self.unreadable}
        for name, reason in new.items():
            self.trainer.print_to_log_file(
                f"The unlabeled case {name} cannot be read ({reason}): it is left out from now on."
            )
        self.unreadable |= new
        if new and len(self.unreadable) > MOST_UNREADABLE * len(self.cases):
            raise DataError(f"{self.left_out()} That is more than {MOST_UNREADABLE:.0%} of them.")

    def left_out(self) -> str:
        """Say which unlabeled cases could not be read, and what to do; empty if all could."""
        if not self.unreadable:
            return ""
        return (
            f"{len(self.unreadable)} of {len(self.cases)} preprocessed unlabeled cases cannot be "
            f"read and were left out ({describe_failures(self.unreadable)}); make them again with "
            f"{self._repair_command}."
        )

    def _ignored_shares(self, labeled: nnUNetBaseDataset) -> dict[str, float]:
        trainer = self.trainer
        with cases_named():
            shares = ignored_shares(labeled, trainer.label_manager.ignore_label)
        if not shares and not self.cases:
            raise DataError(
                f"Nothing is unlabeled in {trainer.plans_manager.dataset_name}: no training case "
                f"has voxels under the ignore label, and there is no {IMAGES_UNLABELED}; put "
                "unlabeled scans there, or train with nnUNetTrainer."
            )
        trainer.print_to_log_file(
            f"{len(shares)} of {len(labeled.identifiers)} training cases have voxels under the "
            "ignore label; these are used as unlabeled ones."
        )
        return shares

    @property
    def batch_size(self) -> int:
        """Unlabeled patches of a step in this process."""
        requested = self.trainer.settings.unlabeled_batch_size
        if requested is None:
            return self.trainer.batch_size
        if not self.trainer.is_ddp:
            return requested
        world_size, rank = dist.get_world_size(), dist.get_rank()
        expected = f"at least 1 per GPU, so {world_size}"
        require(requested >= world_size, "unlabeled_batch_size", requested, expected)
        return requested // world_size + (rank < requested % world_size)

    def changes(self, before: list[str]) -> str:
        """Describe how the cases differ from those of a run to continue; empty if they do not.

        Those that were annotated since make no difference: that is what annotating is for.
        """
        then, now = set(before), set(self.cases)
        self.annotated = self._labeled_by_now(then - now)
        if self.annotated:
            self.trainer.print_to_log_file(
                "Going on without what was unlabeled and has a label now: "
                f"{name_some(sorted(self.annotated))}."
            )
        gone, new = then - now - self.annotated, now - then
        if not gone and not new:
            return ""
        return f"unlabeled cases: {len(gone)} gone, {len(new)} new, such as {min(gone | new)}"

    def _labeled_by_now(self, cases: set[str]) -> set[str]:
        trainer = self.trainer
        labeled = cases & set(
            trainer.dataset_class.get_identifiers(trainer.preprocessed_dataset_folder)
        )
        raw = raw_dataset_folder(trainer.plans_manager.dataset_name)
        if raw is not None:
            labeled |= set(annotated_since(raw, trainer.dataset_json, cases))
        return labeled

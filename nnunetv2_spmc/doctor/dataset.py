"""The dataset that the doctor looks at, raw, planned or both."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.nnunet_folders import (
    PREPROCESSED,
    RAW,
    find_dataset,
    folder_if_set,
    number_of,
    raw_dataset_folder,
)
from nnunetv2_spmc.common.worker_pool import Item, run_cases
from nnunetv2_spmc.raw.dataset_json import channel_names, read_dataset_json
from nnunetv2_spmc.raw.layout import DATASET_FILE, IMAGES_TRAIN, IMAGES_UNLABELED
from nnunetv2_spmc.raw.plans_json import read_plans
from nnunetv2_spmc.unlabeled.dataset_cases import annotated_since, labeled_cases
from nnunetv2_spmc.unlabeled.raw_images import ImageFolder, find_images
from nnunetv2_spmc.unlabeled.scan_record import FEW_SCANS, Cases
from nnunetv2_spmc.unlabeled.target import REMEDY, UnlabeledTarget, find_training_target


@dataclass(frozen=True)
class DatasetToCheck:
    """A dataset and how to look at it; its folders and plans are read once.

    Attributes:
        name: Of the dataset.
        raw: Its folder in nnUNet_raw, None where there is none.
        preprocessed: Its folder in nnUNet_preprocessed, None where it is not planned.
        dataset_json: Of the planned dataset, or else of the raw one.
        plans: What the plans are called.
        num_processes: Worker processes; 0 works in this process.
        show_progress: Show progress bars.
    """

    name: str
    raw: Path | None
    preprocessed: Path | None
    dataset_json: Mapping[str, Any]
    plans: str
    num_processes: int
    show_progress: bool

    @property
    def id(self) -> str:
        """What the commands are given."""
        return str(number_of(self.name))

    @property
    def channels(self) -> list[str]:
        """The names of the channels of a case."""
        return channel_names(self.dataset_json)

    @cached_property
    def images(self) -> ImageFolder | None:
        """The unlabeled scans, those with a label by now too; None without imagesUn."""
        if self.raw is None or not (self.raw / IMAGES_UNLABELED).is_dir():
            return None
        folder = self.raw / IMAGES_UNLABELED
        return find_images(folder, self.dataset_json["file_ending"], self.channels)

    @cached_property
    def annotated(self) -> list[str]:
        """The unlabeled scans that have a label by now."""
        images = self.images
        if self.raw is None or images is None:
            return []
        return annotated_since(self.raw, self.dataset_json, images.all_cases)

    @cached_property
    def labeled(self) -> Cases:
        """The labeled scans in nnUNet_raw; none where that is absent."""
        if self.raw is None or not (
            "dataset" in self.dataset_json or (self.raw / IMAGES_TRAIN).is_dir()
        ):
            return {}
        return labeled_cases(self.raw, self.dataset_json)

    @cached_property
    def plans_content(self) -> dict[str, Any]:
        """What is planned; nothing where no plans are."""
        if self.preprocessed is None:
            return {}
        return read_plans(self.preprocessed / f"{self.plans}.json", REMEDY)

    @property
    def configurations(self) -> list[str]:
        """The names of the planned configurations."""
        return list(self.plans_content.get("configurations", ()))

    @property
    def statistics(self) -> Mapping[str, Any]:
        """The intensities of labeled voxels, by channel, as the plans have them."""
        return dict(self.plans_content.get("foreground_intensity_properties_per_channel", {}))

    def target(self, configuration: str) -> UnlabeledTarget:
        """Return a planned configuration, or raise DataError."""
        target = find_training_target(self.name, configuration, self.plans)
        target.check()
        return target

    def in_workers(
        self, work: Callable[[Item], str | None], items: Sequence[Item], what: str
    ) -> list[str | None]:
        """Call `work` on each item; few of them in this process, as workers take time to start.

        Raises:
            DataError: a worker was killed.
        """
        processes = 0 if len(items) <= FEW_SCANS else self.num_processes
        hidden = not (self.show_progress and items)
        try:
            with tqdm(total=len(items), desc=what, disable=hidden) as progress:
                return run_cases(work, items, processes, progress)
        except (BrokenProcessPool, MemoryError):
            raise DataError(
                f"{what}: a worker process was killed, usually a sign of too little memory; run it "
                "again with fewer processes (-np)."
            ) from None


def open_dataset(
    name_or_id: str, plans: str, *, num_processes: int = 0, show_progress: bool = False
) -> DatasetToCheck:
    """Find a dataset by its name or id, planned or not.

    Raises:
        DataError: there is none, or its dataset.json cannot be read.
    """
    roots = [r for r in map(folder_if_set, (PREPROCESSED, RAW)) if r is not None and r.is_dir()]
    if not roots:
        raise DataError(f"Neither {RAW} nor {PREPROCESSED} is set to a folder.")
    name = _name(name_or_id, roots)
    raw, planned = raw_dataset_folder(name), roots[0] / name
    is_planned = folder_if_set(PREPROCESSED) == roots[0] and os.path.lexists(planned / DATASET_FILE)
    folder = planned if is_planned or raw is None else raw
    return DatasetToCheck(
        name,
        raw,
        planned if is_planned else None,
        read_dataset_json(folder / DATASET_FILE, REMEDY),
        plans,
        num_processes,
        show_progress,
    )


def _name(name_or_id: str, roots: Sequence[Path]) -> str:
    for root in roots[:-1]:
        try:
            return find_dataset(name_or_id, root)
        except DataError:
            continue
    return find_dataset(name_or_id, roots[-1])

"""Find what a preprocessing run works on: the dataset's folders, its plans, its configuration."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.nnunet_folders import (
    find_dataset,
    number_of,
    preprocessed_folder,
    raw_dataset_folder,
    raw_folder,
    refuse_path,
)
from nnunetv2_spmc.raw.dataset_json import channel_names, read_dataset_json
from nnunetv2_spmc.raw.layout import IMAGES_UNLABELED
from nnunetv2_spmc.raw.plans_json import check_channels, check_classes, read_plans
from nnunetv2_spmc.unlabeled.cases import unlabeled_folder
from nnunetv2_spmc.unlabeled.raw_images import ImageFolder, raw_unlabeled_cases

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager


@dataclass(frozen=True)
class UnlabeledTarget:
    """The unlabeled cases of a dataset in one configuration of its plans."""

    dataset_name: str
    plans_manager: PlansManager
    configuration_name: str
    dataset_json: dict[str, Any]
    preprocessed_dataset: Path  # in nnUNet_preprocessed
    plans_file_name: str = ""  # without .json; the plans' own name where empty

    @property
    def plans_identifier(self) -> str:
        """What the plans are asked for by: their file's name, which may not be their own."""
        return self.plans_file_name or self.plans_manager.plans_name

    @property
    def plans_file(self) -> Path:
        """The file of the plans."""
        return self.preprocessed_dataset / f"{self.plans_identifier}.json"

    @property
    def calls_itself_otherwise(self) -> str:
        """What is wrong with plans that do not have the name of their file; empty if they do."""
        name = self.plans_manager.plans_name
        if name == self.plans_identifier:
            return ""
        return (
            f"{self.plans_file.name} calls itself {name} and writes into the same folder: give "
            "plans_name and data_identifier names of their own"
        )

    @property
    def raw_folder(self) -> Path:
        """The dataset in nnUNet_raw."""
        folder = raw_dataset_folder(self.dataset_name)
        if folder is None:
            raise DataError(f"There is no {self.dataset_name} in nnUNet_raw.")
        return folder

    @property
    def has_images(self) -> bool:
        """Whether there is an imagesUn; preprocessed data may be all that is kept."""
        folder = raw_dataset_folder(self.dataset_name)
        return folder is not None and (folder / IMAGES_UNLABELED).is_dir()

    @property
    def folder(self) -> Path:
        """The folder of the preprocessed unlabeled cases."""
        labeled = self.configuration_manager.data_identifier
        return unlabeled_folder(self.preprocessed_dataset / labeled)

    @property
    def configuration_manager(self) -> ConfigurationManager:
        """nnU-Net's view of the configuration."""
        return self.plans_manager.get_configuration(self.configuration_name)

    @property
    def channels(self) -> list[str]:
        """The names of the channels of a case."""
        return channel_names(self.dataset_json)

    def raw_cases(self, *, required: bool = True) -> ImageFolder:
        """Return the cases of imagesUn as `raw_unlabeled_cases` does."""
        ending = self.dataset_json["file_ending"]
        return raw_unlabeled_cases(self.raw_folder, ending, self.channels, required=required)

    @property
    def command(self) -> str:
        """The command that preprocesses the cases ahead of time."""
        return (
            f"nnUNetv2_spmc_preprocess -d {self.dataset_name} -c {self.configuration_name} "
            f"-p {self.plans_identifier}"
        )

    def check(self) -> None:
        """Raise DataError if the configuration cannot be preprocessed."""
        available = self.plans_manager.available_configurations
        name = self.configuration_name
        # The planner leaves the cascade out where it makes no sense, so its name is looked at too.
        if name.startswith("3d_cascade") or (
            name in available and self.configuration_manager.previous_stage_name is not None
        ):
            raise DataError(
                f"The cascade {name} is not supported: unlabeled cases have no segmentation of a "
                "previous stage; use another configuration, 3d_fullres for example."
            )
        if name not in available:
            raise DataError(
                f"The plans {self.plans_identifier} of {self.dataset_name} have no "
                f"configuration {name}, only {', '.join(available)}."
            )
        if self.configuration_manager.preprocessor_class is None:
            raise DataError(
                f"The plans {self.plans_identifier} name the preprocessor "
                f"{self.configuration_manager.preprocessor_name}, which this nnU-Net does not have."
            )


def find_target(
    dataset_name_or_id: str | int, configuration: str, plans_identifier: str
) -> UnlabeledTarget:
    """Find a raw and planned dataset by its name or id.

    Raises:
        DataError: If an environment variable, the dataset, its plans or the configuration is not
            there; it says which and what to run first.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    refuse_path(plans_identifier, "-p")
    dataset_name = find_dataset(dataset_name_or_id)
    folder = preprocessed_folder(must_exist=True) / dataset_name
    plans_file = folder / f"{plans_identifier}.json"
    dataset_file = folder / "dataset.json"
    if plans_file.is_file() and not dataset_file.is_file():  # planning again might replace them
        raise DataError(
            f"{dataset_file} does not exist; plans that nnUNetv2_move_plans_between_datasets has "
            f"moved come without it: copy {raw_folder() / dataset_name / 'dataset.json'} there."
        )
    for file in (plans_file, dataset_file):
        if not os.path.lexists(file):
            found_plans = [path.stem for path in folder.glob("*Plans*.json")]
            others = sorted(name for name in found_plans if not name.endswith("_unlabeled"))
            found = f" (its plans: {', '.join(others)}; choose with -p)" if others else ""
            raise DataError(
                f"{file} does not exist{found}; plan the dataset first, with "
                f"nnUNetv2_plan_and_preprocess -d {number_of(dataset_name)}."
            )
    remedy = "plan the dataset again"
    plans_manager = PlansManager(read_plans(plans_file, remedy, configuration))
    dataset_json = read_dataset_json(dataset_file, remedy)
    target = UnlabeledTarget(
        dataset_name, plans_manager, configuration, dataset_json, folder, plans_identifier
    )
    target.check()
    check_classes(plans_manager, configuration, plans_file, remedy)
    check_channels(plans_manager, configuration, target.channels, plans_file, remedy)
    return target

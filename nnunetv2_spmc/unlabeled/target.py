"""Find what a preprocessing run works on: the dataset's folders, its plans, its configuration."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.nnunet_folders import (
    RAW,
    dataset_names,
    find_dataset,
    folder_if_set,
    number_of,
    preprocessed_folder,
    raw_dataset_folder,
    refuse_path,
)
from nnunetv2_spmc.raw.dataset_json import channel_names, read_dataset_json
from nnunetv2_spmc.raw.layout import IMAGES_UNLABELED
from nnunetv2_spmc.raw.plans_json import check_channels, check_classes, read_plans
from nnunetv2_spmc.unlabeled.cases import unlabeled_folder
from nnunetv2_spmc.unlabeled.raw_images import ImageFolder, raw_unlabeled_cases

REMEDY = "plan the dataset again"

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
        return unlabeled_folder(self.labeled_folder)

    @property
    def configuration_manager(self) -> ConfigurationManager:
        """nnU-Net's view of the configuration."""
        return self.plans_manager.get_configuration(self.configuration_name)

    @property
    def channels(self) -> list[str]:
        """The names of the channels of a case."""
        return channel_names(self.dataset_json)

    def labeled_cases(self) -> list[str]:
        """Return the preprocessed labeled cases, or raise DataError if there is none."""
        from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

        folder = self.labeled_folder
        endings = {path.suffix for path in folder.iterdir()} if folder.is_dir() else set()
        endings -= {".pkl", ".npy"}
        if len(endings) > 1:
            raise DataError(
                f"{folder} has files that end in {' and '.join(sorted(endings))}, so nnU-Net "
                "cannot tell how its cases are stored; move away the files that are not cases."
            )
        cases: list[str] = []
        if endings <= {".b2nd", ".npz"} and endings:
            cases = infer_dataset_class(str(folder)).get_identifiers(str(folder))
        if not cases:
            raise DataError(
                f"The labeled cases of {self.dataset_name} are not preprocessed for "
                f"{self.configuration_name}: {folder} has none; run {self.labeled_command}."
            )
        return cases

    def raw_cases(self, *, required: bool = True) -> ImageFolder:
        """Return the cases of imagesUn as `raw_unlabeled_cases` does."""
        ending = self.dataset_json["file_ending"]
        return raw_unlabeled_cases(self.raw_folder, ending, self.channels, required=required)

    @property
    def labeled_folder(self) -> Path:
        """The folder of the preprocessed labeled cases."""
        return self.preprocessed_dataset / self.configuration_manager.data_identifier

    @property
    def labeled_command(self) -> str:
        """The command that preprocesses the labeled cases."""
        number, configuration = str(number_of(self.dataset_name)), self.configuration_name
        words = ["nnUNetv2_preprocess", "-d", number, "-plans_name", self.plans_identifier]
        return shlex.join([*words, "-c", configuration])

    @property
    def command(self) -> str:
        """The command that preprocesses the cases ahead of time."""
        words = ["nnUNetv2_spmc_preprocess", "-d", self.dataset_name]
        return shlex.join([*words, "-c", self.configuration_name, "-p", self.plans_identifier])

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
        self.check_configuration()
        if self.configuration_manager.preprocessor_class is None:
            raise DataError(
                f"The plans {self.plans_identifier} name the preprocessor "
                f"{self.configuration_manager.preprocessor_name}, which this nnU-Net does not have."
            )

    def check_configuration(self) -> None:
        """Raise DataError if the plans do not have the configuration."""
        available = self.plans_manager.available_configurations
        if self.configuration_name not in available:
            raise DataError(
                f"The plans {self.plans_identifier} of {self.dataset_name} have no "
                f"configuration {self.configuration_name}, only {', '.join(available)}."
            )


def find_target(
    dataset_name_or_id: str | int, configuration: str, plans_identifier: str
) -> UnlabeledTarget:
    """Find a raw and planned dataset by its name or id.

    Raises:
        DataError: If an environment variable, the dataset, its plans or the configuration is not
            there; it says which and what to run first.
    """
    target = _planned(find_dataset(dataset_name_or_id), configuration, plans_identifier)
    target.check()
    _check_content(target)
    return target


def find_training_target(
    dataset_name_or_id: str | int, configuration: str, plans_identifier: str
) -> UnlabeledTarget:
    """Find a planned dataset by its name or id, whose raw data may be gone.

    Raises:
        DataError: as `find_target`.
    """
    root = preprocessed_folder(must_exist=True)
    try:
        name = find_dataset(dataset_name_or_id, root)
    except DataError as error:
        raw = folder_if_set(RAW)
        if raw is None or str(dataset_name_or_id) not in _names_and_ids(raw):
            raise
        raise DataError(
            f"{error} It is in {raw}: plan it first, with "
            f"nnUNetv2_plan_and_preprocess -d {number_of(find_dataset(dataset_name_or_id))}."
        ) from None
    target = _planned(name, configuration, plans_identifier)
    target.check_configuration()
    _check_content(target)
    return target


def _names_and_ids(folder: Path) -> set[str]:
    names = dataset_names(folder)
    return {*names, *(str(number_of(name)) for name in names)}


def _planned(dataset_name: str, configuration: str, plans_identifier: str) -> UnlabeledTarget:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    refuse_path(plans_identifier, "-p")
    folder = preprocessed_folder(must_exist=True) / dataset_name
    plans_file = folder / f"{plans_identifier}.json"
    dataset_file = folder / "dataset.json"
    raw = folder_if_set(RAW) or Path(RAW)
    if plans_file.is_file() and not dataset_file.is_file():  # planning again might replace them
        raise DataError(
            f"{dataset_file} does not exist; plans that nnUNetv2_move_plans_between_datasets has "
            f"moved come without it: copy {raw / dataset_name / 'dataset.json'} there."
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
    plans_manager = PlansManager(read_plans(plans_file, REMEDY, configuration))
    dataset_json = read_dataset_json(dataset_file, REMEDY)
    return UnlabeledTarget(
        dataset_name, plans_manager, configuration, dataset_json, folder, plans_identifier
    )


def _check_content(target: UnlabeledTarget) -> None:
    """Raise DataError if classes or channels of the plans do not fit those of dataset.json."""
    named = (target.plans_manager, target.configuration_name)
    check_classes(*named, target.plans_file, REMEDY)
    check_channels(*named, target.channels, target.plans_file, REMEDY)

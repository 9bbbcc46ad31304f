"""Find what a preprocessing run works on: the dataset's folders, its plans, its configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.nnunet_folders import (
    find_dataset,
    preprocessed_folder,
    raw_dataset_folder,
)
from nnunetv2_spmc.raw.layout import IMAGES_UNLABELED
from nnunetv2_spmc.unlabeled.cases import (
    raw_unlabeled_cases,
    unlabeled_folder,
)

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
    def labeled_folder(self) -> Path:
        """The folder of the preprocessed labeled cases."""
        return self.preprocessed_dataset / self.configuration_manager.data_identifier

    @property
    def configuration_manager(self) -> ConfigurationManager:
        """nnU-Net's view of the configuration."""
        return self.plans_manager.get_configuration(self.configuration_name)

    @property
    def num_channels(self) -> int:
        """How many channels a case has."""
        names = self.dataset_json.get("channel_names") or self.dataset_json["modality"]
        return len(names)

    def raw_cases(self, *, required: bool = True) -> dict[str, list[str]]:
        """Return the cases of imagesUn as `raw_unlabeled_cases` does."""
        ending = self.dataset_json["file_ending"]
        return raw_unlabeled_cases(self.raw_folder, ending, self.num_channels, required=required)

    @property
    def command(self) -> str:
        """The command that preprocesses the cases ahead of time."""
        return (
            f"nnUNetv2_spmc_preprocess -d {self.dataset_name} -c {self.configuration_name} "
            f"-p {self.plans_manager.plans_name}"
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
                f"The plans {self.plans_manager.plans_name} of {self.dataset_name} have no "
                f"configuration {name}, only {', '.join(available)}."
            )
        if self.configuration_manager.preprocessor_class is None:
            raise DataError(
                f"The plans {self.plans_manager.plans_name} name the preprocessor "
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

    dataset_name = find_dataset(dataset_name_or_id)
    folder = preprocessed_folder(must_exist=True) / dataset_name
    plans_file = folder / f"{plans_identifier}.json"
    dataset_file = folder / "dataset.json"
    for file in (plans_file, dataset_file):
        if not file.is_file():
            others = sorted(path.stem for path in folder.glob("*Plans*.json"))
            found = f" (its plans: {', '.join(others)}; choose with -p)" if others else ""
            raise DataError(
                f"{file} does not exist{found}; plan the dataset first, with "
                f"nnUNetv2_plan_and_preprocess -d {int(dataset_name[7:10])}."
            )
    plans_manager = PlansManager(_load_json(plans_file))
    dataset_json = _load_json(dataset_file)
    target = UnlabeledTarget(dataset_name, plans_manager, configuration, dataset_json, folder)
    target.check()
    return target


def _load_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is not valid JSON ({error}); plan the dataset again.") from error
    return dict(content)

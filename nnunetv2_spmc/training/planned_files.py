"""Check plans and dataset.json of a training before nnU-Net trips over what they lack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.nnunet_folders import PREPROCESSED, folder_if_set, preprocessed_folder
from nnunetv2_spmc.raw.dataset_json import check_dataset_json, read_dataset_json
from nnunetv2_spmc.raw.plans_json import check_plans, read_plans

REMEDY = "plan the dataset again"


def check_planned(
    plans: Mapping[str, Any], configuration: str, dataset_json: Mapping[str, Any]
) -> None:
    """Check what nnU-Net has read of a planned dataset.

    Raises:
        DataError: something is missing or of another type; names file and key.
    """
    folder = (folder_if_set(PREPROCESSED) or Path()) / str(plans.get("dataset_name", ""))
    check_plans(plans, folder / f"{plans.get('plans_name', 'plans')}.json", REMEDY, configuration)
    check_dataset_json(dataset_json, folder / "dataset.json", REMEDY)


def check_planned_files(dataset_name: str, plans: str, configuration: str) -> None:
    """Check the files of a planned dataset, before nnU-Net reads them.

    Raises:
        DataError: one is absent or damaged; names file and key.
    """
    folder = preprocessed_folder() / dataset_name
    read_plans(folder / f"{plans}.json", REMEDY, configuration)
    read_dataset_json(folder / "dataset.json", REMEDY)

"""Whether plans are of their dataset, and write into a folder that no other plans write into.

nnU-Net names the folder of preprocessed cases by the `data_identifier` of a configuration. Plans
that were copied and edited, and configurations that inherit, keep it: two spacings in one folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.nnunet_folders import (
    PREPROCESSED,
    folder_if_set,
    refuse_path,
    results_folder,
)
from nnunetv2_spmc.raw.plans_json import check_network
from nnunetv2_spmc.unlabeled.cases import UNLABELED_SUFFIX
from nnunetv2_spmc.unlabeled.plans_record import STATISTICS, relevant_plans
from nnunetv2_spmc.unlabeled.target import REMEDY, UnlabeledTarget

DAMAGED = (
    AttributeError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)  # what damaged plans raise


def check_training(
    plans: Mapping[str, Any], configuration: str, dataset_json: Mapping[str, Any]
) -> None:
    """Check what a training is given, before nnU-Net makes a folder for it.

    Raises:
        DataError: nnUNet_results is not set; the plans are of another dataset, share a folder with
            others that differ, or a name in them is a path.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    results_folder()
    root = folder_if_set(PREPROCESSED)
    if root is None or configuration not in plans.get("configurations", ()):
        return  # nnU-Net says so
    content = {key: value for key, value in plans.items() if key != "continue_training"}
    name = content["dataset_name"]
    refuse_path(name, "The dataset_name of the plans")
    _refuse_plans_of_another_dataset(root, content, dict(dataset_json))
    target = UnlabeledTarget(
        name,
        PlansManager(content),
        configuration,
        dict(dataset_json),
        root / name,
        plans_file_name(root / name, content),
    )
    check_plans(target)
    check_network(target.configuration_manager, target.plans_file, REMEDY)


def check_plans(target: UnlabeledTarget) -> None:
    """Raise DataError if the plans of a target are not its own.

    They are of another dataset, a name in them is a path, or a configuration that differs writes
    into the same folder.
    """
    plans = target.plans_manager
    if plans.dataset_name != target.dataset_name:
        raise DataError(
            f"{target.plans_file} is of {plans.dataset_name} (its dataset_name), not of "
            f"{target.dataset_name}; plan {target.dataset_name}, or bring the plans there with "
            "nnUNetv2_move_plans_between_datasets."
        )
    for key, name in (
        ("plans_name", plans.plans_name),
        ("data_identifier", target.configuration_manager.data_identifier),
        ("configuration", target.configuration_name),
    ):
        refuse_path(name, f"The {key} in {target.plans_file}")
    identifier = target.configuration_manager.data_identifier
    if identifier.endswith(UNLABELED_SUFFIX):
        raise DataError(
            f"The data_identifier {identifier} in {target.plans_file} ends as the folders of "
            f"unlabeled cases do, in {UNLABELED_SUFFIX}; give it another name."
        )
    _refuse_shared_folder(target)


def plans_file_name(folder: Path, plans: Mapping[str, Any]) -> str:
    """Return the name of the file that plans were read from, without .json; else their own."""
    name = str(plans["plans_name"])
    same = [file.stem for file, content in _plans_in(folder) if content == plans]
    return name if name in same or not same else same[0]


def _plans_in(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in sorted(folder.glob("*.json")):
        content = _read(file)
        if isinstance(content, dict) and "configurations" in content:
            yield file, content


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _refuse_plans_of_another_dataset(
    root: Path, plans: dict[str, Any], dataset_json: dict[str, Any]
) -> None:
    """Raise if the dataset that is asked for has plans that say they are of another one.

    nnU-Net would train on the cases of the other one. It passes on the content of the two files,
    not where they lie.
    """
    name = plans["dataset_name"]
    if _read(root / name / "dataset.json") == dataset_json:
        return
    for file in sorted(root.glob("Dataset*/dataset.json")):
        folder = file.parent
        if folder.name != name and _read(file) == dataset_json:
            for plans_file, content in _plans_in(folder):
                if content == plans:
                    raise DataError(
                        f"{plans_file} is of {name} (its dataset_name), not of {folder.name}; plan "
                        f"{folder.name}, or bring the plans there with "
                        "nnUNetv2_move_plans_between_datasets."
                    )


def _refuse_shared_folder(target: UnlabeledTarget) -> None:
    """Raise if the folder belongs to a configuration from which the target differs.

    By nnU-Net's way of naming it belongs to PLANS_CONFIGURATION; without that one to nobody.
    """
    if _has_folder_of_its_own(target):
        return  # it is the others that moved in
    ours = relevant_plans(target)
    others = list(_others_in_folder(target, target.configuration_manager.data_identifier))
    owners = [other for other in others if _has_folder_of_its_own(other)]
    for other in owners or others:
        try:
            theirs = relevant_plans(other)
        except DAMAGED:
            continue
        differing = [key for key in ours if ours[key] != theirs[key]]
        if other.plans_identifier != target.plans_identifier and not target.calls_itself_otherwise:
            # presets share folders; after more cases came, only the one in use is planned again
            differing = [key for key in differing if key != STATISTICS]
        if differing:
            raise DataError(_shared_folder(target, other, ", ".join(differing)))


def _has_folder_of_its_own(target: UnlabeledTarget) -> bool:
    name = f"{target.plans_identifier}_{target.configuration_name}"
    return target.configuration_manager.data_identifier == name


def _shared_folder(target: UnlabeledTarget, other: UnlabeledTarget, differing: str) -> str:
    identifier = target.configuration_manager.data_identifier
    if target.calls_itself_otherwise:
        return (
            f"{target.calls_itself_otherwise} ({differing} of {target.configuration_name} "
            f"differs from that of {other.configuration_name} in {other.plans_file.name}; both "
            f"write into {identifier})."
        )
    return (
        f"{target.configuration_name} in {target.plans_file.name} and "
        f"{other.configuration_name} in {other.plans_file.name} have one data_identifier, "
        f"{identifier}, but differ in {differing}: give {target.configuration_name} a "
        "data_identifier of its own, and preprocess the labeled cases for it, too."
    )


def _others_in_folder(target: UnlabeledTarget, identifier: str) -> Iterator[UnlabeledTarget]:
    """Find the configurations that write where another one does.

    Those of its own file come first, or last if the plans call themselves otherwise. Other files
    that do not have the name of their plans are left out: backups, which nobody preprocesses.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    own = (target.plans_identifier, target.plans_manager.plans)
    files = [
        (file.stem, content)
        for file, content in _plans_in(target.preprocessed_dataset)
        if content.get("plans_name") == file.stem != target.plans_identifier
    ]
    files.insert(len(files) if target.calls_itself_otherwise else 0, own)
    for stem, content in files:
        manager = PlansManager(content)
        for name in content["configurations"]:
            if (stem, name) == (target.plans_identifier, target.configuration_name):
                continue
            try:
                if manager.get_configuration(name).data_identifier != identifier:
                    continue
            except DAMAGED:
                continue
            yield UnlabeledTarget(
                target.dataset_name,
                manager,
                name,
                target.dataset_json,
                target.preprocessed_dataset,
                stem,
            )

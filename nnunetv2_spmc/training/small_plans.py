"""A configuration that trains in minutes on a CPU, added to plans of nnU-Net.

It inherits everything from a planned configuration, so the preprocessed data is shared, but the
number of features and, where given, the patch size and the batch size. With longer voxels it is
preprocessed by itself.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.json_files import check_keys, read_json
from nnunetv2_spmc.common.nnunet_folders import (
    RAW,
    RESULTS,
    dataset_names,
    find_id,
    folder_if_set,
    preprocessed_folder,
    refuse_path,
)
from nnunetv2_spmc.common.whole_file import whole_file
from nnunetv2_spmc.raw.plans_json import check_configurations

ARGUMENT_KEYS = {"strides": list, "n_conv_per_stage_decoder": list}

LARGEST = 10_000  # what is more was not meant


def small_configuration(
    planned: dict[str, Any],
    parent: str,
    *,
    features: tuple[int, int],
    patch_size: list[int] | None = None,
    batch_size: int | None = None,
    coarser: float | None = None,
) -> dict[str, Any]:
    """Derive a small configuration from a planned one.

    Args:
        planned: the configuration `parent`, with an architecture of its own.
        parent: its name.
        features: of the first stage, and at most.
        patch_size: a multiple of what the kept stages stride over; as planned by default.
        batch_size: as planned by default.
        coarser: how many times as long the voxels are.

    Raises:
        DataError: the patch size does not fit.
    """
    _check_numbers(features, patch_size, batch_size, coarser)
    architecture = copy.deepcopy(planned["architecture"])
    arguments = architecture["arch_kwargs"]
    patch_size = patch_size or list(planned["patch_size"])
    strides = arguments["strides"]
    if len(patch_size) != len(strides[0]):
        raise DataError(f"--patch_size needs {len(strides[0])} numbers, got {len(patch_size)}.")
    stages = _stages_that_fit(strides, patch_size)
    divisor = [math.prod(s[axis] for s in strides[:stages]) for axis in range(len(patch_size))]
    if any(size % d for size, d in zip(patch_size, divisor, strict=True)):
        raise DataError(f"--patch_size {patch_size} must be a multiple of {divisor}.")
    first, largest = features
    for key, value in arguments.items():
        if isinstance(value, list) and len(value) == len(strides) and key != "strides":
            arguments[key] = value[:stages]
    arguments["strides"] = strides[:stages]
    arguments["n_conv_per_stage_decoder"] = arguments["n_conv_per_stage_decoder"][: stages - 1]
    arguments["n_stages"] = stages
    arguments["features_per_stage"] = [min(first * 2**i, largest) for i in range(stages)]
    small = {
        "inherits_from": parent,
        "patch_size": patch_size,
        "batch_size": batch_size or planned["batch_size"],
        "architecture": architecture,
    }
    if coarser is not None:
        small["data_identifier"] = f"{planned['data_identifier']}_x{coarser:g}"
        small["spacing"] = [coarser * length for length in planned["spacing"]]
        sizes = planned["median_image_size_in_voxels"]
        small["median_image_size_in_voxels"] = [size / coarser for size in sizes]
    return small


def _check_numbers(
    features: tuple[int, int],
    patch_size: list[int] | None,
    batch_size: int | None,
    coarser: float | None,
) -> None:
    """Raise DataError for numbers from which nnU-Net makes no network, or no patch."""
    for option, numbers in (
        ("--features", features),
        ("--patch_size", patch_size or ()),
        ("--batch_size", () if batch_size is None else (batch_size,)),
    ):
        if any(not 1 <= number <= LARGEST for number in numbers):
            raise DataError(f"{option} takes numbers from 1 to {LARGEST}, got {list(numbers)}.")
    if coarser is not None and not 1 / LARGEST <= coarser <= LARGEST:
        raise DataError(f"--coarser takes a number from {1 / LARGEST} to {LARGEST}, got {coarser}.")


def _stages_that_fit(strides: list[list[int]], patch_size: list[int]) -> int:
    """Return how many stages see at least 4 voxels along every axis, and at least 3.

    nnU-Net takes the lowest output out of its loss: of two stages nothing would be left (0/0).
    """
    stages = sum(
        all(
            size >= 4 * math.prod(s[axis] for s in strides[: stage + 1])
            for axis, size in enumerate(patch_size)
        )
        for stage in range(len(strides))
    )
    return min(max(stages, 3), len(strides))


def add_small_configuration(
    dataset: int | str,
    configuration: str,
    plans: str = "nnUNetPlans",
    *,
    name: str | None = None,
    **options: Any,
) -> tuple[str, Path]:
    """Add a small configuration to the plans of a dataset.

    Args:
        dataset: id or name of a planned dataset in nnUNet_preprocessed.
        configuration: the one to derive from.
        plans: identifier of the plans.
        name: of the new configuration; CONFIGURATION_small by default.
        **options: of `small_configuration`.

    Returns:
        The name of the new configuration, and the file of the plans.

    Raises:
        DataError: there are no such plans, or the new configuration is not possible.
    """
    name = name or f"{configuration}_small"
    refuse_path(name, "--name")
    plans_file = find_plans(dataset, plans)
    content = read_json(plans_file, "plan again", {"configurations": dict})
    configurations = content["configurations"]
    check_configurations(configurations, plans_file, "plan again", configuration)
    planned = configurations.get(configuration, {})
    if "architecture" not in planned:
        complete = [key for key, values in configurations.items() if "architecture" in values]
        raise DataError(
            f"{plans_file} has no configuration {configuration} with an architecture of its own; "
            f"take one of {', '.join(complete)}."
        )
    check_keys(
        planned["architecture"]["arch_kwargs"],
        ARGUMENT_KEYS,
        plans_file,
        "plan again",
        inside=f"configurations.{configuration}.architecture.arch_kwargs",
    )
    if "inherits_from" not in configurations.get(name, {"inherits_from": configuration}):
        raise DataError(
            f"{name} in {plans_file} is planned by nnU-Net and would be lost; choose another name "
            "with --name."
        )
    configurations[name] = small_configuration(planned, configuration, **options)
    with whole_file(plans_file) as temporary:
        temporary.write_text(json.dumps(content, indent=4), encoding="utf-8")
    return name, plans_file


def find_plans(dataset: int | str, plans: str) -> Path:
    """Return the file of the plans of a dataset, an id or a name, in nnUNet_preprocessed.

    Raises:
        DataError: there is none, or several datasets have the id.
    """
    refuse_path(plans, "-p")
    root = preprocessed_folder(must_exist=True)
    names: Collection[str] = {str(dataset)} & set(dataset_names(root))
    if str(dataset).isdecimal():
        others = [folder for folder in map(folder_if_set, (RAW, RESULTS)) if folder is not None]
        names = find_id(int(dataset), root, *others)
    for name in names:
        if (root / name / f"{plans}.json").is_file():
            return root / name / f"{plans}.json"
    raise DataError(
        f"{root} has no {plans}.json of dataset {dataset}; plan it first, with "
        f"nnUNetv2_plan_and_preprocess -d {dataset}."
    )

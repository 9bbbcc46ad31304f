"""The records next to the images: dataset.json for nnU-Net, split.json for people."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_spmc import __version__
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.json_files import check_keys, read_json
from nnunetv2_spmc.raw.cases import ROLES, RawDataset
from nnunetv2_spmc.raw.layout import FILE_ENDING, SETTINGS_KEY
from nnunetv2_spmc.raw.sources import input_folder, source_name

CHANNEL_KEYS = ("modality", "channel_names")  # the first is nnU-Net's old name, which it prefers


def read_dataset_json(file: Path, remedy: str, *, with_channels: bool = True) -> dict[str, Any]:
    """Return the content of a dataset.json that has what nnU-Net needs of it.

    Args:
        file: the file.
        remedy: what to do where it is damaged.
        with_channels: also look at the channels, which segmentations do not have.

    Raises:
        DataError: it cannot be read, or lacks something; names file, key and remedy.
    """
    content = read_json(file, remedy)
    check_dataset_json(content, file, remedy, with_channels=with_channels)
    return content


def check_dataset_json(
    content: Mapping[str, Any], file: Path, remedy: str, *, with_channels: bool = True
) -> None:
    """Raise as `read_dataset_json` for a dataset.json that has been read."""
    check_keys(content, {"file_ending": str, "labels": dict}, file, remedy)
    if not content["file_ending"].startswith("."):
        raise DataError(
            f"{file}: 'file_ending' must begin with a dot, got {content['file_ending']!r}; "
            f"{remedy}."
        )
    if with_channels:
        key = next((key for key in CHANNEL_KEYS if key in content), "channel_names")
        check_keys(content, {key: dict}, file, remedy)
        if not content[key]:
            raise DataError(f"{file}: {key!r} has no channel; {remedy}.")


def channel_names(dataset_json: Mapping[str, Any]) -> list[str]:
    """Return the names of the channels as nnU-Net counts them, under the old key or the new one."""
    key = next(key for key in CHANNEL_KEYS if key in dataset_json)
    return [str(name) for name in dataset_json[key].values()]


def dataset_json(dataset: RawDataset) -> dict[str, Any]:
    """Return dataset.json as nnU-Net expects it."""
    labeled = dataset.with_role("labeled") + dataset.with_role("validation")
    content: dict[str, Any] = {
        "name": dataset.name,
        **dataset.information,
        "channel_names": {str(i): name for i, name in enumerate(dataset.channel_names)},
        "labels": {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataset.labels.items()
        },
        "numTraining": len(labeled),
        "file_ending": FILE_ENDING,
    }
    if dataset.regions_class_order:
        content["regions_class_order"] = list(dataset.regions_class_order)
    if dataset.settings:
        content[SETTINGS_KEY] = dict(dataset.settings)
    return content


def split_json(dataset: RawDataset) -> dict[str, Any]:
    """Return split.json: which case went where and why, with no path of this machine alone."""
    root = input_folder(dataset)
    cases = sorted(dataset.cases, key=lambda case: case.identifier)
    return {
        "dataset": dataset.folder_name,
        "converter": dataset.converter,
        "version": __version__,
        "source": os.path.basename(os.path.abspath(root)) if root else dataset.source,
        "paths": "relative to the folder given with -i, whose name is source",
        "protocol": dataset.protocol,
        "options": dict(dataset.options),
        "seed": dataset.seed,
        "notes": list(dataset.notes),
        "counts": {
            role: {
                "cases": len(dataset.with_role(role)),
                "patients": len({case.patient for case in dataset.with_role(role)}),
            }
            for role in ROLES
        },
        "cases": {role: [c.identifier for c in dataset.with_role(role)] for role in ROLES},
        "missing": list(dataset.missing),
        "left_out": dict(dataset.left_out),
        "unused": list(dataset.unused),  # files of the input folder
        "groups": {case.identifier: case.patient for case in cases},  # patient keys
        "remarks": {case.identifier: dict(case.remarks) for case in cases if case.remarks},
        "files": {
            case.identifier: {
                "images": [source_name(source, root) for source in case.images],
                "label": None if case.label is None else source_name(case.label, root),
            }
            for case in cases
        },
    }

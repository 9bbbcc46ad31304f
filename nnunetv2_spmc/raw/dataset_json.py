"""The records beside the images: dataset.json for nnU-Net, split.json for people."""

from __future__ import annotations

import os
from typing import Any

from nnunetv2_spmc import __version__
from nnunetv2_spmc.raw.cases import ROLES, RawDataset
from nnunetv2_spmc.raw.layout import FILE_ENDING, SETTINGS_KEY
from nnunetv2_spmc.raw.sources import input_folder, source_name


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
        "paths": "relative to the folder given with -i, of which source is the name",
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

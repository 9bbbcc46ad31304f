"""The record of the plans that the preprocessed unlabeled cases were made with.

It lies next to their folder, because nnU-Net allows only case files inside. Cases made with other
plans must not be trained on: another spacing or intensity scale would go unnoticed.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_spmc import __version__
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.json_files import read_json
from nnunetv2_spmc.common.whole_file import write_json

if TYPE_CHECKING:
    from nnunetv2_spmc.unlabeled.target import UnlabeledTarget

# nnU-Net's schemes that ignore the intensities of the dataset: with them, a re-planning that only
# changes those statistics does not change a voxel.
SCHEMES_WITHOUT_STATISTICS = {
    "ZScoreNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
}
STATISTICS = "foreground_intensity_properties_per_channel"
CONFIGURATION_KEYS = (
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)


def record_file(folder: Path) -> Path:
    """Return the record that belongs to a folder of preprocessed unlabeled cases."""
    return folder.with_name(f"{folder.name}.json")


def relevant_plans(target: UnlabeledTarget) -> dict[str, Any]:
    """Return the part of the plans that decides about the voxels of a preprocessed case."""
    plans, configuration = target.plans_manager, target.configuration_manager
    statistics = plans.foreground_intensity_properties_per_channel
    relevant = {key: configuration.configuration.get(key) for key in CONFIGURATION_KEYS}
    relevant["image_reader_writer"] = plans.plans["image_reader_writer"]
    relevant["transpose_forward"] = plans.transpose_forward
    relevant[STATISTICS] = {
        str(channel): statistics.get(str(channel))
        for channel, scheme in enumerate(configuration.normalization_schemes)
        if scheme not in SCHEMES_WITHOUT_STATISTICS
    }
    return dict(json.loads(json.dumps(relevant)))  # as it will be read back


def check_record(target: UnlabeledTarget, finished: Collection[str]) -> None:
    """Raise if the finished cases of a target were made with other plans.

    Raises:
        DataError: If the record differs from the plans, is damaged, or is absent where cases exist.
    """
    file, remedy = record_file(target.folder), f"{target.command} --overwrite"
    if not file.is_file():
        if finished:
            raise DataError(
                f"{file} is missing, so nothing tells which plans the cases in {target.folder} "
                f"were made with; copy it there, or make the cases again with {remedy}."
            )
        return
    plans = relevant_plans(target)
    recorded = read_json(file, f"make the cases again with {remedy}", {"plans": dict})["plans"]
    differing = [key for key in plans if recorded.get(key) != plans[key]]
    if differing and target.calls_itself_otherwise:
        raise DataError(
            f"{target.calls_itself_otherwise} (the cases in {target.folder} were made with another "
            f"{', '.join(differing)})."
        )
    if differing:
        raise DataError(
            f"The unlabeled cases in {target.folder} were made with other plans "
            f"({', '.join(differing)} changed); make them again with {remedy}."
        )


def write_record(target: UnlabeledTarget) -> None:
    """Write the record, whole or not at all; one that is there stays."""
    file = record_file(target.folder)
    if file.is_file():
        return
    write_json({"version": __version__, "plans": relevant_plans(target)}, file)

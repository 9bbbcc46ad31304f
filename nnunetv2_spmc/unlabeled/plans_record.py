"""The record of the plans that the preprocessed unlabeled cases were made with.

It lies beside their folder, because nnU-Net allows only case files inside. Cases made with other
plans must not be trained on: another spacing or intensity scale would go unnoticed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_spmc import __version__
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.whole_file import write_json
from nnunetv2_spmc.unlabeled.cases import finished_cases

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

# nnU-Net's schemes that ignore the intensities of the dataset: with them, a re-planning that only
# changes those statistics does not change a voxel.
SCHEMES_WITHOUT_STATISTICS = {
    "ZScoreNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
}
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


def relevant_plans(
    plans_manager: PlansManager, configuration_manager: ConfigurationManager
) -> dict[str, Any]:
    """Return the part of the plans that decides about the voxels of a preprocessed case."""
    configuration = configuration_manager.configuration
    statistics = plans_manager.foreground_intensity_properties_per_channel
    relevant = {key: configuration.get(key) for key in CONFIGURATION_KEYS}
    relevant["image_reader_writer"] = plans_manager.plans["image_reader_writer"]
    relevant["transpose_forward"] = plans_manager.transpose_forward
    relevant["foreground_intensity_properties_per_channel"] = {
        str(channel): statistics.get(str(channel))
        for channel, scheme in enumerate(configuration_manager.normalization_schemes)
        if scheme not in SCHEMES_WITHOUT_STATISTICS
    }
    return dict(json.loads(json.dumps(relevant)))  # as it will be read back


def check_record(folder: Path, plans: dict[str, Any], remedy: str) -> None:
    """Raise if the cases in a folder were made with other plans.

    Args:
        folder: The folder of preprocessed unlabeled cases; it may be absent or empty.
        plans: The relevant plans of today.
        remedy: The command that makes all cases anew.

    Raises:
        DataError: If the record differs from the plans, is damaged, or is absent beside cases.
    """
    file = record_file(folder)
    if not file.is_file():
        if finished_cases(folder):
            raise DataError(
                f"{file} is missing, so nothing tells which plans the cases in {folder} were made "
                f"with; copy it there, or make the cases anew with {remedy}."
            )
        return
    try:
        recorded = json.loads(file.read_text(encoding="utf-8"))["plans"]
        differing = [key for key in plans if recorded.get(key) != plans[key]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is damaged; make the cases anew with {remedy}.") from error
    if differing:
        raise DataError(
            f"The unlabeled cases in {folder} were made with other plans ({', '.join(differing)} "
            f"changed); make them anew with {remedy}."
        )


def write_record(folder: Path, plans: dict[str, Any]) -> None:
    """Write the record, whole or not at all."""
    file = record_file(folder)
    if file.is_file():
        return
    write_json({"version": __version__, "plans": plans}, file)

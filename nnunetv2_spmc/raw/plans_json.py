"""Read nnU-Net's plans, and say what they lack before nnU-Net trips over it."""

from __future__ import annotations

import itertools
import pydoc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.json_files import check_keys, read_json

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

PLANS_KEYS = {
    "dataset_name": str,
    "plans_name": str,
    "image_reader_writer": str,
    "transpose_forward": list,
    "transpose_backward": list,
    "configurations": dict,
}
INTENSITY_KEYS = (  # the second is nnU-Net's old name
    "foreground_intensity_properties_per_channel",
    "foreground_intensity_properties_by_modality",
)
CONFIGURATION_KEYS = {
    "data_identifier": str,
    "preprocessor_name": str,
    "batch_size": int,
    "patch_size": list,
    "spacing": list,
    "normalization_schemes": list,
    "use_mask_for_norm": list,
    "resampling_fn_data": str,
    "resampling_fn_data_kwargs": dict,
    "resampling_fn_seg": str,
    "resampling_fn_seg_kwargs": dict,
}
ARCHITECTURE_KEYS = {"network_class_name": str, "arch_kwargs": dict, "_kw_requires_import": list}


def read_plans(file: Path, remedy: str, configuration: str | None = None) -> dict[str, Any]:
    """Return plans that have what nnU-Net needs of them.

    Args:
        file: the plans.
        remedy: what to do where they are damaged.
        configuration: one that is used, which is looked at in full if the plans have it.

    Raises:
        DataError: they cannot be read, or lack something; names file, key and remedy.
    """
    content = read_json(file, remedy)
    check_plans(content, file, remedy, configuration)
    return content


def check_plans(
    content: Mapping[str, Any], file: Path, remedy: str, configuration: str | None = None
) -> None:
    """Raise as `read_plans` for plans that have been read."""
    check_keys(content, PLANS_KEYS, file, remedy)
    check_keys({"label_manager": "", **content}, {"label_manager": str}, file, remedy)
    key = next((key for key in INTENSITY_KEYS if key in content), INTENSITY_KEYS[0])
    check_keys(content, {key: dict}, file, remedy)
    for key in ("transpose_forward", "transpose_backward"):
        if content[key] not in map(list, itertools.permutations(range(3))):
            raise DataError(
                f"{file}: {key!r} must be an order of the axes 0, 1, 2, got {content[key]}; "
                f"{remedy}."
            )
    check_configurations(content["configurations"], file, remedy, configuration)


def check_configurations(
    configurations: Mapping[str, Any], file: Path, remedy: str, configuration: str | None = None
) -> None:
    """Raise as `read_plans` for the configurations of plans."""
    check_keys(
        configurations, dict.fromkeys(configurations, dict), file, remedy, inside="configurations"
    )
    if configuration in configurations:
        _check_configuration(configurations, str(configuration), file, remedy)


def check_classes(plans: PlansManager, configuration: str, file: Path, remedy: str) -> None:
    """Raise DataError if plans name a class or function that nnU-Net does not have."""
    manager = plans.get_configuration(configuration)
    named: dict[str, tuple[object, str]] = {
        "image_reader_writer": (plans, "image_reader_writer_class"),
        "label_manager": (plans, "label_manager_class"),
        "preprocessor_name": (manager, "preprocessor_class"),
        "resampling_fn_data": (manager, "resampling_fn_data"),
        "resampling_fn_seg": (manager, "resampling_fn_seg"),
    }
    for key, (owner, attribute) in named.items():
        try:
            found = getattr(owner, attribute)
        except RuntimeError:
            found = None
        if found is None:
            name = manager.configuration.get(key, plans.plans.get(key))
            raise DataError(
                f"{file}: {key!r} is {name!r}, which this nnU-Net does not have; {remedy}."
            )
    check_network(manager, file, remedy)


def check_network(manager: ConfigurationManager, file: Path, remedy: str) -> None:
    """Raise DataError if plans would build a network of anything else than modules of PyTorch.

    nnU-Net imports what they name and calls it, which could be any program.
    """
    from torch import nn

    arguments = manager.network_arch_init_kwargs
    named = {key: arguments.get(key) for key in manager.network_arch_init_kwargs_req_import}
    for key, name in {"network_class_name": manager.network_arch_class_name, **named}.items():
        found = _located(name)
        if found is not None and not (isinstance(found, type) and issubclass(found, nn.Module)):
            raise DataError(
                f"{file}: {key!r} is {name!r}, which is not a module of a network: calling it "
                f"could run any program; {remedy}."
            )


def _located(name: Any) -> Any:
    """Return what nnU-Net would call by a name; None if there is no such thing."""
    try:
        return pydoc.locate(name) if isinstance(name, str) else None
    except pydoc.ErrorDuringImport:
        return None


def check_channels(
    plans: PlansManager, configuration: str, channels: Sequence[str], file: Path, remedy: str
) -> None:
    """Raise DataError if plans were made for another number of channels than dataset.json has."""
    planned = len(plans.get_configuration(configuration).normalization_schemes)
    if planned != len(channels):
        raise DataError(
            f"{file}: 'normalization_schemes' of {configuration} are those of {planned} channels, "
            f"but dataset.json has {len(channels)} ({', '.join(channels)}); {remedy}."
        )


def _check_configuration(
    configurations: Mapping[str, Mapping[str, Any]], name: str, file: Path, remedy: str
) -> None:
    inside = f"configurations.{name}"
    values = _inherited(configurations, name, file, remedy)
    check_keys(values, CONFIGURATION_KEYS, file, remedy, inside=inside)
    for key in ("patch_size", "spacing"):
        if not values[key] or not all(_is_positive(number) for number in values[key]):
            raise DataError(
                f"{file}: '{inside}.{key}' must be a list of positive numbers, got {values[key]}; "
                f"{remedy}."
            )
    schemes, masks = values["normalization_schemes"], values["use_mask_for_norm"]
    if len(schemes) != len(masks):
        raise DataError(
            f"{file}: '{inside}.normalization_schemes' and '{inside}.use_mask_for_norm' must be of "
            f"one length, got {schemes} and {masks}; {remedy}."
        )
    if "UNet_class_name" not in values:  # the form of nnU-Net before 2.4, which it converts
        check_keys(values, {"architecture": dict}, file, remedy, inside=inside)
        architecture = values["architecture"]
        check_keys(architecture, ARCHITECTURE_KEYS, file, remedy, inside=f"{inside}.architecture")


def _inherited(
    configurations: Mapping[str, Mapping[str, Any]], name: str, file: Path, remedy: str
) -> dict[str, Any]:
    """Return a configuration with what it inherits."""
    values: dict[str, Any] = {}
    seen: list[str] = []
    current: Any = name
    while current is not None:
        is_known = isinstance(current, str) and current in configurations
        if current in seen or not is_known:
            what = "itself" if current in seen else f"{current!r}, which is not there"
            raise DataError(f"{file}: 'configurations.{name}' inherits from {what}; {remedy}.")
        seen.append(current)
        values = {**configurations[current], **values}
        current = configurations[current].get("inherits_from")
    return values


def _is_positive(number: Any) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and number > 0

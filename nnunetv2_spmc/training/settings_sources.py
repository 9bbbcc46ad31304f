"""Where settings come from besides the trainer and the dataset: the environment, options, files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.setting_checks import SettingsError

ENVIRONMENT_VARIABLE = "nnUNet_spmc_settings"
OPTIONS_VARIABLE = "nnUNet_spmc_options"  # of nnUNetv2_spmc_train, which sets it: name -> settings


def options_in(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the options that nnUNetv2_spmc_train was given, in their order: name -> settings."""
    return dict(json.loads(environment.get(OPTIONS_VARIABLE) or "{}"))


def read_settings(file: str) -> Any:
    """Read a file of settings: a JSON object.

    Raises:
        SettingsError: there is no such file, or it is not valid JSON.
    """
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ of an unknown user
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SettingsError(f"The file of settings {file} cannot be read: {reason}.") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not UTF-8 text ({error}).") from None
    return _parsed(text, file)


def environment_block(value: str) -> Any:
    """Return what nnUNet_spmc_settings says: an object, or that of a file; an empty one if nothing.

    Raises:
        SettingsError: it is neither an object nor the path of a file with one.
    """
    if not value.strip():
        return {}
    if value.lstrip().startswith("{"):
        return _parsed(value, f"${ENVIRONMENT_VARIABLE}")
    if not os.path.isfile(os.path.expanduser(value)):
        raise SettingsError(
            f"${ENVIRONMENT_VARIABLE} must be a JSON object or the path of a file with one, got "
            f"{value!r}, which is neither."
        )
    return read_settings(value)


def _parsed(text: str, origin: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:  # of a number with thousands of digits, too
        raise SettingsError(f"{origin} is not valid JSON: {error}.") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"it has the key {key!r} twice")
    return dict(pairs)

"""Settings of a training: class defaults < dataset.json "spmc" < environment variable.

The environment variable nnUNet_spmc_settings holds a JSON object or the path of a file with one:

    export nnUNet_spmc_settings='{"epochs": 200, "tau": 0.65}'
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from nnunetv2_spmc.data.raw_layout import SETTINGS_KEY

ENVIRONMENT_VARIABLE = "nnUNet_spmc_settings"
FREE_SETTINGS = {"save_minutes"}  # a resumed run may change them: they do not touch the weights

Settings = TypeVar("Settings", bound="ScheduleSettings")


class SettingsError(ValueError):
    """A setting is unknown, of the wrong type or out of range."""


def require(condition: bool, key: str, value: Any, expected: str) -> None:
    """Raise a SettingsError that names the key unless the condition holds."""
    if not condition:
        raise SettingsError(f"The setting {key} must be {expected}, got {value!r}.")


@dataclass(frozen=True)
class ScheduleSettings:
    """How long and from which seed to train; the defaults are nnU-Net's own."""

    epochs: int = 1000
    iterations_per_epoch: int = 250
    validation_iterations: int = 50  # per epoch, for the online pseudo Dice
    initial_lr: float = 1e-2
    save_every: int = 50  # epochs between two writings of checkpoint_latest.pth
    save_minutes: float = 10.0  # minutes after which the end of an epoch writes it, too; 0: never
    keep_every: int = 0  # epochs between two checkpoint_epoch_N.pth, which stay; 0: none
    mirroring: bool = True  # mirrored patches in training and, thus, mirroring in prediction
    seed: int | None = None  # None: different at every run, like nnU-Net

    def __post_init__(self) -> None:
        """Check types and ranges of all fields."""
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name), str(field.type))
        for key in ("epochs", "iterations_per_epoch", "validation_iterations", "save_every"):
            value = getattr(self, key)
            require(value >= 1, key, value, "at least 1")
        for key in ("save_minutes", "keep_every"):
            value = getattr(self, key)
            require(value >= 0, key, value, "at least 0")
        require(self.initial_lr > 0, "initial_lr", self.initial_lr, "positive")
        require(self.seed is None or self.seed >= 0, "seed", self.seed, "at least 0, or null")


@dataclass(frozen=True)
class SemiSupervisedSettings(ScheduleSettings):
    """What every semi-supervised method needs beside its schedule."""

    lambda_max: float = 0.1  # weight of the unsupervised terms after the ramp-up, Eq. (3)-(5)
    ramp_start: float = 0.0  # share of the epochs that is supervised only
    ramp_end: float = 1.0  # share of the epochs after which the weight is lambda_max
    unlabeled_batch_size: int | None = None  # patches per step; None: the plans' batch size
    learn_from_ignored: bool = True  # labeled cases: voxels under the ignore label are unlabeled
    pseudo_label_cases: int = 4  # withheld cases to log the pseudo-label Dice on; 0: none
    allow_overlap: bool = False  # transductive: unlabeled cases may be test or validation cases

    def __post_init__(self) -> None:
        """Check types and ranges of all fields."""
        super().__post_init__()
        require(self.lambda_max >= 0, "lambda_max", self.lambda_max, "at least 0")
        start, end = self.ramp_start, self.ramp_end
        require(0 <= start < 1, "ramp_start", start, "in [0, 1)")
        require(start <= end <= 1, "ramp_end", end, f"between ramp_start ({start}) and 1")
        number = self.pseudo_label_cases
        require(number >= 0, "pseudo_label_cases", number, "at least 0")
        size = self.unlabeled_batch_size
        require(size is None or size >= 1, "unlabeled_batch_size", size, "at least 1, or null")


def resolve_settings(
    defaults: Settings,
    dataset_json: Mapping[str, Any],
    environment: Mapping[str, str] = os.environ,
    *,
    fixed: Collection[str] = (),
) -> tuple[Settings, dict[str, str]]:
    """Merge the settings of the trainer class, the dataset and the environment.

    Args:
        defaults: the class defaults; their type says which keys exist.
        dataset_json: content of dataset.json; its "spmc" block is read if there is one.
        environment: environment variables.
        fixed: keys whose default no source may change.

    Returns:
        The settings, and for every key that is not a class default where it came from.

    Raises:
        SettingsError: a key is unknown or fixed, or a value of the wrong type or out of range.
    """
    sources = {
        f'"{SETTINGS_KEY}" in dataset.json': dataset_json.get(SETTINGS_KEY, {}),
        f"${ENVIRONMENT_VARIABLE}": _environment_block(environment.get(ENVIRONMENT_VARIABLE, "")),
    }
    settings, origins = defaults, {}
    for source, block in sources.items():
        if not isinstance(block, Mapping):
            raise SettingsError(f"{source} must be a JSON object of settings, got {block!r}.")
        known = sorted(field.name for field in fields(defaults))
        for key in block:
            if key not in known:
                raise SettingsError(f"Unknown setting {key!r} in {source}; known: {known}.")
            if key in fixed and block[key] != getattr(defaults, key):
                raise SettingsError(
                    f"The setting {key} is {getattr(defaults, key)!r} in this trainer, as its name "
                    f"says; {source} asks for {block[key]!r}: leave it out or take another trainer."
                )
        try:
            settings = replace(settings, **block)
        except SettingsError as error:
            raise SettingsError(f"In {source}: {error}") from None
        origins.update(dict.fromkeys(block, source))
    return settings, origins


def describe_settings(settings: ScheduleSettings, origins: Mapping[str, str]) -> str:
    """List all settings, one a line, with the origin of those that are not class defaults."""
    return "\n".join(
        f"  {key} = {value!r}" + (f"  (from {origins[key]})" if key in origins else "")
        for key, value in asdict(settings).items()
    )


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe the differences between two settings, such as 'tau: 0.7 -> 0.65'.

    Settings that only one of them knows do not count: another version of this package had them.
    Nor do those in `FREE_SETTINGS`.
    """
    return [
        f"{key}: {before[key]!r} -> {now[key]!r}"
        for key in sorted(before.keys() & now.keys())
        if key not in FREE_SETTINGS and before[key] != now[key]
    ]


def _environment_block(value: str) -> Any:
    if not value.strip():
        return {}
    text, origin = value, f"${ENVIRONMENT_VARIABLE}"
    if not value.lstrip().startswith("{"):
        path = Path(value).expanduser()
        if not path.is_file():
            raise SettingsError(
                f"{origin} must be a JSON object or the path of a file with one, got {value!r}, "
                "which is neither."
            )
        text, origin = path.read_text(encoding="utf-8"), str(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{origin} is not valid JSON: {error}.") from None


def _check_type(key: str, value: Any, annotation: str) -> None:
    allowed: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
        "int | None": (int, type(None)),
    }
    expected = allowed.get(annotation)
    if expected is None:  # Literal strings check their values themselves
        return
    is_bool_by_mistake = isinstance(value, bool) and bool not in expected
    is_right = isinstance(value, expected) and not is_bool_by_mistake
    require(is_right, key, value, f"of type {annotation}")
    require(value == value and value not in (float("inf"), float("-inf")), key, value, "finite")

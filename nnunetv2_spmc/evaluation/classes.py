"""The classes, or regions, that dataset.json defines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.label_definition import IGNORE


@dataclass(frozen=True)
class Classes:
    """What is evaluated, and which values the files may hold."""

    values: Mapping[str, tuple[int, ...]]  # class or region -> its label values
    allowed: frozenset[int]  # background included, ignore label not
    ignore: int | None


def read_classes(dataset_json: Mapping[str, Any], file: Path) -> Classes:
    """Return the foreground classes, or regions, that nnU-Net's label manager would find.

    Args:
        dataset_json: Content of dataset.json.
        file: Where it comes from, for messages.

    Raises:
        DataError: If its labels cannot be evaluated.
    """
    labels = dataset_json.get("labels")
    if not isinstance(labels, Mapping):
        raise DataError(f"{file} has no 'labels'; it must be the dataset.json of the dataset.")
    values = {name: _label_values(name, value, file) for name, value in labels.items()}
    ignored = values.pop(IGNORE, None)
    if ignored is not None and len(ignored) != 1:
        raise DataError(f"{file}: the label {IGNORE!r} must be a single value.")
    if values.get("background") != (0,):
        raise DataError(f"{file}: the labels need 'background': 0.")
    foreground = {name: value for name, value in values.items() if set(value) != {0}}
    if not foreground:
        raise DataError(f"{file}: the labels have no class besides the background.")
    mixed = [name for name, value in foreground.items() if 0 in value]
    if mixed:
        raise DataError(f"{file}: the region {mixed[0]!r} holds the background, take out the 0.")
    allowed = frozenset(label for value in values.values() for label in value)
    return Classes(foreground, allowed, ignored[0] if ignored else None)


def _label_values(name: str, value: Any, file: Path) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list) else (value,)
    if not values or not all(type(label) is int and label >= 0 for label in values):
        raise DataError(
            f"{file}: the label {name!r} must be a whole number, or a list of them for a region, "
            f"got {value!r}."
        )
    return values

"""Checks of the values of settings, with sentences that name the key."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from nnunetv2_spmc.common.errors import SPMCError


class SettingsError(SPMCError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""


def require(condition: bool, key: str, value: Any, expected: str) -> None:
    """Raise a SettingsError that names the key unless the condition holds."""
    if not condition:
        raise SettingsError(f"The setting {key} must be {expected}, got {value!r}.")


def require_within(settings: Any, key: str, least: float, most: float) -> None:
    """Raise a SettingsError if a number is out of range; other types pass, and None.

    Before `check_types`, so that 1e23 for an integer is told its range and not its type.
    """
    value = getattr(settings, key)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        require(not value < least, key, value, f"at least {least}")  # NaN passes: it has no type
        require(not value > most, key, value, f"at most {most}")


def check_types(settings: Any) -> None:
    """Check every field of a dataclass of settings against its annotation.

    Annotations may be int, float, bool, str, an optional one of these, or a Literal of strings.

    Raises:
        SettingsError: a value is of another type, not finite, or none of the Literal's.
    """
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        value, hint = getattr(settings, field.name), hints[field.name]
        if get_origin(hint) is Literal:
            choices = get_args(hint)
            require(value in choices, field.name, value, f"one of {', '.join(choices)}")
        else:
            _check_type(field.name, value, hint, str(field.type))


def _check_type(key: str, value: Any, hint: Any, annotation: str) -> None:
    allowed = set(get_args(hint) or (hint,))
    accepted = tuple(allowed | {int} if float in allowed else allowed)  # 1 is a float, too
    is_bool_by_mistake = isinstance(value, bool) and bool not in allowed
    is_right = isinstance(value, accepted) and not is_bool_by_mistake
    require(is_right, key, value, f"of type {annotation}")
    require(not isinstance(value, float) or math.isfinite(value), key, value, "finite")

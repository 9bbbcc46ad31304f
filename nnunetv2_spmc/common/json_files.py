"""Read JSON files that somebody may have edited, cut short or replaced."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.errors import DataError

JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}
Keys = Mapping[str, type]


def read_json(file: Path, remedy: str, keys: Keys | None = None) -> dict[str, Any]:
    """Return the JSON object in a file.

    Args:
        file: the file.
        remedy: what to do where it is damaged, "plan the dataset again" for example.
        keys: what it must have -> its type.

    Raises:
        DataError: it cannot be read, is no JSON object, or lacks a key; names file, key and remedy.
    """
    content = read_any_json(file, remedy)
    if not isinstance(content, dict):
        raise DataError(f"{file} holds {_name(content)} instead of an object; {remedy}.")
    check_keys(content, keys or {}, file, remedy)
    return content


def read_any_json(file: Path, remedy: str) -> Any:
    """Return what a JSON file holds, an object or not; raises as `read_json`."""
    try:
        text = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not valid JSON (not UTF-8 text); {remedy}.") from error
    except IsADirectoryError as error:
        raise DataError(f"{file} is a folder instead of a file; {remedy}.") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror or error}); {remedy}.") from error
    if not text.strip():
        raise DataError(f"{file} is not valid JSON (it is empty); {remedy}.")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DataError(f"{file} is not valid JSON (nested too deeply); {remedy}.") from error
    except ValueError as error:
        raise DataError(f"{file} is not valid JSON ({error}); {remedy}.") from error


def check_keys(
    content: Mapping[str, Any], keys: Keys, file: Path, remedy: str, *, inside: str = ""
) -> None:
    """Raise DataError if an object of a file lacks a key, or has one of another type.

    Args:
        content: the object.
        keys: what it must have -> its type.
        file: the file, for the message.
        remedy: what to do.
        inside: where in the file the object lies, "configurations.2d" for example.
    """
    for key, kind in keys.items():
        name = f"{inside}.{key}" if inside else key
        if key not in content:
            raise DataError(f"{file} has no {name!r}; {remedy}.")
        value = content[key]
        is_bool_by_mistake = isinstance(value, bool) and kind is not bool
        if not isinstance(value, (int, float) if kind is float else kind) or is_bool_by_mistake:
            raise DataError(
                f"{file}: {name!r} must be {JSON_NAMES[kind]}, got {_name(value)}; {remedy}."
            )


def _name(value: Any) -> str:
    return JSON_NAMES[type(value)]

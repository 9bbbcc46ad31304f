"""Converters: from a dataset as it is distributed to nnU-Net's raw layout with unlabeled cases.

Every module of this folder that defines CONVERTER is one, and its name is the command's: `la.py`
is `nnUNetv2_spmc_convert la`. The other modules help them. docs/how-to/add-a-converter.md has an
example.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunetv2_spmc.raw.summary import ConversionSummary
    from nnunetv2_spmc.raw.writer import WriteOptions

FIRST_IN_HELP = ("folder", "la", "acdc", "brats", "phantom")  # others follow by name


@dataclass(frozen=True)
class Converter:
    """What the command needs to know of a converter.

    Attributes:
        summary: What it converts, in one line of the help.
        add_arguments: Adds this converter's own arguments to those that all converters share.
        convert: Converts what the arguments ask for.
        dataset: Dataset id and name where the user gives none; None requires both.
        example: What to type, for the help.
    """

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    convert: Callable[[argparse.Namespace, WriteOptions], ConversionSummary]
    dataset: tuple[int, str] | None = None
    example: str = ""


def find_converters() -> dict[str, Converter]:
    """Return all converters by the name of their command, in the order of the help."""
    found = {}
    for name in dict.fromkeys([*FIRST_IN_HELP, *(m.name for m in pkgutil.iter_modules(__path__))]):
        module = importlib.import_module(f"{__name__}.{name}")
        if hasattr(module, "CONVERTER"):
            found[name] = module.CONVERTER
    return found

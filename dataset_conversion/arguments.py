"""The arguments that converters share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from nnunetv2_spmc.raw.writer import WriteOptions, default_processes


def add_common(parser: argparse.ArgumentParser, dataset: tuple[int, str] | None) -> None:
    """Add what all converters have.

    Args:
        parser: Of the converter.
        dataset: Default dataset id and name; without, both are required.
    """
    dataset_id, dataset_name = dataset or (None, None)
    required = dataset is None
    default = "" if required else " (default: %(default)s)"
    add = parser.add_argument
    id_help, name_help = f"dataset id, 1 to 999{default}", f"dataset name{default}"
    add("-d", type=int, metavar="ID", default=dataset_id, required=required, help=id_help)
    add("-n", metavar="NAME", default=dataset_name, required=required, help=name_help)
    add(
        "-np",
        type=integer_from(1),
        metavar="N",
        default=default_processes(),
        help="worker processes (default: %(default)s)",
    )
    add("--overwrite", action="store_true", help="replace the dataset if it exists")
    add("--dry_run", action="store_true", help="print what would go where and write nothing")
    parser.set_defaults(link=False)


def write_options(arguments: argparse.Namespace) -> WriteOptions:
    """Return how to write, as the arguments of all converters say."""
    return WriteOptions(
        overwrite=arguments.overwrite,
        processes=arguments.np,
        link=arguments.link,
        dry_run=arguments.dry_run,
    )


def add_input(parser: argparse.ArgumentParser, text: str) -> None:
    """Add -i, the folder to convert."""
    parser.add_argument("-i", type=absolute_path, metavar="INPUT", required=True, help=text)


def add_number(parser: argparse.ArgumentParser, option: str, default: int, text: str) -> None:
    """Add a number of cases, --labeled for example."""
    text = f"{text} (default: %(default)s)"
    parser.add_argument(option, type=int, default=default, metavar="N", help=text)


def add_seed(parser: argparse.ArgumentParser, text: str) -> None:
    """Add --seed."""
    text = f"{text} (default: %(default)s)"
    parser.add_argument("--seed", type=integer_from(0), default=0, metavar="N", help=text)


def add_allow_missing(parser: argparse.ArgumentParser) -> None:
    """Add --allow_missing, for converters that follow a published list."""
    text = "go on without the listed cases that are not on disk, and name them"
    parser.add_argument("--allow_missing", action="store_true", help=text)


def add_link(parser: argparse.ArgumentParser) -> None:
    """Add --link, for sources that may hold files as nnU-Net wants them."""
    text = "link .nii.gz files that need no change, instead of copying them"
    parser.add_argument("--link", action="store_true", help=text)


def integer_from(minimum: int) -> Callable[[str], int]:
    """Return a type for argparse: an integer that is not smaller."""

    def integer(text: str) -> int:  # argparse names the function where int() fails
        number = int(text)
        if number < minimum:
            raise argparse.ArgumentTypeError(f"has to be {minimum} or more, got {text}")
        return number

    return integer


def absolute_path(text: str) -> Path:
    """Return a path as an absolute one, which messages and --dry_run show."""
    return Path(text).expanduser().absolute()

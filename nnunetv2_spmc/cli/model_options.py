"""Options with which commands name a trained model: -m, or -d -c -tr -p as nnUNetv2_predict."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.training.devices import DEVICES

DEFAULTS = {"tr": "nnUNetTrainerSPMC", "p": "nnUNetPlans"}


def add_model(
    parser: Parser, *, dataset: str = "dataset id or name, instead of -m", several: bool = False
) -> None:
    """Add the options.

    Args:
        parser: of the command.
        dataset: the help of -d, which a command may need anyway.
        several: -m and -tr take several, for `model_folders`.
    """
    add = parser.add_argument
    number = "+" if several else None
    add(
        "-m",
        type=Path,
        nargs=number,
        metavar="MODEL_FOLDER",
        help="trained model: nnUNet_results/DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION; "
        "instead, -d -c -tr -p name it as in nnUNetv2_predict",
    )
    add("-d", metavar="ID", help=dataset)
    add("-c", metavar="CONFIG", help="configuration, 3d_fullres for example, instead of -m")
    what = "trainers" if several else "trainer"
    text = f"{what}, instead of -m (default: {DEFAULTS['tr']})"
    add("-tr", nargs=number, metavar="TRAINER", help=text)
    add("-p", metavar="PLANS", help=f"plans, instead of -m (default: {DEFAULTS['p']})")


def add_folds(parser: Parser, default: str) -> None:
    """Add the options that choose folds and their checkpoint."""
    parser.add_argument("-f", nargs="+", metavar="FOLD", help=f"folds (default: {default})")
    parser.add_argument(
        "-chk",
        default="checkpoint_final.pth",
        metavar="NAME",
        help="checkpoint (default: %(default)s)",
    )


def add_device(parser: Parser) -> None:
    """Add the option of the device."""
    text = "device to predict on (default: %(default)s)"
    parser.add_argument("-device", choices=DEVICES, default=DEVICES[0], help=text)


def model_folder(parser: Parser, arguments: argparse.Namespace, *, needs_dataset: bool) -> Path:
    """Return the model folder that the options name; refuse none, and two at once.

    Args:
        parser: with the options of `add_model`.
        arguments: what it parsed.
        needs_dataset: the command takes -d in addition to -m.

    Raises:
        DataError: nnUNet_results has no such dataset or model; says which models there are.
    """
    keys = ("c", "tr", "p") if needs_dataset else ("d", "c", "tr", "p")
    if arguments.m is not None:
        _refuse_both(parser, arguments, keys)
        folder: Path = arguments.m
        return folder
    return _found(parser, arguments, arguments.tr)


def model_folders(parser: Parser, arguments: argparse.Namespace) -> list[Path]:
    """Return the model folders that the options name, where they may name several, or none.

    Raises:
        DataError: nnUNet_results has no such dataset or model; says which models there are.
    """
    keys = ("d", "c", "tr", "p")
    if arguments.m is not None:
        _refuse_both(parser, arguments, keys)
        return list(arguments.m)
    if all(getattr(arguments, key) is None for key in keys):
        return []
    return [_found(parser, arguments, trainer) for trainer in arguments.tr or [None]]


def _refuse_both(parser: Parser, arguments: argparse.Namespace, keys: Sequence[str]) -> None:
    named = [f"-{key}" for key in keys if getattr(arguments, key) is not None]
    if named:
        parser.error(f"-m names the model already; leave {' '.join(named)} out")


def _found(parser: Parser, arguments: argparse.Namespace, trainer: str | None) -> Path:
    if arguments.d is None or arguments.c is None:
        parser.error("name the model: -m MODEL_FOLDER, or -d ID -c CONFIG -tr TRAINER")
    from nnunetv2_spmc.inference.model_folders import find_model

    plans = arguments.p or DEFAULTS["p"]
    return find_model(arguments.d, arguments.c, trainer or DEFAULTS["tr"], plans)

"""Options with which commands name a trained model: -m, or -d -c -tr -p as nnUNetv2_predict."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2_spmc.cli.parser import Parser

DEVICES = ("cuda", "cpu", "mps")
DEFAULTS = {"tr": "nnUNetTrainerSPMC", "p": "nnUNetPlans"}


def add_model(parser: Parser, *, dataset: str = "dataset id or name, instead of -m") -> None:
    """Add the options; `dataset` is the help of -d, which a command may need anyway."""
    add = parser.add_argument
    add(
        "-m",
        type=Path,
        metavar="MODEL_FOLDER",
        help="trained model: nnUNet_results/DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION; or, as "
        "in nnUNetv2_predict, -d -c -tr -p",
    )
    add("-d", metavar="ID", help=dataset)
    add("-c", metavar="CONFIG", help="configuration, 3d_fullres for example, instead of -m")
    add("-tr", metavar="TRAINER", help=f"trainer, instead of -m (default: {DEFAULTS['tr']})")
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
        needs_dataset: the command needs -d beside -m, too.

    Raises:
        DataError: nnUNet_results has no such dataset or model; says which models there are.
    """
    keys = ("c", "tr", "p") if needs_dataset else ("d", "c", "tr", "p")
    named = [f"-{key}" for key in keys if getattr(arguments, key) is not None]
    if arguments.m is not None:
        if named:
            parser.error(f"-m names the model already; leave {' '.join(named)} out")
        folder: Path = arguments.m
        return folder
    if arguments.d is None or arguments.c is None:
        parser.error("name the model: -m MODEL_FOLDER, or -d ID -c CONFIG -tr TRAINER")
    from nnunetv2_spmc.inference.trained_model import find_model

    chosen = {key: getattr(arguments, key) or default for key, default in DEFAULTS.items()}
    return find_model(arguments.d, arguments.c, chosen["tr"], chosen["p"])

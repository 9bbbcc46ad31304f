"""`nnUNetv2_spmc_convert`: bring a dataset into nnU-Net's raw layout with unlabeled cases."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.dataset_conversion import find_converters
from nnunetv2_spmc.dataset_conversion.arguments import add_common, write_options


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with one subcommand for each converter."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_spmc_convert",
        description="Write labeled, unlabeled and test cases to nnUNet_raw/DatasetXXX_Name.",
    )
    commands = parser.add_subparsers(title="converters", metavar="CONVERTER", required=True)
    for name, converter in find_converters().items():
        subparser = commands.add_parser(name, help=converter.summary, description=converter.summary)
        add_common(subparser, converter.dataset)
        converter.add_arguments(subparser)
        subparser.set_defaults(convert=converter.convert)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the converter that the arguments name; a user's mistake ends in one sentence."""
    arguments = build_parser().parse_args(argv)
    try:
        summary = arguments.convert(arguments, write_options(arguments))
    except DataError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        sys.exit(f"error: {reason}; nothing was written, mend that and run the command again.")
    except KeyboardInterrupt:
        print("error: interrupted, nothing was written", file=sys.stderr)
        sys.exit(130)
    print(summary)  # not above: a closed pipe would be taken for a failed conversion

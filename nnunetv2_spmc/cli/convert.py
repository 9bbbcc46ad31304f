"""`nnUNetv2_spmc_convert`: bring a dataset into nnU-Net's raw layout with unlabeled cases."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.cli.runner import command
from nnunetv2_spmc.dataset_conversion import find_converters
from nnunetv2_spmc.dataset_conversion.arguments import add_common, write_options


def build_parser() -> Parser:
    """Return the parser with one subcommand for each converter."""
    converters = find_converters()
    parser = Parser(
        prog="nnUNetv2_spmc_convert",
        description="Write labeled, unlabeled and test cases to nnUNet_raw/DatasetXXX_Name.",
        example=converters["folder"].example,
    )
    commands = parser.add_subparsers(title="converters", metavar="CONVERTER", required=True)
    for name, converter in converters.items():
        subparser = commands.add_parser(
            name,
            help=converter.summary,
            description=converter.summary,
            example=converter.example,
        )
        add_common(subparser, converter.dataset)
        converter.add_arguments(subparser)
        subparser.set_defaults(convert=converter.convert)
    return parser


@command()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the converter that the arguments name."""
    arguments = build_parser().parse_args(argv)
    print(arguments.convert(arguments, write_options(arguments)))


if __name__ == "__main__":
    main()

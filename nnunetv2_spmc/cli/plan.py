"""nnUNetv2_spmc_plan: configurations of our own in plans of nnU-Net."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.cli.runner import command


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog="nnUNetv2_spmc_plan",
        description="Add a configuration to the plans that nnU-Net made for a dataset.",
        example="nnUNetv2_spmc_plan small -d 510 -c 3d_fullres",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="KIND")
    _add_small(commands)
    return parser


def _add_small(commands: argparse._SubParsersAction[Parser]) -> None:
    parser = commands.add_parser(
        "small",
        help="a configuration that trains in minutes on a CPU",
        description="Add CONFIG_small, a configuration that trains in minutes on a CPU. It has its "
        "own number of features and, if you give them, its own patch size and batch size. It "
        "inherits everything else from CONFIG, so the two share the preprocessed data.",
        epilog="Use it for first runs, tests and laptops. Train real models with the plans as "
        "nnU-Net made them.",
        example="nnUNetv2_spmc_plan small -d 510 -c 3d_fullres --batch_size 2",
    )
    add = parser.add_argument
    add("-d", required=True, metavar="ID", help="dataset id or name")
    add("-c", required=True, metavar="CONFIG", help="configuration to derive from")
    add("-p", default="nnUNetPlans", metavar="PLANS", help="plans (default: %(default)s)")
    add(
        "--features",
        type=int,
        nargs=2,
        default=(16, 128),
        metavar=("N", "MAX"),
        help="features of the first stage, doubled stage by stage up to MAX (default: 16 128)",
    )
    add(
        "--patch_size",
        type=int,
        nargs="+",
        metavar="N",
        help="voxels per axis, in the order of the plans: in 3D the slices come first (default: as "
        "planned)",
    )
    add("--batch_size", type=int, metavar="N", help="patches per step (default: as planned)")
    add(
        "--coarser",
        type=float,
        metavar="N",
        help="make voxels N times as long; such a configuration needs its own preprocessing",
    )
    add("--name", help="name of the new configuration (default: CONFIG_small)")


@command("the plans are as they were")
def main(argv: Sequence[str] | None = None) -> None:
    """Add the configuration that the arguments ask for."""
    arguments = build_parser().parse_args(argv)
    from nnunetv2_spmc.training.small_plans import add_small_configuration

    name, plans_file = add_small_configuration(
        arguments.d,
        arguments.c,
        arguments.p,
        name=arguments.name,
        features=tuple(arguments.features),
        patch_size=arguments.patch_size,
        batch_size=arguments.batch_size,
        coarser=arguments.coarser,
    )
    print(f"Added the configuration {name} to {plans_file}")


if __name__ == "__main__":
    main()

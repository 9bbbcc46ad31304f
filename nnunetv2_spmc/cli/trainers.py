"""nnUNetv2_spmc_trainers: print the folder in which nnU-Net finds the trainers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.cli.runner import command

SHELL_LINES = {
    "bash": 'export nnUNet_extTrainer="{folder}"',
    "zsh": 'export nnUNet_extTrainer="{folder}"',
    "fish": 'set -gx nnUNet_extTrainer "{folder}"',
    "powershell": '$env:nnUNet_extTrainer = "{folder}"',
    "cmd": "set nnUNet_extTrainer={folder}",
}


@command()
def main(argv: Sequence[str] | None = None) -> None:
    """Print the folder, or the line to paste into a shell."""
    parser = Parser(
        prog="nnUNetv2_spmc_trainers",
        description="Print the folder that the environment variable nnUNet_extTrainer must name, "
        "so that nnUNetv2_train and nnUNetv2_predict find the trainers of this package.",
        example='export nnUNet_extTrainer="$(nnUNetv2_spmc_trainers)"   # in bash and zsh',
    )
    parser.add_argument(
        "--shell",
        choices=sorted(SHELL_LINES),
        help="print the line to paste into this shell instead of the folder alone",
    )
    arguments = parser.parse_args(argv)
    folder = Path(__file__).resolve().parents[1] / "discovery"
    template = SHELL_LINES.get(arguments.shell, "{folder}")
    print(template.format(folder=folder))

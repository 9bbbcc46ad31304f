"""nnUNetv2_spmc_export: make a trained model usable without this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.cli.runner import command


@command()
def main(argv: Sequence[str] | None = None) -> None:
    """Export a model folder."""
    parser = Parser(
        prog="nnUNetv2_spmc_export",
        description="Write a model folder that a machine with stock nnU-Net alone can use: "
        "trainer nnUNetTrainer, main branch only, no optimizer. Equal logits are checked first.",
        epilog="To use it there: nnUNetv2_predict_from_modelfolder -m OUT -i IMAGES -o PREDICTIONS",
    )
    parser.add_argument(
        "-i",
        type=Path,
        required=True,
        metavar="MODEL_FOLDER",
        help="trained model: nnUNet_results/DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION",
    )
    parser.add_argument("-o", type=Path, required=True, metavar="OUT", help="folder to create")
    parser.add_argument(
        "-f", nargs="+", metavar="FOLD", help="folds to export (default: every finished fold)"
    )
    parser.add_argument(
        "-chk",
        default="checkpoint_final.pth",
        metavar="NAME",
        help="checkpoint to export (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)

    from nnunetv2_spmc.inference.export import export_model

    folds = export_model(arguments.i, arguments.o, arguments.f, arguments.chk)
    print(
        f"Exported fold {', '.join(folds)} to {arguments.o}: equal logits, trainer nnUNetTrainer."
    )

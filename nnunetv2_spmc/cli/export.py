"""nnUNetv2_spmc_export: make a trained model usable without this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunetv2_spmc.cli.model_options import add_folds, add_model, model_folder
from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.cli.runner import command


@command()
def main(argv: Sequence[str] | None = None) -> None:
    """Export a model folder."""
    parser = Parser(
        prog="nnUNetv2_spmc_export",
        description="Write a model folder that needs only stock nnU-Net. It holds the main branch, "
        "with the trainer nnUNetTrainer and no optimizer. The command first checks that the "
        "logits are equal.",
        epilog="On the other machine: nnUNetv2_predict_from_modelfolder -m OUT -i IMAGES "
        "-o PREDICTIONS",
        example="nnUNetv2_spmc_export -d 510 -c 3d_fullres -o exported",
    )
    add_model(parser)
    parser.add_argument("-i", dest="m", type=Path, metavar="MODEL_FOLDER", help="the same as -m")
    parser.add_argument("-o", type=Path, required=True, metavar="OUT", help="folder to create")
    add_folds(parser, "every finished one")
    arguments = parser.parse_args(argv)

    from nnunetv2_spmc.inference.export import export_model

    folder = model_folder(parser, arguments, needs_dataset=False)
    folds = export_model(folder, arguments.o, arguments.f, arguments.chk)
    print(
        f"Exported fold {', '.join(folds)} to {arguments.o}: equal logits, trainer nnUNetTrainer."
    )

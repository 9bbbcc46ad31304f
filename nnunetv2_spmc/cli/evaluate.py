"""nnUNetv2_spmc_evaluate: Dice, Jaccard, HD95 and ASD of predictions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.cli.runner import command


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog="nnUNetv2_spmc_evaluate",
        description="Measure predictions against references: Dice, Jaccard, HD95 and ASD per case "
        "and class or region, as MedPy defines them. Distances are in millimetres and in voxels. "
        "The command writes metrics.csv and metrics.json.",
        epilog="If a class is in neither mask, the case is counted but left out of every mean. If "
        "a class is in only one of the two masks, that is a failure: Dice and Jaccard are 0, and "
        "there is no distance. Voxels under the ignore label of the reference are left out. For "
        "formats without a voxel size (png), 1 mm is assumed. Cases that cannot be measured, for "
        "example because a file is truncated, are named and left out, and the exit status is 1.",
        example="nnUNetv2_spmc_evaluate -ref Dataset510_Liver/labelsTs -pred predictions",
    )
    add = parser.add_argument
    add("-ref", type=Path, required=True, metavar="LABELS", help="folder of the references")
    add("-pred", type=Path, required=True, metavar="PREDICTIONS", help="folder of the predictions")
    add(
        "-djfile",
        type=Path,
        metavar="FILE",
        help="dataset.json of the dataset (default: the one that nnU-Net writes into PREDICTIONS)",
    )
    add("-o", type=Path, metavar="OUT", help="folder for the results (default: PREDICTIONS)")
    add(
        "-np",
        type=int,
        metavar="N",
        help="number of processes; lower it if memory runs out; 0: no worker processes "
        "(default: nnU-Net's, but at most one per CPU core)",
    )
    add(
        "--chill",
        action="store_true",
        help="if some predictions are missing, evaluate the others, for example the validation "
        "cases of a fold; the missing ones are named",
    )
    add("--no_pbar", action="store_true", help="no progress bar")
    return parser


@command()
def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the command; name the cases that could not be measured."""
    arguments = build_parser().parse_args(argv)
    from nnunetv2_spmc.common.errors import failure_lines
    from nnunetv2_spmc.evaluation.folder_evaluation import evaluate_folder

    evaluation = evaluate_folder(
        arguments.ref,
        arguments.pred,
        arguments.djfile or arguments.pred / "dataset.json",
        num_processes=arguments.np,
        allow_missing=arguments.chill,
        show_progress=not arguments.no_pbar,
    )
    print(evaluation.table())
    print(*evaluation.remarks(), *evaluation.notes, sep="\n")
    try:
        files = evaluation.write(arguments.o or arguments.pred)
        print("Written: " + ", ".join(str(file) for file in files))
    finally:
        if evaluation.failed:
            number = len(evaluation.failed) + len({row.case for row in evaluation.rows})
            print(failure_lines(evaluation.failed, number), file=sys.stderr)
    return 1 if evaluation.failed else None


if __name__ == "__main__":
    main()

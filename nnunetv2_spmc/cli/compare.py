"""nnUNetv2_spmc_compare: methods over seeds, and their paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.cli.runner import command


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog="nnUNetv2_spmc_compare",
        description="Compare evaluations of the same cases: mean and standard deviation over "
        "seeds, and paired differences per case to the first run with a Wilcoxon signed-rank test "
        "and a bootstrap interval.",
        example="nnUNetv2_spmc_compare control=control_seed{0,1} spmc=spmc_seed{0,1} -o comparison",
    )
    add = parser.add_argument
    add(
        "runs",
        nargs="+",
        metavar="RUN",
        help="FOLDER or NAME=FOLDER[,FOLDER...]: folders with a metrics.csv of "
        "nnUNetv2_spmc_evaluate, or with one such subfolder per seed; a NAME given again adds "
        "seeds",
    )
    add("-o", type=Path, metavar="OUT", help="folder for comparison.csv and comparison.png")
    return parser


@command("both files are whole, or as they were")
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = build_parser().parse_args(argv)
    from nnunetv2_spmc.common.whole_file import made_folder, whole_files
    from nnunetv2_spmc.evaluation.box_plot import draw_box_plot
    from nnunetv2_spmc.evaluation.comparison_report import compare
    from nnunetv2_spmc.evaluation.methods import read_methods

    methods = read_methods(arguments.runs)
    comparison = compare(methods)
    print(comparison.text())
    if arguments.o is not None:
        with made_folder(arguments.o), whole_files(arguments.o) as new:
            files = [comparison.write_csv(new), draw_box_plot(methods, new)]
        print("Written: " + ", ".join(str(arguments.o / file.name) for file in files))


if __name__ == "__main__":
    main()

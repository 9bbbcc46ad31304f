"""nnUNetv2_spmc_compare: the trained models of a dataset, or methods over seeds.

    nnUNetv2_spmc_compare -d 510 -c 3d_fullres
    nnUNetv2_spmc_compare control=control_seed0,control_seed1 spmc=spmc_seed0,spmc_seed1

The first finds the models, and ends in one sentence: which to use. The second compares folders of
metrics.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.cli.runner import command

if TYPE_CHECKING:
    from nnunetv2_spmc.evaluation.comparison_report import Comparison
    from nnunetv2_spmc.evaluation.methods import Method


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog="nnUNetv2_spmc_compare",
        usage="%(prog)s [-h] [--version] -d DATASET -c CONFIG\n"
        "           [-tr TRAINER [TRAINER ...]] [-p PLANS] [-f FOLD [FOLD ...]]\n"
        "           [--results FOLDER [FOLDER ...]] [-o OUT]\n"
        "       %(prog)s [-h] [--version] -m MODEL_FOLDER [MODEL_FOLDER ...]\n"
        "           [-f FOLD [FOLD ...]] [-o OUT]\n"
        "       %(prog)s [-h] [--version] [-o OUT] RUN [RUN ...]",
        description="Compare the trained models of a dataset on the validation cases that they "
        "share, patient by patient, and say in one sentence which to use (-d -c, or -m); or "
        "compare evaluations of the same cases: mean and standard deviation over seeds, and paired "
        "differences per patient to the first run with a Wilcoxon signed-rank test and a bootstrap "
        "interval (RUN).",
        example="nnUNetv2_spmc_compare -d 510 -c 3d_fullres\n"
        "nnUNetv2_spmc_compare control=control_seed{0,1} spmc=spmc_seed{0,1} -o comparison",
    )
    add = parser.add_argument
    add(
        "runs",
        nargs="*",
        metavar="RUN",
        help="FOLDER or NAME=FOLDER[,FOLDER...]: folders with a metrics.csv of "
        "nnUNetv2_spmc_evaluate, or with one such subfolder per seed; a NAME given again adds "
        "seeds",
    )
    add("-d", metavar="DATASET", help="name or id of a dataset whose models are in nnUNet_results")
    add("-c", metavar="CONFIG", help="configuration of the models, 3d_fullres for example")
    text = "only the models of these trainers (default: all)"
    add("-tr", nargs="+", default=[], metavar="TRAINER", help=text)
    add("-p", metavar="PLANS", help="only the models of these plans (default: all)")
    text = "models: nnUNet_results/DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION, instead of -d -c"
    add("-m", nargs="+", type=Path, default=[], metavar="MODEL_FOLDER", help=text)
    add("-f", nargs="+", default=[], metavar="FOLD", help="only these folds (default: all)")
    text = "folders to take instead of nnUNet_results: the same trainings with other seeds each"
    add("--results", nargs="+", type=Path, default=[], metavar="FOLDER", help=text)
    text = "folder for comparison.csv and comparison.png (default: write nothing)"
    add("-o", type=Path, metavar="OUT", help=text)
    return parser


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments; refuse a mixture of the two ways to call the command."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    of_models = {"-d": arguments.d, "-c": arguments.c, "-tr": arguments.tr, "-p": arguments.p}
    of_models |= {"--results": arguments.results}
    if arguments.m and (named := [option for option, value in of_models.items() if value]):
        parser.error(f"-m names the models already; leave {' '.join(named)} out")
    of_models |= {"-m": arguments.m, "-f": arguments.f}
    given = [option for option, value in of_models.items() if value]
    if arguments.runs and given:
        parser.error(
            f"{given[0]} compares trained models, and {arguments.runs[0]} is a folder of metrics; "
            "give one or the other."
        )
    if not (arguments.runs or arguments.m or (arguments.d and arguments.c)):
        missing = "-c" if arguments.d else "-d"
        parser.error(
            f"{missing} is missing."
            if given
            else "give -d and -c, or -m, or folders with a metrics.csv."
        )
    return arguments


@command("both files are whole, or as they were")
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = parse_arguments(argv)
    if arguments.d or arguments.m:
        _compare_models(arguments)
        return
    from nnunetv2_spmc.evaluation.comparison_report import compare
    from nnunetv2_spmc.evaluation.methods import patients_of_methods, read_methods

    methods = read_methods(arguments.runs)
    comparison = compare(methods, patients_of_methods(methods))
    print(comparison.text())
    _write(methods, comparison, arguments.o)


def _compare_models(arguments: argparse.Namespace) -> None:
    from nnunetv2_spmc.evaluation.comparison_report import compare
    from nnunetv2_spmc.reports.found_models import Question, question_of
    from nnunetv2_spmc.reports.model_choice import choose
    from nnunetv2_spmc.reports.model_differences import as_methods

    if arguments.m:
        question = question_of(arguments.m, arguments.f)
    else:
        question = Question(
            arguments.d,
            arguments.c,
            trainers=tuple(arguments.tr),
            plans=arguments.p or "",
            results=tuple(arguments.results),
            folds=tuple(arguments.f),
        )
    choice = choose(question)
    print(choice.text())
    if arguments.o is not None:
        methods, patients = as_methods(choice.models, choice.recommendation.patients)
        _write(methods, compare(methods, patients), arguments.o)
    print(choice.sentence)


def _write(methods: Sequence[Method], comparison: Comparison, folder: Path | None) -> None:
    """Write table and plot, if a folder is given."""
    from nnunetv2_spmc.common.whole_file import made_folder, whole_files
    from nnunetv2_spmc.evaluation.box_plot import draw_box_plot

    if folder is None:
        return
    with made_folder(folder), whole_files(folder) as new:
        files = [comparison.write_csv(new), draw_box_plot(methods, new)]
    print("Written: " + ", ".join(str(folder / file.name) for file in files))


if __name__ == "__main__":
    main()

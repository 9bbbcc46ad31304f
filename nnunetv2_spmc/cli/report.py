"""nnUNetv2_spmc_report: one or several trainings on one self-contained page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nnunetv2_spmc.cli.model_options import add_model, model_folders
from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.cli.runner import command
from nnunetv2_spmc.training.devices import DEVICES

EPILOG = """\
The page begins with the answer: the difference in Dice between each method and the supervised
control, with its 95 % interval, and to the view control if there is one. Without a supervised
control, the view control or else the first run takes its place. Pictures, metrics, curves and
settings follow. Runs that differ only in seed or fold are trainings of one method.

If nnUNet_raw has labeled test cases, the page judges by them, otherwise by the validation cases.
Test cases that are not predicted yet are predicted, with their maps, into RUN/test, where the next
report finds them. Of validation cases, only those that are shown are predicted once more, for their
maps, which are kept in RUN/validation_maps. Images are read from nnUNet_raw, and references from
nnUNet_raw and nnUNet_preprocessed: set both as for nnU-Net."""


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog="nnUNetv2_spmc_report",
        description="Write one HTML page about trainings: which one is better and by how much, "
        "the worst and best cases, a viewer, metrics, curves, and what was trained on what. It "
        "needs no network. Unfinished trainings are shown up to their last epoch. Damaged parts "
        "are left out and named, and the exit status is 1.",
        epilog=EPILOG,
        example="nnUNetv2_spmc_report -d 510 -c 3d_fullres -f 0 -o report.html "
        "-tr nnUNetTrainerSupervisedControl nnUNetTrainerSPMC",
    )
    add = parser.add_argument
    add(
        "runs",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="fold folder: nnUNet_results/DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION/fold_0; "
        "or name models with -m, or -d -c -tr",
    )
    add_model(parser, several=True)
    add("-f", nargs="+", metavar="FOLD", help="folds of these models (default: all that exist)")
    add("-o", type=Path, required=True, metavar="REPORT.html", help="file to write")
    add(
        "-pred",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="existing predictions of the test cases, one folder for each run, in the same order, "
        "as nnUNetv2_predict or nnUNetv2_spmc_uncertainty writes them (default: RUN/test)",
    )
    add(
        "--validation",
        action="store_true",
        help="judge by the validation cases even if there are test cases",
    )
    add(
        "--cases",
        type=int,
        default=2,
        metavar="N",
        help="how many of the worst and of the best cases to show (default: %(default)s)",
    )
    add(
        "--no_maps",
        action="store_true",
        help="predict nothing: show only test cases and maps that are already stored",
    )
    add("--no_viewer", action="store_true", help="leave out the interactive viewer (some MB)")
    add("--title", help="heading of the page (default: the names of the datasets)")
    add(
        "-device",
        choices=DEVICES,
        help="device to predict on (default: the GPU if there is one)",
    )
    add(
        "-np",
        type=int,
        metavar="N",
        help="processes that measure surface distances; lower it if memory runs out; 0: no worker "
        "processes (default: nnU-Net's, but at most one per CPU core)",
    )
    return parser


@command("no page was written; test cases that were predicted are kept")
def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the command; name what is not on the page because it is damaged."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.cases < 0:
        parser.error(f"--cases must be at least 0, got {arguments.cases}")
    if arguments.np is not None and arguments.np < 0:
        parser.error(f"-np must be at least 0, got {arguments.np}")
    if arguments.pred and arguments.validation:
        parser.error("-pred names predictions of test cases, --validation leaves these out")
    if arguments.o.is_dir():
        parser.error(
            f"{arguments.o} is a folder; name a file such as {arguments.o / 'report.html'}"
        )
    from nnunetv2_spmc.common.whole_file import refuse_another_file

    refuse_another_file(arguments.o, "<!doctype html>", "report")
    parser.check_page(arguments.o)
    from nnunetv2_spmc.reports.report import folds_of, unique_folders

    models = model_folders(parser, arguments)
    if arguments.f and not models:
        parser.error("-f chooses folds of models; name these with -m, or -d -c -tr")
    folders = unique_folders([*arguments.runs, *folds_of(models, arguments.f)])
    if not folders:
        parser.error("name a training: RUN, or -m MODEL_FOLDER, or -d ID -c CONFIG -tr TRAINER")
    if arguments.pred and len(arguments.pred) != len(folders):
        parser.error(f"-pred names {len(arguments.pred)} folders for {len(folders)} runs")
    return _write(arguments, folders)


def _write(arguments: argparse.Namespace, folders: Sequence[Path]) -> int | None:
    from nnunetv2_spmc.reports.page import write_page
    from nnunetv2_spmc.reports.report import Options, default_title, gather_report
    from nnunetv2_spmc.reports.run_record import RunRecord
    from nnunetv2_spmc.training.devices import best_device, check_device

    device = arguments.device or best_device()
    check_device(device)
    log = partial(print, flush=True)  # one line at a time into a file, too
    runs = [RunRecord.load(folder, device) for folder in folders]
    options = Options(
        num_cases=arguments.cases,
        with_maps=not arguments.no_maps,
        test_cases=not arguments.validation,
        predictions=arguments.pred,
        num_processes=arguments.np,
        show_progress=True,
        log=log,
    )
    report = gather_report(runs, options)
    title = arguments.title or default_title(runs)
    write_page(report, arguments.o, title=title, with_viewer=not arguments.no_viewer, log=log)
    for note in report.notes:
        print(f"note: {note}")
    for answer in report.answers:
        print(f"{answer.headline} {answer.details}".rstrip())
    print(f"Wrote {arguments.o} ({arguments.o.stat().st_size / 1e6:.1f} MB).")
    for what, reason in report.failed.items():
        print(f"failed: {what}: {reason}", file=sys.stderr)
    return 1 if report.failed else None


if __name__ == "__main__":
    main()

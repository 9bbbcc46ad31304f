"""nnUNetv2_spmc_report: one or several trainings on one self-contained page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.cli.runner import command


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog="nnUNetv2_spmc_report",
        description="Write one HTML page about trainings: what was trained on what, curves, "
        "metrics of the validation cases, worst and best cases, a viewer. The page needs no "
        "network. Unfinished trainings are shown as far as they got. What is damaged is left out "
        "and named; the exit status is 1 then.",
        epilog="Images are read from nnUNet_raw, references from nnUNet_preprocessed: set both as "
        "for nnU-Net.",
        example="nnUNetv2_spmc_report $nnUNet_results/Dataset510_Liver/*/fold_0 -o report.html",
    )
    add = parser.add_argument
    add(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="fold folder: nnUNet_results/DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION/fold_0",
    )
    add("-o", type=Path, required=True, metavar="REPORT.html", help="file to write")
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
        help="do not predict those cases again for confidence and common-difficulty voxels",
    )
    add("--no_viewer", action="store_true", help="leave out the interactive viewer (some MB)")
    add("--title", help="heading of the page")
    return parser


@command()
def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the command; name what is not on the page because it is damaged."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.cases < 0:
        parser.error(f"--cases must be at least 0, got {arguments.cases}")
    if arguments.o.is_dir():
        parser.error(
            f"{arguments.o} is a folder; name a file such as {arguments.o / 'report.html'}"
        )
    from nnunetv2_spmc.common.whole_file import refuse_another_file

    refuse_another_file(arguments.o, "<!doctype html>", "report")
    from nnunetv2_spmc.reports.page import write_page
    from nnunetv2_spmc.reports.report import default_title, gather_report, unique_folders
    from nnunetv2_spmc.reports.run_record import RunRecord

    runs = [RunRecord.load(folder) for folder in unique_folders(arguments.runs)]
    report = gather_report(runs, num_cases=arguments.cases, with_maps=not arguments.no_maps)
    title = arguments.title or default_title(runs)
    write_page(report, arguments.o, title=title, with_viewer=not arguments.no_viewer)
    for note in report.notes:
        print(f"note: {note}")
    print(f"Wrote {arguments.o} ({arguments.o.stat().st_size / 1e6:.1f} MB).")
    for what, reason in report.failed.items():
        print(f"failed: {what}: {reason}", file=sys.stderr)
    return 1 if report.failed else None


if __name__ == "__main__":
    main()

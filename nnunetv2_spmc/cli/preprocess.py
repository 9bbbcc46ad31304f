"""nnUNetv2_spmc_preprocess: the unlabeled cases, with the plans of the labeled ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.cli.runner import command

# What nnUNetv2_preprocess starts: the 3D full resolution needs more memory per process.
DEFAULT_PROCESSES = {"2d": 8, "3d_fullres": 4, "3d_lowres": 8}


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog="nnUNetv2_spmc_preprocess",
        description="Preprocess the unlabeled cases (imagesUn) of a dataset that "
        "nnUNetv2_plan_and_preprocess has planned. Finished cases are skipped, so an interrupted "
        "run goes on where it stopped.",
        example="nnUNetv2_spmc_preprocess -d 510 -c 3d_fullres",
    )
    add = parser.add_argument
    add("-d", nargs="+", required=True, metavar="ID", help="dataset ids or names")
    add("-c", nargs="+", required=True, metavar="CONFIG", help="configurations, 3d_fullres ...")
    add("-p", default="nnUNetPlans", metavar="PLANS", help="plans (default: %(default)s)")
    text = "number of processes; lower it if memory runs out; 0: no worker processes "
    add("-np", type=int, metavar="N", help=f"{text}(default: 8 for 2d and 3d_lowres, 4 otherwise)")
    text = "share the cases among K runs, for example on several computers (default: %(default)s)"
    add("-num_parts", type=int, default=1, metavar="K", help=text)
    text = "the part that this run does, from 0 to K-1 (default: %(default)s)"
    add("-part_id", type=int, default=0, metavar="I", help=text)
    add("--verify", action="store_true", help="decompress the finished cases and redo broken ones")
    add(
        "--overwrite",
        action="store_true",
        help="make all cases again, after the plans have changed",
    )
    text = "accept unlabeled cases that are labeled or test cases as well"
    add(
        "--allow_overlap",
        action="store_true",
        help=f"{text}; numbers measured on these will be too good",
    )
    add("--no_pbar", action="store_true", help="no progress bar")
    return parser


@command("finished cases are kept, the same command goes on")
def main(argv: Sequence[str] | None = None) -> int | None:
    """Preprocess each dataset and configuration."""
    arguments = build_parser().parse_args(argv)
    from nnunetv2_spmc.unlabeled.preprocessing import PreprocessingOptions, preprocess_unlabeled

    failed = {}
    try:
        for dataset in arguments.d:
            name = f"{dataset} " if len(arguments.d) > 1 else ""
            for configuration in arguments.c:
                processes = arguments.np
                if processes is None:
                    processes = DEFAULT_PROCESSES.get(configuration, 4)
                options = PreprocessingOptions(
                    num_processes=processes,
                    num_parts=arguments.num_parts,
                    part_id=arguments.part_id,
                    verify=arguments.verify,
                    overwrite=arguments.overwrite,
                    allow_overlap=arguments.allow_overlap,
                    show_progress=not arguments.no_pbar,
                    log=print,
                )
                report = preprocess_unlabeled(dataset, configuration, arguments.p, options)
                print(report.summary())
                for case, reason in report.failed.items():
                    failed[f"{name}{configuration} {case}"] = reason
    finally:  # also where a later dataset or configuration is refused
        for case, reason in failed.items():
            print(f"failed: {case}: {reason}", file=sys.stderr)
    return 1 if failed else None


if __name__ == "__main__":
    main()

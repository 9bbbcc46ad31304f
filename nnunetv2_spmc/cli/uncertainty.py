"""nnUNetv2_spmc_uncertainty: segmentations with maps of where the model is unsure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_spmc.cli.model_options import add_device, add_folds, add_model, model_folder
from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.cli.runner import command

EPILOG = """\
OUT/CASE.nii.gz is the segmentation that nnUNetv2_predict gives. The maps have the same name, in
subfolders:
  confidence         float32, 0 to 1; with regions, that of the region the model is least sure of
and, with the training checkpoint of nnUNetTrainerSPMC,
  auxiliary          segmentation of the auxiliary branch
  suspicious         1: the main branch is unsure, 2: the auxiliary branch is, 3: both are
  common_difficulty  1: both branches are unsure
Cases that cannot be read, for example because a file is truncated, are named and left out, and the
exit status is 1."""


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog="nnUNetv2_spmc_uncertainty",
        description="Segment images, and write maps of where the model is unsure, in the geometry "
        "of the images.",
        epilog=EPILOG,
        example="nnUNetv2_spmc_uncertainty -i images -o maps -d 510 -c 3d_fullres -f 0",
    )
    add = parser.add_argument
    add("-i", type=Path, required=True, metavar="IMAGES", help="folder with CASE_0000.nii.gz, ...")
    add("-o", type=Path, required=True, metavar="OUT", help="folder to write into")
    add_model(parser)
    add_folds(parser, "the only one that is finished")
    add_device(parser)
    add(
        "--tau",
        type=float,
        help="a voxel is suspicious if confidence <= TAU (default: as in the training)",
    )
    add("--disable_tta", action="store_true", help="no mirroring: faster, less precise")
    add("--continue_prediction", action="store_true", help="skip cases that are in OUT already")
    return parser


@command("finished cases are kept, --continue_prediction goes on")
def main(argv: Sequence[str] | None = None) -> int | None:
    """Segment every image and write its maps; name the cases that failed."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.tau is not None and not 0 <= arguments.tau <= 1:
        parser.error(f"--tau must be in [0, 1], got {arguments.tau}")
    from nnunetv2_spmc.raw.layout import refuse_to_write_into

    refuse_to_write_into(arguments.o, arguments.i)
    from nnunetv2_spmc.common.errors import failure_lines
    from nnunetv2_spmc.inference.model_folders import find_folds
    from nnunetv2_spmc.inference.trained_model import load_model
    from nnunetv2_spmc.inference.uncertainty import input_cases, missing_parts, write_uncertainty

    folder = model_folder(parser, arguments, needs_dataset=False)
    folds = find_folds(folder, arguments.f, arguments.chk)
    model = load_model(
        folds, arguments.chk, device=arguments.device, mirroring=not arguments.disable_tta
    )
    images = input_cases(arguments.i, model)
    note = missing_parts(model, arguments.tau)
    if note is not None:
        print(f"note: {note}")
    summary = write_uncertainty(
        model,
        images.cases,
        arguments.o,
        tau=arguments.tau,
        skip_finished=arguments.continue_prediction,
    )
    skipped = f", {len(summary.skipped)} were there already" if summary.skipped else ""
    number, failed = len(images.all_cases), images.failed | summary.failed
    if images.note:
        print(images.note)
    print(f"Wrote {len(summary.written)} of {number} cases to {arguments.o}{skipped}.")
    if failed:
        print(failure_lines(failed, number), file=sys.stderr)
    return 1 if failed else None


if __name__ == "__main__":
    main()

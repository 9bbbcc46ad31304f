"""nnUNetv2_spmc_rank: which unlabeled cases to annotate next."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_spmc.cli.model_options import add_device, add_folds, add_model, model_folder
from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.cli.runner import command

# as in inference.ranking, which takes seconds to import
SCORES = ("difficulty", "common_difficulty", "disagreement", "entropy", "random")
EPILOG = """\
Scores are computed over a region: voxels that either branch calls foreground, or about which both
are unsure.
  common_difficulty  share of voxels where both branches are unsure (<= tau)
  disagreement       share of voxels that the branches label differently
  difficulty         mean of the two (default)
  entropy            mean entropy of the main branch over its maximum; any model
  random             a baseline, see --seed
With -k, the first K are marked with * and chosen one by one: each is the one with the largest score
times distance to those before it. So a lower score may stand above a higher one. The others follow
by score.
Cases in which nothing was predicted have no score and come last. Cases that cannot be read, for
example because a file is truncated, are named and left out, and the exit status is 1."""


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog="nnUNetv2_spmc_rank",
        description="Order unlabeled cases by how much annotating them should help.",
        epilog=EPILOG,
        example="nnUNetv2_spmc_rank -d 510 -c 3d_fullres -f 0 -k 10 -o ranking.csv",
    )
    add = parser.add_argument
    text = "dataset id or name (default: that of the model); patients from its split.json"
    add_model(parser, dataset=text)
    add("-i", type=Path, metavar="IMAGES", help="images to rank (default: imagesUn of the dataset)")
    add("-o", type=Path, metavar="RANKING.csv", help="also write a CSV file")
    add_folds(parser, "the only one that is finished")
    add_device(parser)
    add("--score", choices=SCORES, default=SCORES[0], help="default: %(default)s")
    add(
        "-k",
        type=int,
        default=0,
        metavar="K",
        help="choose the first K cases so that they also differ from each other (weighted greedy "
        "k-center on bottleneck features; default: %(default)s, order by score alone)",
    )
    add("--by_patient", action="store_true", help="rank patients, by means over their cases")
    add("--seed", type=int, default=0, help="seed of the random score (default: %(default)s)")
    add("--disable_tta", action="store_true", help="no mirroring: faster, less precise")
    return parser


@command()
def main(argv: Sequence[str] | None = None) -> int | None:
    """Print and write the ranking; name the cases that are not in it."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.k < 0:
        parser.error(f"-k must be at least 0, got {arguments.k}")
    if arguments.o is not None and arguments.o.is_dir():
        parser.error(
            f"{arguments.o} is a folder; name a file such as {arguments.o / 'ranking.csv'}"
        )
    from nnunetv2_spmc.common.whole_file import refuse_another_file

    if arguments.o is not None:
        refuse_another_file(arguments.o, "rank,case,", "ranking")
    from nnunetv2_spmc.common.errors import failure_lines
    from nnunetv2_spmc.common.nnunet_folders import find_dataset, raw_dataset_folder, raw_folder
    from nnunetv2_spmc.inference.model_folders import dataset_of, find_folds
    from nnunetv2_spmc.inference.trained_model import load_model
    from nnunetv2_spmc.inference.uncertainty import input_cases
    from nnunetv2_spmc.inference.unlabeled_ranking import (
        check_score,
        measure_cases,
        rank,
        ranking_table,
        write_ranking,
    )
    from nnunetv2_spmc.raw.layout import IMAGES_UNLABELED
    from nnunetv2_spmc.unlabeled.leak_checks import read_groups

    folder = model_folder(parser, arguments, needs_dataset=True)
    name = find_dataset(arguments.d) if arguments.d else ""
    folds = find_folds(folder, arguments.f, arguments.chk)
    name = name or dataset_of(folds[0])
    images_folder = arguments.i or raw_folder() / find_dataset(name) / IMAGES_UNLABELED
    dataset = raw_dataset_folder(name)  # for the patients
    model = load_model(
        folds, arguments.chk, device=arguments.device, mirroring=not arguments.disable_tta
    )
    check_score(model, arguments.score)
    images = input_cases(images_folder, model)
    groups = read_groups(dataset) if dataset else {}
    measured, features, failed = measure_cases(model, images.cases, groups)
    failed = images.failed | failed
    if images.note:
        print(images.note)
    try:
        if measured:
            ranked = rank(
                measured,
                features,
                score=arguments.score,
                diverse=arguments.k,
                by_patient=arguments.by_patient,
                seed=arguments.seed,
            )
            print(ranking_table(ranked, chosen=arguments.k))
            if arguments.o is not None:
                write_ranking(arguments.o, ranked, arguments.k)
                print(f"Wrote {arguments.o}.")
    finally:
        if failed:
            print(failure_lines(failed, len(images.all_cases)), file=sys.stderr)
    return 1 if failed else None


if __name__ == "__main__":
    main()

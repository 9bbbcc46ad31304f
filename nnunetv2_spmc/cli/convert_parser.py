"""The arguments of `nnUNetv2_spmc_convert`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from nnunetv2_spmc.dataset_conversion import acdc, brats, la, phantom
from nnunetv2_spmc.dataset_conversion.brats_releases import MODALITIES
from nnunetv2_spmc.dataset_conversion.brats_targets import TARGETS
from nnunetv2_spmc.raw.writer import default_processes


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with one subcommand for each converter."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_spmc_convert",
        description="Write labeled, unlabeled and test cases to nnUNet_raw/DatasetXXX_Name.",
    )
    converters = parser.add_subparsers(title="converters", metavar="CONVERTER", required=True)
    _add_folder(converters)
    _add_la(converters)
    _add_acdc(converters)
    _add_brats(converters)
    _add_phantom(converters)
    return parser


Subparsers = argparse._SubParsersAction  # the type has no public name


def _converter(
    converters: Subparsers,
    name: str,
    summary: str,
    dataset: tuple[int, str] | None = None,
) -> argparse.ArgumentParser:
    """Add a subcommand with the options that all of them have."""
    parser: argparse.ArgumentParser = converters.add_parser(name, help=summary, description=summary)
    required = dataset is None
    dataset_id, dataset_name = dataset or (None, None)
    default = "" if required else " (default: %(default)s)"
    parser.add_argument(
        "-d",
        type=int,
        metavar="ID",
        default=dataset_id,
        required=required,
        help=f"dataset id, 1 to 999{default}",
    )
    parser.add_argument(
        "-n",
        metavar="NAME",
        default=dataset_name,
        required=required,
        help=f"dataset name{default}",
    )
    parser.add_argument(
        "-np",
        type=_integer_from(1),
        metavar="N",
        default=default_processes(),
        help="worker processes (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the dataset if it exists")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would go where and write nothing"
    )
    parser.set_defaults(converter=name, link=False)
    return parser


def _integer_from(minimum: int) -> Callable[[str], int]:
    def integer(text: str) -> int:  # argparse names the function where int() fails
        number = int(text)
        if number < minimum:
            raise argparse.ArgumentTypeError(f"has to be {minimum} or more, got {text}")
        return number

    return integer


def _path(text: str) -> Path:
    """An absolute path, so that split.json and links hold from anywhere."""
    return Path(text).expanduser().absolute()


def _add_input(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("-i", type=_path, metavar="INPUT", required=True, help=text)


def _add_link(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--link", action="store_true", help="link .nii.gz files that are right, copy none"
    )


def _add_allow_missing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="go on without the cases of the lists that are not on disk, and name them",
    )


def _add_seed(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--seed",
        type=_integer_from(0),
        default=0,
        metavar="N",
        help=f"{text} (default: %(default)s)",
    )


def _add_folder(converters: Subparsers) -> None:
    parser = _converter(
        converters,
        "folder",
        "any folder of labeled and unlabeled scans",
    )
    _add_input(parser, "folder of images: files, DICOM folders, or a folder for each case")
    parser.add_argument(
        "-l", type=_path, metavar="LABELS", help="folder of label files, named as the cases"
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        required=True,
        metavar="NAME=VALUE",
        help="classes, as background=0 liver=1; a region as whole=1,2,3",
    )
    parser.add_argument(
        "--regions-class-order",
        nargs="+",
        type=int,
        default=(),
        metavar="VALUE",
        help="label value each region is written as, in order (with regions only)",
    )
    parser.add_argument(
        "--channels",
        nargs="+",
        default=(),
        metavar="NAME",
        help="channel names; nnU-Net normalizes CT by intensity statistics, others by z-score",
    )
    parser.add_argument(
        "--channel-files",
        nargs="+",
        default=(),
        metavar="NAME=PATTERN",
        help="one folder for each case: file of each channel, as t1='*_t1.nii.gz'",
    )
    parser.add_argument(
        "--label-file",
        metavar="PATTERN",
        help="one folder for each case: its label, as '*_seg.nii.gz', beside the images or in -l",
    )
    parser.add_argument(
        "--map", nargs="+", default=(), metavar="OLD=NEW", help="change label values, as 255=1"
    )
    _add_split(parser)
    _add_link(parser)


def _add_split(parser: argparse.ArgumentParser) -> None:
    choice = (
        "a number, a fraction like 0.2, names joined by commas, or a file with one case a line "
        "(for names that are numbers)"
    )
    parser.add_argument("--test", metavar="CASES", help=f"test cases, chosen first: {choice}")
    parser.add_argument(
        "--val", metavar="CASES", help="validation cases, chosen from the rest in the same ways"
    )
    parser.add_argument(
        "--labeled",
        metavar="CASES",
        help="keep only these labels for training, chosen from the rest; others go to labelsUn "
        "(default: keep all)",
    )
    parser.add_argument(
        "--group-by",
        metavar="REGEX",
        help="first group (or match) in a case's name is the patient; patients stay together",
    )
    _add_seed(parser, "seed of numbers and fractions")


def _add_la(converters: Subparsers) -> None:
    parser = _converter(
        converters,
        "la",
        "left atrium, 2018 Atrial Segmentation Challenge",
        (la.DATASET_ID, la.NAME),
    )
    _add_input(parser, "folder with ID/lgemri.nrrd and ID/laendo.nrrd, or ID/mri_norm2.h5")
    parser.add_argument(
        "--labeled",
        type=int,
        default=la.LABELED,
        metavar="N",
        help="labeled scans, the first of the list; 8 or 16 in papers (default: %(default)s)",
    )
    _add_allow_missing(parser)


def _add_acdc(converters: Subparsers) -> None:
    parser = _converter(
        converters,
        "acdc",
        "cardiac cine MRI, Automated Cardiac Diagnosis Challenge",
        (acdc.DATASET_ID, acdc.NAME),
    )
    _add_input(parser, "folder with training/patientXXX, or data/patientXXX_frameYY.h5")
    parser.add_argument(
        "--labeled",
        type=int,
        default=acdc.LABELED,
        metavar="N",
        help="labeled patients, the first of the list; 3, 7 or 14 in papers (default: %(default)s)",
    )
    parser.add_argument(
        "--use-4d-frames",
        action="store_true",
        help="add the other frames of training patients as unlabeled cases",
    )
    _add_allow_missing(parser)
    _add_link(parser)


def _add_brats(converters: Subparsers) -> None:
    parser = _converter(
        converters,
        "brats",
        "brain tumours, BraTS 2018 to 2021 and BraTS-GLI, -MET, -MEN, -SSA since 2023",
        (brats.DATASET_ID, brats.NAME),
    )
    _add_input(parser, "folder with the cases of one release somewhere below it")
    parser.add_argument(
        "--labeled",
        type=int,
        default=brats.LABELED,
        metavar="N",
        help="labeled cases, for 2019 the first of the list (default: %(default)s)",
    )
    parser.add_argument(
        "--modalities",
        nargs="+",
        choices=MODALITIES,
        default=["flair"],
        metavar="NAME",
        help="channels, by their names until 2021 or since 2023: flair or t2f, t1 or t1n, t1ce or "
        "t1c, t2 or t2w, or all (default: flair, as in the semi-supervised papers)",
    )
    parser.add_argument(
        "--target",
        choices=list(TARGETS),
        default="whole-tumor",
        help="what to segment; the resection cavity (2024 and later) is a class in labels, "
        "background in the others (default: %(default)s)",
    )
    _add_allow_missing(parser)
    _add_seed(parser, "seed of the random split of releases other than 2019")
    _add_link(parser)


def _add_phantom(converters: Subparsers) -> None:
    parser = _converter(
        converters,
        "phantom",
        "small synthetic scans, to try everything out",
        (phantom.DATASET_ID, phantom.NAME),
    )
    for name, number in (
        ("labeled", phantom.LABELED),
        ("unlabeled", phantom.UNLABELED),
        ("test", phantom.TEST),
    ):
        parser.add_argument(
            f"--{name}",
            type=int,
            default=number,
            metavar="N",
            help=f"{name} cases (default: %(default)s)",
        )
    parser.add_argument(
        "--size",
        nargs=3,
        type=int,
        default=phantom.SIZE,
        metavar=("X", "Y", "Z"),
        help=f"voxels (default: {' '.join(map(str, phantom.SIZE))})",
    )
    _add_seed(parser, "seed of everything")

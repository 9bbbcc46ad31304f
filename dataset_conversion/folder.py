"""Folder: any collection of labeled and unlabeled scans.

Labels and roles are what the options say; a case without a label file is unlabeled. Expected
input, one of

    IMAGES/case_0000.ext, case_0001.ext    LABELS/case.ext    channels by nnU-Net's suffixes
    IMAGES/case.ext                        LABELS/case.ext    one channel
    IMAGES/case/*.dcm                      LABELS/case.ext    a DICOM series in each folder
    IMAGES/case/PATTERN                    LABELS/case.ext, or a pattern in IMAGES/case

in any format that SimpleITK reads.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nnunetv2_spmc.dataset_conversion import Converter
from nnunetv2_spmc.dataset_conversion.arguments import absolute_path, add_input, add_link
from nnunetv2_spmc.dataset_conversion.folder_layout import FolderLayout, FoundCase, find_cases
from nnunetv2_spmc.dataset_conversion.split_request import SplitRequest, add_split, split_request
from nnunetv2_spmc.raw.cases import ConversionError, RawCase, RawDataset, safe_identifier
from nnunetv2_spmc.raw.splits import RoleAssignment, assign_roles
from nnunetv2_spmc.raw.summary import ConversionSummary
from nnunetv2_spmc.raw.writer import WriteOptions, write_raw_dataset


@dataclass(frozen=True)
class LabelDefinition:
    """The classes, and how values in the files become them."""

    labels: Mapping[str, int | tuple[int, ...]]
    label_map: Mapping[int, int] = field(default_factory=dict)
    regions_class_order: tuple[int, ...] = ()
    trust_grid: bool = (
        False  # a label of its image's shape is on its grid, whatever its header says
    )


def convert_folder(
    layout: FolderLayout,
    classes: LabelDefinition,
    split: SplitRequest,
    *,
    dataset_id: int,
    name: str,
    options: WriteOptions | None = None,
) -> ConversionSummary:
    """Convert the scans of a folder.

    Args:
        layout: Where images and labels are.
        classes: What the labels mean.
        split: Which case plays which role.
        dataset_id: nnU-Net dataset id.
        name: Dataset name.
        options: How to write.

    Raises:
        ConversionError: If anything is wrong with the input.
    """
    found = {safe_identifier(case.name): case for case in _distinct(find_cases(layout))}
    patients = {identifier: split.patient(identifier) for identifier in found}
    with_label = {identifier for identifier, case in found.items() if case.label is not None}
    assignment = assign_roles(
        patients,
        with_label,
        test=split.test,
        validation=split.validation,
        labeled=split.labeled,
        seed=split.seed,
    )
    dataset = RawDataset(
        dataset_id=dataset_id,
        name=name,
        converter="folder",
        source=str(layout.images),
        protocol=split.protocol,
        channel_names=layout.channels,
        labels=classes.labels,
        cases=_raw_cases(found, patients, assignment),
        label_map=classes.label_map,
        label_advice="name them in --labels or map them with --map OLD=NEW",
        regions_class_order=classes.regions_class_order,
        trust_label_grid=classes.trust_grid,
        seed=split.seed,
        options=_recorded(layout, classes, split),
        left_out=assignment.left_out,
        notes=assignment.notes,
    )
    return write_raw_dataset(dataset, options or WriteOptions())


def _distinct(cases: Iterable[FoundCase]) -> list[FoundCase]:
    seen: dict[str, str] = {}
    cases = list(cases)
    for case in cases:
        other = seen.setdefault(safe_identifier(case.name), case.name)
        if other != case.name:
            raise ConversionError(
                f"Cases {other!r} and {case.name!r} would both be called "
                f"{safe_identifier(case.name)!r}; rename one of them."
            )
    return cases


def _raw_cases(
    found: Mapping[str, FoundCase], patients: Mapping[str, str], assignment: RoleAssignment
) -> tuple[RawCase, ...]:
    return tuple(
        RawCase(
            identifier=identifier,
            images=found[identifier].images,
            role=role,
            label=found[identifier].label,
            group=patients[identifier],
        )
        for identifier, role in assignment.roles.items()
    )


def _recorded(
    layout: FolderLayout, classes: LabelDefinition, split: SplitRequest
) -> dict[str, object]:
    """The options in a form that JSON can hold."""
    return {
        "images": str(layout.images),
        "labels": None if layout.labels is None else str(layout.labels),
        "channel_files": dict(layout.channel_files),
        "label_file": layout.label_file,
        "trust_label_grid": classes.trust_grid,
        "map": {str(old): new for old, new in classes.label_map.items()},
        "test": split.test,
        "val": split.validation,
        "labeled": split.labeled,
        "group_by": split.group_by,
    }


def parse_labels(items: Iterable[str]) -> dict[str, int | tuple[int, ...]]:
    """Read ['background=0', 'liver=1', 'whole=1,2'] as label definition."""
    labels: dict[str, int | tuple[int, ...]] = {}
    for name, value in _pairs(items, "--labels").items():
        try:
            numbers = tuple(int(number) for number in value.split(","))
        except ValueError as error:
            raise ConversionError(f"--labels {name}={value}: {value!r} is no integer.") from error
        labels[name] = numbers[0] if len(numbers) == 1 else numbers
    return labels


def parse_label_map(items: Iterable[str]) -> dict[int, int]:
    """Read ['255=1'] as {255: 1}."""
    try:
        return {int(old): int(new) for old, new in _pairs(items, "--map").items()}
    except ValueError as error:
        raise ConversionError(f"--map takes integers, OLD=NEW, got {list(items)}.") from error


def parse_channel_files(items: Iterable[str]) -> dict[str, str]:
    """Read ['flair=*_flair.nii.gz'] as {'flair': '*_flair.nii.gz'}."""
    return _pairs(items, "--channel-files")


def _pairs(items: Iterable[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in items:
        name, separator, value = item.partition("=")
        if not (name and separator and value):
            raise ConversionError(f"{option} takes NAME=VALUE, got {item!r}.")
        if name in pairs:
            raise ConversionError(f"{option} names {name} twice.")
        pairs[name] = value
    return pairs


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_input(parser, "folder of images: files, DICOM folders, or a folder for each case")
    add = parser.add_argument
    add(
        "-l", type=absolute_path, metavar="LABELS", help="folder of label files, named as the cases"
    )
    _add_classes(parser)
    add(
        "--channels",
        nargs="+",
        default=(),
        metavar="NAME",
        help="channel names; nnU-Net normalizes CT by intensity statistics, others by z-score",
    )
    add(
        "--channel-files",
        nargs="+",
        default=(),
        metavar="NAME=PATTERN",
        help="one folder for each case: file of each channel, as t1='*_t1.nii.gz'",
    )
    add(
        "--label-file",
        metavar="PATTERN",
        help="one folder for each case: its label, as '*_seg.nii.gz', beside the images or in -l",
    )
    text = "change label values, as 255=1"
    add("--map", nargs="+", default=(), metavar="OLD=NEW", help=text)
    text = "labels of their image's shape lie on it, whatever their header says: take the image's"
    add("--trust-label-grid", action="store_true", help=text)
    add_split(parser)
    add_link(parser)


def _add_classes(parser: argparse.ArgumentParser) -> None:
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


def _convert(arguments: argparse.Namespace, options: WriteOptions) -> ConversionSummary:
    channel_files = parse_channel_files(arguments.channel_files)
    return convert_folder(
        FolderLayout(
            images=arguments.i,
            labels=arguments.l,
            channels=tuple(arguments.channels or channel_files),
            channel_files=channel_files,
            label_file=arguments.label_file,
        ),
        LabelDefinition(
            labels=parse_labels(arguments.labels),
            label_map=parse_label_map(arguments.map),
            regions_class_order=tuple(arguments.regions_class_order),
            trust_grid=arguments.trust_label_grid,
        ),
        split_request(arguments),
        dataset_id=arguments.d,
        name=arguments.n,
        options=options,
    )


CONVERTER = Converter("any folder of labeled and unlabeled scans", _add_arguments, _convert)

"""Folder: any collection of labeled and unlabeled scans.

Labels and roles are what the options say; a case without a label file is unlabeled. Expected
input, one of

    IMAGES/case_0000.ext, case_0001.ext    LABELS/case.ext    channels by nnU-Net's suffixes
    IMAGES/case.ext                        LABELS/case.ext    one channel
    IMAGES/case/*.dcm                      LABELS/case.ext    a DICOM series in each folder
    IMAGES/case/PATTERN                    LABELS/case.ext, or a pattern

in any format that SimpleITK reads. A label may bear a suffix after the case's name (case_seg.ext),
match a pattern in LABELS/case or IMAGES/case, or come as one mask for each class.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nnunetv2_spmc.dataset_conversion import Converter
from nnunetv2_spmc.dataset_conversion.folder_arguments import (
    add_arguments,
    parse_channel_files,
    parse_label_files,
    parse_label_map,
    parse_labels,
)
from nnunetv2_spmc.dataset_conversion.folder_files import FolderLayout
from nnunetv2_spmc.dataset_conversion.folder_layout import FoundCase, find_cases
from nnunetv2_spmc.dataset_conversion.split_request import SplitRequest, split_request
from nnunetv2_spmc.raw.cases import (
    ConversionError,
    RawCase,
    RawDataset,
    name_some,
    safe_identifier,
)
from nnunetv2_spmc.raw.sources import relative_name
from nnunetv2_spmc.raw.splits import RoleAssignment, assign_roles
from nnunetv2_spmc.raw.summary import ConversionSummary
from nnunetv2_spmc.raw.writer import WriteOptions, write_raw_dataset


@dataclass(frozen=True)
class LabelDefinition:
    """The classes, and how values in the files become them."""

    labels: Mapping[str, int | tuple[int, ...]]
    label_map: Mapping[int, int] = field(default_factory=dict)
    regions_class_order: tuple[int, ...] = ()
    trust_grid: bool = False  # a label of its image's shape lies on it, whatever its header says


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
    masks = _mask_values(layout, classes)
    found = {safe_identifier(case.name): case for case in _distinct(find_cases(layout, masks))}
    patients = split.patients(found)
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
        label_source=str(layout.labels or ""),
        notes=(
            *_suffix_note(layout, found.values()),
            *assignment.notes,
            *split.notes(assignment.roles, patients),
        ),
    )
    return write_raw_dataset(dataset, options or WriteOptions())


def _mask_values(layout: FolderLayout, classes: LabelDefinition) -> dict[str, int]:
    """Return the label value of each class that has a mask of its own."""
    if not layout.label_files:
        return {}
    values = {name: value for name, value in classes.labels.items() if isinstance(value, int)}
    values.pop("background", None)
    wrong = [name for name in layout.label_files if name not in values]
    absent = [name for name in values if name not in layout.label_files]
    if wrong or len(values) + 1 < len(classes.labels):
        raise ConversionError(
            f"--label_files takes classes of --labels that have one value, {name_some(values)}; "
            f"correct {name_some(wrong) or 'the regions'}."
        )
    if absent:
        raise ConversionError(
            f"--label_files has no pattern for {name_some(absent)}; add it, or take the class out "
            "of --labels."
        )
    if classes.label_map:
        raise ConversionError(
            "--map changes the values of labels, but the masks of --label_files are 0 outside and "
            "1 or 255 inside; leave --map out."
        )
    return values


def _suffix_note(layout: FolderLayout, cases: Iterable[FoundCase]) -> list[str]:
    """Say what follows the case's name in the names of labels, if anything does."""
    if layout.label_patterns:
        return []
    suffixes = Counter(case.label_suffix for case in cases if case.label_suffix)
    origin = "as --label_suffix says" if layout.label_suffix else "--label_suffix names another"
    return [
        f"{number} {'label is' if number == 1 else 'labels are'} called CASE{suffix} ({origin})"
        for suffix, number in sorted(suffixes.items())
    ]


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
        "labels": layout.labels and relative_name(layout.labels, layout.images),
        "channel_files": dict(layout.channel_files),
        "label_file": layout.label_file,
        "trust_label_grid": classes.trust_grid,
        "label_files": dict(layout.label_files),
        "label_suffix": layout.label_suffix,
        "later_mask_counts": layout.later_mask_counts,
        "map": {str(old): new for old, new in classes.label_map.items()},
        "test": split.test,
        "val": split.validation,
        "labeled": split.labeled,
        "group_by": split.group_by,
    }


def _convert(arguments: argparse.Namespace, options: WriteOptions) -> ConversionSummary:
    channel_files = parse_channel_files(arguments.channel_files)
    return convert_folder(
        FolderLayout(
            images=arguments.i,
            labels=arguments.l,
            channels=tuple(arguments.channels or channel_files),
            channel_files=channel_files,
            label_file=arguments.label_file,
            label_files=parse_label_files(arguments.label_files),
            label_suffix=arguments.label_suffix,
            later_mask_counts=arguments.later_mask_counts,
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


CONVERTER = Converter(
    "any folder of labeled and unlabeled scans",
    add_arguments,
    _convert,
    example="nnUNetv2_spmc_convert folder -i images -l labels -d 510 -n Liver "
    "--labels background=0 liver=1 --channels CT",
)

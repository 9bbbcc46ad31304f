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

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_spmc.dataset_conversion.folder_layout import (
    FolderLayout,
    FoundCase,
    find_cases,
    strip_ending,
)
from nnunetv2_spmc.raw.cases import ConversionError, RawCase, RawDataset, safe_identifier
from nnunetv2_spmc.raw.splits import RoleAssignment, Selection, assign_roles
from nnunetv2_spmc.raw.summary import ConversionSummary
from nnunetv2_spmc.raw.writer import WriteOptions, write_raw_dataset


@dataclass(frozen=True)
class LabelDefinition:
    """The classes, and how values in the files become them."""

    labels: Mapping[str, int | tuple[int, ...]]
    label_map: Mapping[int, int] = field(default_factory=dict)
    regions_class_order: tuple[int, ...] = ()


@dataclass(frozen=True)
class SplitRequest:
    """Which cases are test, validation and labeled; the rest is unlabeled.

    Attributes:
        test: Test cases: a number, a fraction of the labeled ones, or names.
        validation: Validation cases, likewise from what remains.
        labeled: Cases that keep their label, likewise; all of them where None.
        group_by: Regular expression whose first group (or whole match) in a case's name is the
            patient.
        seed: Seed of the draws.
    """

    test: Selection | None = None
    validation: Selection | None = None
    labeled: Selection | None = None
    group_by: str | None = None
    seed: int = 0


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
    patients = {identifier: _patient(identifier, split.group_by) for identifier in found}
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
        protocol=_protocol(split),
        channel_names=layout.channels,
        labels=classes.labels,
        cases=_raw_cases(found, patients, assignment),
        label_map=classes.label_map,
        label_advice="name them in --labels or map them with --map OLD=NEW",
        regions_class_order=classes.regions_class_order,
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


def _patient(identifier: str, group_by: str | None) -> str:
    if group_by is None:
        return identifier
    try:
        match = re.search(group_by, identifier)
    except re.error as error:
        raise ConversionError(
            f"--group-by {group_by!r} is no regular expression: {error}."
        ) from error
    if match is None:
        raise ConversionError(f"--group-by {group_by!r} does not match the case {identifier}.")
    return (match.group(1) if match.re.groups else match.group(0)) or identifier


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


def _protocol(split: SplitRequest) -> str:
    parts = []
    for role, choice in (
        ("test", split.test),
        ("validation", split.validation),
        ("labeled", split.labeled),
    ):
        if isinstance(choice, tuple):
            parts.append(f"{role}: {len(choice)} named cases")
        elif choice is not None:
            parts.append(f"{role}: {choice} drawn with seed {split.seed}")
    if split.labeled is None:
        parts.append("labeled: all other cases with a label")
    return "; ".join([*parts, "unlabeled: the rest"])


def _recorded(
    layout: FolderLayout, classes: LabelDefinition, split: SplitRequest
) -> dict[str, object]:
    """The options in a form that JSON can hold."""
    return {
        "images": str(layout.images),
        "labels": None if layout.labels is None else str(layout.labels),
        "channel_files": dict(layout.channel_files),
        "label_file": layout.label_file,
        "map": {str(old): new for old, new in classes.label_map.items()},
        "test": split.test,
        "val": split.validation,
        "labeled": split.labeled,
        "group_by": split.group_by,
    }


def parse_selection(text: str | None) -> Selection | None:
    """Read N, a fraction, a file with a case on each line, or names joined by commas."""
    if text is None:
        return None
    if re.fullmatch(r"-?\d+", text):
        if int(text) < 1:
            raise ConversionError(f"At least one case has to be asked for, got {text}.")
        return int(text)
    if re.fullmatch(r"-?(\d+\.\d*|\.\d+)", text):
        if not 0 < float(text) < 1:
            raise ConversionError(f"A fraction lies between 0 and 1, got {text}.")
        return float(text)
    if Path(text).is_file():
        lines = Path(text).read_text(encoding="utf-8").splitlines()
        names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    elif Path(text).suffix in (".txt", ".list", ".csv") or "/" in text:
        raise ConversionError(f"The list {text} does not exist.")
    else:
        names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConversionError(f"The list {text!r} names no case.")
    return tuple(dict.fromkeys(safe_identifier(strip_ending(name)) for name in names))


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

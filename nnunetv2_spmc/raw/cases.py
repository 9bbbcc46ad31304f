"""What a converter hands to the raw writer: the cases, where their voxels come from, the dataset.

A converter only has to name the file of each channel of each case, and say which role each case
plays. Reading, checking and writing are the same for all of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import SimpleITK as sitk

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.text import check_name
from nnunetv2_spmc.raw.label_definition import label_values, mistakes

Role = Literal["labeled", "validation", "unlabeled", "test"]
ROLES: tuple[Role, ...] = get_args(Role)
# A patient may have labeled and unlabeled cases: both are training data.
SIDE_OF_ROLE: dict[Role, str] = {
    "labeled": "training",
    "unlabeled": "training",
    "validation": "validation",
    "test": "test",
}
USE_FOLDER_CONVERTER = (
    "get the file again, or use the folder converter (nnUNetv2_spmc_convert folder) with --map"
)


class ConversionError(DataError):
    """A dataset that cannot be converted as it is; the text is shown without a traceback."""


class ImageSource(Protocol):
    """Where the voxels of one channel or label come from; must be picklable.

    Its attributes of type Path are the files and folders it reads. One that is put together has
    `parts`, a tuple of sources.
    """

    def read(self) -> sitk.Image:
        """Return the 3D volume, or raise ConversionError."""
        ...


@dataclass(frozen=True)
class RawCase:
    """One case of the dataset: a scan with all its channels and perhaps a label.

    A label of an unlabeled case is written to labelsUn, which is never trained on.
    """

    identifier: str
    images: tuple[ImageSource, ...]
    role: Role
    label: ImageSource | None = None
    group: str = ""  # patient key; the identifier where empty
    remarks: Mapping[str, str] = field(default_factory=dict)

    @property
    def patient(self) -> str:
        """The key that keeps the cases of a patient together."""
        return self.group or self.identifier


@dataclass(frozen=True)
class LabelRules:
    """Which label values are allowed once `label_map` has been applied.

    With `closed_map` a value that `label_map` does not name is an error even where a class has it.
    """

    allowed: frozenset[int]
    label_map: Mapping[int, int]
    trust_shape: bool = False
    trust_grid: bool = False
    closed_map: bool = False
    advice: str = ""  # what to do about other values

    @property
    def expected(self) -> list[int]:
        """The values a label file may hold, as a message names them."""
        return sorted(self.label_map if self.closed_map else self.allowed)

    def accepts(self, value: int) -> bool:
        """Whether a label file may hold a value."""
        if self.closed_map:
            return value in self.label_map
        return self.label_map.get(value, value) in self.allowed


@dataclass(frozen=True)
class RawDataset:
    """Everything that ends up in nnUNet_raw/DatasetXXX_Name."""

    dataset_id: int
    name: str
    converter: str
    source: str
    protocol: str
    channel_names: tuple[str, ...]
    labels: Mapping[str, int | tuple[int, ...]]
    cases: tuple[RawCase, ...]
    label_map: Mapping[int, int] = field(default_factory=dict)
    closed_label_map: bool = False  # label_map names every value that a label may hold
    label_advice: str = USE_FOLDER_CONVERTER  # what to do about a label with other values
    optional_labels: tuple[str, ...] = ()  # classes left out where no label holds them
    regions_class_order: tuple[int, ...] = ()
    trust_label_shape: bool = False  # a label of the image's shape and spacing is on its grid
    trust_label_grid: bool = False  # a label of the image's shape is, whatever its header says
    settings: Mapping[str, Any] = field(default_factory=dict)  # dataset.json "spmc"
    information: Mapping[str, str] = field(default_factory=dict)  # licence, reference, ...
    configuration: str = "3d_fullres"
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)  # identifier -> reason
    label_source: str = ""  # the folder of the labels, where it is not below `source`
    also_read: tuple[Path, ...] = ()  # files of `source` that are not scans
    unused: tuple[str, ...] = ()  # what else lies there; the writer finds it
    notes: tuple[str, ...] = ()

    @property
    def folder_name(self) -> str:
        """The name of the folder, Dataset510_Liver for example."""
        return f"Dataset{self.dataset_id:03d}_{self.name}"

    @property
    def rules(self) -> LabelRules:
        """What the label files have to obey."""
        return LabelRules(
            frozenset(allowed_label_values(self.labels)),
            self.label_map,
            self.trust_label_shape,
            self.trust_label_grid,
            self.closed_label_map,
            self.label_advice,
        )

    def without_unused_labels(self, used: Collection[int]) -> RawDataset:
        """Leave out the optional classes that have no voxel in any label."""
        labels = {
            name: value
            for name, value in self.labels.items()
            if name not in self.optional_labels or value in used
        }
        return replace(self, labels=labels)

    def with_role(self, role: Role) -> list[RawCase]:
        """The cases of one role, by identifier."""
        return sorted((c for c in self.cases if c.role == role), key=lambda c: c.identifier)


def name_some(names: Iterable[str], limit: int = 5) -> str:
    """'a, b, c and 7 more': names for a message that stays one sentence."""
    names = list(names)
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"


def count_of(number: int, noun: str) -> str:
    """'1 case', '2 cases'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def allowed_label_values(labels: Mapping[str, int | tuple[int, ...]]) -> set[int]:
    """Every value a label file may hold, that of the ignore label included."""
    return {number for value in labels.values() for number in label_values(value)}


def check_dataset(dataset: RawDataset) -> None:
    """Raise ConversionError for what can be known before a voxel is read."""
    if not 1 <= dataset.dataset_id <= 999:
        raise ConversionError(f"A dataset id lies between 1 and 999, got {dataset.dataset_id}.")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", dataset.name):
        raise ConversionError(
            f"The dataset name {dataset.name!r} may only hold letters, digits, '_' and '-'."
        )
    check_labels(dataset.labels, dataset.regions_class_order)
    unknown = set(dataset.label_map.values()) - allowed_label_values(dataset.labels)
    if unknown:
        raise ConversionError(
            f"Label values are mapped to {name_some(map(str, sorted(unknown)))}, but no label has "
            "that value; correct --map or --labels."
        )
    _check_identifiers(dataset.cases)
    _check_roles(dataset.cases)
    check_groups(dataset.cases)


def check_labels(
    labels: Mapping[str, int | tuple[int, ...]], regions_class_order: Sequence[int]
) -> None:
    """Raise ConversionError for labels that nnU-Net refuses, or trains with to no purpose."""
    for mistake in mistakes(labels, regions_class_order):
        raise ConversionError(mistake)


def _check_identifiers(cases: Iterable[RawCase]) -> None:
    # Case-insensitive file systems would let one file replace the other.
    seen: dict[str, str] = {}
    for case in cases:
        for source in (*case.images, *([case.label] if case.label is not None else [])):
            check_name(Path(str(source)))
        key = case.identifier.casefold()
        if key in seen:
            raise ConversionError(
                f"Two cases would be called {case.identifier!r} (the other one {seen[key]!r}); "
                "rename one of them."
            )
        seen[key] = case.identifier
        if case.identifier != safe_identifier(case.identifier):
            raise ConversionError(f"nnU-Net cannot handle the case name {case.identifier!r}.")


def _check_roles(cases: Iterable[RawCase]) -> None:
    count = Counter(case.role for case in cases)
    if not count.total():
        raise ConversionError("There are no cases to convert.")
    for case in cases:
        if case.role in ("labeled", "validation") and case.label is None:
            raise ConversionError(
                f"Case {case.identifier} is meant to be {case.role} but has no label."
            )
    if not count["labeled"]:
        raise ConversionError(
            "There is no labeled case to train with: add labels, or hold out fewer cases for "
            "validation and test."
        )
    if not count["unlabeled"]:
        raise ConversionError(
            "There is no unlabeled case: add images without a label, "
            "or withhold some labels with --labeled."
        )


def check_groups(cases: Iterable[RawCase]) -> None:
    """Raise if a patient has cases on two sides of training, validation and test."""
    side_of_patient: dict[str, RawCase] = {}
    for case in cases:
        other = side_of_patient.setdefault(case.patient, case)
        if SIDE_OF_ROLE[other.role] != SIDE_OF_ROLE[case.role]:
            raise ConversionError(
                f"Patient {case.patient} would be on two sides of the split: case "
                f"{other.identifier} is {other.role}, case {case.identifier} is {case.role}; "
                "put all cases of a patient on the same side."
            )


def safe_identifier(name: str) -> str:
    """Return a case name that nnU-Net can handle, equal to `name` wherever possible.

    nnU-Net builds file names from it and takes preprocessed files that end in `_seg` for labels.
    """
    safe = re.sub(r"[^A-Za-z0-9._+-]", "_", name).lstrip(".") or "_"
    return re.sub(r"_seg$", "-seg", safe)

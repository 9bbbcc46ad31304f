"""Whose the cases are: methods are compared on patients, because scans of one are much alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_spmc.common.nnunet_folders import PREPROCESSED, folder_if_set, raw_dataset_folder
from nnunetv2_spmc.raw.cases import count_of
from nnunetv2_spmc.unlabeled.leak_checks import read_groups
from nnunetv2_spmc.unlabeled.overlap import patient_of
from nnunetv2_spmc.unlabeled.scan_record import read_scan_record


@dataclass(frozen=True)
class Patients:
    """Whose cases are whose.

    Attributes:
        of_case: case -> patient; a case that is not in it is a patient of its own.
        are_known: whether a case is told from its patient anywhere.
    """

    of_case: Mapping[str, str] = field(default_factory=dict)
    are_known: bool = False

    def of(self, case: str) -> str:
        """Return the patient of a case."""
        return self.of_case.get(case, case)

    @property
    def unit(self) -> str:
        """What is counted: 'patient', or 'case' where patients are not known."""
        return "patient" if self.are_known else "case"

    def count(self, number: int) -> str:
        """Return '10 patients', '10 cases' where patients are not known."""
        return count_of(number, self.unit)


UNKNOWN = Patients()


def patients_of(dataset_name: str, cases: Iterable[str], *folders: Path) -> Patients:
    """Return whose cases of a dataset are whose.

    The "groups" of split.json in nnUNet_raw say so; where it states none, the record of scans
    next to the plans does; and where that knows none, each case is a patient of its own.

    Args:
        dataset_name: such as Dataset510_Liver.
        cases: identifiers.
        folders: of the dataset, to look into first, wherever they lie.

    Raises:
        DataError: split.json cannot be read.
    """
    raw, preprocessed = raw_dataset_folder(dataset_name), folder_if_set(PREPROCESSED)
    groups: Mapping[str, str] = {}
    for folder in (*folders, raw):
        if not groups and folder is not None:
            groups = read_groups(folder)
    for folder in (*folders, preprocessed and preprocessed / dataset_name):
        if not groups and folder is not None and (record := read_scan_record(folder)):
            groups = record.groups
    of_case = {case: patient_of(case, groups) or case for case in cases}
    return Patients(of_case, any(case != patient for case, patient in of_case.items()))


def patients_of_references(references: Path, cases: Iterable[str]) -> Patients:
    """Return the same of cases by the folder of their references, such as DATASET/labelsTs."""
    return patients_of(references.parent.name, cases, references.parent)

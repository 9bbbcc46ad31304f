"""ACDC: cine cardiac MRI at end-diastole and end-systole, with the literature's 70/10/20 patients.

Source: https://www.creatis.insa-lyon.fr/Challenge/acdc/ (terms of use there).
Labels: 1 right ventricle (RV), 2 myocardium (MYO), 3 left ventricle (LV), as distributed.
Counts: 100 patients, 200 volumes: 70 patients for training, of whom the first N of the list are
labeled, 10 for validation, 20 for test. Patients 101-150 (`testing/`) are not part of the lists.

Expected input, one of

    training/patientXXX/patientXXX_frameYY.nii.gz, ..._gt.nii.gz, Info.cfg, patientXXX_4d.nii.gz
    data/patientXXX_frameYY.h5                 SSL4MIS volumes; its slices are not needed

or the folder above. The lists' frame01 and frame02 mean end-diastole and end-systole; cases keep
the official frame number, and split.json says which phase each one is.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_spmc.common.text import read_text
from nnunetv2_spmc.dataset_conversion import Converter
from nnunetv2_spmc.dataset_conversion.arguments import (
    add_allow_missing,
    add_input,
    add_link,
    add_number,
)
from nnunetv2_spmc.dataset_conversion.protocol_lists import (
    ACDC_TEST,
    ACDC_TRAIN,
    ACDC_VALIDATION,
)
from nnunetv2_spmc.dataset_conversion.published_split import PublishedSplit
from nnunetv2_spmc.raw.cases import (
    ConversionError,
    ImageSource,
    RawCase,
    RawDataset,
    Role,
)
from nnunetv2_spmc.raw.nifti_check import NIFTI_ENDINGS
from nnunetv2_spmc.raw.reader import FrameOf4D, H5Volume, ImageFile, image_size
from nnunetv2_spmc.raw.summary import ConversionSummary
from nnunetv2_spmc.raw.writer import WriteOptions, write_raw_dataset

SPLIT = PublishedSplit(
    train=[f"patient{number}" for number in ACDC_TRAIN],
    test=[f"patient{number}" for number in ACDC_TEST],
    validation=[f"patient{number}" for number in ACDC_VALIDATION],
    unit="patient",
)
DATASET_ID = 502
NAME = "ACDC"
LABELED = 7
CHANNELS = ("cineMRI",)
LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
H5_SPACING_MM = (1.5625, 1.5625, 10.0)  # the most frequent one in ACDC
INFORMATION = {
    "description": "Automated Cardiac Diagnosis Challenge: end-diastole and end-systole",
    "reference": "Bernard et al., IEEE Transactions on Medical Imaging 37 (2018), 2514-2525",
    "licence": "see https://www.creatis.insa-lyon.fr/Challenge/acdc/",
}
H5_NOTE = (
    "h5 layout: spacing assumed to be 1.5625 x 1.5625 x 10 mm for every volume, "
    "the files do not state it"
)


@dataclass
class Patient:
    """The files of one patient."""

    name: str
    volumes: dict[int, tuple[ImageSource, ImageSource]] = field(default_factory=dict)
    end_diastole: int | None = None  # frame number, from Info.cfg
    whole_cycle: Path | None = None  # the 4D file
    info: Path | None = None  # Info.cfg

    def phase(self, frame: int) -> str:
        """'ED' or 'ES'; without Info.cfg the earlier frame is end-diastole."""
        first = min(self.volumes) if self.end_diastole is None else self.end_diastole
        return "ED" if frame == first else "ES"


def convert_acdc(
    source: Path,
    *,
    dataset_id: int = DATASET_ID,
    name: str = NAME,
    labeled: int = LABELED,
    use_4d_frames: bool = False,
    allow_missing: bool = False,
    options: WriteOptions | None = None,
) -> ConversionSummary:
    """Convert the ACDC volumes found in `source`.

    Args:
        source: The challenge's training folder, SSL4MIS's data folder, or the one above.
        dataset_id: nnU-Net dataset id.
        name: Dataset name.
        labeled: How many patients, from the first of the training list, keep their labels.
        use_4d_frames: Add the other frames of training patients as unlabeled cases.
        allow_missing: Go on without the patients of the lists that are not on disk.
        options: How to write.

    Raises:
        ConversionError: If the input is not as expected.
    """
    SPLIT.check_labeled(labeled)
    patients, from_h5 = find_patients(source)
    missing = _missing(patients, use_4d_frames)
    SPLIT.check_missing(missing, source, allow_missing)
    roles, notes = SPLIT.roles(labeled, patients)
    cases = [case for name, role in roles.items() for case in _cases(patients[name], role)]
    if use_4d_frames:
        training = [name for name in SPLIT.train if name in patients]
        cases += [case for name in training for case in _other_frames(patients[name])]
    dataset = RawDataset(
        dataset_id=dataset_id,
        name=name,
        converter="acdc",
        source=str(source),
        protocol="ACDC 70/10/20 patients, lists of the literature, "
        f"first {labeled} training patients labeled",
        channel_names=CHANNELS,
        labels=LABELS,
        cases=tuple(cases),
        information=INFORMATION,
        configuration="2d",
        options={
            "labeled": labeled,
            "use_4d_frames": use_4d_frames,
            "allow_missing": allow_missing,
        },
        missing=tuple(missing),
        also_read=tuple(info for name in roles if (info := patients[name].info)),
        notes=((H5_NOTE,) if from_h5 else ()) + notes,
    )
    return write_raw_dataset(dataset, options or WriteOptions())


def _missing(patients: dict[str, Patient], use_4d_frames: bool) -> list[str]:
    """Name the listed patients that are absent or incomplete."""
    missing = []
    for name in SPLIT.names:
        if name not in patients:
            missing.append(name)
        elif len(patients[name].volumes) < 2:
            missing.append(f"{name} (one of two phases)")
        elif use_4d_frames and name in SPLIT.train and patients[name].whole_cycle is None:
            missing.append(f"{name} (no 4D file)")
    return missing


def _cases(patient: Patient, role: Role) -> list[RawCase]:
    return [
        RawCase(
            identifier=f"{patient.name}_frame{frame:02d}",
            images=(image,),
            role=role,
            label=label,
            group=patient.name,
            remarks={"phase": patient.phase(frame)},
        )
        for frame, (image, label) in sorted(patient.volumes.items())
    ]


def _other_frames(patient: Patient) -> list[RawCase]:
    """The frames of the 4D file between the two that are annotated."""
    if patient.whole_cycle is None:
        return []
    size = image_size(patient.whole_cycle)
    if len(size) != 4:
        raise ConversionError(
            f"{patient.name}: {patient.whole_cycle} is not 4D, its size is {size}; get it again."
        )
    return [
        RawCase(
            identifier=f"{patient.name}_frame{frame:02d}",
            images=(FrameOf4D(patient.whole_cycle, frame),),
            role="unlabeled",
            group=patient.name,
            remarks={"phase": "between"},
        )
        for frame in range(1, size[3] + 1)
        if frame not in patient.volumes
    ]


def find_patients(source: Path) -> tuple[dict[str, Patient], bool]:
    """Return the patients on disk by name, and whether they come from h5 files."""
    for root in (source, source / "training", source / "database" / "training"):
        patients = _patients_of_challenge(root)
        if patients:
            return patients, False
    for root in (source, source / "data"):
        patients = _patients_of_h5(root)
        if patients:
            return patients, True
    raise ConversionError(
        f"There are no ACDC volumes in {source}: expected patientXXX/patientXXX_frameYY.nii.gz "
        "with ..._gt.nii.gz, or patientXXX_frameYY.h5."
    )


def _patients_of_challenge(root: Path) -> dict[str, Patient]:
    patients: dict[str, Patient] = {}
    for path in sorted(root.glob("patient*/patient*_frame*.*")):
        match = re.fullmatch(r"((patient\d{3})_frame(\d+))\.(?i:nii(?:\.gz)?)", path.name)
        if not match:
            continue
        stem, name, frame = match.groups()
        if path.parent.name != name:
            raise ConversionError(
                f"{path} lies in the folder of another patient; move it to {name}, or remove it."
            )
        label = _nifti(path.parent, f"{stem}_gt")
        if label:
            patient = patients.setdefault(name, Patient(name))
            _add_volume(patient, int(frame), ImageFile(path), ImageFile(label))
    for name, patient in patients.items():
        info = root / name / "Info.cfg"
        patient.info, patient.end_diastole = info, _end_diastole(info)
        patient.whole_cycle = _nifti(root / name, f"{name}_4d")
    return patients


def _nifti(folder: Path, stem: str) -> Path | None:
    """Return the one NIfTI file of a name, compressed or not."""
    named = sorted(folder.glob(f"{stem}.*"))
    found = [p for p in named if p.name[len(stem) :].lower() in NIFTI_ENDINGS and p.is_file()]
    if len(found) > 1:
        raise ConversionError(f"{found[0]} and {found[1]} are both there; remove one of them.")
    return found[0] if found else None


def _add_volume(patient: Patient, frame: int, image: ImageSource, label: ImageSource) -> None:
    other, _ = patient.volumes.setdefault(frame, (image, label))
    if other != image:
        raise ConversionError(
            f"{patient.name} has frame {frame} twice, {other} and {image}; remove one of them."
        )


def _end_diastole(info: Path) -> int | None:
    if not info.is_file():
        return None
    match = re.search(r"^ED:\s*(\d{1,4})\b", read_text(info), re.MULTILINE)
    if match is None:
        raise ConversionError(
            f"{info} does not say which frame is end-diastole, as in 'ED: 1'; get it again, or "
            "remove it: the earlier frame counts as end-diastole then."
        )
    return int(match[1])


def _patients_of_h5(root: Path) -> dict[str, Patient]:
    patients: dict[str, Patient] = {}
    for path in sorted(root.glob("patient*_frame*.h5")):
        match = re.fullmatch(r"(patient\d{3})_frame(\d+)\.h5", path.name)
        if match:
            patient = patients.setdefault(match[1], Patient(match[1]))
            image = H5Volume(path, "image", H5_SPACING_MM, "zyx")
            label = H5Volume(path, "label", H5_SPACING_MM, "zyx")
            _add_volume(patient, int(match[2]), image, label)
    return patients


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_input(parser, "folder with training/patientXXX, or data/patientXXX_frameYY.h5")
    text = "number of labeled patients, the first of the list; papers use 3, 7 or 14"
    add_number(parser, "--labeled", LABELED, text)
    text = "add the other frames of training patients as unlabeled cases"
    parser.add_argument("--use-4d-frames", action="store_true", help=text)
    add_allow_missing(parser)
    add_link(parser)


def _convert(arguments: argparse.Namespace, options: WriteOptions) -> ConversionSummary:
    return convert_acdc(
        arguments.i,
        dataset_id=arguments.d,
        name=arguments.n,
        labeled=arguments.labeled,
        use_4d_frames=arguments.use_4d_frames,
        allow_missing=arguments.allow_missing,
        options=options,
    )


CONVERTER = Converter(
    "cardiac cine MRI, Automated Cardiac Diagnosis Challenge",
    _add_arguments,
    _convert,
    dataset=(DATASET_ID, NAME),
    example="nnUNetv2_spmc_convert acdc -i ACDC/database --labeled 7",
)

"""BraTS 2018-2021 and BraTS-GLI, -MET, -MEN, -SSA since 2023: brain tumours in four MR contrasts.

Source: https://www.med.upenn.edu/cbica/brats/, since 2023
https://www.synapse.org/Synapse:syn51156910 (terms of use there).
Counts: 2019 has 335 labeled scans; the semi-supervised literature splits them 250/25/60 and uses
FLAIR alone with the whole tumour as the one class, which is the default here. For other releases no
such list exists: the same shares are drawn at random, all scans of a patient on one side.

Expected input, anywhere below the folder that is given, in a folder for each case or in one:

    CASE_{flair,t1,t1ce,t2,seg}.nii[.gz]      until 2021, as BraTS2021_00000_flair.nii.gz
    CASE-{t2f,t1n,t1c,t2w,seg}.nii[.gz]       since 2023, as BraTS-GLI-00000-000-t2f.nii.gz

Which file is whose: `brats_files`. What the labels mean: `brats_releases`, `brats_targets`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunetv2_spmc.dataset_conversion import Converter
from nnunetv2_spmc.dataset_conversion.arguments import (
    add_allow_missing,
    add_input,
    add_link,
    add_number,
    add_seed,
)
from nnunetv2_spmc.dataset_conversion.brats_files import CaseFiles, find_cases
from nnunetv2_spmc.dataset_conversion.brats_releases import MODALITIES, Release, contrasts_of
from nnunetv2_spmc.dataset_conversion.brats_targets import TARGETS, Target
from nnunetv2_spmc.dataset_conversion.protocol_lists import (
    BRATS2019_TEST,
    BRATS2019_TRAIN,
    BRATS2019_VALIDATION,
)
from nnunetv2_spmc.dataset_conversion.published_split import PublishedSplit
from nnunetv2_spmc.raw.cases import ConversionError, RawCase, RawDataset, Role, count_of
from nnunetv2_spmc.raw.reader import ImageFile
from nnunetv2_spmc.raw.splits import RoleAssignment, assign_roles
from nnunetv2_spmc.raw.summary import ConversionSummary
from nnunetv2_spmc.raw.writer import WriteOptions, write_raw_dataset

SPLIT_2019 = PublishedSplit(BRATS2019_TRAIN, BRATS2019_TEST, BRATS2019_VALIDATION)
DATASET_ID = 503
NAME = "BraTS"
LABELED = 25
SETTINGS = {"SPMC": {"tau": 0.65}}  # the paper's threshold for BraTS
TEST_SHARE = 60 / 335
VALIDATION_SHARE = 25 / 275  # of what the test leaves
INFORMATION = {
    "description": "Multimodal Brain Tumor Segmentation Challenge",
    "reference": "Menze et al., IEEE Transactions on Medical Imaging 34 (2015), 1993-2024",
    "licence": "see https://www.med.upenn.edu/cbica/brats/ and, for the names since 2023, "
    "https://www.synapse.org/Synapse:syn51156910",
}


@dataclass(frozen=True)
class Split:
    """Roles of the cases on disk, and how they came about."""

    assignment: RoleAssignment
    protocol: str
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seed: int | None = None


def convert_brats(
    source: Path,
    *,
    dataset_id: int = DATASET_ID,
    name: str = NAME,
    labeled: int = LABELED,
    modalities: Sequence[str] = ("flair",),
    target: Target = "whole-tumor",
    allow_missing: bool = False,
    seed: int = 0,
    options: WriteOptions | None = None,
) -> ConversionSummary:
    """Convert the BraTS scans found below `source`.

    Args:
        source: A folder with the cases of one release somewhere below it.
        dataset_id: nnU-Net dataset id.
        name: Dataset name.
        labeled: Number of cases that keep their label; the first of the list for 2019.
        modalities: Channels, of flair, t1, t1ce and t2 or t2f, t1n, t1c and t2w, which are the
            same contrasts; or all.
        target: What to segment.
        allow_missing: Go on without the cases of the 2019 lists that are not on disk.
        seed: Seed of the random split of other releases.
        options: How to write.

    Raises:
        ConversionError: If the input is not as expected.
    """
    contrasts = contrasts_of(modalities)
    release, cases = find_cases(source)
    if release.name == "BraTS 2019":
        cases = _spelled_as_listed(cases)
    patients = _patients(cases, release)
    if release.name == "BraTS 2019":
        split = _literature_split(cases, labeled, source, allow_missing)
    else:
        split = _random_split(cases, patients, labeled, release, source, seed)
    definition = TARGETS[target]
    dataset = RawDataset(
        dataset_id=dataset_id,
        name=name,
        converter="brats",
        source=str(source),
        protocol=split.protocol,
        channel_names=tuple(contrast.upper() for contrast in contrasts),
        labels=definition.labels,
        cases=_raw_cases(cases, split.assignment.roles, patients, release, contrasts),
        label_map=definition.label_map(release),
        closed_label_map=True,
        label_advice=f"{release.name} has no others: correct the label, or use the folder "
        "converter (nnUNetv2_spmc_convert folder) with --map",
        optional_labels=definition.optional_labels,
        regions_class_order=definition.regions_class_order,
        settings=SETTINGS,
        information={**INFORMATION, "release": release.name},
        seed=split.seed,
        options={
            "labeled": labeled,
            "modalities": list(contrasts),
            "target": target,
            "allow_missing": allow_missing,
        },
        missing=split.missing,
        left_out=split.assignment.left_out,
        notes=split.notes + _label_notes(release, target) + split.assignment.notes,
    )
    return write_raw_dataset(dataset, options or WriteOptions())


def _label_notes(release: Release, target: Target) -> tuple[str, ...]:
    if len(release.label_values) < 4:
        return ()
    becomes = "a class of its own" if target == "labels" else "background"
    return (f"a label value of 4 is taken for the resection cavity, which is {becomes}",)


def _spelled_as_listed(cases: Mapping[str, CaseFiles]) -> dict[str, CaseFiles]:
    listed = {name.casefold(): name for name in SPLIT_2019.names}
    spelled = {name: listed.get(name.casefold(), name) for name in cases}
    return {spelled[name]: replace(case, name=spelled[name]) for name, case in cases.items()}


def _patients(cases: Iterable[str], release: Release) -> dict[str, str]:
    """Return the patient of each case, in one spelling however the capitals vary."""
    spelled: dict[str, str] = {}
    patients = {name: release.patient(name) for name in cases}
    return {name: spelled.setdefault(p.casefold(), p) for name, p in patients.items()}


def _literature_split(
    cases: Mapping[str, CaseFiles], labeled: int, source: Path, allow_missing: bool
) -> Split:
    SPLIT_2019.check_labeled(labeled)
    with_label = {name for name, case in cases.items() if case.label}
    missing = [
        f"{name} (no label)" if name in cases else name
        for name in SPLIT_2019.names
        if name not in with_label
    ]
    SPLIT_2019.check_missing(missing, source, allow_missing)
    roles, notes = SPLIT_2019.roles(labeled, with_label)
    return Split(
        RoleAssignment(roles),
        f"BraTS2019 250/25/60 lists of the literature, first {labeled} training cases labeled",
        tuple(missing),
        notes,
    )


def _random_split(
    cases: Mapping[str, CaseFiles],
    patients: Mapping[str, str],
    labeled: int,
    release: Release,
    source: Path,
    seed: int,
) -> Split:
    with_label = {name for name, case in cases.items() if case.label}
    num_patients = len({patients[name] for name in with_label})
    if num_patients < 3:
        raise ConversionError(
            f"{source} has labels of {count_of(num_patients, 'patient')}: a random split needs "
            "3, one each for test, validation and training; add labels."
        )
    assignment = assign_roles(
        patients,
        with_label,
        test=TEST_SHARE,
        validation=VALIDATION_SHARE,
        labeled=labeled,
        seed=seed,
    )
    note = (
        f"the literature's lists are for BraTS 2019; these cases of {release.name} are split at "
        f"random in the same shares, seed {seed}"
    )
    return Split(
        assignment, f"random, shares as in 250/25/60, {labeled} labeled", notes=(note,), seed=seed
    )


def _raw_cases(
    cases: Mapping[str, CaseFiles],
    roles: Mapping[str, Role],
    patients: Mapping[str, str],
    release: Release,
    contrasts: Sequence[str],
) -> tuple[RawCase, ...]:
    lacking = [
        cases[name].folder / f"{release.channel_name(name, contrast)}.nii.gz"
        for name in roles
        for contrast in contrasts
        if contrast not in cases[name].channels
    ]
    if lacking:
        more = f" (and {len(lacking) - 1} more of --modalities)" if len(lacking) > 1 else ""
        raise ConversionError(
            f"The file {lacking[0]} does not exist{more}; get it, name other --modalities, or "
            "remove the case."
        )
    return tuple(
        RawCase(
            identifier=name,
            images=tuple(ImageFile(cases[name].channels[contrast]) for contrast in contrasts),
            role=role,
            label=ImageFile(label) if (label := cases[name].label) else None,
            group=patients[name],
        )
        for name, role in roles.items()
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_input(parser, "folder with the cases of one release somewhere below it")
    text = "number of labeled cases; for 2019, the first of the list"
    add_number(parser, "--labeled", LABELED, text)
    parser.add_argument(
        "--modalities",
        nargs="+",
        choices=MODALITIES,
        default=["flair"],
        metavar="NAME",
        help="channels, by their names until 2021 or since 2023: flair or t2f, t1 or t1n, t1ce or "
        "t1c, t2 or t2w, or all of them (default: flair, as in the semi-supervised papers)",
    )
    parser.add_argument(
        "--target",
        choices=list(TARGETS),
        default="whole-tumor",
        help="what to segment; the resection cavity (2024 and later) is a class in labels, "
        "background in the others (default: %(default)s)",
    )
    add_allow_missing(parser)
    add_seed(parser, "seed of the random split of releases other than 2019")
    add_link(parser)


def _convert(arguments: argparse.Namespace, options: WriteOptions) -> ConversionSummary:
    return convert_brats(
        arguments.i,
        dataset_id=arguments.d,
        name=arguments.n,
        labeled=arguments.labeled,
        modalities=arguments.modalities,
        target=arguments.target,
        allow_missing=arguments.allow_missing,
        seed=arguments.seed,
        options=options,
    )


CONVERTER = Converter(
    "brain tumours, BraTS 2018 to 2021 and BraTS-GLI, -MET, -MEN, -SSA since 2023",
    _add_arguments,
    _convert,
    dataset=(DATASET_ID, NAME),
    example="nnUNetv2_spmc_convert brats -i BraTS2021_Training_Data --labeled 125",
)

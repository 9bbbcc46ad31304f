"""BraTS 2018-2021: brain tumours in four MR contrasts.

Source: https://www.med.upenn.edu/cbica/brats/ (terms of use there).
Counts: 2019 has 335 labeled scans; the semi-supervised literature splits them 250/25/60 and uses
FLAIR alone with the whole tumour as the one class, which is the default here. For other years no
such list exists: the same shares are drawn at random.

Expected input, anywhere below the folder that is given:

    HGG|LGG/CASE/CASE_{flair,t1,t1ce,t2,seg}.nii[.gz]      2018, 2019
    CASE/CASE_{flair,t1,t1ce,t2,seg}.nii[.gz]              2020, 2021

Label maps: `brats_targets`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_spmc.data.raw_cases import ConversionError, RawCase, RawDataset, Role
from nnunetv2_spmc.data.raw_reader import ImageFile
from nnunetv2_spmc.data.raw_splits import RoleAssignment, assign_roles
from nnunetv2_spmc.data.raw_summary import ConversionSummary
from nnunetv2_spmc.data.raw_writer import WriteOptions, write_raw_dataset
from nnunetv2_spmc.dataset_conversion.brats_targets import TARGETS, Target
from nnunetv2_spmc.dataset_conversion.protocol_lists import (
    BRATS2019_TEST,
    BRATS2019_TRAIN,
    BRATS2019_VALIDATION,
)
from nnunetv2_spmc.dataset_conversion.published_split import PublishedSplit

SPLIT_2019 = PublishedSplit(BRATS2019_TRAIN, BRATS2019_TEST, BRATS2019_VALIDATION)
DATASET_ID = 503
NAME = "BraTS"
LABELED = 25
CONTRASTS = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1CE", "t2": "T2"}
SETTINGS = {"tau": 0.65}  # the paper's threshold for BraTS
TEST_SHARE = 60 / 335
VALIDATION_SHARE = 25 / 275  # of what the test leaves
YEARS = {"BraTS17": 2017, "BraTS18": 2018, "BraTS19": 2019, "BraTS20": 2020, "BraTS2021": 2021}
INFORMATION = {
    "description": "Multimodal Brain Tumor Segmentation Challenge",
    "reference": "Menze et al., IEEE Transactions on Medical Imaging 34 (2015), 1993-2024",
    "licence": "see https://www.med.upenn.edu/cbica/brats/",
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
        source: A folder with the cases of one year somewhere below it.
        dataset_id: nnU-Net dataset id.
        name: Dataset name.
        labeled: Number of cases that keep their label; the first of the list for 2019.
        modalities: Channels, of flair, t1, t1ce and t2; or all.
        target: What to segment.
        allow_missing: Go on without the cases of the 2019 lists that are not on disk.
        seed: Seed of the random split of other years.
        options: How to write.

    Raises:
        ConversionError: If the input is not as expected.
    """
    modalities = _modalities(modalities)
    folders = find_cases(source)
    year = _year(folders, source)
    with_label = {case for case, folder in folders.items() if _label_file(folder)}
    if year == 2019:
        split = _literature_split(folders, with_label, labeled, source, allow_missing)
    else:
        split = _random_split(folders, with_label, labeled, year, seed)
    definition = TARGETS[target]
    dataset = RawDataset(
        dataset_id=dataset_id,
        name=name,
        converter="brats",
        source=str(source),
        protocol=split.protocol,
        channel_names=tuple(CONTRASTS[modality] for modality in modalities),
        labels=definition.labels,
        cases=tuple(
            _case(case, folders[case], role, modalities)
            for case, role in split.assignment.roles.items()
        ),
        label_map=definition.label_map,
        regions_class_order=definition.regions_class_order,
        settings=SETTINGS,
        information={**INFORMATION, "release": str(year)},
        seed=split.seed,
        options={
            "labeled": labeled,
            "modalities": list(modalities),
            "target": target,
            "allow_missing": allow_missing,
        },
        missing=split.missing,
        left_out=split.assignment.left_out,
        notes=split.notes + split.assignment.notes,
    )
    return write_raw_dataset(dataset, options or WriteOptions())


def _modalities(modalities: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(CONTRASTS) if "all" in modalities else tuple(dict.fromkeys(modalities))
    unknown = [modality for modality in chosen if modality not in CONTRASTS]
    if unknown or not chosen:
        raise ConversionError(f"Modalities are {', '.join(CONTRASTS)}, got {list(modalities)}.")
    return chosen


def find_cases(source: Path) -> dict[str, Path]:
    """Return the folder of each case below `source`."""
    found: dict[str, Path] = {}
    for path in sorted(source.rglob("*.nii*")):
        match = re.fullmatch(rf"([^.].*)_(?:{'|'.join(CONTRASTS)})\.nii(?:\.gz)?", path.name)
        if not match or not path.is_file():
            continue
        case = match[1]
        if found.setdefault(case, path.parent) != path.parent:
            raise ConversionError(
                f"Case {case} is there twice: {found[case]} and {path.parent}; remove one."
            )
    if not found:
        raise ConversionError(
            f"There are no BraTS cases below {source}: expected CASE/CASE_flair.nii.gz "
            "and the like."
        )
    return found


def _year(cases: Mapping[str, Path], source: Path) -> int:
    years = set()
    for case in cases:
        prefix = re.match(r"brats(?:20\d\d(?=_\d)|\d\d)", case.casefold())
        known = {name.casefold(): year for name, year in YEARS.items()}
        if not prefix or prefix[0] not in known:
            raise ConversionError(
                f"Case {case} in {source} is not named as in BraTS 2018-2021; "
                "use the folder converter with --channel-files."
            )
        years.add(known[prefix[0]])
    if len(years) > 1:
        raise ConversionError(f"{source} mixes the BraTS years {sorted(years)}; convert one.")
    return years.pop()


def _literature_split(
    folders: Mapping[str, Path],
    with_label: set[str],
    labeled: int,
    source: Path,
    allow_missing: bool,
) -> Split:
    SPLIT_2019.check_labeled(labeled)
    missing = [
        f"{case} (no label)" if case in folders else case
        for case in SPLIT_2019.names
        if case not in with_label
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
    folders: Mapping[str, Path], with_label: set[str], labeled: int, year: int, seed: int
) -> Split:
    assignment = assign_roles(
        {case: _patient(case) for case in folders},
        with_label,
        test=TEST_SHARE,
        validation=VALIDATION_SHARE,
        labeled=labeled,
        seed=seed,
    )
    note = (
        f"the literature's lists are for BraTS 2019; these {year} cases are split at random in the "
        f"same shares, seed {seed}"
    )
    return Split(
        assignment, f"random, shares as in 250/25/60, {labeled} labeled", notes=(note,), seed=seed
    )


def _patient(case: str) -> str:
    """Until 2019 the last number of a name counts the scans of a patient."""
    return re.sub(r"_\d+$", "", case) if re.match(r"(?i)brats1\d_", case) else case


def _case(name: str, folder: Path, role: Role, modalities: Sequence[str]) -> RawCase:
    label = _label_file(folder)
    return RawCase(
        identifier=name,
        images=tuple(ImageFile(_channel_file(folder, name, m)) for m in modalities),
        role=role,
        label=ImageFile(label) if label else None,
        group=_patient(name),
    )


def _channel_file(folder: Path, case: str, modality: str) -> Path:
    plain = folder / f"{case}_{modality}.nii"
    return plain if plain.is_file() else plain.with_name(f"{plain.name}.gz")


def _label_file(folder: Path) -> Path | None:
    # Case 355 of 2020 is distributed with its label under another name, W39_1998.09.19_Segm.nii.
    for pattern in ("[!.]*_seg.nii", "[!.]*_seg.nii.gz", "[!.]*_Segm.nii", "[!.]*_Segm.nii.gz"):
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    return None

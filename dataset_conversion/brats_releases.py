"""The releases of BraTS: how each names its cases and files, and what its label values mean.

    until 2021    BraTS2021_00000_flair.nii.gz          1 core, 2 oedema, 4 enhancing tumour
    since 2023    BraTS-GLI-00000-000-t2f.nii.gz        1 core, 2 oedema, 3 enhancing tumour
                                                        GLI since 2024, MET since 2025:
                                                        4 resection cavity

The core is the necrotic and non-enhancing one. The last number of a name counts the scans of one
patient until 2019, and since 2023.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nnunetv2_spmc.raw.cases import ConversionError

# What files are called until 2021 -> since 2023.
CONTRASTS = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w"}
OLD_NAMES = {new: old for old, new in CONTRASTS.items()}
OLD, NEW = "_", "-"  # what stands between the case and the contrast in a file's name
MODALITIES = (*CONTRASTS, *CONTRASTS.values(), "all")
USE_FOLDER_CONVERTER = (
    "use the folder converter (nnUNetv2_spmc_convert folder) with --channel_files and --label_file"
)


@dataclass(frozen=True)
class Release:
    """Cases that belong together.

    Attributes:
        name: What people call it.
        case_name: Regular expression of a whole case name, capitals aside; its first group is
            the patient.
        label_values: Core, oedema, enhancing tumour and, where it may occur, resection cavity.
        separator: OLD or NEW.
    """

    name: str
    case_name: str
    label_values: tuple[int, ...] = (1, 2, 4)
    separator: str = OLD

    def match(self, case: str) -> re.Match[str] | None:
        """Match a whole case name."""
        return re.fullmatch(self.case_name, case, re.IGNORECASE)

    def patient(self, case: str) -> str:
        """Return the patient whose scan a case is."""
        match = self.match(case)
        return match[1] if match else case

    def label_name(self, case: str) -> str:
        """Return the name of a case's label file, without ending."""
        return f"{case}{self.separator}seg"

    def channel_name(self, case: str, contrast: str) -> str:
        """Return the name of a channel's file, without ending."""
        is_new = self.separator == NEW
        return f"{case}{self.separator}{CONTRASTS[contrast] if is_new else contrast}"


def _new(task: str, label_values: tuple[int, ...] = (1, 2, 3)) -> Release:
    return Release(f"BraTS-{task}", rf"(brats-{task}-\d+)-\d+", label_values, NEW)


RELEASES = (
    *(Release(f"BraTS 20{year}", rf"(brats{year}_\w+)_\d+") for year in (17, 18, 19)),
    Release("BraTS 2020", r"(brats20_[a-z]+_\d+)"),
    Release("BraTS 2021", r"(brats2021_\d+)"),
    _new("GLI", (1, 2, 3, 4)),
    _new("MET", (1, 2, 3, 4)),
    _new("MEN"),
    _new("SSA"),
)


def contrasts_of(modalities: Sequence[str]) -> tuple[str, ...]:
    """Return the contrasts that names of both kinds ask for, by their names until 2021."""
    chosen = CONTRASTS if "all" in modalities else [OLD_NAMES.get(m, m) for m in modalities]
    unknown = [contrast for contrast in chosen if contrast not in CONTRASTS]
    if unknown or not chosen:
        raise ConversionError(f"Modalities are {', '.join(MODALITIES)}; got {list(modalities)}.")
    return tuple(dict.fromkeys(chosen))


def release_of(cases: Iterable[tuple[str, str]], source: object) -> Release:
    """Return the one release that all cases belong to.

    Args:
        cases: Name of each case, and the separator in the names of its files.
        source: Where they are, for the message.

    Raises:
        ConversionError: For names of no release that is taken, or of several.
    """
    found: dict[str, tuple[Release, str]] = {}
    for case, separator in cases:
        release = next((r for r in RELEASES if r.separator == separator and r.match(case)), None)
        if release is None:
            raise ConversionError(_unknown(case, source))
        found.setdefault(release.name, (release, case))
    if len(found) > 1:
        (one, first), (other, second), *_ = found.values()
        raise ConversionError(
            f"{source} mixes {one.name} (case {first}) and {other.name} (case {second}); "
            "convert one release at a time."
        )
    return next(release for release, _ in found.values())


def _unknown(case: str, source: object) -> str:
    if re.match("brats-ped-", case, re.IGNORECASE):
        return (
            f"Case {case} in {source} is of BraTS-PED, whose label values mean other tissues than "
            f"those of BraTS-GLI; {USE_FOLDER_CONVERTER}."
        )
    return (
        f"Case {case} in {source} is not named as in BraTS 2018-2021, nor as in BraTS-GLI, "
        f"-MET, -MEN or -SSA of 2023 and later; {USE_FOLDER_CONVERTER}."
    )

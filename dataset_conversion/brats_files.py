"""Find BraTS' cases, and give each the files that bear its whole name: in any folder, flat or not.

A label is CASE_seg.nii[.gz], or CASE-seg.nii[.gz] under the names of 2023 and later; capitals do
not matter. What else could be taken for a label is an error, never a choice made in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_spmc.dataset_conversion.brats_releases import (
    CONTRASTS,
    OLD_NAMES,
    Release,
    release_of,
)
from nnunetv2_spmc.dataset_conversion.folder_files import strip_ending
from nnunetv2_spmc.raw.cases import ConversionError, name_some
from nnunetv2_spmc.raw.nifti_check import NIFTI_ENDINGS

CHANNEL = re.compile(
    rf"(.+)(?:(_)({'|'.join(CONTRASTS)})|(-)({'|'.join(CONTRASTS.values())}))", re.IGNORECASE
)
LIKE_A_LABEL = re.compile(r"seg|label|pred|(?<![a-z])gt(?![a-z])", re.IGNORECASE)
# The one case that is distributed with its label under another name, W39_1998.09.19_Segm.nii.
ODD_CASE, ODD_LABEL = "brats20_training_355", "_segm"


@dataclass
class CaseFiles:
    """A case on disk."""

    name: str
    folder: Path
    channels: dict[str, Path] = field(default_factory=dict)  # by contrast
    label: Path | None = None


def find_cases(source: Path) -> tuple[Release, dict[str, CaseFiles]]:
    """Return the release of the cases below a folder, and the cases by name.

    Raises:
        ConversionError: For names of no or several releases, and where two files could be meant.
    """
    cases: dict[str, CaseFiles] = {}  # by name in lower case
    names: dict[tuple[str, str], None] = {}
    like_labels = []
    for path in sorted(source.rglob("*")):
        stem = strip_ending(path.name)
        if stem == path.name or _is_hidden(path, source) or not path.is_file():
            continue
        match = CHANNEL.fullmatch(stem) if _is_nifti(path) else None
        if match:
            names[match[1], match[2] or match[4]] = None
            case = cases.setdefault(match[1].casefold(), CaseFiles(match[1], path.parent))
            _add_channel(case, path, (match[3] or match[5]).casefold())
        elif LIKE_A_LABEL.search(stem):
            like_labels.append(path)
    if not cases:
        raise ConversionError(
            f"There are no BraTS cases below {source}: expected files like CASE_flair.nii.gz, or "
            "CASE-t2f.nii.gz since 2023."
        )
    release = release_of(names, source)
    _add_labels(cases, release, like_labels)
    return release, {case.name: case for case in cases.values()}


def _is_hidden(path: Path, source: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(source).parts)


def _is_nifti(path: Path) -> bool:
    return path.name.casefold().endswith(NIFTI_ENDINGS)


def _add_channel(case: CaseFiles, path: Path, contrast: str) -> None:
    other = case.channels.setdefault(OLD_NAMES.get(contrast, contrast), path)
    if other != path:
        raise ConversionError(
            f"Case {case.name} has one channel twice, {other} and {path}; remove one of them."
        )
    if case.folder != path.parent:
        raise ConversionError(
            f"Case {case.name} lies in two folders, {case.folder} and {path.parent}; put its files "
            "into one, or remove one."
        )


def _add_labels(cases: Mapping[str, CaseFiles], release: Release, paths: Iterable[Path]) -> None:
    """Give each case its label; refuse files that may be another one, or of a case unknown."""
    in_folder: dict[Path, list[str]] = {}
    for key, case in cases.items():
        in_folder.setdefault(case.folder, []).append(key)
    candidates: dict[str, list[Path]] = {}
    for path in paths:
        neighbours = in_folder.get(path.parent, [])
        key = _named_case(path, cases) or (neighbours[0] if len(neighbours) == 1 else "")
        if key:
            candidates.setdefault(key, []).append(path)
        elif neighbours or _is_label_of_release(path, release):
            raise ConversionError(
                f"{path} belongs to no case by its name; rename it to "
                f"{release.label_name('CASE')}.nii.gz, or move it elsewhere."
            )
    for key, found in candidates.items():
        is_alone = len(in_folder[cases[key].folder]) == 1
        cases[key].label = _label(cases[key], found, release, is_alone)


def _named_case(path: Path, cases: Mapping[str, CaseFiles]) -> str:
    """Return the case whose whole name stands in a file's name, the longest of several."""
    stem = strip_ending(path.name).casefold()
    key = stem[: -len("_seg")]
    if key in cases:  # nearly always
        return key
    named = [
        key
        for key in cases
        if key in stem and re.search(rf"(?<![a-z0-9]){re.escape(key)}(?![a-z0-9])", stem)
    ]
    return max(named, key=len, default="")


def _is_label_of_release(path: Path, release: Release) -> bool:
    stem = strip_ending(path.name).casefold()
    suffix = release.label_name("")
    return stem.endswith(suffix) and release.match(stem.removesuffix(suffix)) is not None


def _label(case: CaseFiles, found: list[Path], release: Release, is_alone: bool) -> Path:
    """Return the one label among the files that may be it."""
    name = f"{release.label_name(case.name)}.nii.gz"
    if len(found) > 1:
        raise ConversionError(
            f"Case {case.name} has {len(found)} files that may be its label, "
            f"{name_some(map(str, found), 3)}; keep the right one as {name} and move the rest "
            "elsewhere."
        )
    (path,) = found
    stem = strip_ending(path.name).casefold()
    if _is_nifti(path) and stem == release.label_name(case.name).casefold():
        if path.parent != case.folder:
            raise ConversionError(
                f"The label of case {case.name} lies apart from its scans, {path} and "
                f"{case.folder}; put it there, or remove it."
            )
        return path
    is_odd = case.name.casefold() == ODD_CASE and stem.endswith(ODD_LABEL)
    if is_odd and _is_nifti(path) and is_alone and path.parent == case.folder:
        return path
    raise ConversionError(
        f"{path} may be the label of case {case.name} but is not called {name}; rename it, or move "
        "it elsewhere."
    )

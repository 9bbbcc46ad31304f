"""Which label is whose: by the case's whole name, by a suffix after it, or by patterns."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from glob import escape
from pathlib import Path

from nnunetv2_spmc.dataset_conversion.class_masks import ClassMask, ClassMasks
from nnunetv2_spmc.dataset_conversion.folder_files import (
    FolderLayout,
    matches,
    source_of,
    strip_ending,
    visible_folders,
    volume_files,
)
from nnunetv2_spmc.raw.cases import ConversionError, ImageSource, count_of, name_some
from nnunetv2_spmc.raw.reader import ImageFile

COMMON_SUFFIX = re.compile(
    r"[-_. ]+(seg|segm|segmentation|label|labels|labelmap|lbl|mask|masks|msk|gt|"
    r"(?:ground[-_]?)?truth|annotations?|manual|contours?|roi)$",
    re.IGNORECASE,
)
CHANNEL_SUFFIX = re.compile(r"_\d{4}$")
NAME_MASKS = "if each is the mask of one class, name them with --label_files NAME=PATTERN"
FIRST_STAR = re.compile(r"(?<!\*)\*(?!\*)")


def find_labels(
    layout: FolderLayout, cases: Collection[str], values: Mapping[str, int]
) -> dict[str, ImageSource]:
    """Return the label of each case that has one.

    Args:
        layout: Where to look.
        cases: Names of the cases.
        values: Label value of each class that has a mask of its own.

    Raises:
        ConversionError: For labels of no case, and cases with several labels.
    """
    if not layout.label_patterns:
        return {**_labels_by_name(layout, cases)}
    if not layout.channel_files:
        _refuse_labels_of_no_case(layout, cases)
    found = {case: _label_by_pattern(layout, case, values) for case in cases}
    return {case: source for case, source in found.items() if source is not None}


def labels_among_images(layout: FolderLayout, files: Mapping[str, Path]) -> set[str]:
    """Return which files of an image folder are labels, where both lie in one folder."""
    if not layout.labels_beside_images:
        return set()
    if layout.label_patterns:
        labels = {p for pattern in layout.label_patterns for p in matches(layout.images, pattern)}
        return {stem for stem, path in files.items() if path in labels}
    names = {name for stem in files for name in (stem, CHANNEL_SUFFIX.sub("", stem))}
    suffix = _suffix(layout, files, names)
    return {stem for stem in files if _without(suffix, stem) in names}


def with_label(layout: FolderLayout, names: Iterable[str]) -> set[str]:
    """Return which names a label bears, before it is known which of them are cases."""
    if layout.label_patterns:
        return {n for n in names if any(_candidates(layout, n, p) for p in layout.label_patterns)}
    stems = volume_files(layout.label_folder)
    known = {_without(layout.label_suffix or _common_suffix(stem), stem) for stem in stems}
    if not layout.labels_beside_images:
        known.update(stems)
    return known.intersection(names)


def _suffix(layout: FolderLayout, stems: Iterable[str], cases: Collection[str]) -> str:
    """Return what follows the case's name in the names of labels, '' if nothing does."""
    if layout.label_suffix is not None:
        return strip_ending(layout.label_suffix)
    found: dict[str, str] = {}
    label_of: dict[str, str] = {}
    for stem in stems:
        suffix = _common_suffix(stem)
        case = _without(suffix, stem)
        is_whole_name = stem in cases and not layout.labels_beside_images
        if case in cases and not is_whole_name:
            _refuse_second(case, label_of.setdefault(case, stem), stem, layout.label_folder)
            found.setdefault(suffix.casefold(), stem)
    if len(found) > 1:
        raise ConversionError(
            f"The labels in {layout.label_folder} bear several suffixes, as "
            f"{name_some(found.values())}; say which one counts, as "
            f"--label_suffix={next(iter(found))}."
        )
    return next(iter(found), "")


def _common_suffix(stem: str) -> str:
    match = COMMON_SUFFIX.search(stem)
    return match[0] if match else ""


def _without(suffix: str, stem: str) -> str:
    """Return a name without a suffix; '' if it does not end in it, or the suffix is empty."""
    ends_so = suffix and stem.casefold().endswith(suffix.casefold())
    return stem[: -len(suffix)] if ends_so else ""


def _labels_by_name(layout: FolderLayout, cases: Collection[str]) -> dict[str, ImageFile]:
    files = volume_files(layout.label_folder)
    suffix = _suffix(layout, files, cases)
    # Next to images, and where the user says so, a file without the suffix is not a label.
    has_to = bool(suffix) and (layout.label_suffix is not None or layout.labels_beside_images)
    labels: dict[str, Path] = {}
    orphans = []
    for stem, path in files.items():
        bare = _without(suffix, stem)
        owners = [name for name in (bare, "" if has_to else stem) if name in cases]
        if len(owners) > 1:
            raise ConversionError(
                f"{path} may be the label of case {bare} or of case {stem}; say which with "
                f"--label_suffix={suffix} or --label_suffix=''."
            )
        if owners:
            other = labels.setdefault(owners[0], path)
            _refuse_second(owners[0], other.name, path.name, layout.label_folder)
        elif bare or not has_to:
            orphans.append(stem)
    _refuse_orphans(layout, orphans, suffix)
    if has_to and not labels:
        raise ConversionError(
            f"No file in {layout.label_folder} is called CASE{suffix}, with the name of an image "
            f"in {layout.images}; correct --label_suffix or -l."
        )
    _refuse_folders(layout, cases, suffix, labels)
    return {case: ImageFile(path) for case, path in labels.items()}


def _refuse_second(case: str, one: str, other: str, folder: Path) -> None:
    if one != other:
        raise ConversionError(
            f"Case {case} has two labels, {one} and {other} in {folder}; remove one, say with "
            f"--label_suffix what follows the case's name in those that count, or, {NAME_MASKS}."
        )


def _refuse_orphans(layout: FolderLayout, orphans: Collection[str], suffix: str) -> None:
    if orphans:
        of_that_name = f"called as they are without {suffix}" if suffix else "of that name"
        say_suffix = ", say with --label_suffix what follows the case's name"
        advice = "" if suffix or layout.label_files else f"{say_suffix}, or, {NAME_MASKS}"
        raise ConversionError(
            f"{count_of(len(orphans), 'label')} in {layout.label_folder} without an image "
            f"{of_that_name} in {layout.images}: {name_some(orphans)}; rename or remove the "
            f"labels{advice}."
        )


def _refuse_folders(
    layout: FolderLayout, cases: Collection[str], suffix: str, labels: Collection[str]
) -> None:
    """Raise where a folder has the name of a label, of a case that has none."""
    if layout.labels_beside_images:
        return
    for folder in visible_folders(layout.label_folder):
        stem = strip_ending(folder.name)
        for case in {stem, _without(suffix or _common_suffix(stem), stem)}.intersection(cases):
            if case not in labels:
                raise ConversionError(
                    f"{folder}, named as case {case}, is a folder and no label file; say which "
                    "file in it is the label with --label_file PATTERN, or with --label_files "
                    "NAME=PATTERN where it holds a mask for each class."
                )


def _candidates(layout: FolderLayout, case: str, pattern: str) -> list[Path]:
    """Return what a pattern fits in the case's folder, or with its name for the first *."""
    root = layout.label_folder
    found = matches(root / case, pattern) if (root / case).is_dir() else []
    named = FIRST_STAR.sub(lambda _: escape(case), pattern, count=1)
    return list(dict.fromkeys([*found, *(matches(root, named) if named != pattern else [])]))


def _one(layout: FolderLayout, case: str, pattern: str) -> Path | None:
    found = _candidates(layout, case, pattern)
    if len(found) > 1:
        names = name_some(path.relative_to(layout.label_folder).as_posix() for path in found)
        advice = "" if layout.label_files else f", or, {NAME_MASKS}"
        raise ConversionError(
            f"Case {case}: {pattern} fits {names} in {layout.label_folder}; make the pattern "
            f"narrower{advice}."
        )
    return found[0] if found else None


def _label_by_pattern(
    layout: FolderLayout, case: str, values: Mapping[str, int]
) -> ImageSource | None:
    if layout.label_file:
        path = _one(layout, case, layout.label_file)
        return None if path is None else source_of(path)
    found = {name: _one(layout, case, pattern) for name, pattern in layout.label_files.items()}
    present = {name: path for name, path in found.items() if path is not None}
    absent = [name for name in found if name not in present]
    if present and absent:
        raise ConversionError(
            f"Case {case} has a mask of {name_some(present)} but none of {name_some(absent)}: no "
            f"{layout.label_files[absent[0]]} in {layout.label_folder}; add it, empty if the scan "
            "does not show that class, or remove all masks of the case."
        )
    masks = [ClassMask(name, values[name], source_of(path)) for name, path in present.items()]
    return ClassMasks(tuple(masks), layout.later_mask_counts) if masks else None


def _refuse_labels_of_no_case(layout: FolderLayout, cases: Iterable[str]) -> None:
    """Raise for files that fit a pattern with a name in the place of its *, but no case's."""
    cases = list(cases)
    for pattern in layout.label_patterns:
        if FIRST_STAR.search(pattern):
            owned = {path for case in cases for path in _candidates(layout, case, pattern)}
            orphans = [p for p in matches(layout.label_folder, pattern) if p not in owned]
            names = [path.relative_to(layout.label_folder).as_posix() for path in orphans]
            _refuse_orphans(layout, names, "")

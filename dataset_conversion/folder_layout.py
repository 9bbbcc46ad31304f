"""Find the cases of any folder: flat files, DICOM folders, or one folder for each case."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_spmc.raw.cases import ConversionError, ImageSource, count_of, name_some
from nnunetv2_spmc.raw.dicom import DicomSeries
from nnunetv2_spmc.raw.reader import PICTURE_ENDINGS, VOLUME_ENDINGS, ImageFile

CHANNEL_SUFFIX = re.compile(r"_\d{4}$")


@dataclass(frozen=True)
class FolderLayout:
    """Where the images and labels of a folder are.

    Attributes:
        images: Folder of image files, of DICOM folders, or with `channel_files` of case folders.
        labels: Folder of label files named as the cases; None if labels lie beside the images.
        channels: Channel names, in order.
        channel_files: Glob pattern of each channel inside a case's folder.
        label_file: Glob pattern of the label inside a case's folder.
    """

    images: Path
    labels: Path | None
    channels: tuple[str, ...]
    channel_files: Mapping[str, str] = field(default_factory=dict)
    label_file: str | None = None


@dataclass(frozen=True)
class FoundCase:
    """A case as it lies on disk."""

    name: str
    images: tuple[ImageSource, ...]
    label: ImageSource | None


def find_cases(layout: FolderLayout) -> list[FoundCase]:
    """Return all cases of a folder, by name.

    Raises:
        ConversionError: For missing folders, channels or labels, and for cases found twice.
    """
    for folder in (layout.images, layout.labels):
        if folder is not None and not folder.is_dir():
            raise ConversionError(f"The folder {folder} does not exist; check -i and -l.")
    if not layout.channels:
        raise ConversionError("Name the channels with --channels, CT or MRI for example.")
    if layout.channel_files and set(layout.channels) != set(layout.channel_files):
        raise ConversionError(
            f"--channels names {', '.join(layout.channels)}, --channel-files "
            f"{', '.join(layout.channel_files)}; they have to be the same."
        )
    images = _case_folders(layout) if layout.channel_files else _flat_images(layout)
    if not images:
        raise ConversionError(
            f"There are no images in {layout.images}: expected files that SimpleITK reads, DICOM "
            "folders, or with --channel-files a folder for each case."
        )
    labels = _labels(layout, images)
    cases = [FoundCase(name, images[name], labels.get(name)) for name in sorted(images)]
    for case in cases:
        _check_distinct(case)
    return cases


def _check_distinct(case: FoundCase) -> None:
    """Raise where one file would be two channels, or a channel and the label."""
    parts = [str(part) for part in (*case.images, case.label) if part is not None]
    for index, part in enumerate(parts):
        if part in parts[:index]:
            raise ConversionError(
                f"Case {case.name}: {part} would be two of its channels, or a channel and the "
                "label; give each a pattern or a folder of its own."
            )


def volume_files(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder by name without ending."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        if path.name.lower().endswith((*PICTURE_ENDINGS, ".dcm")):
            raise ConversionError(
                f"{path} is not a 3D volume; put the slices of each DICOM series into a folder of "
                "their own, and convert pictures to volumes."
            )
        stem = strip_ending(path.name)
        if stem == path.name:
            continue  # a note, a table, the .raw of an .mhd
        if stem in files:
            raise ConversionError(
                f"Case {stem} is there twice: {files[stem].name} and {path.name} in {folder}; "
                "remove one."
            )
        files[stem] = path
    return files


def strip_ending(file_name: str) -> str:
    """Return a file name without the ending of an image format, unchanged if it has none."""
    for ending in VOLUME_ENDINGS:
        if file_name.lower().endswith(ending):
            return file_name[: -len(ending)]
    return file_name


def _flat_images(layout: FolderLayout) -> dict[str, tuple[ImageSource, ...]]:
    files = volume_files(layout.images)
    if layout.label_file:
        raise ConversionError("--label-file goes with --channel-files and a folder for each case.")
    if _has_channel_suffixes(files, layout):
        images = _by_suffix(files, layout.channels)
    else:
        images = {stem: (ImageFile(path),) for stem, path in files.items()}
    for folder in _visible_folders(layout.images):
        if folder.name in images:
            raise ConversionError(f"Case {folder.name} is there twice, as a file and as a folder.")
        if len(layout.channels) > 1:
            raise ConversionError(
                f"{folder} can only be one channel, but --channels names {len(layout.channels)}; "
                "say which file or folder in it is which channel with --channel-files."
            )
        images[folder.name] = (DicomSeries(folder),)
    return images


def _has_channel_suffixes(files: Mapping[str, Path], layout: FolderLayout) -> bool:
    """Tell `case_0000` with a channel suffix from `case_0000` with a running number."""
    if len(layout.channels) > 1:
        return True
    suffixed = [stem for stem in files if CHANNEL_SUFFIX.search(stem)]
    if not suffixed:
        return False
    named = set(volume_files(layout.labels)) if layout.labels else set()
    full = len(named & set(files))
    stripped = len(named & {CHANNEL_SUFFIX.sub("", stem) for stem in suffixed})
    if full != stripped:
        return stripped > full
    return all(stem.endswith("_0000") for stem in files)


def _by_suffix(
    files: Mapping[str, Path], channels: tuple[str, ...]
) -> dict[str, tuple[ImageSource, ...]]:
    parts: dict[str, dict[int, Path]] = {}
    for stem, path in files.items():
        if not CHANNEL_SUFFIX.search(stem):
            raise ConversionError(
                f"{path} has no channel suffix like _0000, which the other images have or "
                f"{len(channels)} channels need."
            )
        parts.setdefault(stem[:-5], {})[int(stem[-4:])] = path
    for case, found in parts.items():
        missing = [n for n in range(len(channels)) if n not in found]
        if missing:
            names = ", ".join(f"{channels[n]} ({case}_{n:04d})" for n in missing)
            folder = next(iter(found.values())).parent
            raise ConversionError(
                f"Case {case} lacks the channel {names} in {folder}; add it or remove the case."
            )
        if len(found) > len(channels):
            raise ConversionError(
                f"Case {case} has {len(found)} channels but --channels names {len(channels)}: "
                f"{found[max(found)]} is one too many; name its channel or remove it."
            )
    return {
        case: tuple(ImageFile(found[n]) for n in range(len(channels)))
        for case, found in parts.items()
    }


def _case_folders(layout: FolderLayout) -> dict[str, tuple[ImageSource, ...]]:
    return {
        folder.name: tuple(
            _required(folder, layout.channel_files[channel], channel) for channel in layout.channels
        )
        for folder in _visible_folders(layout.images)
    }


def _required(folder: Path, pattern: str, channel: str) -> ImageSource:
    source = _match(folder, pattern)
    if source is None:
        raise ConversionError(
            f"Case {folder.name} lacks the channel {channel}: no {pattern} in {folder}; add it or "
            "remove the case."
        )
    return source


def _match(folder: Path, pattern: str) -> ImageSource | None:
    found = sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
    if len(found) > 1:
        raise ConversionError(
            f"Case {folder.name}: {pattern} fits {name_some(p.name for p in found)} in {folder}; "
            "make the pattern narrower."
        )
    if not found:
        return None
    return DicomSeries(found[0]) if found[0].is_dir() else ImageFile(found[0])


def _labels(layout: FolderLayout, cases: Iterable[str]) -> dict[str, ImageSource]:
    if layout.label_file:
        root = layout.labels or layout.images
        found = {case: _match(root / case, layout.label_file) for case in cases}
        return {case: source for case, source in found.items() if source is not None}
    if layout.labels is None:
        raise ConversionError("Say where the labels are, with -l FOLDER or --label-file PATTERN.")
    files = volume_files(layout.labels)
    orphans = sorted(set(files) - set(cases))
    if orphans:
        raise ConversionError(
            f"{count_of(len(orphans), 'label')} in {layout.labels} without an image of that name "
            f"in {layout.images}: {name_some(orphans)}; rename or remove the labels."
        )
    return {case: ImageFile(path) for case, path in files.items()}


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))

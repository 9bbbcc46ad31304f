"""Find the cases of any folder: flat files, DICOM folders, or one folder for each case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_spmc.dataset_conversion.folder_files import (
    FolderLayout,
    matches,
    source_of,
    strip_ending,
    visible_folders,
    volume_files,
)
from nnunetv2_spmc.dataset_conversion.folder_labels import (
    CHANNEL_SUFFIX,
    find_labels,
    labels_among_images,
    with_label,
)
from nnunetv2_spmc.raw.cases import ConversionError, ImageSource, count_of, name_some
from nnunetv2_spmc.raw.reader import ImageFile
from nnunetv2_spmc.raw.sources import is_unread, parts_of


@dataclass(frozen=True)
class FoundCase:
    """A case as it lies on disk."""

    name: str
    images: tuple[ImageSource, ...]
    label: ImageSource | None

    @property
    def sources(self) -> list[ImageSource]:
        """The channels, and the label if there is one."""
        return [source for source in (*self.images, self.label) if source is not None]

    @property
    def label_suffix(self) -> str:
        """What follows the case's name in the name of its label."""
        if not isinstance(self.label, ImageFile):
            return ""
        return strip_ending(self.label.path.name)[len(self.name) :]


def find_cases(
    layout: FolderLayout, mask_values: Mapping[str, int] | None = None
) -> list[FoundCase]:
    """Return all cases of a folder, by name.

    Args:
        layout: Where to look.
        mask_values: Label value of each class that has a mask of its own.

    Raises:
        ConversionError: For missing folders, channels or labels, and for cases found twice.
    """
    _check_layout(layout)
    images = _case_folders(layout) if layout.channel_files else _flat_images(layout)
    if not images:
        raise ConversionError(
            f"There are no images in {layout.images}: expected files that SimpleITK reads, DICOM "
            f"folders, or with --channel_files a folder for each case{_instead(layout.images)}."
        )
    labels = find_labels(layout, images, mask_values or {})
    cases = [FoundCase(name, images[name], labels.get(name)) for name in sorted(images)]
    for case in cases:
        _check_distinct(case)
    return cases


def _check_layout(layout: FolderLayout) -> None:
    for folder in (layout.images, layout.labels):
        if folder is not None and not folder.is_dir():
            raise ConversionError(f"The folder {folder} does not exist; check -i and -l.")
    if not layout.channels:
        raise ConversionError("Name the channels with --channels, CT or MRI for example.")
    if layout.channel_files and set(layout.channels) != set(layout.channel_files):
        raise ConversionError(
            f"--channels names {', '.join(layout.channels)}, --channel_files "
            f"{', '.join(layout.channel_files)}; they have to be the same."
        )
    ways = {
        "--label_file": layout.label_file,
        "--label_files": layout.label_files,
        "--label_suffix": layout.label_suffix is not None,
    }
    chosen = [option for option, value in ways.items() if value]
    if len(chosen) > 1:
        raise ConversionError(f"{' and '.join(chosen)} say twice what the labels are; take one.")
    if layout.labels is None and not chosen:
        raise ConversionError("Say where the labels are, with -l FOLDER or --label_file PATTERN.")


def _instead(folder: Path) -> str:
    """Name the files of formats that are not read."""
    unread = [path.name for path in sorted(folder.iterdir()) if is_unread(path.name)]
    if not unread:
        return ""
    return (
        f"; {count_of(len(unread), 'file')} there of formats that are not read, "
        f"{name_some(unread)}: convert them to .nii.gz"
    )


def _check_distinct(case: FoundCase) -> None:
    """Raise where one file would be two channels, or a channel and the label."""
    parts = [str(part) for source in case.sources for part in parts_of(source)]
    for index, part in enumerate(parts):
        if part in parts[:index]:
            raise ConversionError(
                f"Case {case.name}: {part} would be two of its channels, or a channel and the "
                "label; give each a pattern or a folder of its own."
            )


def _flat_images(layout: FolderLayout) -> dict[str, tuple[ImageSource, ...]]:
    files = volume_files(layout.images)
    for label in labels_among_images(layout, files):
        del files[label]
    if _has_channel_suffixes(files, layout):
        images = _by_suffix(files, layout.channels)
    else:
        images = {stem: (ImageFile(path),) for stem, path in files.items()}
    for folder in _case_named_folders(layout):
        if folder.name in images:
            raise ConversionError(f"Case {folder.name} is there twice, as a file and as a folder.")
        if len(layout.channels) > 1:
            raise ConversionError(
                f"{folder} can only be one channel, but --channels names {len(layout.channels)}; "
                "say which file or folder in it is which channel with --channel_files."
            )
        images[folder.name] = (source_of(folder),)
    return images


def _has_channel_suffixes(files: Mapping[str, Path], layout: FolderLayout) -> bool:
    """Tell `case_0000` with a channel suffix from `case_0000` with a running number."""
    if len(layout.channels) > 1:
        return True
    suffixed = [stem for stem in files if CHANNEL_SUFFIX.search(stem)]
    if not suffixed:
        return False
    full = len(with_label(layout, files))
    stripped = len(with_label(layout, {CHANNEL_SUFFIX.sub("", stem) for stem in suffixed}))
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
        for folder in _case_named_folders(layout)
    }


def _case_named_folders(layout: FolderLayout) -> list[Path]:
    """The folders among the images, without that of the labels."""
    labels = layout.labels
    return [f for f in visible_folders(layout.images) if labels is None or not f.samefile(labels)]


def _required(folder: Path, pattern: str, channel: str) -> ImageSource:
    source = _match(folder, pattern)
    if source is None:
        raise ConversionError(
            f"Case {folder.name} lacks the channel {channel}: no {pattern} in {folder}; add it or "
            "remove the case."
        )
    return source


def _match(folder: Path, pattern: str) -> ImageSource | None:
    found = matches(folder, pattern)
    if len(found) > 1:
        raise ConversionError(
            f"Case {folder.name}: {pattern} fits {name_some(p.name for p in found)} in {folder}; "
            "make the pattern narrower."
        )
    return source_of(found[0]) if found else None

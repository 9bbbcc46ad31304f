"""The files of any folder: which are volumes, what their names are, what a pattern fits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_spmc.raw.cases import ConversionError, ImageSource
from nnunetv2_spmc.raw.dicom import DicomSeries
from nnunetv2_spmc.raw.reader import (
    PICTURE_ENDINGS,
    VOLUME_ENDINGS,
    ImageFile,
)


@dataclass(frozen=True)
class FolderLayout:
    """Where the images and labels of a folder are.

    Attributes:
        images: Folder of image files, of DICOM folders, or with `channel_files` of case folders.
        labels: Folder of label files named as the cases; None if labels lie with the images.
        channels: Channel names, in order.
        channel_files: Glob pattern of each channel inside a case's folder.
        label_file: Glob pattern of the label: inside a case's folder, or with the case's name in
            the place of its first *.
        label_files: Likewise of the mask of each class, by the name of the class.
        label_suffix: What follows the case's name in the name of its label; None looks for
            common ones.
        later_mask_counts: Where masks overlap, the later one of `label_files` counts.
    """

    images: Path
    labels: Path | None
    channels: tuple[str, ...]
    channel_files: Mapping[str, str] = field(default_factory=dict)
    label_file: str | None = None
    label_files: Mapping[str, str] = field(default_factory=dict)
    label_suffix: str | None = None
    later_mask_counts: bool = False

    @property
    def label_folder(self) -> Path:
        """Where labels are looked for."""
        return self.labels or self.images

    @property
    def labels_beside_images(self) -> bool:
        """Whether images and labels lie in one folder."""
        return self.label_folder.samefile(self.images)

    @property
    def label_patterns(self) -> list[str]:
        """All patterns of labels; none where their names are those of the cases."""
        return list(self.label_files.values()) or ([self.label_file] if self.label_file else [])


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
            continue  # another format, a table, the .raw of an .mhd: `unused_files` names them
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


def visible_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, without hidden ones."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def matches(folder: Path, pattern: str) -> list[Path]:
    """Return what a pattern fits in a folder, without hidden files.

    Raises:
        ConversionError: For a pattern that is absolute or none at all, or leads to a link to
            nothing.
    """
    try:
        found = sorted(folder.glob(pattern))
    except (NotImplementedError, ValueError, IndexError) as error:
        raise ConversionError(
            f"The pattern {pattern!r} cannot be looked for below {folder}; give one that is "
            "relative to it, as '*_t1.nii.gz'."
        ) from error
    place = folder
    for part in Path(pattern).parts:  # glob passes over links to nothing, but for those of a *
        place /= part
        if place.is_symlink() and not place.exists():
            raise ConversionError(
                f"{place} is a link to {os.readlink(place)}, which does not exist; get it, or "
                "remove the link."
            )
    return [path for path in found if not path.name.startswith(".")]


def source_of(path: Path) -> ImageSource:
    """Return how to read a file, or a folder with a DICOM series.

    Raises:
        ConversionError: For a folder that is named as a file.
    """
    if path.is_dir() and strip_ending(path.name) != path.name:
        raise ConversionError(
            f"{path} is a folder, though it is named as a file; take the file out of it."
        )
    return DicomSeries(path) if path.is_dir() else ImageFile(path)

"""The images in a folder: whole cases, cases that lack something, and files that are not images."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.cases import count_of, name_some
from nnunetv2_spmc.raw.layout import IMAGES_UNLABELED

NATURAL_IMAGE_ENDINGS = (".png", ".bmp", ".tif")  # those of nnU-Net's NaturalImage2DIO
NO_SCANS = (".json",)  # nnU-Net puts such files next to images
REPAIR = "add, rename or remove files, or remove the case"


@dataclass(frozen=True)
class ImageFolder:
    """What a folder of images holds.

    Args:
        cases: identifier -> channel files in order.
        failed: why other cases cannot be used, by identifier; by file name where there is none.
        left_out: names of what does not have the ending of the dataset.
        file_ending: that ending.
    """

    folder: Path
    cases: dict[str, list[str]]
    failed: dict[str, str]
    left_out: list[str]
    file_ending: str

    @property
    def all_cases(self) -> list[str]:
        """The sorted cases, whole or not."""
        return sorted(self.cases | self.failed)

    @property
    def note(self) -> str | None:
        """A line about what is left out, None where that is nothing."""
        return left_out_note(self.folder, self.left_out, self.file_ending)


def left_out_note(folder: Path, names: Sequence[str], file_ending: str) -> str | None:
    """Name and count the files of a folder that are left out, None without any."""
    if not names:
        return None
    return (
        f"note: {folder}: {count_of(len(names), 'file')} left out, not ending in {file_ending} "
        f"({name_some(names)}); convert or rename what is a scan."
    )


def other_files(folder: Path, names: Sequence[str], file_ending: str) -> list[str]:
    """Return the names that do not have an ending, without hidden files and nnU-Net's own."""
    return [
        f"{name}/" if os.path.isdir(os.path.join(folder, name)) else name
        for name in names
        if not name.startswith(".") and not name.endswith((file_ending, *NO_SCANS))
    ]


def image_files(folder: Path, file_ending: str) -> dict[str, dict[int, str]]:
    """Return the images of a raw folder as identifier -> channel number -> file.

    Files with another ending are left out, as nnU-Net does. An absent folder has no images.

    Raises:
        DataError: If a file has no channel suffix.
    """
    cases, unnamed = _by_case(folder, _names(folder), file_ending)
    for problem in unnamed.values():
        raise DataError(f"{problem}.")
    return cases


def find_images(folder: Path, file_ending: str, channels: Sequence[str]) -> ImageFolder:
    """Return what a folder of images holds; an absent one holds nothing.

    Args:
        folder: With CASE_0000.nii.gz, ...
        file_ending: As in dataset.json, ".nii.gz" for example.
        channels: The names of the channels that each case must have.
    """
    names = _names(folder)
    found, failed = _by_case(folder, names, file_ending)
    cases = {}
    for identifier, files in found.items():
        # The one file of a colour picture holds all its channels.
        is_picture = file_ending in NATURAL_IMAGE_ENDINGS and list(files) == [0]
        problem = _problem(folder, identifier, files, channels[:1] if is_picture else channels)
        if problem is None:
            cases[identifier] = [files[channel] for channel in sorted(files)]
        else:
            failed[identifier] = problem
    left_out = other_files(folder, names, file_ending)
    return ImageFolder(folder, cases, failed, left_out, file_ending)


def raw_unlabeled_cases(
    dataset_folder: Path, file_ending: str, channels: Sequence[str], *, required: bool = True
) -> ImageFolder:
    """Return the raw unlabeled cases.

    Args:
        dataset_folder: The dataset in nnUNet_raw.
        file_ending: As in dataset.json, ".nii.gz" for example.
        channels: The names of the channels that each case must have.
        required: Raise where there is no unlabeled case, instead of returning none.

    Raises:
        DataError: If there is no unlabeled case, whole or not.
    """
    images = find_images(dataset_folder / IMAGES_UNLABELED, file_ending, channels)
    if not images.all_cases and required:
        there = f" (there is {name_some(images.left_out)})" if images.left_out else ""
        raise DataError(
            f"There is no unlabeled case: {images.folder} has no file that ends in "
            f"_0000{file_ending}{there}; put the unlabeled images there."
        )
    return images


def _names(folder: Path) -> list[str]:
    # pathlib would take longer: there may be 100,000
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def _by_case(
    folder: Path, names: Sequence[str], file_ending: str
) -> tuple[dict[str, dict[int, str]], dict[str, str]]:
    """Return identifier -> channel number -> file, and what is wrong with other file names."""
    cases: dict[str, dict[int, str]] = {}
    unnamed = {}
    for name in names:
        if name.startswith(".") or not name.endswith(file_ending):
            continue
        file = os.path.join(folder, name)
        stem = name.removesuffix(file_ending)
        match = re.fullmatch(r"(.+)_(\d{4})", stem)
        if match is None:
            unnamed[name] = f"{file} has no channel suffix; rename it to {stem}_0000{file_ending}"
        else:
            cases.setdefault(match[1], {})[int(match[2])] = file
    return cases, unnamed


def _problem(
    folder: Path, identifier: str, files: dict[int, str], channels: Sequence[str]
) -> str | None:
    """Say why a case cannot be used, None where that is not known without reading its files."""
    if sorted(files) != list(range(len(channels))):
        there = ", ".join(f"{channel:04d}" for channel in sorted(files))
        expected = ", ".join(f"{channel:04d}" for channel in range(len(channels)))
        return (
            f"the case {identifier} in {folder} has the channels {there}, expected {expected} "
            f"({', '.join(channels)}); {REPAIR}"
        )
    if identifier.endswith("_seg"):
        return (
            f"the case {identifier} in {folder} would be taken for a segmentation; give it a name "
            "that does not end in _seg"
        )
    return next(filter(None, map(_no_file, files.values())), None)


def _no_file(file: str | Path) -> str | None:
    """Say what lies there instead of a file, None where there is one; a pipe would never end."""
    if os.path.isfile(file):
        return None
    if os.path.islink(file):
        return f"{file} is a link to {os.readlink(file)}, which is not a file; {REPAIR}"
    kind = "a folder" if os.path.isdir(file) else "a pipe or a device"
    return f"{file} is {kind}, expected a file; {REPAIR}"

"""The cases of a dataset in nnUNet_raw by what they are: labeled, unlabeled, test."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.raw.dataset_json import channel_names
from nnunetv2_spmc.raw.layout import IMAGES_TEST, IMAGES_TRAIN, IMAGES_UNLABELED, LABELS_TRAIN
from nnunetv2_spmc.raw.reader import PICTURE_ENDINGS, VOLUME_ENDINGS
from nnunetv2_spmc.unlabeled.raw_images import ImageFolder, find_images, image_files
from nnunetv2_spmc.unlabeled.scan_record import Cases

Log = Callable[[str], None]


def raw_cases(
    dataset_folder: Path, dataset_json: Mapping[str, Any], unlabeled: Cases | None = None
) -> dict[str, Cases]:
    """Return the labeled, unlabeled and test cases of a raw dataset by their folders.

    What has been removed because its preprocessed data is enough is left out: imagesUn, or all
    where there is no imagesTr.

    Args:
        dataset_folder: The dataset in nnUNet_raw.
        dataset_json: Its dataset.json.
        unlabeled: The unlabeled cases where they are known; the whole ones of imagesUn otherwise.
    """
    ending = dataset_json["file_ending"]
    cases: dict[str, Cases] = {}
    test_folder, unlabeled_folder = dataset_folder / IMAGES_TEST, dataset_folder / IMAGES_UNLABELED
    if "dataset" in dataset_json or (dataset_folder / IMAGES_TRAIN).is_dir():
        cases[IMAGES_TRAIN] = labeled_cases(dataset_folder, dataset_json)
    if unlabeled is not None:
        cases[IMAGES_UNLABELED] = unlabeled
    elif unlabeled_folder.is_dir():
        channels = channel_names(dataset_json)
        cases[IMAGES_UNLABELED] = find_images(unlabeled_folder, ending, channels).cases
    if IMAGES_TRAIN in cases or test_folder.is_dir():
        test = _in_order(image_files(test_folder, ending))
        cases[IMAGES_TEST] = {**_of_other_endings(test_folder, ending), **test}
    return cases


def labeled_cases(dataset_folder: Path, dataset_json: Mapping[str, Any]) -> Cases:
    """Return the cases that nnU-Net takes for labeled ones."""
    if "dataset" not in dataset_json:
        return _in_order(image_files(dataset_folder / IMAGES_TRAIN, dataset_json["file_ending"]))
    cases = {  # an absolute file replaces the folder it is joined to
        identifier: [str(dataset_folder / os.path.expandvars(file)) for file in case["images"]]
        for identifier, case in dataset_json["dataset"].items()
    }
    return {i: files for i, files in cases.items() if all(map(os.path.isfile, files))}


def annotated_since(
    dataset_folder: Path, dataset_json: Mapping[str, Any], unlabeled: Collection[str]
) -> list[str]:
    """Return the unlabeled cases that are in imagesTr by now, with a label."""
    labeled = labeled_cases(dataset_folder, dataset_json)
    listed = dataset_json.get("dataset", {})

    def label_of(identifier: str) -> Path:
        name = f"{LABELS_TRAIN}/{identifier}{dataset_json['file_ending']}"
        return dataset_folder / os.path.expandvars(
            listed[identifier]["label"] if identifier in listed else name
        )

    return [i for i in sorted(unlabeled) if i in labeled and label_of(i).is_file()]


def without_annotated(
    dataset_folder: Path, dataset_json: Mapping[str, Any], unlabeled: ImageFolder, log: Log
) -> ImageFolder:
    """Take the cases that have been annotated since out of the unlabeled ones, and say so."""
    moved = annotated_since(dataset_folder, dataset_json, unlabeled.all_cases)
    if not moved:
        return unlabeled
    log(moved_line(moved))
    return replace(
        unlabeled,
        cases={i: files for i, files in unlabeled.cases.items() if i not in moved},
        failed={i: reason for i, reason in unlabeled.failed.items() if i not in moved},
    )


def moved_line(moved: Sequence[str]) -> str:
    """Say that cases were annotated since."""
    return (
        f"Annotated since, now labeled cases and no longer used as unlabeled ones: "
        f"{name_some(moved)}."
    )


def _of_other_endings(folder: Path, file_ending: str) -> Cases:
    """Return the scans of a folder that nnU-Net does not see; they are test cases all the same."""
    cases: dict[str, dict[str, str]] = {}
    known = (*VOLUME_ENDINGS, *PICTURE_ENDINGS)
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        ending = next((e for e in known if name.lower().endswith(e)), "")
        if not ending or name.startswith(".") or name.endswith(file_ending):
            continue
        stem = name[: -len(ending)]
        identifier, _, channel = stem.rpartition("_")
        if not (identifier and len(channel) == 4 and channel.isdecimal()):
            identifier, channel = stem, "0000"
        cases.setdefault(identifier, {})[channel] = os.path.join(folder, name)
    return {i: [channels[c] for c in sorted(channels)] for i, channels in cases.items()}


def _in_order(cases: Mapping[str, Mapping[int, str]]) -> Cases:
    return {i: [channels[c] for c in sorted(channels)] for i, channels in cases.items()}

"""Names of the folders and files of a semi-labeled raw dataset.

::

nnUNet_raw/Dataset510_Liver/
dataset.json          stock nnU-Net, plus an optional "spmc": {settings} block
imagesTr/ labelsTr/   labeled cases only
imagesUn/             unlabeled cases
labelsUn/             optional: labels withheld from training
imagesTs/ labelsTs/   test cases
split.json            which case went where and why
"""

from __future__ import annotations

import json
from pathlib import Path

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.cases import RawCase, Role

IMAGES_TRAIN = "imagesTr"
LABELS_TRAIN = "labelsTr"
IMAGES_UNLABELED = "imagesUn"
LABELS_UNLABELED = "labelsUn"
IMAGES_TEST = "imagesTs"
LABELS_TEST = "labelsTs"
DATASET_FILE = "dataset.json"
SPLIT_FILE = "split.json"
SPLITS_FINAL = "splits_final.json"  # nnU-Net's, in nnUNet_preprocessed
SETTINGS_KEY = "spmc"
OVERLAP_KEY = "spmc_overlap"  # in the dataset.json of a model and of what it predicts
FILE_ENDING = ".nii.gz"
FOLDERS: dict[Role, tuple[str, str]] = {
    "labeled": (IMAGES_TRAIN, LABELS_TRAIN),
    "validation": (IMAGES_TRAIN, LABELS_TRAIN),
    "unlabeled": (IMAGES_UNLABELED, LABELS_UNLABELED),
    "test": (IMAGES_TEST, LABELS_TEST),
}


def image_file(case: RawCase, channel: int) -> Path:
    """Return where a channel is written, relative to the dataset."""
    return Path(FOLDERS[case.role][0], f"{case.identifier}_{channel:04d}{FILE_ENDING}")


def label_file(case: RawCase) -> Path:
    """Return where the label is written, relative to the dataset."""
    return Path(FOLDERS[case.role][1], f"{case.identifier}{FILE_ENDING}")


def is_raw_dataset(folder: Path) -> bool:
    """Whether a folder holds a dataset in nnU-Net's raw layout: its dataset.json says so."""
    try:
        content = json.loads((folder / DATASET_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and isinstance(content.get("labels"), dict)


def refuse_to_write_into(folder: Path, inputs: Path) -> None:
    """Raise if segmentations written into a folder could replace images or references.

    Args:
        folder: for CASE.nii.gz.
        inputs: the folder of the images.

    Raises:
        DataError: it is that of the images, or one of a dataset's own, labelsTr for example.
    """
    resolved = folder.resolve()
    own = {name for folders in FOLDERS.values() for name in folders}
    if resolved == inputs.resolve() or (resolved.name in own and is_raw_dataset(resolved.parent)):
        raise DataError(
            f"{folder} holds images or labels that would be replaced; name another folder with -o."
        )

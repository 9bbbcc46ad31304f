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

from pathlib import Path

from nnunetv2_spmc.raw.cases import RawCase, Role

IMAGES_TRAIN = "imagesTr"
LABELS_TRAIN = "labelsTr"
IMAGES_UNLABELED = "imagesUn"
LABELS_UNLABELED = "labelsUn"
IMAGES_TEST = "imagesTs"
LABELS_TEST = "labelsTs"
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

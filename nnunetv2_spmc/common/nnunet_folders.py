"""nnU-Net's three folders, which environment variables name, and the datasets in nnUNet_raw."""

from __future__ import annotations

import os
from pathlib import Path

from nnunetv2_spmc.common.errors import DataError

RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"


def raw_folder(*, must_exist: bool = False) -> Path:
    """Return nnUNet_raw, or raise DataError."""
    return _folder(RAW, must_exist)


def preprocessed_folder(*, must_exist: bool = False) -> Path:
    """Return nnUNet_preprocessed, or raise DataError."""
    return _folder(PREPROCESSED, must_exist)


def results_folder() -> Path:
    """Return nnUNet_results, or raise DataError."""
    return _folder(RESULTS, must_exist=False)


def folder_if_set(variable: str) -> Path | None:
    """Return the folder that RAW, PREPROCESSED or RESULTS names, None where it is not set."""
    value = os.environ.get(variable)
    return Path(value).expanduser().absolute() if value else None


def _folder(variable: str, must_exist: bool) -> Path:
    folder = folder_if_set(variable)
    if folder is None:
        raise DataError(
            f"The environment variable {variable} is not set; "
            f"export {variable}=/path/to/{variable} as nnU-Net's documentation describes."
        )
    if must_exist and not folder.is_dir():
        raise DataError(f"The environment variable {variable} names {folder}, which is no folder.")
    return folder


def find_dataset(name_or_id: str | int) -> str:
    """Return the name of the one dataset in nnUNet_raw with that name or id.

    Raises:
        DataError: nnUNet_raw is not set or no folder, or has none or several.
    """
    root = raw_folder(must_exist=True)
    datasets = sorted(p.name for p in root.glob("Dataset[0-9][0-9][0-9]_*") if p.is_dir())
    wanted = str(name_or_id)
    prefix = f"Dataset{int(wanted):03d}_" if wanted.isdecimal() else None
    found = [name for name in datasets if name == wanted or (prefix and name.startswith(prefix))]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"Several datasets in {root} have the id {wanted}: {', '.join(found)}; "
            "give the name instead."
        )
    raise DataError(
        f"There is no dataset {wanted} in {root}; the folder has "
        f"{', '.join(datasets) or 'no dataset'}."
    )


def raw_dataset_folder(dataset_name: str) -> Path | None:
    """Return the dataset in nnUNet_raw, or None where only preprocessed data is kept."""
    root = folder_if_set(RAW)
    folder = root / dataset_name if root is not None else None
    return folder if folder is not None and folder.is_dir() else None

"""nnU-Net's three folders, which environment variables name, and the datasets in them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
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
    folder = _folder(RESULTS, must_exist=False)
    return _folder(RESULTS, must_exist=os.path.lexists(folder))


def folder_if_set(variable: str) -> Path | None:
    """Return the folder that RAW, PREPROCESSED or RESULTS names, None where it is not set.

    Raises:
        DataError: one of the three begins with '~', whichever is asked for: a later command would
            fail, after hours perhaps.
    """
    for name in (variable, RAW, PREPROCESSED, RESULTS):
        written = os.environ.get(name, "")
        if written.startswith("~"):
            raise DataError(
                f"{name} is {written}, which nnU-Net takes literally; write the folder in full."
            )
    value = os.environ.get(variable)
    return Path(value).absolute() if value else None


def _folder(variable: str, must_exist: bool) -> Path:
    folder = folder_if_set(variable)
    if folder is None:
        raise DataError(
            f"The environment variable {variable} is not set; "
            f"export {variable}=/path/to/{variable} as nnU-Net's documentation describes."
        )
    if must_exist and not folder.is_dir():
        raise DataError(
            f"The environment variable {variable} names {folder}, which is not a folder."
        )
    return folder


def find_dataset(name_or_id: str | int, root: Path | None = None) -> str:
    """Return the name of the one dataset with that name or id.

    Args:
        name_or_id: of the dataset.
        root: where it must be: one of nnU-Net's three folders, by default nnUNet_raw.

    Raises:
        DataError: nnUNet_raw is not set or no folder, or has none; or nnU-Net, too, finds several.
    """
    root = raw_folder(must_exist=True) if root is None else root
    names = dataset_names(root)
    wanted = str(name_or_id)
    if wanted in names:
        return wanted
    folders = (folder_if_set(variable) for variable in (RAW, PREPROCESSED, RESULTS))
    others = [folder for folder in folders if folder not in (None, root)]
    found: Mapping[str, Path] = {}
    if wanted.isdecimal():
        found = find_id(int(wanted), root, *others)
    here = [name for name in found if name in names]
    if here:
        return here[0]
    raise DataError(
        f"There is no dataset {wanted} in {root}; the folder has "
        f"{', '.join(names) or 'no dataset'}.{_of_another_length(wanted, names)}"
    )


def dataset_names(folder: Path) -> list[str]:
    """Return the sorted names of the datasets in one of nnU-Net's folders."""
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if number_of(p.name) is not None and p.is_dir())


def number_of(name: str) -> int | None:
    """Return the number in the name of a dataset, None if it is not the name of a dataset."""
    match = re.match(r"Dataset([0-9]+)", name)
    return int(match[1]) if match else None


def find_id(number: int, *roots: Path) -> Mapping[str, Path]:
    """Return the dataset of an id and where it lies, at most one; look for it as nnU-Net does.

    nnU-Net takes each folder whose name begins with the number in at least three digits, in any of
    its three folders: Dataset5100_B, too, for 510.

    Raises:
        DataError: there are several, so that nnU-Net refuses the id.
    """
    prefix = f"Dataset{number:03d}"
    found = {
        name: root / name
        for root in reversed(roots)
        for name in dataset_names(root)
        if name.startswith(prefix)
    }
    if len(found) > 1:
        places = ", ".join(
            name if found[name].parent == roots[0] else f"{name} in {found[name].parent}"
            for name in sorted(found)
        )
        raise DataError(
            f"Several datasets have the id {number}: {places}; give the name instead, "
            f"or rename one: nnU-Net takes all whose names begin with {prefix}."
        )
    return {name: place for name, place in found.items() if number_of(name) == number}


def _of_another_length(wanted: str, names: list[str]) -> str:
    """Say which dataset has the number but not in the digits that nnU-Net looks for."""
    same = [name for name in names if wanted.isdecimal() and number_of(name) == int(wanted)]
    if not same:
        return ""
    return (
        f" nnU-Net does not find {same[0]} by its number, because it looks for "
        f"Dataset{int(wanted):03d}; give the name instead, or rename it."
    )


def refuse_path(name: object, what: str) -> None:
    """Raise unless a name is a single part of a path, so that it stays in its folder.

    Raises:
        DataError: it names `what` it is of.
    """
    if not isinstance(name, str) or not name.strip(" .") or re.search(r"[/\\\0]", name):
        raise DataError(f"{what} must be a plain name, not a path: got {name!r}.")


def raw_dataset_folder(dataset_name: str) -> Path | None:
    """Return the dataset in nnUNet_raw, or None where only preprocessed data is kept."""
    root = folder_if_set(RAW)
    folder = root / dataset_name if root is not None else None
    return folder if folder is not None and folder.is_dir() else None

"""Folds, also for datasets with fewer labeled cases than nnU-Net's five folds need."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.json_files import read_any_json
from nnunetv2_spmc.common.whole_file import write_json
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.raw.layout import SPLITS_FINAL
from nnunetv2_spmc.raw.splits import NNUNET_FOLDS, Splits, leave_one_out, nnunet_folds

Log = Callable[[str], None]
REMEDY = "repair it, or delete it to make new folds"


def ensure_fold_exists(
    preprocessed_dataset_folder: Path, identifiers: Sequence[str], fold: int | str, *, log: Log
) -> None:
    """Write splits_final.json if it is absent; refuse a fold that is not in it.

    From five cases on it is nnU-Net's own split, which nnU-Net would not write whole or not at all.
    With 2 to 4 cases, where its KFold fails, each is the validation case of one fold; a single case
    is trained and validated on, with a warning. A split of this kind is made again when cases were
    added; any other split stays as it is.

    Args:
        preprocessed_dataset_folder: nnUNet_preprocessed/DatasetXXX_Name.
        identifiers: the labeled cases.
        fold: the fold to train; "all" needs no split.
        log: receives what was done, and warnings.

    Raises:
        DataError: the fold is not in the file, or the file cannot be read.
    """
    if fold == "all":
        return
    check_fold(preprocessed_dataset_folder, identifiers, fold)
    file = preprocessed_dataset_folder / SPLITS_FINAL
    splits = _read(file)
    if splits is not None:
        splits = _with_added_cases(file, splits, identifiers, log)
    if splits is None:
        few = len(identifiers) < NNUNET_FOLDS
        splits = leave_one_out(identifiers) if few else nnunet_folds(identifiers)
        write_json(splits, file)
    if splits[int(fold)]["train"] == splits[int(fold)]["val"]:
        log(
            f"WARNING: fold {fold} in {file} trains and validates on the same cases, so its "
            "validation Dice says nothing."
        )
    if len(splits) < NNUNET_FOLDS:
        folds = " ".join(map(str, range(len(splits))))
        log(f"{file} has the folds {folds}: after training them, nnUNetv2_predict -f {folds}")


def check_fold(
    preprocessed_dataset_folder: Path, identifiers: Sequence[str], fold: int | str
) -> list[str]:
    """Return the cases of a fold; write nothing.

    Raises:
        DataError: the fold is not in the file, or the file cannot be read.
    """
    if fold == "all":
        return list(identifiers)
    file = preprocessed_dataset_folder / SPLITS_FINAL
    splits = read_folds(preprocessed_dataset_folder, identifiers)
    available = min(len(identifiers), NNUNET_FOLDS) if splits is None else len(splits)
    if not 0 <= int(fold) < available:
        raise DataError(
            f"There is no fold {fold} for the {len(identifiers)} labeled cases: {file} has "
            f"{available} folds; train 0 to {available - 1}, or all."
        )
    if splits is None:
        return list(identifiers)
    return [name for part in splits[int(fold)].values() for name in part]


def read_folds(preprocessed_dataset_folder: Path, identifiers: Sequence[str]) -> Splits | None:
    """Return the folds that are written down and hold for these cases, None where none are.

    Raises:
        DataError: the file cannot be read.
    """
    splits = _read(preprocessed_dataset_folder / SPLITS_FINAL)
    return None if splits is None or _is_outgrown(splits, identifiers) else splits


def validated_and_trained_on(preprocessed_dataset_folder: Path, fold: int) -> list[str]:
    """Return the cases of a fold that it both trains and validates on, as far as is known."""
    splits = _read(preprocessed_dataset_folder / SPLITS_FINAL)
    if splits is None or fold >= len(splits):
        return []
    return sorted(set(splits[fold]["train"]) & set(splits[fold]["val"]))


def _is_outgrown(splits: Splits, identifiers: Sequence[str]) -> bool:
    """Tell whether a split that was made for few cases lacks some that were added since."""
    known = {name for split in splits for part in split.values() for name in part}
    is_ours = len(known) < NNUNET_FOLDS and splits == leave_one_out(known)
    return is_ours and not known.issuperset(identifiers)


def _with_added_cases(
    file: Path, splits: Splits, identifiers: Sequence[str], log: Log
) -> Splits | None:
    """Return the splits to use, None where they are to be made; say which cases are in none."""
    known = {name for split in splits for part in split.values() for name in part}
    added = sorted(set(identifiers) - known)
    if not added:
        return splits
    if _is_outgrown(splits, identifiers):
        log(f"{file} was made for {len(known)} labeled cases; making it again for all of them.")
        return None
    log(
        f"WARNING: {file} leaves out {len(added)} labeled cases ({name_some(added)}); delete it to "
        "make new folds, or add them."
    )
    return splits


def _read(file: Path) -> Splits | None:
    if not os.path.lexists(file):
        return None
    splits = read_any_json(file, REMEDY)
    if not isinstance(splits, list) or not splits or not all(map(_is_fold, splits)):
        raise DataError(
            f"{file} is not a list of folds with 'train' and 'val', lists of cases; {REMEDY}."
        )
    return [{"train": split["train"], "val": split["val"]} for split in splits]


def _is_fold(split: Any) -> bool:
    parts = [split.get(part) for part in ("train", "val")] if isinstance(split, dict) else [None]
    return all(isinstance(p, list) and all(isinstance(case, str) for case in p) for p in parts)


def remove_other_predictions(
    folder: Path, file_ending: str, cases: Collection[str], log: Callable[[str], None]
) -> None:
    """Remove the validation's predictions of cases that a fold no longer validates.

    nnU-Net measures all that lie there, and a case of an earlier split may be a training case now.

    Args:
        folder: of the predictions; need not exist.
        file_ending: of a segmentation, such as ".nii.gz".
        cases: that the fold validates.
        log: nnU-Net's print_to_log_file.
    """
    wanted = {f"{case}{file_ending}" for case in cases}
    others = [file for file in folder.glob(f"*{file_ending}") if file.name not in wanted]
    for file in others:
        file.unlink()
    if others:
        log(
            "Removed the predictions of cases that this fold no longer validates: "
            f"{name_some(sorted(file.name.removesuffix(file_ending) for file in others))}."
        )

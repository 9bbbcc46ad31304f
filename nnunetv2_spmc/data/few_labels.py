"""Folds for datasets with fewer labeled cases than nnU-Net's five folds need."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from nnunetv2_spmc.data.errors import DataError
from nnunetv2_spmc.data.raw_layout import SPLITS_FINAL
from nnunetv2_spmc.data.raw_splits import NNUNET_FOLDS, leave_one_out


def ensure_fold_exists(
    preprocessed_dataset_folder: Path,
    identifiers: Sequence[str],
    fold: int | str,
    *,
    log: Callable[[str], None],
) -> None:
    """Write splits_final.json where nnU-Net's KFold would fail; refuse a fold that is not in it.

    With 2 to 4 cases each is the validation case of one fold; a single case is trained and
    validated on, with a warning. With five or more cases everything is left to nnU-Net.

    Args:
        preprocessed_dataset_folder: nnUNet_preprocessed/DatasetXXX_Name.
        identifiers: the labeled cases.
        fold: the fold to train; "all" needs no split.
        log: receives what was done.

    Raises:
        DataError: there are fewer than five cases, and the fold is not in the file.
    """
    if fold == "all" or len(identifiers) >= NNUNET_FOLDS:
        return
    file = preprocessed_dataset_folder / SPLITS_FINAL
    if not file.is_file():
        splits = leave_one_out(identifiers)
        temporary = file.with_name(f"{SPLITS_FINAL}.{os.getpid()}.writing")
        temporary.write_text(json.dumps(splits, indent=4), encoding="utf-8")
        os.replace(temporary, file)
        folds = " ".join(map(str, range(len(splits))))
        log(
            f"Only {len(identifiers)} labeled cases: wrote {file} with the folds {folds}, each "
            f"with one validation case. After training them: nnUNetv2_predict -f {folds}"
            if len(splits) > 1
            else f"WARNING: only one labeled case, so fold 0 in {file} trains and validates on it: "
            "its validation Dice says nothing. After training: nnUNetv2_predict -f 0"
        )
    available = len(json.loads(file.read_text(encoding="utf-8")))
    if int(fold) >= available:
        raise DataError(
            f"{file} has {available} folds for {len(identifiers)} labeled cases, so there is no "
            f"fold {fold}: train 0 to {available - 1}, or all."
        )

"""What every scan and every label must be before it is used, whichever command reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from nnunetv2_spmc.common.text import check_name
from nnunetv2_spmc.raw.nifti_check import NIFTI_ENDINGS, check_nifti

Kind = Literal["image", "label"]


def check_scan(file: Path, *, kind: Kind = "image") -> None:
    """Check a file that another library reads; formats other than NIfTI pass.

    Raises:
        DataError: as `check_nifti`, or its name is no text.
    """
    check_name(file)
    if file.name.lower().endswith(NIFTI_ENDINGS):
        check_nifti(file)

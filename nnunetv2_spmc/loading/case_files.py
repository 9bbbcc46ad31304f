"""nnU-Net's datasets, whose .pkl files are looked at before nnU-Net unpickles them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2, nnUNetDatasetNumpy

from nnunetv2_spmc.unlabeled.case_properties import read_properties

_seen: dict[str, tuple[int, int, int]] = {}  # by this process: file -> inode, size, time


def check_properties(file: Path) -> None:
    """Read a .pkl file as data, if this process has not read it before.

    Raises:
        ForeignPickleError: it names something that is not part of a preprocessed case.
        Exception: it is damaged; of any type.
    """
    stat = os.stat(file)
    now = stat.st_ino, stat.st_size, stat.st_mtime_ns
    if _seen.get(str(file)) != now:
        read_properties(file)
        _seen[str(file)] = now


class _ReadAsData:
    source_folder: str

    def load_case(self, identifier: str) -> tuple[Any, ...]:
        """Load a case as nnU-Net does, if its properties are data."""
        check_properties(Path(self.source_folder, f"{identifier}.pkl"))
        case: tuple[Any, ...] = super().load_case(identifier)  # type: ignore[misc]
        return case


class Blosc2Cases(_ReadAsData, nnUNetDatasetBlosc2):
    """Cases in Blosc2 files."""


class NumpyCases(_ReadAsData, nnUNetDatasetNumpy):
    """Cases in the files of an old nnU-Net."""


def reading_as_data(dataset_class: Any) -> Any:
    """Return the class that loads cases as one of nnU-Net's does, but reads their .pkl as data."""
    own = {nnUNetDatasetBlosc2: Blosc2Cases, nnUNetDatasetNumpy: NumpyCases}
    return own.get(dataset_class, dataset_class)

"""What tests change in their own process: nnU-Net without what takes seconds, a closed pipe."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace
from typing import Any

import pytest
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)


class FewVoxels(DatasetFingerprintExtractor):
    """Draw few voxels for the intensity statistics: stock draws 100 million, for seconds."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.num_foreground_voxels_for_intensitystats = 1e4


def use_threads_for_pools(patch: pytest.MonkeyPatch) -> None:
    """Let nnU-Net's process pools be threads: a spawned process imports PyTorch for seconds."""
    context = SimpleNamespace(Pool=ThreadPool)
    patch.setattr(multiprocessing, "get_context", lambda method=None: context)
    patch.setattr("nnunetv2.utilities.utils.Pool", ThreadPool)


def leave_out_plots(patch: pytest.MonkeyPatch) -> None:
    """Do not draw the plots of every epoch, which take longer than the epochs of a test."""
    logger = "nnunetv2.training.logging.nnunet_logger.LocalLogger.plot_progress_png"
    patch.setattr(logger, lambda *_: None)
    patch.setattr("nnunetv2_spmc.training.epoch_log.plot_progress", lambda *_: None)


@contextmanager
def closed_pipe() -> Iterator[None]:
    """Let nobody read stdout any more."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout, redirect_stdout(stdout):
        yield

"""What PyTorch computes on here: which devices there are, and which is best."""

from __future__ import annotations

import os

from nnunetv2_spmc.common.errors import DataError

DEVICES = ("cuda", "cpu", "mps")  # -device of all commands; the first is nnU-Net's default


def best_device() -> str:
    """Return "cuda" or "mps" where PyTorch has such a GPU, otherwise "cpu"."""
    import torch  # takes seconds, which the help of a command has not

    if torch.cuda.device_count() > 0:
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_device(kind: str, processes: int = 1) -> None:
    """Raise DataError if this machine does not have what it takes.

    Args:
        kind: one of `DEVICES`.
        processes: how many GPUs are needed.
    """
    import torch

    if kind == "mps" and not torch.backends.mps.is_available():
        raise DataError("There is no Apple GPU that PyTorch can use; take -device cpu.")
    if kind != "cuda":
        return
    gpus = torch.cuda.device_count()
    if gpus == 0:
        reason = "" if torch.version.cuda else " (it is built without CUDA)"
        raise DataError(
            f"There is no GPU that PyTorch can use{reason}; take -device cpu, or see what "
            "nvidia-smi says and install a PyTorch that fits."
        )
    if processes > gpus and "LOCAL_RANK" not in os.environ:
        raise DataError(f"-num_gpus {processes} is more than the {gpus} that this machine has.")

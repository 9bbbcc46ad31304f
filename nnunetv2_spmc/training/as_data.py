"""Checkpoints are data: reading one builds plain types and tensors, and calls nothing else."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunetv2_spmc.common.errors import DataError

# of PyTorch: the first also holds for a call with weights_only=False, such as nnU-Net's
FORCE_VARIABLES = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}
REFUSED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")  # in what PyTorch raises

_scalar: Callable[..., Any] = np.float64(0).__reduce__()[0]


def _numpys_scalar(module: str) -> Callable[..., Any]:
    """Return NumPy's function that makes a scalar, under the name of one of its versions."""
    made: Any = functools.partial(_scalar)
    made.__module__, made.__name__, made.__qualname__ = module, "scalar", "scalar"
    return made


# what nnU-Net stores besides plain types and tensors: losses and Dice as scalars of NumPy
STORED_BY_NNUNET: list[Any] = [
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"},  # numbers
    _numpys_scalar("numpy.core.multiarray"),  # NumPy 1
    _numpys_scalar("numpy._core.multiarray"),
]


class ForeignCodeError(DataError):
    """A file asks for more to be called than what builds data: that could be any program."""


@contextmanager
def read_as_data() -> Iterator[None]:
    """Let every `torch.load` inside, nnU-Net's own too, build plain types and tensors only."""
    before = {name: os.environ.get(name) for name in FORCE_VARIABLES}
    os.environ.update(FORCE_VARIABLES)
    try:
        with torch.serialization.safe_globals(STORED_BY_NNUNET):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def load(file: Any, *, mmap: bool = False) -> Any:
    """Read what `torch.save` has written, onto the CPU, as data.

    Args:
        file: a path, or an open file.
        mmap: leave the tensors on disk until they are used.
    """
    with read_as_data():
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)


def refusal(path: Path, error: Exception) -> ForeignCodeError | None:
    """Return the error for a file that PyTorch refused because of what it names; else None."""
    named = REFUSED_GLOBAL.search(str(error))
    if named is None:
        return None
    return ForeignCodeError(
        f"{path} names {named[1]}, which is not part of a checkpoint of nnU-Net: loading it could "
        "run any program, so it was not loaded. Take a checkpoint that nnU-Net or this package "
        "wrote, from someone you trust."
    )


def plain(value: Any) -> Any:
    """Return a value with Python's numbers and lists in place of NumPy's; tensors stay."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        items = {key: plain(inner) for key, inner in value.items()}
        is_plain = all(items[key] is inner for key, inner in value.items())
        return value if is_plain else items  # a state_dict has more than its items
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    return value

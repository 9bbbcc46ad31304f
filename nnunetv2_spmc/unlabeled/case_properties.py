"""The .pkl file of a preprocessed case, read as data: what a pickle names is not called blindly."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.errors import DataError

# what nnU-Net's readers and its preprocessor store besides plain types: arrays and numbers of NumPy
KNOWN = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("_codecs", "encode"),  # the bytes of a number, in an old protocol
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")  # NumPy 1 and 2
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    ),
}


class ForeignPickleError(DataError):
    """A pickle asks for more to be called than what builds data: that could be any program."""


class _DataUnpickler(pickle.Unpickler):
    def __init__(self, content: bytes, file: Path) -> None:
        super().__init__(io.BytesIO(content))
        self.file = file

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise ForeignPickleError(
                f"{self.file.name} names {module}.{name}, which is not part of a preprocessed "
                "case: reading it could run any program"
            )
        return super().find_class(module, name)


def read_properties(file: Path) -> Any:
    """Return what a .pkl file of a preprocessed case holds.

    Raises:
        ForeignPickleError: it names something that is not part of a case; nothing was called.
        Exception: it is damaged; of any type.
    """
    return _DataUnpickler(file.read_bytes(), file).load()

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from nnunetv2_spmc.common.errors import DataError, SPMCError, UnsupportedError, failure_lines
from nnunetv2_spmc.common.setting_checks import SettingsError
from nnunetv2_spmc.common.whole_file import WriteError
from nnunetv2_spmc.inference.export import ExportError
from nnunetv2_spmc.raw.cases import ConversionError
from nnunetv2_spmc.reports.run_files import AbsentError
from nnunetv2_spmc.training.as_data import ForeignCodeError
from nnunetv2_spmc.training.checkpoint import CheckpointError
from nnunetv2_spmc.training.memory import DeviceMemoryError
from nnunetv2_spmc.training.stability import DivergedError
from nnunetv2_spmc.training.tensorboard_logger import MissingPackageError
from nnunetv2_spmc.unlabeled.case_properties import ForeignPickleError

REPOSITORY = Path(__file__).parents[2]
FAMILY = {
    DataError: ValueError,
    ConversionError: ValueError,
    WriteError: ValueError,
    AbsentError: ValueError,
    SettingsError: ValueError,
    ForeignCodeError: ValueError,
    ForeignPickleError: ValueError,
    UnsupportedError: NotImplementedError,
    CheckpointError: RuntimeError,
    ExportError: RuntimeError,
    DivergedError: RuntimeError,
    DeviceMemoryError: MemoryError,
    MissingPackageError: ImportError,
}


@pytest.mark.parametrize(("error", "built_in"), FAMILY.items())
def test_every_error_is_of_the_family_and_like_a_built_in_one(error, built_in) -> None:
    assert issubclass(error, SPMCError)
    assert issubclass(error, built_in)
    assert str(error("a sentence")) == "a sentence"


def test_the_package_has_no_other_exceptions() -> None:
    sources = [REPOSITORY / "nnunetv2_spmc", REPOSITORY / "dataset_conversion"]
    defined = {
        node.name
        for folder in sources
        for file in folder.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Exception"))
    }
    assert defined == {SPMCError.__name__, *(error.__name__ for error in FAMILY)}


def test_a_failed_case_is_one_line_whatever_its_name_holds() -> None:
    failed = {"a\nb": "it is\ttruncated", "Käse\udcff": "c\u202ed"}
    assert failure_lines(failed, 3).splitlines() == [
        r"failed: a\nb: it is\ttruncated",
        r"failed: Käse\udcff: c\u202ed",
        "2 of 3 cases failed.",
    ]

"""Faults of an installation are found, each on its own."""

from __future__ import annotations

import importlib
import importlib.metadata
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)

from nnunetv2_spmc import discovery
from nnunetv2_spmc.doctor import examination, installation, machine
from nnunetv2_spmc.doctor.examination import examine, machine_checks
from nnunetv2_spmc.doctor.finding import Finding, run_checks, worst, worst_first

Usage = namedtuple("Usage", "total used free")
GIB = 1 << 30


@pytest.fixture
def room(monkeypatch):
    """Give every disk so many GiB."""

    def give(gib):
        usage = Usage(int(gib * GIB), 0, int(gib * GIB))
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    give(100)
    return give


@pytest.fixture
def healthy(tmp_path, monkeypatch, room):
    for variable in machine.FOLDERS:
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    monkeypatch.delenv("nnUNet_def_n_proc", raising=False)
    return tmp_path


def only(check):
    (finding,) = list(check)
    return finding


def test_a_healthy_installation_has_nothing_to_complain_of(healthy):
    findings = examine().findings
    assert worst(findings) in ("ok", "note")  # a note: no GPU
    assert {f.check for f in findings if f.severity == "note"} <= {"device", "Python"}
    looked_at = {f.check for f in findings}
    assert looked_at >= {"Python", "torch", "torchvision", "nnunetv2", "blosc2", "compiler"}
    assert looked_at >= {*machine.FOLDERS, "nnUNet_extTrainer", "shared memory"}


def test_nothing_is_printed_while_looking(healthy, capfd):
    examine()
    assert capfd.readouterr() == ("", "")


# ---- packages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [ImportError("libcudart.so.12: no such file"), RuntimeError("operator nms"), OSError(8)],
)
@pytest.mark.parametrize("package", [package for package, _ in installation.IMPORTED])
def test_a_package_that_cannot_be_imported_is_an_error(monkeypatch, package, error):
    def fail(name):
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    finding = only(installation.check_package(package, "module"))
    assert (finding.check, finding.severity) == (package, "error")
    assert f"cannot be imported ({type(error).__name__}: " in finding.what
    assert finding.command.startswith("pip install --force-reinstall ")


def test_a_package_that_is_not_there_is_an_error(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(installation, "version", absent)
    finding = only(installation.check_package("torchvision", "torchvision"))
    assert finding.what == "torchvision is not installed."
    assert "torch torchvision" in finding.command


@pytest.mark.parametrize(
    ("package", "installed", "asking", "requirement", "fits"),
    [
        ("torch", "2.9.1", "nnunetv2", "torch!=2.9.*,>=2.1.2", False),
        ("torch", "2.10.0+cu130", "nnunetv2", "torch!=2.9.*,>=2.1.2", True),
        ("torch", "2.7.0", "torchvision", "torch (==2.6.0)", False),
        ("torch", "2.6.0+cu124", "torchvision", "torch (==2.6.0)", True),
        ("nnunetv2", "2.7.0", "nnunetv2-spmc", "nnunetv2>=2.8,<2.9", False),
        ("torch", "2.7.0", "nnunetv2", 'torch<2.3; extra == "intel-macos"', True),
        ("torch", "2.7.0", "nnunetv2", "torchvision==0.1", True),
    ],
)
def test_versions_that_do_not_fit_are_found(
    monkeypatch, package, installed, asking, requirement, fits
):
    monkeypatch.setattr(installation, "version", lambda name: installed)
    monkeypatch.setattr(
        installation, "requires", lambda name: [requirement] if name == asking else None
    )
    finding = only(installation.check_package(package, package))
    assert finding.severity == ("ok" if fits else "error")
    if not fits:
        assert f"{package} {installed} does not fit {asking}" in finding.what


def test_a_newer_python_is_a_note(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 99, 0))
    finding = only(installation.check_python())
    assert finding.severity == "note"
    assert "nothing newer than 3.13 was tested" in finding.what


# ---- device and compiler -----------------------------------------------------------------------


def test_a_driver_without_a_gpu_for_torch_is_a_warning(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    finding = only(installation.check_gpus())
    assert (finding.severity, finding.command) == ("warning", "nvidia-smi")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    finding = only(installation.check_gpus())
    assert finding.severity == "note"
    assert "train with -device cpu" in finding.what


def test_a_gpu_that_torch_was_not_built_for_is_an_error(monkeypatch):
    properties = namedtuple("Properties", "name total_memory")("Card", 8 * GIB)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: properties)

    def fail(*_, **__):
        raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr(torch, "zeros", fail)
    finding = only(installation.check_gpus())
    assert finding.severity == "error"
    assert "GPU 0 (Card, 8 GiB) cannot compute" in finding.what
    assert "no kernel image" in finding.what


@pytest.mark.parametrize(
    ("compiles", "compiler", "severity"),
    [("t", None, "error"), ("f", None, "ok"), ("t", "/usr/bin/gcc", "ok")],
)
def test_a_gpu_needs_a_compiler_unless_torch_compile_is_off(
    monkeypatch, compiles, compiler, severity
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(shutil, "which", lambda name: compiler)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: compiler or True)
    monkeypatch.setenv("nnUNet_compile", compiles)
    finding = only(installation.check_compiler())
    assert finding.severity == severity
    if severity == "error":
        assert "lacks a C compiler (gcc)" in finding.what
        assert finding.command == "export nnUNet_compile=f"


# ---- folders and variables ---------------------------------------------------------------------


@pytest.mark.parametrize("variable", machine.FOLDERS)
def test_a_folder_that_is_not_set_is_an_error(healthy, monkeypatch, variable):
    monkeypatch.delenv(variable)
    finding = only(machine.check_folder(variable))
    assert finding.severity == "error"
    assert finding.command == f"export {variable}=/path/to/{variable}"


@pytest.mark.parametrize(
    ("variable", "severity"),
    [("nnUNet_raw", "error"), ("nnUNet_preprocessed", "error"), ("nnUNet_results", "note")],
)
def test_a_folder_that_is_not_there_can_be_made(healthy, monkeypatch, variable, severity):
    monkeypatch.setenv(variable, str(healthy / "not there"))
    finding = only(machine.check_folder(variable))
    assert finding.severity == severity
    assert finding.command == f"mkdir -p '{healthy}/not there'"


def test_a_file_instead_of_a_folder_is_an_error(healthy, monkeypatch):
    (healthy / "file").write_text("")
    monkeypatch.setenv("nnUNet_raw", str(healthy / "file"))
    assert only(machine.check_folder("nnUNet_raw")).severity == "error"


@pytest.mark.parametrize(
    ("variable", "severity"),
    [("nnUNet_raw", "note"), ("nnUNet_preprocessed", "error"), ("nnUNet_results", "error")],
)
def test_a_folder_that_cannot_be_written_is_found(healthy, monkeypatch, variable, severity):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", refuse)
    finding = only(machine.check_folder(variable))
    assert finding.severity == severity
    assert "cannot be written to (Permission denied)" in finding.what


@pytest.mark.parametrize(
    ("gib", "variable", "severity"),
    [
        (0.5, "nnUNet_results", "error"),
        (5, "nnUNet_results", "warning"),
        (0.5, "nnUNet_raw", "warning"),
        (50, "nnUNet_results", "ok"),
    ],
)
def test_a_full_disk_is_found(healthy, room, gib, variable, severity):
    room(gib)
    assert only(machine.check_folder(variable)).severity == severity


def test_a_tilde_is_an_error_of_each_folder(healthy, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", "~/raw")
    findings = {f.check: f for f in run_checks(machine_checks())}
    assert "which nnU-Net takes literally" in findings["nnUNet_raw"].what
    assert findings["nnUNet_raw"].severity == "error"


def test_the_variable_for_trainers_is_looked_at(healthy, monkeypatch):
    finding = only(machine.check_trainer_variable())
    assert finding.severity == "ok"
    assert "nnunetv2_spmc.methods.spmc.nnUNetTrainerSPMC" in finding.what
    monkeypatch.setenv("nnUNet_extTrainer", str(healthy))
    finding = only(machine.check_trainer_variable())
    assert finding.severity == "error"
    assert "cannot find nnUNetTrainerSPMC" in finding.what
    assert finding.command == 'export nnUNet_extTrainer="$(nnUNetv2_spmc_trainers)"'
    monkeypatch.setenv("nnUNet_extTrainer", str(healthy / "gone"))
    first, second = machine.check_trainer_variable()
    assert "gone, which is not a folder" in first.what
    assert second.severity == "error"
    monkeypatch.delenv("nnUNet_extTrainer")
    assert only(machine.check_trainer_variable()).severity == "warning"


def test_little_shared_memory_is_a_warning(room, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    room(0.0625)
    finding = only(machine.check_shared_memory())
    assert finding.severity == "warning"
    assert "0.062 GiB" in finding.what
    assert "--ipc=host" in finding.command
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path / "absent")
    assert only(machine.check_shared_memory()).severity == "ok"


@pytest.mark.parametrize(
    ("variable", "value", "severity"),
    [
        ("nnUNet_n_proc_DA", "0", "warning"),
        ("nnUNet_n_proc_DA", "many", "error"),
        ("nnUNet_n_proc_DA", "-1", "error"),
        ("nnUNet_def_n_proc", "0", "error"),
        ("nnUNet_def_n_proc", "8", "ok"),
    ],
)
def test_the_numbers_of_processes_are_looked_at(healthy, monkeypatch, variable, value, severity):
    monkeypatch.setenv(variable, value)
    (finding,) = [f for f in machine.check_workers() if f.check == variable]
    assert finding.severity == severity
    assert finding.command == ("" if severity == "ok" else f"unset {variable}")


def test_no_workers_are_fine_for_a_training_and_not_for_planning(healthy, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    finding = only(f for f in machine.check_workers() if f.check == "nnUNet_n_proc_DA")
    with pytest.raises(RuntimeError) as raised:
        ExperimentPlanner.static_estimate_VRAM_usage((16, 16), 1, 2, "", {}, ())
    assert str(raised.value) in finding.what
    assert "nnUNetv2_plan_and_preprocess" in finding.what
    assert (finding.advice, finding.command) == ("Before you plan:", "unset nnUNet_n_proc_DA")


# ---- all of them -------------------------------------------------------------------------------


def test_what_a_check_raises_is_a_finding_and_the_others_go_on():
    def fails_half_way():
        yield Finding("one", "ok", "So far.")
        raise ZeroDivisionError("no\nline break")

    checks = [("one", fails_half_way), ("two", lambda: [Finding("two", "note", "After.")])]
    first, second, third = run_checks(checks)
    assert (first.severity, third.check) == ("ok", "two")
    assert second.severity == "error"
    assert second.what == "This could not be checked: ZeroDivisionError: no."


def test_with_a_dataset_only_what_is_bad_of_the_machine_is_said(healthy, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    findings = examine(examination.Question("500")).findings
    assert [f.check for f in findings] == ["nnUNet_n_proc_DA", "dataset"]


def test_the_worst_comes_first():
    kinds = ("ok", "error", "note", "warning", "error")
    findings = [Finding(str(i), kind, "") for i, kind in enumerate(kinds)]
    assert [f.check for f in worst_first(findings)] == ["1", "4", "3", "2", "0"]
    assert worst(findings) == "error"
    assert worst([]) == "ok"

"""Whether Python's packages are there, can be imported, and fit each other."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from nnunetv2_spmc.doctor.finding import Finding, raised

NEWEST_PYTHON = (3, 13)  # that is tested
IMPORTED = (  # package -> module; torch before what needs it
    ("torch", "torch"),
    ("torchvision", "torchvision"),
    ("nnunetv2", "nnunetv2.run.run_training"),
    ("batchgenerators", "batchgenerators"),
    ("batchgeneratorsv2", "batchgeneratorsv2"),
    ("dynamic-network-architectures", "dynamic_network_architectures.architectures.unet"),
    ("blosc2", "blosc2"),
)
TOGETHER = "pip install --force-reinstall torch torchvision"
OURS = "nnunetv2-spmc"
REMEDIES = {
    "torch": (TOGETHER, "Install torch and torchvision again, together, for your CUDA version."),
    "torchvision": (
        TOGETHER,
        "nnU-Net finds no trainer of another package without it. Install torch and torchvision "
        "again, together, for your CUDA version.",
    ),
    "nnunetv2": ("pip install --force-reinstall --no-deps 'nnunetv2>=2.8,<2.9'", ""),
}


def check_python() -> Iterator[Finding]:
    """Look at the version of Python."""
    text = f"Python {'.'.join(map(str, sys.version_info[:3]))} in {sys.prefix}"
    if sys.version_info[:2] > NEWEST_PYTHON:
        newest = ".".join(map(str, NEWEST_PYTHON))
        yield Finding("Python", "note", f"{text}; nothing newer than {newest} was tested.")
    else:
        yield Finding("Python", "ok", f"{text}.")


def check_package(package: str, module: str) -> Iterator[Finding]:
    """Look whether a package is installed, can be imported, and has the version asked for."""
    command, advice = REMEDIES.get(package, (f"pip install --force-reinstall {package}", ""))
    try:
        installed = version(package)
    except PackageNotFoundError:
        yield Finding(
            package, "error", f"{package} is not installed.", advice=advice, command=command
        )
        return
    try:
        found = importlib.import_module(module)
        _use(package, found)
    except Exception as error:  # a broken library raises anything
        what = f"{package} {installed} cannot be imported ({raised(error)})."
        yield Finding(package, "error", what, advice=advice, command=command)
        return
    if problem := _does_not_fit(package, installed):
        yield Finding(package, "error", problem, advice=advice, command=command)
        return
    yield Finding(package, "ok", f"{package} {installed}.")


def _use(package: str, module: Any) -> None:
    """Do a little with a package, for its compiled parts."""
    if package == "torch":
        torch = module
        if float((torch.ones(2, 2) @ torch.ones(2, 2)).sum()) != 8:
            raise ArithmeticError("a product of matrices is wrong")
    elif package == "blosc2":
        import numpy as np

        if module.asarray(np.arange(8))[:].sum() != 28:
            raise ValueError("what was compressed does not come back")


def _does_not_fit(package: str, installed: str) -> str:
    """Say whose requirement a version does not meet; empty if it meets all."""
    from packaging.requirements import Requirement

    for asking in (OURS, "nnunetv2", "torchvision"):
        try:
            lines = requires(asking) or []
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            if _plain(requirement.name) != _plain(package):
                continue
            is_meant = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if is_meant and not requirement.specifier.contains(installed, prereleases=True):
                return (
                    f"{package} {installed} does not fit {asking} {version(asking)}, which asks "
                    f"for {package}{requirement.specifier}."
                )
    return ""


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# ---- device ------------------------------------------------------------------------------------


def check_gpus() -> Iterator[Finding]:
    """Look for what PyTorch can train on, and compute something there."""
    import torch

    from nnunetv2_spmc.training.devices import best_device

    gpus = torch.cuda.device_count()
    for number in range(gpus):
        properties = torch.cuda.get_device_properties(number)
        name = f"{properties.name}, {properties.total_memory / (1 << 30):.0f} GiB"
        try:
            torch.zeros(2, device=f"cuda:{number}").add_(1).sum().item()
        except RuntimeError as error:
            what = f"GPU {number} ({name}) cannot compute with torch {torch.__version__}"
            advice = "Install a torch that is built for this GPU and its driver."
            text = f"{what} ({raised(error)})."
            yield Finding("device", "error", text, advice=advice, command=TOGETHER)
        else:
            yield Finding("device", "ok", f"GPU {number}: {name}.")
    if gpus:
        return
    if best_device() == "mps":
        yield Finding("device", "ok", "An Apple GPU: train with -device mps.")
    elif shutil.which("nvidia-smi"):
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "has no CUDA"
        yield Finding(
            "device",
            "warning",
            f"PyTorch finds no GPU, though nvidia-smi is there; torch {torch.__version__} {built}.",
            advice="See whether nvidia-smi lists a GPU, then install a torch for that driver.",
            command="nvidia-smi",
        )
    else:
        what = "No GPU: train with -device cpu, and with small plans (nnUNetv2_spmc_plan small)."
        yield Finding("device", "note", what)


def check_compiler() -> Iterator[Finding]:
    """Look for what torch.compile needs on a GPU, where nnU-Net uses it."""
    import torch

    wanted = os.environ.get("nnUNet_compile", "true").lower() in ("true", "1", "t")
    if not torch.cuda.is_available() or os.name == "nt":
        yield Finding("compiler", "ok", "torch.compile is not used on this machine.")
        return
    if not wanted:
        yield Finding("compiler", "ok", f"nnUNet_compile={os.environ['nnUNet_compile']}: not used.")
        return
    lacking = []
    if importlib.util.find_spec("triton") is None:
        lacking.append("triton")
    if not any(shutil.which(name) for name in (os.environ.get("CC") or "cc", "gcc", "clang")):
        lacking.append("a C compiler (gcc)")
    if lacking:
        yield Finding(
            "compiler",
            "error",
            f"torch.compile, which nnU-Net uses on GPUs, lacks {' and '.join(lacking)}.",
            advice="Install it, or train without torch.compile:",
            command="export nnUNet_compile=f",
        )
    else:
        yield Finding("compiler", "ok", "torch.compile has triton and a C compiler.")

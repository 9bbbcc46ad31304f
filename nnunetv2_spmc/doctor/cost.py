"""How much memory and time a training needs, per configuration."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.errors import DataError, one_line
from nnunetv2_spmc.common.nnunet_folders import RESULTS, number_of
from nnunetv2_spmc.doctor.finding import Finding, Severity
from nnunetv2_spmc.training.devices import check_device
from nnunetv2_spmc.unlabeled.target import UnlabeledTarget

TIMEOUT_S = 180
MUCH = 0.9  # of the device's memory
LONG_DAYS = 7.0
GIB = 1 << 30


def check_cost(target: UnlabeledTarget, device: str) -> Iterator[Finding]:
    """Say what a step of a training needs on a device, and how long all steps take.

    Raises:
        DataError: there is no such device, or the step failed.
    """
    check_device(device)
    yield from cost_findings(target, measured(target, device), device)


def measured(target: UnlabeledTarget, device: str) -> dict[str, Any]:
    """Run `measure.py` in a process of its own.

    Raises:
        DataError: it failed; says with what.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "cost.json")
        names = (target.dataset_name, target.configuration_name, target.plans_identifier)
        # without torch.compile, which takes minutes at the first step
        changed = {RESULTS: folder, "nnUNet_compile": "f", "nnUNet_n_proc_DA": "1"}
        command = [sys.executable, "-m", "nnunetv2_spmc.doctor.measure", *names, device]
        try:
            ended = subprocess.run(
                [*command, str(result)],
                env={**os.environ, **changed},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise DataError(f"A first step took more than {TIMEOUT_S} s on {device}.") from None
        if result.is_file():
            return dict(json.loads(result.read_text(encoding="utf-8")))
    if ended.returncode < 0:
        reason = ": there is too little memory" if ended.returncode == -signal.SIGKILL else ""
        raise DataError(f"A first step was ended by signal {-ended.returncode}{reason}.")
    last = ended.stderr.strip().splitlines()[-1:] or [f"status {ended.returncode}"]
    sentence = re.sub(r"^[\w.]+: ", "", last[0])  # without the class of the exception
    raise DataError(f"A first step failed: {one_line(sentence)}")


def cost_findings(
    target: UnlabeledTarget, cost: Mapping[str, Any], device: str
) -> Iterator[Finding]:
    """Judge what `measured` returned."""
    name, dataset = target.configuration_name, number_of(target.dataset_name)
    patches = f"{cost['labeled']} labeled and {cost['unlabeled']} unlabeled patches"
    size = " x ".join(map(str, cost["patch"]))
    needed, there = cost["peak_bytes"] / GIB, cost["device_bytes"]
    text = f"A step of {patches} of {size} voxels needs {needed:.2g} GiB, losses counted"
    if there is not None:
        text += f"; the {'machine' if device == 'cpu' else 'GPU'} has {there / GIB:.0f} GiB"
    smaller = f"nnUNetv2_plan_experiment -d {dataset} -gpu_memory_target GB"
    smaller += " -overwrite_plans_name NAME"
    if there is None or needed * GIB <= MUCH * there:
        yield Finding(name, "ok", f"{text}.")
    else:
        severity: Severity = "error" if needed * GIB > there else "warning"
        advice = "Lower unlabeled_batch_size, or plan smaller patches."
        yield Finding(name, severity, f"{text}.", advice=advice, command=smaller)
    days = cost["seconds"] * cost["steps"] / 86400
    shown = f"{days:.1f} days" if days >= 1 else f"{24 * days:.1f} hours"
    how = "measured without loading" if cost["is_measured"] else _how_estimated(cost)
    text = f"About {shown} for {cost['epochs']} epochs, {cost['seconds']:.2g} s a step ({how})."
    if days > LONG_DAYS and not name.endswith("_small"):
        advice = "Train fewer epochs (--set epochs=N), on a GPU, or with small plans."
        command = f"nnUNetv2_spmc_plan small -d {dataset} -c {name}"
        yield Finding(name, "note", text, advice=advice, command=command)
    else:
        yield Finding(name, "ok", text)


def _how_estimated(cost: Mapping[str, Any]) -> str:
    speed, operations = cost["operations_per_second"] / 1e9, cost["operations"] / 1e12
    return (
        f"estimated from the {operations:.2g} TFLOP of its convolutions and the {speed:.0f} "
        "GFLOP/s of one here; it may be half or twice as long"
    )

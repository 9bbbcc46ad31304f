from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from nnunetv2_spmc.doctor import cost, examination

COST = {
    "labeled": 2,
    "unlabeled": 2,
    "patch": [16, 16],
    "peak_bytes": 1 << 30,
    "operations": 10**12,
    "operations_per_second": 10**11,
    "seconds": 0.1,
    "is_measured": True,
    "steps": 250_000,
    "epochs": 1000,
    "device_bytes": 8 << 30,
}


@pytest.fixture
def phantom(planned_phantom, tmp_path, monkeypatch):
    """A copy of the phantom to damage, in nnU-Net's variables; steps are not measured."""
    shutil.copytree(planned_phantom.root, tmp_path / "nnunet")
    copied = replace(planned_phantom, root=tmp_path / "nnunet")
    for folder in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(folder, str(copied.root / folder))
    monkeypatch.setattr(cost, "measured", lambda *_: COST)
    return copied


@pytest.fixture
def no_machine(monkeypatch):
    """Leave the checks of the machine out: they take seconds, and differ between machines."""
    monkeypatch.setattr(examination, "machine_checks", lambda: [])

"""Runs that a test makes up."""

from __future__ import annotations

from typing import Any

from benchmarks.accuracy.methods import Run


def make_run(**changes: Any) -> Run:
    """Return a short run of SPMC on ACDC."""
    values: dict[str, Any] = {
        "dataset": "acdc",
        "method": "SPMC",
        "settings": "",
        "labels": 7,
        "stage": "confirm",
        "seed": 1,
        "epochs": 2,
        "iterations": 6,
        "name": "spmc",
        "configuration": "2d_small",
    }
    return Run(**values | changes)

"""Short names that tell runs apart."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2_spmc.reports.run_record import RunRecord


def run_labels(runs: Sequence[RunRecord]) -> list[str]:
    """Return short names that tell the runs apart."""
    parts = (
        [run.trainer for run in runs],
        [run.configuration for run in runs],
        [f"fold {run.fold}" for run in runs],
        [run.dataset_name for run in runs],
        [f"seed {run.settings.get('seed')}" for run in runs],
    )
    return [
        f"{label} (overlap allowed)" if run.overlap else label
        for label, run in zip(told_apart(*parts), runs, strict=True)
    ]


def told_apart(labels: Sequence[str], *parts: Sequence[str]) -> list[str]:
    """Add to labels those parts in which they differ, until each is unique; else number them."""
    labels = list(labels)
    for part in parts:
        if len(set(labels)) < len(labels) and len(set(part)) > 1:
            labels = [f"{label}, {text}" for label, text in zip(labels, part, strict=True)]
    if len(set(labels)) < len(labels):
        labels = [f"{number}: {label}" for number, label in enumerate(labels, start=1)]
    return labels

"""The tables of the report page, as texts."""

from __future__ import annotations

import math
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nnunetv2_spmc.evaluation.summary import mean_and_std
from nnunetv2_spmc.evaluation.text_table import TITLES, number
from nnunetv2_spmc.raw.cases import count_of, name_some
from nnunetv2_spmc.raw.dataset_json import channel_names
from nnunetv2_spmc.reports.content import Report
from nnunetv2_spmc.reports.run_record import RunRecord
from nnunetv2_spmc.reports.used_settings import used_settings


def record_rows(report: Report) -> list[tuple[str, list[str]]]:
    """Return what was trained on what: (property, one text per run)."""
    rows: dict[str, list[str]] = {}
    for run in report.runs.values():
        trained, validated = run.case_counts
        epochs = run.settings.get("epochs")
        facts = {
            "dataset": run.dataset_name,
            "trainer": run.trainer,
            "configuration": f"{run.configuration}, plans {run.plans['plans_name']}",
            "fold": run.fold,
            "labeled training cases": _or_unknown(trained),
            "unlabeled training cases": str(len(run.unlabeled_cases)),
            "validation cases": "the training cases"
            if run.fold == "all"
            else _or_unknown(validated),
            "overlap of unlabeled and evaluated cases": run.overlap or "not allowed",
            "classes": ", ".join(run.classes),
            "channels": ", ".join(channel_names(run.dataset_json)),
            "patch size, batch size": _patch(run),
            "epochs": f"{run.epochs_done} of {_or_unknown(epochs)}"
            + ("" if run.is_finished else ", not finished"),
            "training time": _hours(run.curves["seconds"].sum()),
            "checkpoint shown": run.checkpoint_name,
            "trained with": ", ".join(f"{n} {v}" for n, v in run.versions.items()) or "unknown",
            "folder": str(run.folder),
        }
        for key, value in facts.items():
            rows.setdefault(key, []).append(value)
    return list(rows.items())


def setting_rows(report: Report) -> list[tuple[str, list[str], bool]]:
    """Return (setting, one text per run, whether they differ), of settings that some run uses.

    '-' stands where a run does not use a setting, and is no difference.
    """
    used = [used_settings(run.trainer, run.settings) for run in report.runs.values()]
    rows = []
    for key in dict.fromkeys(key for settings in used for key in settings):
        values = [str(settings[key]) for settings in used if key in settings]
        texts = [str(settings.get(key, "-")) for settings in used]
        rows.append((key, texts, len(set(values)) > 1))
    return rows


def metric_rows(report: Report) -> list[dict[str, Any]]:
    """Return one row per class and run: mean and standard deviation of every metric."""
    labels = dict.fromkeys(label for table in report.metrics.values() for label in table["label"])
    rows = []
    for label in labels:
        for name, table in report.metrics.items():
            of_class = table[table["label"] == label]
            cells = []
            for metric in report.shown_metrics:
                mean, std, _ = mean_and_std(of_class[metric])
                spread = "" if math.isnan(std) else f" ± {number(std, metric)}"
                cells.append(f"{number(mean, metric)}{spread}")
            failures = of_class["status"].isin(["prediction_empty", "reference_empty"]).sum()
            rows.append({"label": label, "run": name, "cells": cells, "failures": int(failures)})
    return rows


def case_rows(report: Report) -> list[dict[str, Any]]:
    """Return one row per case, class and run, cases next to each other."""
    rows = [
        {
            "case": row["case"],
            "label": row["label"],
            "run": name,
            "cells": [number(row[metric], metric) for metric in report.shown_metrics],
        }
        for name, table in report.metrics.items()
        for row in table.to_dict("records")
    ]
    return sorted(rows, key=lambda row: (row["case"], row["label"]))


def metrics_remark(report: Report) -> str:
    """Say on which cases the metrics were measured, and what to beware of."""
    if not report.metrics:
        return "No run has been validated yet."
    cases = {name: set(table["case"]) for name, table in report.metrics.items()}
    sets = list(cases.values())
    text = f"{count_of(len(sets[0]), f'{report.kind} case')}."
    if any(other != sets[0] for other in sets[1:]):
        different = ", ".join(f"{name}: {len(ids)}" for name, ids in cases.items())
        text = f"The runs were measured on different cases ({different}): compare with care."
    on_training = report.trained_on_cases
    if on_training:
        text += (
            f" With fold all the validation cases are the training cases ({name_some(on_training)})"
            ": these numbers say how well the training was learned, not how well it generalizes."
        )
    return text + (
        " A class in neither mask counts in no mean; in one mask only it is a failure with Dice 0 "
        "and without a distance."
    )


def metric_titles(report: Report) -> list[str]:
    """Return the headings of the metrics shown."""
    return [TITLES[metric] for metric in report.shown_metrics]


def made_with() -> str:
    """Return the versions that made the page."""
    versions = []
    for package in ("nnunetv2-spmc", "nnunetv2", "torch"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # torch builds may carry another name
            continue
    return ", ".join(versions)


def _patch(run: RunRecord) -> str:
    configurations = run.plans["configurations"]
    values: dict[str, Any] = {}
    name: str | None = run.configuration
    while name is not None:  # a configuration inherits what it does not state
        values = configurations[name] | values
        name = configurations[name].get("inherits_from")
    return f"{' x '.join(map(str, values['patch_size']))}, {values['batch_size']}"


def _or_unknown(value: Any) -> str:
    return "unknown" if value is None else str(value)


def _hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"

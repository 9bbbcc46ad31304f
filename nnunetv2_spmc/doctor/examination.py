"""All checks in their order: of the machine, and of a dataset."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.setting_checks import SettingsError
from nnunetv2_spmc.doctor.finding import Check, Finding, Severity, run_checks
from nnunetv2_spmc.doctor.installation import (
    IMPORTED,
    check_compiler,
    check_gpus,
    check_package,
    check_python,
)
from nnunetv2_spmc.doctor.machine import (
    FOLDERS,
    check_folder,
    check_shared_memory,
    check_trainer_variable,
    check_workers,
)

if TYPE_CHECKING:
    from nnunetv2_spmc.doctor.dataset import DatasetToCheck
    from nnunetv2_spmc.unlabeled.scan_record import ScanRecord

BAD = ("error", "warning")


@dataclass
class Examination:
    """What was found.

    Attributes:
        dataset: The name of the dataset; empty where only the machine was looked at.
        findings: In the order of the checks.
        sites: Rows of the table of labeled and unlabeled scans.
        scans: "labeled" and "unlabeled" -> the facts of their scans, to draw.
        channels: Names of the channels.
    """

    dataset: str = ""
    findings: list[Finding] = field(default_factory=list)
    sites: tuple[tuple[str, str, str], ...] = ()
    scans: dict[str, list[Any]] = field(default_factory=dict)
    channels: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Question:
    """Which dataset to look at, and how; the arguments of the command."""

    dataset: str
    configurations: Sequence[str] = ()  # all that are planned if empty
    plans: str = "nnUNetPlans"
    device: str = ""  # the best that there is if empty
    num_processes: int = 0
    show_progress: bool = False


def examine(question: Question | None = None) -> Examination:
    """Look at the machine and, if one is asked for, at a dataset."""
    examination = Examination()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nnU-Net and its readers print, others deprecate
        findings = run_checks(machine_checks())
        if question is None:
            examination.findings = findings
            return examination
        examination.findings = [f for f in findings if f.severity in BAD]
        examination.findings += run_checks(
            [("dataset", partial(_examine_dataset, question, examination))]
        )
    return examination


def machine_checks() -> list[tuple[str, Check]]:
    """Return the checks that need no dataset."""
    return [
        ("Python", check_python),
        *((package, partial(check_package, package, name)) for package, name in IMPORTED),
        ("device", check_gpus),
        ("compiler", check_compiler),
        *((variable, partial(check_folder, variable)) for variable in FOLDERS),
        ("nnUNet_extTrainer", check_trainer_variable),
        ("shared memory", check_shared_memory),
        ("workers", check_workers),
    ]


def _examine_dataset(question: Question, examination: Examination) -> Iterator[Finding]:
    from nnunetv2_spmc.doctor.dataset import open_dataset

    dataset = open_dataset(
        question.dataset,
        question.plans,
        num_processes=question.num_processes,
        show_progress=question.show_progress,
    )
    examination.dataset = dataset.name
    yield from run_checks(
        [
            ("scans", partial(_examine_scans, dataset, examination)),
            ("plans", partial(_examine_plans, dataset, question)),
        ]
    )


def _examine_scans(dataset: DatasetToCheck, examination: Examination) -> Iterator[Finding]:
    from nnunetv2_spmc.doctor import scans
    from nnunetv2_spmc.unlabeled.leak_checks import current_record

    yield from run_checks(
        [
            ("dataset.json", partial(scans.check_definition, dataset)),
            ("scans", partial(scans.check_files, dataset)),
        ]
    )
    notes: list[str] = []
    record = current_record(
        dataset.name,
        dict(dataset.dataset_json),
        dataset.preprocessed,
        notes.append,
        num_processes=dataset.num_processes,
        show_progress=dataset.show_progress,
    )
    yield from (Finding("scans", "note", note.removeprefix("note: ")) for note in notes)
    yield from run_checks(
        [
            ("cases", partial(scans.check_counts, dataset, record)),
            ("leaks", partial(_check_leaks, dataset, record)),
            ("sites", partial(_compare_sites, dataset, record, examination)),
        ]
    )


def _check_leaks(dataset: DatasetToCheck, record: ScanRecord) -> Iterator[Finding]:
    from nnunetv2_spmc.doctor.scans import check_leaks

    is_allowed = False
    with contextlib.suppress(SettingsError):  # _check_settings says it
        is_allowed = _settings(dataset).training.allow_overlap
    yield from check_leaks(dataset, record, is_allowed=is_allowed)


def _compare_sites(
    dataset: DatasetToCheck, record: ScanRecord, examination: Examination
) -> Iterator[Finding]:
    from nnunetv2_spmc.doctor.scans import site_findings
    from nnunetv2_spmc.raw.layout import IMAGES_TRAIN, IMAGES_UNLABELED
    from nnunetv2_spmc.raw.sites import compare_sites
    from nnunetv2_spmc.unlabeled.preprocessing import plans_windows

    labeled, unlabeled = (record.facts(f) for f in (IMAGES_TRAIN, IMAGES_UNLABELED))
    examination.channels = dataset.channels
    examination.scans = {
        "labeled": list(labeled.values()),
        "unlabeled": [facts for i, facts in unlabeled.items() if i not in dataset.annotated],
    }
    windows = {}
    with contextlib.suppress(DataError):  # damaged plans are said elsewhere
        windows = plans_windows(dataset.statistics)
    comparison = compare_sites(
        examination.scans["labeled"],
        examination.scans["unlabeled"],
        dataset.channels,
        windows,
    )
    examination.sites = comparison.rows
    yield from site_findings(comparison)


def _settings(dataset: DatasetToCheck) -> Any:
    from nnunetv2_spmc.methods import nnUNetTrainerSPMC

    return nnUNetTrainerSPMC.resolved_settings(dataset.dataset_json)


def _check_settings(dataset: DatasetToCheck) -> Iterator[Finding]:
    resolved = _settings(dataset)
    given = ", ".join(f"{key} (from {origin})" for key, origin in resolved.origins.items())
    yield Finding("settings", "ok", f"Settings that are not defaults: {given or 'none'}.")


# ---- plans -------------------------------------------------------------------------------------


def _examine_plans(dataset: DatasetToCheck, question: Question) -> Iterator[Finding]:
    from nnunetv2_spmc.doctor import preprocessed

    yield from run_checks([("settings", partial(_check_settings, dataset))])
    if dataset.preprocessed is None:
        command = f"nnUNetv2_plan_and_preprocess -d {dataset.id} --verify_dataset_integrity"
        yield Finding("plans", "error", f"{dataset.name} is not planned yet.", command=command)
        return
    examined, absent = [], []
    planned = dataset.configurations  # here damaged plans are said once
    for name in question.configurations or planned:
        if name.startswith("3d_cascade") and not question.configurations:
            continue
        try:
            target = dataset.target(name)
        except DataError as error:
            yield Finding(name, "error", str(error))
            continue
        if reason := preprocessed.not_preprocessed(target):
            absent.append(name)
            if question.configurations:
                yield Finding(name, "error", reason, command=target.labeled_command)
            continue
        examined.append(target)
    if absent and not question.configurations:
        severity: Severity = "note" if examined else "error"
        what = f"Planned, but the labeled cases are not preprocessed: {', '.join(absent)}."
        command = f"nnUNetv2_preprocess -d {dataset.id} -plans_name {dataset.plans} -c {absent[0]}"
        yield Finding("plans", severity, what, command=command)
    if examined:
        folds = partial(preprocessed.check_folds, dataset, examined[0].labeled_cases())
        yield from run_checks([("folds", folds)])
    for target in examined:
        yield from run_checks(_configuration_checks(dataset, target, question.device))


def _configuration_checks(
    dataset: DatasetToCheck, target: Any, device: str
) -> list[tuple[str, Check]]:
    from nnunetv2_spmc.doctor import cost, preprocessed
    from nnunetv2_spmc.training.devices import best_device

    name = target.configuration_name
    return [
        (name, partial(preprocessed.check_labeled, dataset, target)),
        (name, partial(preprocessed.check_unlabeled, dataset, target)),
        (name, partial(cost.check_cost, target, device or best_device())),
    ]

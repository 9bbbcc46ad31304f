"""What is wrong with the scans of a dataset: files, leaks, sites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from nnunetv2_spmc.common.errors import DataError, one_line
from nnunetv2_spmc.doctor.dataset import DatasetToCheck
from nnunetv2_spmc.doctor.finding import Finding, Severity, raised
from nnunetv2_spmc.raw.cases import count_of
from nnunetv2_spmc.raw.label_definition import IGNORE, label_warnings
from nnunetv2_spmc.raw.layout import IMAGES_TEST, IMAGES_TRAIN, IMAGES_UNLABELED
from nnunetv2_spmc.raw.lookalikes import lookalike_warnings
from nnunetv2_spmc.raw.scan import check_scan
from nnunetv2_spmc.raw.sites import SiteComparison
from nnunetv2_spmc.training.expectations import many_labels
from nnunetv2_spmc.training.few_labels import read_folds
from nnunetv2_spmc.unlabeled.overlap import REMEDY, Shared, shared_cases, shared_contents
from nnunetv2_spmc.unlabeled.scan_record import ScanRecord
from nnunetv2_spmc.unlabeled.thumbnail_record import pairs_that_look_alike


def check_counts(dataset: DatasetToCheck, record: ScanRecord) -> Iterator[Finding]:
    """Count labeled, unlabeled and test cases."""
    if dataset.raw is None and not record.folders:
        return  # the preprocessed cases are counted when they are opened
    moved = dataset.annotated
    folders = (IMAGES_TRAIN, IMAGES_UNLABELED, IMAGES_TEST)
    labeled, unlabeled, test = (list(record.folders.get(folder, ())) for folder in folders)
    if dataset.images is not None:
        unlabeled = dataset.images.all_cases
    unlabeled = [case for case in unlabeled if case not in moved]
    numbers = f"{len(labeled)} labeled, {len(unlabeled)} unlabeled"
    text = f"{numbers} and {count_of(len(test), 'test case')}."
    if not labeled:
        yield Finding("cases", "error", f"{text} Nothing can be trained without labeled cases.")
    elif not unlabeled and IGNORE in dataset.dataset_json["labels"]:
        yield Finding("cases", "ok", f"{text} Voxels under the ignore label are unlabeled ones.")
    elif not unlabeled:
        where = dataset.raw / IMAGES_UNLABELED if dataset.raw else IMAGES_UNLABELED
        ending = dataset.dataset_json["file_ending"]
        advice = f"Put unlabeled scans, as CASE_0000{ending}, into {where}."
        yield Finding("cases", "warning", text, advice=advice)
    elif many := many_labels(labeled, unlabeled, record.groups):
        what = f"{text} {many[0].upper()}{many[1:]}, so unlabeled scans may add little or nothing."
        advice = "Train nnUNetTrainerViewControl, too, and see which is better:"
        command = f"nnUNetv2_spmc_compare -d {dataset.id} -c CONFIG"
        yield Finding("cases", "note", what, (), advice, command)
    else:
        yield Finding("cases", "ok", text)
    if moved:
        what = "Unlabeled cases that have a label by now are trained on as labeled ones only."
        advice = f"Nothing to do; their scans in {IMAGES_UNLABELED} are no longer used."
        yield Finding("annotated since", "note", what, tuple(moved), advice)


def check_definition(dataset: DatasetToCheck) -> Iterator[Finding]:
    """Look for contradictions of dataset.json."""
    for warning in label_warnings(dataset.dataset_json):
        yield Finding("dataset.json", "warning", warning.removeprefix("warning: "))


def check_files(dataset: DatasetToCheck) -> Iterator[Finding]:
    """Look at the names of the unlabeled scans, and read every labeled and unlabeled scan whole."""
    images = dataset.images
    if images is not None:
        for case, why in images.failed.items():
            yield Finding("scans", "error", f"{one_line(why)}.", (case,))
        if images.note:
            yield Finding("scans", "warning", one_line(images.note.removeprefix("note: ")))
    groups = {IMAGES_TRAIN: dataset.labeled, IMAGES_UNLABELED: images.cases if images else {}}
    for folder, cases in groups.items():
        what = f"Reading {folder}"
        problems = dataset.in_workers(scan_problem, list(cases.values()), what)
        damaged = {c: why for c, why in zip(cases, problems, strict=True) if why is not None}
        if damaged:
            first = next(iter(damaged.values()))
            advice = f"Copy them again, or take them out of {folder}."
            text = f"{count_of(len(damaged), 'scan')} of {folder} cannot be read: {first}"
            yield Finding("scans", "error", text, tuple(damaged), advice)
        elif cases:
            yield Finding("scans", "ok", f"All {len(cases)} scans of {folder} were read whole.")


def scan_problem(files: Sequence[str]) -> str | None:
    """Read the channels of a scan; return what is wrong with the first that cannot be read."""
    for file in files:
        try:
            check_scan(Path(file))
        except (DataError, OSError) as error:
            return one_line(str(error)).rstrip(".") + "."
        except (RuntimeError, TypeError, ValueError) as error:
            return f"{file}: {raised(error)}."
    return None


# ---- leaks -------------------------------------------------------------------------------------


def check_leaks(
    dataset: DatasetToCheck, record: ScanRecord, *, is_allowed: bool
) -> Iterator[Finding]:
    """Look for unlabeled cases that are test, validation or labeled cases as well."""
    labeled = list(record.folders.get(IMAGES_TRAIN, ()))
    moved = dataset.annotated
    unlabeled = [i for i in record.folders.get(IMAGES_UNLABELED, ()) if i not in moved]
    test = list(record.folders.get(IMAGES_TEST, ()))
    validation = labeled
    if dataset.preprocessed is not None and labeled:
        folds = read_folds(dataset.preprocessed, labeled)
        validation = labeled if folds is None else [name for fold in folds for name in fold["val"]]
    # by name each of them is a labeled case, too: only their patients are left to compare
    names = shared_cases(labeled, unlabeled, (), test, record.groups)
    patients = shared_cases((), unlabeled, validation, (), record.groups)
    found: list[Shared] = [*names, *(p for p in patients if "patient" in p.what)]
    found += shared_contents(record, unlabeled)
    severity: Severity = "note" if is_allowed else "error"
    allowed = " (allow_overlap accepts that)" if is_allowed else ""
    for shared in found:
        text = f"Some cases are {shared.what}{allowed}; numbers measured on those are too good."
        yield Finding("leaks", severity, text, shared.cases, "" if is_allowed else f"{REMEDY}.")
    if not found and unlabeled:
        when = "" if dataset.raw else f", as nnUNet_raw was on {record.date}"
        what = f"No unlabeled case is a labeled or test case, by name, patient or voxels{when}."
        yield Finding("leaks", "ok", what)
    if dataset.preprocessed is not None:
        yield from _lookalikes(dataset.preprocessed, record, [c for s in found for c in s.cases])


def _lookalikes(folder: Path, record: ScanRecord, known: Sequence[str]) -> Iterator[Finding]:
    pairs = [
        (one, other, value)
        for one, other, value in pairs_that_look_alike(folder, record.names())
        if not {f"{one} (= {other})", f"{other} (= {one})"} & set(known)
    ]
    for warning in lookalike_warnings(pairs, record.groups):
        yield Finding("look-alikes", "warning", warning)


# ---- sites -------------------------------------------------------------------------------------


def site_findings(comparison: SiteComparison) -> Iterator[Finding]:
    """Say where unlabeled scans are unlike the labeled ones."""
    for warning in comparison.warnings:
        yield Finding("sites", "warning", f"{warning[0].upper()}{warning[1:]}")
    if comparison.rows and not comparison.warnings:
        yield Finding("sites", "ok", "Unlabeled scans are like the labeled ones.")

"""What is wrong, or should be known, once every case has been read."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from nnunetv2_spmc.raw.case_writer import CaseRecord
from nnunetv2_spmc.raw.cases import ConversionError, RawDataset, count_of, name_some
from nnunetv2_spmc.raw.label_definition import IGNORE
from nnunetv2_spmc.raw.lookalikes import lookalike_warnings, lookalikes
from nnunetv2_spmc.raw.sites import SiteComparison, compare_sites
from nnunetv2_spmc.raw.splits import Splits


def raise_problems(dataset: RawDataset, records: Sequence[CaseRecord]) -> None:
    """Raise the first problem in full, with the other cases: their reason where it is another."""
    bad = [record for record in records if record.problem]
    if len(bad) > 1:
        others = name_some(_with_other_reasons(bad), limit=10)
        first = bad[0].problem.rstrip(".")
        raise ConversionError(
            f"{first}. {count_of(len(bad) - 1, 'more case')} with problems: {others}."
        )
    if bad:
        raise ConversionError(bad[0].problem)
    role = {case.identifier: case.role for case in dataset.cases}
    for one, other in _same_scans(records):
        if role[one] != role[other]:
            raise ConversionError(
                f"Cases {one} ({role[one]}) and {other} ({role[other]}) are the same scan under "
                "two names; remove one of them."
            )
    _refuse_without_foreground(dataset, records)


def _with_other_reasons(bad: Sequence[CaseRecord]) -> list[str]:
    """Name all cases but the first, 'case06 (has 1 NaN or infinite voxels)'; equals have no reason.

    Reasons are equal if they differ in numbers only.
    """
    reasons = [_reason(record) for record in bad]
    kinds = [re.sub(r"[\d.]+", "", reason) for reason in reasons]
    return [
        record.identifier if kind == kinds[0] else f"{record.identifier} ({reason})"
        for record, reason, kind in zip(bad[1:], reasons[1:], kinds[1:], strict=True)
    ]


def _reason(record: CaseRecord) -> str:
    """Return what is wrong with a case, without its files and the remedy."""
    problem = record.problem.removeprefix(f"Case {record.identifier}: ").rstrip(".")
    reason, _, _ = problem.partition("; ")
    return " ".join(word for word in reason.split() if os.sep not in word)


def _refuse_without_foreground(dataset: RawDataset, records: Sequence[CaseRecord]) -> None:
    """Raise if no label to train with holds a class, whatever those of other roles hold."""
    nothing = {0, dataset.labels.get(IGNORE)}
    labeled = {case.identifier for case in dataset.with_role("labeled")}
    if all(set(r.label_values) <= nothing for r in records if r.identifier in labeled):
        raise ConversionError(
            f"No label of the {count_of(len(labeled), 'labeled case')} has a voxel of any class "
            f"(they hold nothing but background): {name_some(sorted(labeled))}; look at the label "
            "files, and at how they were resampled or exported."
        )


def _same_scans(records: Sequence[CaseRecord]) -> list[tuple[str, str]]:
    first: dict[tuple[str, ...], str] = {}
    pairs = []
    for record in records:
        other = first.setdefault(record.facts.digests, record.identifier)
        if other != record.identifier:
            pairs.append((other, record.identifier))
    return pairs


def warnings_of(
    dataset: RawDataset, records: Sequence[CaseRecord], splits: Splits | None
) -> tuple[str, ...]:
    """Return what is not wrong but should be known."""
    warnings = []
    if splits and splits[0]["train"] == splits[0]["val"]:
        warnings.append(
            "All labeled cases are of one patient: they are training and validation at once, "
            "so validation scores mean nothing."
        )
    warnings += [
        f"{one} and {other} are the same scan; remove one, or it counts twice."
        for one, other in _same_scans(records)
    ]
    warnings += _lookalikes(dataset, records)
    empty = [r.identifier for r in records if r.empty_label]
    if empty:
        warnings.append(
            f"{count_of(len(empty), 'label')} with nothing but background: {name_some(empty)}."
        )
    remarked = [record for record in records if record.remarks]
    if remarked:
        others = name_some([record.identifier for record in remarked[1:]])
        more = f". {count_of(len(remarked) - 1, 'more case')} like it: {others}" if others else ""
        warnings.append(f"{remarked[0].remarks[0]}{more}.")
    moved = [r.identifier for r in records if r.label_took_header]
    if moved:
        warnings.append(
            f"{count_of(len(moved), 'label')} took the header of the image in place of another, "
            f"as --trust_label_grid asks for: {name_some(moved)}; look at one of them."
        )
    warnings += site_comparison(dataset, records).warnings
    return tuple(warnings)


def _lookalikes(dataset: RawDataset, records: Sequence[CaseRecord]) -> list[str]:
    """Warn of near-duplicates; those with the same digest are warned of as the same scan."""
    digests = {record.identifier: record.facts.digests for record in records}
    pictures = {
        record.identifier: record.facts.thumbnail
        for record in records
        if record.facts.thumbnail is not None
    }
    pairs = [pair for pair in lookalikes(pictures) if digests[pair[0]] != digests[pair[1]]]
    return lookalike_warnings(pairs, {case.identifier: case.patient for case in dataset.cases})


def site_comparison(dataset: RawDataset, records: Sequence[CaseRecord]) -> SiteComparison:
    """Compare labeled and unlabeled scans; nnU-Net does not reorient them."""
    role = {case.identifier: case.role for case in dataset.cases}
    return compare_sites(
        [r.facts for r in records if role[r.identifier] in ("labeled", "validation")],
        [r.facts for r in records if role[r.identifier] == "unlabeled"],
        dataset.channel_names,
    )

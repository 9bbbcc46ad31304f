"""Warn at the start of a training where unlabeled scans may not help.

The benchmarks have 7 or 8 labeled patients and at least nine times as many unlabeled scans of the
same kind. They cannot tell what happens with many labels. So a training with many labels is not
refused, it is told how to find out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from nnunetv2_spmc.common.nnunet_folders import number_of
from nnunetv2_spmc.unlabeled.overlap import patient_of
from nnunetv2_spmc.unlabeled.preprocessing import sites_of
from nnunetv2_spmc.unlabeled.scan_record import ScanRecord
from nnunetv2_spmc.unlabeled.target import UnlabeledTarget

MANY_LABELED = 100  # patients: more than ten times what was measured


def warnings_of(
    target: UnlabeledTarget,
    record: ScanRecord,
    labeled: Collection[str],
    unlabeled: Collection[str],
) -> Iterator[str]:
    """Return the sentences.

    Args:
        target: What is trained on.
        record: What is known of its scans; nothing is read but that.
        labeled: The cases that the fold trains on.
        unlabeled: The unlabeled cases.
    """
    if many := many_labels(labeled, unlabeled, record.groups):
        yield (
            f"{many}, so unlabeled scans may add little or nothing: the benchmarks have 7 or 8 "
            "labeled patients, and even there a control without unlabeled scans was as good "
            "(docs/benchmarks.md). Train nnUNetTrainerViewControl, too, and see which is "
            f"better: nnUNetv2_spmc_compare -d {number_of(target.dataset_name)} -c "
            f"{target.configuration_name}"
        )
    if difference := sites_of(target, record).largest:
        yield (
            "unlabeled scans differ from labeled ones, so they may not help, and validation cases "
            f"that are like the labeled ones cannot show whether they do harm: {difference} All "
            f"differences: {target.command}"
        )


def many_labels(
    labeled: Collection[str], unlabeled: Collection[str], groups: Mapping[str, str]
) -> str:
    """Say that there are many labeled patients, or more labeled cases than unlabeled ones.

    The latter at most double what is learned from. Empty where neither is so.
    """
    patients = {patient_of(case, groups) or case for case in labeled}
    if len(labeled) > len(unlabeled):
        return (
            f"there are more labeled cases ({len(labeled)}) than unlabeled ones ({len(unlabeled)})"
        )
    if len(patients) > MANY_LABELED:
        are_cases = patients == set(labeled)
        return f"there are many labels ({len(patients)} {'cases' if are_cases else 'patients'})"
    return ""

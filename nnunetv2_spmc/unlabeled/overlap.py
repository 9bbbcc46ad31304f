"""Find what is unlabeled and also labeled, validation or test data: by name, patient, voxels.

Training on the images of validation or test cases, even without their labels, makes every number
measured on them too good. Where that is wanted (transductive learning) it has to be said:
`allow_overlap`, which logs what is shared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.raw.layout import IMAGES_TEST, IMAGES_TRAIN, IMAGES_UNLABELED
from nnunetv2_spmc.unlabeled.scan_record import ScanRecord

REMEDY = (
    "Take them out of imagesUn, or allow the overlap if it is on purpose "
    "(--allow_overlap, in training the setting allow_overlap)"
)

Log = Callable[[str], None]


class Shared(NamedTuple):
    """Unlabeled cases that are something else as well, and what; as text it names a few."""

    what: str
    cases: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what}: {name_some(self.cases)}"


def check_no_leak(
    labeled: Collection[str],
    unlabeled: Collection[str],
    validation: Collection[str],
    test: Collection[str],
    groups: Mapping[str, str] | None = None,
    *,
    allow_overlap: bool = False,
    log: Log | None = None,
) -> str:
    """Check by name that no unlabeled case is labeled, validation or test data as well.

    Args:
        labeled: Identifiers of the labeled cases.
        unlabeled: Identifiers of the unlabeled cases.
        validation: Identifiers of the validation cases.
        test: Identifiers of the test cases.
        groups: Identifier -> patient key, where known. A patient with a validation or test case
            must not have unlabeled cases.
        allow_overlap: Log what is shared instead of raising.
        log: Where to log it.

    Returns:
        What is shared, where that is allowed.

    Raises:
        DataError: If a case is shared; it names the cases.
    """
    found = shared_cases(labeled, unlabeled, validation, test, groups)
    return _report(found, allow_overlap, log)


def shared_cases(
    labeled: Collection[str],
    unlabeled: Collection[str],
    validation: Collection[str],
    test: Collection[str],
    groups: Mapping[str, str] | None = None,
) -> list[Shared]:
    """Return what `check_no_leak` refuses."""
    roles = (("test", test), ("validation", validation), ("labeled", labeled))
    return _shared_names(unlabeled, roles) + _shared_patients(unlabeled, roles[:2], groups or {})


def check_contents(
    record: ScanRecord,
    unlabeled: Collection[str],
    *,
    allow_overlap: bool = False,
    log: Log | None = None,
) -> str:
    """Check by voxels that no unlabeled case is a test, validation or labeled one; as above.

    Args:
        record: The scans of the dataset.
        unlabeled: Identifiers of the unlabeled cases; those that are not recorded pass.
        allow_overlap: Log what is shared instead of raising.
        log: Where to log it.
    """
    return _report(shared_contents(record, unlabeled), allow_overlap, log)


def shared_contents(record: ScanRecord, unlabeled: Collection[str]) -> list[Shared]:
    """Return what `check_contents` refuses."""
    ours = record.digests(IMAGES_UNLABELED)
    ours = {identifier: ours[identifier] for identifier in unlabeled if identifier in ours}
    found = []
    for folder in (IMAGES_TEST, IMAGES_TRAIN):
        copies = same_contents(ours, record.digests(folder))
        pairs = [f"{one} (= {other})" for one, other in sorted(copies.items()) if one != other]
        if pairs:  # those of one name are found by it
            what = f"unlabeled with the same images as a case in {folder}"
            found.append(Shared(what, tuple(pairs)))
    return found


def check_validated(
    cases: Collection[str], *, allow_overlap: bool = False, log: Log | None = None
) -> str:
    """Refuse validation cases whose images a run to continue has trained on; as above."""
    if not cases:
        return ""
    text = (
        "some validation cases were trained on as unlabeled ones in earlier epochs: "
        f"{name_some(sorted(cases))}"
    )
    if not allow_overlap:
        raise DataError(
            f"{text[0].upper()}{text[1:]}. Take them out of the validation cases of this fold in "
            "splits_final.json, start a new run, or allow the overlap if it is on purpose (the "
            "setting allow_overlap)."
        )
    if log is not None:
        log(f"Overlap allowed: {text}.")
    return text


def same_contents(
    ours: Mapping[str, tuple[str, ...]], theirs: Mapping[str, tuple[str, ...]]
) -> dict[str, str]:
    """Return the cases with the digests of another one, with that other one."""
    by_content = {digests: identifier for identifier, digests in theirs.items()}
    return {i: by_content[digests] for i, digests in ours.items() if digests in by_content}


def _shared_names(
    unlabeled: Collection[str], roles: Sequence[tuple[str, Collection[str]]]
) -> list[Shared]:
    """Return the names that are in two roles; `Case1` and `case1` are one scan, too."""
    found = []
    for role, others in roles:
        theirs = {identifier.casefold(): identifier for identifier in others} | {
            identifier: identifier for identifier in others
        }
        shared = []
        for ours in sorted(unlabeled):
            other = theirs.get(ours) or theirs.get(ours.casefold())
            if other is not None:
                shared.append(ours if ours == other else f"{ours} (= {other})")
        if shared:
            found.append(Shared(f"unlabeled and at the same time {role}", tuple(shared)))
    return found


def _shared_patients(
    unlabeled: Collection[str],
    roles: Sequence[tuple[str, Collection[str]]],
    groups: Mapping[str, str],
) -> list[Shared]:
    found = []
    ours = {i: patient for i in unlabeled if (patient := patient_of(i, groups)) is not None}
    for role, others in roles:
        patients = {patient_of(identifier, groups) for identifier in others}
        shared = {i for i, patient in ours.items() if patient in patients} - set(others)
        if shared:
            what = f"unlabeled, but of a patient of a {role} case"
            found.append(Shared(what, tuple(sorted(shared))))
    return found


def may_touch_validation(overlap: str) -> bool:
    """Tell whether what the checks above returned may be about validation cases.

    A copy of a case in imagesTr may be one of them; what is test or labeled data alone is not.
    """
    kinds = [part.partition(":")[0] for part in overlap.split("; ")]
    return any("validation" in kind or IMAGES_TRAIN in kind for kind in kinds)


def patient_of(identifier: str, groups: Mapping[str, str]) -> str | None:
    """Return the patient key of a case, None where nothing tells it.

    A case that `groups` does not have belongs to the patient whose key its name begins with: that
    of patient007_frame12 is patient007, if that is a key of other cases.
    """
    if identifier in groups:
        return groups[identifier]
    keys = set(groups.values()) - set(groups)  # the key of a case without a patient is its name
    beginnings = [identifier[: match.start()] for match in re.finditer(r"[^0-9A-Za-z]", identifier)]
    return next((beginning for beginning in reversed(beginnings) if beginning in keys), None)


def _report(found: Sequence[Shared], allow_overlap: bool, log: Log | None) -> str:
    text = "; ".join(map(str, found))
    if not text:
        return ""
    if not allow_overlap:
        raise DataError(f"Some cases are {text}. {REMEDY}.")
    if log is not None:
        log(f"Overlap allowed: some cases are {text}.")
    return f"some cases are {text}"

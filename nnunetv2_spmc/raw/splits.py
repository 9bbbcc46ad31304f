"""Decide which case plays which role, patient by patient, and the folds of splits_final.json."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from nnunetv2_spmc.raw.cases import ConversionError, RawCase, Role, count_of, name_some

# How many cases: a number, a fraction of the candidates, or the cases themselves.
Selection = int | float | tuple[str, ...]


class ListedCases(tuple[str, ...]):
    """Cases that a file lists: messages name its lines, not what somebody has written there.

    Args:
        lines: case -> number of its line.
        file: the list.
    """

    lines: Mapping[str, int]
    file: str

    def __new__(cls, lines: Mapping[str, int], file: str) -> ListedCases:
        """Make the tuple of the cases."""
        made = super().__new__(cls, lines)
        made.lines, made.file = lines, file
        return made

    def __getnewargs__(self) -> tuple[Mapping[str, int], str]:
        """Let a worker process that is spawned make it again."""
        return self.lines, self.file

    def where(self, names: Iterable[str]) -> str:
        """Say in which lines cases stand."""
        numbers = [str(self.lines[name]) for name in names]
        return f"{'line' if len(numbers) == 1 else 'lines'} {name_some(numbers)} of {self.file}"


Splits = list[dict[str, list[str]]]
NNUNET_FOLDS = 5


@dataclass(frozen=True)
class RoleAssignment:
    """The role of each case; cases that can have none are left out, with the reason."""

    roles: Mapping[str, Role]
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def draw(
    patients: Mapping[str, str],
    wanted: int | float,
    rng: np.random.Generator,
    *,
    count_patients: bool = False,
) -> tuple[str, ...]:
    """Draw whole patients until `wanted` cases are together.

    Args:
        patients: Patient key of each candidate case.
        wanted: Number of cases, or fraction of the candidates as a float in (0, 1).
        rng: Source of the shuffle.
        count_patients: A number is one of patients.

    Returns:
        The drawn identifiers, sorted. Never more than a number asks for, and fewer where no
        remaining patient fits; for a fraction at least one patient.
    """
    number = max(1, round(wanted * len(patients))) if isinstance(wanted, float) else wanted
    members: dict[str, list[str]] = {}
    for identifier in sorted(patients):
        members.setdefault(patients[identifier], []).append(identifier)
    drawn: list[str] = []
    shuffled = rng.permutation(sorted(members)).tolist()
    if count_patients and isinstance(wanted, int):
        return tuple(sorted(name for patient in shuffled[:wanted] for name in members[patient]))
    for patient in shuffled:
        if len(drawn) + len(members[patient]) <= number:
            drawn += members[patient]
    if not drawn and shuffled and isinstance(wanted, float):
        drawn = min((members[patient] for patient in shuffled), key=len)
    return tuple(sorted(drawn))


def assign_roles(
    patients: Mapping[str, str],
    with_label: Collection[str],
    *,
    test: Selection | None = None,
    validation: Selection | None = None,
    labeled: Selection | None = None,
    seed: int = 0,
) -> RoleAssignment:
    """Give every case a role: test first, then validation, then labeled; the rest is unlabeled.

    All are drawn from cases with a label. A number of test or validation cases counts patients, a
    fraction is one of the labeled cases that remain when its turn comes. Without `labeled`, every
    remaining case with a label is labeled.

    Args:
        patients: Patient key of each case.
        with_label: The cases that have a label.
        test: Test cases; a list may hold cases without a label.
        validation: Validation cases.
        labeled: Cases whose label is used in training.
        seed: Seed of the draws.

    Raises:
        ConversionError: For unknown, repeated or unlabeled names, or too large numbers.
    """
    rng = np.random.default_rng(seed)
    _check_lists(patients, {"--test": test, "--val": validation, "--labeled": labeled})
    roles: dict[str, Role] = {}
    notes: list[str] = []
    steps: tuple[tuple[Role, str, Selection | None], ...] = (
        ("test", "--test", test),
        ("validation", "--val", validation),
        ("labeled", "--labeled", labeled),
    )
    named = {name for _, _, choice in steps if isinstance(choice, tuple) for name in choice}
    for role, option, choice in steps:
        if choice is None:
            continue
        if isinstance(choice, tuple):
            chosen: tuple[str, ...] = choice
        else:
            # Patients with a case on any list are not up for a draw.
            taken = {patients[name] for name in named.union(roles)}
            free = {n: patients[n] for n in with_label if patients[n] not in taken}
            chosen = _drawn(free, choice, rng, option, count_patients=role != "labeled")
            if role == "labeled" and isinstance(choice, int) and len(chosen) < choice:
                notes.append(f"{option} {choice}: {len(chosen)} drawn, as patients stay whole")
        roles.update(dict.fromkeys(chosen, role))
    left_out = _fill_rest(roles, patients, with_label, all_labels=labeled is None)
    return RoleAssignment(roles, left_out, tuple(notes))


def _drawn(
    free: Mapping[str, str],
    wanted: int | float,
    rng: np.random.Generator,
    option: str,
    *,
    count_patients: bool,
) -> tuple[str, ...]:
    if not free:
        raise ConversionError(f"{option} {wanted}: no labeled case is left to choose from.")
    num_patients = len(set(free.values()))
    available = num_patients if count_patients else len(free)
    if isinstance(wanted, int) and wanted > available:
        left = f"{available} labeled cases that are left"
        if count_patients and num_patients < len(free):
            left = f"{available} patients with labeled cases that are left"
        raise ConversionError(f"{option} {wanted} asks for more than the {left}.")
    chosen = draw(free, wanted, rng, count_patients=count_patients)
    if not chosen:
        raise ConversionError(
            f"{option} {wanted} is too small: no patient fits in without being split."
        )
    return chosen


def _fill_rest(
    roles: dict[str, Role],
    patients: Mapping[str, str],
    with_label: Collection[str],
    *,
    all_labels: bool,
) -> dict[str, str]:
    """Make the rest labeled or unlabeled; leave out what belongs to a held-out patient."""
    held_out = {patients[n]: role for n, role in roles.items() if role in ("test", "validation")}
    left_out: dict[str, str] = {}
    for name in sorted(set(patients) - set(roles)):
        if patients[name] not in held_out:
            roles[name] = "labeled" if all_labels and name in with_label else "unlabeled"
        elif name in with_label:
            raise ConversionError(
                f"Case {name} belongs to patient {patients[name]}, of whom another case is a "
                f"{held_out[patients[name]]} case; list all labeled cases of a patient together."
            )
        else:
            left_out[name] = (
                f"no label, and patient {patients[name]} is a {held_out[patients[name]]} patient"
            )
    return left_out


def _check_lists(known: Collection[str], lists: Mapping[str, Selection | None]) -> None:
    option_of: dict[str, str] = {}
    for option, choice in lists.items():
        if not isinstance(choice, tuple):
            continue
        unknown = [name for name in choice if name not in known]
        if unknown:
            where = choice.where if isinstance(choice, ListedCases) else name_some
            raise ConversionError(
                f"{option} names {count_of(len(unknown), 'case')} not among the images: "
                f"{where(unknown)}; correct the list."
            )
        for name in choice:
            other = option_of.setdefault(name, option)
            if other != option:
                raise ConversionError(f"Case {name} is named by both {other} and {option}.")


def final_splits(cases: Iterable[RawCase]) -> Splits | None:
    """Return the content of splits_final.json, or None where nnU-Net's own 5 folds are right.

    nnU-Net's random folds are wrong where a protocol fixes the validation cases, where a patient
    has several cases, and they need at least five cases.
    """
    cases = list(cases)
    training = sorted(case.identifier for case in cases if case.role == "labeled")
    validation = sorted(case.identifier for case in cases if case.role == "validation")
    if validation:
        return [{"train": training, "val": validation}]
    patients = {case.identifier: case.patient for case in cases if case.role == "labeled"}
    keys = sorted(set(patients.values()))
    if len(keys) == len(training) >= NNUNET_FOLDS:
        return None
    if len(keys) == 1:
        return [{"train": training, "val": training}]
    folds = min(NNUNET_FOLDS, len(keys))
    shuffled = np.random.default_rng(12345).permutation(keys).tolist()
    held_out = [set(shuffled[fold::folds]) for fold in range(folds)]
    return [
        {
            "train": [name for name in training if patients[name] not in keys_of_fold],
            "val": [name for name in training if patients[name] in keys_of_fold],
        }
        for keys_of_fold in held_out
    ]


def nnunet_folds(identifiers: Iterable[str]) -> Splits:
    """Return the folds that nnU-Net makes of labeled cases where no splits_final.json is."""
    from nnunetv2.utilities.crossval_split import generate_crossval_split  # a second to import

    return generate_crossval_split(sorted(identifiers), seed=12345, n_splits=NNUNET_FOLDS)


def leave_one_out(identifiers: Iterable[str]) -> Splits:
    """Return a fold per case with it as the validation case; a single case is both."""
    names = sorted(identifiers)
    if len(names) == 1:
        return [{"train": names, "val": names}]
    return [{"train": [n for n in names if n != name], "val": [name]} for name in names]

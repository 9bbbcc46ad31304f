"""The split that a user asks for: test, validation and labeled cases by number, share or name."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_spmc.common.text import read_text
from nnunetv2_spmc.dataset_conversion.arguments import add_seed
from nnunetv2_spmc.dataset_conversion.folder_files import strip_ending
from nnunetv2_spmc.dataset_conversion.patient_names import grouping_hint, patient_keys
from nnunetv2_spmc.raw.cases import ConversionError, count_of, safe_identifier
from nnunetv2_spmc.raw.splits import ListedCases, Selection

CASES = (
    "a number, a fraction like 0.2, names joined by commas, or a file with one case per line "
    "(for names that are numbers)"
)


@dataclass(frozen=True)
class SplitRequest:
    """Which cases are test, validation and labeled; the rest is unlabeled.

    Attributes:
        test: Test cases: a number of patients, a fraction of the labeled cases, or names.
        validation: Validation cases, likewise from what remains.
        labeled: Cases that keep their label, likewise; all of them where None.
        group_by: Regular expression whose first group (or whole match) in a case's name is the
            patient.
        seed: Seed of the draws.
    """

    test: Selection | None = None
    validation: Selection | None = None
    labeled: Selection | None = None
    group_by: str | None = None
    seed: int = 0

    def patients(self, identifiers: Iterable[str]) -> dict[str, str]:
        """Return the patient of each case.

        Raises:
            ConversionError: If `group_by` is not a regular expression, takes too long, or does not
                match a case.
        """
        names = list(identifiers)
        if self.group_by is None:
            return {name: name for name in names}
        found = patient_keys(self.group_by, names)
        for name, patient in zip(names, found, strict=True):
            if patient is None:
                raise ConversionError(
                    f"--group_by {self.group_by!r} does not match the case {name}."
                )
        return {name: patient or name for name, patient in zip(names, found, strict=True)}

    @property
    def draws(self) -> bool:
        """Whether chance decides on which side a case is, that of a fold's training included."""
        choices = (self.test, self.validation, self.labeled)
        return self.validation is None or any(isinstance(c, (int, float)) for c in choices)

    def notes(self, roles: Mapping[str, str], patients: Mapping[str, str]) -> list[str]:
        """Say how many cases and patients were drawn from what, or that patients look unknown."""
        hint = grouping_hint(list(patients)) if self.group_by is None and self.draws else ""
        notes = [hint] if hint else []
        for option, role, choice in (
            ("--test", "test", self.test),
            ("--val", "validation", self.validation),
        ):
            if choice is not None and not isinstance(choice, tuple):
                cases = [name for name, other in roles.items() if other == role]
                drawn = count_of(len(cases), "case")
                if self.group_by is not None:
                    drawn += f" of {count_of(len({patients[name] for name in cases}), 'patient')}"
                notes.append(f"{option} {choice}: {drawn}, drawn from those with a label")
        return notes

    @property
    def protocol(self) -> str:
        """What split.json says of how the cases were chosen."""
        parts = []
        for role, choice in (
            ("test", self.test),
            ("validation", self.validation),
            ("labeled", self.labeled),
        ):
            if isinstance(choice, tuple):
                parts.append(f"{role}: {len(choice)} named cases")
            elif choice is not None:
                number = str(choice)
                if isinstance(choice, int) and self.group_by and role != "labeled":
                    number = count_of(choice, "patient")
                parts.append(f"{role}: {number} drawn with seed {self.seed}")
        if self.labeled is None:
            parts.append("labeled: all other cases with a label")
        return "; ".join([*parts, "unlabeled: the rest"])


def add_split(parser: argparse.ArgumentParser) -> None:
    """Add --test, --val, --labeled, --group_by and --seed."""
    add = parser.add_argument
    add(
        "--test",
        metavar="CASES",
        help=f"test cases, chosen first: {CASES}. Numbers and fractions are drawn from cases "
        "with a label; with --group_by, a number counts patients",
    )
    add(
        "--val",
        metavar="CASES",
        help="validation cases, chosen from the rest in the same way",
    )
    add(
        "--labeled",
        metavar="CASES",
        help="keep only these labels for training, chosen from the rest in the same way, but a "
        "number counts cases; the others go to labelsUn (default: keep all)",
    )
    add(
        "--group_by",
        metavar="REGEX",
        help="the first group (or match) in a case's name is the patient; patients stay together",
    )
    add_seed(parser, "seed of the draws for numbers and fractions")


def split_request(arguments: argparse.Namespace) -> SplitRequest:
    """Read what `add_split` has added."""
    return SplitRequest(
        test=parse_selection(arguments.test),
        validation=parse_selection(arguments.val),
        labeled=parse_selection(arguments.labeled),
        group_by=arguments.group_by,
        seed=arguments.seed,
    )


def parse_selection(text: str | None) -> Selection | None:
    """Read N, a fraction, a file with a case on each line, or names joined by commas."""
    if text is None:
        return None
    if re.fullmatch(r"-?\d{1,18}", text):
        if int(text) < 1:
            raise ConversionError(f"At least one case has to be asked for, got {text}.")
        return int(text)
    if re.fullmatch(r"-?(\d+\.\d*|\.\d+)", text):
        if not 0 < float(text) < 1:
            raise ConversionError(f"A fraction lies between 0 and 1, got {text}.")
        return float(text)
    if os.path.isfile(text):  # many names are longer than a path may be: Path raises
        return _listed_cases(text)
    elif Path(text).suffix in (".txt", ".list", ".csv") or "/" in text:
        raise ConversionError(f"The list {text} does not exist.")
    else:
        names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise _no_case(text)
    return tuple(dict.fromkeys(safe_identifier(strip_ending(name)) for name in names))


def _listed_cases(file: str) -> ListedCases:
    lines: dict[str, int] = {}
    for number, line in enumerate(read_text(Path(file)).splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            lines.setdefault(safe_identifier(strip_ending(line.strip())), number)
    if not lines:
        raise _no_case(file)
    return ListedCases(lines, file)


def _no_case(text: str) -> ConversionError:
    return ConversionError(f"The list {text!r} names no case.")

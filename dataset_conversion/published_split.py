"""Follow the lists of a published protocol: first N labeled, missing cases refused or named."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_spmc.raw.cases import ConversionError, Role, count_of, name_some


@dataclass(frozen=True)
class PublishedSplit:
    """Training, validation and test units in the protocol's order.

    Attributes:
        train: Names; the first N are labeled, the rest unlabeled.
        test: Names held out for the test.
        validation: Names held out for validation.
        unit: What a name stands for: a scan, a patient, a case.
    """

    train: Sequence[str]
    test: Sequence[str]
    validation: Sequence[str] = ()
    unit: str = "case"

    @property
    def names(self) -> list[str]:
        """All names, training first."""
        return [*self.train, *self.validation, *self.test]

    def check_labeled(self, labeled: int) -> None:
        """Raise unless some training units are labeled and some are not."""
        if not 1 <= labeled < len(self.train):
            raise ConversionError(
                f"--labeled must lie between 1 and {len(self.train) - 1} {self.unit}s, "
                f"got {labeled}."
            )

    def check_missing(self, missing: Sequence[str], source: Path, allow_missing: bool) -> None:
        """Raise if units are not on disk and that was not allowed."""
        if missing and not allow_missing:
            raise ConversionError(
                f"{len(missing)} of the {len(self.names)} {self.unit}s of the protocol are not in "
                f"{source}: {name_some(missing, 3)}; get them, or go on without them with "
                "--allow_missing."
            )

    def roles(
        self, labeled: int, on_disk: Collection[str]
    ) -> tuple[dict[str, Role], tuple[str, ...]]:
        """Return the role of each unit on disk, and notes.

        A missing labeled unit is not replaced by the next: that would be another protocol.

        Raises:
            ConversionError: If no labeled unit is on disk.
        """
        roles: dict[str, Role] = dict.fromkeys(self.train, "unlabeled")
        roles |= dict.fromkeys(self.train[:labeled], "labeled")
        roles |= dict.fromkeys(self.validation, "validation")
        roles |= dict.fromkeys(self.test, "test")
        absent = [name for name in self.train[:labeled] if name not in on_disk]
        if len(absent) == labeled:
            raise ConversionError(
                f"None of the first {count_of(labeled, self.unit)} of the list, which are the "
                f"labeled ones, is on disk: {name_some(absent, 3)}; get one, or raise --labeled."
            )
        notes: tuple[str, ...] = ()
        if absent:
            notes = (
                f"of the first {count_of(labeled, self.unit)} of the list, which are the labeled "
                f"ones, {len(absent)} missing and not replaced: {name_some(absent, 3)}",
            )
        return {name: role for name, role in roles.items() if name in on_disk}, notes

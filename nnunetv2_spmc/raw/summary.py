"""What a conversion says on the screen."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_spmc.raw.cases import ROLES, RawDataset, Role, count_of, name_some
from nnunetv2_spmc.raw.layout import FOLDERS, IMAGES_TEST, image_file, label_file
from nnunetv2_spmc.raw.sources import is_unread
from nnunetv2_spmc.raw.splits import Splits, nnunet_folds

TRAINER_FOLDER = "nnUNet_extTrainer"


@dataclass(frozen=True)
class ConversionSummary:
    """What was written, or with dry_run would be; `str()` gives the text for the screen."""

    dataset: RawDataset
    folder: Path
    splits: Splits | None
    splits_file: Path | None
    dry_run: bool = False
    warnings: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()  # a table of labeled and unlabeled scans
    configuration: str = "3d_fullres"  # to go on with
    outdated: bool = False  # preprocessed data of an earlier version is there

    def count(self, role: Role) -> int:
        """Number of cases of a role."""
        return len(self.dataset.with_role(role))

    def __str__(self) -> str:
        """Return the text for the screen: what went where, notes, warnings, next commands."""
        lines = self._file_lines() if self.dry_run else []
        lines += [f"{'Would write' if self.dry_run else 'Wrote'} {self.folder}"]
        lines += [self._role_line(role) for role in ROLES if self.count(role)]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        lines += [f"  {line}" for line in self._split_lines()]
        lines += [f"  note: {note}" for note in self._notes()]
        lines += [f"  {line}" for line in self.sites]
        if self.outdated:
            lines.append(
                "  warning: nnUNet_preprocessed holds an earlier version, preprocess again"
            )
        return "\n".join(lines if self.dry_run else [*lines, "", *self._next_commands()])

    def _role_line(self, role: Role) -> str:
        cases = self.dataset.with_role(role)
        patients = len({case.patient for case in cases})
        images, labels = FOLDERS[role]
        with_label = sum(case.label is not None for case in cases)
        text = f"  {role:<11}{count_of(len(cases), 'case'):>10}"
        if patients != len(cases):
            text += f" of {count_of(patients, 'patient')}"
        where = f"{images}, {labels}" if with_label else images
        if 0 < with_label < len(cases):
            where += f" ({with_label} of them)"
        return f"{text} -> {where}"

    def _split_lines(self) -> list[str]:
        if self.splits is None:
            names = [case.identifier for case in self.dataset.with_role("labeled")]
            return [
                "nnU-Net makes 5 folds when training starts:",
                *_fold_lines(nnunet_folds(names)),
            ]
        folds = count_of(len(self.splits), "fold")
        return [f"{folds} fixed in {self.splits_file}:", *_fold_lines(self.splits)]

    def _notes(self) -> list[str]:
        notes = list(self.dataset.notes)
        if self.dataset.missing:
            missing = self.dataset.missing
            notes.append(
                f"{len(missing)} missing, not on disk (all in split.json): {name_some(missing, 3)}"
            )
        if self.dataset.left_out:
            left_out = list(self.dataset.left_out)
            notes.append(f"{len(left_out)} left out (reasons in split.json): {name_some(left_out)}")
        return [*notes, *self._unused_notes()]

    def _unused_notes(self) -> list[str]:
        unread = [name for name in self.dataset.unused if is_unread(name)]
        other = [name for name in self.dataset.unused if not is_unread(name)]
        notes = []
        if unread:
            notes.append(
                f"{count_of(len(unread), 'file')} of formats that are not read (all in "
                f"split.json): {name_some(unread)}; convert scans among them to .nii.gz"
            )
        if other:
            notes.append(
                f"not used from the input, {len(other)} (all in split.json): {name_some(other)}"
            )
        return notes

    def _file_lines(self) -> list[str]:
        lines = []
        for role in ROLES:
            for case in self.dataset.with_role(role):
                targets = [image_file(case, channel) for channel in range(len(case.images))]
                lines += [f"{t} <- {s}" for t, s in zip(targets, case.images, strict=True)]
                if case.label is not None:
                    lines.append(f"{label_file(case)} <- {case.label}")
        return lines

    def _next_commands(self) -> list[str]:
        number, configuration = self.dataset.dataset_id, self.configuration
        lines = ["Next:"]
        if not os.environ.get(TRAINER_FOLDER):
            lines.append('  export nnUNet_extTrainer="$(nnUNetv2_spmc_trainers)"')
        lines += [
            f"  nnUNetv2_plan_and_preprocess -d {number} -c {configuration}"
            f" --verify_dataset_integrity{' --clean' * self.outdated}",
            f"  nnUNetv2_spmc_preprocess -d {number} -c {configuration}"
            f"{' --overwrite' * self.outdated}",
            f"  nnUNetv2_train {number} {configuration} 0 -tr nnUNetTrainerSPMC",
        ]
        images = shlex.quote(str(self.folder / IMAGES_TEST)) if self.count("test") else "IMAGES"
        lines.append(
            f"  nnUNetv2_predict -d {number} -c {configuration} -f 0 -tr nnUNetTrainerSPMC"
            f" -i {images} -o PREDICTIONS"
        )
        return lines


def _fold_lines(splits: Splits) -> list[str]:
    lines = []
    for number, fold in enumerate(splits):
        trains_too = ", which it is trained on" if fold["val"] == fold["train"] else ""
        lines.append(f"  fold {number} validates on {name_some(fold['val'])}{trains_too}")
    return lines

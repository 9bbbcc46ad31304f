"""Which of the trained models of a dataset to use: a table, what to know of it, one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.evaluation.pairs import RESAMPLES
from nnunetv2_spmc.evaluation.recommendation import Recommendation, comparable, recommend
from nnunetv2_spmc.raw.cases import count_of
from nnunetv2_spmc.reports.compared_models import ComparedModel
from nnunetv2_spmc.reports.found_models import Question, find_models
from nnunetv2_spmc.reports.model_differences import check_same_references, differences

LONGER = 1.3  # times the hours of the first model: more epochs of that one are another comparison


@dataclass(frozen=True, eq=False)
class Choice:
    """Models that share validation cases, and what is recommended."""

    models: tuple[ComparedModel, ...]  # what is kept in doubt comes first
    recommendation: Recommendation
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Which to use, by how much, how sure, on how many patients."""
        return self.recommendation.sentence

    def text(self) -> str:
        """Return the table and what to know of it, without the sentence."""
        lines = [self.recommendation.table(), *self._explanations()]
        lines += [f"note: {note}." for note in self.notes]
        lines += [f"warning: {warning}." for warning in self.warnings]
        return "\n".join(lines)

    def _explanations(self) -> list[str]:
        recommendation, first = self.recommendation, self.recommendation.baseline
        patients, gains = recommendation.patients, recommendation.gains
        lines = [
            "Dice of nnU-Net's validation: mean over classes, then over the cases of a "
            "patient, then over patients, on what a model",
            f"shares with the first one. Interval: bootstrap over patients ({RESAMPLES} resamples, "
            "fixed seed). Hours: of a training of a fold.",
        ]
        if not patients.are_known:
            lines.append("Nothing says which cases are of one patient, so each counts as its own.")
        if all(len(runs) == 1 for model in self.models for runs in model.folds.values()):
            lines.append(
                "There is one run of each: other seeds may differ as much (see --results)."
            )
        longer = [g.model for g in gains if g.model.seconds > LONGER * first.seconds]
        if longer:
            slowest = max(longer, key=lambda model: model.seconds)
            lines.append(
                f"{slowest.name} took {slowest.seconds / first.seconds:.1f} times as long as "
                f"{first.name}, which may gain from more epochs as well."
            )
        if left_out := sum(gain.pairs.one_sided for gain in gains):
            lines.append(
                f"In no difference: {count_of(left_out, 'mask')} that one of two models left empty "
                "as the label is, and the other did not."
            )
        return lines


def choose(question: Question) -> Choice:
    """Find the models, compare them, recommend one.

    Raises:
        DataError: there are not two that can be compared.
    """
    found = find_models(question)
    check_same_references(found.models)
    patients = found.patients()
    candidates = {model.name: model.candidate() for model in found.models}
    kept = {model.name for model in comparable(list(candidates.values()), patients)}
    if not kept:
        listed = "; ".join(
            f"{model.name} {', '.join(sorted(model.folds))}" for model in found.models
        )
        raise DataError(
            f"No two models of {found.dataset_name} have validated the same case (folds: "
            f"{listed}); train a fold of one of them with the other trainer, too."
        )
    notes = [
        *found.notes,
        *(
            f"{name} is left out: no other model has validated its cases"
            for name in candidates
            if name not in kept
        ),
    ]
    models = sorted(
        (model for model in found.models if model.name in kept),
        key=lambda model: candidates[model.name].cost,
    )
    recommendation = recommend([candidates[model.name] for model in models], patients)
    return Choice(tuple(models), recommendation, tuple(notes), tuple(differences(models)))

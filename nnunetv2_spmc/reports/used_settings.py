"""Which of its stored settings a training used: every trainer stores those of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from nnunetv2_spmc.methods import TRAINERS
from nnunetv2_spmc.training.configured import nnUNetTrainerConfigured
from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised
from nnunetv2_spmc.training.settings import TrainingSettings

OF_UNLABELED = (  # of no use without unlabeled patches
    "ramp_start",
    "ramp_end",
    "unlabeled_batch_size",
    "unlabeled_every",
    "learn_from_ignored",
    "pseudo_label_cases",
    "allow_overlap",
    "views",
)
OF_VIEWS = ("paste_from", "paste_probability", "turns", "flips")
Settings = Mapping[str, Any]
NEEDED: dict[str, Callable[[Settings], bool]] = {  # setting -> whether another one lets it count
    "paste_probability": lambda settings: settings.get("paste_from") != "nothing",
    "noise_levels": lambda settings: settings.get("noise", 1) > 0,
    **dict.fromkeys(
        ("temperature", "sharpening", "trust_on", "teaching"),
        lambda settings: settings.get("splat", True),
    ),
    **dict.fromkeys(
        ("beta", "reduction"),
        lambda settings: settings.get("cdps", True) or settings.get("splat", True),
    ),
}


def used_settings(trainer: str, settings: Settings) -> dict[str, Any]:
    """Return the settings that a training of this trainer used.

    Args:
        trainer: its class name; of a trainer from elsewhere all settings count.
        settings: all that its checkpoint has.
    """
    found = _known(trainer)
    unused = {key for key, counts in NEEDED.items() if not counts(settings)}
    if found is not None:
        is_semi = issubclass(found, nnUNetTrainerSemiSupervised)
        # the view control has the views of a method, and no unlabeled patch
        reads_unlabeled = is_semi and (
            found.uses_unlabeled_data is nnUNetTrainerSemiSupervised.uses_unlabeled_data
        )
        if not reads_unlabeled:
            unused |= {*OF_UNLABELED, "lambda_max"}
        elif settings.get("lambda_max") == 0:
            unused |= set(OF_UNLABELED)
        if not is_semi:
            unused.add("viewed_pass")
        if not is_semi and not settings.get("labeled_views"):
            unused |= set(OF_VIEWS)
    return {key: value for key, value in settings.items() if key not in unused}


def completed(trainer: str, settings: Settings) -> dict[str, Any]:
    """Return the settings with those that a training of an older version does not know: off."""
    found = _known(trainer)
    if found is None:
        return dict(settings)
    new = asdict(TrainingSettings()) | asdict(type(found.default_method_settings)())
    return new | dict(found.fixed_settings) | dict(settings)


def _known(trainer: str) -> type[nnUNetTrainerConfigured] | None:
    return next((known for known in TRAINERS if known.__name__ == trainer), None)

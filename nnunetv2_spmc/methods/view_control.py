"""The view control: what the views of a method give without any unlabeled scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from nnunetv2_spmc.methods.spmc import nnUNetTrainerSPMC
from nnunetv2_spmc.training.passes import labeled_pass
from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised
from nnunetv2_spmc.training.settings import TrainingSettings
from nnunetv2_spmc.training.step import Pass, Step

OF_SPMC = nnUNetTrainerSPMC.default_settings


class nnUNetTrainerViewControl(nnUNetTrainerSemiSupervised):
    """The supervised control with a second labeled pass through the views of a method.

    The second pass sees the patches with boxes of other labeled patches, turned and flipped as the
    settings say, at weight 1 from the first step. The views are SPMC's unless the settings name
    those of another method. No unlabeled scan is needed or read.
    """

    default_settings = TrainingSettings(
        paste_from=OF_SPMC.paste_from,
        paste_probability=OF_SPMC.paste_probability,
        turns=OF_SPMC.turns,
        flips=OF_SPMC.flips,
    )
    fixed_settings: ClassVar[dict[str, Any]] = {"viewed_pass": "always"}

    @property
    def uses_unlabeled_data(self) -> bool:
        """No: that is the point."""
        return False

    def passes(self, step: Step) -> Sequence[Pass]:
        """Do the supervised pass; the base does the other one."""
        return [lambda: labeled_pass(self, step)]

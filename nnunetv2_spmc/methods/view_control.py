"""The view control: what the views of a method give without any unlabeled scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from nnunetv2_spmc.methods.spmc import nnUNetTrainerSPMC
from nnunetv2_spmc.training.epoch_log import Panels
from nnunetv2_spmc.training.passes import labeled_pass
from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised
from nnunetv2_spmc.training.settings import TrainingSettings
from nnunetv2_spmc.training.step import Labeled, Loss, Pass, Step, labeled_through

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

    panels: ClassVar[Panels] = {"loss terms": ("viewed_main",)}

    @property
    def uses_unlabeled_data(self) -> bool:
        """No: that is the point."""
        return False

    def passes(self, step: Step) -> Sequence[Pass]:
        """Do a pass through the views, then the supervised one."""
        return [lambda: self._viewed_pass(step), lambda: labeled_pass(self, step)]

    def _viewed_pass(self, step: Step) -> Loss:
        view = self.views.draw_labeled(step.labeled.images)
        images, target = labeled_through(view, step.labeled.images, step.labeled.target)
        loss, values = self.labeled_loss(self.joint_network(images), Labeled(images, target))
        return loss, {"viewed_main": values["supervised_main"]}

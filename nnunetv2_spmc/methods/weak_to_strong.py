"""FilterMatch's loss with our views: a weak one for the teacher, boxes and turns for the student.

One network learns from its own hard labels, as in FilterMatch (Ordi117/nnFilterMatch, arXiv
2509.19746). They are made without intensity augmentation, as in FixMatch (Sohn et al., NeurIPS
2020).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nnunetv2_spmc.methods.filter_match import one_batch, probabilities_of_scales
from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised
from nnunetv2_spmc.training.settings import TrainingSettings
from nnunetv2_spmc.training.step import Pass, Step, Unlabeled


class nnUNetTrainerWeakToStrong(nnUNetTrainerSemiSupervised):
    """Train the planned network on its own hard labels, seen through boxes and turns.

    Labeled and unlabeled patches are one batch for nnU-Net's own loss, so that lambda(t) only
    switches the unlabeled ones on, after a share of supervised epochs. With an ignore label and
    several processes, each averages the cross-entropy over its own voxels, as in nnU-Net.
    """

    default_settings = TrainingSettings(
        lambda_max=1.0,
        ramp_start=0.1,
        ramp_end=0.1,
        views="weak-to-strong",
        paste_from="labeled",
        turns=True,
    )

    @property
    def learns_from_ignored(self) -> bool:
        """No: voxels under the ignore label have no view to be seen through."""
        return False

    def pseudo_labels(self, unlabeled: Unlabeled) -> dict[str, Tensor]:
        """Return the probabilities at each resolution of deep supervision."""
        return probabilities_of_scales(self, unlabeled)

    def passes(self, step: Step) -> Sequence[Pass]:
        """Do one pass over labeled and unlabeled patches alike."""
        if step.unlabeled is None:
            return super().passes(step)
        return [lambda: one_batch(self, step)]

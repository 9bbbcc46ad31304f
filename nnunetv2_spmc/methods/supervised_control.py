"""The supervised control: what the labeled cases alone give under the same schedule."""

from __future__ import annotations

from nnunetv2_spmc.training.configured import nnUNetTrainerConfigured


class nnUNetTrainerSupervisedControl(nnUNetTrainerConfigured):
    """Stock nnU-Net with epochs, iterations, learning rate and seed from the same settings.

    Loss, optimizer and augmentation are stock, and so are labeled batches unless `labeled_views`
    asks for the views of a semi-supervised method.
    """

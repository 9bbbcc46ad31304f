"""CDPS, common difficulty pixel screening, Eq. (6)-(11).

Voxels of labeled scans about which both branches are unsure are corrected by their labels.
"""

from __future__ import annotations

from torch import Tensor

from nnunetv2_spmc.losses.masked_mse import Divisor, Reduction, masked_mse, own_entries


def common_difficulty(
    main_confidence: Tensor,
    auxiliary_confidence: Tensor,
    tau: float,
    valid: Tensor | None = None,
) -> Tensor:
    """Select the voxels that are suspicious in both branches, Eq. (6)-(11).

    Args:
        main_confidence: (B, 1, ...) or, with regions, (B, R, ...).
        auxiliary_confidence: same shape.
        tau: a voxel is suspicious when its confidence is <= tau.
        valid: bool, (B, 1, ...): False under the ignore label, where nothing is selected.

    Returns:
        Bool mask of the shape of the confidences.
    """
    mask = (main_confidence <= tau) & (auxiliary_confidence <= tau)
    return mask if valid is None else mask & valid


def cdps(
    main: Tensor,
    auxiliary: Tensor,
    target: Tensor,
    mask: Tensor,
    *,
    reduction: Reduction = "all",
    valid: Tensor | None = None,
    divisor: Divisor = own_entries,
) -> tuple[Tensor, Tensor]:
    """Pull both branches toward the label where both are unsure, Eq. (6)-(11).

    Args:
        main: (B, C, ...) probabilities of the main branch.
        auxiliary: (B, C, ...) probabilities of the auxiliary branch.
        target: (B, C, ...) one-hot labels (or region channels).
        mask: bool, from `common_difficulty`; the same for both branches.
        reduction: see `masked_mse`.
        valid: bool, (B, 1, ...): by what "all" divides, see `masked_mse`.
        divisor: see `masked_mse`.

    Returns:
        The scalar losses of the main and of the auxiliary branch.
    """
    if reduction == "masked":
        valid = None  # so every process counts alike, as in nnU-Net's loss, to which this is added

    def error(branch: Tensor) -> Tensor:
        return masked_mse(branch, target, mask, reduction=reduction, valid=valid, divisor=divisor)

    return error(main), error(auxiliary)

"""The titles of curves, and what they look like in a healthy training."""

from __future__ import annotations

PANEL_TITLES = {
    "train_losses": "training loss of the main branch",
    "val_losses": "validation loss",
    "mean_fg_dice": "pseudo Dice on validation patches",
    "ema_fg_dice": "pseudo Dice, moving average",
    "lrs": "learning rate",
    "seconds": "seconds per epoch",
    "lambda": "lambda (ramp-up weight)",
    "agreement": "agreement of the branches",
    "supervised": "supervised loss",
    "cdps": "CDPS loss",
    "cps": "CPS loss",
    "splat": "SPLAT loss",
    "suspicious": "share of suspicious voxels",
    "taught": "share of taught voxels",
    "common_difficulty_labeled": "share of common difficulty, labeled",
    "common_difficulty_unlabeled": "share of common difficulty, unlabeled",
    "single_class": "patches predicted as one class",
    "pseudo_label_dice": "pseudo-label Dice, withheld cases",
    "total_loss": "total loss",
    "consistency": "consistency loss",
    "viewed": "supervised loss through the views",
}
HEALTHY = {
    "train_losses": "Healthy: it falls fast, then slowly, and stays finite. nnU-Net's loss is "
    "negative once the Dice is good.",
    "val_losses": "Healthy: it falls with the training loss. Where it rises while the training "
    "loss falls, the training learns its few cases by heart.",
    "mean_fg_dice": "Healthy: it rises and levels off; jumps between epochs are normal, because "
    "each epoch sees other patches. It is no test result.",
    "ema_fg_dice": "Healthy: it rises and levels off. If it still rises at the end, more epochs "
    "will help. If it drops for good, the training has collapsed.",
    "lrs": "Healthy: it falls from its start value to almost 0 without a jump.",
    "seconds": "Healthy: it is even. Peaks mean that other programs use the machine, or that "
    "loading is slower than learning.",
    "lambda": "Healthy: 0 in the supervised part, then a smooth rise to its maximum. It stays at "
    "0 without unlabeled scans.",
    "agreement": "Healthy: it rises to above 0.9, and not to exactly 1: two branches that never "
    "differ cannot teach each other.",
    "supervised": "Healthy: it falls like the training loss, in both branches alike.",
    "cdps": "Healthy: it changes slowly. A mean over the difficult voxels only, it need not fall.",
    "cps": "Healthy: it falls as the branches come to agree; it may rise for a while when lambda "
    "does. As nnU-Net's own loss (pseudo_loss nnunet, the default) it falls below 0. If it stays "
    "near 0, both predict background only.",
    "splat": "Healthy: it changes slowly once lambda is above 0. 0 for good means that no voxel is "
    "taught.",
    "suspicious": "Healthy: it falls in the first epochs, then stays low and above 0.",
    "taught": "Healthy: a small share above 0. 0 for good means that no voxel is taught.",
    "common_difficulty_labeled": "Healthy: it falls in the first epochs, then stays low.",
    "common_difficulty_unlabeled": "Healthy: it falls in the first epochs, then stays low and "
    "above 0.",
    "single_class": "Healthy: low and even. A rise to 1 means that the training has collapsed.",
    "pseudo_label_dice": "Healthy: it rises with the pseudo Dice. If it falls while lambda rises, "
    "wrong pseudo-labels are being learned.",
    "total_loss": "Healthy: it falls; it may rise for a while when lambda does.",
    "consistency": "Healthy: it rises when lambda does, then falls. 0 for good means that teacher "
    "and student predict background only.",
    "viewed": "Healthy: it falls like the supervised loss, and stays above it.",
}
OF_A_CLASS = "Healthy: it rises. A class that stays at 0 is never predicted."
OTHERWISE = "Healthy: it stays finite and changes slowly."


def panel_of(base: str) -> tuple[str, str]:
    """Return title and sentence of a curve.

    Args:
        base: its key, without the name of a branch.
    """
    if base.startswith("dice_"):
        return f"pseudo Dice {base.removeprefix('dice_')}", OF_A_CLASS
    return PANEL_TITLES.get(base, base.replace("_", " ")), HEALTHY.get(base, OTHERWISE)

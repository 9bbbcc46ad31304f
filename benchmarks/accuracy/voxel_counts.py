"""Voxels of unlabeled cases, counted: what is wrong, what is taught, and who is right there."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunetv2_spmc import losses

CONFIDENCES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0)  # edges of the bins


class Counts:
    """Voxels of all cases, counted.

    Args:
        classes: number of classes, the background included.
        tau: a voxel is suspicious at confidence <= tau.
        temperature: of the sharpening.
    """

    def __init__(self, classes: int, tau: float, temperature: float) -> None:
        self.classes, self.tau, self.temperature = classes, tau, temperature
        self.of: Counter[str] = Counter()
        self.dice: dict[str, list[float]] = {"main": [], "auxiliary": []}
        self.bins = np.zeros((2, len(CONFIDENCES) - 1))  # voxels, right ones

    def add(self, main: Tensor, auxiliary: Tensor, labels: Tensor) -> None:
        """Count a case.

        Args:
            main: (C, ...) probabilities of the main branch.
            auxiliary: the same of the auxiliary branch.
            labels: (...) withheld labels.
        """
        branches = {"main": main, "auxiliary": auxiliary}
        confidence = {name: p.amax(dim=0) for name, p in branches.items()}
        predicted = {name: p.argmax(dim=0) for name, p in branches.items()}
        right = {name: segmentation == labels for name, segmentation in predicted.items()}
        different = predicted["main"] != predicted["auxiliary"]
        masks = {"voxels": torch.ones_like(different), "different": different}
        masks |= {f"different_{name}_right": different & right[name] for name in branches}
        for student, teacher in (("main", "auxiliary"), ("auxiliary", "main")):
            sharpened = losses.sharpen(branches[teacher], self.temperature)
            taught = losses.taught(confidence[student], sharpened.amax(dim=0), self.tau)
            masks |= {
                f"{student}/wrong": ~right[student],
                f"{student}/wrong_confident": ~right[student] & (confidence[student] > self.tau),
                f"{student}/suspicious": confidence[student] <= self.tau,
                f"{student}/taught": taught,
                f"{student}/taught_student_right": taught & right[student],
                f"{student}/taught_teacher_right": taught & right[teacher],
            }
            for values, of in enumerate((masks["voxels"], right[student])):
                sure = confidence[student][of].numpy()
                self.bins[values] += np.histogram(sure, CONFIDENCES)[0]
            for c in range(1, self.classes):
                score = dice(predicted[student] == c, labels == c)
                self.dice[student] += [] if score is None else [score]
        for name, mask in masks.items():
            self.of[name.rpartition("/")[2]] += int(mask.sum())

    def summary(self) -> dict[str, float]:
        """Return the mean Dice of both branches, shares of the voxels and who is right there."""
        of, voxels = self.of, self.of["voxels"]
        return {
            **{f"dice_{branch}": float(np.mean(dice)) for branch, dice in self.dice.items()},
            "wrong": of["wrong"] / (2 * voxels),  # of the voxels of both branches
            "wrong_confident": of["wrong_confident"] / max(of["wrong"], 1),
            "suspicious": of["suspicious"] / (2 * voxels),
            "taught": of["taught"] / (2 * voxels),
            "taught_student_right": of["taught_student_right"] / max(of["taught"], 1),
            "taught_teacher_right": of["taught_teacher_right"] / max(of["taught"], 1),
            "different": of["different"] / voxels,
            "different_main_right": of["different_main_right"] / max(of["different"], 1),
            "different_auxiliary_right": of["different_auxiliary_right"] / max(of["different"], 1),
        }

    def calibration(self) -> list[dict[str, Any]]:
        """Return a row per bin of confidence: its part of the voxels, and how many are right."""
        voxels, right = self.bins
        return [
            {
                "confidence_above": low,
                "share": rounded(voxels[i] / voxels.sum()),
                "right": rounded(right[i] / voxels[i]),
            }
            for i, low in enumerate(CONFIDENCES[:-1])
            if voxels[i]
        ]


def dice(predicted: Tensor, reference: Tensor) -> float | None:
    """Return the Dice of two masks, None where both are empty."""
    total = int(predicted.sum() + reference.sum())
    return 2 * int((predicted & reference).sum()) / total if total else None


def rounded(value: float) -> str:
    """Return five digits of a number."""
    return f"{value:.5g}"

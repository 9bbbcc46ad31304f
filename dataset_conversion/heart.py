"""Synthetic short-axis slices of hearts: small, and yet hard, as real ones are.

Source: generated; no licence applies. Labels: 1 myocardium of the left ventricle, 2 its cavity.

Hearts differ in place, turn, size and wall. Labeled scans come from a good scanner. Unlabeled and
test scans come from poor ones, with less contrast, more noise and a bias field. It is weak in some
of them, and so strong in others that parts of the chest are lost. The right ventricle, which has no
label, and other structures in the chest are as bright as the cavity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from nnunetv2_spmc.dataset_conversion.smooth_noise import smooth_noise

LABELS = {"background": 0, "myocardium": 1, "left_ventricle": 2}
MUSCLE, CAVITY = 1, 2
SIZE = (64, 64, 8)  # x, y, z; lengths below are in voxels of this size
SPACING_MM = (1.5, 1.5, 8.0)
STRUCTURES = 10  # around the heart
AIR = 0.02
Range = tuple[float, float]


@dataclass(frozen=True)
class Scanner:
    """The ranges from which each scan draws its brightness, noise and bias field."""

    muscle: Range
    tissue_above_muscle: Range
    blood_above_muscle: Range
    noise: Range
    bias: Range  # standard deviation of the logarithm of the field


GOOD = Scanner((0.1, 0.2), (0.15, 0.25), (0.5, 0.7), (0.04, 0.06), (0.0, 0.2))
POOR = Scanner((0.1, 0.25), (0.1, 0.25), (0.35, 0.6), (0.06, 0.1), (0.2, 1.8))


@dataclass(frozen=True)
class _Ellipse:
    """An ellipse that drifts from slice to slice; angles in radians."""

    x: float
    y: float
    radius: float
    other_radius: float
    angle: float
    brightness: float

    def contains(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        along, across = _turned(x - self.x, y - self.y, self.angle)
        return (along / self.radius) ** 2 + (across / self.other_radius) ** 2 <= 1


def heart_arrays(
    rng: np.random.Generator, size: tuple[int, int, int], scanner: Scanner
) -> tuple[np.ndarray, np.ndarray]:
    """Generate one case.

    Args:
        rng: Source of all randomness.
        size: Voxels along x, y, z, from the base of the heart to its apex.
        scanner: Decides contrast, noise and bias field.

    Returns:
        Image (z, y, x) int16 and label (z, y, x) uint8 with values 0 to 2.
    """
    width, height, slices = size
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    between, scale = rng.uniform, width / SIZE[0]
    centre = width / 2 + 7 * scale * between(-1, 1), height / 2 + 7 * scale * between(-1, 1)
    turn = between(-0.9, 0.9)
    cavity, wall = scale * between(5, 10), scale * between(2, 5)
    # of the right ventricle, in radii of the left one with its wall
    offset, depth, breadth = between(0.7, 1.1), between(0.7, 1.1), between(0.9, 1.5)
    muscle = between(*scanner.muscle)
    tissue = muscle + between(*scanner.tissue_above_muscle)
    blood = muscle + between(*scanner.blood_above_muscle)
    right_blood = blood * between(0.8, 1.05)
    stretch, stretched_along = between(0.85, 1.15), between(0, np.pi)
    chest = scale * between(26, 31), scale * between(22, 29)
    structures = [
        _Ellipse(
            between(0, width),
            between(0, height),
            scale * between(2.5, 8),
            scale * between(2.5, 8),
            between(0, np.pi),
            blood * between(0.8, 1.1) if number % 2 else between(0.05, 0.6),
        )
        for number in range(STRUCTURES)
    ]
    drifts = [(between(-0.7, 0.7), between(-0.7, 0.7)) for _ in structures]
    lean = between(-0.4, 0.4), between(-0.4, 0.4)
    warp = [1.6 * scale * smooth_noise(rng, (height, width)) for _ in range(2)]
    papillary = [(between(0, 2 * np.pi), between(0.4, 0.6)) for _ in range(2)]

    x, y = x + warp[0], y + warp[1]
    inside = ((x - width / 2) / chest[0]) ** 2 + ((y - height / 2) / chest[1]) ** 2 <= 1
    image, label = np.zeros((slices, height, width)), np.zeros((slices, height, width), np.uint8)
    for number in range(slices):
        down = number / (slices - 1)  # from base to apex
        taper = np.sqrt(max(1 - (0.85 * down) ** 2, 0.05))
        one = np.where(inside, tissue, AIR)
        for structure, drift in zip(structures, drifts, strict=True):
            moved = structure.contains(x - drift[0] * number, y - drift[1] * number)
            one = np.where(moved & inside, structure.brightness, one)
        from_centre = x - centre[0] - lean[0] * number, y - centre[1] - lean[1] * number
        along, across = _turned(*from_centre, stretched_along)
        distance = np.hypot(along * stretch, across / stretch)
        outer, inner = (cavity + wall) * taper, cavity * taper * (1 - 0.25 * down)
        along, across = _turned(*from_centre, turn)
        full = (cavity + wall) * max(taper - 0.35 * down, 0.0)
        right = ((along + offset * outer) / (depth * full + 1e-3)) ** 2
        right = right + (across / (breadth * full + 1e-3)) ** 2 <= 1
        one = np.where(right, right_blood, one)
        labels = label[number]
        labels[distance <= outer] = MUSCLE
        labels[distance <= inner] = CAVITY
        for value, brightness in ((MUSCLE, muscle), (CAVITY, blood)):
            one = np.where(labels == value, brightness, one)
        for angle, share in papillary:
            from_papillary = (
                from_centre[0] - share * inner * np.cos(angle),
                from_centre[1] - share * inner * np.sin(angle),
            )
            one = np.where(np.hypot(*from_papillary) < 0.18 * inner, muscle, one)
        image[number] = one
    return _scanned(rng, image, scanner), label


def _scanned(rng: np.random.Generator, image: np.ndarray, scanner: Scanner) -> np.ndarray:
    """Add texture, blur, a bias field and noise; int16."""
    image = image + 0.04 * smooth_noise(rng, image.shape, width=1 / 24) * (image > 0.1)
    image = gaussian_filter(image, (0.3, 0.8, 0.8))
    image *= np.exp(rng.uniform(*scanner.bias) * smooth_noise(rng, image.shape, width=1 / 4))
    image += rng.normal(0, rng.uniform(*scanner.noise), image.shape)
    return np.round(1000 * image).astype(np.int16)


def _turned(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = np.cos(angle), np.sin(angle)
    return cosine * x + sine * y, -sine * x + cosine * y

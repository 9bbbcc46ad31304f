"""Synthetic short-axis slices of hearts: small, and yet hard, as real ones are.

Source: generated; no licence applies. Labels: 1 right ventricle, 2 myocardium, 3 left ventricle.

Hearts differ in place, turn, size, wall and the shape of the right ventricle. The chest around them
has structures as bright as blood, so that a few labeled scans do not tell what belongs to a heart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from nnunetv2_spmc.dataset_conversion.smooth_noise import smooth_noise

LABELS = {"background": 0, "right_ventricle": 1, "myocardium": 2, "left_ventricle": 3}
RIGHT, MUSCLE, LEFT = 1, 2, 3
SIZE = (64, 64, 8)  # x, y, z; lengths below are in voxels of this size
SPACING_MM = (1.5, 1.5, 8.0)
STRUCTURES = 14  # around the heart
AIR = 0.02


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
    rng: np.random.Generator, size: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Generate one case.

    Args:
        rng: Source of all randomness.
        size: Voxels along x, y, z, from the base of the heart to its apex.

    Returns:
        Image (z, y, x) int16 and label (z, y, x) uint8 with values 0 to 3.
    """
    width, height, slices = size
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    between, scale = rng.uniform, width / SIZE[0]
    centre = width / 2 + 7 * scale * between(-1, 1), height / 2 + 7 * scale * between(-1, 1)
    turn = between(-0.9, 0.9)
    cavity, wall = scale * between(5, 10), scale * between(2, 5)
    # of the right ventricle, in radii of the left one with its wall
    offset, depth, breadth = between(0.7, 1.1), between(0.5, 1.1), between(0.9, 1.5)
    blood = 0.4 + between(0.25, 0.45)
    muscle, right_blood = between(0.18, 0.3), blood * between(0.8, 1.05)
    stretch, stretched_along = between(0.85, 1.15), between(0, np.pi)
    chest = scale * between(26, 31), scale * between(22, 29)
    tissue = between(0.32, 0.5)
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
        labels = label[number]
        labels[right & (distance > outer)] = RIGHT
        labels[(distance <= outer) & (distance > inner)] = MUSCLE
        labels[distance <= inner] = LEFT
        for value, brightness in ((RIGHT, right_blood), (MUSCLE, muscle), (LEFT, blood)):
            one = np.where(labels == value, brightness, one)
        for angle, share in papillary:
            from_papillary = (
                from_centre[0] - share * inner * np.cos(angle),
                from_centre[1] - share * inner * np.sin(angle),
            )
            one = np.where(np.hypot(*from_papillary) < 0.18 * inner, muscle, one)
        image[number] = one
    return _scanned(rng, image), label


def _scanned(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add texture, blur, a bias field and noise; int16."""
    image = image + 0.04 * smooth_noise(rng, image.shape, width=1 / 24) * (image > 0.1)
    image = gaussian_filter(image, (0.3, 0.8, 0.8))
    image *= np.exp(0.35 * smooth_noise(rng, image.shape, width=1 / 4))
    image += rng.normal(0, rng.uniform(0.05, 0.09), image.shape)
    return np.round(1000 * image).astype(np.int16)


def _turned(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = np.cos(angle), np.sin(angle)
    return cosine * x + sine * y, -sine * x + cosine * y

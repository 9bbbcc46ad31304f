"""Compare unlabeled scans with labeled ones: orientation, grid, intensities.

Unlabeled scans help as far as they are like the labeled ones. Differences between sites are no
error, so they become a short table, and a warning where one is large.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_spmc.raw.scan_facts import PERCENTILES, ScanFacts

GRID_FACTOR = 1.5  # between medians of spacing and field of view; a warning beyond it
SLICES_FACTOR = 2.0
LARGE_SHIFT = 0.5  # of normalized intensities, in standard deviations
WINDOW_FACTOR = 3.0  # between shares of voxels within the window of the plans
NO_DEGREE = math.inf  # what is another orientation or unit comes before what is more or less
AIR_HU, NO_AIR_HU = -500.0, -200.0  # the darkest voxels of a CT in HU lie below the first
LOW, MIDDLE, HIGH = (PERCENTILES.index(p) for p in (0.5, 50, 99.5))
P5, P95 = (PERCENTILES.index(p) for p in (5, 95))

Row = tuple[str, str, str]  # property, of labeled scans, of unlabeled ones
Excess = tuple[float, str]  # by which factor a limit is exceeded, and the warning
Window = tuple[float, float]


@dataclass(frozen=True)
class SiteComparison:
    """How unlabeled scans differ from labeled ones.

    Attributes:
        rows: Property, its value in labeled scans, and in unlabeled ones.
        warnings: What may matter, one sentence each.
        largest: That of them about the largest difference.
    """

    rows: tuple[Row, ...] = ()
    warnings: tuple[str, ...] = ()
    largest: str = ""

    def lines(self) -> list[str]:
        """Return the table for the screen; none if there is nothing to compare."""
        if not self.rows:
            return []
        table = [("medians of scans", "labeled", "unlabeled"), *self.rows]
        widths = [max(len(row[column]) for row in table) for column in range(3)]
        return [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]


def compare_sites(
    labeled: Sequence[ScanFacts],
    unlabeled: Sequence[ScanFacts],
    channel_names: Sequence[str],
    windows: Mapping[int, Window] | None = None,
) -> SiteComparison:
    """Compare scans by their facts; those that could not be read, or have more axes, are left out.

    Args:
        labeled: Facts of the labeled scans.
        unlabeled: Facts of the unlabeled scans.
        channel_names: As in dataset.json; "CT" is in HU.
        windows: CT channel -> lowest and highest intensity that the plans keep, where known.
    """
    theirs = [facts for facts in labeled if facts.size]
    ours = [facts for facts in unlabeled if facts.size]
    axes = Counter(len(facts.size) for facts in theirs).most_common(1)
    theirs, ours = (
        [facts for facts in group if len(facts.size) == axes[0][0]] if axes else []
        for group in (theirs, ours)
    )
    if not theirs or not ours:
        return SiteComparison()
    rows: list[Row] = []
    warnings: list[Excess] = []
    _compare_orientations(theirs, ours, rows, warnings)
    if axes[0][0] == 3:
        _compare_grids(theirs, ours, rows, warnings)
    for channel, name in enumerate(channel_names):
        first, second = _curves(theirs, channel), _curves(ours, channel)
        if not len(first) or not len(second):
            continue
        window = (windows or {}).get(channel)
        if name.casefold() == "ct":
            _compare_hounsfield(name, first, second, window, rows, warnings)
        else:
            _compare_normalized(name, first, second, rows, warnings)
    _, largest = max(warnings, key=lambda excess: excess[0], default=(0, ""))
    return SiteComparison(tuple(rows), tuple(text for _, text in warnings), largest)


def _compare_orientations(
    theirs: Sequence[ScanFacts],
    ours: Sequence[ScanFacts],
    rows: list[Row],
    warnings: list[Excess],
) -> None:
    codes = [Counter(f.orientation for f in group if f.orientation) for group in (theirs, ours)]
    if not all(codes):
        return
    known, new = (", ".join(sorted(counted)) for counted in codes)
    rows.append(("orientation", known, new))
    if unknown := sorted(set(codes[1]) - set(codes[0])):
        text = (
            f"unlabeled scans are oriented {', '.join(unknown)}, labeled ones {known}; nnU-Net "
            "does not reorient: bring them to one orientation."
        )
        warnings.append((NO_DEGREE, text))


def _compare_grids(
    theirs: Sequence[ScanFacts],
    ours: Sequence[ScanFacts],
    rows: list[Row],
    warnings: list[Excess],
) -> None:
    spacing = [np.median([f.spacing_mm for f in group], axis=0) for group in (theirs, ours)]
    extent = [
        np.median([np.multiply(f.size, f.spacing_mm) for f in group], axis=0)
        for group in (theirs, ours)
    ]
    slices = [np.median([f.size[2] for f in group]) for group in (theirs, ours)]
    for name, (first, second), factor in (
        ("spacing", spacing, GRID_FACTOR),
        ("field of view", extent, GRID_FACTOR),
    ):
        rows.append((name, _millimetres(first), _millimetres(second)))
        if (times := _factor(first, second)) > factor:
            text = (
                f"the median {name} of unlabeled scans, {_millimetres(second)}, is far from that "
                f"of labeled ones, {_millimetres(first)}."
            )
            warnings.append((times / factor, text))
    rows.append(("slices", f"{slices[0]:g}", f"{slices[1]:g}"))
    if (times := _factor(*slices)) > SLICES_FACTOR:
        text = f"unlabeled scans have {slices[1]:g} slices, labeled ones {slices[0]:g} (medians)."
        warnings.append((times / SLICES_FACTOR, text))


def _compare_hounsfield(
    name: str,
    theirs: np.ndarray,
    ours: np.ndarray,
    window: Window | None,
    rows: list[Row],
    warnings: list[Excess],
) -> None:
    """Compare intensities that mean the same in every scan."""
    first, second = np.median(theirs, axis=0), np.median(ours, axis=0)
    rows.append((f"{name}: median (0.5 to 99.5 %)", _spread(first), _spread(second)))
    if not first[LOW] <= second[MIDDLE] <= first[HIGH]:
        text = (
            f"the median intensity of unlabeled scans, {second[MIDDLE]:.0f}, lies outside of what "
            f"the labeled ones have ({first[LOW]:.0f} to {first[HIGH]:.0f}); are they in HU?"
        )
        warnings.append((NO_DEGREE, text))
    elif (first[LOW] < AIR_HU) != (second[LOW] < AIR_HU) and max(
        first[LOW], second[LOW]
    ) > NO_AIR_HU:
        text = (
            f"the darkest voxels of unlabeled scans have {second[LOW]:.0f}, those of labeled ones "
            f"{first[LOW]:.0f}; are they all in HU?"
        )
        warnings.append((NO_DEGREE, text))
    if window is None:
        return
    shares = [float(np.median([_share(c, window) for c in of])) for of in (theirs, ours)]
    kept = f"{window[0]:.0f} to {window[1]:.0f}"
    rows.append((f"{name}: voxels in {kept}", f"{shares[0]:.0%}", f"{shares[1]:.0%}"))
    if (times := _factor(*(max(share, 0.001) for share in shares))) > WINDOW_FACTOR:
        text = (
            f"{shares[1]:.0%} of the voxels of unlabeled scans lie within {kept}, which the plans "
            f"keep of {name}; of labeled ones {shares[0]:.0%}."
        )
        warnings.append((times / WINDOW_FACTOR, text))


def _compare_normalized(
    name: str, theirs: np.ndarray, ours: np.ndarray, rows: list[Row], warnings: list[Excess]
) -> None:
    """Compare intensities as the network sees them: with mean 0 and standard deviation 1."""
    first, second = (np.median(_normalized(curves), axis=0) for curves in (theirs, ours))
    texts = [f"{c[MIDDLE]:.1f} ({c[P5]:.1f} to {c[P95]:.1f})" for c in (first, second)]
    rows.append((f"{name}, normalized: median (5 to 95 %)", texts[0], texts[1]))
    shift = float(np.abs(first - second).mean())
    if shift > LARGE_SHIFT:
        text = (
            f"after normalization intensities of {name} in unlabeled scans differ from those in "
            f"labeled ones by {shift:.1f} standard deviations on average; is it the same sequence?"
        )
        warnings.append((shift / LARGE_SHIFT, text))


def _curves(scans: Sequence[ScanFacts], channel: int) -> np.ndarray:
    """Return the percentiles of a channel, (scans, PERCENTILES)."""
    curves = [f.intensities[channel] for f in scans if len(f.intensities) > channel]
    return np.array([curve for curve in curves if curve and np.isfinite(curve).all()])


def _normalized(curves: np.ndarray) -> np.ndarray:
    """Return percentiles after a z-score, whose mean and deviation the percentiles tell."""
    middle = curves[:, P5 : P95 + 1]
    spread = middle.std(axis=1, keepdims=True)
    return (curves - middle.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)


def _share(curve: np.ndarray, window: Window) -> float:
    """Return the share of the voxels within a window."""
    below = np.interp(window, curve, PERCENTILES, left=0, right=100)
    return float(below[1] - below[0]) / 100


def _factor(first: np.ndarray | float, second: np.ndarray | float) -> float:
    """Return by which factor two numbers differ, or the numbers of two rows at most."""
    one, other = np.asarray(first, float), np.asarray(second, float)
    return float(np.max(np.maximum(one, other) / np.maximum(np.minimum(one, other), 1e-9)))


def _spread(curve: np.ndarray) -> str:
    return f"{curve[MIDDLE]:.0f} ({curve[LOW]:.0f} to {curve[HIGH]:.0f})"


def _millimetres(lengths: np.ndarray) -> str:
    return " x ".join(f"{value:.3g}" for value in lengths) + " mm"

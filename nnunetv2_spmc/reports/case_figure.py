"""A slice of a case: image, reference, prediction, confidence, common-difficulty voxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from nnunetv2_spmc.reports.case_views import CaseView

LABEL_COLORS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2")
DIFFICULTY_COLOR = "#ff2d95"
CONFIDENCE_MAP = "magma"
PANEL_INCHES = 2.3
# places of the letters in a panel, and how they are aligned there
SIDES = (
    (0.02, 0.5, "left", "center"),
    (0.98, 0.5, "right", "center"),
    (0.5, 0.98, "center", "top"),
    (0.5, 0.02, "center", "bottom"),
)


def draw_case(case: str, views: Sequence[CaseView], class_names: Sequence[str] = ()) -> Figure:
    """Draw the slice with most errors, one row per run, in the radiological convention.

    Args:
        case: identifier, for the title.
        views: the same case of one or several runs.
        class_names: of the label values 1, 2, ...; for the legend.
    """
    index = slice_to_show(views)
    columns = [
        ("image", "image"),
        ("reference", "reference"),
        ("prediction", "prediction"),
        ("confidence", "confidence"),
        ("common_difficulty", "common-difficulty voxels"),
    ]
    shown = [
        (field, title)
        for field, title in columns
        if any(getattr(view, field) is not None for view in views)
    ]
    height, width = extent_mm(views[0])
    figure = Figure(
        figsize=(
            PANEL_INCHES * len(shown) + 0.9,
            min(PANEL_INCHES * height / width, 4.0) * len(views) + 0.9,
        ),
        layout="constrained",
    )
    grid = figure.subplots(len(views), len(shown), squeeze=False)
    heat = None
    for row, view in zip(grid, views, strict=True):
        for axes, (field, title) in zip(row, shown, strict=True):
            heat = _draw_panel(axes, view, field, index) or heat
            axes.set_title(title, fontsize=9)
            axes.set_xticks([])
            axes.set_yticks([])
        dice = "" if np.isnan(view.dice) else f"\nmean Dice {view.dice:.3f}"
        row[0].set_ylabel(f"{view.run_name.replace(', ', chr(10))}{dice}", fontsize=8)
    if heat is not None:
        figure.colorbar(heat, ax=grid[:, -1], label="confidence", shrink=0.8)
    names = dict(enumerate(class_names, start=1))
    patches = [
        Patch(color=LABEL_COLORS[(value - 1) % len(LABEL_COLORS)], label=name)
        for value, name in names.items()
    ]
    if any(view.common_difficulty is not None for view in views):
        patches.append(Patch(color=DIFFICULTY_COLOR, label="common difficulty"))
    if patches:
        figure.legend(
            handles=patches, loc="outside lower center", ncols=6, frameon=False, fontsize=8
        )
    figure.suptitle(slice_title(case, views[0], index), fontsize=10)
    return figure


def slice_to_show(views: Sequence[CaseView]) -> int:
    """Return the slice with most wrong voxels; without a reference that with most foreground."""
    first = views[0]
    if first.reference is None:
        counts = sum((view.prediction > 0).sum(axis=(1, 2)) for view in views)
    else:
        counts = sum((view.prediction != first.reference).sum(axis=(1, 2)) for view in views)
        if not np.any(counts):
            counts = (first.reference > 0).sum(axis=(1, 2))
    return int(np.argmax(counts))


def slice_title(case: str, view: CaseView, index: int) -> str:
    """Return which slice of a case is drawn, counted from 1 in the order of the array."""
    plane = f" ({view.display.plane})" if view.display.plane else ""
    return f"{case}, slice {index + 1} of {len(view.image)}{plane}"


def extent_mm(view: CaseView) -> tuple[float, float]:
    """Return height and width of a drawn slice in mm."""
    return view.display.size_mm(view.image.shape, view.spacing_mm)


def show_image(axes: Any, view: CaseView, index: int) -> None:
    """Draw a slice of the image in grey, between the 1st and the 99th percentile of the case."""
    low, high = np.percentile(view.image, (1, 99))
    axes.imshow(
        view.display.picture(view.image, index),
        cmap="gray",
        vmin=low,
        vmax=max(high, low + 1e-6),
        aspect=_aspect(view),
    )
    _show_sides(axes, view)


def show_labels(axes: Any, view: CaseView, labels: np.ndarray, index: int) -> None:
    """Draw a slice of a segmentation over the image, translucent with an outline."""
    colors = ListedColormap(LABEL_COLORS)
    values = view.display.picture(labels, index).astype(int)
    shown = np.ma.masked_where(values == 0, (values - 1) % len(LABEL_COLORS))
    axes.imshow(
        shown,
        cmap=colors,
        vmin=-0.5,
        vmax=len(LABEL_COLORS) - 0.5,
        alpha=0.45,
        interpolation="nearest",
        aspect=_aspect(view),
    )
    for value in np.unique(values[values > 0]):
        color = LABEL_COLORS[(value - 1) % len(LABEL_COLORS)]
        axes.contour(values == value, levels=[0.5], colors=[color], linewidths=0.9)


def show_confidence(axes: Any, view: CaseView, confidence: np.ndarray, index: int) -> Any:
    """Draw a slice of a confidence from 0.3 (dark) to 1 (bright); return it for a colour bar."""
    _show_sides(axes, view)
    return axes.imshow(
        view.display.picture(confidence, index),
        cmap=CONFIDENCE_MAP,
        vmin=0.3,
        vmax=1,
        aspect=_aspect(view),
    )


def show_mask(axes: Any, view: CaseView, mask: np.ndarray, index: int) -> None:
    """Draw a slice of a mask over the image."""
    axes.imshow(
        np.ma.masked_equal(view.display.picture(mask, index), 0),
        cmap=ListedColormap([DIFFICULTY_COLOR]),
        alpha=0.85,
        interpolation="nearest",
        aspect=_aspect(view),
    )


def _draw_panel(axes: Any, view: CaseView, field: str, index: int) -> Any:
    array = getattr(view, field)
    if array is None:
        height, width = extent_mm(view)
        axes.set_box_aspect(height / width)
        axes.text(0.5, 0.5, "none", ha="center", va="center", color="0.4", transform=axes.transAxes)
        return None
    if field == "confidence":
        return show_confidence(axes, view, array, index)
    show_image(axes, view, index)
    if field == "common_difficulty":
        show_mask(axes, view, array, index)
    elif field != "image":
        show_labels(axes, view, array, index)
    return None


def _show_sides(axes: Any, view: CaseView) -> None:
    """Write R, L, A, P, S or I at the sides of a slice that has an orientation."""
    outline = [withStroke(linewidth=1.5, foreground="black")]
    for letter, (x, y, horizontal, vertical) in zip(view.display.sides, SIDES, strict=False):
        axes.text(
            x,
            y,
            letter,
            ha=horizontal,
            va=vertical,
            color="white",
            fontsize=7,
            path_effects=outline,
            transform=axes.transAxes,
        )


def _aspect(view: CaseView) -> float:
    """Return the height of a drawn voxel over its width."""
    height, width = view.display.size_mm((1, 1, 1), view.spacing_mm)
    return height / width

"""A slice of a case: image, prediction and reference, errors, confidence, common difficulty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, withStroke

from nnunetv2_spmc.common.colors import (
    CLASS_COLORS,
    CONFIDENCE_MAP,
    DIFFICULTY_COLOR,
    ERROR_COLORS,
    class_color,
)
from nnunetv2_spmc.reports.case_views import CaseView

PANEL_INCHES = 2.3
SHARE_OF_LARGEST = 0.3
PANELS = {  # -> what is drawn into it
    "image": "image",
    "labels": "prediction and reference",
    "errors": "errors",
    "confidence": "confidence",
    "common_difficulty": "common-difficulty voxels",
}
# places of the letters in a panel, and how they are aligned there
SIDES = (
    (0.02, 0.5, "left", "center"),
    (0.98, 0.5, "right", "center"),
    (0.5, 0.98, "center", "top"),
    (0.5, 0.02, "center", "bottom"),
)


def draw_case(
    case: str, views: Sequence[CaseView], class_names: Mapping[int, str] | None = None
) -> Figure:
    """Draw the slice of `slice_to_show`, one row per run, in the radiological convention.

    Args:
        case: identifier, for the title.
        views: the same case of one or several runs.
        class_names: label value -> class; for the legend.
    """
    index = slice_to_show(views)
    shown = shown_panels(views)
    height, width = extent_mm(views[0])
    figure = Figure(
        figsize=(
            PANEL_INCHES * len(shown) + 0.9,
            min(PANEL_INCHES * height / width, 4.0) * len(views) + 1.1,
        ),
        layout="constrained",
    )
    grid = figure.subplots(len(views), len(shown), squeeze=False)
    heat = None
    for row, view in zip(grid, views, strict=True):
        for axes, (panel, title) in zip(row, shown.items(), strict=True):
            heat = draw_panel(axes, view, panel, index) or heat
            axes.set_title(title, fontsize=9)
        dice = "" if np.isnan(view.dice) else f"\nmean Dice {view.dice:.3f}"
        row[0].set_ylabel(f"{view.run_name.replace(', ', chr(10))}{dice}", fontsize=8)
    if heat is not None:
        figure.colorbar(heat, ax=grid[:, -1], label="confidence", shrink=0.8)
    handles = [Patch(color=color, label=name) for name, color in legend_of(views, class_names)]
    if views[0].annotated is not None:
        handles += [
            Patch(color="0.6", label="filled: prediction"),
            Patch(facecolor="none", edgecolor="0.3", label="outline: reference"),
        ]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=8
        )
    figure.suptitle(slice_title(case, views[0], index), fontsize=10)
    return figure


def draw_small_panel(view: CaseView, panel: str, index: int) -> Figure:
    """Draw one panel as a picture of its own, without margins."""
    height, width = extent_mm(view)
    size = (PANEL_INCHES, min(max(PANEL_INCHES * height / width, 0.5), 2 * PANEL_INCHES))
    figure = Figure(figsize=size)
    draw_panel(figure.add_axes((0, 0, 1, 1)), view, panel, index)
    return figure


def shown_panels(views: Sequence[CaseView]) -> dict[str, str]:
    """Return the panels that some view has something for, and their titles."""
    first = views[0]
    there = {
        "image": True,
        "labels": True,
        "errors": first.reference is not None,
        "confidence": any(view.confidence is not None for view in views),
        "common_difficulty": any(view.common_difficulty is not None for view in views),
    }
    titles = PANELS if first.reference is not None else PANELS | {"labels": "prediction"}
    return {panel: title for panel, title in titles.items() if there[panel]}


def legend_of(
    views: Sequence[CaseView], class_names: Mapping[int, str] | None
) -> list[tuple[str, str]]:
    """Return what the colours of the panels mean: (name, colour)."""
    found = [(name, class_color(value)) for value, name in (class_names or {}).items()]
    if views[0].errors is not None:
        kinds = list(ERROR_COLORS.items())
        found += kinds if len(class_names or ()) != 1 else kinds[:2]
    if any(view.common_difficulty is not None for view in views):
        found.append(("common difficulty", DIFFICULTY_COLOR))
    return found


def slice_to_show(views: Sequence[CaseView]) -> int:
    """Return the slice with most wrong voxels among those with enough of the reference in them.

    Enough is SHARE_OF_LARGEST of what the slice with most has: a sliver shows no organ. Without any
    reference it is the slice with most foreground in the predictions.
    """
    annotated = views[0].annotated
    if annotated is None:
        return int(np.argmax(sum((view.prediction > 0).sum(axis=(1, 2)) for view in views)))
    foreground = (annotated > 0).sum(axis=(1, 2))
    wrong = sum((view.errors > 0).sum(axis=(1, 2)) for view in views if view.errors is not None)
    if not np.any(foreground):
        return int(np.argmax(wrong))
    inside = np.where(foreground >= SHARE_OF_LARGEST * foreground.max(), wrong, -1)
    return int(np.argmax(inside if inside.max() > 0 else foreground))


def slice_title(case: str, view: CaseView, index: int) -> str:
    """Return which slice of a case is drawn, counted from 1 in the order of the array."""
    plane = f" ({view.display.plane})" if view.display.plane else ""
    return f"{case}, slice {index + 1} of {len(view.image)}{plane}"


def extent_mm(view: CaseView) -> tuple[float, float]:
    """Return height and width of a drawn slice in mm."""
    return view.display.size_mm(view.image.shape, view.spacing_mm)


def draw_panel(axes: Any, view: CaseView, panel: str, index: int) -> Any:
    """Draw one of `PANELS`; return the confidence, for a colour bar."""
    axes.set_xticks([])
    axes.set_yticks([])
    confidence, difficult = view.confidence, view.common_difficulty
    if panel == "confidence" and confidence is not None:
        return show_confidence(axes, view, confidence, index)
    if panel == "confidence" or (panel == "common_difficulty" and difficult is None):
        height, width = extent_mm(view)
        axes.set_box_aspect(height / width)
        axes.text(0.5, 0.5, "none", ha="center", va="center", color="0.4", transform=axes.transAxes)
        return None
    show_image(axes, view, index)
    if panel == "common_difficulty" and difficult is not None:
        show_mask(axes, view, difficult, index)
    if panel == "labels":
        show_labels(axes, view, view.prediction, index)
    if panel == "errors":
        _show_errors(axes, view, index)
    if panel in ("labels", "errors") and view.annotated is not None:
        # errors have colours of their own
        color = "white" if panel == "errors" else None
        show_outline(axes, view, view.annotated, index, color=color)
    return None


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
    """Draw a slice of a segmentation over the image, filled and translucent."""
    values = view.display.picture(labels, index).astype(int)
    _overlay(axes, view, values, CLASS_COLORS, alpha=0.5)


def show_outline(
    axes: Any, view: CaseView, labels: np.ndarray, index: int, *, color: str | None = None
) -> None:
    """Draw the outlines of a slice of a segmentation, in the colours of the classes by default."""
    values = view.display.picture(labels, index).astype(int)
    halo = [withStroke(linewidth=2.2, foreground="black"), Normal()]
    for value in np.unique(values[values > 0]):
        colors = [color or class_color(int(value))]
        outline = axes.contour(values == value, levels=[0.5], colors=colors, linewidths=1.2)
        outline.set_path_effects(halo)


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
    values = view.display.picture(mask, index).astype(int)
    _overlay(axes, view, values, [DIFFICULTY_COLOR], alpha=0.85)


def _show_errors(axes: Any, view: CaseView, index: int) -> None:
    if view.errors is not None:
        values = view.display.picture(view.errors, index).astype(int)
        _overlay(axes, view, values, list(ERROR_COLORS.values()), alpha=0.75)


def _overlay(
    axes: Any, view: CaseView, values: np.ndarray, colors: Sequence[str], *, alpha: float
) -> None:
    """Draw values from 1 in these colours, which repeat; 0 is left out."""
    axes.imshow(
        np.ma.masked_where(values == 0, (values - 1) % len(colors)),
        cmap=ListedColormap(colors),
        vmin=-0.5,
        vmax=len(colors) - 0.5,
        alpha=alpha,
        interpolation="nearest",
        aspect=_aspect(view),
    )


def _show_sides(axes: Any, view: CaseView) -> None:
    """Write R, L, A, P, S or I at the sides of a slice that has an orientation."""
    outline = [withStroke(linewidth=1.2, foreground="black")]
    for letter, (x, y, horizontal, vertical) in zip(view.display.sides, SIDES, strict=False):
        axes.text(
            x,
            y,
            letter,
            ha=horizontal,
            va=vertical,
            color="white",
            fontsize=9,
            fontweight="bold",
            path_effects=outline,
            transform=axes.transAxes,
        )


def _aspect(view: CaseView) -> float:
    """Return the height of a drawn voxel over its width."""
    height, width = view.display.size_mm((1, 1, 1), view.spacing_mm)
    return height / width

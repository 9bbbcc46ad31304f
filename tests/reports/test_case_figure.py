"""What the panels of a case show: prediction, reference, errors; and of which slice."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex

from nnunetv2_spmc.common.colors import DIFFICULTY_COLOR, ERROR_COLORS, class_color
from nnunetv2_spmc.reports.case_figure import (
    draw_case,
    draw_small_panel,
    legend_of,
    shown_panels,
    slice_to_show,
)
from tests.reports.oriented_scans import view_of, write_scan

CLASSES = {1: "liver", 2: "tumor"}


@pytest.fixture
def view(tmp_path):
    """A scan with a block of class 1, of which the prediction is empty."""
    view = view_of(write_scan(tmp_path, "LPS"))
    return replace(view, prediction=np.zeros_like(view.prediction))


def labels(view, **voxels):
    """The view with reference and prediction in the first voxels of the first row."""
    arrays = {}
    for name, values in voxels.items():
        arrays[name] = np.zeros_like(view.reference)
        arrays[name][0, 0, : len(values)] = values
    return replace(view, **arrays)


def test_errors_are_missed_added_or_of_another_class(view):
    shown = labels(view, reference=[1, 1, 0, 1, 2, 0], prediction=[1, 0, 2, 2, 2, 0])
    kinds = ["right", *ERROR_COLORS]
    assert [kinds[value] for value in shown.errors[0, 0, :6]] == [
        "right",
        "missed",
        "added",
        "wrong class",
        "right",
        "right",
    ]
    assert not shown.errors[1:].any()


def test_ignored_voxels_are_no_errors_and_have_no_outline(view):
    shown = replace(labels(view, reference=[3, 1], prediction=[1, 0]), ignore_label=3)
    assert shown.errors[0, 0, :2].tolist() == [0, 1]
    assert shown.annotated[0, 0, :2].tolist() == [0, 1]


def test_the_slice_has_a_reference_in_it(view):
    annotated = np.flatnonzero(view.reference.any(axis=(1, 2)))
    far = 0 if annotated[0] > 0 else len(view.reference) - 1
    prediction = np.zeros_like(view.prediction)
    prediction[far] = 1  # more wrong voxels than anywhere else
    assert slice_to_show([replace(view, prediction=prediction)]) in annotated
    without = replace(view, reference=np.zeros_like(view.reference), prediction=prediction)
    assert slice_to_show([without]) == far
    assert slice_to_show([replace(without, reference=None)]) == far


def test_of_annotated_slices_it_is_that_with_most_errors(view):
    annotated = np.flatnonzero(view.reference.any(axis=(1, 2)))
    for chosen in annotated:
        prediction = view.reference.copy()
        prediction[chosen] = 0
        assert slice_to_show([replace(view, prediction=prediction)]) == chosen
    assert slice_to_show([replace(view, prediction=view.reference)]) in annotated


def test_a_slice_with_a_sliver_of_the_reference_is_not_shown(view):
    reference, prediction = np.zeros_like(view.reference), np.zeros_like(view.prediction)
    reference[0, 0, :1], reference[1, 0, :10] = 1, 1
    prediction[0] = 1  # everything is wrong here
    assert slice_to_show([replace(view, reference=reference, prediction=prediction)]) == 1


def outline_colors(axes):
    return {to_hex(color) for drawn in axes.collections for color in drawn.get_edgecolor()}


def filled_colors(axes):
    """The colours of an overlay, without the grey image below."""
    overlay = axes.images[-1]
    values = overlay.get_array().compressed()
    return {to_hex(color) for color in overlay.cmap(overlay.norm(values))}


def test_the_reference_is_an_outline_and_the_prediction_filled(view):
    shown = replace(view, prediction=2 * view.reference)
    (axes,) = draw_small_panel(shown, "labels", slice_to_show([shown])).axes
    assert outline_colors(axes) == {class_color(1)}
    assert filled_colors(axes) == {class_color(2)}


def test_errors_are_drawn_in_their_own_colours_with_a_white_outline(view):
    (axes,) = draw_small_panel(view, "errors", slice_to_show([view])).axes
    assert filled_colors(axes) == {ERROR_COLORS["missed"]}
    assert outline_colors(axes) == {"#ffffff"}


def test_the_legend_names_classes_errors_and_common_difficulty(view):
    assert legend_of([view], CLASSES) == [
        ("liver", class_color(1)),
        ("tumor", class_color(2)),
        *ERROR_COLORS.items(),
        ("common difficulty", DIFFICULTY_COLOR),
    ]
    (legend,) = draw_case("case", [view], CLASSES).legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *(name for name, _ in legend_of([view], CLASSES)),
        "filled: prediction",
        "outline: reference",
    ]


def test_with_one_class_no_voxel_can_be_of_another(view):
    names = [name for name, _ in legend_of([view], {1: "liver"})]
    assert names == ["liver", "missed", "added", "common difficulty"]


def test_without_a_reference_there_are_no_errors(view):
    alone = replace(view, reference=None, common_difficulty=None)
    assert shown_panels([alone]) == {
        "image": "image",
        "labels": "prediction",
        "confidence": "confidence",
    }
    assert legend_of([alone], {1: "liver"}) == [("liver", class_color(1))]

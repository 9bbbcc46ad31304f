"""Joined lines and forests in place of boxes of a few points."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from nnunetv2_spmc.common.colors import method_color
from nnunetv2_spmc.evaluation.comparison import MEAN, difference_of
from nnunetv2_spmc.evaluation.pairs import pair
from nnunetv2_spmc.evaluation.patients import UNKNOWN
from nnunetv2_spmc.reports.metric_plots import draw_forest, draw_joined_lines

VALUES = {
    "Control": pd.Series({"a": 0.4, "b": 0.6, "c": np.nan}),
    "SPMC": pd.Series({"b": 0.7, "a": 0.6, "c": 0.5}),
}


def lines_of(axes):
    return [line.get_xydata().tolist() for line in axes.lines if line.get_linestyle() == "-"]


def test_the_values_of_a_patient_are_joined():
    (axes,) = draw_joined_lines(VALUES, "dice", "organ").axes
    lines = lines_of(axes)
    assert [[0, 0.4], [1, 0.6]] in lines
    assert [[0, 0.6], [1, 0.7]] in lines
    assert axes.get_title() == "organ"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["Control", "SPMC"]


def test_the_means_are_thick_lines_in_the_colours_of_the_methods():
    (axes,) = draw_joined_lines(VALUES, "dice", "organ").axes
    thick = [line for line in axes.lines if line.get_linewidth() > 3]
    assert [line.get_ydata()[0] for line in thick] == pytest.approx([0.5, 0.6])
    assert [to_hex(line.get_color()) for line in thick] == [method_color(0), method_color(1)]


def test_a_single_method_has_dots_and_no_joined_lines():
    (axes,) = draw_joined_lines({"SPMC": VALUES["SPMC"]}, "dice", "organ").axes
    assert len(lines_of(axes)) == 1  # the mean
    (dots,) = (line for line in axes.lines if line.get_marker() == ".")
    assert sorted(dots.get_ydata()) == [0.5, 0.6, 0.7]


def differences(shift, number=8, method="SPMC"):
    values = shift + np.linspace(-0.01, 0.01, number)
    ours, theirs = (
        {("", f"case{i}"): {"organ": value} for i, value in enumerate(of_method)}
        for of_method in (values, np.zeros(number))
    )
    pairs = pair(ours, theirs, UNKNOWN)
    return {
        label: difference_of(method, "Control", label, "dice", pairs, UNKNOWN)
        for label in ("organ", MEAN)
    }


def test_the_forest_has_a_row_per_class_with_its_interval():
    found = differences(0.1)
    figure = draw_forest([found])
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["organ", "mean"]
    assert figure.get_suptitle() == "SPMC minus Control"
    intervals = [line for line in lines_of(axes) if line[0][1] == line[1][1]]
    assert [[found["organ"].low, 0], [found["organ"].high, 0]] in intervals
    assert [[found[MEAN].low, 1], [found[MEAN].high, 1]] in intervals


def test_without_an_interval_the_forest_has_the_difference_alone():
    (axes,) = draw_forest([differences(0.1, number=3)]).axes
    assert not [line for line in lines_of(axes) if line[0][1] == line[1][1]]
    assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() in "Do"] == (
        pytest.approx([0.1, 0.1])
    )


def test_each_of_several_comparisons_has_a_heading_above_its_rows():
    (axes,) = draw_forest([differences(0.1), differences(0.05, method="Other")]).axes
    headings = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert headings == {"SPMC minus Control": 0, "Other minus Control": 3}
    assert [text.get_text() for text in axes.get_yticklabels()] == ["organ", "mean"] * 2
    assert axes.get_yticks().tolist() == [1, 2, 4, 5]
    colors = {
        line.get_ydata()[0]: to_hex(line.get_color())
        for line in axes.lines
        if line.get_marker() in "Do"
    }
    assert colors[1] == method_color(1)
    assert colors[4] == method_color(2)

"""The colours of every picture: methods, classes, errors, doubt.

Okabe and Ito's colours, which most people with colour vision deficiency can tell apart, for methods
and classes; errors and common-difficulty voxels have colours of their own, over grey.
"""

from __future__ import annotations

METHOD_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
CLASS_COLORS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2")
ERROR_COLORS = {"missed": "#ff2d2d", "added": "#3f7dff", "wrong class": "#ffe100"}
DIFFICULTY_COLOR = "#ff2d95"
CONFIDENCE_MAP = "magma"  # dark: low


def method_color(number: int) -> str:
    """Return the colour of the method, or run, with this number, from 0."""
    return METHOD_COLORS[number % len(METHOD_COLORS)]


def class_color(value: int) -> str:
    """Return the colour of a label value, from 1."""
    return CLASS_COLORS[(value - 1) % len(CLASS_COLORS)]

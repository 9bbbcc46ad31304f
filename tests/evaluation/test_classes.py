from __future__ import annotations

from pathlib import Path

import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.evaluation.classes import read_classes

FILE = Path("dataset.json")


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        ({"background": 0, "RV": 1, "MYO": 2, "LV": 3}, None),
        ({"background": 0, "organ": 1, "ignore": 2}, None),
        ({"background": 0, "organ": [1], "vessel": [2]}, None),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}, [1, 2, 3]),
        ({"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, [1, 2]),
    ],
)
def test_classes_are_those_of_nnunet_s_label_manager(labels, order) -> None:
    manager = LabelManager(labels, order)
    expected = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    classes = read_classes({"labels": labels}, FILE)
    assert list(classes.values.values()) == [
        value if isinstance(value, tuple) else (value,) for value in expected
    ]
    assert classes.ignore == manager.ignore_label
    assert classes.allowed == set(manager.all_labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no 'labels'"),
        ({"labels": {"background": 0}}, "no class besides the background"),
        ({"labels": {"organ": 1}}, "need 'background': 0"),
        ({"labels": {"0": "background", "1": "organ"}}, "label '0' must be a whole number"),
        ({"labels": {"background": 0, "all": [0, 1]}}, "region 'all' holds the background"),
        ({"labels": {"background": 0, "a": 1, "ignore": [2, 3]}}, "'ignore' must be a single"),
    ],
)
def test_labels_that_cannot_be_evaluated_are_refused(content, message) -> None:
    with pytest.raises(DataError, match=message):
        read_classes(content, FILE)

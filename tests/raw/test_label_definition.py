from __future__ import annotations

import numpy as np
import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunetv2_spmc.raw.cases import ConversionError, check_labels
from nnunetv2_spmc.raw.label_definition import contradictions

BRATS = {"background": 0, "whole": (1, 2, 3), "core": (2, 3), "enhancing": 3}


def comes_back(labels, order) -> bool:
    """Whether a perfect network gives all labels back, as nnU-Net writes its regions."""
    values = {0} | {v for value in labels.values() for v in np.atleast_1d(value)}
    regions = [np.atleast_1d(v) for name, v in labels.items() if name not in ("background",)]
    perfect = np.array([[float(v in region) for v in sorted(values)] for region in regions])
    written = LabelManager(dict(labels), list(order)).convert_probabilities_to_segmentation(perfect)
    return written.tolist() == sorted(values)


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        ({"background": 0, "core": 2, "whole": (1, 2)}, (2, 1)),
        ({"background": 0, "whole": (1, 2), "core": 2}, (2, 1)),
        ({"background": 0, "whole": (1, 2), "core": 2}, (1, 7)),
        ({"background": 0, "core": 2, "whole": (1, 2)}, (1, 2)),
        ({"background": 0, "core": 2, "edge": 1, "whole": (1, 2)}, (2, 1, 1)),
        (BRATS, (1, 3, 2)),
        ({"background": 0, "everything": (0, 1), "core": 1}, (1, 1)),
    ],
)
def test_regions_from_which_the_labels_cannot_come_back_are_refused(labels, order) -> None:
    assert not comes_back(labels, order)
    with pytest.raises(ConversionError, match=r"cannot be written as .*: label \d comes back as"):
        check_labels(labels, order)


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (BRATS, (1, 2, 3)),
        ({"background": 0, "a": 1, "b": (2, 3), "c": 3}, (1, 2, 3)),
        ({"background": 0, "whole": (1, 2), "core": 2, "edge": 1}, (2, 2, 1)),
    ],
)
def test_regions_from_which_the_labels_come_back_are_accepted(labels, order) -> None:
    assert comes_back(labels, order)
    check_labels(labels, order)


def test_a_region_order_with_a_value_of_no_label_is_refused_though_it_is_written_over() -> None:
    labels = {"background": 0, "whole": (1, 2), "edge": 1, "core": 2}
    with pytest.raises(ConversionError, match="7 is the value of no label"):
        check_labels(labels, (7, 1, 2))


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "a": 1, "b": 1},
        {"background": 0, "a": 1, "b": (1,)},
        {"background": 0, "a": 0, "b": 1},
        {"background": 0, "a": 1, "b": 2, "ignore": 2},
        {"background": 0, "a": (1, 2), "b": (2, 1)},
    ],
)
def test_two_names_of_one_value_are_refused(labels) -> None:
    with pytest.raises(ConversionError, match="are two names of the label value"):
        check_labels(labels, ())


@pytest.mark.parametrize("name", ["Ignore", "IGNORE", " ignore", "Background", "BackGround "])
def test_names_that_nnunet_knows_in_other_capitals_only_are_refused(name) -> None:
    with pytest.raises(ConversionError, match=f"{name} would be a class"):
        check_labels({"background": 0, "liver": 1, name: 2}, ())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, " ": 1}, "no name"),
        ({"background": 0, "liver": -1}, r"liver needs integers from 0, got -1"),
        ({"background": 0, "liver": 1.5}, r"liver needs integers from 0, got 1\.5"),
        ({"background": 0, "liver": True}, r"liver needs integers from 0, got True"),
        ({"background": 0, "liver": 10**30}, "consecutive"),
        ({"background": 0, "liver": ()}, "one or more different values"),
        ({"background": 0, "liver": (1, 1)}, "one or more different values"),
        ({"background": 0, "whole": (1, 2), "ignore": 2}, "value of the ignore label"),
        ({"background": 0, "ignore": 1}, "at least one class"),
    ],
)
def test_values_and_names_that_are_none_are_refused(labels, message) -> None:
    with pytest.raises(ConversionError, match=message):
        check_labels(labels, ())


@pytest.mark.parametrize("labels", [{"background": "x"}, {"background": None}, {"a": [None]}])
def test_what_nnunet_refuses_itself_is_no_contradiction(labels) -> None:
    assert contradictions(labels, ()) == []

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2_spmc.dataset_conversion.published_split import PublishedSplit
from nnunetv2_spmc.raw.cases import ConversionError

SPLIT = PublishedSplit(["a", "b", "c"], ["t"], ["v"], unit="patient")


def test_the_first_of_the_list_are_labeled() -> None:
    roles, notes = SPLIT.roles(2, set("abctv"))
    assert roles == {
        "a": "labeled",
        "b": "labeled",
        "c": "unlabeled",
        "v": "validation",
        "t": "test",
    }
    assert notes == ()


def test_a_missing_labeled_one_is_named_and_not_replaced() -> None:
    roles, notes = SPLIT.roles(2, set("bct"))
    assert roles == {"b": "labeled", "c": "unlabeled", "t": "test"}
    assert "first 2 patients" in notes[0]
    assert notes[0].endswith("1 missing and not replaced: a")


def test_without_any_labeled_one_it_says_which_are_missing() -> None:
    with pytest.raises(ConversionError, match=r"None of the first 2 patients .*: a, b; get one"):
        SPLIT.roles(2, set("ctv"))


@pytest.mark.parametrize("labeled", [0, 3])
def test_labeled_and_unlabeled_ones_are_both_needed(labeled) -> None:
    with pytest.raises(ConversionError, match=f"between 1 and 2 patients, got {labeled}"):
        SPLIT.check_labeled(labeled)


def test_missing_ones_are_counted_and_named() -> None:
    SPLIT.check_missing(["a", "b"], Path("here"), allow_missing=True)
    with pytest.raises(ConversionError, match=r"2 of the 5 patients .* here: a, b; .*--allow_mis"):
        SPLIT.check_missing(["a", "b"], Path("here"), allow_missing=False)


def test_many_missing_ones_are_a_count_and_three_names() -> None:
    split = PublishedSplit([f"p{i}" for i in range(9)], ["t"], ["v"], unit="patient")
    with pytest.raises(ConversionError, match=r": p0, p1, p2 and 5 more; get them"):
        split.check_missing([f"p{i}" for i in range(8)], Path("here"), allow_missing=False)
    _, notes = split.roles(7, {"p0", "p8"})
    assert notes[0].endswith("6 missing and not replaced: p1, p2, p3 and 3 more")
    with pytest.raises(ConversionError, match=r"is on disk: p0, p1, p2 and 4 more; get one"):
        split.roles(7, {"p8"})

"""The one paired comparison: by patient, seeds first, with its interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap, norm, t

from nnunetv2_spmc.evaluation.pairs import (
    MIN_PATIENTS,
    bootstrap_interval,
    by_patient,
    interval_of,
    over_seeds,
    pair,
)
from nnunetv2_spmc.evaluation.patients import UNKNOWN, Patients

TWO_EACH = Patients({f"case{i}": f"p{i // 2}" for i in range(20)}, are_known=True)


def values(numbers, label="organ"):
    """One class, one case per value."""
    return {("", f"case{i}"): {label: value} for i, value in enumerate(numbers)}


def test_a_patient_counts_once_with_the_mean_of_the_cases():
    pairs = pair(values([0.6, 0.8, 0.5]), values([0.5] * 3), TWO_EACH)
    assert pairs.patients == ("p0", "p1")
    assert pairs.ours == pytest.approx((0.7, 0.5))
    assert pairs.mean == pytest.approx(0.1)


def test_without_known_patients_each_case_counts():
    pairs = pair(values([0.6, 0.8]), values([0.5] * 2), UNKNOWN)
    assert pairs.patients == ("case0", "case1")


def test_classes_come_before_cases():
    ours = {("", "case0"): {"a": 0.2, "b": 0.4}, ("", "case1"): {"a": 0.9}}
    assert by_patient(ours, TWO_EACH) == {"p0": pytest.approx(0.6)}


def test_seeds_are_averaged_first_over_those_that_have_a_case():
    found = over_seeds([values([0.2, 0.4]), values([0.6])])
    assert found == {
        ("", "case0"): {"organ": pytest.approx(0.4)},
        ("", "case1"): {"organ": pytest.approx(0.4)},
    }


def test_what_is_undefined_in_one_seed_is_undefined():
    found = over_seeds([values([0.2]), values([math.nan])])
    assert math.isnan(found["", "case0"]["organ"])


def test_only_what_both_have_counts_and_the_rest_is_counted():
    ours = {("", "case0"): {"a": 0.8, "b": math.nan}, ("", "case1"): {"a": math.nan}}
    theirs = {("", "case0"): {"a": 0.5, "b": 0.0}, ("", "case1"): {"a": 0.5}}
    pairs = pair(ours, theirs | {("", "case9"): {"a": 0.9}}, UNKNOWN)
    assert pairs.places == (("", "case0"),)
    assert pairs.mean == pytest.approx(0.3)
    assert (pairs.left_out, pairs.one_sided) == (1, 2)


def test_a_class_can_be_compared_alone():
    ours = {("", "case0"): {"a": 0.8, "b": 0.1}}
    theirs = {("", "case0"): {"a": 0.5, "b": 0.0}}
    assert pair(ours, theirs, UNKNOWN, ["b"]).mean == pytest.approx(0.1)


def test_cases_of_other_folds_are_other_cases():
    ours = {("0", "case0"): {"a": 0.8}}
    assert len(pair(ours, {("1", "case0"): {"a": 0.5}}, UNKNOWN)) == 0


def test_too_few_patients_decide_nothing():
    gains = [0.6] * MIN_PATIENTS
    assert pair(values(gains), values([0.5] * 6), UNKNOWN).interval == pytest.approx((0.1, 0.1))
    few = pair(values(gains[1:]), values([0.5] * 5), UNKNOWN)
    assert not few.decides
    assert np.isnan(few.interval).all()


def test_patients_with_higher_and_lower_values_are_counted():
    pairs = pair(values([0.6, 0.5, 0.1 + 0.2, 0.4]), values([0.5, 0.5, 0.3, 0.5]), UNKNOWN)
    assert (pairs.higher, pairs.lower) == (1, 1)  # rounding in the last digit is no difference


def test_the_order_of_the_cases_changes_nothing():
    generator = np.random.default_rng(0)
    ours, theirs = (values(generator.uniform(0, 1, 20)) for _ in range(2))
    turned = dict(reversed(ours.items()))
    assert pair(turned, theirs, TWO_EACH).interval == pair(ours, theirs, TWO_EACH).interval


def test_the_interval_is_that_of_an_expanded_percentile_bootstrap():
    numbers = np.random.default_rng(0).normal(0.02, 0.05, 40)
    level = 1 - 2 * norm.cdf(-np.sqrt(40 / 39) * t.ppf(0.975, 39))
    assert level == pytest.approx(0.9595, abs=1e-4)
    theirs = bootstrap(
        (numbers,), np.mean, method="percentile", n_resamples=10_000, confidence_level=level
    )
    assert bootstrap_interval(numbers) == pytest.approx(theirs.confidence_interval, abs=2e-3)
    assert bootstrap_interval(numbers) == bootstrap_interval(numbers)


@pytest.mark.parametrize("number", [6, 10, 40])
def test_the_interval_of_few_patients_covers_the_truth_as_often_as_it_says(number):
    generator = np.random.default_rng(0)
    ends = [bootstrap_interval(generator.normal(0, 1, number)) for _ in range(400)]
    covered = np.mean([low < 0 < high for low, high in ends])
    assert covered == pytest.approx(0.95, abs=0.03)  # a plain percentile interval of 6: 0.87


def test_an_interval_of_thousands_of_patients_is_drawn_in_parts():
    numbers = np.random.default_rng(0).normal(0, 1, 3000)
    drawn = np.random.default_rng(0).integers(0, 3000, (10_000, 3000), dtype=np.int64)
    tail = 100 * norm.cdf(-np.sqrt(3000 / 2999) * t.ppf(0.975, 2999))
    expected = np.percentile(numbers[drawn].mean(axis=1), [tail, 100 - tail])
    assert bootstrap_interval(numbers) == pytest.approx(expected)


def test_other_statistics_have_an_interval_too():
    numbers = np.array([1.0, 2.0, 4.0])
    assert interval_of(lambda drawn: numbers[drawn].mean(axis=1) * 2, 3) == pytest.approx(
        np.multiply(bootstrap_interval(numbers), 2)
    )

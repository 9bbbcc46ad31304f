from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nnunetv2_spmc.raw.cases import ConversionError, RawCase, check_groups
from nnunetv2_spmc.raw.splits import (
    ListedCases,
    assign_roles,
    draw,
    final_splits,
)

PATIENTS = st.dictionaries(
    st.integers(0, 99).map("case{:02d}".format),
    st.integers(0, 20).map("patient{:02d}".format),
    min_size=12,
)


def singles(number: int) -> dict[str, str]:
    return {f"case{i:02d}": f"case{i:02d}" for i in range(number)}


def labeled_cases(patients: dict[str, str]) -> list[RawCase]:
    return [RawCase(name, (), "labeled", group=patient) for name, patient in patients.items()]


@given(PATIENTS, st.integers(1, 12), st.integers(0, 5))
def test_a_draw_takes_whole_patients_and_never_more_than_asked(patients, number, seed) -> None:
    drawn = draw(patients, number, np.random.default_rng(seed))
    taken = {patients[name] for name in drawn}
    assert len(drawn) <= number
    assert set(drawn) == {name for name, patient in patients.items() if patient in taken}


@given(PATIENTS, st.data())
def test_no_patient_is_on_two_sides_of_the_split(patients, data) -> None:
    with_label = data.draw(st.sets(st.sampled_from(sorted(patients)), min_size=1))
    fraction = st.one_of(st.none(), st.floats(0.05, 0.5))
    try:
        assignment = assign_roles(
            patients,
            with_label,
            test=data.draw(fraction),
            validation=data.draw(fraction),
            labeled=data.draw(fraction),
            seed=data.draw(st.integers(0, 9)),
        )
    except ConversionError:  # too few cases left for a fraction
        assume(False)
    cases = [RawCase(n, (), r, group=patients[n]) for n, r in assignment.roles.items()]
    check_groups(cases)
    assert set(assignment.roles) | set(assignment.left_out) == set(patients)
    assert all(n in with_label for n, r in assignment.roles.items() if r != "unlabeled")


def test_a_draw_of_single_cases_gives_exactly_the_number() -> None:
    assert len(draw(singles(20), 7, np.random.default_rng(0))) == 7


def test_the_draw_depends_on_the_seed_alone() -> None:
    patients = singles(20)
    backwards = dict(reversed(patients.items()))
    first = assign_roles(patients, set(patients), test=0.2, labeled=5, seed=3)
    again = assign_roles(backwards, list(backwards), test=0.2, labeled=5, seed=3)
    other = assign_roles(patients, set(patients), test=0.2, labeled=5, seed=4)
    assert first.roles == again.roles
    assert first.roles != other.roles


def test_fractions_are_taken_of_what_remains() -> None:
    roles = assign_roles(
        singles(100), set(singles(100)), test=0.2, validation=0.1, labeled=0.25
    ).roles
    count = {role: list(roles.values()).count(role) for role in set(roles.values())}
    assert count == {"test": 20, "validation": 8, "labeled": 18, "unlabeled": 54}


def test_a_number_that_would_split_a_patient_is_lowered_with_a_note() -> None:
    patients = {f"case{i}": f"patient{i // 2}" for i in range(8)}
    assignment = assign_roles(patients, set(patients), labeled=3)
    assert list(assignment.roles.values()).count("labeled") == 2
    assert "--labeled 3: 2 drawn" in assignment.notes[0]


def test_numbers_of_test_and_validation_cases_count_patients() -> None:
    patients = {f"case{i:02d}": f"patient{i // 3}" for i in range(24)}
    roles = assign_roles(patients, set(patients), test=2, validation=1, labeled=6).roles
    count = {role: list(roles.values()).count(role) for role in set(roles.values())}
    assert count == {"test": 6, "validation": 3, "labeled": 6, "unlabeled": 9}
    with pytest.raises(ConversionError, match="--test 9 asks for more than the 8 patients with"):
        assign_roles(patients, set(patients), test=9)


def test_test_patients_are_drawn_from_those_with_a_label() -> None:
    patients = {f"case{i}": f"patient{i // 2}" for i in range(8)}
    assignment = assign_roles(patients, {"case0", "case2", "case3"}, test=1)
    chosen = {name for name, role in assignment.roles.items() if role == "test"}
    assert chosen in ({"case0"}, {"case2", "case3"})


def test_a_listed_test_case_may_lack_a_label() -> None:
    roles = assign_roles(singles(4), {"case00", "case01"}, test=("case03",)).roles
    assert roles == {
        "case00": "labeled",
        "case01": "labeled",
        "case02": "unlabeled",
        "case03": "test",
    }


def test_unlabeled_cases_of_a_test_patient_are_left_out() -> None:
    patients = {"a1": "a", "a2": "a", "b1": "b", "c1": "c"}
    assignment = assign_roles(patients, {"a1", "b1"}, test=("a1",))
    assert assignment.left_out == {"a2": "no label, and patient a is a test patient"}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"test": ("nobody",)}, "--test names 1 case not among the images: nobody"),
        ({"test": ("case00",), "labeled": ("case00",)}, "named by both --test and --labeled"),
        ({"labeled": 5}, "--labeled 5 asks for more than the 4 labeled cases"),
    ],
)
def test_impossible_requests_are_refused(choice, message) -> None:
    with pytest.raises(ConversionError, match=message):
        assign_roles(singles(4), set(singles(4)), **choice)


def test_half_a_patient_on_the_test_list_is_refused() -> None:
    patients = {"a1": "a", "a2": "a", "b1": "b"}
    with pytest.raises(ConversionError, match="a2 belongs to patient a"):
        assign_roles(patients, set(patients), test=("a1",))


def test_nnunet_makes_its_own_folds_from_five_single_cases_on() -> None:
    assert final_splits(labeled_cases(singles(5))) is None


@pytest.mark.parametrize("number", [2, 3, 4])
def test_few_cases_are_validated_by_leaving_one_out(number) -> None:
    folds = final_splits(labeled_cases(singles(number)))
    assert folds is not None
    assert sorted(fold["val"] for fold in folds) == [[name] for name in singles(number)]
    assert all(sorted(fold["train"] + fold["val"]) == list(singles(number)) for fold in folds)


def test_a_single_case_is_training_and_validation() -> None:
    assert final_splits(labeled_cases(singles(1))) == [{"train": ["case00"], "val": ["case00"]}]


def test_folds_keep_patients_together() -> None:
    patients = {f"case{i}": f"patient{i // 2}" for i in range(14)}
    folds = final_splits(labeled_cases(patients))
    assert folds is not None
    assert len(folds) == 5
    assert sorted(name for fold in folds for name in fold["val"]) == sorted(patients)
    for fold in folds:
        assert {patients[n] for n in fold["val"]}.isdisjoint(patients[n] for n in fold["train"])


def test_validation_cases_make_the_one_fold() -> None:
    cases = [*labeled_cases(singles(2)), RawCase("v", (), "validation"), RawCase("t", (), "test")]
    assert final_splits(cases) == [{"train": ["case00", "case01"], "val": ["v"]}]


def test_listed_cases_come_whole_out_of_another_process():
    cases = ListedCases({"b": 1, "a": 3}, "test.txt")
    copy = pickle.loads(pickle.dumps(cases))
    assert (type(copy), copy) == (ListedCases, ("b", "a"))
    assert copy.where(["a"]) == cases.where(["a"]) == "line 3 of test.txt"

import math
from types import SimpleNamespace

import numpy as np
import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.inference.case_maps import CaseMaps
from nnunetv2_spmc.inference.ranking import (
    NOTHING_FOUND,
    RankedCase,
    diverse_order,
    measure_case,
    merge_patients,
    order_by_score,
    with_scores,
)
from nnunetv2_spmc.inference.unlabeled_ranking import check_score


def maps(main, auxiliary=None, difficulty=None, entropy=None):
    shape = (1, 2, 4)
    arrays = [None if a is None else np.reshape(a, shape) for a in (main, auxiliary, difficulty)]
    entropy = np.zeros(shape) if entropy is None else np.reshape(entropy, shape)
    return CaseMaps(
        segmentation=arrays[0],
        confidence=entropy,
        entropy=entropy,
        second=arrays[1],
        second_name="" if auxiliary is None else "auxiliary",
        second_confidence=None,
        suspicious=None,
        common_difficulty=arrays[2],
        properties={},
    )


def row(case, difficulty=0.0, disagreement=0.0, entropy=0.0, patient=None, voxels=10):
    return RankedCase(case, patient or case, math.nan, difficulty, disagreement, entropy, voxels)


def scored(**scores):
    return [RankedCase(name, name, score, 0, 0, 0, 1) for name, score in scores.items()]


def test_measures_by_hand():
    """Main finds voxels 0-3, auxiliary 2-4; voxels 4 and 5 are difficult: |R| = 6, |D| = 3."""
    measured = measure_case(
        "case",
        "patient",
        maps(
            [1, 1, 1, 1, 0, 0, 0, 0],
            [0, 0, 1, 1, 1, 0, 0, 0],
            [False, False, False, False, True, True, False, False],
            [0.6, 0, 0, 0, 0, 0.6, 0.9, 0.9],
        ),
    )
    assert measured.region_voxels == 6
    assert measured.common_difficulty == pytest.approx(2 / 6)
    assert measured.disagreement == pytest.approx(3 / 6)
    assert measured.entropy == pytest.approx(1.2 / 6)
    (with_score,) = with_scores([measured], "difficulty")
    assert with_score.score == pytest.approx((2 / 6 + 3 / 6) / 2)


def test_the_size_of_the_organ_does_not_matter():
    small = maps([1, 0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0], np.zeros(8, bool))
    large = maps([1] * 8, [2] * 8, np.zeros(8, bool))
    ours, theirs = (measure_case("c", "p", m).disagreement for m in (small, large))
    assert ours == theirs == 1


def test_where_nothing_is_predicted_the_case_comes_last_with_a_remark():
    empty = measure_case("a_empty", "p", maps([0] * 8, [0] * 8, np.zeros(8, bool)))
    assert empty.remark == NOTHING_FOUND
    cases = with_scores([empty, row("b", 0.0, 0.0), row("c", 0.3, 0.1)], "difficulty")
    assert [cases[i].case for i in order_by_score(cases)] == ["c", "b", "a_empty"]


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("difficulty", ["b", "a"]),
        ("common_difficulty", ["a", "b"]),
        ("disagreement", ["b", "a"]),
        ("entropy", ["a", "b"]),
    ],
)
def test_every_score_has_its_own_order(score, expected):
    cases = with_scores([row("a", 0.3, 0.1, 0.9), row("b", 0.2, 0.4, 0.8)], score)
    assert [cases[i].case for i in order_by_score(cases)] == expected


def test_random_depends_on_the_seed_alone():
    cases = [row(f"case{i}") for i in range(20)]
    orders = [order_by_score(with_scores(cases, "random", seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_scores_of_two_branches_need_two_branches():
    one_branch = measure_case("case", "p", maps([1] * 8))
    with pytest.raises(DataError, match=r"score difficulty needs both branches.*--score entropy"):
        with_scores([one_branch], "difficulty")
    assert with_scores([one_branch], "entropy")[0].score == 0


def test_diverse_choice_leaves_out_the_twin_of_a_chosen_case():
    cases = scored(best=0.9, twin=0.89, other=0.5, dull=0.0)
    features = np.array([[0.0, 0.0], [0.0, 0.01], [1.0, 1.0], [5.0, 5.0]])
    order = diverse_order(cases, features, 2)
    assert [cases[i].case for i in order] == ["best", "other", "twin", "dull"]


def test_diverse_choice_by_hand():
    """Equal spread: after a at 0 (score 1), b: 0.5 * 4 = 2 beats c: 0.9 * 2; then c, not d."""
    cases = scored(a=1.0, c=0.9, d=0.1, b=0.5)
    features = np.array([[0.0], [2.0], [1.0], [4.0]])
    assert [cases[i].case for i in diverse_order(cases, features, 3)] == ["a", "b", "c", "d"]


def test_diverse_choice_of_more_than_there_are_takes_all():
    assert sorted(diverse_order(scored(a=1.0, b=0.5), np.eye(2), 5)) == [0, 1]


def test_diverse_choice_copes_with_equal_features_and_undefined_scores():
    cases = scored(a=math.nan, b=0.5, c=0.7)
    assert [cases[i].case for i in diverse_order(cases, np.ones((3, 2)), 3)] == ["c", "b", "a"]


def test_patients_are_the_means_of_their_cases():
    cases = [
        row("p1_ED", 0.2, 0.4, 0.6, "p1"),
        row("p2_ED", patient="p2"),
        row("p1_ES", 0.4, patient="p1"),
    ]
    merged, features = merge_patients(cases, np.array([[1.0], [5.0], [3.0]]))
    assert [(m.patient, m.case) for m in merged] == [("p1", "p1_ED p1_ES"), ("p2", "p2_ED")]
    assert merged[0].common_difficulty == pytest.approx(0.3)
    assert merged[0].disagreement == pytest.approx(0.2)
    assert merged[0].region_voxels == 20
    assert features.tolist() == [[2.0], [5.0]]


def test_a_patient_with_an_empty_case_keeps_the_score_of_the_others_and_says_so():
    empty = RankedCase("p1_ES", "p1", math.nan, math.nan, math.nan, math.nan, 0, NOTHING_FOUND)
    merged, _ = merge_patients([row("p1_ED", 0.2, 0.4, patient="p1"), empty], np.ones((2, 1)))
    assert merged[0].common_difficulty == 0.2
    assert merged[0].remark == f"{NOTHING_FOUND} (p1_ES)"


def test_disagreement_needs_two_branches_and_no_threshold():
    folder = {"fold_folder": "fold_0", "trainer_name": "nnUNetTrainerCPS"}
    check_score(SimpleNamespace(second="a predictor", tau=None, **folder), "disagreement")
    for second, score in ((None, "disagreement"), ("a predictor", "difficulty")):
        with pytest.raises(DataError, match=f"or no tau, which the score {score} needs"):
            check_score(SimpleNamespace(second=second, tau=None, **folder), score)

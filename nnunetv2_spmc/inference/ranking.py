"""In which order to annotate unlabeled cases: scores, selection, table. Pure functions.

Of a case let R be the voxels that either branch calls foreground, or that are common-difficulty
voxels C, and D those that the two branches label differently. The default score is

    difficulty = (|C| / |R| + |D| / |R|) / 2,  in [0, 1],

so a large organ does not count more than a small one. Where R is empty there is nothing to
normalise by: such cases come last, with a remark, because the model may have missed everything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.inference.case_maps import CaseMaps

Score = Literal["difficulty", "common_difficulty", "disagreement", "entropy", "random"]
SCORES: tuple[Score, ...] = get_args(Score)
NEEDS_TWO_BRANCHES = ("difficulty", "common_difficulty", "disagreement")
NOTHING_FOUND = "nothing predicted: look at it yourself"


@dataclass(frozen=True)
class RankedCase:
    """A row of the ranking; the field names are the columns of the CSV file.

    Args:
        case: identifier; of a patient, the identifiers of all its cases.
        patient: patient key from split.json; the identifier where it names none.
        score: the higher, the sooner to annotate; NaN where nothing was predicted.
        common_difficulty: |C| / |R|.
        disagreement: |D| / |R|.
        entropy: mean normalized entropy of the main branch over R.
        region_voxels: |R|.
        remark: what to know about it.
    """

    case: str
    patient: str
    score: float
    common_difficulty: float
    disagreement: float
    entropy: float
    region_voxels: int
    remark: str = ""


def measure_case(case: str, patient: str, maps: CaseMaps) -> RankedCase:
    """Measure everything a score may need; the score itself is not set yet."""
    region = maps.segmentation > 0
    if maps.second is not None:
        region |= maps.second > 0
    if maps.common_difficulty is not None:
        region |= maps.common_difficulty
    size = int(region.sum())
    nan = math.nan
    difficult = disagreement = entropy = nan
    if size:
        entropy = float(maps.entropy[region].mean())
        if maps.common_difficulty is not None:
            difficult = float(maps.common_difficulty.sum() / size)
        if maps.second is not None:
            disagreement = float((maps.segmentation != maps.second).sum() / size)
    remark = "" if size else NOTHING_FOUND
    return RankedCase(case, patient, nan, difficult, disagreement, entropy, size, remark)


def with_scores(cases: Sequence[RankedCase], score: Score, seed: int = 0) -> list[RankedCase]:
    """Set the score of all cases.

    Args:
        cases: from `measure_case`.
        score: "difficulty", or one of its two parts; "entropy"; or "random" for a baseline.
        seed: of the random score.

    Raises:
        DataError: the score needs two branches, which the model does not have.
    """
    if score == "random":
        values = np.random.default_rng(seed).random(len(cases))
    elif score == "difficulty":
        values = np.array([(c.common_difficulty + c.disagreement) / 2 for c in cases])
    else:
        values = np.array([getattr(c, score) for c in cases])
    if score in NEEDS_TWO_BRANCHES and any(
        math.isnan(v) and c.region_voxels for v, c in zip(values, cases, strict=True)
    ):
        raise DataError(
            f"The score {score} needs both branches: take the training checkpoint of "
            "nnUNetTrainerSPMC, or --score entropy."
        )
    return [replace(c, score=float(v)) for c, v in zip(cases, values, strict=True)]


def merge_patients(
    cases: Sequence[RankedCase], features: np.ndarray
) -> tuple[list[RankedCase], np.ndarray]:
    """Merge the cases of every patient: means of the measures and of the features."""
    members: dict[str, list[int]] = {}
    for index, case in enumerate(cases):
        members.setdefault(case.patient, []).append(index)
    merged = []
    for patient, indices in members.items():
        group = [cases[i] for i in indices]

        def mean(name: str, group: Sequence[RankedCase] = group) -> float:
            values = [getattr(c, name) for c in group if not math.isnan(getattr(c, name))]
            return float(np.mean(values)) if values else math.nan

        empty = [c.case for c in group if not c.region_voxels]
        merged.append(
            RankedCase(
                case=" ".join(c.case for c in group),
                patient=patient,
                score=math.nan,
                common_difficulty=mean("common_difficulty"),
                disagreement=mean("disagreement"),
                entropy=mean("entropy"),
                region_voxels=sum(c.region_voxels for c in group),
                remark=f"{NOTHING_FOUND} ({' '.join(empty)})" if empty else "",
            )
        )
    return merged, np.stack([features[indices].mean(axis=0) for indices in members.values()])


def order_by_score(cases: Sequence[RankedCase]) -> list[int]:
    """Return the indices of the cases, highest score first, undefined ones last."""
    keys = [(-c.score if not math.isnan(c.score) else math.inf, c.case) for c in cases]
    return sorted(range(len(cases)), key=lambda index: keys[index])


def diverse_order(cases: Sequence[RankedCase], features: np.ndarray, number: int) -> list[int]:
    """Return the indices with a diverse choice of the first `number`, the rest by score.

    Greedy k-center (Sener and Savarese, ICLR 2018), weighted by the score: the case with the
    highest score comes first; every next one has the largest score times distance to the nearest
    case chosen before, so that two scans that look alike are not both annotated.

    Args:
        cases: with scores of at least 0.
        features: (cases, channels), one feature vector per case.
        number: how many to choose; more than there are chooses all.
    """
    order = order_by_score(cases)
    scores = np.nan_to_num([case.score for case in cases], nan=0.0)
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    chosen = order[:1] if number > 0 else []
    while 0 < len(chosen) < min(number, len(cases)):
        rest = [index for index in order if index not in chosen]
        distances = np.linalg.norm(scaled[rest, None] - scaled[None, chosen], axis=2).min(axis=1)
        chosen.append(rest[int(np.argmax(scores[rest] * distances))])
    return chosen + [index for index in order if index not in chosen]

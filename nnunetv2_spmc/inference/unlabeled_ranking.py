"""Rank the unlabeled cases of a dataset with a trained model: nnUNetv2_spmc_rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nnunetv2_spmc.common.csv_files import write_csv
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.whole_file import made_folder
from nnunetv2_spmc.evaluation.text_table import text_table
from nnunetv2_spmc.inference.case_maps import predict_case
from nnunetv2_spmc.inference.ranking import (
    NEEDS_TWO_BRANCHES,
    RankedCase,
    Score,
    diverse_order,
    measure_case,
    merge_patients,
    order_by_score,
    with_scores,
)
from nnunetv2_spmc.inference.trained_model import TrainedModel

RANKING_COLUMNS = ["rank", *(field.name for field in dataclasses.fields(RankedCase)), "chosen"]


def measure_cases(
    model: TrainedModel,
    cases: Mapping[str, Sequence[str | Path]],
    groups: Mapping[str, str],
    log: Callable[[str], None] = print,
) -> tuple[list[RankedCase], np.ndarray, dict[str, str]]:
    """Predict every case; return its measures and its pooled bottleneck features.

    A case that cannot be predicted does not stop the others.

    Args:
        model: from `load_model`.
        cases: identifier -> one file per channel.
        groups: identifier -> patient key, where known.
        log: receives one line per case.

    Returns:
        One row per case, (cases, channels) features of the same cases, and why the others failed.
    """
    measured, features, failed = [], [], {}
    for number, (case, images) in enumerate(cases.items(), start=1):
        try:
            with pooled_bottleneck(model.main.network) as pooled:
                maps = predict_case(model, [Path(image) for image in images])
        except DataError as error:
            failed[case] = str(error)
            continue
        measured.append(measure_case(case, groups.get(case, case), maps))
        features.append(torch.stack(pooled).mean(dim=0).numpy())
        log(f"[{number}/{len(cases)}] {case}")
    return measured, np.array(features), failed


@contextmanager
def pooled_bottleneck(network: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect the average-pooled bottleneck features of every patch the network sees meanwhile.

    A prediction with both branches of one encoder collects the patches of both, which are the same.
    """
    pooled: list[torch.Tensor] = []

    def pool(_module: nn.Module, _inputs: object, features: Sequence[torch.Tensor]) -> None:
        bottleneck = features[-1].float()
        pooled.append(bottleneck.flatten(2).mean(dim=(0, 2)).cpu())

    encoder = getattr(network, "encoder", None)
    if encoder is None:
        raise DataError(
            f"{type(network).__name__} has no encoder whose features could be compared; use plans "
            "with PlainConvUNet or ResidualEncoderUNet."
        )
    handle = encoder.register_forward_hook(pool)
    try:
        yield pooled
    finally:
        handle.remove()


def check_score(model: TrainedModel, score: Score) -> None:
    """Refuse a score that the model cannot give before anything is predicted.

    Raises:
        DataError: it needs two branches and the model has only one, or a threshold and the model
            has none.
    """
    lacks_tau = model.tau is None and score != "disagreement"
    if score in NEEDS_TWO_BRANCHES and (model.second is None or lacks_tau):
        raise DataError(
            f"The checkpoint in {model.fold_folder} ({model.trainer_name}) has no second branch "
            f"or no tau, which the score {score} needs: take the training checkpoint of "
            "nnUNetTrainerSPMC, or --score entropy."
        )


def rank(
    measured: Sequence[RankedCase],
    features: np.ndarray,
    *,
    score: Score = "difficulty",
    diverse: int = 0,
    by_patient: bool = False,
    seed: int = 0,
) -> list[RankedCase]:
    """Return the cases in the order in which to annotate them.

    Args:
        measured: from `measure_cases`.
        features: of the same.
        score: see `with_scores`.
        diverse: how many of the first to choose for diversity, see `diverse_order`.
        by_patient: rank patients instead of cases.
        seed: of the random score.
    """
    if by_patient:
        measured, features = merge_patients(measured, features)
    scored = with_scores(measured, score, seed)
    order = diverse_order(scored, features, diverse) if diverse else order_by_score(scored)
    return [scored[index] for index in order]


def write_ranking(path: Path, ranked: Sequence[RankedCase], chosen: int = 0) -> None:
    """Write a CSV file, whole or not at all; 1 in `chosen` for the first ones, chosen to differ."""
    rows = (
        {"rank": number, **dataclasses.asdict(case), "chosen": int(number <= chosen)}
        for number, case in enumerate(ranked, 1)
    )
    with made_folder(path.parent):
        write_csv(path, RANKING_COLUMNS, rows)


def ranking_table(ranked: Sequence[RankedCase], chosen: int = 0) -> str:
    """Return the ranking for the screen; the first ones that were chosen to differ have a mark."""
    rows = [
        [
            f"{number} *" if number <= chosen else str(number),
            case.case,
            case.patient,
            *(_number(v) for v in (case.score, case.common_difficulty, case.disagreement)),
            _number(case.entropy),
            case.remark,
        ]
        for number, case in enumerate(ranked, start=1)
    ]
    header = ["rank", "case", "patient", "score", "common difficulty", "disagreement", "entropy"]
    table = text_table([*header, "remark"], rows)
    if not chosen:
        return table
    return (
        f"{table}\n* chosen to annotate first: high scores that also differ from each other, so a "
        "lower score may stand above a higher one. The others follow by score."
    )


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"

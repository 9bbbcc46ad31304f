"""Find scans that look alike: near-duplicates, mostly of one patient."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.raw.thumbnails import coarse, fine, moved, similarity, unit_vectors

# Scans of two patients reach 0.69 in ACDC, 0.75 in Hippocampus, 0.82 in BraTS and 0.86 in LA (whose
# patients are not published); copies that are cropped or shifted by a tenth have 0.88 and more.
ALIKE = 0.88
WORTH_A_LOOK = 0.4  # of the coarse comparison
BEST_PARTNERS = 5  # of each scan are compared finely

Pair = tuple[str, str, float]  # two scans and how much they look alike, 1 at most


def lookalikes(
    thumbnails: Mapping[str, np.ndarray],
    new: Collection[str] | None = None,
    *,
    alike: float = ALIKE,
) -> list[Pair]:
    """Return the pairs that look alike, the most alike first.

    Args:
        thumbnails: From `thumbnail`, by the names of the scans.
        new: Only pairs with one of these; all pairs if None.
        alike: From which similarity on.
    """
    names = sorted(thumbnails)
    if len(names) < 2:
        return []
    structures = unit_vectors(np.stack([coarse(thumbnails[name]).ravel() for name in names]))
    is_new = np.array([new is None or name in new for name in names])
    side = round(structures.shape[1] ** (1 / 3))
    candidates: dict[tuple[int, int], int] = {}
    for i in map(int, np.flatnonzero(is_new)):
        values = moved(structures[i].reshape(side, side, side)) @ structures.T
        best = values.max(axis=0)
        best[i] = -1
        for j in map(int, np.argsort(-best)[:BEST_PARTNERS]):
            if best[j] >= WORTH_A_LOOK and (j, i) not in candidates:
                candidates[i, j] = int(values[:, j].argmax())
    details = {i: fine(thumbnails[names[i]]) for pair in candidates for i in pair}
    found = []
    for (i, j), start in candidates.items():
        value = similarity(details[i], details[j], start)
        if value >= alike:
            found.append(as_pair(names[i], names[j], value))
    return sorted(found, key=most_alike_first)


def as_pair(one: str, other: str, value: float) -> Pair:
    """Return a pair, its names in their order."""
    return (one, other, value) if one <= other else (other, one, value)


def most_alike_first(pair: Pair) -> tuple[float, str, str]:
    """Return the key to sort pairs by."""
    return -pair[2], pair[0], pair[1]


def lookalike_warnings(pairs: Sequence[Pair], patients: Mapping[str, str]) -> list[str]:
    """Return a warning of scans that look alike and are not known to be of one patient.

    Args:
        pairs: Cases, by identifier.
        patients: Patient keys; none are known where each case has its own name as its key.
    """
    if all(identifier == key for identifier, key in patients.items()):
        patients = {}
    others = [p for p in pairs if p[0] not in patients or patients[p[0]] != patients.get(p[1])]
    if not others:
        return []
    named = name_some([f"{one} and {other} ({value:.2f})" for one, other, value in others])
    text = f"Scans look alike (1 would be the same scan): {named}"
    if patients:
        return [f"{text}; they have different patient keys: check whether one is a copy."]
    return [f"{text}; probably one patient: use --group_by."]

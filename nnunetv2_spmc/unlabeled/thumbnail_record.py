"""The thumbnails of a dataset's scans, next to its plans, and which of them look alike.

They are known by the digests of the scans, so that a scan under several names is compared once.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path

import numpy as np

from nnunetv2_spmc.common.whole_file import WriteError, whole_file
from nnunetv2_spmc.raw.lookalikes import Pair, as_pair, lookalikes, most_alike_first

THUMBNAILS_FILE = "spmc_thumbnails.npz"


@dataclass
class Thumbnails:
    """What the file holds.

    Attributes:
        pictures: Digest -> thumbnail.
        compared: Digests that have been compared with all others of these, or have no thumbnail.
        pairs: Pairs of digests that look alike.
    """

    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    compared: set[str] = field(default_factory=set)
    pairs: list[Pair] = field(default_factory=list)


def store_thumbnails(folder: Path, new: Mapping[str, np.ndarray]) -> None:
    """Add thumbnails to those of a dataset."""
    stored = _read(folder)
    missing = {digest: picture for digest, picture in new.items() if digest not in stored.pictures}
    if missing:
        stored.pictures |= missing
        _write(folder, stored)


def pairs_that_look_alike(folder: Path, names: Mapping[str, Sequence[str]]) -> list[Pair]:
    """Return the cases that look alike or are the same scan; compare what has not been yet.

    Args:
        folder: The dataset in nnUNet_preprocessed.
        names: Digest -> cases, of all scans.
    """
    stored = _read_pairs(folder)
    if names.keys() - stored.compared:
        stored = _compare(folder, set(names))
    found = [
        as_pair(one, other, 1.0)
        for same in names.values()
        for one, other in combinations(same, 2)
        if one != other
    ]
    for first, second, value in stored.pairs:
        of_pair = product(names.get(first, ()), names.get(second, ()))
        found += [as_pair(one, other, value) for one, other in of_pair]
    return sorted(found, key=most_alike_first)


def _compare(folder: Path, wanted: set[str]) -> Thumbnails:
    """Compare those that have not been compared; forget scans that are gone."""
    stored = _read(folder)
    stored.pictures = {d: picture for d, picture in stored.pictures.items() if d in wanted}
    if not stored.pictures:
        return stored
    stored.pairs = [p for p in stored.pairs if {p[0], p[1]} <= stored.pictures.keys()]
    stored.pairs += lookalikes(stored.pictures, stored.pictures.keys() - stored.compared)
    stored.compared = wanted
    _write(folder, stored)
    return stored


def _read_pairs(folder: Path) -> Thumbnails:
    """Return what the file holds but for the pictures, which take long."""
    return _read(folder, with_pictures=False)


def _read(folder: Path, *, with_pictures: bool = True) -> Thumbnails:
    try:
        with np.load(folder / THUMBNAILS_FILE, allow_pickle=False) as file:
            content = json.loads(str(file["content"]))
            pictures = file["pictures"] if with_pictures else ()
            return Thumbnails(
                dict(zip(content["digests"], pictures, strict=with_pictures)),
                set(content["compared"]),
                [(one, other, value) for one, other, value in content["pairs"]],
            )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return Thumbnails()  # none, or damaged: those are only warnings


def _write(folder: Path, stored: Thumbnails) -> None:
    content = {
        "digests": list(stored.pictures),
        "compared": sorted(stored.compared),
        "pairs": stored.pairs,
    }
    try:
        with whole_file(folder / THUMBNAILS_FILE) as temporary:
            np.savez(
                temporary,
                content=np.array(json.dumps(content)),
                pictures=np.stack(list(stored.pictures.values())),
            )
    except WriteError:  # a folder that may only be read
        return

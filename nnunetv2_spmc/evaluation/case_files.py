"""Find, read and check the files of the cases to evaluate, with nnU-Net's readers."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnunetv2_spmc.common.errors import DataError, reason_of
from nnunetv2_spmc.common.text import check_name
from nnunetv2_spmc.evaluation.classes import Classes
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.raw.checks import (
    DIRECTION_TOLERANCE,
    ORIGIN_TOLERANCE,
    SPACING_TOLERANCE,
)
from nnunetv2_spmc.raw.scan import check_scan
from nnunetv2_spmc.unlabeled.raw_images import left_out_note, other_files

# What nnU-Net and this package write next to predictions, including folders of maps.
BESIDE_PREDICTIONS = (".csv", ".npz", ".pkl", "/")


class LabelMap(NamedTuple):
    """A segmentation: integers, voxel sizes per axis, and the properties of nnU-Net's reader."""

    voxels: np.ndarray
    spacing_mm: tuple[float, ...]
    properties: Mapping[str, Any]


@dataclass(frozen=True)
class CasePairs:
    """Cases with a reference and a prediction; those that lack one of them; notes on left files."""

    cases: tuple[str, ...]
    missing: tuple[str, ...]  # without a prediction
    surplus: tuple[str, ...]  # without a reference
    notes: tuple[str, ...]


def pair_cases(
    reference_folder: Path, prediction_folder: Path, file_ending: str, *, allow_missing: bool
) -> CasePairs:
    """Match references and predictions by name.

    Files of other formats, and predictions without a reference, such as those of unlabeled scans,
    are left out and named.

    Raises:
        DataError: If a folder has no such file, a prediction is missing that must not be, or no
            case is in both folders.
    """
    references, reference_note = _cases_in(reference_folder, file_ending)
    predictions, prediction_note = _cases_in(prediction_folder, file_ending)
    if reference_folder.samefile(prediction_folder):
        raise DataError(f"{reference_folder} is given as references and as predictions.")
    missing = sorted(references - predictions)
    surplus = sorted(predictions - references)
    without_reference = (
        f"{reference_folder} has no reference for {len(surplus)} of {len(predictions)} "
        f"predictions: {name_some(surplus, limit=20)}."
    )
    if missing and not (allow_missing and references & predictions):
        named_otherwise = f" {without_reference}" if surplus else ""
        raise DataError(
            f"{prediction_folder} has no prediction for {len(missing)} of {len(references)} "
            f"cases: {name_some(missing, limit=20)}.{named_otherwise}"
        )
    surplus_note = f"note: left out: {without_reference}" if surplus else None
    notes = tuple(note for note in (reference_note, prediction_note, surplus_note) if note)
    return CasePairs(tuple(sorted(references & predictions)), tuple(missing), tuple(surplus), notes)


def _cases_in(folder: Path, file_ending: str) -> tuple[set[str], str | None]:
    """Return the cases of a folder, and a line about its files of other formats, if any."""
    names = sorted(os.listdir(folder))
    cases = {
        name.removesuffix(file_ending)
        for name in names
        if name.endswith(file_ending) and not name.startswith(".")
    }
    others = [
        name
        for name in other_files(folder, names, file_ending)
        if not name.endswith(BESIDE_PREDICTIONS)
    ]
    if not cases:
        there = f" (there is {name_some(others)})" if others else ""
        raise DataError(
            f"{folder} has no {file_ending} file, the file_ending of dataset.json{there}."
        )
    return cases, left_out_note(folder, others, file_ending)


def find_reader(dataset_json: Mapping[str, Any], examples: Sequence[Path]) -> type:
    """Return the reader class that nnU-Net chooses for a dataset by the first file it can read.

    Raises:
        DataError: If no reader can read any of the examples.
    """
    for example in filter(Path.is_file, examples):
        with contextlib.suppress(RuntimeError, TypeError, DataError):
            return _reader_for(dataset_json, example)
    raise DataError(
        f"No reader of nnU-Net can read {name_some(map(str, examples))}: get them again, or name "
        "the right file_ending in dataset.json."
    )


def _reader_for(dataset_json: Mapping[str, Any], example: Path) -> type:
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    check_name(example)
    # it prints the traceback of each reader that it tries
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        reader: type = determine_reader_writer_from_dataset_json(
            dict(dataset_json), str(example), verbose=False
        )
    return reader


def read_label_map(file: Path, reader: type, allowed: Sequence[int]) -> LabelMap:
    """Read a segmentation; a plane, which nnU-Net's readers give as one slice, becomes 2D.

    Args:
        file: The segmentation.
        reader: One of nnU-Net's reader classes.
        allowed: The values that it may hold.

    Raises:
        DataError: If it cannot be read or holds other values.
    """
    check_scan(file, kind="label")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            channels, properties = reader().read_seg(str(file))
    except Exception as error:  # readers raise all kinds
        raise DataError(f"{file} cannot be read ({reason_of(error)})") from error
    if len(channels) != 1:
        raise DataError(f"{file} holds {len(channels)} channels, a segmentation has one")
    with np.errstate(invalid="ignore"):  # NaN is found by the comparison
        voxels = channels[0].astype(np.int32)
    if not np.array_equal(voxels, channels[0]):
        raise DataError(f"{file} has label values that are not whole numbers")
    unknown = voxels[~np.isin(voxels, allowed)]
    if unknown.size:
        values = name_some(map(str, np.unique(unknown)))
        raise DataError(f"{file} has label values {values}, allowed are {sorted(allowed)}")
    spacing = tuple(float(size) for size in properties["spacing"])
    if len(voxels) == 1:
        voxels, spacing = voxels[0], spacing[1:]
    return LabelMap(voxels, spacing, properties)


def read_pair(
    reference_file: Path, prediction_file: Path, reader: type, classes: Classes
) -> tuple[LabelMap, LabelMap]:
    """Return reference and prediction.

    Raises:
        DataError: If one cannot be read, holds unknown values, or they lie on different grids.
    """
    allowed = sorted(classes.allowed)
    ignore = [] if classes.ignore is None else [classes.ignore]
    reference = read_label_map(reference_file, reader, allowed + ignore)
    prediction = read_label_map(prediction_file, reader, allowed)
    difference = _geometry_difference(prediction, reference)
    if difference:
        raise DataError(
            f"the prediction has {difference} of the reference; bring them onto one grid"
        )
    return reference, prediction


def _geometry_difference(prediction: LabelMap, reference: LabelMap) -> str | None:
    """Say how two segmentations differ in space, 'spacing (1, 1) instead of (1, 2)'."""
    if prediction.voxels.shape != reference.voxels.shape:
        return f"shape {prediction.voxels.shape} instead of {reference.voxels.shape}"
    if not np.allclose(prediction.spacing_mm, reference.spacing_mm, rtol=SPACING_TOLERANCE, atol=0):
        return (
            f"spacing {_rounded(prediction.spacing_mm)} instead of {_rounded(reference.spacing_mm)}"
        )
    ours, theirs = _placement(prediction.properties), _placement(reference.properties)
    if ours is None or theirs is None:
        return None
    for name, tolerance in (
        ("direction", DIRECTION_TOLERANCE),
        ("origin", ORIGIN_TOLERANCE * min(reference.spacing_mm)),
    ):
        if not np.allclose(ours[name], theirs[name], rtol=0, atol=tolerance):
            return f"{name} {_rounded(ours[name])} instead of {_rounded(theirs[name])}"
    return None


def _placement(properties: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """Return direction and origin from what a reader reports, None if its format has none."""
    if "sitk_stuff" in properties:
        header = properties["sitk_stuff"]
        return {name: np.asarray(header[name]) for name in ("direction", "origin")}
    if "nibabel_stuff" in properties:
        affines = properties["nibabel_stuff"]
        affine = np.asarray(affines.get("reoriented_affine", affines["original_affine"]))
        axes = affine[:3, :3]
        return {"direction": axes / np.linalg.norm(axes, axis=0), "origin": affine[:3, 3]}
    return None


def _rounded(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in np.ravel(values))

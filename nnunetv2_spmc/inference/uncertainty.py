"""Segmentations and uncertainty maps of a folder of images: nnUNetv2_spmc_uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.leftovers import remove_leftovers
from nnunetv2_spmc.common.whole_file import WRITING_PREFIX, WriteError, made_folder
from nnunetv2_spmc.inference.case_maps import predict_case
from nnunetv2_spmc.inference.map_files import write_maps
from nnunetv2_spmc.inference.trained_model import TrainedModel
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.unlabeled.raw_images import ImageFolder, find_images


@dataclass
class UncertaintySummary:
    """What was written, and which cases failed with the reason."""

    written: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def input_cases(folder: Path, model: TrainedModel) -> ImageFolder:
    """Return the cases of a folder of images.

    Raises:
        DataError: the folder is absent or has no image.
    """
    ending = model.file_ending
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give one with images CASE_0000{ending}.")
    images = find_images(folder, ending, model.channels)
    if not images.all_cases:
        there = f" (there is {name_some(images.left_out)})" if images.left_out else ""
        raise DataError(
            f"{folder} has no image: files must end in _0000{ending}, as those of the training"
            f"{there}."
        )
    return images


def write_uncertainty(
    model: TrainedModel,
    cases: Mapping[str, Sequence[str | Path]],
    output_folder: Path,
    *,
    tau: float | None = None,
    skip_finished: bool = False,
    log: Callable[[str], None] = print,
) -> UncertaintySummary:
    """Predict every case and write its maps, see `write_maps` for the names.

    A case that cannot be predicted does not stop the others; one that cannot be written does, or
    all would be predicted for nothing.

    Args:
        model: from `load_model`.
        cases: identifier -> one file per channel.
        output_folder: created if need be.
        tau: suspicious at confidence <= tau; None takes the threshold of the training.
        skip_finished: leave out cases whose segmentation is there already.
        log: receives one line per case.
    """
    remove_leftovers(output_folder, WRITING_PREFIX)
    summary = UncertaintySummary()
    reader_writer = model.main.plans_manager.image_reader_writer_class()
    for number, (case, images) in enumerate(cases.items(), start=1):
        if skip_finished and (output_folder / f"{case}{model.file_ending}").is_file():
            summary.skipped.append(case)
            continue
        try:
            maps = predict_case(model, [Path(image) for image in images], tau)
        except DataError as error:
            summary.failed[case] = str(error)
            continue
        try:
            with made_folder(output_folder):
                write_maps(output_folder, case, maps, reader_writer, model.file_ending)
        except WriteError as error:
            summary.failed[case] = str(error)
            break
        summary.written.append(case)
        shares = f"mean confidence {maps.confidence.mean():.4f}"
        if maps.common_difficulty is not None:
            shares += f", common-difficulty voxels {maps.common_difficulty.mean():.3%}"
        log(f"[{number}/{len(cases)}] {case}: {shares}")
    return summary


def missing_parts(model: TrainedModel, tau: float | None = None) -> str | None:
    """Say which maps a model cannot give and why, or None if it gives all."""
    if model.second is None:
        missing = "no second segmentation and no common-difficulty voxels"
        if tau is None and model.tau is None:
            missing += ", and without --tau no suspicious voxels"
        return (
            f"The checkpoint in {model.fold_folder} ({model.trainer_name}) has no second branch:"
            f" segmentation and confidence are written, {missing}; take the training checkpoint of "
            "nnUNetTrainerSPMC for those."
        )
    if tau is None and model.tau is None:
        return (
            f"{model.trainer_name} has no threshold of its own: without --tau there are no "
            "suspicious and no common-difficulty voxels."
        )
    return None

"""Check and write the files of one case; runs in a worker process."""

from __future__ import annotations

import os
import shutil
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.whole_file import writing
from nnunetv2_spmc.raw.cases import (
    ConversionError,
    ImageSource,
    LabelRules,
    RawCase,
)
from nnunetv2_spmc.raw.checks import (
    geometry_difference,
    has_no_geometry,
    mapped_label,
    same_header,
)
from nnunetv2_spmc.raw.geometry import check_spacing
from nnunetv2_spmc.raw.layout import image_file, label_file
from nnunetv2_spmc.raw.nifti_check import check_gzip
from nnunetv2_spmc.raw.nifti_transforms import ScanWarning
from nnunetv2_spmc.raw.reader import ImageFile
from nnunetv2_spmc.raw.scan_facts import NO_FACTS, ScanFacts, facts_of
from nnunetv2_spmc.raw.voxel_values import check_values


@dataclass(frozen=True)
class CaseRecord:
    """What a worker reports of a case; `problem` is empty if the case is written."""

    identifier: str
    problem: str = ""
    facts: ScanFacts = NO_FACTS
    label_values: tuple[int, ...] = ()  # as written; none where there is no label
    is_slice: bool = False
    remarks: tuple[str, ...] = ()  # what is not wrong with its files but should be known
    label_took_header: bool = False  # the image's, in place of its own

    @property
    def empty_label(self) -> bool:
        """Whether there is a label with nothing but background."""
        return self.label_values == (0,)


def write_case(case: RawCase, *, folder: Path, rules: LabelRules, link: bool) -> CaseRecord:
    """Read, check and write one case; a problem is returned, not raised."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ScanWarning)
            record = _write_case(case, folder, rules, link)
        return replace(record, remarks=_remarks(caught))
    except DataError as error:
        problem = str(error).rstrip(".")
        return CaseRecord(case.identifier, problem=f"Case {case.identifier}: {problem}.")
    except MemoryError:
        problem = "there was not enough memory; use a smaller -np."
        return CaseRecord(case.identifier, problem=f"Case {case.identifier}: {problem}")


def _remarks(caught: list[warnings.WarningMessage]) -> tuple[str, ...]:
    """Return what was said about scans; pass on what was said by others."""
    for warning in caught:
        if not issubclass(warning.category, ScanWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    said = (str(w.message) for w in caught if issubclass(w.category, ScanWarning))
    return tuple(dict.fromkeys(said))


def _write_case(case: RawCase, folder: Path, rules: LabelRules, link: bool) -> CaseRecord:
    images = [source.read() for source in case.images]
    reference = images[0]
    for channel, (image, source) in enumerate(zip(images, case.images, strict=True)):
        difference = geometry_difference(image, reference)
        if difference:
            remedy = "resample the channels to one grid."
            if has_no_geometry(image, reference):
                remedy = "it has no geometry (identity header): copy the other channel's into it."
            raise ConversionError(
                f"channel {source} has {difference} (channel {case.images[0]}); {remedy}"
            )
        check_spacing(str(source), image.GetSpacing())
        check_values(sitk.GetArrayViewFromImage(image), str(source), "image")
        unchanged = same_header(image, reference)
        image.CopyInformation(reference)
        _store(image, source, folder / image_file(case, channel), unchanged=unchanged, link=link)
    values: tuple[int, ...] = ()
    took_header = False
    if case.label is not None:
        values, took_header = _write_label(
            case, case.label, reference, folder / label_file(case), rules, link
        )
    return CaseRecord(
        case.identifier,
        facts=facts_of(images),
        label_values=values,
        is_slice=1 in reference.GetSize(),
        label_took_header=took_header,
    )


def _write_label(
    case: RawCase,
    source: ImageSource,
    reference: sitk.Image,
    target: Path,
    rules: LabelRules,
    link: bool,
) -> tuple[tuple[int, ...], bool]:
    """Write a label on the image's grid.

    Returns:
        The values it holds, and whether its own header said something else than the image's.
    """
    original = source.read()
    difference = geometry_difference(original, reference, on_grid=rules.trust_shape)
    if difference and not (rules.trust_grid and original.GetSize() == reference.GetSize()):
        raise ConversionError(
            f"label {source} has {difference} (image {case.images[0]}); "
            f"{_remedy(original, reference)}"
        )
    label = mapped_label(original, rules, f"label {source}")
    unchanged = (
        same_header(original, reference)
        and sitk.GetArrayViewFromImage(original).dtype.kind in "iu"
        and all(old == new for old, new in rules.label_map.items())
    )
    label.CopyInformation(reference)
    _store(label, source, target, unchanged=unchanged, link=link)
    values = tuple(np.unique(sitk.GetArrayViewFromImage(label)).tolist())
    return values, difference is not None


def _remedy(label: sitk.Image, image: sitk.Image) -> str:
    """Say what to do about another grid: resampling would empty a label without a header."""
    if has_no_geometry(label, image):
        return (
            "the label has no geometry (identity header): if it was drawn on this image, copy the "
            "image's header, with --trust_label_grid of nnUNetv2_spmc_convert folder."
        )
    if has_no_geometry(image, label):
        return "the image has no geometry (identity header): get it again, with its header."
    return "resample the label to the image's grid."


def _store(
    image: sitk.Image, source: ImageSource, target: Path, *, unchanged: bool, link: bool
) -> None:
    """Link or copy a file that is right as it is, write everything else."""
    target.parent.mkdir(exist_ok=True)
    name = f"{target.parent.name}/{target.name}"
    if not (unchanged and isinstance(source, ImageFile) and source.is_3d_nifti_gz):
        for key in image.GetMetaDataKeys():  # headers of other formats, patient data among them
            image.EraseMetaData(key)
        check = partial(check_gzip, num_bytes=sitk.GetArrayViewFromImage(image).nbytes)
        with writing(target, name, check):  # SimpleITK does not say that a disk is full
            sitk.WriteImage(image, str(target))
        return
    with writing(target, name):
        if link:
            os.symlink(_way_to(source.path.resolve(), target), target)
        else:
            shutil.copyfile(source.path, target)


def _way_to(file: Path, link: Path) -> str:
    """Return where a link points to: relative, so that both can be moved together."""
    try:
        return os.path.relpath(file, link.parent.resolve())
    except ValueError:  # on Windows from drive to drive
        return str(file)

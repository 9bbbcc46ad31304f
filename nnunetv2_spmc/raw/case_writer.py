"""Check and write the files of one case; runs in a worker process."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
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
    check_finite,
    geometry_difference,
    mapped_label,
    same_header,
)
from nnunetv2_spmc.raw.layout import image_file, label_file
from nnunetv2_spmc.raw.nifti_check import check_gzip
from nnunetv2_spmc.raw.reader import ImageFile
from nnunetv2_spmc.raw.scan_facts import NO_FACTS, ScanFacts, facts_of


@dataclass(frozen=True)
class CaseRecord:
    """What a worker reports of a case; `problem` is empty if the case is written."""

    identifier: str
    problem: str = ""
    facts: ScanFacts = NO_FACTS
    label_values: tuple[int, ...] = ()  # as written; none where there is no label
    is_slice: bool = False

    @property
    def empty_label(self) -> bool:
        """Whether there is a label with nothing but background."""
        return self.label_values == (0,)


def write_case(case: RawCase, *, folder: Path, rules: LabelRules, link: bool) -> CaseRecord:
    """Read, check and write one case; a problem is returned, not raised."""
    try:
        return _write_case(case, folder, rules, link)
    except DataError as error:
        return CaseRecord(case.identifier, problem=f"Case {case.identifier}: {error}")
    except MemoryError:
        problem = "there was not enough memory; use a smaller -np."
        return CaseRecord(case.identifier, problem=f"Case {case.identifier}: {problem}")


def _write_case(case: RawCase, folder: Path, rules: LabelRules, link: bool) -> CaseRecord:
    images = [source.read() for source in case.images]
    reference = images[0]
    facts = facts_of(images)
    for channel, (image, source) in enumerate(zip(images, case.images, strict=True)):
        difference = geometry_difference(image, reference)
        if difference:
            raise ConversionError(
                f"channel {source} has {difference} (channel {case.images[0]}); "
                "resample the channels to one grid."
            )
        check_finite(image, str(source))
        unchanged = same_header(image, reference)
        image.CopyInformation(reference)
        _store(image, source, folder / image_file(case, channel), unchanged=unchanged, link=link)
    values: tuple[int, ...] = ()
    if case.label is not None:
        values = _write_label(case, case.label, reference, folder / label_file(case), rules, link)
    return CaseRecord(
        case.identifier,
        facts=facts,
        label_values=values,
        is_slice=1 in reference.GetSize(),
    )


def _write_label(
    case: RawCase,
    source: ImageSource,
    reference: sitk.Image,
    target: Path,
    rules: LabelRules,
    link: bool,
) -> tuple[int, ...]:
    """Write a label on the image's grid; return the values it holds."""
    original = source.read()
    difference = geometry_difference(original, reference, on_grid=rules.trust_shape)
    if difference:
        raise ConversionError(
            f"label {source} has {difference} (image {case.images[0]}); "
            "resample the label to the image's grid."
        )
    label = mapped_label(original, rules, f"label {source}")
    unchanged = (
        same_header(original, reference)
        and sitk.GetArrayViewFromImage(original).dtype.kind in "iu"
        and all(old == new for old, new in rules.label_map.items())
    )
    label.CopyInformation(reference)
    _store(label, source, target, unchanged=unchanged, link=link)
    return tuple(np.unique(sitk.GetArrayViewFromImage(label)).tolist())


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

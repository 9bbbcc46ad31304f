"""Left atrium: 2018 Atrial Segmentation Challenge (LGE MRI), with the literature's 80/20 split.

Source: https://www.cardiacatlas.org/atriaseg2018-challenge/ (terms of use there).
Label map: 255 -> 1 (left atrium) in the challenge's files; 0/1 already in the h5 files.
Counts: 100 scans; 80 for training (the first N of the list are labeled) and 20 for test.

Expected input, one of

    Training Set/ID/lgemri.nrrd, laendo.nrrd             as the challenge distributes it
    2018LA_Seg_Training Set/ID/mri_norm2.h5              as the semi-supervised papers share it

or the folder above. The h5 volumes hold no spacing and are cropped around the ground truth, test
scans too: results on them compare with those papers' tables and with nothing else.

Spacing: the scans have voxels of 0.625 mm in every direction. The challenge's headers say 1 mm, by
a published reading of all 154 of them, and the h5 files say nothing; from both 0.625 mm is written,
so that a distance is the same in either. A header that says something else is kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_spmc.dataset_conversion import Converter
from nnunetv2_spmc.dataset_conversion.arguments import add_allow_missing, add_input, add_number
from nnunetv2_spmc.dataset_conversion.protocol_lists import LA_TEST, LA_TRAIN
from nnunetv2_spmc.dataset_conversion.published_split import PublishedSplit
from nnunetv2_spmc.raw.cases import ConversionError, RawCase, RawDataset, count_of, name_some
from nnunetv2_spmc.raw.checks import SPACING_TOLERANCE
from nnunetv2_spmc.raw.reader import H5Volume, ImageFile
from nnunetv2_spmc.raw.summary import ConversionSummary
from nnunetv2_spmc.raw.writer import WriteOptions, write_raw_dataset

SPLIT = PublishedSplit(LA_TRAIN, LA_TEST, unit="scan")
Pair = tuple[ImageFile | H5Volume, ImageFile | H5Volume]  # image and label
DATASET_ID = 501
NAME = "LA"
LABELED = 8
CHANNELS = ("LGE_MRI",)
LABELS = {"background": 0, "left atrium": 1}
LABEL_MAP = {255: 1}
SPACING_MM = (0.625, 0.625, 0.625)  # of the challenge's scans; the h5 files do not state it
INFORMATION = {
    "description": "Left atrium in LGE MRI, 2018 Atrial Segmentation Challenge",
    "reference": "Xiong et al., Medical Image Analysis 67 (2021), 101832",
    "licence": "see https://www.cardiacatlas.org/atriaseg2018-challenge/",
}
H5_NOTES = (
    "h5 layout: the volumes are cropped around the ground truth, test scans too; compare results "
    "only with papers that use these files",
    "h5 layout: spacing assumed to be 0.625 mm in every direction, the files do not state it",
)


@dataclass(frozen=True)
class ChallengeFile(ImageFile):
    """A file of the challenge, whose header may say 1 mm where the scan has 0.625 mm."""

    def read(self) -> sitk.Image:
        """Return the volume with the spacing of the scan."""
        image = super().read()
        if _says_1_mm(image.GetSpacing()):
            image.SetSpacing(SPACING_MM)
        return image


def _says_1_mm(spacing: Sequence[float]) -> bool:
    return np.allclose(spacing, 1, rtol=SPACING_TOLERANCE, atol=0)


def convert_la(
    source: Path,
    *,
    dataset_id: int = DATASET_ID,
    name: str = NAME,
    labeled: int = LABELED,
    allow_missing: bool = False,
    options: WriteOptions | None = None,
) -> ConversionSummary:
    """Convert the LA scans found in `source`.

    Args:
        source: The folder of the scans, or the one above.
        dataset_id: nnU-Net dataset id.
        name: Dataset name.
        labeled: How many scans, from the first of the training list, keep their label.
        allow_missing: Go on without the scans of the lists that are not on disk.
        options: How to write.

    Raises:
        ConversionError: If the input is not as expected.
    """
    SPLIT.check_labeled(labeled)
    files, cropped = find_scans(source)
    missing = [scan for scan in SPLIT.names if scan not in files]
    SPLIT.check_missing(missing, source, allow_missing)
    roles, notes = SPLIT.roles(labeled, files)
    dataset = RawDataset(
        dataset_id=dataset_id,
        name=name,
        converter="la",
        source=str(source),
        protocol=f"LA 80/20 lists of the literature, first {labeled} training scans labeled",
        channel_names=CHANNELS,
        labels=LABELS,
        cases=tuple(
            RawCase(scan, (files[scan][0],), role, files[scan][1]) for scan, role in roles.items()
        ),
        label_map={} if cropped else LABEL_MAP,
        # Drawn on the scan's voxels; only shape and spacing of the label's header are compared.
        trust_label_shape=True,
        information=INFORMATION,
        options={"labeled": labeled, "allow_missing": allow_missing},
        missing=tuple(missing),
        notes=(H5_NOTES if cropped else _spacing_notes(files, roles)) + notes,
    )
    return write_raw_dataset(dataset, options or WriteOptions())


def find_scans(source: Path) -> tuple[dict[str, Pair], bool]:
    """Return image and label of each scan, and whether they come from the cropped h5 files."""
    for pattern in ("*/lgemri.nrrd", "*/*/lgemri.nrrd"):
        files = [p for p in sorted(source.glob(pattern)) if p.with_name("laendo.nrrd").is_file()]
        if files:
            return {
                scan: (ChallengeFile(path), ChallengeFile(path.with_name("laendo.nrrd")))
                for scan, path in _by_folder(files).items()
            }, False
    for pattern in ("*/mri_norm2.h5", "*/*/mri_norm2.h5"):
        files = sorted(source.glob(pattern))
        if files:
            return {
                scan: (
                    H5Volume(path, "image", SPACING_MM, "xyz"),
                    H5Volume(path, "label", SPACING_MM, "xyz"),
                )
                for scan, path in _by_folder(files).items()
            }, True
    raise ConversionError(
        f"There are no LA scans in {source}: expected ID/lgemri.nrrd with ID/laendo.nrrd, "
        "or ID/mri_norm2.h5."
    )


def _spacing_notes(files: Mapping[str, Pair], scans: Iterable[str]) -> tuple[str, ...]:
    """Say where a header's 1 mm was corrected, and which other spacing was kept."""
    corrected, kept = [], []
    for scan in scans:
        spacing = _stated_spacing(files[scan][0].path)
        if spacing and _says_1_mm(spacing):
            corrected.append(scan)
        elif spacing and not np.allclose(spacing, SPACING_MM, rtol=SPACING_TOLERANCE, atol=0):
            kept.append(f"{scan} ({' x '.join(f'{value:.4g}' for value in spacing)} mm)")
    notes = []
    if corrected:
        notes.append(
            f"spacing: the headers of {count_of(len(corrected), 'scan')} say 1 mm, where the "
            f"scans have 0.625 mm in every direction, which is written: {name_some(corrected, 3)}"
        )
    if kept:
        notes.append(
            f"spacing: the headers of {count_of(len(kept), 'scan')} say neither 0.625 mm, which "
            f"the scans of this challenge have, nor 1 mm; it is kept: {name_some(kept, 3)}"
        )
    return tuple(notes)


def _stated_spacing(path: Path) -> tuple[float, ...]:
    """Return the spacing in a header; () if it cannot be read, which the writer will name."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return ()
    return tuple(reader.GetSpacing())


def _by_folder(files: Iterable[Path]) -> dict[str, Path]:
    """Return the files by the name of their folder, which is the scan's."""
    found: dict[str, Path] = {}
    for path in files:
        other = found.setdefault(path.parent.name, path)
        if other != path:
            raise ConversionError(
                f"Scan {path.parent.name} is there twice, {other} and {path}; remove one of them."
            )
    return found


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_input(parser, "folder with ID/lgemri.nrrd and ID/laendo.nrrd, or ID/mri_norm2.h5")
    text = "number of labeled scans, the first of the list; papers use 8 or 16"
    add_number(parser, "--labeled", LABELED, text)
    add_allow_missing(parser)


def _convert(arguments: argparse.Namespace, options: WriteOptions) -> ConversionSummary:
    return convert_la(
        arguments.i,
        dataset_id=arguments.d,
        name=arguments.n,
        labeled=arguments.labeled,
        allow_missing=arguments.allow_missing,
        options=options,
    )


CONVERTER = Converter(
    "left atrium, 2018 Atrial Segmentation Challenge",
    _add_arguments,
    _convert,
    dataset=(DATASET_ID, NAME),
    example='nnUNetv2_spmc_convert la -i "2018LA_Seg_Training Set" --allow_missing',
)

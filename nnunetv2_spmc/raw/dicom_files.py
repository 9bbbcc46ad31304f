"""Find the DICOM images of a folder, and read headers without pixels.

A file belongs to a series by what it says, not by its name. What is no DICOM file is passed over,
and so is a DICOM object without an image (a report, a presentation state, structures, DICOMDIR).
A file that should be a slice and cannot be read is an error: the volume would lack it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from nnunetv2_spmc.raw.cases import ConversionError, count_of, name_some

DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
MAGIC = slice(128, 132)
# The first entry of a file without preamble: its tag, then its type or a small length.
FIRST_ENTRY = re.compile(
    rb"[\x02\x08]\0.\0([A-Z]{2}|.\0\0\0)|\0[\x02\x08]\0.([A-Z]{2}|\0\0\0)", re.DOTALL
)
HEADER_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "SeriesDescription"),
    *("ImageType", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"),
    *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("DoseGridScaling", "GridFrameOffsetVector", "SliceVector", "DetectorInformationSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ConcatenationUID"),
    # what may tell the volumes of a series apart
    *("TemporalPositionIdentifier", "EchoTime", "EchoNumbers", "DiffusionBValue", "TriggerTime"),
    *("AcquisitionNumber", "AcquisitionTime", "ContentTime"),
)
PLAIN_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
SIEMENS_CREATOR, SIEMENS_MOSAIC = 0x00190010, 0x0019100A


@dataclass(frozen=True)
class DicomFile:
    """An image file of a series, with the part of its header that is needed here."""

    path: Path
    header: Dataset
    num_frames: int
    size: tuple[int, int]  # columns, rows

    @property
    def name(self) -> str:
        """The file name."""
        return self.path.name


@dataclass(frozen=True)
class FoundSeries:
    """The images of one folder that have one SeriesInstanceUID."""

    uid: str
    folder: Path
    files: tuple[DicomFile, ...]

    def __str__(self) -> str:
        """The series, as a message names it among others."""
        header = self.files[0].header
        facts = [printable(header.get(key) or "") for key in ("Modality", "SeriesDescription")]
        facts.append(count_of(len(self.files), "file"))
        return f"{printable(self.uid)} in {self.folder}: {' '.join(fact for fact in facts if fact)}"


def find_series(folder: Path) -> list[FoundSeries]:
    """Return the series of images in a folder and below it.

    Raises:
        ConversionError: If a file that should be an image cannot be read.
    """
    folders = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    return [series for inner in folders for series in _series_of(inner)]


def _series_of(folder: Path) -> list[FoundSeries]:
    members: dict[str, list[DicomFile]] = {}
    others = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            continue
        image = _image_file(path)
        if image is None:
            others.append(path)
        else:
            uid = str(image.header.get("SeriesInstanceUID") or "(without SeriesInstanceUID)")
            members.setdefault(uid, []).append(image)
    _check_others(others, [file for files in members.values() for file in files])
    return [FoundSeries(uid, folder, tuple(files)) for uid, files in members.items()]


def _check_others(others: Iterable[Path], images: Iterable[DicomFile]) -> None:
    """Raise if a file that is not DICOM is named like the images next to it."""
    names = {_without_numbers(image.name) for image in images}
    lost = [
        path
        for path in others
        if not path.name.startswith(".")
        and (_without_numbers(path.name) in names or path.suffix.lower() in DICOM_ENDINGS)
        and not _is_dicom(path)
    ]
    if lost:
        raise ConversionError(
            f"{lost[0].parent} holds {count_of(len(lost), 'file')} named like DICOM images that "
            f"cannot be read as such ({name_some(path.name for path in lost)}); get them again, or "
            "remove them."
        )


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(MAGIC.stop)
    except OSError:  # a link to nothing, for example
        return False
    return start[MAGIC] == b"DICM" or FIRST_ENTRY.match(start) is not None


def _image_file(path: Path) -> DicomFile | None:
    """Return an image without its voxels; None where the file is not meant to be one.

    Raises:
        ConversionError: If it is a damaged image.
    """
    if not _is_dicom(path):
        return None
    with naming(path):
        tags: Any = [*HEADER_TAGS, SIEMENS_CREATOR, SIEMENS_MOSAIC]
        header = dcmread(path, force=True, stop_before_pixels=True, specific_tags=tags)
        list(header)  # decodes each entry
        return _if_image(path, header)


def _if_image(path: Path, header: Dataset) -> DicomFile | None:
    if all(keyword in header for keyword in ("Rows", "Columns", "BitsAllocated")):
        return _with_size(path, header)
    meta = getattr(header, "file_meta", None) or Dataset()
    object_class = UID(header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
    if not object_class and path.suffix.lower() not in DICOM_ENDINGS:
        return None
    if not object_class or "Image Storage" in object_class.name:
        raise damaged(path, "its header ends before the size of the image")
    return None


def _with_size(path: Path, header: Dataset) -> DicomFile:
    """Believe the size that the header states only as far as the file is long."""
    num_frames = int(header.get("NumberOfFrames") or 1)
    size = int(header.Columns), int(header.Rows)
    num_bits = num_frames * size[0] * size[1] * int(header.BitsAllocated)
    meta = getattr(header, "file_meta", None) or Dataset()
    is_plain = meta.get("TransferSyntaxUID") in (*PLAIN_SYNTAXES, None)
    num_bytes = num_bits // 8 if is_plain else num_frames
    if num_bits <= 0 or num_bytes > path.stat().st_size:
        raise damaged(
            path,
            f"{count_of(num_frames, 'image')} of {size[0]} x {size[1]} in a file of "
            f"{path.stat().st_size} bytes",
        )
    return DicomFile(path, header, num_frames, size)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file where its damaged bytes raise whatever the place that reads them raises."""
    try:
        yield
    except (ConversionError, MemoryError):
        raise
    except Exception as error:
        raise damaged(path, str(error) or type(error).__name__) from error


def damaged(path: Path, reason: str) -> ConversionError:
    """Return the error for a DICOM file that is cut off or damaged."""
    reason = printable(reason).rstrip(".!")
    return ConversionError(f"{path} is truncated or damaged ({reason}); get it again.")


def printable(value: Any) -> str:
    """Return what a header says, on one line of a message."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())

"""DICOM folders whose slices form no volume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.sandbox import BadInput, Here
from benchmarks.reliability.scans import convert_folder, folder_dataset

Arguments = Sequence[str | Path]
Slice = dict[str, Any]


def dicom() -> Iterator[BadInput]:
    """Series whose slices do not form one volume."""
    for name, change, names in (
        ("a missing slice", lambda s: s[:4] + s[5:], ("slice",)),
        ("two slices at one position", lambda s: [*s, s[3] | {"number": 99}], ("position",)),
        (
            "four time points",
            lambda s: [x | {"number": n} for n in range(4) for x in s],
            ("volumes",),
        ),
        ("a tilted gantry", _tilted, ("tilt",)),
        ("mixed orientations", _one_turned, ("orientation",)),
        ("two series", _two_series, ("series",)),
        ("one slice of another size", _one_larger, ("size",)),
        ("colours", lambda s: [x | {"rgb": True} for x in s], ("values per voxel",)),
        ("no positions", lambda s: [x | {"position": None} for x in s], ("position",)),
        ("uneven slices", _uneven, ("slice",)),
        ("a slice cut short", _one_cut, ("slice_03",)),
        ("nothing but a text", lambda s: [], ("mine",)),
    ):
        yield BadInput(f"DICOM: {name}", "convert", _series(change), ("scan", *names))


def _series(change: Callable[[list[Slice]], list[Slice]]) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        target = folder_dataset(here)
        folder = target / "images" / "scan"
        folder.mkdir()
        (folder / "readme.txt").write_text("a scan from mine\n")
        slices = [{"number": n, "position": (0.0, 0.0, 2.5 * n)} for n in range(10)]
        for index, one in enumerate(change(slices)):
            _write_slice(folder / f"slice_{index:02d}.dcm", **one)
        return convert_folder(target)

    return make


def _tilted(slices: list[Slice]) -> list[Slice]:
    return [s | {"position": (0.0, 0.7 * n, 2.5 * n)} for n, s in enumerate(slices)]


def _one_turned(slices: list[Slice]) -> list[Slice]:
    return [*slices[:-1], slices[-1] | {"orientation": (0, 1, 0, 0, 0, -1)}]


def _two_series(slices: list[Slice]) -> list[Slice]:
    return [*slices, *(s | {"series": "1.2.3.9"} for s in slices)]


def _one_larger(slices: list[Slice]) -> list[Slice]:
    return [*slices[:-1], slices[-1] | {"rows": 20}]


def _uneven(slices: list[Slice]) -> list[Slice]:
    return [s | {"position": (0.0, 0.0, float(n * n))} for n, s in enumerate(slices)]


def _one_cut(slices: list[Slice]) -> list[Slice]:
    return [s | {"cut": n == 3} for n, s in enumerate(slices)]


def _write_slice(
    file: Path,
    *,
    number: int,
    position: tuple[float, ...] | None,
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    series: str = "1.2.3.4",
    rows: int = 16,
    rgb: bool = False,
    cut: bool = False,
) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    voxels = np.random.default_rng(number).integers(0, 99, (rows, 16, 3 if rgb else 1), np.uint8)
    values: Mapping[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"{series}.{file.stem.rpartition('_')[2].lstrip('0') or 0}",
        "SeriesInstanceUID": series,
        "StudyInstanceUID": "1.2.3",
        "Modality": "CT",
        "InstanceNumber": number,
        "ImagePositionPatient": None if position is None else list(position),
        "ImageOrientationPatient": list(orientation),
        "PixelSpacing": [1.0, 1.0],
        "SliceThickness": 2.5,
        "Rows": rows,
        "Columns": 16,
        "SamplesPerPixel": voxels.shape[2],
        "PhotometricInterpretation": "RGB" if rgb else "MONOCHROME2",
        "PlanarConfiguration": 0 if rgb else None,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": voxels.tobytes(),
    }
    dataset = Dataset()
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(file, enforce_file_format=True)
    if cut:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) - 100])

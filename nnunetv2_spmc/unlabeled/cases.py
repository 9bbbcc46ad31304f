"""The unlabeled cases on disk: raw files in imagesUn, preprocessed files near the labeled ones.

nnUNet_preprocessed/Dataset510_Liver/
  nnUNetPlans_3d_fullres/                stock
  nnUNetPlans_3d_fullres_unlabeled/      one case: ID.b2nd, ID_seg.b2nd, ID.pkl
    failed/ID.txt                        why a case could not be preprocessed
  nnUNetPlans_3d_fullres_unlabeled.json  the plans they were made with, the files that were made
  spmc_scans.json                        what is known of all scans by content
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.unlabeled.case_properties import ForeignPickleError, read_properties

# The data file comes last: nnU-Net lists the cases of a folder by it.
CASE_ENDINGS = ("_seg.b2nd", ".pkl", ".b2nd")
FAILED_FOLDER = "failed"
UNLABELED_SUFFIX = "_unlabeled"


def unlabeled_folder(preprocessed_folder: str | Path) -> Path:
    """Return the folder of the unlabeled cases that belongs to one of labeled cases."""
    folder = Path(preprocessed_folder)
    return folder.with_name(f"{folder.name}{UNLABELED_SUFFIX}")


def finished_cases(folder: Path, *, verify: bool = False) -> list[str]:
    """Return the sorted identifiers whose preprocessed files are there and whole.

    Args:
        folder: The folder of preprocessed unlabeled cases; it may be absent.
        verify: Decompress every voxel, instead of looking at the ends of the files only.
    """
    names = set(os.listdir(folder)) if folder.is_dir() else set()
    started = sorted(
        name.removesuffix(".b2nd")
        for name in names
        if name.endswith(".b2nd") and not name.endswith("_seg.b2nd")
    )
    if verify:
        return [i for i in started if case_problem(folder, i, verify=True) is None]
    return [i for i in started if _is_whole_case(folder, i, names)]


def damaged_cases(folder: Path, identifiers: Iterable[str]) -> list[str]:
    """Return the sorted cases whose preprocessed files are not there or not whole, by their ends.

    Only cases in Blosc2 files are looked at, not those of an old nnU-Net.
    """
    names = set(os.listdir(folder))
    if not any(name.endswith(".b2nd") for name in names):
        return []
    return sorted(i for i in identifiers if not _is_whole_case(folder, i, names))


def _is_whole_case(folder: Path, identifier: str, names: Collection[str]) -> bool:
    """Tell what `case_problem` would, in a tenth of its time: there may be 100,000 cases."""
    if not all(f"{identifier}{ending}" in names for ending in CASE_ENDINGS):
        return False
    case = os.path.join(folder, identifier)  # pathlib would take longer than reading
    return (
        _is_whole_frame(f"{case}.b2nd")
        and _is_whole_frame(f"{case}_seg.b2nd")
        and _ends_like_a_pickle(f"{case}.pkl")
    )


def _is_whole_frame(file: str) -> bool:
    """Tell whether a Blosc2 file is as long as its header says.

    The header: https://github.com/Blosc/c-blosc2/blob/main/README_CFRAME_FORMAT.rst
    """
    try:
        with open(file, "rb", buffering=0) as stream:
            header = stream.read(24)
            size = os.fstat(stream.fileno()).st_size
    except OSError:
        return False
    return header[2:10] == b"b2frame\0" and int.from_bytes(header[16:24], "big") == size


def _ends_like_a_pickle(file: str) -> bool:
    try:
        with open(file, "rb", buffering=0) as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read(1) == pickle.STOP
    except OSError:
        return False


def case_problem(
    folder: Path, identifier: str, *, verify: bool = False, labeled: bool = False
) -> str | None:
    """Say what is wrong with the files of a preprocessed case, or None if it is whole.

    Args:
        folder: Of the preprocessed cases.
        identifier: Of the case.
        verify: Decompress every voxel and read the properties.
        labeled: It is a labeled case, whose properties say where the classes are.
    """
    import blosc2

    data_file, seg_file, properties_file = (
        folder / f"{identifier}{ending}" for ending in (".b2nd", "_seg.b2nd", ".pkl")
    )
    for file in (data_file, seg_file, properties_file):
        if not file.is_file():
            return f"{file.name} is missing"
    try:
        data = blosc2.open(urlpath=str(data_file), mode="r", dparams={"nthreads": 1})
        seg = blosc2.open(urlpath=str(seg_file), mode="r", dparams={"nthreads": 1})
        if (1, *data.shape[1:]) != tuple(seg.shape):
            return f"{data_file.name} and {seg_file.name} differ in shape"
        if verify and not (np.isfinite(data[:]).all() and seg[:].size):
            return f"{data_file.name} has NaN or infinite voxels"
        if not _is_whole_pickle(properties_file, verify, labeled):
            return f"{properties_file.name} is damaged"
    except ForeignPickleError as error:
        return str(error)
    except (
        RuntimeError,
        OSError,
        ValueError,
        AttributeError,
    ) as error:  # what blosc2 raises on damaged files
        return f"it cannot be opened ({error})"
    return None


def _is_whole_pickle(file: Path, verify: bool, labeled: bool) -> bool:
    if not _ends_like_a_pickle(str(file)):
        return False
    if not verify:
        return True
    try:
        properties = read_properties(file)
    except ForeignPickleError:
        raise
    except Exception:  # a damaged pickle may raise anything
        return False
    locations = properties.get("class_locations") if isinstance(properties, dict) else None
    return isinstance(locations, dict) if labeled else locations == {}


def failed_cases(folder: Path, cases: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the cases whose last preprocessing failed, with the reason.

    A case with a raw file that was replaced since then is left out: it deserves a new try.

    Args:
        folder: The folder of preprocessed unlabeled cases.
        cases: The raw cases to look for, identifier -> channel files.
    """
    failed = {}
    notes = folder / FAILED_FOLDER
    for file_name in sorted(os.listdir(notes)) if notes.is_dir() else []:
        note, identifier = notes / file_name, file_name.removesuffix(".txt")
        files = cases.get(identifier)
        if files is None or not file_name.endswith(".txt"):
            continue
        if all(Path(file).stat().st_mtime <= note.stat().st_mtime for file in files):
            failed[identifier] = note.read_text(encoding="utf-8").strip()
    return failed


def describe_failures(failed: Mapping[str, str], limit: int = 5) -> str:
    """Name the failed cases; the first few with their reason."""
    shown = sorted(failed)[:limit]
    text = "; ".join(f"{identifier}: {failed[identifier]}" for identifier in shown)
    others = sorted(set(failed) - set(shown))
    return f"{text}; and also {name_some(others, 50)}" if others else text

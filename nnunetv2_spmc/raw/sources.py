"""The files that a dataset is made of, how split.json names them, and which ones are left over."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from nnunetv2_spmc.raw.cases import ImageSource, RawDataset
from nnunetv2_spmc.raw.reader import VOLUME_ENDINGS

UNREAD_ENDINGS = (
    *(".mgz", ".mgh"),  # FreeSurfer
    *(".par", ".rec"),  # Philips
    *(".head", ".brik", ".brik.gz"),  # AFNI
    *(".mif", ".mif.gz", ".mih"),  # MRtrix
    *(".v", ".ima", ".dcm", ".dicom", ".img", ".img.gz"),
    *(".npy", ".npz", ".mat", ".h5", ".hdf5", ".zarr"),
    *(".nii.bz2", ".nii.xz", ".nii.zst", ".nrrd.gz", ".mha.gz", ".mnc.gz"),
    *(".zip", ".7z", ".rar", ".tar", ".tar.gz", ".tgz"),
)


def parts_of(source: ImageSource) -> tuple[ImageSource, ...]:
    """Return what a source is put together from: its `parts`, or itself."""
    parts: tuple[ImageSource, ...] = getattr(source, "parts", (source,))
    return parts


def files_of(source: ImageSource) -> list[Path]:
    """Return the files and folders that a source reads, which are its attributes of type Path."""
    return [
        value
        for part in parts_of(source)
        for value in getattr(part, "__dict__", {}).values()
        if isinstance(value, Path)
    ]


def input_folder(dataset: RawDataset) -> Path | None:
    """Return the folder that was converted; None where the scans come from no folder."""
    folder = Path(dataset.source)
    return folder if folder.is_absolute() and folder.is_dir() else None


def relative_name(path: Path, root: Path) -> str:
    """Return a path relative to the input folder; its name where there is no way, as on Windows."""
    try:
        name = Path(os.path.relpath(path, root)).as_posix()
    except ValueError:
        name = path.name
    return name.encode(errors="backslashreplace").decode()  # names may be no UTF-8


def source_name(source: ImageSource, root: Path | None) -> str:
    """Return a source as split.json names it: its paths are relative to the input folder."""
    text = str(source)
    if root is None:
        return text
    for path in files_of(source):
        text = text.replace(str(path), relative_name(path, root))
    return text


def is_unread(name: str) -> bool:
    """Whether a file is a scan, or may hold some, in a format that is not read."""
    return name.lower().endswith(UNREAD_ENDINGS) and not name.lower().endswith(VOLUME_ENDINGS)


def unused_files(dataset: RawDataset) -> tuple[str, ...]:
    """Return what lies in the input folder, or that of the labels, and is no part of the dataset.

    An unused folder is one entry that ends in a slash. Hidden files are passed
    over.
    """
    root = input_folder(dataset)
    if root is None:
        return ()
    sources = [s for case in dataset.cases for s in (*case.images, case.label) if s is not None]
    paths = [path for source in sources for path in files_of(source)] + list(dataset.also_read)
    used = {_absolute(other) for path in paths for other in (path, *_companions(path))}
    holding = {parent for path in used for parent in path.parents}
    folders = dict.fromkeys(_absolute(Path(f)) for f in (root, dataset.label_source) if f)
    found = [path for folder in folders for path in _unused(folder, used, holding)]
    names = {relative_name(p, root) + ("/" if p.is_dir() else ""): None for p in found}
    inside = {relative_name(folder, root) + "/" for folder in folders}
    return tuple(name for name in names if name not in inside)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # `..` taken out: equal paths are equal


def _unused(folder: Path, used: Collection[Path], holding: Collection[Path]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path in used:
            if path.is_dir():  # a DICOM series; its files may be called anything
                yield from (p for p in sorted(path.rglob("*")) if p not in used and _is_other(p))
        elif path in holding:
            yield from _unused(path, used, holding)
        elif not (path.is_dir() and _is_empty(path)):
            yield path


def _is_empty(folder: Path) -> bool:
    try:
        return not any(folder.iterdir())
    except OSError:  # not ours to read
        return False


def _is_other(path: Path) -> bool:
    """Whether a file in a DICOM folder is a scan in another format."""
    is_dicom = path.suffix.lower() in (".dcm", ".dicom", ".ima")
    name = path.name.lower()
    return not is_dicom and name.endswith((*VOLUME_ENDINGS, *UNREAD_ENDINGS)) and path.is_file()


def _companions(header: Path) -> list[Path]:
    """Return the files with the voxels of a header: .img of .hdr, what .mhd and .nhdr name."""
    ending = header.suffix.lower()
    if ending == ".hdr":
        return [header.with_suffix(e) for e in (".img", ".IMG", ".img.gz")]
    if ending not in (".mhd", ".nhdr") or not header.is_file():
        return []
    with header.open(encoding="latin-1") as file:
        lines = [line.strip() for line in file.read(1 << 16).splitlines() if line.strip()]
    values = [line.replace("=", ":").partition(":")[2].strip() or line for line in lines]
    return [header.parent / value for value in values]

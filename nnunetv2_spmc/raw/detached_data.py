"""Find the voxels of formats whose headers are text, or that keep them in another file.

Only as much of a header is read as says where the voxels are; the rest is SimpleITK's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.voxel_data import VoxelData

MAX_HEADER_BYTES = 1 << 20
GIPL_HEADER_BYTES = 256
MAX_FILES = 10000
VTK_SECTION = re.compile(rb"\n(METADATA|SCALARS|VECTORS|NORMALS|TENSORS|FIELD|CELL_DATA)\s")


def find_voxels(file: Path, ending: str) -> VoxelData:
    """Return where the voxels of a file lie.

    Args:
        file: the file with the header.
        ending: its ending in lower case, which says the format.

    Raises:
        DataError: If it points to a file that is not there, or in another folder.
    """
    if ending in (".gipl", ".gipl.gz"):
        is_gzip = ending.endswith(".gz")
        return VoxelData((file,), skip=GIPL_HEADER_BYTES, encoding="gzip" if is_gzip else "raw")
    with file.open("rb") as stream:
        start = stream.read(MAX_HEADER_BYTES)
    if ending in (".nrrd", ".nhdr"):
        return _of_nrrd(file, start)
    if ending in (".mha", ".mhd"):
        return _of_metaimage(file, start)
    if ending == ".vtk":
        return _of_vtk(file, start)
    return VoxelData((file,), encoding="unknown")


def pair_image(header: Path) -> Path:
    """Return the .img or .img.gz of a .hdr, whatever its capitals.

    Raises:
        DataError: If there is none, or more than one.
    """
    stem = header.name[: -len(".hdr")]
    usual = header.parent / f"{stem}.img"
    if usual.is_file():
        return usual
    names = tuple(f"{stem}{ending}".casefold() for ending in (".img", ".img.gz"))
    found = [path for path in header.parent.iterdir() if path.name.casefold() in names]
    if len(found) != 1:
        raise DataError(
            f"{header} needs a file with its voxels, {stem}.img, and there "
            f"{'are several' if found else 'is none'}; put the pair into one folder"
        )
    return found[0]


def _of_nrrd(file: Path, start: bytes) -> VoxelData:
    end = re.search(rb"\r?\n\r?\n", start)
    text = start[: end.start() if end else None].decode("latin-1")
    fields = dict(re.findall(r"^([a-z ]+): *(.*?)\s*$", text, re.MULTILINE))
    files: tuple[Path, ...] = (file,)
    offset = end.end() if end else len(start)
    name = fields.get("data file") or fields.get("datafile")
    if name:
        listed = text.partition(name)[2].split("\n")[1:] if name.startswith("LIST") else ()
        files, offset = _beside(file, name, listed), 0
    encoding = fields.get("encoding", "").lower()
    skip = _integer(fields.get("byte skip", "0"))
    if encoding == "raw":
        if skip < 0 or "line skip" in fields:  # -1: what comes before the voxels is no header
            return VoxelData(files, may_go_on=True)
        return VoxelData(files, offset + skip)
    if encoding in ("gzip", "gz") and len(files) == 1 and "line skip" not in fields:
        return VoxelData(files, offset, skip, encoding="gzip")
    if encoding in ("txt", "text", "ascii") and len(files) == 1:
        return VoxelData(files, offset, encoding="text")
    return VoxelData(files, encoding="unknown")


def _of_metaimage(file: Path, start: bytes) -> VoxelData:
    end = re.search(rb"^ElementDataFile\s*=\s*(.*?)\s*$", start, re.MULTILINE)
    if end is None:
        raise DataError(
            f"{file} is truncated or damaged, its header has no ElementDataFile; get it again"
        )
    text = start[: end.start()].decode("latin-1")
    fields = {
        key: value.upper()
        for key, value in re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", text, re.MULTILINE)
    }
    for key in ("Offset", "Position", "Origin", "TransformMatrix", "Rotation", "Orientation"):
        if re.search("NAN|INF", fields.get(key, "")):  # SimpleITK takes them for 0
            raise DataError(f"{file} has {key} = {fields[key].lower()}; correct the header")
    name = end[1].decode("latin-1")
    listed = start[end.end() :].decode("latin-1").split("\n") if name.startswith("LIST") else ()
    is_local = name.upper() == "LOCAL"
    files = (file,) if is_local else _beside(file, name, listed)
    offset = start.index(b"\n", end.end()) + 1 if is_local and b"\n" in start[end.end() :] else 0
    skip = _integer(fields.get("HeaderSize", "0"))
    if skip < 0:  # the voxels are at the file's end
        return VoxelData(files, may_go_on=True)
    if fields.get("BinaryData", "TRUE").startswith("F"):
        return VoxelData(files, offset, encoding="text" if len(files) == 1 else "unknown")
    if fields.get("CompressedData", "FALSE").startswith("T"):
        return VoxelData(files, offset, encoding="zlib" if len(files) == 1 else "unknown")
    return VoxelData(files, offset + skip)


def _of_vtk(file: Path, start: bytes) -> VoxelData:
    voxels = re.search(rb"^SCALARS .*\nLOOKUP_TABLE .*\n", start, re.MULTILINE)
    if voxels is None:  # SimpleITK would take another line for voxels
        raise DataError(
            f"{file} is truncated or damaged, its header has no SCALARS with a LOOKUP_TABLE; get "
            "it again, or convert it to .nii.gz"
        )
    if re.search(rb"^ASCII\s*$", start[: voxels.start()], re.MULTILINE):
        return VoxelData((file,), voxels.end(), encoding="text")
    with file.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
        more = VTK_SECTION.search(content, voxels.end()) is not None
    return VoxelData((file,), voxels.end(), may_go_on=more)


def _beside(header: Path, name: str, listed: Sequence[str]) -> tuple[Path, ...]:
    """Return the files that a header names: one, LIST with names below, or `%03d.raw 1 20 1`.

    Raises:
        DataError: If one is missing or lies in another folder.
    """
    names = [line.strip() for line in listed if line.strip()] or [name]
    pattern = re.fullmatch(r"([^%]*%0?\d?[diu][^%\s]*)\s+(\d+)\s+(\d+)\s+(\d+).*", name)
    if pattern:
        first, last, step = (int(number) for number in pattern.groups()[1:])
        names = [pattern[1] % n for n in range(first, last + 1, max(step, 1))[:MAX_FILES]]
    for part in names:
        if part in ("", ".", "..") or re.search(r"[/\\]", part):
            raise DataError(
                f"{header} keeps its voxels in {part or 'no file'}, and a header may name only a "
                "file in its own folder; put both into one folder and correct the header"
            )
        if not (header.parent / part).is_file():
            raise DataError(
                f"{header} keeps its voxels in {part}, which is not there; put it next to the "
                "header"
            )
    return tuple(header.parent / part for part in names)


def _integer(text: str) -> int:
    """Return a number of a header; 0 if it is not a number, and SimpleITK complains of that."""
    match = re.match(r"\s*(-?\d{1,18})", text)
    return int(match[1]) if match else 0

"""Whether all voxels that a header speaks of are in the file, to the last checksum.

Readers fill what is missing with zeros or with what happens to lie in memory, skip checksums, and
believe a header that asks for more memory than there is.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.voxel_values import ValueRange

BLOCK_BYTES = 1 << 22  # a multiple of every voxel size
MAX_PADDING_BYTES = 4096  # of zeros, to fill a block of a disk or a tape
MAX_DEFLATE_RATIO = 1032


@dataclass(frozen=True)
class VoxelData:
    """Where the voxels lie.

    Attributes:
        files: one file, or one for each slice.
        offset: bytes of the file before the voxels, or before what is compressed.
        skip: bytes of the uncompressed data before the voxels.
        encoding: "unknown" where only a library can tell.
        may_go_on: something else may follow the voxels.
    """

    files: tuple[Path, ...]
    offset: int = 0
    skip: int = 0
    encoding: Literal["raw", "gzip", "zlib", "text", "unknown"] = "raw"
    may_go_on: bool = False


class ByteStream(Protocol):
    """An open file, compressed or not."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        ...


class _ZlibStream:
    """The bytes of a zlib stream; it compares the checksum at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._zlib = file, zlib.decompressobj()

    def read(self, size: int, /) -> bytes:
        while not self._zlib.eof:
            compressed = self._zlib.unconsumed_tail or self._file.read(1 << 16)
            block = self._zlib.decompress(compressed, size)
            if block:
                return block
            if not compressed:
                raise EOFError("the compressed data ends too early")
        return b""


def check_length(
    name: Path,
    data: VoxelData,
    shape: Sequence[int],
    dtype: np.dtype,
    values: ValueRange | None = None,
) -> None:
    """Raise DataError unless there are as many voxels as the header says.

    Args:
        name: the file with the header.
        data: where its voxels are.
        shape: number of voxels per axis.
        dtype: of a voxel.
        values: receives the voxels; without it a file that is not compressed is not read.
    """
    num_bytes = math.prod(shape) * dtype.itemsize
    stored = data.files[0] if len(data.files) == 1 else name
    try:
        missing, surplus = _missing_and_surplus(data, num_bytes, dtype, values)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{stored} is truncated or damaged ({error}); get it again") from error
    if missing > 0:
        what = "numbers" if data.encoding == "text" else "bytes"
        raise DataError(f"{stored} is truncated, {missing} {what} are missing; get it again")
    # a header that is wrong by one voxel along an axis leaves a plane over, or more
    if surplus > num_bytes / max(shape) / 2 and not data.may_go_on:
        raise DataError(
            f"{stored} has {surplus} bytes more than the header speaks of, {_count(shape)} voxels "
            f"of type {dtype.name}; get it again, or correct the header"
        )


def _missing_and_surplus(
    data: VoxelData, num_bytes: int, dtype: np.dtype, values: ValueRange | None
) -> tuple[int, int]:
    size = sum(file.stat().st_size for file in data.files) - data.offset - data.skip
    if data.encoding == "text":
        with data.files[0].open("rb") as file:
            file.seek(data.offset)
            return num_bytes // dtype.itemsize - len(file.read().replace(b",", b" ").split()), 0
    if data.encoding == "unknown":
        return num_bytes - size * MAX_DEFLATE_RATIO, 0
    if data.encoding == "raw" and (values is None or size < num_bytes):
        surplus = max(size - num_bytes, 0)
        if surplus <= MAX_PADDING_BYTES and _ends_blank(data.files[-1], surplus):
            surplus = 0
        return num_bytes - size, surplus
    with _stream(data) as stream:
        _skip(stream, data.skip)
        missing = _read_voxels(stream, num_bytes, dtype, values)
        return missing, _read_rest(stream)


@contextmanager
def _stream(data: VoxelData) -> Iterator[ByteStream]:
    with data.files[0].open("rb") as file:
        file.seek(data.offset)
        if data.encoding == "gzip":
            yield gzip.GzipFile(fileobj=file)
        else:
            yield _ZlibStream(file) if data.encoding == "zlib" else file


def _skip(stream: ByteStream, num_bytes: int) -> None:
    while num_bytes > 0 and (block := stream.read(min(num_bytes, BLOCK_BYTES))):
        num_bytes -= len(block)


def _read_voxels(
    stream: ByteStream, num_bytes: int, dtype: np.dtype, values: ValueRange | None
) -> int:
    """Return how many bytes are missing."""
    while num_bytes > 0 and (block := stream.read(min(num_bytes, BLOCK_BYTES))):
        num_bytes -= len(block)
        if values is not None:
            whole = len(block) // dtype.itemsize * dtype.itemsize
            values.add(np.frombuffer(block[:whole], dtype))
    return num_bytes


def _read_rest(stream: ByteStream) -> int:
    """Return how many bytes follow, but none if they only fill a block; checksums come last."""
    size, is_blank = 0, True
    while block := stream.read(BLOCK_BYTES):
        size += len(block)
        is_blank = is_blank and not block.strip(b"\0")
    return 0 if is_blank and size <= MAX_PADDING_BYTES else size


def _ends_blank(file: Path, size: int) -> bool:
    with file.open("rb") as stream:
        stream.seek(file.stat().st_size - size)
        return not stream.read().strip(b"\0")


def _count(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))

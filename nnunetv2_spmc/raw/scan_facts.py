"""What is kept of a scan to compare it with others: digests, geometry, intensities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.checks import orientation_code
from nnunetv2_spmc.raw.scan import read_as_it_is
from nnunetv2_spmc.raw.thumbnails import thumbnail
from nnunetv2_spmc.raw.voxel_digest import voxel_digest

PERCENTILES = (0.5, *range(5, 100, 5), 99.5)
SAMPLED_VOXELS = 1 << 18  # enough for percentiles


@dataclass(frozen=True)
class ScanFacts:
    """What tells scans apart, and which sites they come from.

    Attributes:
        digests: One per channel, see `voxel_digest`; of its bytes where a file cannot be read.
        orientation: "LPS" for example; empty where the scan cannot be read, like all that follows.
        size: Voxels along x, y, z.
        spacing_mm: Along x, y, z.
        intensities: The `PERCENTILES` of the voxels, per channel.
        thumbnail: Of the first channel; not in JSON.
    """

    digests: tuple[str, ...]
    orientation: str = ""
    size: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    intensities: tuple[tuple[float, ...], ...] = ()
    thumbnail: np.ndarray | None = field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        content = asdict(replace(self, thumbnail=None))
        del content["thumbnail"]
        return dict(json.loads(json.dumps(content)))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ScanFacts:
        """Return what `to_json` was called on, but for the thumbnail.

        Raises:
            KeyError, TypeError: It is something else.
        """
        return cls(
            tuple(content["digests"]),
            content["orientation"],
            tuple(content["size"]),
            tuple(content["spacing_mm"]),
            tuple(map(tuple, content["intensities"])),
        )


NO_FACTS = ScanFacts(digests=())


def facts_of(images: Sequence[sitk.Image]) -> ScanFacts:
    """Return the facts of a scan, from its channels."""
    first = images[0]
    is_volume = first.GetDimension() == 3
    return ScanFacts(
        digests=tuple(voxel_digest(image) for image in images),
        orientation=orientation_code(first) if is_volume else "",
        size=first.GetSize(),
        spacing_mm=first.GetSpacing(),
        intensities=tuple(_percentiles(image) for image in images),
        thumbnail=thumbnail(first),
    )


def facts_of_files(files: Sequence[str]) -> ScanFacts:
    """Return the facts of a raw case, from one file per channel."""
    try:
        return facts_of([read_as_it_is(Path(file)) for file in files])
    except (DataError, OSError, RuntimeError, TypeError, ValueError):  # damaged, or strange
        return ScanFacts(digests=tuple(_bytes_digest(Path(file)) for file in files))


def _percentiles(image: sitk.Image) -> tuple[float, ...]:
    voxels = sitk.GetArrayViewFromImage(image).reshape(-1)
    sample = voxels[:: max(1, voxels.size // SAMPLED_VOXELS)]
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return ()
    return tuple(float(f"{p:.5g}") for p in np.percentile(sample, PERCENTILES))


def _bytes_digest(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    if file.exists() and not file.is_file():  # a pipe would never end
        return f"unread {file}: no file"
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError as error:  # equal to nothing else
        return f"unread {file}: {error.strerror}"
    return digest.hexdigest()

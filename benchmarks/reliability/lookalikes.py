"""Which changed copies of real scans are found to look alike, and which scans of two patients are.

python -m benchmarks.reliability.lookalikes DATA, which has acdc128/, la_half/ and hippocampus/
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from benchmarks.performance.tables import markdown
from nnunetv2_spmc.raw import lookalikes
from nnunetv2_spmc.raw.thumbnails import coarse, fine, moved, similarity, thumbnail, unit_vectors

SCANS = {  # dataset -> pattern
    "ACDC": "acdc128/training/*/*_frame??.nii.gz",
    "LA": "la_half/images/*.nii.gz",
    "Hippocampus": "hippocampus/images/*.nii.gz",
}
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def cropped(share: float, axes: int) -> Change:
    """Cut a share of each of some axes off, at both ends."""

    def change(array: np.ndarray, random: np.random.Generator) -> np.ndarray:
        for axis in random.permutation(3)[:axes]:
            length = array.shape[axis]
            cut = round(share * length)
            begin = int(random.integers(0, cut + 1))
            array = np.take(array, range(begin, begin + length - cut), axis)
        return array

    return change


def shifted(share: float, axes: int) -> Change:
    """Move the field of view along some axes; what was not in it is the darkest value."""

    def change(array: np.ndarray, random: np.random.Generator) -> np.ndarray:
        shift = [0.0] * 3
        for axis in random.permutation(3)[:axes]:
            shift[axis] = random.choice([-1, 1]) * round(share * array.shape[axis])
        return ndimage.shift(array, shift, order=0, cval=array.min())

    return change


def one_voxel(array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Change a voxel."""
    array = array.copy()
    array[tuple(random.integers(array.shape))] = array.max() * 2 + 1
    return array


def noised(share: float) -> Change:
    """Add noise of a share of the standard deviation."""
    return lambda array, random: array + random.normal(0, share * array.std(), array.shape)


def resampled(factor: float) -> Change:
    """Resample to another voxel size."""
    return lambda array, _: ndimage.zoom(
        array, [factor if n > 16 else 1 for n in array.shape], order=1
    )


CHANGES: Mapping[str, Change] = {
    "one voxel changed": one_voxel,
    "noise, 10 % of the standard deviation": noised(0.1),
    "noise, 30 %": noised(0.3),
    "resampled to 2/3 of the voxels along an axis": resampled(2 / 3),
    "resampled to 3/2": resampled(3 / 2),
    "clipped at its 90th percentile": lambda array, _: np.minimum(array, np.percentile(array, 90)),
    "32 grey levels": lambda array, _: np.floor(array * 32 / (array.max() + 1)),
    "cropped by 5 %, one axis": cropped(0.05, 1),
    "cropped by 5 %, all axes": cropped(0.05, 3),
    "cropped by 10 %, one axis": cropped(0.1, 1),
    "cropped by 10 %, all axes": cropped(0.1, 3),
    "shifted by 5 %, one axis": shifted(0.05, 1),
    "shifted by 5 %, all axes": shifted(0.05, 3),
    "shifted by 10 %, one axis": shifted(0.1, 1),
    "shifted by 10 %, all axes": shifted(0.1, 3),
}


def read(file: Path) -> np.ndarray:
    """Return the voxels of a scan."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file))).astype(np.float32)


def picture(array: np.ndarray) -> np.ndarray:
    """Return the thumbnail of voxels."""
    made = thumbnail(sitk.GetImageFromArray(array.astype(np.float32)))
    assert made is not None
    return made


def patient(name: str) -> str:
    """Return the patient key that the name of a scan tells: that of ACDC."""
    return name.split("_frame")[0]


def found(copies: Mapping[str, np.ndarray], originals: Mapping[str, np.ndarray]) -> float:
    """Return the share of the copies that a search among all originals would report."""
    names = sorted(originals)
    rows = unit_vectors(np.stack([coarse(originals[name]).ravel() for name in names]))
    number = 0
    for name, copy in copies.items():
        values = moved(coarse(copy)) @ rows.T
        best = values.max(axis=0)
        own = names.index(name)
        is_looked_at = (
            best[own] >= lookalikes.WORTH_A_LOOK
            and (best > best[own]).sum() < lookalikes.BEST_PARTNERS
        )
        if is_looked_at:
            start = int(values[:, own].argmax())
            value = similarity(fine(copy), fine(originals[name]), start)
            number += value >= lookalikes.ALIKE
    return number / len(copies)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the pairs that are reported, and how many changed copies are."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--copies", type=int, default=40, help="scans to change in every way")
    arguments = parser.parse_args(argv)
    rates: dict[str, dict[str, object]] = {name: {"change": name} for name in CHANGES}
    for dataset, pattern in SCANS.items():
        files = {f.name.removesuffix(".nii.gz"): f for f in sorted(arguments.data.glob(pattern))}
        pictures = {name: picture(read(file)) for name, file in files.items()}
        pairs = lookalikes.lookalikes(pictures, alike=0.5)
        others = [pair for pair in pairs if patient(pair[0]) != patient(pair[1])]
        print(f"{dataset}, {len(files)} scans. Two patients: ", end="")
        print("; ".join(f"{one} and {other} {value:.3f}" for one, other, value in others[:6]))
        random = np.random.default_rng(0)
        chosen = random.permutation(sorted(files))[: arguments.copies]
        for name, change in CHANGES.items():
            copies = {i: picture(change(read(files[i]), random)) for i in chosen}
            rates[name][dataset] = f"{100 * found(copies, pictures):.0f} %"
    print(markdown(list(rates.values())))


if __name__ == "__main__":
    main()

"""Phantom: small synthetic scans of one of two looks, for the demo, the tests and first tries.

Source: generated; no licence applies. Labels: 1 organ, 2 core, which lies across its border; those
of the other look are in heart.py. Counts: as asked for. A case depends on the seed, its role and
its number alone, so the labeled and test cases stay the same when unlabeled ones are added.

Organ and core are deformed ellipsoids in a body with unlabeled structures of similar brightness,
under a bias field, blurred borders and noise. Contrasts vary between cases: a few labeled cases
do not show all of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from nnunetv2_spmc.dataset_conversion import Converter, heart
from nnunetv2_spmc.dataset_conversion.arguments import add_number, add_seed
from nnunetv2_spmc.dataset_conversion.smooth_noise import smooth_noise
from nnunetv2_spmc.raw.cases import ConversionError, RawCase, RawDataset, Role
from nnunetv2_spmc.raw.summary import ConversionSummary
from nnunetv2_spmc.raw.writer import WriteOptions, write_raw_dataset

DATASET_ID = 500
NAME = "Phantom"
LABELED, UNLABELED, TEST = 6, 16, 6
SIZE = (48, 48, 32)  # x, y, z
SPACING_MM = (1.0, 1.0, 2.0)
LOOK = "organ"
CHANNELS = ("MRI",)
LABELS = {"background": 0, "organ": 1, "core": 2}
STREAMS: tuple[Role, ...] = ("labeled", "unlabeled", "test")
PREFIX: dict[Role, str] = {"labeled": "train", "unlabeled": "unlabeled", "test": "test"}


@dataclass(frozen=True)
class PhantomVolume:
    """Image or label of one synthetic case."""

    seed: tuple[int, int, int]  # of everything, of the role in STREAMS, of the case
    size: tuple[int, int, int]
    part: Literal["image", "label"]
    look: str

    def __str__(self) -> str:
        """The source, as messages and split.json name it."""
        return f"phantom {self.part}, seed {list(self.seed)}, size {list(self.size)}"

    def read(self) -> sitk.Image:
        """Generate the case."""
        look = LOOKS[self.look]
        make = look.arrays[STREAMS[self.seed[1]]]
        image, label = make(np.random.default_rng(self.seed), self.size)
        volume = sitk.GetImageFromArray(image if self.part == "image" else label)
        volume.SetSpacing(look.spacing_mm)
        return volume


def convert_phantom(
    *,
    dataset_id: int = DATASET_ID,
    name: str = NAME,
    labeled: int = LABELED,
    unlabeled: int = UNLABELED,
    test: int = TEST,
    size: Sequence[int] | None = None,
    look: str = LOOK,
    seed: int = 0,
    options: WriteOptions | None = None,
) -> ConversionSummary:
    """Generate a phantom dataset.

    Args:
        dataset_id: nnU-Net dataset id.
        name: Dataset name.
        labeled: Number of labeled cases.
        unlabeled: Number of unlabeled cases; their labels go to labelsUn.
        test: Number of test cases.
        size: Voxels along x, y, z; None takes that of the look.
        look: Key of `LOOKS`.
        seed: Seed of everything.
        options: How to write.

    Raises:
        ConversionError: For counts or sizes that make no dataset, or an unknown look.
    """
    if look not in LOOKS:
        raise ConversionError(f"The look must be one of {', '.join(LOOKS)}, got {look!r}.")
    chosen = LOOKS[look]
    size = chosen.size if size is None else size
    counts: dict[Role, int] = {"labeled": labeled, "unlabeled": unlabeled, "test": test}
    if min(counts.values()) < 0:
        raise ConversionError(f"Numbers of cases cannot be negative, got {counts}.")
    if len(size) != 3 or min(size) < chosen.smallest_side:
        raise ConversionError(
            f"The size needs three sides of at least {chosen.smallest_side} voxels, got "
            f"{list(size)}."
        )
    if seed < 0:
        raise ConversionError(f"The seed cannot be negative, got {seed}.")
    cases = tuple(
        _case(role, number, seed, (size[0], size[1], size[2]), look)
        for role, count in counts.items()
        for number in range(count)
    )
    dataset = RawDataset(
        dataset_id=dataset_id,
        name=name,
        converter="phantom",
        source="synthetic",
        protocol=f"{labeled} labeled, {unlabeled} unlabeled, {test} test cases, generated",
        channel_names=CHANNELS,
        labels=chosen.labels,
        cases=cases,
        information={"description": chosen.description},
        seed=seed,
        options={"labeled": labeled, "unlabeled": unlabeled, "test": test}
        | {"size": list(size), "look": look},
    )
    return write_raw_dataset(dataset, options or WriteOptions())


def write_phantom(
    raw: Path,
    *,
    dataset_id: int = DATASET_ID,
    name: str = NAME,
    labeled: int = LABELED,
    unlabeled: int = UNLABELED,
    test: int = TEST,
    size: Sequence[int] | None = None,
    seed: int = 0,
    preprocessed: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a phantom dataset below `raw` in this process and return its folder.

    With fewer than five labeled cases `preprocessed` (or nnUNet_preprocessed) is needed as well,
    for splits_final.json. See `convert_phantom` for the rest.
    """
    return convert_phantom(
        dataset_id=dataset_id,
        name=name,
        labeled=labeled,
        unlabeled=unlabeled,
        test=test,
        size=size,
        seed=seed,
        options=WriteOptions(raw=raw, preprocessed=preprocessed, overwrite=overwrite),
    ).folder


def _case(role: Role, number: int, seed: int, size: tuple[int, int, int], look: str) -> RawCase:
    stream = (seed, STREAMS.index(role), number)
    return RawCase(
        identifier=f"{PREFIX[role]}_{number:03d}",
        images=(PhantomVolume(stream, size, "image", look),),
        role=role,
        label=PhantomVolume(stream, size, "label", look),
    )


def phantom_arrays(
    rng: np.random.Generator, size: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Generate one case.

    Args:
        rng: Source of all randomness.
        size: Voxels along x, y, z.

    Returns:
        Image (z, y, x) int16 and label (z, y, x) uint8 with values 0, 1, 2.
    """
    shape = size[::-1]
    position = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    position += 0.12 * np.stack([smooth_noise(rng, shape) for _ in range(3)])
    body = _ellipsoid(position, np.zeros(3), rng.uniform(0.8, 0.95, 3))
    centre, radii = rng.uniform(-0.2, 0.2, 3), rng.uniform(0.35, 0.6, 3)
    organ = _ellipsoid(position, centre, radii)
    towards_border = rng.normal(size=3)
    towards_border *= 0.5 / np.linalg.norm(towards_border)
    core = _ellipsoid(position, centre + towards_border * radii, radii * rng.uniform(0.55, 0.75, 3))
    label = np.where(core, 2, organ).astype(np.uint8)
    return _image(rng, position, body, label), label


def _image(
    rng: np.random.Generator, position: np.ndarray, body: np.ndarray, label: np.ndarray
) -> np.ndarray:
    """Paint the structures, then blur, bias field and noise; int16."""
    organ_contrast = rng.uniform(0.2, 0.4)
    brightness = 0.4 * body
    for _ in range(3):  # structures that look like the organ and are none
        distractor = _ellipsoid(position, rng.uniform(-0.7, 0.7, 3), rng.uniform(0.1, 0.2, 3))
        brightness = np.where(distractor & body, 0.4 + organ_contrast, brightness)
    brightness = np.where(label == 1, 0.4 + organ_contrast, brightness)
    core_contrast = organ_contrast + rng.uniform(0.15, 0.3)
    brightness = np.where(label == 2, 0.4 + core_contrast, brightness)
    brightness = brightness + 0.03 * smooth_noise(rng, label.shape, width=1 / 24) * body
    # Spacing is twice as large along z, so the same blur in mm is half as wide in voxels there.
    brightness = gaussian_filter(brightness, (0.6, 1.2, 1.2))
    brightness *= np.exp(0.2 * smooth_noise(rng, label.shape, width=1 / 5))
    brightness += rng.normal(0, rng.uniform(0.04, 0.09), label.shape)
    return np.round(1000 * brightness).astype(np.int16)


def _ellipsoid(position: np.ndarray, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    offset = (position - centre[:, None, None, None]) / radii[:, None, None, None]
    return (offset**2).sum(axis=0) <= 1


Arrays = Callable[[np.random.Generator, tuple[int, int, int]], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Look:
    """What the scans of a phantom show; `arrays` makes those of a role."""

    description: str
    arrays: Mapping[Role, Arrays]
    labels: Mapping[str, int]
    size: tuple[int, int, int]
    smallest_side: int
    spacing_mm: tuple[float, float, float]


LOOKS = {
    LOOK: Look(
        "Synthetic scans of a deformed organ with a core",
        dict.fromkeys(STREAMS, phantom_arrays),
        LABELS,
        SIZE,
        16,
        SPACING_MM,
    ),
    "heart": Look(
        "Synthetic short-axis slices of hearts",
        {
            "labeled": partial(heart.heart_arrays, scanner=heart.GOOD),
            "unlabeled": partial(heart.heart_arrays, scanner=heart.POOR),
            "test": partial(heart.heart_arrays, scanner=heart.POOR),
        },
        heart.LABELS,
        heart.SIZE,
        8,
        heart.SPACING_MM,
    ),
}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    for name, number in (("labeled", LABELED), ("unlabeled", UNLABELED), ("test", TEST)):
        add_number(parser, f"--{name}", number, f"{name} cases")
    parser.add_argument(
        "--size",
        nargs=3,
        type=int,
        metavar=("X", "Y", "Z"),
        help=f"voxels (default: {' '.join(map(str, SIZE))}; hearts: "
        f"{' '.join(map(str, heart.SIZE))})",
    )
    parser.add_argument(
        "--look",
        choices=LOOKS,
        default=LOOK,
        help="what the scans show: an organ with a core, or hearts, labeled ones from a better "
        "scanner than the others (default: %(default)s)",
    )
    add_seed(parser, "seed of everything")


def _convert(arguments: argparse.Namespace, options: WriteOptions) -> ConversionSummary:
    return convert_phantom(
        dataset_id=arguments.d,
        name=arguments.n,
        labeled=arguments.labeled,
        unlabeled=arguments.unlabeled,
        test=arguments.test,
        size=arguments.size,
        look=arguments.look,
        seed=arguments.seed,
        options=options,
    )


CONVERTER = Converter(
    "small synthetic scans, to try everything out",
    _add_arguments,
    _convert,
    dataset=(DATASET_ID, NAME),
    example="nnUNetv2_spmc_convert phantom -d 500",
)

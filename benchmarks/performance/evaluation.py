"""Time the metrics of nnUNetv2_spmc_evaluate against MedPy's on real masks.

    python -m benchmarks.performance.evaluation LABEL.nii.gz [LABEL.nii.gz ...]

The prediction is the mask with an uneven edge. Both sides make Dice, Jaccard, and HD95 and ASD in
millimetres and in voxels, of every voxel that is not background, on one core, files read already.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from medpy.metric.binary import asd, dc, hd95, jc
from scipy.ndimage import gaussian_filter

from nnunetv2_spmc.evaluation.case_metrics import METRICS, case_metrics
from nnunetv2_spmc.evaluation.classes import Classes

CLASSES = Classes({"mask": (1,)}, frozenset({0, 1}), ignore=None)
REPEATS = 5


def uneven(mask: np.ndarray) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=mask.shape), 2)
    return gaussian_filter(mask.astype(float), 2) + 0.15 * noise / noise.std() > 0.5


def by_medpy(reference: np.ndarray, prediction: np.ndarray, spacing: tuple) -> list[float]:
    return [
        dc(prediction, reference),
        jc(prediction, reference),
        hd95(prediction, reference, spacing),
        asd(prediction, reference, spacing),
        hd95(prediction, reference),
        asd(prediction, reference),
    ]


def by_us(reference: np.ndarray, prediction: np.ndarray, spacing: tuple) -> list[float]:
    maps = [mask.astype(np.int32) for mask in (reference, prediction)]
    (row,) = case_metrics("", maps[0], maps[1], spacing, CLASSES)
    return [row.value(metric) for metric in METRICS]


def seconds(function: Callable, *arguments: object) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labels", nargs="+", type=Path, metavar="LABEL")
    print("| file | shape | spacing mm | Dice | MedPy s | ours s | MedPy/ours |")
    print("|---|---|---|---|---|---|---|")
    for file in parser.parse_args().labels:
        image = sitk.ReadImage(str(file))
        reference = sitk.GetArrayFromImage(image) > 0
        case = (reference, uneven(reference), image.GetSpacing()[::-1])
        expected, ours = by_medpy(*case), by_us(*case)
        np.testing.assert_allclose(ours, expected, rtol=1e-9)
        theirs_s, ours_s = seconds(by_medpy, *case), seconds(by_us, *case)
        print(
            f"| {file.name} | {' x '.join(map(str, reference.shape))} | "
            f"{' x '.join(f'{s:g}' for s in case[2])} | {ours[0]:.3f} | {theirs_s:.3f} | "
            f"{ours_s:.3f} | {theirs_s / ours_s:.1f} |"
        )


if __name__ == "__main__":
    main()

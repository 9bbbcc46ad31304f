"""Patches per second and memory of a worker: the paired loader against nnU-Net's own.

    python -m benchmarks.performance.loader [--rows 3d 2d] [--batches 20]

Both draw from fabricated preprocessed cases, with nnU-Net's augmentation for the patch. Batches are
made in turns in one process; speed counts the time that the process worked. Memory is the peak of a
fresh process that makes a few batches with one of the loaders.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pickle
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from scipy.ndimage import gaussian_filter

from benchmarks.performance.tables import MACHINE, RESULTS_HELP, machine, peak_memory, publish
from benchmarks.performance.trainers import PATCHES, empty_dataset, trainer
from nnunetv2_spmc.methods import nnUNetTrainerWeakToStrong
from nnunetv2_spmc.unlabeled.cases import unlabeled_folder

SHAPES = {"3d": (112, 160, 160), "2d": (16, 320, 320)}
CASES = 5
CLASSES = 4


def write_cases(folder: Path, patch: str, labeled: bool) -> list[str]:
    """Fabricate preprocessed cases: smooth noise, its levels as classes."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{'labeled' if labeled else 'unlabeled'}{number}" for number in range(CASES)]
    for number, name in enumerate(names):
        noise = np.random.default_rng([number, labeled]).normal(size=SHAPES[patch])
        image = gaussian_filter(noise, 4).astype(np.float32)[None]
        seg = np.zeros(image.shape, np.int8)
        locations: dict[int, np.ndarray] = {}
        if labeled:
            seg += np.digitize(image, np.quantile(image, [0.7, 0.85, 0.95])).astype(np.int8)
            locations = {c: np.argwhere(seg == c)[::50] for c in range(1, CLASSES)}
        blocks, chunks = comp_blosc2_params(image.shape, tuple(PATCHES[patch][0]), image.itemsize)
        nnUNetDatasetBlosc2.save_case(
            image,
            seg,
            {"class_locations": locations},
            str(folder / name),
            chunks=chunks,
            blocks=blocks,
            chunks_seg=chunks,
            blocks_seg=blocks,
        )
    return names


def write_dataset(folder: Path, patch: str) -> list[str]:
    """Fill an empty dataset with labeled and unlabeled cases; return the names of the latter."""
    (folder / "none.b2nd").unlink()
    write_cases(folder, patch, labeled=True)
    return write_cases(unlabeled_folder(folder), patch, labeled=False)


def make_loaders(patch: str, unlabeled: list[str]) -> dict[str, Any]:
    """Return nnU-Net's training loader and the paired one, as the trainers build them."""
    stock = trainer(nnUNetTrainer, patch, CLASSES, torch.device("cpu"))
    # unlabeled patches and their weak views in every step
    semi = trainer(nnUNetTrainerWeakToStrong, patch, CLASSES, torch.device("cpu"))
    semi.stream.cases = unlabeled
    return {
        "stock": stock.get_dataloaders()[0].data_loader,
        "paired": semi.get_dataloaders()[0].data_loader,
    }


def patches_in(batch: dict[str, Any]) -> int:
    """Count labeled and unlabeled patches."""
    return len(batch["data"]) + len(batch.get("unlabeled", {"data": ()})["data"])


def memory_of(pickled_loader: bytes) -> int:
    """Return the peak resident bytes of this process after it has made a few batches."""
    torch.set_num_threads(1)
    loader = pickle.loads(pickled_loader)
    for _ in range(5):
        next(loader)
    return peak_memory()


def measure(patch: str, batches: int) -> dict[str, Any]:
    with empty_dataset() as folder:
        loaders = make_loaders(patch, write_dataset(folder, patch))
        times: dict[str, list[float]] = {name: [] for name in loaders}
        for _ in range(batches):
            for name, loader in loaders.items():
                begin = time.process_time()
                count = patches_in(next(loader))
                times[name].append((time.process_time() - begin) / count)
        memory = {}
        for name, loader in loaders.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                memory[name] = pool.apply(memory_of, (pickle.dumps(loader),))
    # augmentation is random, so single batches do not pair: compare means
    mean = {name: statistics.fmean(values) for name, values in times.items()}
    return {
        "patch": "x".join(map(str, PATCHES[patch][0])),
        "stock patches/s": f"{1 / mean['stock']:.1f}",
        "paired patches/s": f"{1 / mean['paired']:.1f}",
        "speed/stock": f"{mean['stock'] / mean['paired']:.2f}",
        "stock MiB": memory["stock"] >> 20,
        "paired MiB": memory["paired"] >> 20,
        "memory/stock": f"{memory['paired'] / memory['stock']:.2f}",
        MACHINE: machine(torch.get_num_threads(), f"means of {batches} batches each, in turns"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", choices=PATCHES, default=list(PATCHES))
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--results", type=Path, metavar="FOLDER", help=RESULTS_HELP)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["nnUNet_n_proc_DA"] = "0"
    os.environ["nnUNet_compile"] = "false"
    np.random.seed(0)
    torch.manual_seed(0)
    rows = [measure(patch, arguments.batches) for patch in arguments.rows]
    publish("loader", rows, arguments.results, ["patch"])


if __name__ == "__main__":
    main()

"""What grows and what does not: many unlabeled cases, prediction, checkpoints.

    python -m benchmarks.performance.scale [--cases 10 10000]

A phantom is planned and trained for a step with a small network. Its unlabeled cases are linked
under as many names as asked for; the start of training and a batch are timed in a fresh process for
each number. Prediction runs with the checkpoint of SPMC and with the same weights under the name of
stock nnU-Net, in turns; the files that it writes are compared byte by byte. The checkpoint's bytes
are added up by what they hold.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy.datasets import run
from benchmarks.performance.tables import MACHINE, RESULTS_HELP, machine, peak_memory, publish
from nnunetv2_spmc.dataset_conversion.phantom import write_phantom
from nnunetv2_spmc.raw.layout import IMAGES_UNLABELED
from nnunetv2_spmc.training.as_data import load
from nnunetv2_spmc.training.checkpoint import CHECKPOINT_KEY
from nnunetv2_spmc.unlabeled.cases import CASE_ENDINGS, unlabeled_folder

NAME, CONFIGURATION = "Dataset500_Phantom", "2d_small"
SETTINGS = {"epochs": 1, "iterations_per_epoch": 1, "validation_iterations": 1, "seed": 0}
TEST_CASES = 2


def set_folders(root: Path) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(root / name)
    os.environ["nnUNet_compile"] = "false"
    os.environ["nnUNet_spmc_settings"] = json.dumps(SETTINGS)


def make_dataset(root: Path) -> None:
    """Write, plan and preprocess a phantom with a small configuration."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )

    from nnunetv2_spmc.unlabeled.preprocessing import PreprocessingOptions, preprocess_unlabeled

    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (root / name).mkdir()
    size = (32, 32, 16)
    write_phantom(root / "nnUNet_raw", labeled=5, unlabeled=5, test=TEST_CASES, size=size)
    extract_fingerprint_dataset(500, num_processes=1, show_progress_bar=False)
    plan_experiment_dataset(500)
    run("nnUNetv2_spmc_plan small -d 500 -c 2d --features 16 64 --patch_size 32 32 --batch_size 2")
    preprocess_dataset(500, configurations=["2d"], num_processes=[1])
    options = PreprocessingOptions(num_processes=0, show_progress=False)
    preprocess_unlabeled(500, "2d", options=options)


def link_cases(root: Path, number: int) -> None:
    """Give the unlabeled cases more names, until there are as many as wanted."""
    raw = root / "nnUNet_raw" / NAME / IMAGES_UNLABELED
    done = unlabeled_folder(root / "nnUNet_preprocessed" / NAME / "nnUNetPlans_2d")
    first = sorted(raw.iterdir())[0]
    identifier = first.name.removesuffix("_0000.nii.gz")
    for case in range(len(list(raw.iterdir())), number):
        name = f"more{case:06d}"
        os.link(first, raw / f"{name}_0000.nii.gz")
        for ending in CASE_ENDINGS:
            os.link(done / f"{identifier}{ending}", done / f"{name}{ending}")


def make_trainer(root: Path) -> Any:
    from nnunetv2_spmc.methods import nnUNetTrainerSPMC

    folder = root / "nnUNet_preprocessed" / NAME
    plans = json.loads((folder / "nnUNetPlans.json").read_text(encoding="utf-8"))
    dataset_json = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    plans["continue_training"] = False
    return nnUNetTrainerSPMC(plans, CONFIGURATION, 0, dataset_json, torch.device("cpu"))


def start_training(root: Path) -> dict[str, float]:
    """Start a training in this fresh process; return what that and a batch cost."""
    set_folders(root)
    torch.set_num_threads(1)
    trainer = make_trainer(root)
    trainer.initialize()
    begin = time.perf_counter(), time.process_time()
    trainer.on_train_start()
    started = time.perf_counter() - begin[0], time.process_time() - begin[1]
    batches = []
    for _ in range(200):
        begin_batch = time.process_time()
        next(trainer.dataloader_train)
        batches.append(time.process_time() - begin_batch)
    return {
        "cases": len(trainer.stream.cases),
        "start s": started[0],
        "start CPU s": started[1],
        "batch ms": 1000 * statistics.median(batches),
        "MiB": peak_memory() / 2**20,
    }


def measure_start(root: Path, numbers: list[int]) -> Iterator[dict[str, Any]]:
    measured = []
    for number in sorted(numbers):
        link_cases(root, number)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            measured.append(pool.apply(start_training, (root,)))
    few = measured[0]
    for many in measured[1:]:
        for key in ("start s", "start CPU s", "batch ms", "MiB"):
            yield {
                "what": f"{key}, {many['cases']} unlabeled cases against {few['cases']}",
                "theirs": f"{few[key]:.2f}",
                "ours": f"{many[key]:.2f}",
                "ours - theirs": f"{many[key] - few[key]:+.2f}",
                "ours / theirs": f"{many[key] / few[key]:.2f}",
            }


def stock_copy(model: Path) -> Path:
    """Write the model under stock nnU-Net's name, with what stock nnU-Net stores."""
    copy = model.with_name(model.name.replace("nnUNetTrainerSPMC", "nnUNetTrainer"))
    (copy / "fold_0").mkdir(parents=True)
    for name in ("plans.json", "dataset.json"):
        shutil.copy(model / name, copy)
    checkpoint = load(model / "fold_0" / "checkpoint_final.pth")
    checkpoint["trainer_name"] = "nnUNetTrainer"
    del checkpoint[CHECKPOINT_KEY]
    torch.save(checkpoint, copy / "fold_0" / "checkpoint_final.pth")
    return copy


def make_predictor(model: Path) -> Any:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,), "checkpoint_final.pth")
    return predictor


def measure_prediction(root: Path, model: Path, repeats: int) -> Iterator[dict[str, Any]]:
    from nnunetv2_spmc import discovery

    os.environ["nnUNet_extTrainer"] = str(Path(discovery.__file__).parent)
    predictors = {"theirs": make_predictor(stock_copy(model)), "ours": make_predictor(model)}
    images = str(root / "nnUNet_raw" / NAME / "imagesTs")
    times: dict[str, list[float]] = {name: [] for name in predictors}
    for _ in range(repeats):
        for name, predictor in predictors.items():
            (root / name).mkdir(exist_ok=True)
            begin = time.process_time()
            predictor.predict_from_files_sequential(images, str(root / name))
            times[name].append(time.process_time() - begin)
    written = {
        name: {f.name: f.read_bytes() for f in sorted((root / name).glob("*.nii.gz"))}
        for name in predictors
    }
    assert len(written["ours"]) == TEST_CASES
    median = {name: statistics.median(values) for name, values in times.items()}
    ratios = [b / a for a, b in zip(times["theirs"], times["ours"], strict=True)]
    same = "same bytes" if written["ours"] == written["theirs"] else "OTHER bytes"
    yield {
        "what": f"prediction of {TEST_CASES} cases, CPU s, against stock: {same}",
        "theirs": f"{median['theirs']:.2f}",
        "ours": f"{median['ours']:.2f}",
        "ours - theirs": f"{median['ours'] - median['theirs']:+.2f}",
        "ours / theirs": f"{statistics.median(ratios):.2f}",
    }


def tensor_bytes(content: Any) -> int:
    """Add up the bytes of all tensors in nested containers; those with several names once."""
    return sum(_storages(content).values())


def _storages(content: Any) -> dict[int, int]:
    if isinstance(content, torch.Tensor):
        storage = content.untyped_storage()
        return {storage.data_ptr(): storage.nbytes()}
    items = content.values() if isinstance(content, dict) else content
    if not isinstance(content, (dict, list, tuple)):
        return {}
    return {key: size for item in items for key, size in _storages(item).items()}


def measure_checkpoint(model: Path) -> Iterator[dict[str, Any]]:
    file = model / "fold_0" / "checkpoint_final.pth"
    checkpoint = load(file)
    own = checkpoint[CHECKPOINT_KEY]
    weights = {
        "main": tensor_bytes(checkpoint["network_weights"]),
        "auxiliary": tensor_bytes(own["parts"]),
    }
    momenta = tensor_bytes(checkpoint["optimizer_state"])
    named = sum(weights.values()) + momenta
    kib = {key: value / 1024 for key, value in (weights | {"momenta": momenta}).items()}
    yield {
        "what": (
            f"checkpoint, KiB, against its parts (weights: main {kib['main']:.0f}, auxiliary "
            f"{kib['auxiliary']:.0f}; momenta of both {kib['momenta']:.0f})"
        ),
        "theirs": f"{named / 1024:.0f}",
        "ours": f"{file.stat().st_size / 1024:.0f}",
        "ours - theirs": f"{(file.stat().st_size - named) / 1024:+.0f}",
        "ours / theirs": f"{file.stat().st_size / named:.2f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, nargs="+", default=[10, 10000])
    parser.add_argument("--repeats", type=int, default=5, help="of the prediction")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help=RESULTS_HELP)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        set_folders(root)
        make_dataset(root)
        os.environ["nnUNet_n_proc_DA"] = "0"  # planning wants at least one
        trainer = make_trainer(root)
        trainer.run_training()
        model = Path(trainer.output_folder_base)
        rows = list(measure_checkpoint(model))
        rows += measure_prediction(root, model, arguments.repeats)
        rows += measure_start(root, arguments.cases)
    where = machine(1, f"prediction: medians of {arguments.repeats} interleaved repeats")
    publish("scale", [row | {MACHINE: where} for row in rows], arguments.results, ["what"])


if __name__ == "__main__":
    main()

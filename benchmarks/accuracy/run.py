r"""Work off the queue: train, predict the test cases, measure; a row of the results for each run.

    python -m benchmarks.accuracy.run DATA OUTPUT
    python -m benchmarks.accuracy.run DATA OUTPUT --queue benchmarks/results/runs.csv \
        --results ELSEWHERE --only acdc-small-30x100-spmc-seed1

DATA holds acdc128/, la_half/, hippocampus/ and splits/; OUTPUT, outside the clone, receives
datasets, models and predictions. The longest run comes first. Each is trained, predicts the test
cases with its final checkpoint and is measured; then its rows go into benchmarks/results, that of
runs.csv last, and should be committed. What has that row is skipped, a training that was
interrupted goes on with --c, one whose folder is lost starts again. A run that fails is named, and
the others go on. Several processes may share OUTPUT and results: each takes a run that no other one
has. A finished training with other settings than its row would claim is refused.

Several small networks can share a GPU: start about as many processes as there are cores, under
NVIDIA's MPS, with --device cuda, nnUNet_n_proc_DA=0, nnUNet_compile=f, OMP_NUM_THREADS=1.

The second command does once more what has its row, with results of its own.

"search" runs leave the test cases alone. Runs with more labels take over the plans of the few;
where a ranking chooses the patients, the model that ranks is trained first if it is not there. So
is the control whose weights a run starts from.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import long_csv
from benchmarks.accuracy.datasets import prepare, prepare_more_labels, ranker_of, run
from benchmarks.accuracy.methods import DATASETS, FINAL, Run
from benchmarks.accuracy.queue import QUEUE, claimed, open_runs, read_queue
from nnunetv2_spmc import discovery
from nnunetv2_spmc.common.cores import usable_cores
from nnunetv2_spmc.evaluation.metrics_csv import read_metrics_csv
from nnunetv2_spmc.evaluation.patients import patients_of
from nnunetv2_spmc.evaluation.summary import summarize_classes
from nnunetv2_spmc.training.as_data import load
from nnunetv2_spmc.training.checkpoint import read_extra_state
from nnunetv2_spmc.training.settings import changed_settings

CURVES = long_csv.COLUMNS["curves"][3:]  # of the log, where a trainer writes them
Rows = list[dict[str, Any]]


def train(asked: Run, data: Path, output: Path, device: str) -> tuple[Path, list[str]]:
    """Train what is not trained yet.

    Returns:
        Its fold, and the cases whose labels were added.
    """
    with long_csv.locked(output):
        prepare(asked, data, output)
    added: list[str] = []
    if asked.chosen_by:
        ranker = ranker_of(asked)
        if ranker:
            with claimed(ranker, output, wait=True):
                train(ranker, data, output, device)
        model = output / ranker.fold.parent if ranker else None
        with long_csv.locked(output):
            added = prepare_more_labels(asked, model, output)
    if asked.start:
        with claimed(asked.start, output, wait=True):
            train(asked.start, data, output, device)
    fold = output / asked.fold
    checkpoint, summary = fold / FINAL, fold / "validation" / "summary.json"
    last = checkpoint if fold.name == "fold_all" else summary  # what a training writes last
    if not last.exists():
        how = "resume" if any(fold.glob("checkpoint_*.pth")) else "train"
        run(asked.commands(device)[how], **environment(asked, output))
    check_settings(checkpoint, asked)
    return fold, added


def environment(asked: Run, output: Path) -> dict[str, str]:
    """Return what its commands need besides nnU-Net's other two folders."""
    results = output / "runs" / asked.run / "results"
    results.mkdir(parents=True, exist_ok=True)
    return {"nnUNet_results": str(results), "nnUNet_spmc_settings": asked.environment()}


def benchmark(asked: Run, data: Path, output: Path, device: str) -> dict[str, Rows]:
    """Train, predict and measure; return the rows of the results, those of runs.csv last."""
    fold, added = train(asked, data, output, device)
    curves = read_curves(fold / FINAL)
    found: dict[str, Rows] = {"curves": curves}
    mean_dice = ""
    if asked.looks_at_test_cases:
        here, commands = output / "runs" / asked.run, asked.commands(device)
        run(commands["predict"], **environment(asked, output))
        run(commands["evaluate"])
        found["metrics"], mean_dice = read_metrics(
            here / "metrics.csv", DATASETS[asked.dataset].name
        )
        if asked.times:
            found["over_time"] = measure_kept(asked, fold, here, curves, device, output)
    summary = fold / "validation" / "summary.json"
    row = asked.row() | {
        "mean_dice": mean_dice,
        "validation_dice": "" if fold.name == "fold_all" else read_validation_dice(summary),
        "seconds": curves[-1]["seconds"],
        "added_cases": " ".join(added) if ranker_of(asked) else "",
        "machine": machine(device),
        "versions": " ".join(f"{p} {version(p)}" for p in ("nnunetv2-spmc", "nnunetv2", "torch")),
    }
    found["runs"] = [row]
    return {name: [{"run": asked.run} | row for row in rows] for name, rows in found.items()}


def check_settings(checkpoint: Path, asked: Run) -> None:
    """Refuse a finished training that had other settings than its row says."""
    before = read_extra_state(checkpoint)["settings"]
    changes = changed_settings(before, asked.resolved().flat())
    if changes:
        raise ValueError(f"{checkpoint} was trained with {', '.join(changes)}; remove its run.")


def read_validation_dice(summary: Path) -> float:
    """Return nnU-Net's mean foreground Dice of the validation cases."""
    dice = json.loads(summary.read_text(encoding="utf-8"))["foreground_mean"]["Dice"]
    return round(dice, 4)


def read_metrics(path: Path, dataset: str) -> tuple[Rows, str]:
    """Return the rows of metrics.csv with their patients, and the mean Dice over classes."""
    with path.open(encoding="utf-8", newline="") as file:
        rows: Rows = list(csv.DictReader(file))
    patients = patients_of(dataset, [row["case"] for row in rows])
    classes = summarize_classes(read_metrics_csv(path)).values()
    mean_dice = sum(c.metrics["dice"].mean for c in classes) / len(classes)
    return [row | {"unit": patients.of(row["case"])} for row in rows], f"{mean_dice:.4f}"


def read_curves(checkpoint: Path) -> Rows:
    """Return what nnU-Net logged per epoch, with the seconds of training until its end."""
    logged = load(checkpoint)["logging"]
    starts, ends = logged["epoch_start_timestamps"], logged["epoch_end_timestamps"]
    lengths = (end - start for start, end in zip(starts, ends, strict=True))
    seconds = [round(passed, 1) for passed in itertools.accumulate(lengths)]
    keys = [key for key in CURVES if logged.get(key)]
    return [
        {"epoch": epoch, "seconds": seconds[epoch]}
        | {key: f"{value:.5g}" for key, value in zip(keys, values, strict=True)}
        for epoch, values in enumerate(zip(*(logged[key] for key in keys), strict=True))
    ]


def measure_kept(
    asked: Run,
    fold: Path,
    here: Path,
    curves: Sequence[Mapping[str, Any]],
    device: str,
    output: Path,
) -> Rows:
    """Predict and measure the test cases with the checkpoints of the way, too."""
    commands = asked.commands(device)
    rows = []
    for checkpoint in fold.glob("checkpoint_epoch_*.pth"):
        epochs = int(checkpoint.stem.rpartition("_")[2])
        name = f"predictions_after_{epochs}"
        predict = f"{commands['predict']}_after_{epochs} -chk {checkpoint.name}"
        run(predict, **environment(asked, output))
        run(commands["evaluate"].replace("/predictions ", f"/{name} ") + f"/{name}")
        measured = json.loads((here / name / "metrics.json").read_text(encoding="utf-8"))
        means = measured.get("mean") or next(iter(measured["classes"].values()))
        seconds = curves[epochs - 1]["seconds"]
        dice = f"{means['dice']['mean']:.5g}"
        rows.append({"epochs": epochs, "seconds": seconds, "test_dice": dice})
    return sorted(rows, key=lambda row: row["epochs"])


def machine(device: str) -> str:
    """Say what it was trained on."""
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    return f"{usable_cores()} CPU cores, {platform.machine()}"


def keep(found: Mapping[str, Rows], results: Path) -> None:
    """Put the rows of a run into the results, that of runs.csv last: with it the run is done."""
    with long_csv.locked(results):
        for name in sorted(found, key=lambda name: name == "runs"):
            long_csv.put(name, found[name], results)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("data", type=Path, metavar="DATA")
    add("output", type=Path, metavar="OUTPUT")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--queue", type=Path, default=QUEUE, help="or a runs.csv (default: queue.csv)")
    add("--results", type=Path, default=long_csv.RESULTS, help="folder of the CSVs")
    add("--only", nargs="+", metavar="RUN", help="these runs of the queue")
    arguments = parser.parse_args(argv)
    for key in ("data", "output", "queue", "results"):
        setattr(arguments, key, getattr(arguments, key).resolve())
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Work off the queue."""
    arguments = parse_arguments(argv)
    output, results = arguments.output, arguments.results
    runs = [r for r in read_queue(arguments.queue) if not arguments.only or r.run in arguments.only]
    results.mkdir(parents=True, exist_ok=True)
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (output / variable).mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(output / variable)
    os.environ["nnUNet_extTrainer"] = str(Path(discovery.__file__).parent)
    os.chdir(output)  # so that the commands need no path of this machine
    failed: list[str] = []
    for asked in open_runs(runs, output, results):
        print(f"\n{asked.run}", flush=True)
        try:
            keep(benchmark(asked, arguments.data, output, arguments.device), results)
        except (subprocess.CalledProcessError, ValueError) as error:
            failed.append(asked.run)
            print(f"error: {asked.run}: {error}", file=sys.stderr, flush=True)
    if failed:
        sys.exit(f"error: these failed; start again to go on with them: {', '.join(failed)}.")


if __name__ == "__main__":
    main()

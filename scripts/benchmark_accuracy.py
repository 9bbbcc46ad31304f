"""Accuracy on real scans: dataset x method x seed, through the commands that users type.

    python scripts/benchmark_accuracy.py DATA OUTPUT [--datasets acdc la] [--seeds 1 2]
    python scripts/benchmark_accuracy.py --table

DATA holds acdc128/, la_half/ and splits/; OUTPUT receives datasets, models and predictions. A run
is trained, predicts the test cases with its final checkpoint and is measured; then a row of
docs/benchmarks/runs.csv names its commands, and its folder beside it holds metrics.csv (cases and
classes) and curves.csv (epochs). Runs that have their row are skipped and interrupted trainings go
on, so the script can be stopped and started again; a finished training with other settings than a
row would claim is refused. Two processes may share OUTPUT once the datasets are prepared, if no run
is asked of both. --table makes all tables and figures from those files and nothing else.

All methods see the same labeled cases and plans, and do the same number of iterations with the same
labeled batch; control_2x has twice the batch and control_longer four times the iterations, about
the time of a run of SPMC. "all_labels", the upper bound, is the control with the labels of the
unlabeled cases; it takes over the plans of the few. annotate_*: the control with the labels of
three more patients, which the model of "all_voxels" with seed 1 ranks first; it must be there.
Small plans (nnUNetv2_spmc_plan small) fit two CPU cores; --plans full takes nnU-Net's.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accuracy_datasets import planned_configuration, prepare, prepare_more_labels, run
from accuracy_methods import (
    ABLATIONS,
    DATASETS,
    FEW,
    MAIN_METHODS,
    METHODS,
    RANKER,
    RANKINGS,
    SCHEDULES,
)

from nnunetv2_spmc import discovery

SCRIPTS = Path(__file__).resolve().parent
BENCHMARKS = SCRIPTS.parent / "docs" / "benchmarks"
CURVES = (  # of the log, where a trainer writes them
    *("train_losses", "val_losses", "mean_fg_dice", "lambda", "agreement"),
    *("cps_main", "splat_main", "cdps_main"),
)


def benchmark(
    kind: str, name: str, seed: int, arguments: argparse.Namespace, schedule: dict[str, Any]
) -> dict[str, Any]:
    """Train, predict and measure; return the row of runs.csv."""
    few, method, output = DATASETS[kind], METHODS[name], arguments.output
    dataset = few.with_labels(method.labels)
    planned = planned_configuration(dataset, arguments.plans)
    configuration = planned + ("_2x" if method.double_batch else "")
    own = lengthened(schedule, method.longer) | method.settings
    if arguments.keep:
        own |= {"keep_every": own.get("epochs", 1000) // arguments.keep}
    settings = json.dumps(own | {"seed": seed})
    here = output / "runs" / run_name(kind, name, seed, arguments.plans, schedule)
    (here / "results").mkdir(parents=True, exist_ok=True)
    model = f"-d {dataset.id} -c {configuration} -f {dataset.fold} -tr {method.trainer}"
    speed = "--disable_tta " if arguments.plans == "small" else ""
    commands = {
        "train": f"nnUNetv2_train {dataset.id} {configuration} {dataset.fold} "
        f"-tr {method.trainer} -device {arguments.device} --c",
        "predict": f"nnUNetv2_predict {model} -device {arguments.device} {speed}"
        f"-i nnUNet_raw/{few.name}/imagesTs -o {here.relative_to(output)}/predictions",
        "evaluate": f"nnUNetv2_spmc_evaluate -ref nnUNet_raw/{few.name}/labelsTs "
        f"-pred {here.relative_to(output)}/predictions -o {here.relative_to(output)}",
    }
    results = {"nnUNet_results": str(here / "results"), "nnUNet_spmc_settings": settings}
    trained = here / "results" / dataset.name / f"{method.trainer}__nnUNetPlans__{configuration}"
    added: list[str] = []
    if method.labels != FEW:
        ranker = output / "runs" / run_name(kind, *RANKER, arguments.plans, schedule)
        added = prepare_more_labels(few, method.labels, ranker, output, planned)
    checkpoint = trained / f"fold_{dataset.fold}" / "checkpoint_final.pth"
    summary = checkpoint.parent / "validation" / "summary.json"
    last = checkpoint if dataset.fold == "all" else summary  # what a finished training wrote last
    if not last.exists():
        run(commands["train"], **results)
    check_settings(checkpoint, method.trainer, settings)
    seconds = write_curves(checkpoint, here / "curves.csv")
    files = ["curves.csv"]
    if arguments.validation_only:
        commands = {"train": commands["train"]}
    else:
        run(commands["predict"], **results)
        run(commands["evaluate"])
        files.append("metrics.csv")
        if arguments.keep:
            measure_kept(commands, checkpoint.parent, here, results)
            files.append("over_time.csv")
    kept = arguments.csv / here.name
    kept.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(here / file, kept)
    return {
        "dataset": kind,
        "method": name,
        "seed": seed,
        "plans": arguments.plans,
        "epochs": json.loads(settings).get("epochs", ""),
        "added_labels": " ".join(added) if method.labels in RANKINGS else method.labels,
        "folder": here.name,
        "validation_dice": "" if dataset.fold == "all" else read_validation_dice(summary),
        "seconds": seconds,
        "machine": machine(arguments.device),
        "versions": " ".join(f"{p} {version(p)}" for p in ("nnunetv2-spmc", "nnunetv2", "torch")),
        "settings": settings,
        **commands,
    }


def check_settings(checkpoint: Path, trainer: str, settings: str) -> None:
    """Refuse a finished training that had other settings than these and the trainer's defaults."""
    from nnunetv2_spmc import methods
    from nnunetv2_spmc.training.checkpoint import read_extra_state
    from nnunetv2_spmc.training.settings import changed_settings

    kind = getattr(methods, trainer)
    now = kind.resolved_settings({}, {"nnUNet_spmc_settings": settings}).flat()
    changes = changed_settings(read_extra_state(checkpoint)["settings"], now)
    if changes:
        sys.exit(f"error: {checkpoint} was trained with {', '.join(changes)}; remove its run.")


def lengthened(schedule: dict[str, Any], factor: int) -> dict[str, Any]:
    if factor == 1:
        return schedule
    return schedule | {"epochs": factor * schedule.get("epochs", 1000)}


def read_validation_dice(summary: Path) -> float:
    """Return nnU-Net's mean foreground Dice of the validation cases."""
    dice = json.loads(summary.read_text(encoding="utf-8"))["foreground_mean"]["Dice"]
    return round(dice, 4)


def run_name(kind: str, method: str, seed: int, plans: str, schedule: dict[str, Any]) -> str:
    epochs = f"-{schedule['epochs']}x{schedule['iterations_per_epoch']}" if schedule else ""
    return f"{kind}-{plans}{epochs}-{method}-seed{seed}"


def write_curves(checkpoint: Path, path: Path) -> float:
    """Write what nnU-Net logged per epoch; return the seconds of training."""
    import torch

    logged = torch.load(checkpoint, map_location="cpu", weights_only=False)["logging"]
    starts, ends = logged["epoch_start_timestamps"], logged["epoch_end_timestamps"]
    lengths = (end - start for start, end in zip(starts, ends, strict=True))
    seconds = [round(passed, 1) for passed in itertools.accumulate(lengths)]
    keys = [key for key in CURVES if logged.get(key)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["epoch", "seconds", *keys])
        epochs = zip(*(logged[key] for key in keys), strict=True)
        for epoch, values in enumerate(epochs):
            writer.writerow([epoch, seconds[epoch], *(f"{value:.5g}" for value in values)])
    return seconds[-1]


def measure_kept(
    commands: dict[str, str], fold: Path, here: Path, environment: dict[str, str]
) -> None:
    """Predict and measure the test cases with the checkpoints of the way, too."""
    with (here / "curves.csv").open(encoding="utf-8", newline="") as file:
        seconds = [row["seconds"] for row in csv.DictReader(file)]
    rows = []
    for checkpoint in fold.glob("checkpoint_epoch_*.pth"):
        epochs = int(checkpoint.stem.rpartition("_")[2])
        name = f"predictions_after_{epochs}"
        run(f"{commands['predict']}_after_{epochs} -chk {checkpoint.name}", **environment)
        run(commands["evaluate"].replace("/predictions ", f"/{name} ") + f"/{name}")
        measured = json.loads((here / name / "metrics.json").read_text(encoding="utf-8"))
        means = measured.get("mean") or next(iter(measured["classes"].values()))
        rows.append((epochs, seconds[epochs - 1], f"{means['dice']['mean']:.5g}"))
    with (here / "over_time.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["epochs", "seconds", "test_dice"])
        writer.writerows(sorted(rows))


def machine(device: str) -> str:
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    of_this_process = hasattr(os, "sched_getaffinity")  # taskset leaves it fewer than there are
    cores = len(os.sched_getaffinity(0)) if of_this_process else os.cpu_count()
    return f"{cores} CPU cores, {platform.machine()}"


def finished(runs: Path) -> set[str]:
    if not runs.exists():
        return set()
    with runs.open(encoding="utf-8", newline="") as file:
        return {row["folder"] for row in csv.DictReader(file)}


def append_row(runs: Path, row: dict[str, Any]) -> None:
    is_new = not runs.exists()
    with runs.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("data", type=Path, nargs="?")
    add("output", type=Path, nargs="?")
    add("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    add("--methods", nargs="+", choices=METHODS, default=list(MAIN_METHODS))
    add("--ablations", action="store_true", help="the ablations too")
    add("--seeds", nargs="+", type=int, default=[1, 2])
    add("--plans", choices=SCHEDULES, default="small")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--epochs", type=int, help="another length, in a table of its own")
    add("--iterations-per-epoch", type=int)
    add(
        "--keep",
        type=int,
        default=0,
        metavar="N",
        help="measure the test cases at N times of the training, for Dice over time (default: end)",
    )
    add("--csv", type=Path, default=BENCHMARKS, help="folder of the results (default: docs)")
    add(
        "--validation-only",
        action="store_true",
        help="leave the test cases alone, to choose settings; rows go to validation.csv",
    )
    add("--table", action="store_true", help="tables and figures of the results, and nothing else")
    arguments = parser.parse_args(argv)
    if not arguments.table and arguments.output is None:
        parser.error("give DATA and OUTPUT, or --table")
    if arguments.validation_only and any(DATASETS[d].fold == "all" for d in arguments.datasets):
        parser.error("la has no validation cases: --validation-only needs --datasets acdc")
    if arguments.validation_only and arguments.keep:
        parser.error("--keep measures the test cases: leave it out or --validation-only")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    if not arguments.table:
        schedule = dict(SCHEDULES[arguments.plans])
        for key in ("epochs", "iterations_per_epoch"):
            if getattr(arguments, key) is not None:
                schedule[key] = getattr(arguments, key)
        if schedule:
            schedule.setdefault("iterations_per_epoch", 250)
            schedule.setdefault("epochs", 1000)
        if arguments.keep and schedule.get("epochs", 1000) % arguments.keep:
            sys.exit(f"error: --keep {arguments.keep} must divide the epochs: the last one counts.")
        arguments.output.mkdir(parents=True, exist_ok=True)
        arguments.output = arguments.output.resolve()
        arguments.csv.mkdir(parents=True, exist_ok=True)
        arguments.csv = arguments.csv.resolve()
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (arguments.output / variable).mkdir(exist_ok=True)
            os.environ[variable] = str(arguments.output / variable)
        os.environ["nnUNet_extTrainer"] = str(Path(discovery.__file__).parent)
        arguments.data = arguments.data.resolve()
        os.chdir(arguments.output)  # so that the recorded commands need no path of this machine
        rows = arguments.csv / ("validation.csv" if arguments.validation_only else "runs.csv")
        methods = [*arguments.methods, *(ABLATIONS if arguments.ablations else ())]
        for kind in arguments.datasets:
            prepare(kind, DATASETS[kind], arguments.data, arguments.output, arguments.plans)
            for seed in arguments.seeds:
                for name in methods:
                    folder = run_name(kind, name, seed, arguments.plans, schedule)
                    if folder not in finished(rows):
                        append_row(rows, benchmark(kind, name, seed, arguments, schedule))
    if not arguments.validation_only:
        tables = shlex.quote(str(SCRIPTS / "benchmark_tables.py"))
        run(f"{sys.executable} {tables} {shlex.quote(str(arguments.csv))}")


if __name__ == "__main__":
    main()

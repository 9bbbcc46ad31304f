"""What a training iteration of a recipe costs, against the first recipe named.

    python -m benchmarks.accuracy.cost DATA OUTPUT acdc control turns_view_control nnunet_turns \
        --results benchmarks/results

The recipes are names of runs.csv and queue.csv. Each is trained on its own data and plans, as
`run` would, with one thread and in turns with the others. So loading and augmentation
are in the ratio. Let nothing else run on the machine.

Blocks of a few iterations are measured before the ramp-up, where no unlabeled patch counts, and
in the middle of the training. What an iteration costs is the mean of both, weighted by their
shares of the training. Ratios are medians over blocks, of the time that the process spent. Equal
cost in the tables means iterations by these ratios.

With --parts, the table `parts` says instead what loading and augmentation take of an iteration in
the middle of the training.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import long_csv
from benchmarks.accuracy.datasets import prepare
from benchmarks.accuracy.methods import DATASETS, Run
from benchmarks.accuracy.queue import QUEUE, read_queue
from benchmarks.performance.tables import MACHINE, RESULTS_HELP, machine, publish
from benchmarks.performance.timing import Step, interleaved, ratio
from nnunetv2_spmc import discovery

BLOCK = 4  # iterations, so that a recipe with "unlabeled_every" is measured whole
CPU = torch.device("cpu")


def named(dataset: str, name: str) -> Run:
    """Return a training of that name on the small plans of a dataset.

    Raises:
        ValueError: neither runs.csv nor queue.csv has one, on whichever dataset.
    """
    data = DATASETS[dataset]
    for run in [*read_queue(long_csv.RESULTS / "runs.csv"), *read_queue(QUEUE)]:
        if run.name == name and not run.chosen_by and run.vehicle == "small":
            return replace(
                run,
                dataset=dataset,
                labels=data.few,
                stage="confirm",
                configuration=f"{data.configuration}_small",
            )
    raise ValueError(f"runs.csv and queue.csv have no run {name}.")


def started(asked: Run, at: float) -> Any:
    """Return a trainer at a share of its epochs."""
    from nnunetv2.run.run_training import get_trainer_from_args

    os.environ["nnUNet_spmc_settings"] = asked.environment()
    data = DATASETS[asked.dataset]
    fold: Any = data.fold if data.fold == "all" else int(data.fold)
    trainer = get_trainer_from_args(
        data.name, asked.configuration, fold, asked.trainer, "nnUNetPlans", device=CPU
    )
    trainer.on_train_start()
    trainer.current_epoch = int(at * trainer.num_epochs)
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    return trainer


def block_of(trainer: Any) -> Step:
    """Return what does a block of its iterations."""

    def block() -> None:
        for _ in range(BLOCK):
            trainer.train_step(next(trainer.dataloader_train))

    return block


def loading_of(trainer: Any) -> Step:
    """Return what loads and augments the patches of a block."""

    def block() -> None:
        for _ in range(BLOCK):
            next(trainer.dataloader_train)

    return block


def measure(dataset: str, names: Sequence[str], blocks: int) -> list[dict[str, Any]]:
    """Return a row for each recipe, the first one with ratio 1."""
    asked = {name: named(dataset, name) for name in names}
    steps = {
        f"{name} {at}": block_of(started(run, at))
        for name, run in asked.items()
        for at in (0.0, 0.5)
    }
    interleaved(steps, CPU, 3)  # warm-up
    times = interleaved(steps, CPU, blocks)
    rows = []
    for name, run in asked.items():
        early = run.resolved().training.ramp_start
        whole = (times[f"{name} {at}"] for at in (0.0, 0.5))
        times[name] = [early * a + (1 - early) * b for a, b in zip(*whole, strict=True)]
        rows.append(
            {
                "dataset": dataset,
                "recipe": name,
                "s/iteration": f"{statistics.median(times[name]) / BLOCK:.3f}",
                "after the ramp-up": f"{ratio(times, f'{name} 0.5', f'{names[0]} 0.5'):.2f}",
                "mean of a training": f"{ratio(times, name, names[0]):.2f}",
                MACHINE: _conditions(blocks),
            }
        )
    return rows


def measure_parts(dataset: str, names: Sequence[str], blocks: int) -> list[dict[str, Any]]:
    """Return for each recipe what loading and augmentation take of an iteration."""
    steps: dict[str, Step] = {}
    for name in names:
        trainer = started(named(dataset, name), 0.5)
        steps |= {f"{name} all": block_of(trainer), f"{name} loading": loading_of(trainer)}
    interleaved(steps, CPU, 3)  # warm-up
    times = interleaved(steps, CPU, blocks)
    return [
        {
            "dataset": dataset,
            "recipe": name,
            "ms/iteration": f"{1000 * statistics.median(times[f'{name} all']) / BLOCK:.0f}",
            "loading ms": f"{1000 * statistics.median(times[f'{name} loading']) / BLOCK:.0f}",
            "share of loading": f"{ratio(times, f'{name} loading', f'{name} all'):.2f}",
            MACHINE: _conditions(blocks),
        }
        for name in names
    ]


def _conditions(blocks: int) -> str:
    what = f"medians of {blocks} blocks of {BLOCK} iterations each, in turns"
    return machine(torch.get_num_threads(), what)


def main() -> None:
    """Measure the recipes named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("data", type=Path, metavar="DATA")
    add("output", type=Path, metavar="OUTPUT")
    add("dataset", choices=DATASETS)
    add("recipes", nargs="+", metavar="NAME")
    add("--blocks", type=int, default=15)
    add("--parts", action="store_true", help="what loading takes of an iteration")
    add("--results", type=Path, metavar="FOLDER", help=RESULTS_HELP)
    arguments = parser.parse_args()
    data, output = arguments.data.resolve(), arguments.output.resolve()
    results = arguments.results and arguments.results.resolve()
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        os.environ[variable] = str(output / variable)
    os.environ["nnUNet_extTrainer"] = str(Path(discovery.__file__).parent)
    with long_csv.locked(output):
        prepare(named(arguments.dataset, arguments.recipes[0]), data, output)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"nnUNet_results": folder, "nnUNet_n_proc_DA": "0"}
        measured = measure_parts if arguments.parts else measure
        rows = measured(arguments.dataset, arguments.recipes, arguments.blocks)
    publish("parts" if arguments.parts else "cost", rows, results, ["dataset", "recipe"])


if __name__ == "__main__":
    main()

"""The trainings that are still to be done: benchmarks/accuracy/queue.csv.

    python -m benchmarks.accuracy.queue acdc SPMC --stage confirm --seeds 7 8 --name spmc
    python -m benchmarks.accuracy.queue acdc SPMC --stage search --settings '{"SPMC": {"tau": 0.8}}'

adds a row per seed, after checking that it can be trained. `python -m benchmarks.accuracy.run`
works the rows off, the longest first; what has its row in runs.csv is done.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import long_csv
from benchmarks.accuracy.methods import (
    CHOICES,
    CONTROL,
    DATASETS,
    DOUBLE,
    QUEUE_COLUMNS,
    STAGES,
    VEHICLES,
    Run,
)

QUEUE = Path(__file__).with_name("queue.csv")


def read_queue(path: Path = QUEUE) -> list[Run]:
    """Return the trainings of a queue, or of a runs.csv, the longest first.

    Raises:
        ValueError: a row asks for what cannot be trained, or two have the same name.
    """
    runs = [Run.of_row(row) for row in long_csv.read_file(path, QUEUE_COLUMNS)]
    names = [run.run for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} asks twice for {', '.join(twice)}; give one another name.")
    return sorted(runs, key=lambda run: -run.seconds)


def finished(results: Path) -> set[str]:
    """Return the names of the trainings that have their row."""
    return {row["run"] for row in long_csv.read("runs", results)}


@contextmanager
def claimed(run: Run, output: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the folder of a training; yield False where another process has it.

    A process that ends, however that may be, gives it back.
    """
    folder = output / "runs" / run.run
    folder.mkdir(parents=True, exist_ok=True)
    with long_csv.locked(folder, wait=wait) as is_ours:
        yield is_ours


def open_runs(runs: Iterable[Run], output: Path, results: Path) -> Iterator[Run]:
    """Yield the trainings that have no row yet, each held while the caller works on it."""
    for run in runs:
        if run.run in finished(results):
            continue
        with claimed(run, output) as is_ours:
            # another process may have finished it a moment ago
            if is_ours and run.run not in finished(results):
                yield run


def expected_seconds(run: Run, results: Path) -> float:
    """Return what a training should take, from those of the same dataset that are done.

    By the seconds per iteration of the same method, else those of the slowest method.
    """
    done = [
        row
        for row in long_csv.read("runs", results)
        if row["dataset"] == run.dataset and row["configuration"] == run.configuration
    ]
    same = [row for row in done if row["method"] == run.method] or done
    speeds = [float(row["seconds"]) / int(row["iterations"]) for row in same]
    return round(max(speeds, default=0.0) * run.iterations)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return what to add."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("dataset", choices=DATASETS)
    add("method", help="the trainer's name without nnUNetTrainer")
    add("--stage", choices=STAGES, required=True)
    add("--seeds", nargs="+", type=int, default=[1])
    add("--settings", default="", help="JSON of what differs from the trainer's defaults")
    add("--name", help="short name of method and settings in tables (default: METHOD)")
    add("--labels-chosen-by", choices=CHOICES, default="", help="more labels (default: the few)")
    add("--pretrained", choices=(CONTROL,), default="", help="whose weights it starts from")
    add("--vehicle", choices=VEHICLES, default="small", help="plans and schedule")
    add("--double-batch", action="store_true", help="twice the labeled batch")
    add("--epochs", type=int, help="default: those of the vehicle")
    add("--longer", type=int, default=1, metavar="N", help="N times as many epochs")
    add("--times", type=int, default=0, help="measure the test cases this many times")
    add("--seconds", type=float, help="expected (default: by the results of the same method)")
    add("--queue", type=Path, default=QUEUE)
    add("--results", type=Path, default=long_csv.RESULTS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Add rows to the queue."""
    arguments = parse_arguments(argv)
    dataset, schedule = DATASETS[arguments.dataset], VEHICLES[arguments.vehicle]
    epochs = arguments.longer * (arguments.epochs or schedule["epochs"])
    ending = "_small" if arguments.vehicle == "small" else ""
    new = []
    for seed in arguments.seeds:
        run = Run(
            dataset=arguments.dataset,
            method=arguments.method,
            settings=arguments.settings,
            labels=dataset.labels(arguments.labels_chosen_by),
            stage=arguments.stage,
            seed=seed,
            epochs=epochs,
            iterations=epochs * schedule["iterations_per_epoch"],
            name=arguments.name or arguments.method,
            configuration=dataset.configuration + ending + DOUBLE * arguments.double_batch,
            chosen_by=arguments.labels_chosen_by,
            pretrained=arguments.pretrained,
            times=arguments.times,
        )
        seconds = arguments.seconds or expected_seconds(run, arguments.results)
        new.append(run.row() | {"seconds": f"{seconds:g}"})
    with long_csv.locked(arguments.queue.parent):
        rows = [*long_csv.read_file(arguments.queue, QUEUE_COLUMNS), *new]
        names = [Run.of_row(row).run for row in rows]
        if len(set(names)) < len(names) or finished(arguments.results) & set(names):
            raise SystemExit("error: it is in the queue or done already; give it another --name.")
        long_csv.write_file(arguments.queue, QUEUE_COLUMNS, rows)


if __name__ == "__main__":
    main()

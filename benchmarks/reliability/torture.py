"""Give bad inputs to every command and judge what it does.

    python -m benchmarks.reliability.torture --results benchmarks/results

Each has a fresh copy of a small dataset that is planned, preprocessed and trained on, made once by
the package's own commands, and each command runs in a process of its own. What it does with the
input is a row of benchmarks/results/reliability.csv; the exit status is 1 if a verdict is not
"clear sentence".
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import long_csv
from benchmarks.reliability.command_lines import command_lines
from benchmarks.reliability.conversions import definitions, layouts
from benchmarks.reliability.dicom_folders import dicom
from benchmarks.reliability.documents import checkpoints, json_files, metrics, plans
from benchmarks.reliability.sandbox import (
    CONFIGURATION,
    FOLDERS,
    GOOD,
    BadInput,
    Outcome,
    enter,
    fresh,
    judge,
)
from benchmarks.reliability.scans import folders_of_scans, formats, scans
from benchmarks.reliability.tables import PAGE, fill, tables
from benchmarks.reliability.trainings import trainings
from nnunetv2_spmc import discovery

GROUPS = {
    "scans": scans,
    "formats": formats,
    "folders of scans": folders_of_scans,
    "DICOM": dicom,
    "definitions": definitions,
    "layouts": layouts,
    "JSON files": json_files,
    "plans": plans,
    "trainings": trainings,
    "checkpoints": checkpoints,
    "metrics": metrics,
    "command lines": command_lines,
}
BASE = (
    "nnUNetv2_spmc_convert phantom --labeled 6 --unlabeled 3 --test 1 --size 24 24 16 -np 1",
    "nnUNetv2_plan_and_preprocess -d 500 -c 2d -np 1 -npfp 1 --no_pbar",
    "nnUNetv2_spmc_plan small -d 500 -c 2d --features 4 8 --patch-size 16 16 --batch-size 2",
    f"nnUNetv2_spmc_preprocess -d 500 -c {CONFIGURATION} -np 0",
    f"nnUNetv2_train 500 {CONFIGURATION} 0 -tr nnUNetTrainerSPMC -device cpu",
)
SETTINGS = '{"epochs": 1, "iterations_per_epoch": 2, "validation_iterations": 1, "seed": 0}'


def all_inputs() -> list[tuple[str, BadInput]]:
    """Every bad input with its group."""
    return [(group, bad) for group, inputs in GROUPS.items() for bad in inputs()]


def every(step: int, inputs: Sequence[tuple[str, BadInput]]) -> list[tuple[str, BadInput]]:
    """Take one input in `step`, and none of a group without any."""
    groups = [[one for one in inputs if one[0] == group] for group in GROUPS]
    return [one for group in groups for one in group[::step]]


def run(
    inputs: Iterable[tuple[str, BadInput]], base: Path, root: Path
) -> Iterable[tuple[str, BadInput, Outcome]]:
    """Judge each input in a fresh copy of the base; `enter(root)` was called before."""
    for group, bad in inputs:
        yield group, bad, judge(bad, fresh(base, root))


def make_base(base: Path, commands: Sequence[str] = BASE) -> None:
    """Make the dataset, its plans and a model, as a user does."""
    for name in FOLDERS:
        (base / name).mkdir(parents=True)
    environment = os.environ | {name: str(base / name) for name in FOLDERS}
    environment |= {
        "nnUNet_n_proc_DA": "1",
        "nnUNet_spmc_settings": SETTINGS,
    }
    environment["nnUNet_extTrainer"] = str(Path(discovery.__file__).parent)
    for command in commands:
        program, *arguments = command.split()
        beside_python = Path(sys.executable).with_name(program)
        subprocess.run([beside_python, *arguments], env=environment, check=True)


def row_of(group: str, bad: BadInput, outcome: Outcome) -> dict[str, str]:
    """Return the row of reliability.csv."""
    return {
        "group": group,
        "command": bad.command,
        "input": bad.name,
        "verdict": outcome.verdict,
        "status": str(outcome.status),
        "seconds": f"{outcome.seconds:.1f}",
        "why": outcome.why,
        "said": outcome.said,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run all inputs, or those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--base", type=Path, help="keep the dataset and the model here, and use them again")
    add("--group", choices=GROUPS, help="only these inputs")
    add("--command", help="only inputs of this command")
    add("--only", help="only inputs whose name has this in it")
    add("--every", type=int, default=1, metavar="N", help="one input in N of each group")
    add("--results", type=Path, metavar="FOLDER", help="write reliability.csv there")
    add("--show", action="store_true", help="print what the commands said")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="torture-") as temporary:
        base = arguments.base or Path(temporary, "base")
        if not base.is_dir():
            make_base(base)
        root = Path(temporary, "here")
        enter(root)
        chosen = [
            (group, bad)
            for group, bad in every(arguments.every, all_inputs())
            if arguments.group in (None, group)
            and arguments.command in (None, bad.command)
            and (arguments.only or "") in bad.name
        ]
        rows = []
        for group, bad, outcome in run(chosen, base, root):
            rows.append(row_of(group, bad, _without(str(root), outcome)))
            if outcome.verdict != GOOD or arguments.show:
                print(f"{outcome.verdict}: {bad.command}, {group}: {bad.name} ({outcome.why})")
                print(f"    {outcome.said}", flush=True)
    if arguments.results:
        file = arguments.results / "reliability.csv"
        long_csv.write_file(file, long_csv.COLUMNS["reliability"], rows)
        if arguments.results.resolve() == long_csv.RESULTS:
            fill(PAGE, tables(rows))
    counts = Counter(row["verdict"] for row in rows)
    print(f"{len(rows)} bad inputs: " + ", ".join(f"{n} {v}" for v, n in counts.most_common()))
    sys.exit(0 if set(counts) <= {GOOD} else 1)


def _without(root: str, outcome: Outcome) -> Outcome:
    """Leave the paths of the sandbox and of the clone out of what was said."""
    clone = str(long_csv.RESULTS.parents[1])
    cleaned = [outcome.said, outcome.why]
    for path in (f"{root}/", root, f"{clone}/"):
        cleaned = [text.replace(path, "." if path == root else "") for text in cleaned]
    return dataclasses.replace(outcome, said=cleaned[0], why=cleaned[1])


if __name__ == "__main__":
    main()

"""Kill commands at moments spread evenly over their duration, run them again, compare.

    python -m benchmarks.reliability.kills --results benchmarks/results

What the command gives at the end must be what it gives uninterrupted. Four of five kills are
SIGKILL to all processes, as a power cut or a cluster has it, the others SIGTERM to the first one.
Each is a row of benchmarks/results/kills.csv; kills that have their row are not done again. The
exit status is 1 if an outcome is not "same".
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import long_csv
from benchmarks.reliability.contents import (
    EMPTY,
    NOT_WHOLE,
    UNFINISHED,
    Contents,
    TornError,
    contents,
)
from benchmarks.reliability.kinds import Arguments, Finished, Kind, kinds
from benchmarks.reliability.sandbox import (
    TIMEOUT_S,
    Here,
    ended,
    enter,
    fresh,
    killed,
    last_lines,
    status_by,
)
from benchmarks.reliability.tables import PAGE, SAME, fill, kill_tables
from benchmarks.reliability.torture import make_base

TERMINATED_EVERY = 5  # one of so many kills is SIGTERM
PATIENCE_S = 20  # from SIGTERM to the end, and from the end of a command to that of its processes
SMALL = "--features 4 8 --batch-size 2 --patch-size"
BASE = (
    "nnUNetv2_spmc_convert phantom --labeled 6 --unlabeled 5 --test 1 --size 24 24 16 -np 1",
    "nnUNetv2_plan_and_preprocess -d 500 -c 2d 3d_fullres -np 1 1 -npfp 1 --no_pbar",
    f"nnUNetv2_spmc_plan small -d 500 -c 2d {SMALL} 16 16",
    f"nnUNetv2_spmc_plan small -d 500 -c 3d_fullres {SMALL} 8 16 16",
    "nnUNetv2_spmc_preprocess -d 500 -c 2d_small 3d_fullres_small -np 0",
    "nnUNetv2_train 500 2d_small 0 -tr nnUNetTrainerSPMC -device cpu",
)
IMPORTED = (  # before commands are forked: a kill in the midst of imports shows nothing
    "nnunetv2_spmc.cli.train",
    "nnunetv2_spmc.cli.convert",
    "nnunetv2_spmc.dataset_conversion.folder",
    "nnunetv2_spmc.dataset_conversion.acdc",
    "nnunetv2_spmc.unlabeled.preprocessing",
    "nnunetv2_spmc.inference.uncertainty",
)


@dataclass(frozen=True)
class Kill:
    """When a command is killed, and how."""

    kind: Kind
    number: int
    moment: float  # share of the duration
    signal: signal.Signals


@dataclass(frozen=True)
class Outcome:
    """What came of a kill."""

    outcome: str
    why: str = ""
    seconds: float = 0  # from start to kill


@dataclass(frozen=True)
class Start:
    """From where a kind starts, and what comes of it without a kill."""

    folder: Path
    arguments: Arguments
    before: Contents
    result: Contents
    seconds: float


def all_kills(chosen: Sequence[Kind]) -> list[Kill]:
    """Return the kills of some kinds: one in each of as many equal parts of the duration."""
    found = []
    for kind in chosen:
        rng = random.Random(f"{kind.command} {kind.name}")
        moments = [(part + rng.random()) / kind.kills for part in range(kind.kills)]
        rng.shuffle(moments)
        for number, moment in enumerate(moments):
            stop = signal.SIGKILL if (number + 1) % TERMINATED_EVERY else signal.SIGTERM
            found.append(Kill(kind, number, moment, stop))
    return found


def run(kills: Sequence[Kill], base: Path, root: Path) -> Iterator[tuple[Kill, Outcome]]:
    """Do the kills in fresh copies of the base; `enter(root)` was called before."""
    starts: dict[str, Start] = {}
    for kill in kills:
        name = f"{kill.kind.command} {kill.kind.name}"
        if name not in starts:
            starts[name] = uninterrupted(kill.kind, base, root, root.parent / "starts" / name)
            print(f"{name}: {starts[name].seconds:.1f} s uninterrupted", flush=True)
        yield kill, outcome_of(kill, starts[name], root)


def uninterrupted(kind: Kind, base: Path, root: Path, keep: Path) -> Start:
    """Make the start of a kind and keep it; run the command twice, which must give the same.

    Raises:
        RuntimeError: it fails, or gives something else the second time.
    """
    here = fresh(base, root)
    arguments = kind.start(here)
    shutil.copytree(root, keep)
    results, seconds = [], []
    for _ in range(2):
        here = fresh(keep, root)
        before = _contents(kind, here)
        began = time.monotonic()
        status = ended(kind.begin(here, arguments))
        seconds.append(time.monotonic() - began)
        if status:
            said = here.root.with_suffix(".log").read_text(errors="replace")
            raise RuntimeError(f"{kind.command} {kind.name} fails uninterrupted: {said[-2000:]}")
        results.append(_contents(kind, here))
    outcome, why = compared(results[0], results[1], {}, {})
    if outcome != SAME:
        raise RuntimeError(f"{kind.command} {kind.name} differs without a kill: {why}")
    return Start(keep, arguments, before, results[0], min(seconds))


def _contents(kind: Kind, here: Here) -> Contents:
    made = here.root / "nnUNet_results"
    return contents(here.root, lambda file: kind.repeats or made not in file.parents)


def outcome_of(kill: Kill, start: Start, root: Path) -> Outcome:
    """Kill a command, run it again to its end, and judge."""
    moment = kill.moment
    for _ in range(5):  # one that ended before is no kill: the machine is faster now
        here = fresh(start.folder, root)
        began = time.monotonic()
        child = kill.kind.begin(here, start.arguments)
        if status_by(child, began + moment * start.seconds) is None:
            seconds = time.monotonic() - began
            left = stopped(child, kill.signal)
            return Outcome(*(("left over", left) if left else judged(kill, start, here)), seconds)
        moment *= 0.9
    raise RuntimeError(f"{kill.kind.command} {kill.kind.name} ends before it can be killed")


def stopped(child: int, number: signal.Signals) -> str:
    """Stop a command; return what is left of it: nothing, if all is well."""
    if number == signal.SIGKILL:
        killed(child)
    else:
        os.kill(child, number)
        if status_by(child, time.monotonic() + PATIENCE_S) is None:
            killed(child)
            return f"it has not ended {PATIENCE_S} s after {number.name}"
    return processes_of(child)


def processes_of(child: int) -> str:
    """Wait for the processes that a command started; kill and name those that do not end."""
    deadline = time.monotonic() + PATIENCE_S
    while left := _running_in(child):
        if time.monotonic() > deadline:
            for process in left:
                os.kill(process, signal.SIGKILL)
            return f"{len(left)} processes that it started run {PATIENCE_S} s after its end"
        time.sleep(0.02)
    return ""


def _running_in(group: int) -> list[int]:
    """Return the processes of a group, but those that have ended and nobody has asked about."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, its_group = (process / "stat").read_text().rpartition(") ")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                found.append(int(process.name))
    return found


def judged(kill: Kill, start: Start, here: Here) -> tuple[str, str]:
    """Look at what a killed command left, run it again, and compare what comes of it."""
    kind = kill.kind
    try:
        after_kill = _contents(kind, here)
        torn = half_written(kind, start, after_kill)
        if torn:
            return "different", f"{torn} is half-written after the kill"
        finished = kind.finished(here)
        is_done = kind.refuses_when_done and after_kill.items() >= start.result.items()
        child = kind.begin(here, (*start.arguments, *kind.again))
        status = ended(child, TIMEOUT_S)
        if status and not (is_done and status > 0):
            said = last_lines(here.root.with_suffix(".log").read_text(errors="replace"), 1)
            hangs = f"has not ended after {TIMEOUT_S} s" if status < 0 else f"ends with {status}"
            return "lost", f"run again it {hangs}: {said}"
        if left := processes_of(child):
            return "left over", left
        return compared(start.result, _contents(kind, here), finished, kind.finished(here))
    except TornError as error:
        return "different", f"not whole: {error}"


def half_written(kind: Kind, start: Start, after_kill: Contents) -> str | None:
    """Return a file that is neither whole, nor as before, nor marked as unfinished."""
    for name, content in after_kill.items():
        if content.startswith(NOT_WHOLE) and content != start.before.get(name):
            return name
        may_differ = any(fnmatch.fnmatch(name, pattern) for pattern in kind.grows)
        known = (UNFINISHED, EMPTY, start.before.get(name), start.result.get(name))
        if content not in known and not may_differ:
            return name
    return None


def compared(
    wanted: Contents, found: Contents, finished: Finished, finished_now: Finished
) -> tuple[str, str]:
    """Compare what came of a command with what comes of it uninterrupted.

    Args:
        wanted: the contents uninterrupted.
        found: the contents now.
        finished: what was finished when the command was killed.
        finished_now: what is finished now.
    """
    again = [name for name, state in finished.items() if finished_now.get(name) != state]
    if again:
        return "lost", f"was finished, and is not or was made again: {_some(again)}"
    for outcome, names in (
        ("lost", wanted.keys() - found.keys()),
        (
            "different",
            {name for name in wanted.keys() & found.keys() if wanted[name] != found[name]},
        ),
        ("left over", found.keys() - wanted.keys()),
    ):
        if names:
            return outcome, _some(sorted(names))
    return SAME, ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def row_of(kill: Kill, outcome: Outcome) -> dict[str, str]:
    """Return the row of kills.csv."""
    return {
        "command": kill.kind.command,
        "kind": kill.kind.name,
        "number": str(kill.number),
        "moment": f"{kill.moment:.3f}",
        "seconds": f"{outcome.seconds:.2f}",
        "signal": kill.signal.name,
        "outcome": outcome.outcome,
        "why": outcome.why,
    }


def prepare(root: Path) -> None:
    """Set the environment of all commands, and import what they need."""
    enter(root)
    os.environ |= {"OMP_NUM_THREADS": "1", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
    for name in IMPORTED:
        importlib.import_module(name)


def main(argv: Sequence[str] | None = None) -> None:
    """Do all kills, or those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--base", type=Path, help="keep the dataset and the model here, and use them again")
    add("--only", choices=sorted({kind.command for kind in kinds()}), help="only this command")
    add("--kind", help="only kinds whose name has this in it")
    add("--every", type=int, default=1, metavar="N", help="one kill in N")
    add("--results", type=Path, metavar="FOLDER", help="write kills.csv there, or go on with it")
    arguments = parser.parse_args(argv)
    rows = [] if arguments.results is None else long_csv.read("kills", arguments.results)
    done = {(row["command"], row["kind"], row["number"]) for row in rows}
    chosen = [
        kill
        for kill in all_kills(kinds())[:: arguments.every]
        if arguments.only in (None, kill.kind.command)
        and (arguments.kind or "") in kill.kind.name
        and (kill.kind.command, kill.kind.name, str(kill.number)) not in done
    ]
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        base = arguments.base or Path(temporary, "base")
        if not base.is_dir():
            make_base(base, BASE)
        root = Path(temporary, "here")
        prepare(root)
        for kill, outcome in run(chosen, base, root):
            rows.append(row_of(kill, outcome))
            print(" | ".join(rows[-1].values()), flush=True)
            if arguments.results:
                file = arguments.results / "kills.csv"
                long_csv.write_file(file, long_csv.COLUMNS["kills"], rows)
    if arguments.results and arguments.results.resolve() == long_csv.RESULTS:
        fill(PAGE, kill_tables(rows))
    counts = Counter(row["outcome"] for row in rows)
    print(f"{len(rows)} kills: " + ", ".join(f"{n} {o}" for o, n in counts.most_common()))
    sys.exit(0 if set(counts) <= {SAME} else 1)


if __name__ == "__main__":
    main()

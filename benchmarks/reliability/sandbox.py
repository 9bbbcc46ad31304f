"""Run a command of the package on a bad input, in a process of its own, and judge what it did."""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

DATASET = "Dataset500_Phantom"
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
CONFIGURATION = "2d_small"
TIMEOUT_S = 120

Verdict = Literal["clear sentence", "vague", "traceback", "silent", "hang", "leftover"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
GOOD: Verdict = VERDICTS[0]
UNFINISHED = re.compile(r"(^|[/.])(tmp|temp|writing|partial)", re.IGNORECASE)
CHANGES: dict[str, tuple[str, ...]] = {  # what a command may write although an input is bad
    "preprocess": ("nnUNet_preprocessed/*_unlabeled*", "nnUNet_preprocessed/*/spmc_*"),
    "uncertainty": ("out/*",),
    "rank": ("out/*",),
    "evaluate": ("out/*",),
    "report": ("out/*",),
    "train": ("nnUNet_results/*",),
}
RECORDS = "nnUNet_preprocessed/*/spmc_*"  # of scans: brought up to date by whoever compares them


@dataclass(frozen=True)
class Here:
    """The folder in which an input is made and its command runs: a copy of the base."""

    root: Path

    @property
    def raw(self) -> Path:
        """The phantom in nnUNet_raw."""
        return self.root / "nnUNet_raw" / DATASET

    @property
    def preprocessed(self) -> Path:
        """The phantom in nnUNet_preprocessed."""
        return self.root / "nnUNet_preprocessed" / DATASET

    @property
    def model(self) -> Path:
        """A model folder that has a finished fold."""
        (folder,) = (self.root / "nnUNet_results" / DATASET).glob("nnUNetTrainerSPMC*")
        return folder

    @property
    def fold(self) -> Path:
        """The finished fold."""
        (folder,) = self.model.glob("fold_*")
        return folder

    @property
    def out(self) -> Path:
        """Where commands write."""
        return self.root / "out"

    def images(self, kind: str) -> list[Path]:
        """The images of imagesTr, imagesUn or imagesTs."""
        return sorted((self.raw / kind).iterdir())


@dataclass(frozen=True)
class BadInput:
    """Something that a command has to notice.

    Args:
        name: what is wrong.
        command: nnUNetv2_spmc_COMMAND, or "predict" for load_run().predict.
        make: makes it in the folder, returns the command's arguments.
        names: what the output has to name, in any capitals: case, file, key, or value.
        goes_on: it is enough to name it in the output; the exit status may be 0.
        environment: variables to set.
    """

    name: str
    command: str
    make: Callable[[Here], Sequence[str | Path]]
    names: tuple[str, ...] = ()
    goes_on: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a command did with a bad input."""

    verdict: Verdict
    status: int
    seconds: float
    said: str
    why: str = ""


def enter(root: Path) -> None:
    """Let nnU-Net's folders be in `root`; before nnU-Net is imported, which reads them once."""
    for name in FOLDERS:
        os.environ[name] = str(root / name)


def judge(bad: BadInput, here: Here) -> Outcome:
    """Make an input in a fresh copy of the base, run its command, and judge."""
    arguments = [str(argument) for argument in bad.make(here)]
    before = _state(here.root)
    log = here.root.with_suffix(".log")
    started = time.monotonic()
    status = _run(bad, arguments, here.root, log)
    seconds = time.monotonic() - started
    said = log.read_text(encoding="utf-8", errors="replace")
    verdict, why = verdict_on(bad, status, said, _leftovers(bad, before, _state(here.root)))
    return Outcome(verdict, status, seconds, last_lines(said), why)


def verdict_on(
    bad: BadInput, status: int, said: str, leftovers: Sequence[str]
) -> tuple[Verdict, str]:
    if status < 0:
        ended = "timeout" if -status == signal.SIGKILL else signal.Signals(-status).name
        return ("hang" if ended == "timeout" else "traceback"), ended
    if "Traceback (most recent call last)" in said:
        return "traceback", said.strip().splitlines()[-1]
    missing = [name for name in bad.names if name.casefold() not in said.casefold()]
    if status == 0 and not (bad.goes_on and not missing):
        return "silent", f"exit status 0, and {', '.join(missing) or 'the failure'} not named"
    if missing:
        return "vague", f"{', '.join(missing)} not named"
    if leftovers:
        return "leftover", ", ".join(leftovers[:5])
    return GOOD, ""


def _leftovers(
    bad: BadInput, before: Mapping[str, object], after: Mapping[str, object]
) -> list[str]:
    """Return what was removed, changed, or is new without being a result."""
    allowed = CHANGES.get(bad.command, ())
    different = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    return sorted(
        name
        for name in different
        if (name in before and not fnmatch.fnmatch(name, RECORDS))  # an input
        or UNFINISHED.search(name)
        or not (bad.goes_on or any(fnmatch.fnmatch(name, pattern) for pattern in allowed))
    )


def _state(root: Path) -> dict[str, object]:
    """Return size and time of every file in a folder."""
    state: dict[str, object] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            file = os.path.join(folder, name)
            status = os.lstat(file)
            state[os.path.relpath(file, root)] = (status.st_size, status.st_mtime_ns)
    return state


def last_lines(said: str, number: int = 4, width: int = 400) -> str:
    """Return the end of what a command said."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return "\n".join(line[:width] for line in lines[-number:])


def _run(bad: BadInput, arguments: Sequence[str], folder: Path, log: Path) -> int:
    """Run a command; return its exit status, or minus the signal that ended it."""
    program = f"nnUNetv2_spmc_{bad.command}"
    main = main_of(bad.command)
    child = started(main, [program, *arguments], folder, log, bad.environment)
    return ended(child)


def started(
    main: Callable[[list[str]], None],
    line: Sequence[str],
    folder: Path,
    log: Path,
    environment: Mapping[str, str],
) -> int:
    """Start a command in a fork that leads a group of processes; return its number.

    Args:
        main: of the command.
        line: its name and arguments.
        folder: in which it runs.
        log: receives what it says.
        environment: variables to set.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _be_the_command(main, line, folder, log, environment)
    return child


def status_by(child: int, deadline: float) -> int | None:
    """Wait for a command until a moment of `time.monotonic`; return its status if it has ended."""
    while True:
        process, status = os.waitpid(child, os.WNOHANG)
        if process:
            return os.waitstatus_to_exitcode(status)
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(left, 0.01))


def ended(child: int, seconds: float = TIMEOUT_S) -> int:
    """Wait for a command, and kill what hangs; return its status, or minus the signal's number."""
    status = status_by(child, time.monotonic() + seconds)
    return killed(child) if status is None else status


def killed(child: int) -> int:
    """Kill a command with all its processes; return its status, or minus the signal's number."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _be_the_command(
    main: Callable[[list[str]], None],
    line: Sequence[str],
    folder: Path,
    log: Path,
    environment: Mapping[str, str],
) -> None:
    """Run the command as a terminal would, and end this process with its exit status."""
    status = 1
    try:
        os.setsid()
        file = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.chdir(folder)
        os.environ.update(environment)
        sys.argv[0], *arguments = line
        main(arguments)
        status = 0
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def main_of(command: str) -> Callable[[list[str]], None]:
    """Return what a command runs."""
    if command == "predict":
        return _predict
    main: Callable[[list[str]], None]
    main = importlib.import_module(f"nnunetv2_spmc.cli.{command}").main
    return main


def _predict(arguments: list[str]) -> None:
    """What a notebook does: load_run(FOLD).predict(FILE)."""
    from nnunetv2_spmc import load_run
    from nnunetv2_spmc.common.errors import SPMCError

    fold, *files = arguments
    try:
        load_run(fold).predict([Path(file) for file in files])
    except SPMCError as error:
        sys.exit(f"error: {error}")


def fresh(base: Path, root: Path) -> Here:
    """Return a fresh copy of the base."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(base, root)
    (root / "out").mkdir(exist_ok=True)
    return Here(root)

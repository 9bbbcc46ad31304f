"""Command lines with options that no command has, or that have no value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.reliability.sandbox import BadInput, Here
from benchmarks.reliability.scans import PREPROCESS

Arguments = Sequence[str | Path]

REQUIRED = {
    "doctor": "",
    "convert": "folder",
    "plan": "small -d 500 -c 2d --name mine",
    "preprocess": " ".join(PREPROCESS),
    "train": "500 2d_small 0 -device cpu",
    "trainers": "",
    "export": "-i MODEL -o out/x",
    "evaluate": "-ref MODEL -pred MODEL",
    "compare": "a=out b=out",
    "uncertainty": "-i out -o out/x -m MODEL",
    "rank": "-d 500 -m MODEL",
    "report": "-o out/x.html MODEL",
}


def command_lines() -> Iterator[BadInput]:
    """Options that no command has, that have no value, or that a habit shortens."""
    for command, line in REQUIRED.items():
        for name, more, names in (
            ("an unknown option", "-zzz 3", ("-zzz",)),
            ("an unknown long option", "--no-such-option", ("--no-such-option",)),
            ("an option of another command", "-part_of 2", ("-part_of",)),
            ("a short form of a long option", "--hel", ("--hel",)),
        ):
            yield BadInput(name, command, _line(f"{line} {more}"), names)
    for command, line, names in (
        ("uncertainty", "-i out -o out/x -m MODEL -d 500", ("-d",)),
        ("export", "-i MODEL -o out/x -fold 0", ("-fold",)),
        ("preprocess", "-d 501 -c 2d", ("501",)),
        ("preprocess", "-d Dataset500 -c 2d", ("Dataset500",)),
        ("preprocess", "-d 500 -c 2d -num_parts 2 -part_id 5", ("part_id",)),
        ("doctor", "-c 2d", ("-d",)),
        ("doctor", "--html .", ("folder",)),
        ("rank", "-d 500 -m gone", ("gone",)),
        ("report", "-o out/x.html gone", ("gone",)),
        ("compare", "a=gone b=out", ("gone",)),
        ("evaluate", "-ref gone -pred out", ("gone",)),
        ("plan", "small -d 500 -c 3d_gone", ("3d_gone",)),
        ("plan", "small -d 500 -c 2d --name ../x", ("../x",)),
        ("plan", "small -d 500 -c 2d --features 0 4", ("features",)),
        ("plan", "small -d 500 -c 2d --patch_size 7", ("patch",)),
        ("trainers", "--shell cobol", ("cobol",)),
        ("rank", "-d 500 -m MODEL -o . -device cpu --disable_tta", ("folder",)),
        ("rank", "-d 500 -m MODEL -o out -device cpu --disable_tta", ("folder",)),
        ("report", "-o . MODEL/fold_0 --no_maps --no_viewer", ("folder",)),
        ("export", "-i MODEL -o .", ("exists",)),
        ("export", "-i MODEL -o MODEL", ("exists",)),
    ):
        yield BadInput(f"{line}", command, _line(line), names)


def _line(line: str) -> Callable[[Here], Arguments]:
    return lambda here: [word.replace("MODEL", str(here.model)) for word in line.split()]

"""Fill in docs/reliability.md from reliability.csv: python -m benchmarks.reliability.tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from benchmarks import long_csv
from benchmarks.performance.tables import DOCS, fill, markdown
from benchmarks.reliability.sandbox import VERDICTS

PAGE = DOCS / "reliability.md"
SAME = "same"
OUTCOMES = (SAME, "lost", "different", "left over")
EXAMPLES = (  # command, input
    ("convert", "image: half of the file"),
    ("preprocess", "unlabeled image: three values per voxel"),
    ("convert", "DICOM: a tilted gantry"),
    ("convert", "a region order that loses a region"),
    ("rank", "unlabeled image: one NaN"),
    ("compare", "metrics.csv: a Dice of 2"),
    ("export", "checkpoint: cut short"),
)


def tables(rows: Sequence[long_csv.Row]) -> dict[str, str]:
    """Return the markdown of every table by its name."""
    return {
        "by group": _counts(rows, "group"),
        "by command": _counts(rows, "command"),
        "not clear": _not_clear(rows),
        "examples": _examples(rows),
    }


def _counts(rows: Sequence[long_csv.Row], column: str) -> str:
    """One row per value of a column, and their sum: how many have which verdict."""
    names = dict.fromkeys(row[column] for row in rows)
    lines = [_line(name, column, [r for r in rows if r[column] == name]) for name in names]
    return markdown([*lines, _line("all", column, rows)])


def _line(name: str, column: str, rows: Sequence[long_csv.Row]) -> dict[str, object]:
    counts = Counter(row["verdict"] for row in rows)
    return {column: name, "inputs": len(rows), **{verdict: counts[verdict] for verdict in VERDICTS}}


def _not_clear(rows: Sequence[long_csv.Row]) -> str:
    found = [row for row in rows if row["verdict"] != VERDICTS[0]]
    if not found:
        return "None."
    return markdown([{c: row[c] for c in ("command", "input", "verdict", "why")} for row in found])


def _examples(rows: Sequence[long_csv.Row]) -> str:
    """What was said about some inputs."""
    said = {(row["command"], row["input"]): row["said"] for row in rows}
    return "\n\n".join(
        f"{name} (`{command}`):\n\n    {_sentence(said[command, name])}"
        for command, name in EXAMPLES
        if (command, name) in said
    )


def _sentence(said: str) -> str:
    """Return the line that says what is wrong; others may follow it."""
    lines = said.splitlines()
    return next((line for line in lines if line.startswith(("error:", "failed:"))), lines[-1])


def kill_tables(rows: Sequence[long_csv.Row]) -> dict[str, str]:
    """Return the markdown of the tables of kills, one for each command, by its name."""
    commands = dict.fromkeys(row["command"] for row in rows)
    return {f"kills of {c}": _kills([r for r in rows if r["command"] == c]) for c in commands}


def _kills(rows: Sequence[long_csv.Row]) -> str:
    kinds = dict.fromkeys(row["kind"] for row in rows)
    lines = [_kill_line(kind, [r for r in rows if r["kind"] == kind]) for kind in kinds]
    return markdown([*lines, _kill_line("all", rows)])


def _kill_line(kind: str, rows: Sequence[long_csv.Row]) -> dict[str, object]:
    outcomes = Counter(row["outcome"] for row in rows)
    terminated = sum(row["signal"] == "SIGTERM" for row in rows)
    counts = {outcome: outcomes[outcome] for outcome in OUTCOMES}
    return {"kind": kind, "kills": len(rows), "of these SIGTERM": terminated, **counts}


if __name__ == "__main__":
    fill(PAGE, tables(long_csv.read("reliability")) | kill_tables(long_csv.read("kills")))

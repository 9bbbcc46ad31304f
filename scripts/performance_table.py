"""Write a benchmark's rows as CSV, print them, and put them into docs/performance.md."""

from __future__ import annotations

import csv
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.whole_file import whole_file

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "performance.md"
MACHINE = "machine"  # column that says where and how a row was measured; below the table


def machine(threads: int, repeats: str) -> str:
    """Say in a sentence on what was measured."""
    import torch

    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        named = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text(encoding="utf-8"))
        cpu = named[1].strip() if named else cpu
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{cpu} ({os.cpu_count()} cores), {device}, torch {torch.__version__}, "
        f"{threads} threads; {repeats}"
    )


def peak_memory() -> int:
    """Return the peak resident bytes of this process.

    Linux hands getrusage's maximum down from the process that started this one, so it is read
    from /proc there.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        if found:
            return int(found[1]) << 10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (
        0 if sys.platform == "darwin" else 10
    )


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format rows as a table, the machines they were measured on below it."""
    columns = [column for column in rows[0] if column != MACHINE]
    lines = [columns, ["---"] * len(columns), *([str(row[c]) for c in columns] for row in rows)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    machines = dict.fromkeys(str(row[MACHINE]) for row in rows if row.get(MACHINE))
    return "\n\n".join([table, *machines])


def filled(page: str, name: str, content: str) -> str:
    """Replace what lies between the markers of a table.

    Raises:
        ValueError: the page has no markers of that name.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"The page has no markers {begin} ... {end}; add them.")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def publish(
    name: str, rows: Sequence[Mapping[str, Any]], folder: Path | None, key: Sequence[str]
) -> None:
    """Print the rows; with a folder also write performance-NAME.csv, and fill in the page.

    Args:
        name: "step" for example; the markers on the page have the name of the file.
        rows: all with the same columns.
        folder: docs/benchmarks to refresh what the page says; another one gets the CSV alone.
        key: the columns that tell rows apart; rows that were measured before and are not measured
            anew stay in the file.
    """
    print("\n" + markdown(rows))
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows = merged(read(name, folder), rows, key)
    file = folder / f"performance-{name}.csv"
    with whole_file(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    if folder.resolve() == DOCS / "benchmarks":
        page = filled(PAGE.read_text(encoding="utf-8"), file.name, markdown(rows))
        with whole_file(PAGE) as temporary:
            temporary.write_text(page, encoding="utf-8")


def merged(
    before: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], key: Sequence[str]
) -> list[Mapping[str, Any]]:
    """Replace rows of equal keys, leave the others, put what is new at the end."""
    new = {tuple(str(row[column]) for column in key): row for row in rows}
    kept = [new.pop(tuple(str(row[column]) for column in key), row) for row in before]
    return [*kept, *new.values()]


def read(name: str, folder: Path) -> list[dict[str, str]]:
    """Return the rows of performance-NAME.csv, none if it is absent."""
    file = folder / f"performance-{name}.csv"
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))

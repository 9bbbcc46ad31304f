"""Print the rows of a benchmark, keep them in performance.csv and put them into the page.

python -m benchmarks.performance.tables     fills in docs/performance.md from the CSV alone
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import long_csv
from nnunetv2_spmc.common.whole_file import whole_file

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "performance.md"
RESULTS_HELP = "also write there; benchmarks/results fills in docs/performance.md, too"
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


def fill(page: Path, contents: Mapping[str, str]) -> None:
    """Put contents between the markers of a page."""
    text = page.read_text(encoding="utf-8")
    for name, content in contents.items():
        text = filled(text, name, content)
    with whole_file(page) as temporary:
        temporary.write_text(text, encoding="utf-8")


def publish(
    name: str, rows: Sequence[Mapping[str, Any]], folder: Path | None, key: Sequence[str]
) -> None:
    """Print the rows; with a folder also put them into its performance.csv, and fill in the page.

    Args:
        name: of the table, "step" for example.
        rows: all with the same columns, those of the key first.
        folder: benchmarks/results to refresh what the page says; another one gets the CSV alone.
        key: the columns that tell rows apart; rows that were measured before and are not measured
            again stay in the file.
    """
    print("\n" + markdown(rows))
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with long_csv.locked(folder):
        before = long_csv.read("performance", folder)
        long_csv.write_file(
            folder / "performance.csv",
            long_csv.COLUMNS["performance"],
            merged(before, [cell for row in rows for cell in cells(name, row, key)]),
        )
    if folder.resolve() == long_csv.RESULTS:
        fill(PAGE, tables(folder))


def cells(name: str, row: Mapping[str, Any], key: Sequence[str]) -> list[dict[str, str]]:
    """Return a row of a table as rows of performance.csv, one per measure."""
    which = json.dumps({column: str(row[column]) for column in key})
    where = str(row.get(MACHINE, ""))
    return [
        {"table": name, "key": which, "measure": column, "value": str(value), "machine": where}
        for column, value in row.items()
        if column not in (*key, MACHINE)
    ]


def merged(before: Sequence[long_csv.Row], new: Sequence[long_csv.Row]) -> list[long_csv.Row]:
    """Replace rows of equal keys, leave the others, put what is new at the end."""
    key = long_csv.KEYS["performance"]
    fresh = {tuple(row[column] for column in key): row for row in new}
    kept = [fresh.pop(tuple(row[column] for column in key), row) for row in before]
    return [*kept, *fresh.values()]


def tables(folder: Path) -> dict[str, str]:
    """Return the markdown of every table of performance.csv, by its name."""
    found: dict[str, dict[str, dict[str, str]]] = {}  # table -> key -> row
    for cell in long_csv.read("performance", folder):
        row = found.setdefault(cell["table"], {}).setdefault(cell["key"], json.loads(cell["key"]))
        row |= {cell["measure"]: cell["value"], MACHINE: cell["machine"]}
    return {
        f"performance.csv: {name}": markdown(list(rows.values())) for name, rows in found.items()
    }


if __name__ == "__main__":
    fill(PAGE, tables(long_csv.RESULTS))

"""Write docs/supported.md from the tests, which hold it to them.

    python scripts/supported_table.py

The grid of configurations, plans and labels comes from tests/matrix/cases.py. Every other row is a
marker on the test that shows it:

    @pytest.mark.supported("resume", "`--c` after `kill -9`")
    @pytest.mark.supported("few labels", "a fold that does not exist", refused=True)
    @pytest.mark.supported("devices", "MPS", needs="MPS")  # the test skips without the device

A row whose marker stands on several tests names all of them. New sections go into SECTIONS.
"""

from __future__ import annotations

import ast
import os
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[1]
TABLE = REPOSITORY / "docs" / "supported.md"
CASES = "tests/matrix/cases.py"
GRID_TEST = "tests/matrix/test_matrix.py::test_trains_and_predicts"
MARKER = "pytest.mark.supported"
SECTIONS = (
    "configurations",
    "networks",
    "patches",
    "folds",
    "augmentation",
    "trainers",
    "devices",
    "sparse annotation",
    "few labels",
    "resume",
    "several processes",
    "warm start",
    "stability",
    "commands",
    "DICOM series",
    "stock tools",
)
INTRODUCTION = """\
# What is supported

`python scripts/supported_table.py` writes this page from the tests. A test fails if the two differ.

- *Works*: the named test passes. A training in it consists of a few iterations on tiny phantoms,
  nnU-Net's final validation, and a prediction by stock nnU-Net. The test shows that things run, not
  that they help: [benchmarks.md](benchmarks.md) has the accuracy.
- *Refused*: before data is loaded, one sentence says what to use instead.
- *Tested only where there is ...*: the test skips without that device. On other machines it shows
  nothing.
"""
GRID_HEAD = f"""\
## Configurations, plans, labels, channels, numbered folds

The plans are nnU-Net's, with fewer features. Anisotropic plans have flat kernels and strides. Each
cell is a test: `{GRID_TEST}[ROW-CONFIGURATION-PLANNER]`.

Each test asserts that:

- every loss term is finite;
- encoder and decoder of every branch moved by more than weight decay alone would move them;
- the network that stock nnU-Net builds from the plans takes the checkpoint and gives the same
  output;
- a scan that stock nnU-Net predicts has the geometry, the labels and the probabilities that it
  should have.

`tests/methods/test_contract.py` asserts for every method that the loss falls on one batch.

"""


class Row(NamedTuple):
    """One line of a table."""

    section: str
    what: str
    status: str
    tests: tuple[str, ...]


def supported_table(repository: Path = REPOSITORY) -> str:
    """Build the text of docs/supported.md."""
    cases = SimpleNamespace(**runpy.run_path(str(repository / CASES)))
    parts = [INTRODUCTION, grid_section(cases)]
    rows = merged(marked_rows(repository))
    for section in SECTIONS:
        lines = [
            f"| {row.what} | {row.status} | {'<br>'.join(f'`{test}`' for test in row.tests)} |"
            for row in rows
            if row.section == section
        ]
        if lines:
            title = section[0].upper() + section[1:]
            head = f"## {title}\n\n| what | status | test |\n|---|---|---|\n"
            parts.append(head + "\n".join(lines) + "\n")
    return "\n".join(parts)


def grid_section(cases: SimpleNamespace) -> str:
    """Draw the grid: one row per dataset, one column per configuration and planner."""
    columns = [f"{configuration}<br>{planner}" for configuration, planner in cases.COLUMNS]
    lines = [
        f"| | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for dataset in cases.DATASETS:
        cells = [
            next(
                cell
                for cell in cases.GRID
                if (cell.dataset, cell.configuration, cell.planner) == (dataset, *column)
            )
            for column in cases.COLUMNS
        ]
        shown = " | ".join(f"works, fold {cell.fold}" for cell in cells)
        lines.append(f"| {dataset.shown} (`{dataset.name}`) | {shown} |")
    return GRID_HEAD + "\n".join(lines) + "\n"


def marked_rows(repository: Path) -> Iterator[Row]:
    """Find the markers on the tests, in the order of files and lines.

    Raises:
        ValueError: a marker names an unknown section, or stands on something that is not a test.
    """
    for file in sorted((repository / "tests").rglob("test_*.py")):
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            test = f"{file.relative_to(repository).as_posix()}::{function.name}"
            for call in function.decorator_list:
                if isinstance(call, ast.Call) and ast.unparse(call.func) == MARKER:
                    yield marked_row(call, test)


def marked_row(call: ast.Call, test: str) -> Row:
    """Read a marker: section and what as arguments, refused and needs as keywords."""
    section, what = (ast.literal_eval(argument) for argument in call.args)
    options = {option.arg: ast.literal_eval(option.value) for option in call.keywords}
    if section not in SECTIONS or not test.partition("::")[2].startswith("test_"):
        raise ValueError(f"{test}: the section {section!r} is none of {', '.join(SECTIONS)}.")
    if options.keys() - {"refused", "needs"}:
        raise ValueError(f"{test}: the marker knows refused and needs, not {', '.join(options)}.")
    status = "refused" if options.get("refused") else "works"
    if "needs" in options:
        status = f"tested only where there is {options['needs']}"
    return Row(section, what, status, (test,))


def merged(rows: Iterator[Row]) -> list[Row]:
    """Join rows that say the same of several tests."""
    joined: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        before = joined.get(row[:3])
        joined[row[:3]] = row if before is None else row._replace(tests=before.tests + row.tests)
    return list(joined.values())


def main() -> None:
    temporary = TABLE.with_suffix(".tmp")
    temporary.write_text(supported_table(), encoding="utf-8")
    os.replace(temporary, TABLE)
    print(f"Wrote {TABLE}")


if __name__ == "__main__":
    main()

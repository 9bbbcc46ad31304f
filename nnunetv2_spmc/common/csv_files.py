"""CSV files: written whole, and without a name that a spreadsheet would compute as a formula."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.whole_file import whole_file

FORMULA = re.compile(r"'*[=+\-@\t\r\n]")  # how text begins that is more than text


def as_cell(value: Any) -> Any:
    """Return what to write for a value: text is quoted where it would be a formula.

    Numbers stay numbers. `from_cell` gives every text back, one that was quoted already, too.
    """
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def from_cell(text: str) -> str:
    """Return the text for which `as_cell` gave this."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows under a header, whole or not at all.

    Raises:
        WriteError: it could not be written.
    """
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({column: as_cell(value) for column, value in row.items()})

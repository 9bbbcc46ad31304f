"""What a metrics.csv may hold: other programs and people write into it, too."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.evaluation.case_metrics import ClassMetrics
from nnunetv2_spmc.evaluation.metrics_csv import read_metrics_csv, write_metrics_csv

ROWS = [ClassMetrics(f"case{i}", "organ", 0.5, 0.25, 4, 3, 2, 1, 10, 10, "ok") for i in range(3)]
ROW = "case1,organ,0.5,0.25,4,3,2,1,10,10,ok"


@pytest.fixture
def written(tmp_path) -> Path:
    write_metrics_csv(tmp_path / "metrics.csv", ROWS)
    return tmp_path / "metrics.csv"


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("2,0.25,4,3,2,1,10,10,ok", "dice 2, which is not between 0 and 1"),
        ("-1,0.25,4,3,2,1,10,10,ok", "dice -1, which is not between 0 and 1"),
        ("inf,0.25,4,3,2,1,10,10,ok", "dice inf, which is not between 0 and 1"),
        ("0.5,1.5,4,3,2,1,10,10,ok", "jaccard 1.5, which is not between 0 and 1"),
        ("0.5,0.25,-4,3,2,1,10,10,ok", "hd95_mm -4, which is not a distance"),
        ("0.5,0.25,4,3,2,inf,10,10,ok", "asd_voxel inf, which is not a distance"),
        ("nan,nan,4,3,2,1,10,10,ok", "dice nan with the status ok"),
        ("0.5,0.25,4,3,2,1,10,10,both_empty", "dice 0.5 with the status both_empty"),
        ("0.5,0.25,4,3,2,1,10,-1,ok", "predicted_voxels -1"),
    ],
)
def test_a_value_that_no_evaluation_gives_is_named_with_its_case(written, values, message) -> None:
    change(written, ROW, f"case1,organ,{values}")
    expected = f"{written}: line 3: case case1, class organ has {message}; write it again"
    with pytest.raises(DataError, match=re.escape(expected)):
        read_metrics_csv(written)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("case1", "c" * 200_000, "line 3: field larger than field limit"),
        ("case1", '"case1', "unexpected end of data"),
        ("case1", "ca\0se1", "it has NUL bytes"),
        (ROW, f"{ROW},more", "line 3 is not a row of metrics"),
        (ROW, "case1,organ", "line 3 is not a row of metrics"),
        (ROW, ROW.replace("case1", "case0"), "same case and class twice (case0, organ)"),
        ("dice,", "", "has no column dice;"),
        ("jaccard", "dice", "has no column jaccard;"),
        ("case,label", "case,label,dice", "has the column dice twice"),
    ],
)
def test_what_is_no_table_of_metrics_is_said(written, old, new, message) -> None:
    change(written, old, new)
    with pytest.raises(DataError, match=re.escape(message)) as refused:
        read_metrics_csv(written)
    assert str(written) in str(refused.value)


def latin1(text: str) -> bytes:
    return text.replace("organ", "Käse").encode("latin-1")


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (latin1, "is not UTF-8 (byte 0xe4 in line 2); save it as UTF-8"),
        (lambda text: text.encode("utf-16-le"), "is not text: it has NUL bytes"),
        (lambda text: text.encode("utf-32"), "is not text: it has NUL bytes"),
    ],
    ids=["latin-1", "utf-16 without a mark", "utf-32"],
)
def test_a_foreign_encoding_is_a_sentence(
    written, encode: Callable[[str], bytes], message: str
) -> None:
    written.write_bytes(encode(written.read_text(encoding="utf-8")))
    with pytest.raises(DataError, match=re.escape(f"{written} {message}")):
        read_metrics_csv(written)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_what_other_programs_save_is_read(written, encoding, newline) -> None:
    text = written.read_text(encoding="utf-8")
    written.write_bytes(text.replace("\n", newline).encode(encoding))
    assert read_metrics_csv(written) == ROWS

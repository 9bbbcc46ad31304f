from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_spmc.cli.compare import main
from nnunetv2_spmc.evaluation.case_metrics import ClassMetrics
from nnunetv2_spmc.evaluation.metrics_csv import write_metrics_csv
from tests.full_disk import file_size_limit


@pytest.fixture
def runs(tmp_path):
    """Two seeds of two methods on eight cases, as arguments."""
    arguments = []
    for number, name in enumerate(("control", "spmc")):
        for seed in (0, 1):
            folder = tmp_path / f"{name}_seed{seed}"
            folder.mkdir()
            dice = np.random.default_rng(seed).uniform(0.5, 0.8, 8) + 0.1 * number
            rows = [
                ClassMetrics(f"case{i}", "organ", d, d / 2, *[1 / d] * 4, 10, 10, "ok")
                for i, d in enumerate(dice)
            ]
            write_metrics_csv(folder / "metrics.csv", rows)
            arguments.append(f"{name}={folder}")
    return arguments


def test_tables_csv_and_plot_of_two_methods(runs, tmp_path, capsys) -> None:
    main([*runs, "-o", str(tmp_path / "out")])
    output = capsys.readouterr().out
    assert "| organ | control | 2     |" in output
    assert (
        "| organ | spmc   | Dice    | +0.1000    | +0.1000 to +0.1000 | 0.008 | 8     |" in output
    )
    assert "Differences to control" in output
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "comparison.csv",
        "comparison.png",
    }


def test_nothing_is_written_without_an_output_folder(runs, tmp_path) -> None:
    before = sorted(tmp_path.rglob("*"))
    main(runs)
    assert sorted(tmp_path.rglob("*")) == before


def test_runs_that_cannot_be_compared_are_one_sentence(runs, tmp_path) -> None:
    file = tmp_path / "spmc_seed1" / "metrics.csv"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main([*runs, "-o", str(tmp_path / "out")])
    message = str(ended.value.code)
    assert message.startswith("error: ")
    assert "spmc_seed1" in message
    assert "no case7" in message
    assert not (tmp_path / "out").exists()


def test_a_plot_that_cannot_be_written_takes_the_table_along(runs, tmp_path) -> None:
    with file_size_limit(8000), pytest.raises(SystemExit) as ended:  # the table fits
        main([*runs, "-o", str(tmp_path / "new" / "out")])
    expected = f"error: {tmp_path}/new/out/comparison.png could not be written: file too large"
    assert str(ended.value.code).startswith(expected)
    assert not (tmp_path / "new").exists()


def test_the_installed_command_works(runs) -> None:
    command = Path(sys.executable).parent / "nnUNetv2_spmc_compare"
    done = subprocess.run([command, *runs], capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Wilcoxon" in done.stdout

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks import long_csv
from benchmarks.performance import floor, loader, step, tables, terms, threads, trainers, variants
from nnunetv2_spmc.losses.spmc import SPMCSettings


def test_operations_of_a_convolution_are_counted_as_by_hand() -> None:
    layer = nn.Conv2d(3, 5, 3, padding=1, device="meta")
    # 4 * 4 positions, 5 channels out, each 3 * 3 * 3 multiplications and additions
    operations, moved = floor.convolutions(nn.Sequential(layer), (1, 3, 4, 4))
    assert operations == 2 * 16 * 5 * 27
    assert moved == 2 * (3 * 16 + 5 * 27 + 5 * 16)
    upsampling = nn.ConvTranspose2d(3, 5, 2, stride=2, device="meta")
    operations, _ = floor.convolutions(nn.Sequential(upsampling), (1, 3, 4, 4))
    assert operations == 2 * 64 * 5 * 3


def test_planned_networks_take_the_standard_patches() -> None:
    for patch, pools in (("3d", [16, 16, 16]), ("2d", [64, 64])):
        planned = trainers.plans(patch)["configurations"]["benchmark"]
        strides = torch.tensor(planned["architecture"]["arch_kwargs"]["strides"]).prod(0).tolist()
        assert strides == pools
        assert planned["patch_size"] == trainers.PATCHES[patch][0]  # nnU-Net would not pad it


def test_the_reference_of_the_loss_terms_by_hand() -> None:
    spmc = SimpleNamespace(
        settings=SimpleNamespace(lambda_max=0.1),
        method_settings=SPMCSettings(tau=0.7, beta=0.5, temperature=0.1),
    )
    unsure, sure = ([0.6, 0.4], [0.9, 0.1])
    logits = [torch.log(torch.tensor(p).double()).view(1, 2, 1, 1) for p in (unsure,) * 3 + (sure,)]
    loss, decided = terms.reference_terms(logits, torch.zeros(1, 1, 1, 1), spmc)
    cdps = 2 * 0.5 * (0.4**2 + 0.4**2) / 2
    cps = -torch.log(torch.tensor([0.6, 0.9]).double()).sum()
    splat = 0.5 * (0.4**2 + 0.4**2) / 2  # the sure branch teaches (1, 0), and is not taught
    assert loss.item() == pytest.approx(cdps + 0.1 * (cps.item() + splat), rel=1e-5)
    assert all(where.all() for where in decided)


def test_steps_terms_and_variants_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (step, terms, trainers, variants):
        monkeypatch.setattr(module, "PATCHES", {"2d": ([32, 32], 2)})
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_compile"):
        monkeypatch.setenv(variable, "false")  # restores what the benchmark sets
    cpu = torch.device("cpu")
    with trainers.empty_dataset():
        measured = step.measure("2d", 2, cpu, 1, 1, "eager")
        others = variants.measure_variants("2d", cpu, 1, 1)
        alone = terms.measure_terms("2d", 2, cpu, 1)
    assert float(measured["step/stock"]) > 0
    assert float(measured["memory/stock"]) > 1
    assert len(others) == 5
    assert all(float(row["time/step"]) > 0 for row in others)
    assert float(alone["error"]) < 1e-5


def test_the_paired_loader_draws_unlabeled_patches_and_the_stock_one_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loader, "SHAPES", {"2d": (8, 48, 48)})
    for module in (loader, trainers):
        monkeypatch.setattr(module, "PATCHES", {"2d": ([32, 32], 2)})
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, "")  # restores what the benchmark sets
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    with trainers.empty_dataset() as folder:
        loaders = loader.make_loaders("2d", loader.write_dataset(folder, "2d"))
        patches = {name: loader.patches_in(next(made)) for name, made in loaders.items()}
    assert patches == {"stock": 2, "paired": 4}


def test_rows_of_equal_keys_are_replaced_and_the_others_kept() -> None:
    before = [*tables.cells("step", {"patch": "2d", "ms": 3}, ["patch"])]
    before += tables.cells("step", {"patch": "3d", "ms": 9}, ["patch"])
    before += tables.cells("terms", {"patch": "3d", "ms": 5}, ["patch"])
    new = tables.cells("step", {"patch": "3d", "ms": 8}, ["patch"])
    new += tables.cells("step", {"patch": "1d", "ms": 1}, ["patch"])
    rows = tables.merged(before, new)
    assert [row["value"] for row in rows] == ["3", "8", "5", "1"]


def test_a_table_goes_between_its_markers_and_nowhere_else() -> None:
    page = "text\n<!-- a.csv -->\nold\n<!-- end of a.csv -->\nmore\n"
    content = tables.markdown([{"x": 1, "machine": "a CPU"}])
    filled = tables.filled(page, "a.csv", content)
    assert filled == (
        "text\n<!-- a.csv -->\n\n| x |\n| --- |\n| 1 |\n\na CPU\n\n<!-- end of a.csv -->\nmore\n"
    )
    assert tables.filled(filled, "a.csv", content) == filled
    with pytest.raises(ValueError, match=r"no markers <!-- b.csv -->"):
        tables.filled(page, "b.csv", content)


def test_publishing_elsewhere_leaves_the_page_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tables.PAGE.read_bytes()
    tables.publish("step", [{"patch": "2d", "ms": 3, "machine": "m"}], tmp_path, ["patch"])
    tables.publish("step", [{"patch": "2d", "ms": 4, "machine": "m"}], tmp_path, ["patch"])
    (row,) = long_csv.read("performance", tmp_path)
    assert (row["key"], row["measure"], row["value"]) == ('{"patch": "2d"}', "ms", "4")
    assert "| 2d | 3 |" in capsys.readouterr().out
    assert tables.PAGE.read_bytes() == page


def test_the_page_shows_what_the_file_holds() -> None:
    page = tables.PAGE.read_text(encoding="utf-8")
    found = tables.tables(long_csv.RESULTS)
    assert set(found) == set(re.findall(r"<!-- (performance\.csv: \w+) -->", page))
    for name, content in found.items():
        assert tables.filled(page, name, content) == page


def test_a_step_is_timed_with_one_thread_and_with_two(monkeypatch) -> None:
    monkeypatch.setattr(threads, "REPEATS", 1)
    used = []
    monkeypatch.setattr(
        threads, "clock_seconds", lambda step, number: used.append(number) or number
    )
    row = threads.row_of(16, 1, [2, 2])
    assert used == [1, 2]
    assert (row["one thread ms"], row["two threads ms"], row["two/one"]) == (1000, 2000, "2.0")


def test_the_threads_of_a_step_are_those_that_are_asked_for() -> None:
    before, seen = torch.get_num_threads(), []
    try:
        assert threads.clock_seconds(lambda: seen.append(torch.get_num_threads()), 1) >= 0
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1]

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nnunetv2_spmc.losses.spmc import SPMCSettings

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(scope="module")
def script():
    """Import a script as it runs: beside its siblings."""
    sys.path.insert(0, str(SCRIPTS))
    yield importlib.import_module
    sys.path.remove(str(SCRIPTS))


def test_operations_of_a_convolution_are_counted_as_by_hand(script):
    floor = script("performance_floor")
    layer = nn.Conv2d(3, 5, 3, padding=1, device="meta")
    # 4 * 4 positions, 5 channels out, each 3 * 3 * 3 multiplications and additions
    operations, moved = floor.convolutions(nn.Sequential(layer), (1, 3, 4, 4))
    assert operations == 2 * 16 * 5 * 27
    assert moved == 2 * (3 * 16 + 5 * 27 + 5 * 16)
    upsampling = nn.ConvTranspose2d(3, 5, 2, stride=2, device="meta")
    operations, _ = floor.convolutions(nn.Sequential(upsampling), (1, 3, 4, 4))
    assert operations == 2 * 64 * 5 * 3


def test_planned_networks_take_the_standard_patches(script):
    step = script("benchmark_step")
    for patch, pools in (("3d", [16, 16, 16]), ("2d", [64, 64])):
        planned = step.plans(patch)["configurations"]["benchmark"]
        strides = torch.tensor(planned["architecture"]["arch_kwargs"]["strides"]).prod(0).tolist()
        assert strides == pools
        assert planned["patch_size"] == step.PATCHES[patch][0]  # nnU-Net would not pad it


def test_the_reference_of_the_loss_terms_by_hand(script):
    step = script("benchmark_step")
    spmc = SimpleNamespace(
        settings=SimpleNamespace(lambda_max=0.1),
        method_settings=SPMCSettings(tau=0.7, beta=0.5, temperature=0.1),
    )
    unsure, sure = ([0.6, 0.4], [0.9, 0.1])
    logits = [torch.log(torch.tensor(p).double()).view(1, 2, 1, 1) for p in (unsure,) * 3 + (sure,)]
    loss, decided = step.reference_terms(logits, torch.zeros(1, 1, 1, 1), spmc)
    cdps = 2 * 0.5 * (0.4**2 + 0.4**2) / 2
    cps = -torch.log(torch.tensor([0.6, 0.9]).double()).sum()
    splat = 0.5 * (0.4**2 + 0.4**2) / 2  # the sure branch teaches (1, 0), and is not taught
    assert loss.item() == pytest.approx(cdps + 0.1 * (cps.item() + splat), rel=1e-5)
    assert all(where.all() for where in decided)


def test_rows_of_equal_keys_are_replaced_and_the_others_kept(script):
    table = script("performance_table")
    before = [{"patch": "2d", "ms": "3"}, {"patch": "3d", "ms": "9"}]
    rows = table.merged(before, [{"patch": "3d", "ms": 8}, {"patch": "1d", "ms": 1}], ["patch"])
    assert rows == [before[0], {"patch": "3d", "ms": 8}, {"patch": "1d", "ms": 1}]


def test_a_table_goes_between_its_markers_and_nowhere_else(script):
    table = script("performance_table")
    page = "text\n<!-- a.csv -->\nold\n<!-- end of a.csv -->\nmore\n"
    content = table.markdown([{"x": 1, "machine": "a CPU"}])
    filled = table.filled(page, "a.csv", content)
    assert filled == (
        "text\n<!-- a.csv -->\n\n| x |\n| --- |\n| 1 |\n\na CPU\n\n<!-- end of a.csv -->\nmore\n"
    )
    assert table.filled(filled, "a.csv", content) == filled
    with pytest.raises(ValueError, match=r"no markers <!-- b.csv -->"):
        table.filled(page, "b.csv", content)


def test_publishing_elsewhere_leaves_the_page_alone(script, tmp_path, capsys):
    table = script("performance_table")
    page = table.PAGE.read_bytes()
    table.publish("step", [{"patch": "2d", "ms": 3}], tmp_path, ["patch"])
    assert table.read("step", tmp_path) == [{"patch": "2d", "ms": "3"}]
    assert "| 2d | 3 |" in capsys.readouterr().out
    assert table.PAGE.read_bytes() == page


def test_the_page_shows_what_the_files_hold(script):
    table = script("performance_table")
    page = table.PAGE.read_text(encoding="utf-8")
    files = sorted((table.DOCS / "benchmarks").glob("performance-*.csv"))
    assert files
    for file in files:
        name = file.stem.removeprefix("performance-")
        rows = table.read(name, file.parent)
        assert table.filled(page, file.name, table.markdown(rows)) == page

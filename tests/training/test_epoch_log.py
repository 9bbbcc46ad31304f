from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from nnunetv2_spmc.training.epoch_log import log_lines, plot_progress

CURVES = {"loss": [3.0, 2.0, 1.0], "agreement": [0.5, 0.7, 0.9]}
PANELS = {"losses": ("loss", "absent"), "agreement of the branches": ("agreement",)}


@pytest.fixture
def logger():
    return SimpleNamespace(local_logger=SimpleNamespace(my_fantastic_logging=CURVES))


def test_the_fonts_that_nnunet_sets_for_its_own_plot_do_not_matter(logger, tmp_path):
    plot_progress(logger, PANELS, tmp_path / "before.png")
    with matplotlib.rc_context({"font.size": 40, "axes.titlesize": 40, "legend.fontsize": 40}):
        plot_progress(logger, PANELS, tmp_path / "after.png")
    assert np.array_equal(imread(tmp_path / "before.png"), imread(tmp_path / "after.png"))


def test_a_panel_without_any_curve_is_not_drawn(logger, tmp_path):
    plot_progress(logger, PANELS, tmp_path / "two.png")
    plot_progress(logger, {**PANELS, "nothing": ("absent",)}, tmp_path / "also_two.png")
    assert np.array_equal(imread(tmp_path / "two.png"), imread(tmp_path / "also_two.png"))


def test_one_line_per_panel_with_values():
    lines = log_lines(PANELS, {"loss": 0.123456})
    assert lines == ["losses: loss 0.1235"]

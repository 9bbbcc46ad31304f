"""Curves of the semi-supervised terms: nnU-Net's logger, its log file and progress_semi.png."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2.training.logging.nnunet_logger import LocalLogger, MetaLogger

from nnunetv2_spmc.common.colors import method_color
from nnunetv2_spmc.common.whole_file import whole_file
from nnunetv2_spmc.training.stability import collapse_warnings

if TYPE_CHECKING:
    from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised

Panels = Mapping[str, Sequence[str]]


def all_panels(panels: Panels, branches: Sequence[str]) -> Panels:
    """Return the panels of a method between those that every method has."""

    def of_branches(name: str) -> tuple[str, ...]:
        return tuple(f"{name}_{branch}" for branch in branches)

    return {
        "total loss": ("total_loss",),
        "supervised loss": (*of_branches("supervised"), "viewed_main"),
        **panels,
        "agreement of the branches": ("agreement",),
        "pseudo-label Dice on withheld labels": of_branches("pseudo_label_dice"),
        "ramp-up weight": ("lambda",),
    }


def write_epoch(trainer: nnUNetTrainerSemiSupervised, values: Mapping[str, float]) -> None:
    """Log the values of an epoch, and warn of branches that predict a single class."""
    log_values(trainer.logger, values, trainer.current_epoch)
    lines = log_lines(all_panels(trainer.panels, trainer.branches), values)
    for line in [*collapse_warnings(values), *lines]:
        trainer.print_to_log_file(line)


def plot_epochs(trainer: nnUNetTrainerSemiSupervised) -> None:
    """Draw progress_semi.png; the first process does."""
    if trainer.local_rank == 0:
        path = Path(trainer.output_folder) / "progress_semi.png"
        plot_progress(trainer.logger, all_panels(trainer.panels, trainer.branches), path)


def log_values(logger: MetaLogger, values: Mapping[str, float], epoch: int) -> None:
    """Log one value per key for an epoch, to nnU-Net's local logger and to W&B.

    The local logger refuses keys that it does not know and expects every key to be filled every
    epoch: new keys are registered, and epochs before they existed are filled with NaN.
    """
    curves = logger.local_logger.my_fantastic_logging
    # a term that was switched off since the last checkpoint would freeze progress.png otherwise
    stopped = curves.keys() - LocalLogger().my_fantastic_logging.keys() - values.keys()
    for key, value in [*values.items(), *((key, math.nan) for key in sorted(stopped))]:
        curve = curves.setdefault(key, [])
        curve.extend([math.nan] * (epoch - len(curve)))
        logger.log(key, value, epoch)


def log_lines(panels: Panels, values: Mapping[str, float]) -> list[str]:
    """Format the values of an epoch, one line a panel: 'loss terms: cps_main 0.0012, ...'."""
    shown = {title: [key for key in keys if key in values] for title, keys in panels.items()}
    return [
        f"{title}: " + ", ".join(f"{key} {values[key]:.4g}" for key in keys)
        for title, keys in shown.items()
        if keys
    ]


def plot_progress(logger: MetaLogger, panels: Panels, path: Path) -> None:
    """Draw one panel per group of curves over the epochs.

    Args:
        logger: the trainer's logger.
        panels: title -> keys of the curves in it.
        path: the PNG file to write.
    """
    import matplotlib.style

    curves = logger.local_logger.my_fantastic_logging
    drawn = {title: [key for key in keys if key in curves] for title, keys in panels.items()}
    # nnU-Net's own plot leaves fonts behind that fit its figure of 30 by 54 inches
    with matplotlib.style.context("default"):
        _draw({title: keys for title, keys in drawn.items() if keys}, curves, path)


def _draw(panels: Panels, curves: Mapping[str, Sequence[float]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.6 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, keys) in zip(all_axes, panels.items(), strict=True):
        for number, key in enumerate(keys):
            marker = "o" if len(curves[key]) < 3 else None
            style = "--" if number % 2 else "-"  # two branches often lie on each other
            color = method_color(number)
            label = key.replace("_", " ")
            axes.plot(curves[key], style, color=color, label=label, marker=marker)
        axes.set_title(title)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        axes.grid(alpha=0.3)
    all_axes[-1].set_xlabel("epoch")
    all_axes[-1].xaxis.get_major_locator().set_params(integer=True)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=100)

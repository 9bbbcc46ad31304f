"""A training as an object for notebooks: its record, and the figures of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_spmc.reports.run_record import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Run(RunRecord):
    """The record of a fold that draws itself; matplotlib is imported at the first figure."""

    def plot_curves(self) -> Figure:
        """Draw all curves over the epochs."""
        from nnunetv2_spmc.reports.plots import draw_curves

        return draw_curves({self.trainer: self.curves})

    def plot_metrics(self, metric: str = "dice") -> Figure:
        """Draw a metric of the validation cases: a panel per class, a dot per case, the mean."""
        from nnunetv2_spmc.reports.metric_plots import draw_metric

        return draw_metric({self.trainer: self.metrics}, metric)

    def plot_case(self, case: str) -> Figure:
        """Draw a validation case: labels, errors, confidence, common-difficulty voxels."""
        from nnunetv2_spmc.reports.case_figure import draw_case
        from nnunetv2_spmc.reports.case_views import case_view

        return draw_case(case, [case_view(self, case)], self.class_of_value)


def load_run(folder: str | Path) -> Run:
    """Load what a training left behind.

    Args:
        folder: nnUNet_results/DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION/fold_0.

    Raises:
        DataError: it is no such folder, or has no readable checkpoint.
    """
    return Run.load(folder)

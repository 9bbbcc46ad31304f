"""Semi-supervised segmentation for nnU-Net v2."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunetv2_spmc.reports.run import Run, load_run

__version__: str  # -> __getattr__, since a build imports this package before it is installed
__all__ = ["Run", "__version__", "load_run"]


def __getattr__(name: str) -> Any:
    """Import the notebook interface at first use: it needs PyTorch, which takes seconds."""
    if name == "__version__":
        return version("nnunetv2-spmc")
    if name in ("Run", "load_run"):
        from nnunetv2_spmc.reports import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

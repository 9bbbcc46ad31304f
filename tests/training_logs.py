"""What trainings logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def log_of(trainer: Any) -> str:
    """Return the text of all logs in a trainer's folder: each trainer that is built begins one."""
    logs = sorted(Path(trainer.output_folder).glob("training_log*.txt"))
    assert logs, f"no training log in {trainer.output_folder}"
    return "".join(log.read_text(encoding="utf-8") for log in logs)

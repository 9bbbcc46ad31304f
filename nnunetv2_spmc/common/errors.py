"""What a user can mend, wrong files, folders or options: the exception, and a list of cases."""

from __future__ import annotations

from collections.abc import Mapping


class DataError(ValueError):
    """Says in a sentence what is wrong, where, and what to do next."""


def failure_lines(failed: Mapping[str, str], num_cases: int) -> str:
    """Say which of so many cases failed and why, one line each, and in the last how many."""
    lines = [f"failed: {case}: {reason}" for case, reason in failed.items()]
    return "\n".join([*lines, f"{len(failed)} of {num_cases} cases failed."])

"""What a user can mend: the family of exceptions, and a list of cases that failed."""

from __future__ import annotations

from collections.abc import Mapping


class SPMCError(Exception):
    """Says in a sentence what is wrong, where, and what to do next.

    Its reason lies in what the user gave or in the machine, so commands show the sentence without
    a traceback. Every exception of this package that is no mistake of a programmer derives from it,
    and from the built-in one that it is most like.
    """


class DataError(SPMCError, ValueError):
    """Files, folders or options are wrong."""


class UnsupportedError(SPMCError, NotImplementedError):
    """What is asked for is right, but this package does not do it."""


def failure_lines(failed: Mapping[str, str], num_cases: int) -> str:
    """Say which of so many cases failed and why, one line each, and in the last how many."""
    lines = [one_line(f"failed: {case}: {reason}") for case, reason in failed.items()]
    return "\n".join([*lines, f"{len(failed)} of {num_cases} cases failed."])


def one_line(text: str) -> str:
    """Escape what breaks a line, turns it about or cannot be printed: file names hold anything."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )

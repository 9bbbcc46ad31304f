"""What a user can put right: the family of exceptions, and a list of cases that failed."""

from __future__ import annotations

import re
from collections.abc import Mapping


class SPMCError(Exception):
    """Says in a sentence what is wrong, where, and what to do next.

    The cause lies in the user's input or in the machine, so commands show the sentence without a
    traceback. Every exception of this package that is not a programming mistake derives from it,
    and from the built-in exception that it is most like.
    """


class DataError(SPMCError, ValueError):
    """Files, folders or options are wrong."""


class UnsupportedError(SPMCError, NotImplementedError):
    """What is asked for is right, but this package does not do it."""


def reason_of(error: BaseException) -> str:
    """Return the line that says most of what a library raised; its type where it says nothing.

    That is the first one, but the last one of ITK: it begins with where it was in its sources, and
    may end with the `errno` of some earlier call.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if isinstance(error, KeyError):
        return f"KeyError {lines[0]}"
    if not any("sitk::ERROR" in line or "ITK ERROR" in line for line in lines):
        return lines[0].rstrip(".!")
    telling = [line for line in lines if not line.startswith("Reason:")]
    prefixes = r"^sitk::ERROR: |ITK ERROR: |\(0x[0-9a-f]+\)"
    return re.sub(prefixes, "", (telling or lines)[-1]).rstrip(".!")


def failure_lines(failed: Mapping[str, str], num_cases: int) -> str:
    """Say which cases failed and why, one line each, and in the last line how many of all."""
    lines = [one_line(f"failed: {case}: {reason}") for case, reason in failed.items()]
    return "\n".join([*lines, f"{len(failed)} of {num_cases} cases failed."])


def one_line(text: str) -> str:
    """Escape what breaks a line, turns it about or cannot be printed: file names hold anything."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )

"""What all commands do alike: how they end, and what they say when they fail.

Exit status:
    0    all is done
    1    it failed, or some of its cases did: `error: SENTENCE`, or a line for each case, on stderr
    2    the arguments are wrong (argparse's)
    130  Ctrl-C; 143 SIGTERM, 129 a closed terminal: 128 + signal
    141  the reader of a pipe has gone (`... | head`), as programs that SIGPIPE ends have it

Only a mistake in the program shows a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import wraps

from nnunetv2_spmc.common.errors import SPMCError
from nnunetv2_spmc.common.signals import termination_raises

INTERRUPTED = 130
CLOSED_PIPE = 141

Body = Callable[[Sequence[str] | None], int | None]
Status = int | str | None


def command(
    after_interrupt: str = "nothing was written", *, unwind: bool = True
) -> Callable[[Body], Callable[..., None]]:
    """Make a command of a function that takes arguments and returns None, or 1 if cases failed.

    Args:
        after_interrupt: what Ctrl-C leaves, and how to go on.
        unwind: let SIGTERM and a closed terminal clean up as Ctrl-C does. Not where other processes
            may be waited for outside of Python, which no handler breaks off.
    """

    def decorate(body: Body) -> Callable[..., None]:
        @wraps(body)
        def main(argv: Sequence[str] | None = None) -> None:
            status = _status(body, argv, after_interrupt, unwind)
            if _reader_has_gone():
                status = status or CLOSED_PIPE
            if status is not None:
                sys.exit(status)

        return main

    return decorate


def _status(body: Body, argv: Sequence[str] | None, after_interrupt: str, unwind: bool) -> Status:
    """Run a command; return its exit status, or the sentence with which it fails."""
    stopped: list[int] = []
    try:
        with termination_raises() if unwind else nullcontext(stopped) as stopped:
            return body(argv)
    except KeyboardInterrupt:
        print(f"interrupted: {after_interrupt}", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as ended:
        return ended.code
    except Exception as error:
        if stopped:  # a library made another exception of it
            return 128 + stopped[0]
        if isinstance(error, BrokenPipeError) and _reader_has_gone("\n"):
            return CLOSED_PIPE
        if not isinstance(error, (SPMCError, OSError)) or isinstance(error, BrokenPipeError):
            raise
        return f"error: {_sentence(error)}"


def _sentence(error: SPMCError | OSError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fspath(error.filename)}: {error.strerror or 'it cannot be used'}"
    return str(error)


def _reader_has_gone(probe: str = "") -> bool:
    """Write what is left of the output; if nobody takes it, let Python not say so at its end."""
    try:
        print(end=probe, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False

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

import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import wraps

from nnunetv2_spmc.common.errors import SPMCError, one_line
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
            _prepare_output()
            status = _status(body, argv, after_interrupt, unwind)
            output = _output_status()
            if output is not None:
                status = status or output
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
        if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ENOSPC):
            output = _output_status("\n")  # it may have been a file or a worker's pipe as well
            if output is not None:
                return output
        if not isinstance(error, (SPMCError, OSError)) or isinstance(error, BrokenPipeError):
            raise
        return f"error: {_sentence(error)}"


def _sentence(error: SPMCError | OSError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return one_line(f"{error.filename}: {error.strerror or 'it cannot be used'}")
    return one_line(str(error))


def _prepare_output() -> None:
    """Let no name be unprintable, and no file take the number of an output that is closed (>&-)."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as Python has it for stderr


def _output_status(probe: str = "") -> Status:
    """Write what is left of the output; return the status if that fails, None otherwise.

    Python would try once more at its end, and say so.
    """
    try:
        print(end=probe, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return CLOSED_PIPE
        return f"error: the output could not be written: {error.strerror}"
    return None

"""Kill a process at a moment that a clock hardly ever hits: before it calls a function."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from nnunetv2_spmc.common.leftovers import temporary_name


def killed_at(work: Callable[[], object], module: Any, name: str, call: int = 1) -> None:
    """Run `work` in a fork that `kill -9` ends as it calls a function of a module.

    Args:
        work: what to do.
        module: in which the function is looked up.
        name: of the function.
        call: at which of its calls.
    """
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        return
    try:
        function, calls = getattr(module, name), []

        def last(*arguments: Any, **options: Any) -> Any:
            calls.append(None)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        setattr(module, name, last)
        work()
    finally:
        os._exit(1)


def of_ended_process(prefix: str) -> str:
    """Return the `temporary_name` of a process that is no longer there."""
    here, _, _ = temporary_name(prefix).rpartition("-")
    return f"{here}-999999999"

"""Kill a process at a moment that a clock hardly ever hits: before it calls a function."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any


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

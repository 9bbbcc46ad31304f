"""One thing that the doctor found, and the checks that find such things."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nnunetv2_spmc.common.errors import SPMCError, one_line, reason_of

Severity = Literal["error", "warning", "note", "ok"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note", "ok")  # worst first
EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """What was found, how bad it is, and what to do.

    Attributes:
        check: What was looked at, "torch" or "leaks" for example.
        severity: An error makes a command fail or a result wrong, a warning may; a note is to know.
        what: A sentence.
        cases: All cases that it is about.
        advice: What to do, a sentence; empty where there is nothing to do, or a command says it.
        command: A line to type; empty where there is none.
    """

    check: str
    severity: Severity
    what: str
    cases: tuple[str, ...] = ()
    advice: str = ""
    command: str = ""

    @property
    def examples(self) -> str:
        """How many cases there are, and the first ones."""
        if not self.cases:
            return ""
        number = len(self.cases)
        more = ", ..." if number > EXAMPLES else ""
        return f"{number} case{'s' * (number > 1)}: {', '.join(self.cases[:EXAMPLES])}{more}"

    def to_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**asdict(self), "cases": list(self.cases)}


Check = Callable[[], Iterable[Finding]]


def run_checks(checks: Sequence[tuple[str, Check]]) -> list[Finding]:
    """Run checks, each on its own: what one raises is a finding, and the next one is run."""
    found: list[Finding] = []
    for name, check in checks:
        try:
            found.extend(check())
        except SPMCError as error:
            found.append(Finding(name, "error", one_line(str(error))))
        except Exception as error:
            found.append(Finding(name, "error", f"This could not be checked: {raised(error)}."))
    return found


def raised(error: BaseException) -> str:
    """Say in a line what a library raised."""
    return one_line(f"{type(error).__name__}: {reason_of(error)}").rstrip(".")


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by how bad they are; those that are equally bad stay in their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def worst(findings: Iterable[Finding]) -> Severity:
    """Return how bad the worst finding is."""
    return min((f.severity for f in findings), key=SEVERITIES.index, default="ok")

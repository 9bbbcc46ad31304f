"""Patients by the names of their cases: a user's pattern, and a hint where there should be one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence

from nnunetv2_spmc.raw.cases import ConversionError

MATCH_SECONDS = 10.0
# In a process of its own, since nothing else ends a match that backtracks for years.
MATCHING = """
import json, re, sys
pattern, names = json.load(sys.stdin)
found = [re.search(pattern, name) for name in names]
json.dump([m and ((m.group(1) if m.re.groups else m.group(0)) or "") for m in found], sys.stdout)
"""
# What counts the scans of one patient in the names of cases, as frame01, ses-2, _ED, -001.
COUNTED = (
    *(
        rf"[-_.]{word}[-_]?\d+(?![A-Za-z0-9]).*"
        for word in (
            *("frame", "ses", "session", "timepoint", "time", "tp", "visit", "followup", "fu"),
            *("scan", "phase", "study", "acq", "run", "day", "week", "month", "year", "t", "v"),
        )
    ),
    *(rf"[-_.](?:{words})" for words in ("ED|ES", "pre|post", "baseline|followup")),
    r"[-_]\d{1,8}",
)


def patient_keys(pattern: str, names: Sequence[str]) -> list[str | None]:
    """Return the first group, or the whole match, of a regular expression in each name.

    Raises:
        ConversionError: If it is not one, or would take years on such names.
    """
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConversionError(
            f"--group_by {pattern!r} is not a regular expression: {error}."
        ) from error
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", MATCHING],
            input=json.dumps([pattern, list(names)]),
            capture_output=True,
            text=True,
            check=True,
            timeout=MATCH_SECONDS,
        )
    except subprocess.SubprocessError as error:
        raise ConversionError(
            f"--group_by {pattern!r} takes too long to be matched with names as {names[0]}, as "
            "nested repetitions like (a+)+ do; write a simpler one."
        ) from error
    found: list[str | None] = json.loads(done.stdout)
    return found


def grouping_hint(names: Sequence[str]) -> str:
    """Name two cases that look like scans of one patient, and the pattern that joins them.

    Returns:
        A sentence; '' if names do not look so. A number at the end counts scans only after a name
        that has a number itself: case_001 is a patient, patient001_01 a scan of one.
    """
    for counted in COUNTED:
        pattern = rf"^(.+?)(?:{counted})?$"
        keys = {name: re.sub(pattern, r"\1", name) for name in sorted(names)}
        patients: dict[str, list[str]] = {}
        for name, key in keys.items():
            patients.setdefault(key, []).append(name)
        several = {key: cases for key, cases in patients.items() if len(cases) > 1}
        if several and len(patients) > 1 and all(re.search(r"\d", key) for key in several):
            one, other = next(iter(several.values()))[:2]
            return (
                f"{one} and {other} look like scans of one patient; if they are, keep the scans of "
                f"each patient on one side with --group_by '{_simpler(keys, one) or pattern}'"
            )
    return ""


def _simpler(keys: Mapping[str, str], name: str) -> str:
    """Return a short pattern that finds the same patients, or '' if there is none."""
    before_number = re.split(r"\d", name[len(keys[name]) :])[0].replace(".", r"\.")
    pattern = rf"^(.+){before_number}\d+"
    matches = {name: re.search(pattern, name) for name in keys}
    return pattern if all(m and m[1] == keys[name] for name, m in matches.items()) else ""

"""The methods to compare: evaluations, grouped into seeds of a method by the arguments."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.evaluation.case_metrics import ClassMetrics
from nnunetv2_spmc.evaluation.metrics_csv import METRICS_CSV, METRICS_JSON, read_metrics_csv
from nnunetv2_spmc.evaluation.patients import UNKNOWN, Patients, patients_of_references
from nnunetv2_spmc.evaluation.summary import labels_of
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.raw.layout import OVERLAP_KEY


class Key(NamedTuple):
    """What is compared one by one."""

    case: str
    label: str


@dataclass(frozen=True)
class Seed:
    """One training of a method, evaluated."""

    folder: Path
    rows: Mapping[Key, ClassMetrics]

    @property
    def overlap_allowed(self) -> bool:
        """Whether its unlabeled cases may have been test cases, as the evaluation noted."""
        return OVERLAP_KEY in self.settings

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the evaluation noted of itself; nothing where it cannot be read."""
        try:
            content = json.loads((self.folder / METRICS_JSON).read_text(encoding="utf-8"))
            return dict(content["settings"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    @property
    def cases(self) -> list[str]:
        """The cases in their order."""
        return list(dict.fromkeys(key.case for key in self.rows))

    @property
    def labels(self) -> list[str]:
        """The classes in their order."""
        return labels_of(self.rows.values())


@dataclass(frozen=True)
class Method:
    """A name, and one or more seeds."""

    name: str
    seeds: tuple[Seed, ...]

    @property
    def failures(self) -> int:
        """Classes of cases that are in one mask only, over all seeds."""
        return sum(row.is_failure for seed in self.seeds for row in seed.rows.values())


def read_methods(arguments: Sequence[str]) -> list[Method]:
    """Read what the arguments name, in their order.

    An argument is FOLDER or NAME=FOLDER[,FOLDER...]; a name given again adds seeds. A folder holds
    a metrics.csv, or subfolders that do, one per seed. Without a name it is the folder's.

    Raises:
        DataError: If there is no metrics.csv, a name is ambiguous, or the runs do not have the
            same cases, classes and references.
    """
    folders: dict[str, list[Path]] = {}
    for argument in arguments:
        name, paths = _named_folders(argument)
        if name is None:
            name = paths[0].resolve().name
            if name in folders:
                raise DataError(f"Two runs are called {name!r}; name them: NAME={argument}.")
        folders.setdefault(name, []).extend(paths)
    methods = [
        _method(name, tuple(seed for path in paths for seed in _seeds(path)))
        for name, paths in folders.items()
    ]
    _check_distinct(methods)
    for method in methods:
        for seed in method.seeds:
            _check_comparable(seed, methods[0].seeds[0])
    return methods


def patients_of_methods(methods: Sequence[Method]) -> Patients:
    """Return whose the cases are, by the folder of references that an evaluation noted.

    Raises:
        DataError: the split.json of their dataset cannot be read.
    """
    for seed in (seed for method in methods for seed in method.seeds):
        if isinstance(references := seed.settings.get("references"), str):
            return patients_of_references(Path(references), seed.cases)
    return UNKNOWN


def _method(name: str, seeds: tuple[Seed, ...]) -> Method:
    """Return a method, which every table calls by its name."""
    is_marked = any(seed.overlap_allowed for seed in seeds)
    return Method(f"{name} (overlap allowed)" if is_marked else name, seeds)


def _named_folders(argument: str) -> tuple[str | None, list[Path]]:
    if Path(argument).is_dir():  # also 'lr=0.1,wd=0'
        return None, [Path(argument)]
    name, equals, listed = argument.partition("=")
    if not equals:
        return None, [Path(argument)]
    paths = [listed] if listed and Path(listed).is_dir() else listed.split(",")
    if not name or not all(paths):  # Path("") would be the working directory
        raise DataError(f"{argument!r} lacks a name or a folder; give NAME=FOLDER[,FOLDER...].")
    return name, [Path(path) for path in paths]


def _seeds(folder: Path) -> list[Seed]:
    if folder.is_file():
        raise DataError(f"{folder} is a file; give the folder of a {METRICS_CSV}.")
    files = [folder / METRICS_CSV]
    if not files[0].is_file():
        files = sorted(folder.glob(f"*/{METRICS_CSV}"))
    if not files:
        raise DataError(
            f"{folder} has no {METRICS_CSV}, and no subfolder has one; write it with "
            f"nnUNetv2_spmc_evaluate -pred PREDICTIONS -o {shlex.quote(str(folder))}."
        )
    return [
        Seed(file.parent, {Key(row.case, row.label): row for row in read_metrics_csv(file)})
        for file in files
    ]


def _check_distinct(methods: Sequence[Method]) -> None:
    seen: set[Path] = set()
    for method in methods:
        for seed in method.seeds:
            if seed.folder.resolve() in seen:
                raise DataError(f"{seed.folder} is given twice; each seed counts once.")
            seen.add(seed.folder.resolve())


def _check_comparable(seed: Seed, first: Seed) -> None:
    for what, ours, theirs in (
        ("cases", set(seed.cases), set(first.cases)),
        ("classes", set(seed.labels), set(first.labels)),
    ):
        only_theirs, only_ours = sorted(theirs - ours), sorted(ours - theirs)
        if only_theirs or only_ours:
            lacks = f" has no {name_some(only_theirs, 10)}" if only_theirs else ""
            joint = " and" if only_theirs and only_ours else ""
            adds = f" has {name_some(only_ours, 10)} in addition" if only_ours else ""
            raise DataError(
                f"{seed.folder} and {first.folder} have different {what}: the first one{lacks}"
                f"{joint}{adds}; evaluate all runs on the same {what}."
            )
    if seed.rows.keys() != first.rows.keys():
        raise DataError(
            f"{seed.folder / METRICS_CSV} and {first.folder / METRICS_CSV} do not have a row for "
            "each case and class; evaluate again."
        )
    changed = [
        key
        for key, row in seed.rows.items()
        if row.reference_voxels != first.rows[key].reference_voxels
    ]
    if changed:
        raise DataError(
            f"{seed.folder} and {first.folder} were evaluated against different references: "
            f"{name_some((f'{key.case} ({key.label})' for key in changed), 10)}."
        )

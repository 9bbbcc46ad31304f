"""Settings of a training: class defaults < dataset.json "spmc" < environment variable < options.

The environment variable nnUNet_spmc_settings holds a JSON object or the path of a file with one:

    export nnUNet_spmc_settings='{"epochs": 200, "SPMC": {"tau": 0.65}}'

The options are those of nnUNetv2_spmc_train: --settings FILE, and --set KEY=VALUE over it.

The keys of every trainer are at the top. A method's own keys stand under its name, or at the top,
too, where that method is trained. Blocks and keys of other methods are ignored, with a note.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from nnunetv2_spmc.common.setting_checks import (
    SettingsError,
    check_types,
    require,
    require_within,
)
from nnunetv2_spmc.raw.layout import SETTINGS_KEY
from nnunetv2_spmc.training.settings_sources import (
    ENVIRONMENT_VARIABLE,
    environment_block,
    options_in,
)

LIMITS: dict[str, tuple[int, int]] = {  # generous: more is a slip of the pen, and would never end
    "epochs": (1, 10**6),
    "iterations_per_epoch": (1, 10**6),
    "validation_iterations": (1, 10**6),
    "save_every": (1, 10**9),
    "save_minutes": (0, 10**9),
    "keep_every": (0, 10**9),
    "initial_lr": (0, 100),
    "seed": (0, 2**63 - 1),
    "lambda_max": (0, 10**6),
    "unlabeled_batch_size": (1, 10**5),
    "unlabeled_every": (1, 10**6),
    "pseudo_label_cases": (0, 10**6),
}
SCHEDULE = ("epochs", "validation_iterations", "save_every", "save_minutes", "keep_every")


@dataclass(frozen=True)
class TrainingSettings:
    """What every trainer has: schedule, ramp-up, unlabeled patches, views.

    The supervised control uses schedule, seed, mirroring and, with `labeled_views`, the views.
    """

    epochs: int = 1000
    iterations_per_epoch: int = 250
    validation_iterations: int = 50  # per epoch, for the online pseudo Dice
    initial_lr: float = 1e-2
    save_every: int = 50  # epochs between two writings of checkpoint_latest.pth
    save_minutes: float = 10.0  # minutes after which the end of an epoch writes it, too; 0: never
    keep_every: int = 0  # epochs between two checkpoint_epoch_N.pth, which stay; 0: none
    mirroring: bool = True  # mirrored patches in training and, thus, mirroring in prediction
    average_last: float = 0.0  # share of the epochs, at the end, whose mean weights are the final
    seed: int | None = None  # None: different at every run, like nnU-Net

    lambda_max: float = 0.1  # weight of the unsupervised terms after the ramp-up
    ramp_start: float = 0.0  # share of the epochs that is supervised only
    ramp_end: float = 1.0  # share of the epochs after which the weight is lambda_max
    unlabeled_batch_size: int | None = None  # patches per step; None: the plans' batch size
    unlabeled_every: int = 1  # N: only every Nth step learns from unlabeled patches
    learn_from_ignored: bool = True  # labeled cases: voxels under the ignore label are unlabeled
    pseudo_label_cases: int = 4  # withheld cases to log the pseudo-label Dice on; 0: none
    allow_overlap: bool = False  # transductive: unlabeled cases may be test or validation cases

    views: Literal["same", "weak-to-strong"] = "same"  # the teacher's patch: unaugmented or not
    paste_from: Literal["nothing", "labeled", "unlabeled", "both"] = "nothing"  # boxes of these
    paste_probability: float = 1.0  # of a patch to get a box
    turns: bool = False  # student's patches turned by 90, 180 or 270 degrees
    flips: bool = False  # student's patches flipped along the axes that mirroring allows
    labeled_views: float = 0.0  # share of labeled patches that are seen through the views, too
    viewed_pass: Literal["never", "between", "always"] = "never"  # labeled patches again, by views

    def __post_init__(self) -> None:
        """Check types and ranges of all fields."""
        for key, (least, most) in LIMITS.items():
            require_within(self, key, least, most)
        check_types(self)
        require(self.initial_lr > 0, "initial_lr", self.initial_lr, "positive")
        start, end = self.ramp_start, self.ramp_end
        require(0 <= start < 1, "ramp_start", start, "in [0, 1)")
        require(start <= end <= 1, "ramp_end", end, f"between ramp_start ({start}) and 1")
        average = self.average_last
        require(0 <= average < 1, "average_last", average, "in [0, 1)")
        probability = self.paste_probability
        require(0 < probability <= 1, "paste_probability", probability, "in (0, 1]")
        share = self.labeled_views
        require(0 <= share <= 1, "labeled_views", share, "in [0, 1]")
        flips = self.flips and self.mirroring
        has_views = self.paste_from != "nothing" or self.turns or flips
        expected = "without views; set paste_from, turns or (with mirroring) flips, too"
        require(share == 0 or has_views, "labeled_views", share, f"0 {expected}")
        when = self.viewed_pass
        require(when == "never" or has_views, "viewed_pass", when, f"'never' {expected}")


@dataclass(frozen=True)
class NoSettings:
    """The settings of a method that has none of its own."""


_registered: dict[str, type] = {}  # name of a method -> its settings


def register_method(name: str, settings: type) -> None:
    """Make the settings of a method known, so that other methods can tell them from mistakes.

    Args:
        name: the key of its block.
        settings: its dataclass.

    Raises:
        ValueError: one of its keys is a key of every trainer.
    """
    shared = _keys(settings) & _keys(TrainingSettings)
    if shared:
        raise ValueError(f"{name} has settings of every trainer: {', '.join(sorted(shared))}.")
    _registered[name] = settings


@dataclass(frozen=True)
class Resolved:
    """The settings of a training, and where they came from."""

    training: TrainingSettings
    method: Any
    origins: dict[str, str] = field(default_factory=dict)  # of keys that are not class defaults
    notes: tuple[str, ...] = ()  # what was ignored

    def flat(self) -> dict[str, Any]:
        """Return all settings under their keys, as checkpoint and log have them."""
        return asdict(self.training) | asdict(self.method)


def resolve_settings(
    training: TrainingSettings,
    method: Any,
    name: str,
    dataset_json: Mapping[str, Any],
    environment: Mapping[str, str] = os.environ,
    *,
    fixed: Mapping[str, Any] | None = None,
) -> Resolved:
    """Merge the settings of the trainer class, the dataset, the environment and the options.

    Args:
        training: the class defaults of what every trainer has.
        method: those of the method, a dataclass.
        name: the key of the method's block.
        dataset_json: content of dataset.json; its "spmc" block is read if there is one.
        environment: environment variables.
        fixed: values that no source may change.

    Raises:
        SettingsError: a key is unknown or fixed, or a value of the wrong type or out of range.
    """
    fixed = fixed or {}
    keys = _keys(type(training)), _keys(type(method))
    training, method = _replaced(training, method, keys, fixed)
    origins: dict[str, str] = {}
    notes: list[str] = []
    sources = {
        f'"{SETTINGS_KEY}" in dataset.json': dataset_json.get(SETTINGS_KEY, {}),
        f"${ENVIRONMENT_VARIABLE}": environment_block(environment.get(ENVIRONMENT_VARIABLE, "")),
        **options_in(environment),
    }
    for source, block in sources.items():
        given = _given(source, block, name, keys[0] | keys[1], notes)
        for key, value in given.items():
            if key in fixed and value != fixed[key]:
                raise SettingsError(
                    f"The setting {key} is {fixed[key]!r} in this trainer, as its name says; "
                    f"{source} asks for {value!r}: leave it out or take another trainer."
                )
        try:
            training, method = _replaced(training, method, keys, given)
        except SettingsError as error:
            raise SettingsError(f"In {source}: {error}") from None
        origins.update(dict.fromkeys(given, source))
    return Resolved(training, method, origins, tuple(notes))


def _given(
    source: str, block: Any, name: str, known: Collection[str], notes: list[str]
) -> dict[str, Any]:
    """Return the keys of a source that this training has; note those of other methods."""
    given: dict[str, Any] = {}
    own: Mapping[str, Any] = {}
    of_others = []
    for key, value in _mapping(block, source).items():
        if key in known:
            given[key] = value
        elif key in _registered:
            inside = _mapping(value, f"{key} in {source}")
            possible = _keys(TrainingSettings) | _keys(_registered[key])
            for unknown in inside.keys() - possible:
                raise SettingsError(_unknown(f"{unknown!r} of {key}", source, possible))
            if key == name:
                own = inside
            else:
                of_others.append(key)
        elif any(key in _keys(settings) for settings in _registered.values()):
            of_others.append(key)
        else:
            raise SettingsError(_unknown(repr(key), source, known))
    if of_others:
        notes.append(f"Ignored in {source}, because other methods have them: {sorted(of_others)}.")
    return given | dict(own)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{where} must be a JSON object of settings, got {value!r}.")
    return value


def _unknown(what: str, source: str, known: Collection[str]) -> str:
    return f"Unknown setting {what} in {source}; known: {sorted(known)}."


def _keys(settings: type) -> set[str]:
    return {field.name for field in fields(settings)}


def _replaced(
    training: TrainingSettings,
    method: Any,
    keys: tuple[Collection[str], Collection[str]],
    values: Mapping[str, Any],
) -> tuple[TrainingSettings, Any]:
    of_training, of_method = ({k: v for k, v in values.items() if k in known} for known in keys)
    return replace(training, **of_training), replace(method, **of_method)


def describe_settings(settings: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """List all settings, one a line, with the origin of those that are not class defaults."""
    return "\n".join(
        f"  {key} = {value!r}" + (f"  (from {origins[key]})" if key in origins else "")
        for key, value in settings.items()
    )


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe the differences between two settings, such as 'tau: 0.7 -> 0.65'.

    Settings that only one of them knows do not count: another version of this package had them.
    Nor does the schedule: longer is not other.
    """
    return [
        f"{key}: {before[key]!r} -> {now[key]!r}"
        for key in sorted((before.keys() & now.keys()) - {*SCHEDULE})
        if before[key] != now[key]
    ]


def changed_schedule(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe how a run that goes on differs from before in what it may."""
    follows = {"epochs": ": learning rate and ramp follow the new length from here"}
    return [
        f"{key} {before[key]!r} -> {now[key]!r}{follows.get(key, '')}"
        for key in SCHEDULE
        if key in before and before[key] != now[key]
    ]

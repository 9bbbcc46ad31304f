"""Whether a label definition is one that nnU-Net takes, and agrees with itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

BACKGROUND, IGNORE = "background", "ignore"


def contradictions(labels: Mapping[str, Any], regions_class_order: Sequence[int]) -> list[str]:
    """Say what cannot be meant in a label definition, a sentence each.

    nnU-Net trains with all of it. What it refuses itself is left to it.

    Args:
        labels: name -> value, or values of a region, as in dataset.json.
        regions_class_order: the value each region is written as, in order.
    """
    values = {name: label_values(value) for name, value in labels.items()}
    return [
        *_other_capitals(values),
        *_shared_values(values),
        *_lost_labels(values, regions_class_order),
    ]


def label_warnings(dataset_json: Mapping[str, Any]) -> list[str]:
    """Return the contradictions of a dataset.json that somebody else wrote, for a log."""
    labels = dataset_json.get("labels")
    order = label_values(dataset_json.get("regions_class_order") or ())
    if not isinstance(labels, Mapping):  # nnU-Net says so
        return []
    return [f"warning: dataset.json: {text}" for text in contradictions(labels, order)]


def mistakes(labels: Mapping[str, Any], regions_class_order: Sequence[int]) -> Iterator[str]:
    """Say what is wrong with a label definition, a sentence each, the first thing first.

    That is what nnU-Net refuses when planning, and `contradictions`.
    """
    yield from _no_values(labels)
    yield from contradictions(labels, ())
    if labels.get(BACKGROUND) != 0:
        yield "The labels need background=0."
    values = sorted({number for value in labels.values() for number in label_values(value)})
    if values != list(range(len(values))):
        yield (
            f"nnU-Net needs consecutive label values from 0, got {values}; "
            "renumber them, with --map for example."
        )
    if len(values) < 2 or len(labels) < 2 + (IGNORE in labels):
        yield "The labels need at least one class besides the background."
    if IGNORE in labels and labels[IGNORE] != max(values):
        yield f"The ignore label must have the highest value, {max(values)}."
    has_regions = any(len(label_values(value)) > 1 for value in labels.values())
    regions = _regions({name: label_values(value) for name, value in labels.items()})
    if has_regions and len(regions_class_order) != len(regions):
        yield (
            f"Regions need a class order with one value for each of {', '.join(regions)}: "
            "add --regions_class_order."
        )
    if not has_regions and regions_class_order:
        yield "A class order is for regions, and no label here is a region."
    yield from contradictions(labels, regions_class_order)


def _no_values(labels: Mapping[str, Any]) -> Iterator[str]:
    for name, value in labels.items():
        values = value if isinstance(value, (tuple, list)) else (value,)
        if not name.strip():
            yield f"A label has no name, only the value {value}; name it."
        if any(not isinstance(v, int) or isinstance(v, bool) or v < 0 for v in values):
            yield f"The label {name} needs integers from 0, got {value}."
        if not values or len(set(values)) < len(values):
            yield f"The region {name} needs one or more different values, got {value}."
        if name != IGNORE and len(values) > 1 and labels.get(IGNORE) in values:
            yield (
                f"The region {name} holds {labels[IGNORE]}, the value of the ignore label, which "
                "belongs to no region; give ignore the highest value."
            )


def label_values(value: Any) -> tuple[int, ...]:
    """Return the values of a label or region; none if it is not a definition at all."""
    numbers = value if isinstance(value, (tuple, list)) else (value,)
    try:
        return tuple(int(number) for number in numbers)
    except (TypeError, ValueError, OverflowError):
        return ()


def _regions(values: Mapping[str, Collection[int]]) -> list[str]:
    """Return the names that have a channel where there are regions, in nnU-Net's order."""
    return [name for name, numbers in values.items() if name != IGNORE and set(numbers) != {0}]


def _other_capitals(values: Mapping[str, tuple[int, ...]]) -> list[str]:
    known = {
        BACKGROUND: f'the background by the name "{BACKGROUND}"',
        IGNORE: f'the ignore label by the name "{IGNORE}"',
    }
    remarks = []
    for name, numbers in values.items():
        meant = name.strip().casefold()
        if meant in known and name != meant:
            value = ",".join(map(str, numbers))
            remarks.append(
                f"nnU-Net knows {known[meant]}; {name} would be a class: write {meant}={value}."
            )
    return remarks


def _shared_values(values: Mapping[str, tuple[int, ...]]) -> list[str]:
    remarks = []
    first: dict[frozenset[int], str] = {}
    for name, numbers in values.items():
        other = first.setdefault(frozenset(numbers), name)
        if other != name and numbers:
            value = ", ".join(map(str, sorted(set(numbers))))
            remarks.append(
                f"{other} and {name} are two names of the label value {value}; leave one of them "
                "out, or give each a value of its own."
            )
    return remarks


def _lost_labels(values: Mapping[str, tuple[int, ...]], order: Sequence[int]) -> list[str]:
    """Write regions as nnU-Net's LabelManager.convert_probabilities_to_segmentation does."""
    regions = _regions(values)
    if len(order) != len(regions) or all(len(values[name]) < 2 for name in regions):
        return []
    last = {
        value: (name, number)
        for name, number in zip(regions, order, strict=True)
        for value in values[name]
    }
    lost = [
        f"label {value} comes back as {number}, the value of {name}"
        for value, (name, number) in sorted(last.items())
        if value != number
    ]
    unknown = sorted(set(order) - last.keys())
    if not lost and not unknown:
        return []
    reason = "; ".join(lost) or f"{', '.join(map(str, unknown))} is the value of no label"
    return [
        f"The regions {', '.join(regions)} cannot be written as {', '.join(map(str, order))} in "
        f"this order: {reason}. A later region is written over an earlier one: name large regions "
        "first and those inside them after, each with the value that no later one holds."
    ]

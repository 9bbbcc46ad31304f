"""Unlabeled patches for every Nth step, where the workers do not know for which step they work."""

from __future__ import annotations

from typing import Any


class EarlyPatches:
    """Keeps the unlabeled batches that come before the step that learns from them.

    Each worker puts one into every Nth of its items, the first among them. So N items of any
    workers bring at least one, and no step is without; about one for each worker is kept here.

    Args:
        every: N.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.batches: list[dict[str, Any]] = []

    def keep(self, item: dict[str, Any]) -> dict[str, Any]:
        """Take the unlabeled batch out of an item, if it has one, and return the rest."""
        if self.every > 1 and "unlabeled" in item:
            self.batches.append(item["unlabeled"])
        return {key: value for key, value in item.items() if key != "unlabeled"}

    def hand_out(self, item: dict[str, Any], iteration: int) -> dict[str, Any]:
        """Return the item of a step: with an unlabeled batch, its own first, in every Nth step."""
        if self.every == 1:
            return item
        labeled = self.keep(item)
        if iteration % self.every or not self.batches:
            return labeled
        return labeled | {"unlabeled": self.batches.pop()}

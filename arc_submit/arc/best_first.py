"""Ranking by score: the one order in which scored answers to a test input stand, wherever they are ranked.

The search ranks its answers, its runner fills the submission and the ensemble combines sources: all three by this function, so that equal
scores are never broken in two ways. Knows nothing about where scores come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from arc_submit.arc.grid import Grid, grid_id

Item = TypeVar("Item")


def best_first(items: Iterable[Item], score: Callable[[Item], float], grid: Callable[[Item], Grid | None]) -> list[Item]:
    """The items with the best score for each different grid, best first.

    Scores count to six decimals, as many as a file of predictions keeps; equal ones are ordered by the grid, so that the order in which
    the items came does not matter. Items without a grid are left out. Of items with one grid and one score the first is kept.
    """
    best: dict[bytes, tuple[float, Item]] = {}
    for item in items:
        shown = grid(item)
        if shown is not None:
            key, value = grid_id(shown), round(score(item), 6)
            if key not in best or value > best[key][0]:
                best[key] = (value, item)
    return [best[key][1] for key in sorted(best, key=lambda key: (-best[key][0], key))]

"""Ranking by score: the one order of scored answers to a test input.

The search's ranking, its submission and the ensemble use this function, so that equal scores are broken in one way. Does not know where
scores come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from arc_submit.arc.grid import Grid, grid_id

Item = TypeVar("Item")


def best_first(items: Iterable[Item], score: Callable[[Item], float], grid: Callable[[Item], Grid | None]) -> list[Item]:
    """The item with the best score for each different grid, best first.

    Scores are rounded to six decimals, the precision of a predictions file; ties are broken by the bytes of the grid, so that the order of
    the items does not matter. Items without a grid are left out. Of items with the same grid and score the first is returned.
    """
    best: dict[bytes, tuple[float, Item]] = {}
    for item in items:
        answer = grid(item)
        if answer is not None:
            key, value = grid_id(answer), round(score(item), 6)
            if key not in best or value > best[key][0]:
                best[key] = (value, item)
    return [best[key][1] for key in sorted(best, key=lambda key: (-best[key][0], key))]

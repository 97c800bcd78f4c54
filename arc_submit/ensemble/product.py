"""Ranking by product: a right answer is likely under every view, a wrong one often only under the view that made it.

Each candidate's log-probabilities under the same views are added, which multiplies its probabilities (the ARChitects' selection, 2024; a
product of experts). Pure functions; knows nothing about where candidates come from or how they were scored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from arc_submit.arc.grid import Grid, grid_id
from arc_submit.errors import DataError


@dataclass(frozen=True, eq=False)
class ScoredCandidate:
    """One distinct answer to one test input.

    Attributes:
        grid: the answer.
        logprobs: of the answer, by the key of the view.
    """

    grid: Grid
    logprobs: Mapping[str, float]

    @property
    def total(self) -> float:
        """Natural log of the product of the probabilities."""
        return math.fsum(self.logprobs.values())


def rank_by_product(candidates: Sequence[ScoredCandidate]) -> list[ScoredCandidate]:
    """Best first; ties go by the grid's bytes, so that the order of the candidates never matters.

    Raises:
        DataError: where they were not all scored under the same views: sums over different views cannot be compared.
    """
    views = {frozenset(candidate.logprobs) for candidate in candidates}
    if len(views) > 1:
        raise DataError(f"candidates were scored under different views: {len(views)} sets of them; score each under all")
    return sorted(candidates, key=lambda c: (-c.total, grid_id(c.grid)))


def distinct(grids: Iterable[Grid]) -> list[Grid]:
    """Grids without repetition, in the order of their bytes."""
    return [grid for _, grid in sorted({grid_id(grid): grid for grid in grids}.items())]

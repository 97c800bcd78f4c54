"""Voting: the grids that most predictions agree on.

A pure function from predictions to ranked answers; the order in which predictions came never matters. Knows nothing about solutions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from arc_submit.arc.grid import Grid, grid_id
from arc_submit.arc.prediction import Output, Prediction


@dataclass(frozen=True, eq=False)
class Candidate:
    """One distinct answer to one test input.

    Attributes:
        grid: the answer.
        votes: how many predictions gave it.
        mean_logprob: the mean over those predictions of their log-probability.
        probability: where every prediction was scored under many views, the geometric mean of its probabilities under them (the product
            over views, to the power of one over their number, so that all candidates' add up to 1 at most); else None.
    """

    grid: Grid
    votes: int
    mean_logprob: float
    probability: float | None = None


def vote(predictions: Iterable[Prediction]) -> list[Candidate]:
    """The distinct answers among predictions for one test input, best first.

    Most votes first; ties go to the higher mean log-probability, then to the grid's bytes, so that the ranking is the same for any
    order of the predictions. Predictions without a grid do not vote.
    """
    pools: dict[bytes, list[Prediction]] = {}
    for prediction in predictions:
        if prediction.grid is not None:
            pools.setdefault(grid_id(prediction.grid), []).append(prediction)
    candidates = []
    for pool in pools.values():
        grid = pool[0].grid
        assert grid is not None
        # fsum is exact, so that the mean does not depend on the order either.
        mean = math.fsum(p.logprob for p in pool) / len(pool)
        candidates.append(Candidate(grid, len(pool), mean, math.exp(min(0.0, mean)) if all(p.logprobs for p in pool) else None))
    return sorted(candidates, key=lambda c: (-c.votes, -c.mean_logprob, grid_id(c.grid)))


def vote_all(predictions: Iterable[Prediction]) -> dict[Output, list[Candidate]]:
    """`vote` for every (task, test input) that has predictions."""
    pools: dict[Output, list[Prediction]] = {}
    for prediction in predictions:
        pools.setdefault((prediction.task, prediction.test), []).append(prediction)
    return {output: vote(pool) for output, pool in pools.items()}

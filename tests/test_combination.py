"""Combination: each source ranked in its own way, sources in the order of trust, order of predictions without effect."""

from __future__ import annotations

import random

from arc_submit.arc.grid import Grid, make_grid
from arc_submit.arc.prediction import Prediction
from arc_submit.ensemble.combination import combine, rank, rank_all

A, B, C, D = (make_grid([[cell]]) for cell in range(4))


def prediction(source: str, grid: Grid | None, logprob: float, test: int = 0) -> Prediction:
    return Prediction("t", test, grid, source, "r0.c0123456789.p0", logprob, "m", 0.0)


POOL = [
    *(prediction("frozen", A, -9.0) for _ in range(3)),
    prediction("frozen", B, -0.1),
    prediction("frozen", None, 0.0),
    prediction("search", C, -2.0),
    prediction("search", C, -5.0),
    prediction("search", D, -1.0),
    prediction("search", A, -7.0),
    prediction("frozen", B, -3.0, test=1),
]


def values(grids: list[Grid]) -> list[int]:
    return [int(grid[0, 0]) for grid in grids]


def test_a_search_is_ranked_by_score_and_a_model_by_votes() -> None:
    ranked = rank_all(POOL)
    assert values([c.grid for c in ranked["search"]["t", 0]]) == [3, 2, 0]
    assert [c.votes for c in ranked["search"]["t", 0]] == [1, 1, 1], "a score given twice is no second vote"
    assert values([c.grid for c in ranked["frozen"]["t", 0]]) == [0, 1]
    assert rank([]) == []


def test_sources_come_in_the_order_of_trust_and_answers_once() -> None:
    assert values(combine(POOL, ("search", "frozen"))["t", 0]) == [3, 2, 0, 1]
    assert values(combine(POOL, ("frozen", "search"))["t", 0]) == [0, 1, 3, 2]
    assert values(combine(POOL, ("search",))["t", 0]) == [3, 2, 0]
    assert values(combine(POOL, ("search", "frozen"))["t", 1]) == [1]


def test_the_order_of_predictions_never_matters() -> None:
    for seed in range(20):
        shuffled = list(POOL)
        random.Random(seed).shuffle(shuffled)
        assert {k: values(v) for k, v in combine(shuffled, ("search", "frozen")).items()} == {("t", 0): [3, 2, 0, 1], ("t", 1): [1]}

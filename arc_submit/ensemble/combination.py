"""Combination: answers of several sources in one ranking.

A model's answers are voted on; a search's answers come with a score of their own and are ranked by it. Sources are then put one after the
other in the order of trust that the run gives. Pure functions; knows nothing about solutions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from arc_submit.arc.grid import Grid, grid_id
from arc_submit.arc.prediction import Output, Prediction
from arc_submit.arc.ranking import best_first
from arc_submit.ensemble.voting import Candidate, vote

SCORED_SOURCES = ("search",)  # their logprob is the score of an answer, and giving it twice makes it no better


def rank(predictions: Sequence[Prediction]) -> list[Candidate]:
    """The distinct answers of one source to one test input, best first; the order of the predictions never matters."""
    if not predictions or predictions[0].source not in SCORED_SOURCES:
        return vote(predictions)
    ranked = best_first(predictions, lambda p: p.logprob, lambda p: p.grid)
    return [Candidate(p.grid, 1, p.logprob) for p in ranked if p.grid is not None]


def rank_all(predictions: Iterable[Prediction]) -> dict[str, dict[Output, list[Candidate]]]:
    """`rank` for every source and every (task, test input) that has predictions."""
    pools: dict[str, dict[Output, list[Prediction]]] = {}
    for p in predictions:
        pools.setdefault(p.source, {}).setdefault((p.task, p.test), []).append(p)
    return {source: {output: rank(pool) for output, pool in outputs.items()} for source, outputs in pools.items()}


def combine(predictions: Iterable[Prediction], order: Sequence[str]) -> dict[Output, list[Grid]]:
    """For every test input its distinct answers, those of the first source first.

    Args:
        order: sources, the most trusted first; predictions of others are left out.
    """
    ranked = rank_all(predictions)
    combined: dict[Output, dict[bytes, Grid]] = {}
    for source in order:
        for output, candidates in ranked.get(source, {}).items():
            for candidate in candidates:
                combined.setdefault(output, {}).setdefault(grid_id(candidate.grid), candidate.grid)
    return {output: list(grids.values()) for output, grids in combined.items()}

"""Voting: the grids that most predictions agree on.

Pure functions from predictions to ranked answers; the order of the predictions does not matter. Does not know solutions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from arc_submit.arc.grid import Grid, grid_id
from arc_submit.arc.prediction import OutputKey, Prediction, group_by_output
from arc_submit.ensemble.program_odds import Fits, accuracy

Basis = Literal["votes", "score", "place", "programs"]
"""What ranks the answers of a source: the votes of a model, the score of a search, the place of an attempt in a submission file, or the
train pairs that the programs reproduce which gave the answer."""

# By the kind of a source. The logprob of a score is no log-probability, and a repeated answer with a score or a place is no second vote.
_BASES: dict[str, Basis] = {"search": "score", "attempts": "place", "code": "programs"}


Broken = tuple[int, int]
"""How many strict laws of the train pairs an answer breaks, and how many others."""


def basis_of(prediction: Prediction) -> Basis:
    """What ranks the answers of a prediction's source."""
    return _BASES.get(prediction.source_kind, "votes")


@dataclass(frozen=True, eq=False)
class SourceAnswer:
    """One distinct answer of a source to one test input.

    Attributes:
        grid: the answer.
        votes: how many predictions gave it.
        mean_logprob: mean log-probability of those predictions; the score of the answer for a search; the log of the share that its place
            has for an attempt of a submission file.
        probability: the geometric mean of the answer's probabilities under the views, where every prediction was scored under many views;
            else None. Over all answers to a test input it sums to at most 1.
        found: the log-probability of the answer in each view that gave it, ascending; empty where the basis is not votes.
        scored: its log-probabilities under the views that scored it, ascending; empty where answers are not scored.
        basis: what ranks the answers of the source; the same for all of them.
        fits: of each program that gave it, the train pairs that it reproduces and those that there are; empty for other bases.
        program: the text of the best of them, the shortest of equally good ones; empty for other bases.
        broken: the laws that it breaks; None where none is known, and for a score, which contains them.
    """

    grid: Grid
    votes: int
    mean_logprob: float
    probability: float | None = None
    found: tuple[float, ...] = ()
    scored: tuple[float, ...] = ()
    basis: Basis = "votes"
    fits: Fits = ()
    program: str = ""
    broken: Broken | None = None


RankedSources = Mapping[str, Mapping[OutputKey, Sequence[SourceAnswer]]]
"""By source and test input: the source's answers, best first."""


def vote(predictions: Iterable[Prediction]) -> list[SourceAnswer]:
    """The distinct answers among predictions for one test input, best first.

    Most votes first; ties go to the higher mean log-probability, then to the smaller bytes of the grid. Predictions without a grid do not
    vote.
    """
    answers = []
    for grid, pool in _by_grid(predictions):
        # fsum is exact, so that the mean does not depend on the order of the predictions.
        mean = math.fsum(p.logprob for p in pool) / len(pool)
        probability = math.exp(min(0.0, mean)) if all(p.logprobs for p in pool) else None
        found = tuple(sorted(value for p in pool for value in _found(p)))
        scored = tuple(sorted(value for p in pool for value in p.logprobs.values()))
        answers.append(SourceAnswer(grid, len(pool), mean, probability, found, scored))
    return sorted(answers, key=lambda a: (-a.votes, -a.mean_logprob, grid_id(a.grid)))


def rank_programs(predictions: Iterable[Prediction]) -> list[SourceAnswer]:
    """The distinct answers of programs to one test input, best first.

    Answers of programs that reproduce all train pairs come first, by the number of these programs; then the sum of the shares of pairs that
    an answer's programs reproduce decides, then their log-probability, then the smaller bytes of the grid. Equal programs under several
    views are several votes.
    """
    answers = []
    for grid, pool in _by_grid(predictions):
        mean = math.fsum(p.logprob for p in pool) / len(pool)
        best = min(pool, key=lambda p: (-p.fits[0], len(p.program), p.program))
        fits = tuple(sorted(p.fits for p in pool))
        answers.append(SourceAnswer(grid, len(pool), mean, basis="programs", fits=fits, program=best.program))

    def key(answer: SourceAnswer) -> tuple[int, float, float, bytes]:
        full = sum(0 < pairs == whole for whole, pairs in answer.fits)
        return -full, -accuracy(answer.fits), -answer.mean_logprob, grid_id(answer.grid)

    return sorted(answers, key=key)


def _by_grid(predictions: Iterable[Prediction]) -> list[tuple[Grid, list[Prediction]]]:
    """Each distinct grid with the predictions that gave it."""
    pools: dict[bytes, tuple[Grid, list[Prediction]]] = {}
    for prediction in predictions:
        if prediction.grid is not None:
            pools.setdefault(grid_id(prediction.grid), (prediction.grid, []))[1].append(prediction)
    return list(pools.values())


def _found(prediction: Prediction) -> list[float]:
    """The log-probability of a prediction's grid in each view that gave it.

    A scored prediction of an earlier version names one view: the one under which the search found it with the highest probability.
    """
    if prediction.found:
        return list(prediction.found.values())
    return [prediction.logprobs.get(prediction.view, prediction.logprob)]


def vote_all(predictions: Iterable[Prediction]) -> dict[OutputKey, list[SourceAnswer]]:
    """`vote` for every (task, test input) that has predictions."""
    return {output: vote(pool) for output, pool in group_by_output(predictions).items()}

"""Ranking: one tie-break everywhere, and the evidence for a grid when the answers of all solvers are ranked together."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from arc_submit.arc.best_first import best_first
from arc_submit.arc.grid import frozen
from arc_submit.arc.prediction import Prediction
from arc_submit.arc.task import Pair, Task
from arc_submit.ensemble.combination import rank as rank_source
from arc_submit.search.answers import SolverAnswer, rank_answers
from arc_submit.search.ranking import WEIGHTS, Ranking, common_traits, implausibilities, rank

GRIDS = [frozen(np.full((1, 2), [k, 3])) for k in (2, 1, 5, 4)]
PAIRS = tuple(Pair(frozen(np.full((1, 2), [k, 7])), frozen(np.full((1, 2), [k, 3]))) for k in (6, 8))
TASK = Task("made", PAIRS, (frozen(np.array([[9, 7]])),))


def rule(grid, program="p", solver="programs", explained=1.0, cost=20.0, layers=1):
    return SolverAnswer(0, grid, solver, program, explained, cost, layers)


def test_equal_scores_are_broken_by_the_grid_in_every_ranking():
    scores = (-1.0, -1.0, -0.5, -1.0000000001)
    expected = [[[5, 3]], [[1, 3]], [[2, 3]], [[4, 3]]]
    predictions = [Prediction("made", 0, grid, "search", "v", score, "m", 0.0) for grid, score in zip(GRIDS, scores, strict=True)]
    answers = [rule(grid, cost=-1000 * score) for grid, score in zip(GRIDS, scores, strict=True)]
    for seed in range(10):
        random.Random(seed).shuffle(predictions)
        random.Random(seed).shuffle(answers)
        for ranked in (rank_source(predictions), rank_answers(answers, 1)[0], rank(answers, TASK)[0]):
            assert [item.grid.tolist() for item in ranked] == expected
    assert best_first([None], lambda _: 0.0, lambda _: None) == []


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ([rule(GRIDS[0])], [rule(GRIDS[1], cost=60)]),
        ([rule(GRIDS[0])], [rule(GRIDS[1], explained=0.5)]),
        ([rule(GRIDS[0])], [rule(GRIDS[1], layers=5)]),
        ([rule(GRIDS[0]), rule(GRIDS[0], "q", cost=50)], [rule(GRIDS[1])]),
        ([rule(GRIDS[0]), rule(GRIDS[0], "q", "choice")], [rule(GRIDS[1]), rule(GRIDS[1], "q")]),
        ([rule(GRIDS[0])], [rule(TASK.tests[0])]),
        ([rule(GRIDS[0])], [rule(frozen(np.array([[3, 3]])))]),
        ([rule(GRIDS[0])], [rule(frozen(np.array([[2, 4]])))]),
        ([rule(GRIDS[0])], [rule(frozen(np.array([[3, 3], [3, 2]])))]),
    ],
    ids=["cost", "explained", "layers", "another rule", "another solver", "the input", "one colour", "a colour of every output", "a law"],
)
def test_each_piece_of_evidence_moves_a_grid_up(better, worse):
    for answers in (better + worse, worse + better):
        assert [ranked.grid is better[0].grid for ranked in rank(answers, TASK)[0]] == [True, False]


def test_a_new_answer_never_lowers_a_score_and_the_same_rule_counts_once():
    rng = random.Random(0)
    answers, before = [], {}
    running = Ranking(TASK)
    for k in range(200):
        answer = rule(rng.choice(GRIDS), f"p{k % 12}", rng.choice(("programs", "cells", "new")), rng.random(), 100 * rng.random())
        answers.append(replace(answer, layers=rng.randint(1, 4), support=5 * rng.random(), predicted=rng.choice((None, 0.0, 0.5, 1.0))))
        after = {ranked.grid.tobytes(): ranked.score for ranked in rank(answers, TASK)[0]}
        running.add(answers[-1:])
        assert {ranked.grid.tobytes(): ranked.score for ranked in running.best(10)[0]} == after
        assert all(after[grid] >= score for grid, score in before.items())
        before = after
    assert {r.grid.tobytes(): r.score for r in rank(answers + answers, TASK)[0]} == before
    assert len(rank(answers, TASK, limit=2)[0]) == 2


def implausible_features(grid, shown, pairs):
    """The names of the features that make a grid implausible."""
    task = Task("made", tuple(Pair(frozen(np.array(a)), frozen(np.array(b))) for a, b in pairs), (frozen(np.array(shown)),))
    return {name for name, value in implausibilities(frozen(np.array(grid)), task.tests[0], common_traits(task)).items() if value}


def test_implausible_grids_have_the_expected_features():
    pairs = [([[0, 5, 0], [5, 0, 5]], [[1, 0, 1], [0, 1, 0]]), ([[5, 5, 5], [5, 0, 5]], [[1, 1, 1], [1, 0, 1]])]
    shown = [[5, 0, 5], [5, 0, 5]]
    assert implausible_features([[1, 0, 1], [1, 0, 1]], shown, pairs) == set()
    assert implausible_features([[5, 0, 5], [0, 0, 0]], shown, pairs) == {"lacks a colour of every output"}
    assert implausible_features([[1, 0, 1], [1, 0, 0]], shown, pairs) == {"lacks a symmetry of every output"}
    assert implausible_features(shown, shown, pairs) == {"is the input", "lacks a colour of every output"}
    unchanged = [([[0, 5, 5], [3, 0, 0]], [[2, 5, 5], [3, 2, 2]]), ([[3, 3, 3], [3, 0, 0]], [[3, 3, 3], [3, 2, 2]])]
    assert implausible_features([[3, 2, 5], [3, 2, 5]], [[3, 0, 5], [3, 0, 5]], unchanged) == set()
    assert implausible_features([[3, 2, 2], [3, 2, 2]], [[3, 0, 5], [3, 0, 5]], unchanged) == {"changes what never changes"}


def test_the_signs_of_the_weights():
    task = Task("made", PAIRS, TASK.tests)
    names = set(implausibilities(GRIDS[0], TASK.tests[0], common_traits(task)))
    assert all(WEIGHTS[name] <= 0 for name in names)
    assert all(WEIGHTS[name] >= 0 for name in ("rules", "other solvers", "support", "explains all"))
    assert all(WEIGHTS[name] <= 0 for name in ("cost", "pairs not explained", "pairs not predicted", "stack"))

"""Voting: most votes first, ties by mean log-probability, independent of the order of predictions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from arc_submit.arc.grid import make_grid, same_grid
from arc_submit.arc.prediction import Prediction
from arc_submit.ensemble.voting import vote, vote_all

GRIDS = [make_grid([[0]]), make_grid([[1]]), make_grid([[0, 1]]), make_grid([[0], [1]]), None]


def prediction(which: int, logprob: float, task: str = "t", test: int = 0) -> Prediction:
    return Prediction(task, test, GRIDS[which], "frozen", "r0.c0123456789.p0", logprob, "m", 0.0)


def test_most_votes_win_and_ties_go_to_the_higher_log_probability() -> None:
    pool = [prediction(0, -9.0), prediction(0, -9.0), prediction(1, -1.0), prediction(2, -3.0), prediction(2, -5.0), prediction(4, 0.0)]
    ranked = vote(pool)
    assert [(c.votes, c.mean_logprob) for c in ranked] == [(2, -4.0), (2, -9.0), (1, -1.0)]
    assert same_grid(ranked[0].grid, GRIDS[2])


def test_grids_of_other_shape_with_the_same_cells_are_different_answers() -> None:
    assert len(vote([prediction(2, -1.0), prediction(3, -1.0)])) == 2


def test_a_prediction_without_a_grid_does_not_vote() -> None:
    assert vote([prediction(4, -1.0)]) == []


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-50, 0), st.integers(0, 1)), max_size=30), st.randoms())
def test_the_order_of_predictions_does_not_matter(entries: list[tuple[int, float, int]], random: object) -> None:
    pool = [prediction(which, logprob, test=test) for which, logprob, test in entries]
    shuffled = list(pool)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = vote_all(pool), vote_all(shuffled)
    assert one.keys() == other.keys()
    for output in one:
        assert [(c.votes, c.mean_logprob) for c in one[output]] == [(c.votes, c.mean_logprob) for c in other[output]]
        assert all(np.array_equal(a.grid, b.grid) for a, b in zip(one[output], other[output], strict=True))
        assert sum(c.votes for c in one[output]) == sum(which != 4 and test == output[1] for which, _, test in entries)

"""Metrics against figures calculated by hand."""

from __future__ import annotations

import pytest
from strategies import solid

from arc_submit.arc.grid import Grid, make_grid
from arc_submit.arc.metrics import correct_pixels, score_predictions, score_submission
from arc_submit.arc.prediction import Prediction
from arc_submit.arc.task import Solutions
from arc_submit.errors import DataError

RIGHT = make_grid([[1, 2], [3, 4]])
THREE = make_grid([[1, 2], [3, 0]])  # three cells of four
ONE = make_grid([[1, 0], [0, 0]])  # one cell of four
OTHER_SIZE = make_grid([[1, 2, 3]])


def _prediction(task: str, test: int, grid: Grid | None) -> Prediction:
    return Prediction(task, test, grid, "ttft", "r0.c0123456789.p0", -1.0, "m", 0.0)


def test_correct_pixels() -> None:
    assert correct_pixels(RIGHT, RIGHT) == 1
    assert correct_pixels(THREE, RIGHT) == 0.75
    assert correct_pixels(OTHER_SIZE, RIGHT) == 0
    assert correct_pixels(make_grid([[1, 2, 3, 4]]), RIGHT) == 0
    assert correct_pixels(None, RIGHT) == 0


def test_all_figures_of_one_output() -> None:
    pool = [_prediction("a", 0, grid) for grid in (RIGHT, THREE, OTHER_SIZE, None)]
    scores = score_predictions(pool, {("a", 0): [THREE, ONE]}, Solutions({"a": (RIGHT,)}), ["a"])
    assert scores.to_json() == {
        "outputs": 1,
        "predictions": 4,
        "accuracy": 0.25,
        "correct_pixels": (1 + 0.75) / 4,
        "max_correct_pixels": 1.0,
        "correct_size": 0.5,
        "any_correct_size": 1.0,
        "pass_n": 1.0,
        "vote_2": 0.0,
        "unanswered": 0.25,
    }


def test_outputs_have_equal_weight_whatever_their_number_of_predictions() -> None:
    # a0: two predictions, one right; a1: four, all wrong, best with 3 of 4; b0: none.
    pool = [_prediction("a", 0, RIGHT), _prediction("a", 0, ONE)]
    pool += [_prediction("a", 1, grid) for grid in (THREE, ONE, OTHER_SIZE, OTHER_SIZE)]
    pool += [_prediction("elsewhere", 0, RIGHT), _prediction("a", 7, RIGHT)]
    solutions = Solutions({"a": (RIGHT, RIGHT), "b": (RIGHT,), "c": (RIGHT,)})
    scores = score_predictions(pool, {("a", 0): [RIGHT], ("c", 0): [RIGHT]}, solutions, ["a", "b"])
    assert (scores.outputs, scores.predictions) == (3, 6)
    assert scores.accuracy == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert scores.correct_pixels == pytest.approx(((1 + 0.25) / 2 + (0.75 + 0.25) / 4 + 0) / 3)
    assert scores.max_correct_pixels == pytest.approx((1 + 0.75 + 0) / 3)
    assert scores.correct_size == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert scores.any_correct_size == pytest.approx(2 / 3)
    assert scores.pass_n == pytest.approx(1 / 3)
    assert scores.vote_2 == pytest.approx(1 / 3)
    assert scores.unanswered == pytest.approx(1 / 3)


def test_only_two_attempts_count_and_they_need_not_be_predictions() -> None:
    solutions = Solutions({"a": (RIGHT,)})
    assert score_predictions([], {("a", 0): [ONE, THREE, RIGHT]}, solutions, ["a"]).vote_2 == 0
    late = score_predictions([], {("a", 0): [ONE, RIGHT]}, solutions, ["a"])
    assert (late.vote_2, late.pass_n, late.unanswered) == (1, 0, 1)


def test_predictions_without_a_solution_are_refused() -> None:
    with pytest.raises(DataError, match="task b: no solution"):
        score_predictions([], {}, Solutions({"a": (RIGHT,)}), ["a", "b"])


def test_both_readings_of_kaggles_score() -> None:
    # a has two outputs and one is solved, b one, solved by its second attempt, c one, solved by its first.
    attempts = {"a": [(RIGHT, ONE), (ONE, THREE)], "b": [(OTHER_SIZE, RIGHT)], "c": [(RIGHT, OTHER_SIZE)], "unknown": [(ONE, ONE)]}
    scores = score_submission(attempts, Solutions({"a": (RIGHT, RIGHT), "b": (RIGHT,), "c": (RIGHT,), "other": (RIGHT,)}))
    assert scores.per_output == pytest.approx(3 / 4)
    assert scores.per_task == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert (scores.outputs, scores.solved_outputs) == (4, 3)
    assert (scores.tasks, scores.solved_tasks) == (3, 2)
    assert scores.first_attempt == pytest.approx(2 / 4)
    assert scores.unscored == 1


def test_a_right_grid_in_the_other_output_does_not_count() -> None:
    other = solid(3, 3, 5)
    scores = score_submission({"a": [(other, ONE), (RIGHT, ONE)]}, Solutions({"a": (RIGHT, other)}))
    assert scores.per_output == scores.per_task == 0


def test_an_output_without_attempts_is_not_solved() -> None:
    scores = score_submission({"a": [(), (RIGHT,)]}, Solutions({"a": (RIGHT, RIGHT)}))
    assert (scores.per_output, scores.first_attempt) == (0.5, 0.5)


def test_a_submission_of_other_tasks_is_refused() -> None:
    with pytest.raises(DataError, match="do the two files belong together"):
        score_submission({"a": [(RIGHT, ONE)]}, Solutions({"b": (RIGHT,)}))
    with pytest.raises(DataError, match="task a: 1 entries but 2 solutions"):
        score_submission({"a": [(RIGHT, ONE)]}, Solutions({"a": (RIGHT, RIGHT)}))

"""Metrics: scores of predictions and submissions where the solutions are known.

Only this module and the report take Solutions. Every figure is a mean over test outputs unless its name contains "task". Does not know how
attempts are chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from arc_submit.arc.grid import Grid, same_grid
from arc_submit.arc.prediction import OutputKey, Prediction, group_by_output
from arc_submit.arc.task import Solutions
from arc_submit.errors import DataError


@dataclass(frozen=True)
class PredictionScores:
    """Figures of a set of predictions, each a mean over test outputs.

    Attributes:
        outputs: number of test outputs.
        predictions: number of predictions for them.
        accuracy: share of an output's predictions that are right.
        correct_pixels: share of right cells in a prediction, 0 where the size is wrong, averaged over an output's predictions.
        max_correct_pixels: the same for an output's best prediction.
        correct_size: share of an output's predictions of the right size.
        any_correct_size: share of outputs with at least one prediction of the right size.
        pass_n: share of outputs with at least one right prediction.
        vote_2: share of outputs whose two chosen attempts hold the right answer.
        unanswered: share of an output's predictions without a grid; 1 where it has no predictions.
    """

    outputs: int
    predictions: int
    accuracy: float
    correct_pixels: float
    max_correct_pixels: float
    correct_size: float
    any_correct_size: float
    pass_n: float
    vote_2: float
    unanswered: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class SubmissionScores:
    """Kaggle's score in both readings, and its parts.

    Attributes:
        per_output: solved outputs / all outputs (the competition's text).
        per_task: mean over tasks of the fraction of outputs solved (consistent with the leaderboard's values).
        outputs, solved_outputs: the counts behind per_output.
        tasks, solved_tasks: number of tasks, and of those with every output solved.
        first_attempt: share of outputs solved by attempt_1 alone.
        unscored: tasks of the submission without a solution, left out.
    """

    per_output: float
    per_task: float
    outputs: int
    solved_outputs: int
    tasks: int
    solved_tasks: int
    first_attempt: float
    unscored: int

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def correct_pixels(grid: Grid | None, solution: Grid) -> float:
    """Share of right cells; 0 where there is no grid or its size is wrong."""
    if grid is None or grid.shape != solution.shape:
        return 0.0
    return float((grid == solution).mean())


def score_predictions(
    predictions: Sequence[Prediction], attempts: Mapping[OutputKey, Sequence[Grid]], solutions: Solutions, task_ids: Sequence[str]
) -> PredictionScores:
    """Score predictions over all outputs of some tasks; an output without predictions counts as unanswered.

    Args:
        predictions: in any order; those of other tasks are ignored.
        attempts: the attempts chosen from these predictions; the first two count.
        task_ids: the tasks to score, all with solutions.

    Raises:
        DataError: where a task has no solution.
    """
    pools = group_by_output(predictions)
    rows, count = [], 0
    for task_id in task_ids:
        if task_id not in solutions.outputs:
            raise DataError(f"task {task_id}: no solution to score it with")
        for test, solution in enumerate(solutions.outputs[task_id]):
            grids = [prediction.grid for prediction in pools.get((task_id, test), [])]
            rows.append(_score_output(grids, list(attempts.get((task_id, test), []))[:2], solution))
            count += len(grids)
    names = [field.name for field in fields(PredictionScores)][2:]
    means = {name: sum(row[i] for row in rows) / max(1, len(rows)) for i, name in enumerate(names)}
    return PredictionScores(outputs=len(rows), predictions=count, **means)


def score_submission(attempts: Mapping[str, Sequence[Sequence[Grid]]], solutions: Solutions) -> SubmissionScores:
    """Kaggle's score of a submission's attempts, by task id and test input.

    Raises:
        DataError: where no task has a solution, or a task has another number of entries than of solutions.
    """
    fractions, solved, first, outputs = [], 0, 0, 0
    for task_id, entries in attempts.items():
        if task_id not in solutions.outputs:
            continue
        expected = solutions.outputs[task_id]
        if len(expected) != len(entries):
            raise DataError(f"task {task_id}: {len(entries)} entries but {len(expected)} solutions")
        hits = [[same_grid(grid, solution) for grid in entry] for entry, solution in zip(entries, expected, strict=True)]
        hit_count = sum(map(any, hits))
        first += sum(any(entry[:1]) for entry in hits)
        solved += hit_count
        outputs += len(hits)
        fractions.append(hit_count / len(hits))
    if not fractions:
        raise DataError("no task of the submission has a solution: do the two files belong together?")
    return SubmissionScores(
        per_output=solved / outputs,
        per_task=sum(fractions) / len(fractions),
        outputs=outputs,
        solved_outputs=solved,
        tasks=len(fractions),
        solved_tasks=sum(fraction == 1 for fraction in fractions),
        first_attempt=first / outputs,
        unscored=len(attempts) - len(fractions),
    )


def submission_text(scores: SubmissionScores) -> str:
    """One line with Kaggle's score in both readings."""
    return (
        f"submission: {scores.solved_outputs} of {scores.outputs} outputs solved = {100 * scores.per_output:.1f} % (per output), "
        f"{100 * scores.per_task:.1f} % (mean over {scores.tasks} tasks of the fraction solved); "
        f"first attempt alone {100 * scores.first_attempt:.1f} %"
    )


def _score_output(grids: list[Grid | None], attempts: list[Grid], solution: Grid) -> tuple[float, ...]:
    """The figures of PredictionScores for one output, in the order of its fields from `accuracy` on."""
    n = max(1, len(grids))
    pixels = [correct_pixels(grid, solution) for grid in grids]
    right = [same_grid(grid, solution) for grid in grids]
    sizes = [grid is not None and grid.shape == solution.shape for grid in grids]
    return (
        sum(right) / n,
        sum(pixels) / n,
        max(pixels, default=0.0),
        sum(sizes) / n,
        float(any(sizes)),
        float(any(right)),
        float(any(same_grid(grid, solution) for grid in attempts)),
        sum(grid is None for grid in grids) / n if grids else 1.0,
    )

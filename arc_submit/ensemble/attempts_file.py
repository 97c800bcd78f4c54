"""Attempts of a submission file as ranked answers: the file of another solver beside the sources of a run.

A submission has no votes and no log-probabilities. The place of an attempt is all that it says: the share of a place is the probability
that the right answer is there, given that one of the two attempts is right. A malformed attempt is named and left out. A fallback, which
fills a place that no answer has taken, is no answer. Does not know where the file comes from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arc_submit.arc.datasets import short_id
from arc_submit.arc.files import AnyPath, read_json_with_repeats
from arc_submit.arc.grid import Grid, make_grid, same_grid
from arc_submit.arc.prediction import Prediction
from arc_submit.arc.submission import ATTEMPTS, fallback_attempts
from arc_submit.arc.task import Task
from arc_submit.errors import DataError

KIND = "attempts"
# Of the outputs that two answers of the search solve, the first solves 0.92; of those of a weak model 0.5 (docs/ensemble.md).
FIRST_SHARE = 0.8

_BLANK = make_grid([[0, 0], [0, 0]])  # both attempts of each entry in Kaggle's sample_submission.json


@dataclass(frozen=True, eq=False)
class AttemptsFile:
    """The contents of a submission file.

    Attributes:
        entries: by task id, for each test input the attempts by their names; a malformed attempt is left out.
        problems: one line for each task, entry or attempt that is left out.
    """

    entries: Mapping[str, Sequence[Mapping[str, Grid]]]
    problems: Sequence[str]


def read_attempts(path: AnyPath) -> AttemptsFile:
    """Read a submission of any origin, {id: [{"attempt_1": grid, "attempt_2": grid}, ...]}.

    Raises:
        DataError: where the file as a whole is not a submission, or none of its attempts is a grid.
    """
    value, repeated = read_json_with_repeats(path)
    if not isinstance(value, dict) or not value:
        raise DataError(f"{path}: a submission is a JSON object with a list of attempts for each task id")
    entries: dict[str, list[dict[str, Grid]]] = {}
    problems: list[str] = []
    for task_id, given in value.items():
        where = f"{path.name}: task {short_id(task_id)}"
        if task_id in repeated:
            problems.append(f"{where}: a key in it, or the task itself, is given twice")
        elif not isinstance(given, list) or not given:
            problems.append(f"{where}: a non-empty list with an entry for each test input is expected")
        else:
            entries[task_id] = [_read_entry(entry, f"{where}: entry {i}", problems) for i, entry in enumerate(given)]
    if not any(entry for given in entries.values() for entry in given):
        first = f"; first: {problems[0]}" if problems else ""
        raise DataError(f"{path}: no attempt in it is a grid, so that it is no submission{first}")
    return AttemptsFile(entries, problems)


def _read_entry(entry: Any, where: str, problems: list[str]) -> dict[str, Grid]:
    if not isinstance(entry, dict):
        problems.append(f"{where} is not an object with {' and '.join(ATTEMPTS)}")
        return {}
    grids = {}
    for name in ATTEMPTS:
        try:
            if name not in entry:
                raise DataError(f"{where}: {name} is missing")
            grids[name] = make_grid(entry[name], f"{where}: {name}")
        except DataError as error:
            problems.append(str(error))
    return grids


def attempt_predictions(source: str, file: AttemptsFile, tasks: Mapping[str, Task]) -> tuple[list[Prediction], int]:
    """The attempts as predictions of a source, and how many attempts are fallbacks and therefore left out.

    Two equal attempts are one answer, which has both shares.

    Args:
        tasks: those that are known, to tell a fallback.
    """
    shares = dict(zip(ATTEMPTS, (FIRST_SHARE, 1 - FIRST_SHARE), strict=True))
    predictions, fallbacks = [], 0
    for task_id, entries in file.entries.items():
        for test, entry in enumerate(entries):
            answers = _without_fallbacks(entry, tasks.get(task_id), test)
            fallbacks += len(entry) - len(answers)
            if len(answers) == len(ATTEMPTS) and same_grid(*answers.values()):
                first, *_ = answers.items()
                answers, share = dict([first]), 1.0
            else:
                share = 0.0
            for name, grid in answers.items():
                logprob = round(math.log(share or shares[name]), 6)
                predictions.append(Prediction(task_id, test, grid, source, "", logprob, name, 0.0, kind=KIND))
    return predictions, fallbacks


def _without_fallbacks(entry: Mapping[str, Grid], task: Task | None, test: int) -> dict[str, Grid]:
    """The attempts of an entry without what this project and Kaggle's sample put where there is no answer.

    The test input is a fallback in either place; a plain grid is one only after it, because alone it may be an answer.
    """
    pair = [entry.get(name) for name in ATTEMPTS]
    if all(same_grid(grid, _BLANK) for grid in pair):
        return {}
    if task is None or test >= len(task.tests):
        return dict(entry)
    fallback = fallback_attempts(task, test)
    if all(map(same_grid, pair, fallback)):
        return {}
    return {name: grid for name, grid in entry.items() if not same_grid(grid, task.tests[test])}

"""The submission: complete and valid for its test file at every instant of a run.

It is written at the start with fallback attempts and replaced atomically as answers come, so that a killed run leaves a file that Kaggle
can score. Does not know where attempts come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from arc_submit.arc.datasets import Challenges, short_id
from arc_submit.arc.files import has_byte_order_mark, read_json_with_repeats, write_json
from arc_submit.arc.grid import Grid, frozen, grid_to_lists, make_grid, same_grid
from arc_submit.arc.output_shape import largest_output_shape
from arc_submit.arc.task import Task
from arc_submit.errors import DataError

ATTEMPTS = ("attempt_1", "attempt_2")
Attempts = tuple[Grid, Grid]


def fallback_attempts(task: Task | None, test: int) -> Attempts:
    """Two different attempts without a solver: the test input, and a plain grid of the expected size in the commonest output colour.

    A task that could not be read (None) gets two single cells.
    """
    black, blue = frozen(np.zeros((1, 1))), frozen(np.ones((1, 1)))
    if task is None:
        return black, blue
    grid = task.tests[test]
    counts = np.bincount(np.concatenate([pair.output.ravel() for pair in task.train]), minlength=10)
    shape, _ = largest_output_shape(task, grid)
    plain = frozen(np.full(shape, int(counts.argmax())))
    return grid, next(other for other in (plain, black, blue) if not same_grid(other, grid))


class Submission:
    """Attempts for every test input of a challenges file, complete in memory and on disk.

    Args:
        challenges: the test file.
        path: of submission.json.
        counts: entries by id, in the order of the submission (from sample_submission); those of the challenges file by default.

    Attributes:
        saved: the file on disk has these attempts.

    Raises:
        DataError: where the ids or counts of `counts` are not those of the challenges file.
    """

    def __init__(self, challenges: Challenges, path: Path, counts: Mapping[str, int] | None = None):
        self.path, self.saved = path, False
        counts = dict(challenges.test_counts if counts is None else counts)
        different = sorted(set(counts) ^ set(challenges.test_counts))
        if different:
            raise DataError(f"sample_submission and the challenges file differ in {len(different)} ids, first {different[0]}")
        self.attempts: dict[str, list[Attempts]] = {}
        for task_id, count in counts.items():
            task = challenges.tasks.get(task_id)
            if task is not None and len(task.tests) != count:
                raise DataError(f"task {task_id}: {len(task.tests)} test inputs but {count} entries in sample_submission")
            self.attempts[task_id] = [fallback_attempts(task, test) for test in range(count)]

    def set(self, task_id: str, test: int, attempts: list[Grid]) -> None:
        """Put one or two attempts, best first, before the present ones of a test input; the first two different grids remain."""
        distinct: list[Grid] = []
        for grid in [*attempts, *self.attempts[task_id][test]]:
            if not any(same_grid(grid, other) for other in distinct):
                distinct.append(grid)
        before = self.attempts[task_id][test]
        self.attempts[task_id][test] = (distinct[0], distinct[1])
        self.saved = self.saved and all(map(same_grid, before, self.attempts[task_id][test]))

    def to_json(self) -> dict[str, list[dict[str, list[list[int]]]]]:
        """The JSON value that Kaggle scores: {id: [{"attempt_1": grid, "attempt_2": grid}, ...]}."""
        return {
            task_id: [dict(zip(ATTEMPTS, map(grid_to_lists, pair), strict=True)) for pair in entries]
            for task_id, entries in self.attempts.items()
        }

    def save(self) -> None:
        """Replace the file on disk atomically."""
        write_json(self.path, self.to_json())
        self.saved = True


def read_submission(path: Path, challenges: Challenges) -> dict[str, list[Attempts]]:
    """Read a submission and check it against its test file, as strictly as the competition does.

    Raises:
        DataError: naming the first id, entry or attempt that is missing, surplus or not a grid.
    """
    value, repeated = read_json_with_repeats(path)
    if not isinstance(value, dict):
        raise DataError(f"{path}: a submission is a JSON object of task ids")
    if has_byte_order_mark(path):
        raise DataError(f"{path}: begins with a byte order mark, with which JSON readers refuse it; save it as UTF-8 without one")
    if repeated:
        raise DataError(f"{path}: task {short_id(min(repeated))}: the task, or a key in it, is given twice; keep one")
    missing = [task_id for task_id in challenges.test_counts if task_id not in value]
    surplus = [task_id for task_id in value if task_id not in challenges.test_counts]
    if missing or surplus:
        first = f"first missing {missing[0]}" if missing else f"first surplus {surplus[0]}"
        raise DataError(f"{path}: {len(missing)} ids missing, {len(surplus)} not in the test file; {first}")
    attempts: dict[str, list[Attempts]] = {}
    for task_id, count in challenges.test_counts.items():
        entries = value[task_id]
        # The count of a malformed task is a guess, so that sample_submission may require another number of entries.
        if not isinstance(entries, list) or not entries or (len(entries) != count and task_id not in challenges.errors):
            found = len(entries) if isinstance(entries, list) else "no list of"
            raise DataError(f"{path}: task {task_id}: {found} entries for {count} test inputs")
        attempts[task_id] = []
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict) or not set(ATTEMPTS) <= set(entry):
                raise DataError(f"{path}: task {task_id}: entry {i} must hold {' and '.join(ATTEMPTS)}")
            first_grid, second = (make_grid(entry[key], f"{path.name}: task {task_id}: entry {i}: {key}") for key in ATTEMPTS)
            attempts[task_id].append((first_grid, second))
    return attempts

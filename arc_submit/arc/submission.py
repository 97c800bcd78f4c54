"""The submission: complete and valid for its test file from the first second to the last.

It is written at the start with fallbacks and replaced atomically as answers come, so that whatever happens to a run, the file on
disk can be scored. Knows nothing about where attempts come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from arc_submit.arc.datasets import Challenges, write_json
from arc_submit.arc.grid import Grid, frozen, grid_to_lists, make_grid, same_grid
from arc_submit.arc.output_shape import largest_output_shape
from arc_submit.arc.task import Task
from arc_submit.errors import DataError

ATTEMPTS = ("attempt_1", "attempt_2")
Attempts = tuple[Grid, Grid]


def fallback_attempts(task: Task | None, test: int) -> Attempts:
    """Two different attempts that need no solver: the test input, and a plain grid of the size the output should have.

    A task that could not be read (None) gets two single cells.
    """
    black, blue = frozen(np.zeros((1, 1))), frozen(np.ones((1, 1)))
    if task is None:
        return black, blue
    grid = task.tests[test]
    counts = np.bincount(np.concatenate([pair.output.ravel() for pair in task.train]), minlength=10)
    shape, _ = largest_output_shape(task, grid)
    plain = frozen(np.full(shape, int(counts.argmax())))
    return grid, black if same_grid(plain, grid) and not same_grid(black, grid) else blue if same_grid(plain, grid) else plain


class Submission:
    """Attempts for every test input of a challenges file, kept complete in memory and on disk.

    Args:
        challenges: the test file; its ids and counts fix what must be there.
        path: where submission.json lies.
        counts: entries by id in the order wanted (from sample_submission); the challenges file's own order and counts by default.

    Raises:
        DataError: where `counts` asks for other ids than the challenges file has.
    """

    def __init__(self, challenges: Challenges, path: Path, counts: Mapping[str, int] | None = None):
        self.path = path
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
        """Put one or two attempts, best first, before the fallbacks of a test input; the two stay different."""
        kept: list[Grid] = []
        for grid in [*attempts, *self.attempts[task_id][test]]:
            if not any(same_grid(grid, other) for other in kept):
                kept.append(grid)
        self.attempts[task_id][test] = (kept[0], kept[1])

    def to_json(self) -> dict[str, list[dict[str, list[list[int]]]]]:
        """The value Kaggle scores: {id: [{"attempt_1": grid, "attempt_2": grid}, ...]}."""
        return {
            task_id: [dict(zip(ATTEMPTS, map(grid_to_lists, pair), strict=True)) for pair in entries]
            for task_id, entries in self.attempts.items()
        }

    def save(self) -> None:
        """Replace the file on disk atomically."""
        write_json(self.path, self.to_json())


def read_submission(path: Path, challenges: Challenges) -> dict[str, list[Attempts]]:
    """Read a submission and hold it against its test file, as strictly as the competition does.

    Raises:
        DataError: naming the first id, entry or attempt that is missing, surplus or no grid.
    """
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: a submission is a JSON object of task ids")
    missing = [task_id for task_id in challenges.test_counts if task_id not in value]
    surplus = [task_id for task_id in value if task_id not in challenges.test_counts]
    if missing or surplus:
        first = f"first missing {missing[0]}" if missing else f"first surplus {surplus[0]}"
        raise DataError(f"{path}: {len(missing)} ids missing, {len(surplus)} not in the test file; {first}")
    attempts: dict[str, list[Attempts]] = {}
    for task_id, count in challenges.test_counts.items():
        entries = value[task_id]
        # How many test inputs a task set aside has is a guess, so sample_submission may have asked for another number of entries.
        if not isinstance(entries, list) or not entries or (len(entries) != count and task_id not in challenges.broken):
            found = len(entries) if isinstance(entries, list) else "no list of"
            raise DataError(f"{path}: task {task_id}: {found} entries for {count} test inputs")
        attempts[task_id] = []
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict) or not set(ATTEMPTS) <= set(entry):
                raise DataError(f"{path}: task {task_id}: entry {i} must hold {' and '.join(ATTEMPTS)}")
            first_grid, second = (make_grid(entry[key], f"{path.name}: task {task_id}: entry {i}: {key}") for key in ATTEMPTS)
            attempts[task_id].append((first_grid, second))
    return attempts

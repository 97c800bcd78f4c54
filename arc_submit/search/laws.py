"""Laws: what the input and the output have in common in every train pair, so that an answer that breaks a law is seldom right.

A law is a value of one pair, such as "the number of colours that the output loses". It holds for a task where its value is the same in all
train pairs. A strict law is broken by at most one right output in a hundred, a loose one by up to five (benchmarks/laws.py). Most laws name
no colour, so that they hold where a test has other colours. This module does not know how answers are found or ranked.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid
from arc_submit.arc.task import Task
from arc_submit.search.grid_tools import commonest_colour, label_objects
from arc_submit.search.primitives.splitting import label
from arc_submit.search.store import Array


@dataclass(frozen=True)
class Comparison:
    """An input with an output, both int8 (h, w), and what several laws need of them; the background is the input's commonest colour."""

    input: Grid
    output: Grid

    @cached_property
    def before(self) -> Array:
        """The number of the input's cells of each colour, int64 (10,)."""
        return np.bincount(self.input.ravel(), minlength=COLOURS)

    @cached_property
    def after(self) -> Array:
        """The number of the output's cells of each colour, int64 (10,)."""
        return np.bincount(self.output.ravel(), minlength=COLOURS)

    @cached_property
    def background(self) -> int:
        return commonest_colour(self.input)

    @cached_property
    def changed(self) -> Array | None:
        """Boolean (h, w), the cells that change; None where the sizes differ."""
        return self.input != self.output if self.input.shape == self.output.shape else None

    @cached_property
    def painted_more(self) -> int:
        """How many more cells of the output than of the input do not have the background's colour."""
        return int((self.output.size - self.after[self.background]) - (self.input.size - self.before[self.background]))

    @cached_property
    def objects(self) -> int:
        """The number of the output's objects of one colour."""
        return label_objects(self.output, self.background, True, True)[1]


Law = Callable[[Comparison], Hashable]  # None where the law does not hold for the pair


def _fact(test: Callable[[Comparison], object]) -> Law:
    return lambda pair: bool(test(pair)) or None


def _of_changes(value: Callable[[Comparison, Array], Hashable]) -> Law:
    """A law on the cells that change, only where the sizes are equal."""
    return lambda pair: None if pair.changed is None else value(pair, pair.changed)


def _of_other_colours(pair: Comparison, counts: Array) -> Array:
    return np.delete(counts, pair.background)


STRICT: dict[str, Law] = {
    "same size": _fact(lambda p: p.changed is not None),
    "the new colours": lambda p: tuple(np.flatnonzero((p.after > 0) & (p.before == 0)).tolist()),
    "number of new colours": lambda p: int(((p.after > 0) & (p.before == 0)).sum()),
    "loses no colour": _fact(lambda p: (p.after[p.before > 0] > 0).all()),
    "no colour has more cells": _fact(lambda p: (p.after <= p.before).all()),
    "no painted colour has fewer cells": _fact(lambda p: (_of_other_colours(p, p.after) >= _of_other_colours(p, p.before)).all()),
    "same colour counts": _fact(lambda p: (p.after == p.before).all()),
    "as many painted cells": _fact(lambda p: p.painted_more == 0),
    "more painted cells": _fact(lambda p: p.painted_more > 0),
    "fewer painted cells": _fact(lambda p: p.painted_more < 0),
    "keeps the background's cells": _of_changes(lambda p, changed: not changed[p.input == p.background].any() or None),
    "keeps the painted cells": _of_changes(lambda p, changed: not changed[p.input != p.background].any() or None),
    "erases nothing": _of_changes(lambda p, changed: bool((p.output[changed] != p.background).all()) or None),
    "part of the input": _fact(lambda p: _is_part(p.output, p.input)),
    "contains the input": _fact(lambda p: _is_part(p.input, p.output)),
}
LOOSE: dict[str, Law] = {
    "number of colours": lambda p: int((p.after > 0).sum()),
    "number of colours more": lambda p: int((p.after > 0).sum() - (p.before > 0).sum()),
    "number of lost colours": lambda p: int(((p.after == 0) & (p.before > 0)).sum()),
    "same background": _fact(lambda p: commonest_colour(p.output) == p.background),
    "no background": _fact(lambda p: p.after[p.background] == 0),
    "number of objects": lambda p: p.objects,
    "number of objects more": lambda p: p.objects - label_objects(p.input, p.background, True, True)[1],
    "number of painted colours": _of_changes(lambda p, changed: len(np.unique(p.output[changed]))),
    "number of overpainted colours": _of_changes(lambda p, changed: len(np.unique(p.input[changed]))),
    "number of changed places": _of_changes(lambda p, changed: label(changed.astype(np.int8), True, True)[1]),
}


@dataclass(frozen=True)
class Laws:
    """The laws that hold for a task, with the value of each."""

    strict: dict[str, Hashable]
    loose: dict[str, Hashable]


def laws_of(task: Task) -> Laws:
    """The laws that hold for every train pair."""
    pairs = [Comparison(pair.input, pair.output) for pair in task.train]
    return Laws(_holding(STRICT, pairs), _holding(LOOSE, pairs))


def broken_laws(laws: Laws, test: Grid, answer: Grid) -> tuple[list[str], list[str]]:
    """The names of the strict and of the other laws that an answer to the test input `test` breaks."""
    pair = Comparison(test, answer)
    strict = [name for name, value in laws.strict.items() if STRICT[name](pair) != value]
    return strict, [name for name, value in laws.loose.items() if LOOSE[name](pair) != value]


def _holding(laws: dict[str, Law], pairs: Iterable[Comparison]) -> dict[str, Hashable]:
    first, *others = pairs
    values = {name: law(first) for name, law in laws.items()}
    return {name: value for name, value in values.items() if value is not None and all(laws[name](pair) == value for pair in others)}


def _is_part(part: Grid, whole: Grid) -> bool:
    """Whether a rectangle of `whole` has the cells of `part`."""
    if part.shape[0] > whole.shape[0] or part.shape[1] > whole.shape[1]:
        return False
    windows = np.lib.stride_tricks.sliding_window_view(whole, part.shape)
    return bool((windows == part).all(axis=(2, 3)).any())

"""How many tokens a task's prompts and training samples take, from the shapes of its grids alone.

A run plans the memory of each task by these figures. They are upper bounds over all views: a view may turn a grid on its side. Does not
know memory, or the cells of a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arc_submit.arc.grid import Grid, frozen
from arc_submit.arc.output_shape import largest_output_shape
from arc_submit.arc.task import Pair, Task

if TYPE_CHECKING:
    from arc_submit.language.prompt_tokenizer import PromptTokenizer

Shape = tuple[int, int]


@dataclass(frozen=True)
class Words:
    """What a prompt is made of.

    Attributes:
        grid: tokens of a grid of a shape, with what ends it.
        pair: tokens around the two grids of a train pair.
        ask: tokens around the test input and before the first pair.
        reason: where the figures come from.
    """

    grid: Callable[[Shape], int]
    pair: int
    ask: int
    reason: str


# A token for each cell and each row, and the marks of a chat.
ESTIMATED_WORDS = Words(lambda shape: shape[0] * (shape[1] + 1) + 2, 16, 48, "one token a cell and row, as Qwen's tokenizers write digits")


def words_of(tokenizer: PromptTokenizer) -> Words:
    """The words of a model's own prompts."""
    grid = frozen(np.zeros((1, 1)))
    pairs = [Pair(grid, grid)] * 3
    lengths = [len(tokenizer.prompt_ids(tokenizer.prompt.turns(pairs[:count], grid))) for count in (1, 2, 3)]
    cell = tokenizer.answer_length((1, 1))
    pair = max(0, lengths[2] - lengths[1] - 2 * cell)
    return Words(tokenizer.answer_length, pair, max(0, lengths[0] - pair - 3 * cell), "the model's own tokenizer")


@dataclass(frozen=True)
class TaskLengths:
    """Tokens of one task.

    Attributes:
        request: of the longest prompt with its answer, at most the limit of prompts.
        answer: of the longest answer.
        sample: of the longest training sample, at most the limit of samples.
        needed: of the longest prompt with its answer, without a limit.
    """

    task: str
    request: int
    answer: int
    sample: int
    needed: int


def lengths_of(task: Task, words: Words, prompt_limit: int, sample_limit: int) -> TaskLengths:
    """The tokens of a task."""

    def longest(grids: Sequence[Grid | Shape]) -> int:
        shapes = [one if isinstance(one, tuple) else (one.shape[0], one.shape[1]) for one in grids]
        return max(sum(map(words.grid, shapes)), sum(words.grid((width, height)) for height, width in shapes))

    shown: list[Grid | Shape] = [grid for pair in task.train for grid in (pair.input, pair.output)]
    words_alone = words.ask + len(task.train) * words.pair
    outputs = [largest_output_shape(task, grid)[0] for grid in task.tests]
    needed = words_alone + max(longest([*shown, grid, shape]) for grid, shape in zip(task.tests, outputs, strict=True))
    sample = words_alone + longest(shown)
    answer = max(longest([shape]) for shape in outputs)
    return TaskLengths(task.id, min(needed, prompt_limit), answer, min(sample, sample_limit), needed)

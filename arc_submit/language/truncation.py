"""Fitting: which train pairs of a task are shown, so that the prompt with its answer stays within max_seq_len.

Train pairs are taken in a random order and kept while they fit. A task of which not even one pair fits is named, so that a run can
say so at once and leave it to the sources that can take it. Knows nothing about models beyond their token limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.arc.output_shape import largest_output_shape
from arc_submit.arc.task import Task
from arc_submit.errors import ArcSubmitError
from arc_submit.language.prompt_tokenizer import PromptTokenizer


class PromptTooLongError(ArcSubmitError):
    """A task whose prompt with a single train pair is over the limit."""


@dataclass(frozen=True)
class FittedPrompt:
    """A prompt that fits.

    Attributes:
        ids: token ids of the prompt.
        kept: indices of the train pairs shown, in the task's order.
        answer_tokens: how many tokens the answer may take; with the prompt it stays within max_seq_len.
        reason: how the answer's bound was found.
    """

    ids: list[int]
    kept: tuple[int, ...]
    answer_tokens: int
    reason: str


def fit_prompt(writer: PromptTokenizer, task: Task, test: int, max_seq_len: int, rng: np.random.Generator) -> FittedPrompt:
    """The prompt for one test input with as many randomly chosen train pairs as fit.

    The answer is unknown, so room is kept for the largest grid that the train pairs make likely.

    Args:
        task: the task as the model shall see it (a view is applied beforehand).
        test: index of the test input.
        max_seq_len: tokens of the prompt and its answer together.
        rng: decides which pairs go first; the same state, the same prompt.

    Raises:
        PromptTooLongError: naming the task where not even one train pair fits.
    """
    grid = task.tests[test]
    shape, reason = largest_output_shape(task, grid)
    answer_tokens = writer.answer_length(shape)
    kept = _fitting_pairs(writer, task, grid, max_seq_len - answer_tokens, rng)
    if not kept:
        raise PromptTooLongError(f"no prompt smaller than {max_seq_len} tokens for task {task.id}")
    ids = writer.prompt_ids(writer.prompt.turns([task.train[i] for i in kept], grid))
    return FittedPrompt(ids, tuple(kept), answer_tokens, reason)


def fit_sample(
    writer: PromptTokenizer, task: Task, target: int, max_seq_len: int, rng: np.random.Generator
) -> tuple[list[int], int, tuple[int, ...]]:
    """A training sample made of a task's own train pairs: one is the question with its answer, the others are shown.

    Args:
        target: index of the train pair to ask about.

    Returns:
        Token ids with the answer and its end mark, the place where the answer begins, and the indices of the pairs shown.

    Raises:
        PromptTooLongError: naming the task where the question with its answer fits with no other pair beside it.
    """
    if len(task.train) == 1:
        raise PromptTooLongError(f"no sample for task {task.id}: its only train pair leaves no other to show beside it")
    question = task.train[target]
    others = Task(task.id, task.train[:target] + task.train[target + 1 :], (question.input,))
    answer_tokens = len(writer.sample_ids(writer.prompt.turns([], question.input), question.output)[0])
    answer_tokens -= len(writer.prompt_ids(writer.prompt.turns([], question.input)))
    kept = _fitting_pairs(writer, others, question.input, max_seq_len - answer_tokens, rng)
    if not kept:
        raise PromptTooLongError(f"no sample smaller than {max_seq_len} tokens for train pair {target} of task {task.id}")
    ids, start = writer.sample_ids(writer.prompt.turns([others.train[i] for i in kept], question.input), question.output)
    return ids, start, tuple(i if i < target else i + 1 for i in kept)


def smallest_prompt(writer: PromptTokenizer, task: Task, test: int) -> int:
    """Tokens of the prompt with the one train pair that makes it shortest, its answer included."""
    shape, _ = largest_output_shape(task, task.tests[test])
    lengths = [len(writer.prompt_ids(writer.prompt.turns([pair], task.tests[test]))) for pair in task.train]
    return min(lengths) + writer.answer_length(shape)


def _fitting_pairs(writer: PromptTokenizer, task: Task, test: Grid, limit: int, rng: np.random.Generator) -> Sequence[int]:
    """Indices, ascending, of train pairs that fit together with the test input in `limit` tokens."""
    order = rng.permutation(len(task.train)).tolist()

    def length(chosen: list[int]) -> int:
        return len(writer.prompt_ids(writer.prompt.turns([task.train[i] for i in sorted(chosen)], test)))

    if order and length(order) <= limit:
        return sorted(order)
    kept: list[int] = []
    for i in order:
        if length([*kept, i]) <= limit:
            kept.append(i)
    return sorted(kept)

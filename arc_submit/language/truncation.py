"""Truncation of prompts: the choice of train pairs with which a prompt and its answer stay within max_seq_len.

Train pairs are taken in random order as long as they fit. A task of which no single pair fits raises an error that names it, so that a run
can report it at once and leave it to other sources. Does not know models beyond their token limit.
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
    """A task whose prompt exceeds the limit even with a single train pair."""


@dataclass(frozen=True)
class FittedPrompt:
    """A prompt that fits.

    Attributes:
        ids: token ids of the prompt.
        train_indices: the train pairs in the prompt, in the task's order.
        answer_tokens: limit of the answer's tokens; with the prompt they stay within max_seq_len.
        reason: of the limit.
    """

    ids: list[int]
    train_indices: tuple[int, ...]
    answer_tokens: int
    reason: str


def fit_prompt(tokenizer: PromptTokenizer, task: Task, test: int, max_seq_len: int, rng: np.random.Generator) -> FittedPrompt:
    """The prompt for one test input with as many randomly chosen train pairs as fit.

    The answer is unknown, so space is reserved for the largest grid that the train pairs suggest.

    Args:
        task: with its view applied.
        test: index of the test input.
        max_seq_len: tokens of the prompt and its answer together.
        rng: decides the order of the pairs; the same state gives the same prompt.

    Raises:
        PromptTooLongError: naming the task where no single train pair fits.
    """
    grid = task.tests[test]
    shape, reason = largest_output_shape(task, grid)
    answer_tokens = tokenizer.answer_length(shape)
    chosen = _fitting_pairs(tokenizer, task, grid, max_seq_len - answer_tokens, rng)
    if not chosen:
        raise PromptTooLongError(f"no prompt smaller than {max_seq_len} tokens for task {task.id}")
    ids = tokenizer.prompt_ids(tokenizer.prompt.turns([task.train[i] for i in chosen], grid))
    return FittedPrompt(ids, tuple(chosen), answer_tokens, reason)


def fit_sample(
    tokenizer: PromptTokenizer, task: Task, target: int, max_seq_len: int, rng: np.random.Generator
) -> tuple[list[int], int, tuple[int, ...]]:
    """A training sample from a task's own train pairs: one is the question with its answer, the others are its train pairs.

    Args:
        target: index of the train pair that is the question.

    Returns:
        Token ids with the answer and its end token, the position at which the answer begins, and the indices of the other pairs.

    Raises:
        PromptTooLongError: naming the task where the question with its answer fits with no single other pair.
    """
    if len(task.train) == 1:
        raise PromptTooLongError(f"no sample for task {task.id}: its only train pair leaves no other to show beside it")
    question = task.train[target]
    others = Task(task.id, task.train[:target] + task.train[target + 1 :], (question.input,))
    chosen = _fitting_pairs(tokenizer, others, question.input, max_seq_len - len(tokenizer.answer_ids(question.output)), rng)
    if not chosen:
        raise PromptTooLongError(f"no sample smaller than {max_seq_len} tokens for train pair {target} of task {task.id}")
    ids, start = tokenizer.sample_ids(tokenizer.prompt.turns([others.train[i] for i in chosen], question.input), question.output)
    return ids, start, tuple(i if i < target else i + 1 for i in chosen)


def _fitting_pairs(tokenizer: PromptTokenizer, task: Task, test: Grid, limit: int, rng: np.random.Generator) -> Sequence[int]:
    """Indices, ascending, of train pairs that fit in `limit` tokens together with the test input."""
    order = rng.permutation(len(task.train)).tolist()

    def length(indices: list[int]) -> int:
        return len(tokenizer.prompt_ids(tokenizer.prompt.turns([task.train[i] for i in sorted(indices)], test)))

    if order and length(order) <= limit:
        return sorted(order)
    chosen: list[int] = []
    for i in order:
        if length([*chosen, i]) <= limit:
            chosen.append(i)
    return sorted(chosen)

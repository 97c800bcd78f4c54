"""Training samples of a task: one train pair left out and asked for, the others shown, under a random view and in a random order.

A sample is a function of the seed, the task's id and the sample's number, so an adapter does not depend on what else runs. Does not know
models.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arc_submit.arc.task import Task
from arc_submit.arc.views import random_view
from arc_submit.errors import ConfigError
from arc_submit.finetune.settings import OF_SHOWN_GRIDS, TTFTSettings
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import is_grid
from arc_submit.language.truncation import PromptTooLongError, fit_sample

_VIEW_TRIES = 16  # views that are drawn for a sample until a pair fits; there are eight orientations


@dataclass(frozen=True)
class Sample:
    """Token ids, and the positions whose token is in the loss (never position 0)."""

    ids: list[int]
    positions: list[int]


@dataclass(frozen=True)
class TaskSampler:
    """Draws training samples: sample n of a task is a function of these fields, the task and n.

    Attributes:
        max_seq_len: tokens of a sample, answer included.

    Raises:
        ConfigError: where the tokenizer does not show which tokens are to be learned.
    """

    tokenizer: PromptTokenizer
    settings: TTFTSettings
    max_seq_len: int
    seed: int

    def __post_init__(self) -> None:
        loss_on = self.settings.loss_on
        if loss_on in OF_SHOWN_GRIDS and not self.tokenizer.reuse:
            reason = self.tokenizer.reason
            raise ConfigError(f"loss_on {loss_on}: the positions of outputs are not known ({reason}); choose answer or all")

    @property
    def samples_per_step(self) -> int:
        """Samples of one optimizer step."""
        return self.settings.batch_size * self.settings.accumulation

    def check(self, task: Task) -> list[str]:
        """Lines about train pairs that are too large to be an answer within max_seq_len.

        Raises:
            PromptTooLongError: where all are.
        """
        too_large, reason = [], None
        for target in range(len(task.train)):
            try:
                fit_sample(self.tokenizer, task, target, self.max_seq_len, np.random.default_rng(0))
            except PromptTooLongError as error:
                too_large.append(str(target))
                reason = error
        if reason is not None and len(too_large) == len(task.train):
            raise reason
        return [f"task {task.id}: train pairs {', '.join(too_large)} are too large to be answers"] if too_large else []

    def draw(self, task: Task, number: int) -> Sample:
        """The task's sample of that number.

        A grid that is turned on its side may have more rows and so more tokens: where no pair fits under a view, another is drawn.

        Raises:
            PromptTooLongError: where no pair fits under any of the drawn views.
        """
        rng = np.random.default_rng([self.seed, zlib.crc32(task.id.encode()), number])
        reason: PromptTooLongError | None = None
        for _ in range(_VIEW_TRIES):
            seen = random_view(rng, len(task.train), self.settings.keep_background).apply_task(task)
            for target in rng.permutation(len(task.train)).tolist():
                try:
                    ids, start, shown = fit_sample(self.tokenizer, seen, target, self.max_seq_len, rng)
                except PromptTooLongError as error:
                    reason = error
                    continue
                return Sample(ids, self._positions(seen, target, shown, range(start, len(ids))))
        assert reason is not None
        raise reason

    def _positions(self, task: Task, target: int, shown: Sequence[int], answer: range) -> list[int]:
        """Positions in the loss of a sample that shows some pairs and whose answer is another pair's output."""
        if self.settings.loss_on == "answer":
            return list(answer)
        if self.settings.loss_on == "all":
            return list(range(1, answer.stop))
        turns = self.tokenizer.prompt.turns([task.train[i] for i in shown], task.train[target].input)
        grids = [part for turn in turns for part in turn.parts if is_grid(part)]
        replies = self.settings.loss_on == "replies"
        outputs = [task.train[i].output for i in (shown if replies else shown[1:])]
        spans = zip(grids, self.tokenizer.reply_spans(turns, replies), strict=True)
        learned = [range(*span) for grid, span in spans if any(grid is output for output in outputs)]
        return [position for span in (*learned, answer) for position in span]

"""The common warm-up: one fresh adapter learnt from the train pairs of all tasks together, from which each task's fine-tuning goes on.

A fresh adapter spends its first steps on what all tasks share, such as how answers are written; learnt once, the steps of every task go
into the task. Optional: for equal time it pays behind a hundred steps of each task alone (docs/results.md). Knows nothing about files or
workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from arc_submit.arc.task import Task
from arc_submit.base_model.lora import Adapter
from arc_submit.errors import ArcSubmitError
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.finetune.trainer import FinetuneResult, Sample, check_task, draw_sample, finetune_tasks
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.truncation import PromptTooLongError


def warm_up(
    adapter: Adapter,
    writer: PromptTokenizer,
    tasks: Sequence[Task],
    settings: TTFTSettings,
    max_seq_len: int,
    seed: int,
    samples: int,
    on_step: Callable[[int, float], None] | None = None,
    beat: Callable[[], None] | None = None,
    until: float | None = None,
) -> FinetuneResult:
    """Reset the adapter and train it on samples of all tasks that fit, tasks drawn anew for each step.

    Args:
        settings: as for one task, its steps being those of the warm-up.
        samples: of tasks drawn by chance in a step, rounded down to whole batches, one at least: with few, the adapter runs after each
            task in turn; with many, the steps are few.
        on_step, beat: as for one task.
        until: on the monotonic clock; what has been learnt by then is the warm-up, and a note says after how many steps.

    Raises:
        PromptTooLongError: where not one task gives a sample.
        FinetuneError: where the loss is no number.
    """
    fitting, reason = [], ""
    for task in tasks:
        try:
            check_task(writer, task, max_seq_len, settings)
            fitting.append(task)
        except PromptTooLongError as error:
            reason = str(error)
    if not fitting:
        raise PromptTooLongError(f"warm-up: {reason}")
    settings = replace(settings, accumulation=max(1, samples // settings.batch_size))
    count = settings.batch_size * settings.accumulation

    def draw(_: Task, step: int) -> list[Sample]:
        chosen = np.random.default_rng([seed, step]).integers(len(fitting), size=count)
        return [draw_sample(writer, fitting[i], settings, max_seq_len, seed, step * count + k) for k, i in enumerate(chosen)]

    report = None if on_step is None else lambda step, losses: on_step(step, losses[0])
    result = finetune_tasks(adapter, writer, fitting[:1], settings, max_seq_len, seed, report, beat, draw, until)[0]
    if isinstance(result, ArcSubmitError):
        raise result
    notes = [f"warm-up: {len(tasks) - len(fitting)} of {len(tasks)} tasks give no sample"] if len(fitting) < len(tasks) else []
    if len(result.losses) < settings.steps:
        notes.append(f"warm-up: its time was up after {len(result.losses)} of {settings.steps} steps, which stand")
    return replace(result, notes=notes)

"""One adapter for several tasks: the joint warm-up of all of them, and the adapters that groups of tasks share.

The joint warm-up takes what all tasks share, such as the form of an answer, out of each task's own steps
(docs/experiments/2026-11-28-joint-warmup.md measures its gain). Shared adapters take the place of those of single tasks. It does not know
files or workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from arc_submit.arc.task import Task
from arc_submit.base_model.lora import Adapter
from arc_submit.base_model.memory import TrainingPlan
from arc_submit.finetune.samples import Sample, TaskSampler
from arc_submit.finetune.trainer import FinetuneResult, Hooks, JointSamples, configured_plan, finetune_task
from arc_submit.language.truncation import PromptTooLongError

WARM_UP = "warm-up"  # in messages


def joint_warmup(
    adapter: Adapter,
    sampler: TaskSampler,
    tasks: Sequence[Task],
    samples_per_step: int,
    hooks: Hooks | None = None,
    plan: TrainingPlan | None = None,
) -> FinetuneResult:
    """`finetune_tasks` on all tasks, with steps of another number of samples.

    Args:
        sampler: as for one task; its settings' steps are those of the warm-up.
        samples_per_step: rounded down to whole batches, at least one. With few, the adapter follows each task in turn.
    """
    batches = max(1, samples_per_step // sampler.settings.batch_size)
    sampler = replace(sampler, settings=replace(sampler.settings, accumulation=batches))
    return finetune_tasks(adapter, sampler, tasks, WARM_UP, hooks, plan)


def finetune_tasks(
    adapter: Adapter,
    sampler: TaskSampler,
    tasks: Sequence[Task],
    name: str,
    hooks: Hooks | None = None,
    plan: TrainingPlan | None = None,
) -> FinetuneResult:
    """Reset the adapter and train it on samples of all tasks that fit, with new random tasks in each step.

    Args:
        sampler: as for one task.
        name: of the training, for messages.
        hooks, plan: as for one task; a note gives the number of steps before the deadline.

    Raises:
        PromptTooLongError: where no task gives a sample.
        FinetuneError: where the loss is not finite, or memory does not suffice for the cheapest plan.
    """
    plan = plan or configured_plan(sampler)
    count = sampler.samples_per_step

    @cache
    def fitting(max_seq_len: int) -> list[Task]:
        return _fitting(replace(sampler, max_seq_len=max_seq_len), tasks, name)

    def draw_step(sampler: TaskSampler, step: int) -> list[Sample]:
        drawn = fitting(sampler.max_seq_len)
        chosen = np.random.default_rng([sampler.seed, step]).integers(len(drawn), size=count)
        return [sampler.draw(drawn[i], step * count + k) for k, i in enumerate(chosen)]

    first = fitting(plan.tokens)
    result = finetune_task(adapter, sampler, first[0], hooks, JointSamples(name, draw_step), plan)
    notes = [note for note in result.notes if note.startswith(f"{name}: ")]
    if len(first) < len(tasks):
        notes.append(f"{name}: {len(tasks) - len(first)} of {len(tasks)} tasks give no sample")
    if len(result.losses) < sampler.settings.steps:
        notes.append(f"{name}: its time was up after {len(result.losses)} of {sampler.settings.steps} steps, whose result is used")
    return replace(result, notes=notes)


def _fitting(sampler: TaskSampler, tasks: Sequence[Task], name: str) -> list[Task]:
    """The tasks that give a sample."""
    fitting, reason = [], ""
    for task in tasks:
        try:
            sampler.check(task)
            fitting.append(task)
        except PromptTooLongError as error:
            reason = str(error)
    if not fitting:
        raise PromptTooLongError(f"{name}: {reason}")
    return fitting

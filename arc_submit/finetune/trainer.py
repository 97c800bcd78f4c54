"""Test-time fine-tuning: one low-rank adapter per task, trained on the task's own train pairs.

The base model is loaded once for all tasks; arc_submit.base_model.lora resets the adapter between them. Does not know files, workers or
budgets.

Leave-one-out fine-tuning at test time for ARC is from Akyurek et al. 2024 (arXiv 2411.07279).
"""

from __future__ import annotations

import contextlib
import math
import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch

from arc_submit.arc.task import Task
from arc_submit.base_model.checkpointing import checkpointed
from arc_submit.base_model.lora import Adapter, reset, without_layers
from arc_submit.base_model.memory import SHORTEST_SAMPLE, TrainingPlan
from arc_submit.base_model.out_of_memory import free_cached_memory, is_out_of_memory
from arc_submit.base_model.precision import TrainingPrecision, choose_training_precision, explain_not_finite
from arc_submit.errors import ArcSubmitError
from arc_submit.finetune.loss import MicroBatch, batch_loss, make_batches
from arc_submit.finetune.samples import Sample, TaskSampler
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.language.truncation import PromptTooLongError

_Made = TypeVar("_Made")


class FinetuneError(ArcSubmitError):
    """A fine-tuning without a usable adapter."""


@dataclass
class FinetuneResult:
    """Figures of one fine-tuning.

    Attributes:
        losses: mean loss over the tokens in the loss, by step, in nats.
        tokens: in all samples, without padding.
        learned_tokens: those of them that are in the loss.
        seconds: wall time.
        skipped: steps without an update, because scaled float16 gradients overflowed.
        notes: lines a user should see.
    """

    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    learned_tokens: int = 0
    seconds: float = 0.0
    skipped: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Hooks:
    """What the training loop calls, and when it ends.

    Attributes:
        on_step: called after every step with its number from 1 and its loss.
        on_pass: called after every forward and backward pass; a step may have many.
        deadline: on the monotonic clock; the first step that ends after it is the last.
        memory_came_back: called where a pass runs out of memory, once; whether the same pass may fit now, because another process held
            the memory.
    """

    on_step: Callable[[int, float], None] = lambda step, loss: None
    on_pass: Callable[[], None] = lambda: None
    deadline: float = math.inf
    memory_came_back: Callable[[], bool] = lambda: False


DrawStep = Callable[[TaskSampler, int], list[Sample]]  # the samples of a step, by its number from 0, within a sampler's limit of tokens


@dataclass(frozen=True)
class JointSamples:
    """What one adapter for several tasks is trained on.

    Attributes:
        name: of the training, for messages.
        draw: the samples of a step.
    """

    name: str
    draw: DrawStep


@dataclass(frozen=True)
class _Training:
    """What one fine-tuning keeps from step to step, whatever the plan of a step.

    Attributes:
        name: of what is trained, for messages.
        result: of the steps that are done.
    """

    adapter: Adapter
    settings: TTFTSettings
    name: str
    draw: DrawStep
    hooks: Hooks
    precision: TrainingPrecision
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    result: FinetuneResult


def finetune_task(
    adapter: Adapter,
    sampler: TaskSampler,
    task: Task,
    hooks: Hooks | None = None,
    joint: JointSamples | None = None,
    plan: TrainingPlan | None = None,
) -> FinetuneResult:
    """Reset the adapter and fine-tune it on one task.

    A step for which memory does not suffice is repeated with the next cheaper plan, under which the steps after it are computed too; a
    note says so. The repeated step has the result that it has where the plan holds from the start.

    Args:
        adapter: in its model; afterwards it holds the task's values.
        sampler: its seed is also that of fresh initial values.
        joint: the samples of several tasks, of which this is the first; None draws the task's own.
        plan: how steps are computed; None: as the sampler's settings say.

    Raises:
        PromptTooLongError: where the task gives no sample.
        FinetuneError: where the loss is not finite, or memory does not suffice for the cheapest plan; the adapter is then of no use.
    """
    started = time.monotonic()
    settings, device, count = sampler.settings, adapter.flat.device, sampler.samples_per_step
    plan = plan or configured_plan(sampler)
    planned = replace(sampler, max_seq_len=plan.tokens)
    # Joint samples are drawn in a way of their own, which has checked its tasks.
    result = FinetuneResult(notes=planned.check(task) if joint is None else [])
    reset(adapter, task_seed(sampler.seed, task))
    precision = choose_training_precision(device, settings.fast_cpu)

    def draw_own(sampler: TaskSampler, step: int) -> list[Sample]:
        return [sampler.draw(task, step * count + i) for i in range(count)]

    training = _Training(
        adapter,
        settings,
        f"task {task.id}" if joint is None else joint.name,
        draw_own if joint is None else joint.draw,
        hooks or Hooks(),
        precision,
        _make_optimizer(adapter, settings),
        torch.amp.GradScaler(device.type, enabled=precision.scale),
        result,
    )
    waited = False
    while too_long := _take_steps(training, planned, plan):
        _clear_failed_pass(adapter)
        if not waited and training.hooks.memory_came_back():
            waited = True
            result.notes.append(f"{training.name}: another process held memory at step {len(result.losses) + 1}, repeated without it")
            continue
        waited = True
        plan = _cheaper_plan(training, plan, too_long)
        planned = replace(sampler, max_seq_len=plan.tokens)
        if joint is None:
            _check_again(training, planned, task)
        training.hooks.on_pass()
    result.seconds = time.monotonic() - started
    if result.skipped:
        result.notes.append(f"{result.skipped} of {len(result.losses)} steps were skipped: float16 gradients overflowed")
    return result


def configured_plan(sampler: TaskSampler) -> TrainingPlan:
    """The plan that the sampler's settings ask for."""
    settings = sampler.settings
    return TrainingPlan(sampler.max_seq_len, settings.gradient_checkpointing, False, "as the settings say", settings.batch_size)


def with_limit(plan: TrainingPlan, sampler: TaskSampler) -> TrainingPlan:
    """A memory plan with the limit of samples that fine-tuning takes: the sampler's own where the plan shortens none."""
    if not plan.shortened:
        return replace(plan, tokens=sampler.max_seq_len)
    # With the shortest samples it is tried whatever the plan says: the formulas are upper bounds.
    return replace(plan, tokens=max(min(SHORTEST_SAMPLE, sampler.max_seq_len), plan.tokens))


def _clear_failed_pass(adapter: Adapter) -> None:
    """Free what a pass has left for which memory did not suffice, and the part of a gradient that it has added."""
    free_cached_memory(adapter.flat.device)
    assert adapter.flat.grad is not None
    adapter.flat.grad.zero_()


def _cheaper_plan(training: _Training, plan: TrainingPlan, longest: int) -> TrainingPlan:
    """The plan to repeat a step with whose longest sample has that many tokens."""
    place = f"{training.name}: out of memory at step {len(training.result.losses) + 1}"
    cheaper = plan.cheaper(longest)
    if cheaper is None:
        raise FinetuneError(
            f"{place} even with gradient checkpointing and one sample of {min(longest, plan.tokens)} tokens in a pass; lower lora_rank or "
            "take a smaller model"
        )
    training.result.notes.append(f"{place}, repeated {cheaper.reason}")
    print(training.result.notes[-1], flush=True)
    return cheaper


def _check_again(training: _Training, sampler: TaskSampler, task: Task) -> None:
    """Refuse a plan under which no sample fits; the reason is the memory."""
    try:
        sampler.check(task)
    except PromptTooLongError as error:
        raise FinetuneError(f"{training.result.notes[-1]}, which is too few: {error}") from None


def _make_optimizer(adapter: Adapter, settings: TTFTSettings) -> torch.optim.Optimizer:
    """AdamW with its moments, which a step of rate 0 without a gradient makes: the first step then takes as much memory as the others."""
    groups = adapter.parameter_groups(settings.learning_rate)
    optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=settings.weight_decay, fused=True)
    optimizer.step()
    for state in optimizer.state.values():
        state["step"].zero_()
    return optimizer


def _take_steps(training: _Training, sampler: TaskSampler, plan: TrainingPlan) -> int:
    """Take the steps that are not done; returns 0, or the tokens of the longest sample of a step for which memory does not suffice.

    Such a step has changed nothing but the gradient: weights, moments, loss scale and random numbers are as before it.
    """
    settings, result, hooks, adapter = training.settings, training.result, training.hooks, training.adapter
    device, scale = adapter.flat.device, training.scaler.get_scale()

    def make_step(step: int) -> tuple[list[Sample], list[MicroBatch]]:
        samples = training.draw(sampler, step)
        return samples, make_batches([samples], plan.rows, device)

    remaining = range(len(result.losses), settings.steps)
    with _training_mode(adapter.model, plan.checkpointing), contextlib.closing(_prefetch(make_step, remaining)) as steps:
        for step in remaining:
            random_numbers = _random_state(device)
            try:
                samples, batches = next(steps)
                mean_loss = _add_gradients(training, batches)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                batches = []
            if not batches:  # outside the handler: the error holds the tensors of the failed pass
                _restore_random_state(device, random_numbers)
                return max(len(sample.ids) for sample in training.draw(sampler, step))
            _update(training, step)
            before, scale = scale, training.scaler.get_scale()
            result.skipped += scale < before
            result.tokens += sum(len(sample.ids) for sample in samples)
            result.learned_tokens += sum(len(sample.positions) for sample in samples)
            loss = mean_loss.item()
            result.losses.append(loss)
            hooks.on_step(step + 1, loss)
            if not math.isfinite(loss):
                remedy = "lower learning_rate"
                with torch.no_grad(), without_layers(adapter):
                    if not all(batch_loss(adapter.model, batch, training.precision)[0].isfinite() for batch in batches):
                        remedy = f"the base alone gives it too: {explain_not_finite(adapter.model)}"
                raise FinetuneError(f"{training.name}: the loss is {loss} at step {step + 1}; {remedy}")
            if time.monotonic() >= hooks.deadline:
                break
    return 0


def _add_gradients(training: _Training, batches: Sequence[MicroBatch]) -> torch.Tensor:
    """Add the gradient of a step's passes; returns the mean loss, (1,), on the device."""
    mean_loss = torch.zeros(1, device=training.adapter.flat.device)
    for batch in batches:
        total, by_token = batch_loss(training.adapter.model, batch, training.precision)
        torch.autograd.backward(training.scaler.scale(total))
        # Adds one token after the other, as earlier versions did: the losses on disk are equal to the last digit.
        mean_loss.index_add_(0, torch.zeros_like(batch.labels), by_token * batch.weights)
        training.hooks.on_pass()
    return mean_loss


def _update(training: _Training, step: int) -> None:
    """Change the weights by the gradient, and clear it."""
    adapter, optimizer, scaler = training.adapter, training.optimizer, training.scaler
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * rate_factor(training.settings, step)
    scaler.unscale_(optimizer)
    _clip_gradient(adapter, training.settings.max_grad_norm)
    scaler.step(optimizer)
    scaler.update()
    adapter.mark_changed()
    assert adapter.flat.grad is not None
    adapter.flat.grad.zero_()


def _random_state(device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The states of the generators that a pass may draw from: the host's and the device's."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _restore_random_state(device: torch.device, state: tuple[torch.Tensor, torch.Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def task_seed(seed: int, task: Task) -> int:
    """A seed for one task, whatever else is in the run."""
    return seed * 1_000_003 + zlib.crc32(task.id.encode())


def rate_factor(settings: TTFTSettings, step: int) -> float:
    """Factor of the peak learning rate at a step, counted from 0: never 0, so that no step is lost."""
    warmup_steps = math.ceil(settings.warmup_ratio * settings.steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if settings.schedule == "constant":
        return 1.0
    left = (settings.steps - step) / (settings.steps - warmup_steps)
    return left if settings.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


@torch.no_grad()
def _clip_gradient(adapter: Adapter, max_norm: float) -> None:
    """Scale the gradient down to that norm; 0 leaves it."""
    assert adapter.flat.grad is not None
    if max_norm:
        adapter.flat.grad.mul_((max_norm / (adapter.flat.grad.norm() + 1e-6)).clamp_(max=1.0))


def _prefetch(make_step: Callable[[int], _Made], steps: Sequence[int], depth: int = 2) -> Generator[_Made, None, None]:
    """make_step(number) of all steps, made in another thread, a little ahead of their use."""
    with ThreadPoolExecutor(1, thread_name_prefix="samples") as pool:
        queue: deque[Future[_Made]] = deque(pool.submit(make_step, step) for step in steps[:depth])
        for number in range(len(steps)):
            made = queue.popleft().result()
            if number + depth < len(steps):
                queue.append(pool.submit(make_step, steps[number + depth]))
            yield made


@contextlib.contextmanager
def _training_mode(model: Any, checkpointing: bool) -> Iterator[None]:
    """Enable gradients, and checkpointing on request; afterwards the model is in evaluation mode again, for engines."""
    with torch.enable_grad(), checkpointed(model) if checkpointing else contextlib.nullcontext():
        yield

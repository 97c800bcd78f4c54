"""Test-time fine-tuning: one low-rank adapter per task, learnt from the task's own train pairs.

Every sample leaves one train pair out: the others are shown, the one is asked for, under a view and an order chosen afresh. The base
model is loaded once for all tasks (arc_submit.base_model.lora puts the adapter in and resets it); a task costs its forward and backward
passes and hardly more. Samples are a function of the seed, the task and their number alone, so an adapter does not depend on what
else runs. The loop takes one task or several at once (arc_submit.finetune.grouped). Knows nothing about files, workers or budgets.

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
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from arc_submit.arc.task import Task
from arc_submit.arc.views import random_view
from arc_submit.base_model.hidden_states import hidden_states_from
from arc_submit.base_model.lora import Adapter, reset
from arc_submit.base_model.precision import TrainingPrecision, choose_training_precision
from arc_submit.errors import ArcSubmitError, ConfigError
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import is_grid
from arc_submit.language.truncation import PromptTooLongError, fit_sample

_LOGITS = 1 << 26  # logits computed at a time: 256 MB in float32
_VIEWS_TRIED = 16  # of eight orientations


class FinetuneError(ArcSubmitError):
    """A task whose fine-tuning came to nothing."""


@dataclass
class FinetuneResult:
    """What came of one task's fine-tuning.

    Attributes:
        losses: mean loss over the learnt tokens of each step, in nats.
        tokens: of all samples, without padding.
        learnt: of these, how many were learnt.
        seconds: wall time; with several tasks in one batch, an even share of it.
        notes: lines a user should see.
    """

    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    learnt: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    """Token ids, and the places whose token is learnt (never place 0)."""

    ids: list[int]
    learnt: list[int]


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass: rows of equal number for each task, one task's after the other's, padded on the right.

    Attributes:
        ids: int64, (rows, length).
        first: no token is learnt from a place before it.
        places: int64, (learnt,): places from which a token is learnt, in the flattened rows from `first` on.
        labels: int64, (learnt,): that token.
        weights: float32, (learnt,): 1 / the number of tokens that its task learns in this step.
        owners: int64, (learnt,): which task it belongs to.
    """

    ids: torch.Tensor
    first: int
    places: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    owners: torch.Tensor


def finetune_task(
    adapter: Adapter,
    writer: PromptTokenizer,
    task: Task,
    settings: TTFTSettings,
    max_seq_len: int,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
    beat: Callable[[], None] | None = None,
) -> FinetuneResult:
    """Reset the adapter and fine-tune it on one task.

    Args:
        adapter: in its model; afterwards it holds the task's values.
        max_seq_len: tokens of a sample, answer included.
        seed: of views, samples and fresh initial values; with the task's id it decides everything.
        on_step: called after every step with its number from 1 and its loss.
        beat: called after every forward and backward pass, of which a step may have many.

    Raises:
        PromptTooLongError: where the task gives no sample.
        FinetuneError: where the loss is no number.
    """
    report = None if on_step is None else lambda step, losses: on_step(step, losses[0])
    result = finetune_tasks(adapter, writer, [task], settings, max_seq_len, seed, report, beat)[0]
    if isinstance(result, ArcSubmitError):
        raise result
    return result


def finetune_tasks(
    adapter: Adapter,
    writer: PromptTokenizer,
    tasks: Sequence[Task],
    settings: TTFTSettings,
    max_seq_len: int,
    seed: int,
    on_step: Callable[[int, list[float]], None] | None = None,
    beat: Callable[[], None] | None = None,
    draw: Callable[[Task, int], list[Sample]] | None = None,
    until: float | None = None,
) -> list[FinetuneResult | ArcSubmitError]:
    """Reset the adapters and fine-tune each on its own task, all in the same batches.

    Args:
        on_step, beat: as for one task, with the loss of each.
        draw: what a task's adapter learns from in the step of a number from 0; None draws samples of the task itself.
        until: on the monotonic clock; the first step that ends behind it is the last, and what was learnt stands.

    Returns a result for each task, or the reason why there is none; its adapter is then of no use.

    Raises:
        PromptTooLongError: where a task gives no sample; nothing has been done then.
        ConfigError: where there are not as many adapters as tasks.
    """
    if len(tasks) != adapter.tasks:
        raise ConfigError(f"{len(tasks)} tasks for {adapter.tasks} adapters: attach as many as are trained in one batch")
    started = time.monotonic()
    results: list[FinetuneResult] = [FinetuneResult(notes=check_task(writer, task, max_seq_len, settings)[1]) for task in tasks]
    failures: dict[int, ArcSubmitError] = {}
    for number, task in enumerate(tasks):
        reset(adapter, task_seed(seed, task), number)
    device = adapter.flat.device
    precision = choose_training_precision(device, settings.fast_cpu)
    optimizer = torch.optim.AdamW([adapter.flat], lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=precision.scale)

    def make(step: int) -> list[MicroBatch]:
        samples = [draw(task, step) if draw else _step_samples(writer, task, settings, max_seq_len, seed, step) for task in tasks]
        for result, drawn in zip(results, samples, strict=True):
            result.tokens += sum(len(sample.ids) for sample in drawn)
            result.learnt += sum(len(sample.learnt) for sample in drawn)
        return make_batches(samples, settings.batch_size, device)

    with _training_mode(adapter.model, settings.gradient_checkpointing), contextlib.closing(_ahead(make, settings.steps)) as steps:
        for step, batches in enumerate(steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate_factor(settings, step)
            losses = torch.zeros(len(tasks), device=device)
            for batch in batches:
                total, by_token = batch_loss(adapter.model, batch, precision)
                torch.autograd.backward(scaler.scale(total))
                losses.index_add_(0, batch.owners, by_token * batch.weights)
                if beat:
                    beat()
            scaler.unscale_(optimizer)
            clip_by_task(adapter, settings.max_grad_norm)
            scaler.step(optimizer)
            scaler.update()
            # The fused kernel does not say that it has written; the layers renew their effective weights when the version changes.
            torch.autograd.graph.increment_version(adapter.flat)
            assert adapter.flat.grad is not None
            adapter.flat.grad.zero_()
            values = losses.tolist()
            for number, value in enumerate(values):
                results[number].losses.append(value)
                if not math.isfinite(value) and number not in failures:
                    failures[number] = FinetuneError(
                        f"task {tasks[number].id}: the loss is {value} at step {step + 1}; lower learning_rate"
                    )
            if on_step:
                on_step(step + 1, values)
            if len(failures) == len(tasks) or (until is not None and time.monotonic() >= until):
                break
    for result in results:
        result.seconds = (time.monotonic() - started) / len(tasks)
    return [failures.get(number, result) for number, result in enumerate(results)]


def task_seed(seed: int, task: Task) -> int:
    """What a run's seed means for one task, whatever else is in the run."""
    return seed * 1_000_003 + zlib.crc32(task.id.encode())


def rate_factor(settings: TTFTSettings, step: int) -> float:
    """Factor of the peak learning rate at a step, counted from 0: never 0, so that no step is lost."""
    warm = math.ceil(settings.warmup_ratio * settings.steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    if settings.schedule == "constant":
        return 1.0
    left = (settings.steps - step) / (settings.steps - warm)
    return left if settings.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def check_loss(writer: PromptTokenizer, settings: TTFTSettings) -> None:
    """Refuse what the tokenizer does not allow: known before the first task.

    Raises:
        ConfigError: where it cannot be told which tokens are to be learnt.
    """
    if settings.loss_on == "outputs" and not writer.reuse:
        raise ConfigError(f"loss_on outputs: it cannot be told where the outputs lie ({writer.reason}); choose answer or all")


def check_task(writer: PromptTokenizer, task: Task, max_seq_len: int, settings: TTFTSettings) -> tuple[int, list[str]]:
    """Tokens of a task's longest sample, and lines on what of it cannot be asked about within max_seq_len.

    Raises:
        PromptTooLongError: where nothing can.
        ConfigError: as `check_loss`.
    """
    check_loss(writer, settings)
    misfits, longest, reason = [], 0, None
    for target in range(len(task.train)):
        try:
            longest = max(longest, len(fit_sample(writer, task, target, max_seq_len, np.random.default_rng(0))[0]))
        except PromptTooLongError as error:
            misfits.append(target)
            reason = error
    if not longest and reason is not None:
        raise reason
    return longest, [f"task {task.id}: train pairs {', '.join(map(str, misfits))} are too large to be asked about"] if misfits else []


def draw_sample(writer: PromptTokenizer, task: Task, settings: TTFTSettings, max_seq_len: int, seed: int, number: int) -> Sample:
    """The task's sample of that number: a view, an order and a train pair to ask about, a function of the arguments alone.

    Turned on its side a grid may have more rows and so more tokens: where nothing fits under a view, another one is drawn.

    Raises:
        PromptTooLongError: where no pair can be asked about under any of the views that were drawn.
    """
    rng = np.random.default_rng([seed, zlib.crc32(task.id.encode()), number])
    reason: PromptTooLongError | None = None
    for _ in range(_VIEWS_TRIED):
        seen = random_view(rng, len(task.train), settings.keep_background).apply_task(task)
        for target in rng.permutation(len(task.train)).tolist():
            try:
                ids, start, shown = fit_sample(writer, seen, target, max_seq_len, rng)
            except PromptTooLongError as error:
                reason = error
                continue
            return Sample(ids, _learnt_places(writer, seen, target, shown, settings.loss_on, start, len(ids)))
    assert reason is not None
    raise reason


def _learnt_places(
    writer: PromptTokenizer, task: Task, target: int, shown: Sequence[int], loss_on: str, start: int, length: int
) -> list[int]:
    """Places whose token is learnt in a sample that asks for one pair of a task and shows others."""
    answer = list(range(start, length))
    if loss_on == "answer":
        return answer
    if loss_on == "all":
        return list(range(1, length))
    turns = writer.prompt.turns([task.train[i] for i in shown], task.train[target].input)
    grids = [part for turn in turns for part in turn.parts if is_grid(part)]
    later = [task.train[i].output for i in shown[1:]]
    spans = [span for grid, span in zip(grids, writer.grid_spans(turns), strict=True) if any(grid is output for output in later)]
    return [place for first, behind in spans for place in range(first, behind + 1)] + answer  # the token behind it says that it ends


def make_batches(samples: Sequence[Sequence[Sample]], batch_size: int, device: torch.device) -> list[MicroBatch]:
    """The forward passes of one step from each task's samples; every task has the same number of them."""
    totals = [sum(len(sample.learnt) for sample in drawn) for drawn in samples]
    batches = []
    for start in range(0, len(samples[0]), batch_size):
        rows = [(owner, sample) for owner, drawn in enumerate(samples) for sample in drawn[start : start + batch_size]]
        length = max(len(sample.ids) for _, sample in rows)
        first = min(sample.learnt[0] - 1 for _, sample in rows)
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        places, labels, weights, owners = [], [], [], []
        for row, (owner, sample) in enumerate(rows):
            ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
            places += [row * (length - first) + place - 1 - first for place in sample.learnt]
            labels += [sample.ids[place] for place in sample.learnt]
            weights += [1 / totals[owner]] * len(sample.learnt)
            owners += [owner] * len(sample.learnt)
        learnt = (torch.tensor(places), torch.tensor(labels), torch.tensor(weights), torch.tensor(owners))
        batches.append(MicroBatch(ids.to(device), first, *(tensor.to(device) for tensor in learnt)))
    return batches


def batch_loss(model: Any, batch: MicroBatch, precision: TrainingPrecision) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted sum of the loss over the learnt places, with its gradient, and the loss at each of them, (learnt,).

    No mask is needed: attention is causal, so what is padded on the right is never seen by what is learnt.
    """
    with torch.autocast(batch.ids.device.type, dtype=precision.autocast or torch.bfloat16, enabled=precision.autocast is not None):
        hidden = hidden_states_from(model, batch.ids, batch.first)
        picked = hidden.flatten(0, 1)[batch.places]
        total, by_token = _FrozenHeadLoss.apply(picked, batch.labels, batch.weights, model.lm_head)  # type: ignore[no-untyped-call]
    return total, by_token


class _FrozenHeadLoss(torch.autograd.Function):
    """Cross-entropy after a frozen output layer, a piece of the places at a time.

    The layer has no gradient of its own, so that of the hidden states is found on the way and neither the logits nor their gradients
    are kept: with 152k tokens in the vocabulary they would be the largest thing in memory. The idea is from Liger Kernel (2410.10989).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, head: torch.nn.Linear
    ) -> tuple[torch.Tensor, torch.Tensor]:
        gradient = torch.empty_like(hidden)
        losses = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        pieces = max(1, _LOGITS // head.out_features)
        for start in range(0, len(labels), pieces):
            part = slice(start, start + pieces)
            piece, label, loss, grad = hidden[part], labels[part], losses[part], gradient[part]
            logprobs = head(piece).float().log_softmax(-1)
            loss.copy_(-logprobs.gather(1, label[:, None])[:, 0])
            # Not weighted yet: in float16 a small weight would make small probabilities vanish.
            step = logprobs.exp_().scatter_add_(1, label[:, None], torch.full_like(loss, -1)[:, None])
            grad.copy_(step.to(head.weight.dtype) @ head.weight)
        ctx.save_for_backward(gradient, weights)
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        gradient, weights = ctx.saved_tensors
        return (gradient.float() * (weights * grad)[:, None]).to(gradient.dtype), None, None, None


@torch.no_grad()
def clip_by_task(adapter: Adapter, longest: float) -> None:
    """Shorten each task's gradient, apart from the others', to that length; 0 leaves them as they are."""
    assert adapter.flat.grad is not None
    if longest:
        norms = adapter.flat.grad.norm(dim=1, keepdim=True)
        adapter.flat.grad.mul_((longest / (norms + 1e-6)).clamp_(max=1.0))


def _step_samples(writer: PromptTokenizer, task: Task, settings: TTFTSettings, max_seq_len: int, seed: int, step: int) -> list[Sample]:
    count = settings.batch_size * settings.accumulation
    return [draw_sample(writer, task, settings, max_seq_len, seed, step * count + i) for i in range(count)]


def _ahead(make: Callable[[int], list[MicroBatch]], count: int, depth: int = 2) -> Generator[list[MicroBatch], None, None]:
    """make(0), make(1), ... made in another thread, a little ahead of their use."""
    with ThreadPoolExecutor(1, thread_name_prefix="samples") as pool:
        waiting: deque[Future[list[MicroBatch]]] = deque(pool.submit(make, i) for i in range(min(depth, count)))
        for number in range(count):
            ready = waiting.popleft().result()
            if number + depth < count:
                waiting.append(pool.submit(make, number + depth))
            yield ready


@contextlib.contextmanager
def _training_mode(model: Any, checkpointing: bool) -> Iterator[None]:
    """Gradients on, and checkpointing where asked; afterwards the model is in evaluation mode again, as engines want it."""
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()  # transformers checkpoints in this mode only
    try:
        with torch.enable_grad():
            yield
    finally:
        if checkpointing:
            model.gradient_checkpointing_disable()
        model.eval()

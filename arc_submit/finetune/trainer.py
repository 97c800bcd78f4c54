"""Test-time fine-tuning: one low-rank adapter per task, trained on the task's own train pairs.

Every sample leaves one train pair out: the others are shown and its output is the answer, under a random view and in a random order.
The base model is loaded once for all tasks; arc_submit.base_model.lora resets the adapter between them. A sample is a function of the
seed, the task's id and the sample's number, so an adapter does not depend on what else runs. Does not know files, workers or budgets.

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

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint as recompute

from arc_submit.arc.task import Task
from arc_submit.arc.views import random_view
from arc_submit.base_model.checkpointing import checkpointed
from arc_submit.base_model.hidden_states import hidden_states_from
from arc_submit.base_model.lora import Adapter, reset, without_layers
from arc_submit.base_model.lora_layers import LoraLinear
from arc_submit.base_model.memory import SHORTEST_SAMPLE, TrainingPlan
from arc_submit.base_model.out_of_memory import free_cached_memory, is_out_of_memory
from arc_submit.base_model.output_head import OutputHead, output_head
from arc_submit.base_model.parity import Probe, probing
from arc_submit.base_model.precision import TrainingPrecision, choose_training_precision, explain_not_finite
from arc_submit.errors import ArcSubmitError, ConfigError
from arc_submit.finetune.settings import OF_SHOWN_GRIDS, TTFTSettings
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import is_grid
from arc_submit.language.truncation import PromptTooLongError, fit_sample

_LOGITS = 1 << 26  # logits in memory at a time: 256 MB in float32
_Made = TypeVar("_Made")
_VIEW_TRIES = 16  # views that are drawn for a sample until a pair fits; there are eight orientations


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
class Sample:
    """Token ids, and the positions whose token is in the loss (never position 0)."""

    ids: list[int]
    positions: list[int]


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass, its rows padded on the right.

    Attributes:
        ids: int64, (rows, length).
        first: no token is predicted from a position before it.
        positions: int64, (predicted,): positions that a token is predicted from, in the flattened rows from `first` on.
        labels: int64, (predicted,): that token.
        weights: float32, (predicted,): of its loss.
    """

    ids: torch.Tensor
    first: int
    positions: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor


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


def make_batches(steps: Sequence[Sequence[Sample]], batch_size: int, device: torch.device) -> list[MicroBatch]:
    """The forward passes of optimizer steps, one after the other, from each step's samples; a step's weights sum to 1."""
    batches = []
    for samples in steps:
        total = sum(len(sample.positions) for sample in samples)
        for start in range(0, len(samples), batch_size):
            rows = samples[start : start + batch_size]
            length = max(len(sample.ids) for sample in rows)
            first = min(sample.positions[0] - 1 for sample in rows)
            ids = torch.zeros(len(rows), length, dtype=torch.long)
            positions, labels = [], []
            for row, sample in enumerate(rows):
                ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
                # The token at a position is predicted from the position before it.
                positions += [row * (length - first) + position - 1 - first for position in sample.positions]
                labels += [sample.ids[position] for position in sample.positions]
            predicted = (torch.tensor(positions), torch.tensor(labels), torch.full((len(labels),), 1 / total))
            batches.append(MicroBatch(ids.to(device), first, *(tensor.to(device) for tensor in predicted)))
    return batches


def batch_loss(model: Any, batch: MicroBatch, precision: TrainingPrecision) -> tuple[torch.Tensor, torch.Tensor]:
    """The weighted sum of the loss, with its gradient, and the loss of each predicted token, (predicted,).

    No mask is needed: attention is causal, so no predicted token sees the padding on the right.
    """
    head = output_head(model)
    if isinstance(head.linear, LoraLinear):
        return full_loss(model, batch, precision)
    with _autocast(batch.ids.device, precision):
        hidden = hidden_states_from(model, batch.ids, batch.first).flatten(0, 1)[batch.positions]
        total, by_token = _FrozenHeadLoss.apply(hidden, batch.labels, batch.weights, head)  # type: ignore[no-untyped-call]
    return total, by_token


def full_loss(model: Any, batch: MicroBatch, precision: TrainingPrecision) -> tuple[torch.Tensor, torch.Tensor]:
    """As `batch_loss`, with gradients of the output layer; large logits are computed again in the backward pass."""
    head = output_head(model)

    def cross_entropy(hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(head(hidden).float(), labels, reduction="none")

    with _autocast(batch.ids.device, precision):
        hidden = hidden_states_from(model, batch.ids, batch.first).flatten(0, 1)[batch.positions]
        count = max(1, _LOGITS // head.linear.out_features)
        if len(hidden) <= count:
            by_token = cross_entropy(hidden, batch.labels)
        else:
            pieces = zip(torch.split(hidden, count), torch.split(batch.labels, count), strict=True)
            by_token = torch.cat([recompute(cross_entropy, *piece, use_reentrant=False) for piece in pieces])
    return (by_token * batch.weights).sum(), by_token.detach()


def _autocast(device: torch.device, precision: TrainingPrecision) -> Any:
    return torch.autocast(device.type, dtype=precision.autocast or torch.bfloat16, enabled=precision.autocast is not None)


Loss = Callable[[Any, MicroBatch, TrainingPrecision], tuple[torch.Tensor, torch.Tensor]]


@torch.no_grad()
def check_loss(model: Any, precision: TrainingPrecision, loss: Loss = batch_loss) -> None:
    """Refuse a model whose training loss is not the one that its own forward pass gives, for rows alone and side by side.

    Args:
        model: as loaded, before layers are attached.

    Raises:
        ConfigError: naming what differs.
    """

    def by_prompt(probe: Probe, rows: int) -> list[float]:
        count = len(probe.continuation)
        samples = [Sample(ids + probe.continuation, list(range(len(ids), len(ids) + count))) for ids in probe.prompts]
        steps = [samples[start : start + rows] for start in range(0, len(samples), rows)]
        losses = [loss(model, batch, precision)[1] for batch in make_batches(steps, rows, model.device)]
        return [-float(part.sum()) for part in torch.split(torch.cat(losses), count)]

    with probing(model, precision.base == torch.float32 and precision.autocast is None) as probe:
        probe.compare_sums("the training loss", lambda probe: by_prompt(probe, 1))
        probe.compare_sums("the training loss of a batch", lambda probe: by_prompt(probe, len(probe.prompts)))


def check_adapted_loss(adapter: Adapter, precision: TrainingPrecision) -> None:
    """As `check_loss`, of the loss that is computed where the output layer is adapted.

    Raises:
        ConfigError: naming what differs.
    """
    if isinstance(adapter.model.get_output_embeddings(), LoraLinear):
        with without_layers(adapter):
            check_loss(adapter.model, precision, full_loss)


class _FrozenHeadLoss(torch.autograd.Function):
    """Cross-entropy after a frozen output layer, computed for some positions at a time.

    The layer has no gradient of its own, so the forward pass computes that of the hidden states at once and stores neither the logits nor
    their gradients, which with a large vocabulary would be the largest tensors in memory. The idea is from Liger Kernel (2410.10989).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, head: OutputHead
    ) -> tuple[torch.Tensor, torch.Tensor]:
        gradient = torch.empty_like(hidden)
        losses = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        count = max(1, _LOGITS // head.linear.out_features)
        for start in range(0, len(labels), count):
            part = slice(start, start + count)
            label, loss = labels[part], losses[part]
            if head.whole is not None:
                gradient[part], losses[part] = _differentiate(head, hidden[part], label)
                continue
            logprobs = head(hidden[part]).float().log_softmax(-1)
            loss.copy_(-logprobs.gather(1, label[:, None])[:, 0])
            # The gradient of the logits is softmax - one_hot(label). The weights follow in the backward pass: in float16 a small weight
            # would make small probabilities vanish.
            logit_gradient = logprobs.exp_().scatter_add_(1, label[:, None], torch.full_like(loss, -1)[:, None])
            gradient[part] = logit_gradient.to(head.linear.weight.dtype) @ head.linear.weight
            del logprobs, logit_gradient  # else they stay while the next part's logits are computed
        ctx.save_for_backward(gradient, weights)
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        gradient, weights = ctx.saved_tensors
        return (gradient.float() * (weights * grad)[:, None]).to(gradient.dtype), None, None, None


def _differentiate(head: OutputHead, hidden: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of each position's loss by its hidden states, (predicted, width), and the losses, for a head of more than one layer."""
    with torch.enable_grad():
        states = hidden.detach().requires_grad_()
        losses = torch.nn.functional.cross_entropy(head(states).float(), labels, reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum(), states)
    return gradient, losses.detach()


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

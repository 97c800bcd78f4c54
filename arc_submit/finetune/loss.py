"""The loss of training samples: batches, a cross-entropy that keeps no logits in memory, and its check against the model's own.

Does not know tasks, steps or optimizers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint as recompute

from arc_submit.base_model.hidden_states import hidden_states_from
from arc_submit.base_model.lora import Adapter, without_layers
from arc_submit.base_model.lora_layers import LoraLinear
from arc_submit.base_model.output_head import OutputHead, output_head
from arc_submit.base_model.parity import Probe, probing
from arc_submit.base_model.precision import TrainingPrecision
from arc_submit.finetune.samples import Sample

_LOGITS = 1 << 26  # logits in memory at a time: 256 MB in float32


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

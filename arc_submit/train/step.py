"""What is trained and what one step of it is: the weights with their flat gradient, the optimizers, the passes and their loss.

Knows nothing about where samples come from or about files but those of the weights.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint as recompute

from arc_submit.base_model.hidden_states import hidden_states_from
from arc_submit.base_model.loading import load_model, load_tokenizer
from arc_submit.base_model.lora import Adapter, attach, save_adapter
from arc_submit.base_model.precision import TrainingPrecision, choose_training_precision
from arc_submit.base_model.saving import own_dtype, save_model
from arc_submit.errors import ConfigError
from arc_submit.finetune.trainer import MicroBatch, batch_loss
from arc_submit.language.prompt_config import PromptConfig
from arc_submit.train.config import TrainConfig, TrainSettings
from arc_submit.train.distributed import Processes
from arc_submit.train.mixture import TokenSample
from arc_submit.train.muon import Float32Muon

_LOGITS = 1 << 26  # logits computed at a time: 256 MB in float32


class PassTooLargeError(ConfigError):
    """A forward and backward pass for which the device's memory does not suffice."""


@dataclass
class Learner:
    """What is trained.

    Attributes:
        model: with the adapter in it, if there is one.
        adapter: None where all weights are trained.
        parameters: what the optimizers change.
        gradient: one flat float32 tensor of which every parameter's gradient is a view.
    """

    model: Any
    adapter: Adapter | None
    parameters: list[torch.nn.Parameter]
    gradient: torch.Tensor


def make_learner(config: TrainConfig, device: torch.device, precision: TrainingPrecision, resumed: Path | None) -> Learner:
    """Load the base and make it ready to be trained, with a checkpoint's weights where there is one."""
    from safetensors.torch import load_file

    settings = config.settings
    if settings.full:
        model = load_model(resumed / "model" if resumed else config.model, device, torch.float32, "sdpa")
        model.requires_grad_(True)
        parameters = list(model.parameters())
        gradient = torch.zeros(sum(parameter.numel() for parameter in parameters), device=device)
        for parameter, part in zip(parameters, torch.split(gradient, [parameter.numel() for parameter in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)
        return _checkpointing(Learner(model, None, parameters, gradient), settings)
    model = load_model(config.model, device, precision.base, "sdpa", settings.in_4_bits)
    adapter = attach(model, config.lora, config.seed, config.base_adapter)
    if resumed:
        with torch.no_grad():
            adapter.flat.copy_(load_file(resumed / "trainable.safetensors")["flat"])
    assert adapter.flat.grad is not None
    return _checkpointing(Learner(model, adapter, [adapter.flat], adapter.flat.grad.view(-1)), settings)


def _checkpointing(learner: Learner, settings: TrainSettings) -> Learner:
    if settings.gradient_checkpointing:
        learner.model.gradient_checkpointing_enable({"use_reentrant": False})
        learner.model.train()  # transformers checkpoints in this mode only
    return learner


def make_optimizers(learner: Learner, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """The optimizers; together they have every parameter once."""
    rate, decay = settings.learning_rate, settings.weight_decay
    fused = learner.gradient.device.type in ("cuda", "cpu")

    def adamw(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=rate, betas=(0.9, settings.beta2), weight_decay=decay, fused=fused)

    if settings.optimizer == "muon":
        # Rows of the embedding are learnt each for itself: Muon's common scale for a whole matrix does not suit it (arXiv 2502.16982).
        table = learner.model.get_input_embeddings().weight
        head = learner.model.get_output_embeddings().weight
        matrices = [p for p in learner.parameters if p.ndim == 2 and p is not table and p is not head]
        others = [p for p in learner.parameters if all(p is not matrix for matrix in matrices)]
        kind = Float32Muon if learner.gradient.device.type == "cpu" else torch.optim.Muon
        return [kind(matrices, lr=rate, momentum=0.95, weight_decay=decay, adjust_lr_fn="match_rms_adamw"), adamw(others)]
    if settings.optimizer == "sgd":
        return [torch.optim.SGD(learner.parameters, lr=rate, momentum=0.9, weight_decay=decay)]
    if settings.optimizer == "adafactor":
        return [torch.optim.Adafactor(learner.parameters, lr=rate, weight_decay=decay)]
    return [adamw(learner.parameters)]


def rate_factor(schedule: str, warmup_ratio: float, progress: float) -> float:
    """Factor of the peak learning rate after a part of the training, 0 to 1."""
    if progress < warmup_ratio:
        return progress / warmup_ratio
    if schedule == "constant":
        return 1.0
    if schedule == "wsd":
        return min(1.0, (1 - progress) / 0.4)
    left = (1 - progress) / (1 - warmup_ratio)
    return left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def prompt_weight(settings: TrainSettings, progress: float) -> float:
    """Weight of the loss on what is not learnt in full."""
    return settings.prompt_weight + (settings.prompt_weight_end - settings.prompt_weight) * min(1.0, 2 * progress)


def cut_passes(samples: Sequence[TokenSample], tokens: int) -> list[list[TokenSample]]:
    """Samples of like length together, as many in a pass as its tokens allow with padding, and at least one."""
    passes: list[list[TokenSample]] = []
    for sample in sorted(samples, key=lambda sample: (-len(sample.ids), sample.number)):
        if not passes or (len(passes[-1]) + 1) * len(passes[-1][0].ids) > tokens:
            passes.append([])
        passes[-1].append(sample)
    return passes


def make_pass(samples: Sequence[TokenSample], weight: float, total: float, device: torch.device) -> tuple[MicroBatch, torch.Tensor]:
    """One forward pass's tensors and, (learnt,) bool, which of its places are learnt in full.

    Args:
        weight: of the places that are not, beside 1.
        total: what all weights are divided by.
    """
    length = max(len(sample.ids) for sample in samples)
    ids = np.zeros((len(samples), length), dtype=np.int64)
    weights = np.zeros((len(samples), length), dtype=np.float32)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = sample.ids
        weights[row, 1 : len(sample.ids)] = weight
        weights[row, : len(sample.ids)][sample.learnt] = 1.0
    rows, places = np.nonzero(weights)
    first = int(places.min()) - 1
    chosen = weights[rows, places]
    learnt = np.zeros_like(weights, dtype=np.bool_)
    for row, sample in enumerate(samples):
        learnt[row, : len(sample.ids)] = sample.learnt
    batch = MicroBatch(
        torch.from_numpy(ids).to(device),
        first,
        torch.from_numpy(rows * (length - first) + places - 1 - first).to(device),
        torch.from_numpy(ids[rows, places]).to(device),
        torch.from_numpy(chosen / np.float32(total)).to(device),
        torch.zeros(len(rows), dtype=torch.long, device=device),
    )
    return batch, torch.from_numpy(learnt[rows, places]).to(device)


def full_loss(model: Any, batch: MicroBatch, precision: TrainingPrecision) -> tuple[torch.Tensor, torch.Tensor]:
    """As `ttft.batch_loss`, with gradients for the output layer too; its logits are computed again backward where they are many."""

    def piece(hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model.lm_head(hidden).float(), labels, reduction="none")

    with _autocast(batch.ids.device, precision):
        hidden = hidden_states_from(model, batch.ids, batch.first).flatten(0, 1)[batch.places]
        count = max(1, _LOGITS // model.lm_head.out_features)
        if len(hidden) <= count:
            by_token = piece(hidden, batch.labels)
        else:
            pieces = zip(torch.split(hidden, count), torch.split(batch.labels, count), strict=True)
            by_token = torch.cat([recompute(piece, *one, use_reentrant=False) for one in pieces])
    return (by_token * batch.weights).sum(), by_token.detach()


def _autocast(device: torch.device, precision: TrainingPrecision) -> Any:
    return torch.autocast(device.type, dtype=precision.autocast or torch.bfloat16, enabled=precision.autocast is not None)


def add_gradients(
    learner: Learner,
    samples: Sequence[TokenSample],
    weight: float,
    total: float,
    tokens: int,
    precision: TrainingPrecision,
    scaler: torch.amp.GradScaler,
) -> torch.Tensor:
    """Add the gradient of a step's samples; returns, on the device, their loss on what is learnt in full over `total`.

    Args:
        weight: of the loss on other places.
        total: places learnt in full in the whole step, over all processes.
        tokens: of a pass, padding included.

    Raises:
        PassTooLargeError: where memory does not suffice.
    """
    device = learner.gradient.device
    loss = torch.zeros((), device=device)
    for rows in cut_passes(samples, tokens):
        batch, in_full = make_pass(rows, weight, total, device)
        with _within_memory(batch):
            summed, by_token = (batch_loss if learner.adapter else full_loss)(learner.model, batch, precision)
            torch.autograd.backward(scaler.scale(summed))
        loss += torch.where(in_full, by_token, 0).sum() / total
    return loss


@contextlib.contextmanager
def _within_memory(batch: MicroBatch) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PassTooLargeError(
            f"out of memory with {tuple(batch.ids.shape)} tokens in a pass ({str(error)[:80]}); lower --tokens-per-pass or "
            "--max-seq-len, or give --gradient-checkpointing"
        ) from None


@torch.no_grad()
def evaluate(
    learner: Learner, samples: Sequence[TokenSample], tokens: int, precision: TrainingPrecision, group: Processes
) -> dict[str, float]:
    """Mean loss a learnt token, and the share of samples whose every answer token is the likeliest one behind the right ones.

    The samples are shared out over the processes.

    Raises:
        PassTooLargeError: where memory does not suffice.
    """
    loss = learnt_tokens = right = 0.0
    for rows in cut_passes(samples[group.rank :: group.world], tokens):
        batch, learnt = make_pass(rows, 0.0, 1.0, group.device)
        with _within_memory(batch), _autocast(group.device, precision):
            hidden = hidden_states_from(learner.model, batch.ids, batch.first).flatten(0, 1)[batch.places]
            count = max(1, _LOGITS // learner.model.lm_head.out_features)
            pieces = zip(torch.split(hidden, count), torch.split(batch.labels, count), strict=True)
            found = [_log_probability(learner.model.lm_head(states), labels) for states, labels in pieces]
        loss -= float(torch.cat([one for one, _ in found]).sum())
        learnt_tokens += int(learnt.sum())
        hits = torch.cat([hit for _, hit in found]).cpu().numpy()
        start = 0
        for sample in rows:
            behind = start + int(sample.learnt.sum())
            right += bool(hits[behind - (len(sample.ids) - sample.answer) : behind].all())
            start = behind
    loss, learnt_tokens, right = group.sum([loss, learnt_tokens, right])
    return {"eval_loss": round(loss / learnt_tokens, 5), "eval_right": round(right / len(samples), 4)}


def _log_probability(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits.float()
    return logits.log_softmax(-1).gather(1, labels[:, None])[:, 0], logits.argmax(-1) == labels


def choose_precision(asked: str, device: torch.device, full: bool) -> TrainingPrecision:
    """The precision of training, with its reason.

    Raises:
        ConfigError: where the device does not have what was asked for.
    """
    chosen = choose_training_precision(device, asked == "bfloat16" and device.type == "cpu")
    if asked == "float32":
        chosen = TrainingPrecision(torch.float32, None, False, "asked")
    elif asked != "auto" and str(chosen.autocast) != f"torch.{asked}":
        if asked == "float16" and device.type == "cuda":
            chosen = TrainingPrecision(torch.float16, torch.float16, True, "asked")
        else:
            raise ConfigError(f"--precision {asked}: {device} trains in {chosen.autocast or chosen.base} ({chosen.reason}); choose auto")
    return dataclasses.replace(chosen, base=torch.float32) if full else chosen


def take_step(learner: Learner, optimizers: Sequence[torch.optim.Optimizer], scaler: torch.amp.GradScaler, longest: float) -> torch.Tensor:
    """Clip the gradient, step all optimizers and clear it; returns its length before."""
    for optimizer in optimizers:
        scaler.unscale_(optimizer)
    norm: torch.Tensor = learner.gradient.norm()
    if longest:
        learner.gradient.mul_((longest / (norm + 1e-6)).clamp(max=1.0))
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()
    if learner.adapter:
        # The fused kernel does not say that it has written; the layers renew their effective weights when the version changes.
        torch.autograd.graph.increment_version(learner.adapter.flat)
    learner.gradient.zero_()
    return norm


def export(learner: Learner, config: TrainConfig, how: PromptConfig) -> Path:
    """Write what was trained, as engines load it, with the way to ask it beside it."""
    if learner.adapter:
        folder = config.out / "adapter"
        save_adapter(learner.adapter, folder)
        how.save(folder)
        return folder
    asked = config.settings.save_dtype
    dtype: torch.dtype = getattr(torch, asked) if asked != "auto" else own_dtype(config.model)
    save_model(learner.model, load_tokenizer(config.model), how, config.out / "model", dtype)
    return config.out / "model"


def weights_writer(learner: Learner, config: TrainConfig, how: PromptConfig) -> Callable[[Path], None]:
    from safetensors.torch import save_file

    def write(folder: Path) -> None:
        if learner.adapter:
            save_file({"flat": learner.adapter.flat.detach().cpu()}, folder / "trainable.safetensors")
            save_adapter(learner.adapter, folder / "adapter")
            how.save(folder / "adapter")
        else:
            save_model(learner.model, load_tokenizer(config.model), how, folder / "model", torch.float32)

    return write

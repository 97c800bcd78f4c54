"""One step of base training: the trained weights with their flat gradient, the optimizers, the forward and backward passes, the loss.

Does not know where samples come from, nor files other than those of the weights.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from arc_submit.base_model.attention import ATTENTION
from arc_submit.base_model.checkpointing import enable_checkpointing
from arc_submit.base_model.hidden_states import hidden_states_from
from arc_submit.base_model.loading import load_model, load_tokenizer
from arc_submit.base_model.lora import Adapter, attach, save_adapter
from arc_submit.base_model.out_of_memory import is_out_of_memory
from arc_submit.base_model.output_head import output_head
from arc_submit.base_model.precision import TrainingPrecision, choose_training_precision
from arc_submit.base_model.saving import own_dtype, save_model
from arc_submit.errors import ConfigError
from arc_submit.finetune.loss import MicroBatch, batch_loss, check_adapted_loss, check_loss, full_loss
from arc_submit.language.prompt_config import PromptConfig
from arc_submit.train.checkpoints import optimizer_state
from arc_submit.train.config import TrainConfig, TrainSettings
from arc_submit.train.distributed import Processes, noticing_loss
from arc_submit.train.mixture import TokenSample
from arc_submit.train.muon import Float32Muon

if TYPE_CHECKING:
    from arc_submit.train.sharding import Sharding

_LOGITS = 1 << 26  # logits in memory at a time: 256 MB in float32


class PassTooLargeError(ConfigError):
    """A forward and backward pass for which the device's memory does not suffice."""


@dataclass(frozen=True)
class Trainable:
    """A model and its trained weights.

    Attributes:
        model: with the adapter in it, if there is one.
        adapter: None where all weights are trained.
        parameters: of the optimizers.
        gradient: one flat float32 tensor; every parameter's gradient is a view of it.
        precision: of the forward and backward passes.
        scaler: of the loss, for float16.
        sharding: how the model's weights are divided over the processes; None where each process has them all. Where all weights are
            trained, `parameters` and `gradient` are those of this process's parts.
    """

    model: Any
    adapter: Adapter | None
    parameters: list[torch.nn.Parameter]
    gradient: torch.Tensor
    precision: TrainingPrecision
    scaler: torch.amp.GradScaler
    sharding: Sharding | None = None

    @property
    def divided(self) -> bool:
        """Whether this process has parts of the trained weights alone."""
        return self.sharding is not None and self.adapter is None

    @property
    def trained_values(self) -> int:
        """How many values are trained, in all processes together."""
        return sum(weight.numel() for weight in self.sharding.weights) if self.sharding and self.divided else self.gradient.numel()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """function(model, *arguments), with the weights that the model has outside its layers."""
        return function(self.model, *arguments) if self.sharding is None else self.sharding.root(function, *arguments)


def load_trainable(config: TrainConfig, device: torch.device, checkpoint: Path | None, group: Processes | None = None) -> Trainable:
    """Load the base and prepare it for training, with the weights of a checkpoint if there is one.

    Args:
        group: the processes over which --fsdp divides the base.

    Raises:
        ConfigError: where the device does not have the configured precision, or --fsdp cannot work.
    """
    settings = config.settings
    precision = choose_precision(settings.precision, device, settings.full)
    if not settings.fsdp:
        return _prepare(config, device, device, precision, checkpoint)
    if group is None or group.world == 1:
        raise ConfigError("--fsdp divides the model over several processes: start with torchrun --nproc-per-node, or leave it out")
    if settings.full and precision.scale:
        raise ConfigError(f"--fsdp --full does not train in float16 ({precision.reason}); choose --precision float32, or train an adapter")
    from torch.distributed.device_mesh import init_device_mesh

    from arc_submit.train.sharding import Sharding, in_turn, own_parts, shard_model

    mesh = init_device_mesh(device.type, (group.world,))
    with in_turn(group):
        trainable = _prepare(config, torch.device("cpu"), device, precision, checkpoint)
        root = shard_model(trainable.model, mesh, precision.autocast if settings.full else None)
    if not settings.full:
        return dataclasses.replace(trainable, sharding=Sharding(root, group))
    weights: Any = tuple(trainable.model.parameters())
    parameters, gradient = own_parts(weights)
    return dataclasses.replace(trainable, parameters=parameters, gradient=gradient, sharding=Sharding(root, group, weights))


def _prepare(
    config: TrainConfig, place: torch.device, device: torch.device, precision: TrainingPrecision, checkpoint: Path | None
) -> Trainable:
    """The base with what is trained.

    Args:
        place: of the base; low-rank weights are on the device.
    """
    from safetensors.torch import load_file

    settings = config.settings
    scaler = torch.amp.GradScaler(device.type, enabled=precision.scale)
    adapter = None
    if settings.full:
        model = load_model(checkpoint / "model" if checkpoint else config.model, place, torch.float32, ATTENTION)
        check_loss(model, precision, full_loss)
        model.requires_grad_(True)
        parameters = list(model.parameters())
        # The parts of a divided model have gradients of their own.
        gradient = torch.empty(0) if settings.fsdp else flat_gradient(parameters)
    else:
        model = load_model(config.model, place, precision.base, ATTENTION, settings.in_4_bits)
        check_loss(model, precision)
        # A divided base must not be copied into effective weights.
        merge = False if settings.fsdp else None
        adapter = attach(model, config.lora, config.seed, config.base_adapter, merge, device)
        check_adapted_loss(adapter, precision)
        if checkpoint:
            with torch.no_grad():
                adapter.flat.copy_(load_file(checkpoint / "trainable.safetensors")["flat"])
        assert adapter.flat.grad is not None
        parameters, gradient = [adapter.flat], adapter.flat.grad.view(-1)
    if settings.gradient_checkpointing:
        enable_checkpointing(model)
    return Trainable(model, adapter, parameters, gradient, precision, scaler)


def flat_gradient(parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    """One float32 tensor of which every parameter's gradient becomes a view."""
    sizes = [parameter.numel() for parameter in parameters]
    gradient = torch.zeros(sum(sizes), device=parameters[0].device)
    for parameter, part in zip(parameters, torch.split(gradient, sizes), strict=True):
        parameter.grad = part.view_as(parameter)
    return gradient


def make_optimizers(trainable: Trainable, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """The optimizers; together they have every parameter once. Each group of parameters has its peak learning rate as "peak"."""
    optimizers = _make_optimizers(trainable, settings)
    for group in chain.from_iterable(optimizer.param_groups for optimizer in optimizers):
        group.setdefault("peak", group["lr"])
    return optimizers


def _make_optimizers(trainable: Trainable, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    rate, decay = settings.learning_rate, settings.weight_decay
    groups: Any = trainable.adapter.parameter_groups(rate) if trainable.adapter else trainable.parameters

    def adamw(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=rate, betas=(0.9, settings.beta2), weight_decay=decay, fused=True)

    if settings.optimizer == "muon":
        # Each row of the embedding is trained for itself: Muon's common scale for a whole matrix does not suit it (arXiv 2502.16982).
        table = trainable.model.get_input_embeddings().weight
        head = trainable.model.get_output_embeddings().weight
        matrices = [p for p in trainable.parameters if p.ndim == 2 and p is not table and p is not head]
        others = [p for p in trainable.parameters if all(p is not matrix for matrix in matrices)]
        kind = Float32Muon if trainable.gradient.device.type == "cpu" else torch.optim.Muon
        return [kind(matrices, lr=rate, momentum=0.95, weight_decay=decay, adjust_lr_fn="match_rms_adamw"), adamw(others)]
    if settings.optimizer == "sgd":
        return [torch.optim.SGD(groups, lr=rate, momentum=0.9, weight_decay=decay)]
    if settings.optimizer == "adafactor":
        return [torch.optim.Adafactor(trainable.parameters, lr=rate, weight_decay=decay)]
    return [adamw(groups)]


def rate_factor(schedule: str, warmup_ratio: float, progress: float) -> float:
    """Factor of the peak learning rate at a progress of the training, 0 to 1."""
    if progress < warmup_ratio:
        return progress / warmup_ratio
    if schedule == "constant":
        return 1.0
    if schedule == "wsd":
        return min(1.0, (1 - progress) / 0.4)
    left = (1 - progress) / (1 - warmup_ratio)
    return left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def prompt_weight(settings: TrainSettings, progress: float) -> float:
    """Weight of the loss on tokens outside the loss mask."""
    return settings.prompt_weight + (settings.prompt_weight_end - settings.prompt_weight) * min(1.0, 2 * progress)


def cut_passes(samples: Sequence[TokenSample], tokens: int) -> list[list[TokenSample]]:
    """Samples grouped by length into passes of at most that many tokens, padding included, and of at least one sample."""
    passes: list[list[TokenSample]] = []
    for sample in sorted(samples, key=lambda sample: (-len(sample.ids), sample.number)):
        if not passes or (len(passes[-1]) + 1) * len(passes[-1][0].ids) > tokens:
            passes.append([])
        passes[-1].append(sample)
    return passes


def make_pass(samples: Sequence[TokenSample], weight: float, total: float, device: torch.device) -> tuple[MicroBatch, torch.Tensor]:
    """One forward pass's tensors and, (predicted,) bool, which of its tokens are in the loss mask.

    Args:
        weight: of tokens outside the mask; those in it have 1.
        total: divisor of all weights.
    """
    length = max(len(sample.ids) for sample in samples)
    ids = np.zeros((len(samples), length), dtype=np.int64)
    weights = np.zeros((len(samples), length), dtype=np.float32)
    mask = np.zeros((len(samples), length), dtype=np.bool_)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = sample.ids
        weights[row, 1 : len(sample.ids)] = weight
        mask[row, : len(sample.ids)] = sample.loss_mask
    weights[mask] = 1.0
    rows, positions = np.nonzero(weights)
    first = int(positions.min()) - 1
    batch = MicroBatch(
        torch.from_numpy(ids).to(device),
        first,
        torch.from_numpy(rows * (length - first) + positions - 1 - first).to(device),
        torch.from_numpy(ids[rows, positions]).to(device),
        torch.from_numpy(weights[rows, positions] / np.float32(total)).to(device),
    )
    return batch, torch.from_numpy(mask[rows, positions]).to(device)


def _autocast(device: torch.device, precision: TrainingPrecision) -> Any:
    return torch.autocast(device.type, dtype=precision.autocast or torch.bfloat16, enabled=precision.autocast is not None)


def add_gradients(trainable: Trainable, samples: Sequence[TokenSample], weight: float, total: float, pass_tokens: int) -> torch.Tensor:
    """Add the gradient of a step's samples; returns, on the device, the sum of their loss on tokens in the mask, over `total`.

    Args:
        weight: of the loss on tokens outside the mask.
        total: tokens in the mask in the whole step, over all processes.
        pass_tokens: of a pass, padding included.

    Raises:
        PassTooLargeError: where memory does not suffice.
    """
    device = trainable.gradient.device
    loss = torch.zeros((), device=device)
    for rows, divisor in passes_of(trainable, samples, samples[0], pass_tokens, total):
        batch, in_mask = make_pass(rows, weight, divisor, device)
        with _within_memory(batch), noticing_loss():
            weighted, by_token = trainable.call(batch_loss if trainable.adapter else full_loss, batch, trainable.precision)
            torch.autograd.backward(trainable.scaler.scale(weighted))
        loss += torch.where(in_mask, by_token, 0).sum() / divisor
    return loss


def passes_of(
    trainable: Trainable, samples: Sequence[TokenSample], spare: TokenSample, tokens: int, total: float
) -> list[tuple[list[TokenSample], float]]:
    """The passes of samples, each with the divisor of its loss.

    A divided model is gathered by all processes together, so that each makes as many passes as the one with the most.

    Args:
        spare: what the passes beyond the own ones read; their divisor is infinite.
        total: divisor of the others.
    """
    own = [(rows, total) for rows in cut_passes(samples, tokens)]
    if trainable.sharding is None:
        return own
    return own + [([spare], math.inf)] * (trainable.sharding.group.maximum(len(own)) - len(own))


@contextlib.contextmanager
def _within_memory(batch: MicroBatch) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise PassTooLargeError(
            f"out of memory with {tuple(batch.ids.shape)} tokens in a pass ({str(error)[:80]}); lower --tokens-per-pass or "
            "--max-seq-len, or give --gradient-checkpointing"
        ) from None


@torch.no_grad()
def evaluate(trainable: Trainable, samples: Sequence[TokenSample], pass_tokens: int, group: Processes) -> dict[str, float]:
    """Mean loss of the tokens in the mask, and the share of samples whose every answer token is the likeliest after the right ones.

    The processes share the samples.

    Raises:
        PassTooLargeError: where memory does not suffice.
    """
    loss = tokens = right = 0.0
    for rows, divisor in passes_of(trainable, samples[group.rank :: group.world], samples[0], pass_tokens, 1.0):
        batch, in_mask = make_pass(rows, 0.0, 1.0, group.device)
        with _within_memory(batch), noticing_loss(), _autocast(group.device, trainable.precision):
            scores = trainable.call(_scores, batch)
        if divisor == math.inf:
            continue
        loss -= float(torch.cat([logprobs for logprobs, _ in scores]).sum())
        tokens += int(in_mask.sum())
        likeliest = torch.cat([hits for _, hits in scores]).cpu().numpy()
        end = 0
        for sample in rows:
            end += int(sample.loss_mask.sum())
            right += bool(likeliest[end - (len(sample.ids) - sample.answer) : end].all())
    loss, tokens, right = group.sum([loss, tokens, right])
    return {"eval_loss": round(loss / tokens, 5), "eval_right": round(right / len(samples), 4)}


def _scores(model: Any, batch: MicroBatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """`_score` of a pass's predicted tokens, piece by piece."""
    head = output_head(model)
    hidden = hidden_states_from(model, batch.ids, batch.first).flatten(0, 1)[batch.positions]
    count = max(1, _LOGITS // head.linear.out_features)
    pieces = zip(torch.split(hidden, count), torch.split(batch.labels, count), strict=True)
    return [_score(head(states), labels) for states, labels in pieces]


def _score(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each label, and whether it is the likeliest token."""
    logits = logits.float()
    return logits.log_softmax(-1).gather(1, labels[:, None])[:, 0], logits.argmax(-1) == labels


def choose_precision(name: str, device: torch.device, full: bool) -> TrainingPrecision:
    """The precision of training, with its reason.

    Raises:
        ConfigError: where the device does not have it.
    """
    chosen = choose_training_precision(device, name == "bfloat16" and device.type == "cpu")
    if name == "float32":
        chosen = TrainingPrecision(torch.float32, None, False, "as requested")
    elif name != "auto" and str(chosen.autocast) != f"torch.{name}":
        if name == "float16" and device.type == "cuda":
            chosen = TrainingPrecision(torch.float16, torch.float16, True, "as requested")
        else:
            raise ConfigError(f"--precision {name}: {device} trains in {chosen.autocast or chosen.base} ({chosen.reason}); choose auto")
    return dataclasses.replace(chosen, base=torch.float32) if full else chosen


def take_step(trainable: Trainable, optimizers: Sequence[torch.optim.Optimizer], max_norm: float) -> torch.Tensor:
    """Clip the gradient, step all optimizers and clear it; returns its norm before clipping."""
    scaler = trainable.scaler
    for optimizer in optimizers:
        scaler.unscale_(optimizer)
    norm: torch.Tensor = trainable.gradient.norm()
    if trainable.sharding and trainable.divided:
        square = norm.square().view(1)
        trainable.sharding.group.sum_gradient(square)
        norm = square.sqrt()[0]
    if max_norm:
        trainable.gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()
    if trainable.adapter:
        trainable.adapter.mark_changed()
    trainable.gradient.zero_()
    return norm


def export(trainable: Trainable, config: TrainConfig, prompt_config: PromptConfig) -> Path:
    """Write the trained weights in the engines' format, with the prompt configuration beside them; returns the folder.

    Where the weights are divided, all processes call it; the first one writes.
    """
    name = config.settings.save_dtype
    if trainable.adapter:
        folder = config.out / "adapter"
        save_adapter(trainable.adapter, folder, torch.float32 if name == "auto" else getattr(torch, name))
        prompt_config.save(folder)
        return folder
    dtype: torch.dtype = getattr(torch, name) if name != "auto" else own_dtype(config.model)
    weights = gathered_weights(trainable)
    if not trainable.sharding or trainable.sharding.group.rank == 0:
        save_model(trainable.model, load_tokenizer(config.model), prompt_config, config.out / "model", dtype, weights)
    return config.out / "model"


def gathered_weights(trainable: Trainable) -> dict[str, torch.Tensor] | None:
    """The weights of a divided model that is trained, in the first process; None where they are in the model. All processes call it."""
    if not trainable.sharding or not trainable.divided:
        return None
    from arc_submit.train.sharding import whole_weights

    return whole_weights(trainable.model, trainable.sharding.group.rank == 0)


def gathered_optimizer_state(trainable: Trainable, optimizers: Sequence[torch.optim.Optimizer]) -> Any:
    """`optimizer_state` of the whole parameters, where they are divided in the first process; all processes then call it."""
    tensors, numbers = optimizer_state(optimizers)
    if trainable.sharding and trainable.divided:
        from arc_submit.train.sharding import whole_optimizer_state

        whole = [whole_optimizer_state(optimizer, trainable.sharding) for optimizer in optimizers]
        tensors = {f"{index}.{key}": tensor for index, one in enumerate(whole) for key, tensor in one.items()}
    return tensors, numbers


def weights_writer(trainable: Trainable, config: TrainConfig, prompt_config: PromptConfig) -> Callable[[Path], None]:
    """A function that writes the weights into a checkpoint's folder. Where they are divided, all processes call this."""
    from safetensors.torch import save_file

    weights = gathered_weights(trainable)

    def write(folder: Path) -> None:
        if trainable.adapter:
            save_file({"flat": trainable.adapter.flat.detach().cpu()}, folder / "trainable.safetensors")
            save_adapter(trainable.adapter, folder / "adapter")
            prompt_config.save(folder / "adapter")
        else:
            save_model(trainable.model, load_tokenizer(config.model), prompt_config, folder / "model", torch.float32, weights)

    return write

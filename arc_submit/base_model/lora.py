"""LoRA on a loaded base model: put in once, reset between tasks, kept in PEFT's file format.

The linear layers named by the settings are wrapped; the base's own weights are frozen and never written. All low-rank weights lie in
one float32 tensor of shape (tasks, parameters), so that a reset is one copy, a clip one norm and an optimizer step one kernel, and
several tasks' adapters can be trained in one batch (arc_submit.finetune.grouped): row t of that tensor is task t's adapter. PEFT's own
layers are not used: they take one adapter in training, and run three products and two additions where one product does (see
`_MergedLinear`). Knows nothing about tasks beyond their number.

LoRA is Hu et al. 2021 (arXiv 2106.09685), rsLoRA Kalajdzievski 2023 (2312.03732), DoRA Liu et al. 2024 (2402.09353), PiSSA Meng et al. 2024
(2404.02948), OLoRA Buyukakyuz 2024 (2406.01775).
"""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from arc_submit.base_model.adapter_files import CONFIG, PREFIX, WEIGHTS, check_adapter
from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError


class LoraLinear(nn.Module):
    """A frozen linear layer with one low-rank pair for each task.

    Attributes:
        base: the layer itself.
        down: the first factor, (tasks, rank, inputs).
        up: the second, (tasks, outputs, rank).
        length: DoRA's rows' lengths, (tasks, outputs). All three are views of the adapter's one tensor.
        gradients: views of the same places of its gradient; the backward pass adds to them itself.
        start: for PiSSA and OLoRA the factors at the beginning, whose product is taken off again.
        merged: (tasks, outputs, inputs), the effective weight, renewed when the adapter's tensor has changed; None where it is not kept.
    """

    def __init__(self, base: nn.Linear, scaling: float, flat: nn.Parameter, views: list[torch.Tensor], gradients: list[torch.Tensor]):
        super().__init__()
        self.base = base
        self.scaling = scaling
        self.flat = [flat]  # in a list: it is no parameter of the model
        self.down, self.up = views[:2]
        self.length = views[2] if len(views) > 2 else None
        self.gradients = gradients
        self.start: tuple[torch.Tensor, torch.Tensor] | None = None
        self.merged: torch.Tensor | None = None
        self.row_factor: torch.Tensor | None = None
        self.version = -1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x of shape (rows, places, inputs); with several tasks each has as many rows, one task's after the other's."""
        # Rounded to 16 bits, as products under autocast are, an effective weight would lose the small change.
        if self.merged is None or torch.is_autocast_enabled(x.device.type):
            return self._unmerged(x)
        if self.version != self.flat[0]._version:
            self._merge(self.merged)
        merged: torch.Tensor = _MergedLinear.apply(x, self.flat[0], self)  # type: ignore[no-untyped-call]
        return merged

    @torch.no_grad()
    def _merge(self, merged: torch.Tensor) -> None:
        """Renew the effective weight: base + scaling * up @ down, and DoRA's rescaled rows."""
        torch.baddbmm(self.base.weight.expand_as(merged), self.up, self.down, alpha=self.scaling, out=merged)
        if self.start is not None:
            merged.sub_(self.start[1] @ self.start[0], alpha=self.scaling)
        if self.length is not None:
            self.row_factor = self.length / merged.norm(dim=2)
            merged.mul_(self.row_factor[:, :, None])
        self.version = self.flat[0]._version

    def _unmerged(self, x: torch.Tensor) -> torch.Tensor:
        """The base layer and the two thin products apart: for weights in 16 or 4 bits, in which a small change would be lost."""
        out: torch.Tensor = self.base(x)
        change: torch.Tensor = _LowRank.apply(x.to(out.dtype), self.flat[0], self)  # type: ignore[no-untyped-call]
        if self.start is not None:
            start_down, start_up = (factor.to(out.dtype) for factor in self.start)
            change = change - (x.to(out.dtype) @ start_down.mT) @ start_up.mT * self.scaling
        if self.length is None:
            return out + change
        tasks = self.down.shape[0]
        with torch.no_grad():  # as in the paper, the norm is taken as a constant in the backward pass
            norm = torch.baddbmm(self.base.weight.float().expand(tasks, -1, -1), self.up, self.down, alpha=self.scaling).norm(dim=2)
        bias = torch.zeros_like(out[..., :1]) if self.base.bias is None else self.base.bias
        scaled: torch.Tensor = _RowLengths.apply(out - bias + change, self.flat[0], norm, self)  # type: ignore[no-untyped-call]
        return scaled + bias


class _MergedLinear(torch.autograd.Function):
    """The layer as one product with the effective weight, and gradients of the factors alone.

    The usual way computes x W + (x A) B and, backward, three thin products more and a sum for each of them: at the width of a small model
    half of the layer's time. With W + A B kept at hand the forward pass and the gradient of x are one product each, and the
    factors' gradients follow from two thin products, or from the weight's gradient where that is cheaper. They are added where
    they belong by the product itself, so autograd is given none.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, flat: torch.Tensor, layer: LoraLinear) -> torch.Tensor:
        merged, bias = layer.merged, layer.base.bias
        assert merged is not None
        ctx.save_for_backward(x, merged)
        ctx.layer = layer
        if merged.shape[0] == 1:
            return nn.functional.linear(x, merged[0], bias)
        by_task = x.reshape(merged.shape[0], -1, x.shape[-1])
        out = by_task @ merged.mT if bias is None else torch.baddbmm(bias, by_task, merged.mT)
        return out.reshape(*x.shape[:-1], out.shape[-1])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, merged = ctx.saved_tensors
        layer: LoraLinear = ctx.layer
        rank, (tasks, outputs, inputs) = layer.down.shape[1], merged.shape
        by_task, x_by_task = grad.reshape(tasks, -1, outputs), x.reshape(tasks, -1, inputs)
        grad_x = (by_task @ merged).view(x.shape) if ctx.needs_input_grad[0] else None
        if layer.length is None and inputs * outputs > 2 * rank * (inputs + outputs):
            _add_gradients(layer, by_task, x_by_task, layer.down, layer.up)
            return grad_x, None, None
        grad_weight = by_task.mT @ x_by_task
        if layer.length is not None and layer.row_factor is not None:
            # merged = length * direction: its gradient's part along the row changes the length, the factors take the rest of the chain.
            layer.gradients[2].add_((grad_weight * merged).sum(2) / layer.length)
            grad_weight *= layer.row_factor[:, :, None]
        layer.gradients[0].baddbmm_(layer.up.mT, grad_weight, alpha=layer.scaling)
        layer.gradients[1].baddbmm_(grad_weight, layer.down.mT, alpha=layer.scaling)
        return grad_x, None, None


class _LowRank(torch.autograd.Function):
    """scaling * up down x in x's own dtype, with float32 gradients of the factors."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, flat: torch.Tensor, layer: LoraLinear) -> torch.Tensor:
        down, up = layer.down.to(x.dtype), layer.up.to(x.dtype)
        ctx.save_for_backward(x, down, up)
        ctx.layer = layer
        by_task = x.reshape(down.shape[0], -1, x.shape[-1])
        out = ((by_task @ down.mT) @ up.mT).mul_(layer.scaling)
        return out.reshape(*x.shape[:-1], out.shape[-1])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, down, up = ctx.saved_tensors
        by_task, x_by_task = grad.reshape(up.shape[0], -1, up.shape[1]), x.reshape(down.shape[0], -1, down.shape[2])
        thin = _add_gradients(ctx.layer, by_task, x_by_task, down, up)
        grad_x = (thin @ down).mul_(ctx.layer.scaling).view(x.shape) if ctx.needs_input_grad[0] else None
        return grad_x, None, None


class _RowLengths(torch.autograd.Function):
    """DoRA's last part: rows times length / norm, with the gradient of the lengths."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, flat: torch.Tensor, norm: torch.Tensor, layer: LoraLinear) -> torch.Tensor:
        assert layer.length is not None
        factor = layer.length / norm
        ctx.save_for_backward(x, norm, factor)
        ctx.layer = layer
        return _times_rows(x, factor)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, norm, factor = ctx.saved_tensors
        ctx.layer.gradients[2].add_((grad.float() * x.float()).view(len(norm), -1, norm.shape[1]).sum(1) / norm)
        return _times_rows(grad, factor), None, None, None


def _times_rows(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return (x.reshape(len(factor), -1, x.shape[-1]) * factor[:, None].to(x.dtype)).view(x.shape)


def _add_gradients(layer: LoraLinear, grad: torch.Tensor, x: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Add both factors' gradients, all of shape (tasks, places, width); returns grad @ up."""
    thin = grad @ up
    if grad.dtype == torch.float32:
        layer.gradients[0].baddbmm_(thin.mT, x, alpha=layer.scaling)
        layer.gradients[1].baddbmm_(grad.mT, x @ down.mT, alpha=layer.scaling)
    else:
        layer.gradients[0].add_(thin.mT @ x, alpha=layer.scaling)
        layer.gradients[1].add_(grad.mT @ (x @ down.mT), alpha=layer.scaling)
    return thin


@dataclass
class Adapter:
    """Low-rank layers inside a model.

    Attributes:
        model: the base model with the layers in it.
        settings: their make.
        layers: by the wrapped module's name.
        flat: every low-rank weight, float32, (tasks, parameters); its gradient has the same shape and is always there.
        initial: the values that a reset brings back, (parameters,).
        continued: whether they are those of a trained base adapter.
        reason: why the effective weights are kept, or not.
    """

    model: Any
    settings: LoraSettings
    layers: dict[str, LoraLinear]
    flat: nn.Parameter
    initial: torch.Tensor
    continued: bool
    reason: str

    @property
    def tasks(self) -> int:
        """How many tasks' adapters there are."""
        return int(self.flat.shape[0])


def attach(
    model: Any, settings: LoraSettings, seed: int, base_adapter: Path | None = None, tasks: int = 1, merge: bool | None = None
) -> Adapter:
    """Put low-rank layers into a loaded model, in place, and freeze the model.

    Args:
        model: a transformers model, already on its device.
        settings: the adapter's make; where a base adapter is given, its own configuration is taken instead.
        seed: of the initial values.
        base_adapter: folder of a PEFT adapter to go on from.
        tasks: adapters side by side, for training several tasks in one batch.
        merge: keep the effective weights (one product a layer, but a copy of the weights for each task); None decides.

    Raises:
        ConfigError: where a target matches no linear layer, the base adapter is none that this model can take, or what is asked
            cannot work.
    """
    if any(isinstance(module, LoraLinear) for module in model.modules()):
        raise ConfigError("this model has low-rank layers already; detach them first")
    tensors: dict[str, torch.Tensor] = {}
    if base_adapter is None:
        targets = _find_targets(model, settings)
    else:
        settings, targets, tensors = _read_base_adapter(base_adapter, model)
    decomposed = settings.init in ("pissa", "olora")
    starts = {name: _decompose(linear, settings) if decomposed else None for name, linear in targets.items()}
    # From here on nothing is refused: a model that was refused is as it was.
    adapter = _put_in(model, settings, targets, starts, tasks, merge, base_adapter is not None)
    with torch.no_grad():
        if tensors:
            for name, layer in adapter.layers.items():
                _fill(layer, tensors, name)
        else:
            adapter.flat[0] = _draw(adapter, seed)
    adapter.initial = adapter.flat.detach()[0].clone()
    reset(adapter)
    return adapter


def resize(adapter: Adapter, tasks: int) -> None:
    """Make it an adapter for another number of tasks, at its initial values; whether effective weights are kept is decided anew."""
    detach(adapter)
    targets = {name: layer.base for name, layer in adapter.layers.items()}
    starts = {name: layer.start for name, layer in adapter.layers.items()}
    other = _put_in(adapter.model, adapter.settings, targets, starts, tasks, None, adapter.continued)
    adapter.layers, adapter.flat, adapter.reason = other.layers, other.flat, other.reason
    reset(adapter)


def _put_in(
    model: Any,
    settings: LoraSettings,
    targets: dict[str, nn.Linear],
    starts: dict[str, tuple[torch.Tensor, torch.Tensor] | None],
    tasks: int,
    merge: bool | None,
    continued: bool,
) -> Adapter:
    """Layers of zeros in the place of the targets."""
    if merge is None:
        merge, reason = _choose_merge(targets, tasks)
    else:
        reason = "as asked"
    model.requires_grad_(False)
    count = sum(math.prod(shape) for linear in targets.values() for shape in _shapes(linear, settings))
    device = next(iter(targets.values())).weight.device
    flat = nn.Parameter(torch.zeros(tasks, count, dtype=torch.float32, device=device))
    flat.grad = torch.zeros_like(flat)
    layers, offset = {}, 0
    for name, linear in targets.items():
        views, gradients = [], []
        for shape in _shapes(linear, settings):
            places = slice(offset, offset + math.prod(shape))
            views.append(flat.detach()[:, places].view(tasks, *shape))
            gradients.append(flat.grad[:, places].view(tasks, *shape))
            offset = places.stop
        layer = LoraLinear(linear, settings.scaling, flat, views, gradients)
        layer.start = starts[name]
        if merge:
            layer.merged = torch.empty(tasks, *linear.weight.shape, dtype=torch.float32, device=device)
        layers[name] = layer
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
    return Adapter(model, settings, layers, flat, torch.empty(0), continued, reason)


def detach(adapter: Adapter) -> None:
    """Take the layers out again; the model is the base model as it was loaded."""
    for name, layer in adapter.layers.items():
        parent, _, child = name.rpartition(".")
        setattr(adapter.model.get_submodule(parent), child, layer.base)


@torch.no_grad()
def reset(adapter: Adapter, seed: int | None = None, task: int | None = None) -> None:
    """Bring back the initial values and clear the gradients, in place.

    Args:
        seed: draw fresh initial values from it instead of bringing back those of `attach`; without effect where there is nothing to draw,
            which is with a base adapter, PiSSA and OLoRA. The values depend on the seed alone, not on what was trained before.
        task: of several tasks' adapters only this one.
    """
    rows = slice(None) if task is None else slice(task, task + 1)
    fresh = seed is not None and not adapter.continued and adapter.settings.init in ("default", "gaussian")
    values = _draw(adapter, seed) if fresh and seed is not None else adapter.initial
    target = adapter.flat[rows]
    torch._foreach_copy_([target], [values.expand_as(target)])
    assert adapter.flat.grad is not None
    adapter.flat.grad[rows].zero_()


def save_adapter(adapter: Adapter, folder: Path, task: int = 0, dtype: torch.dtype = torch.float32) -> None:
    """Write one task's adapter as PEFT does: whole, or not at all, whenever the process is killed.

    Args:
        folder: made by this; what lies there is replaced.
        task: which of the adapters.
        dtype: of the file's factors. The one in which the base computes takes half the disk on a GPU and changes no prediction: that is
            what an engine brings them to when it reads them. DoRA's lengths stay in float32.
    """
    from safetensors.torch import save_file

    settings = adapter.settings
    differs = any(layer.start is not None for layer in adapter.layers.values())
    if differs:  # B A - B0 A0 is one product of twice the rank; alpha keeps the scaling as it was
        settings = replace(
            settings, rank=2 * settings.rank, alpha=settings.alpha * (math.sqrt(2) if settings.rslora else 2), init="default"
        )
    tensors = {}
    for name, layer in adapter.layers.items():
        down, up = layer.down.detach()[task], layer.up.detach()[task]
        if layer.start is not None:
            down, up = torch.cat([down, layer.start[0]]), torch.cat([up, -layer.start[1]], dim=1)
        tensors[f"{PREFIX}{name}.lora_A.weight"] = down
        tensors[f"{PREFIX}{name}.lora_B.weight"] = up
        if layer.length is not None:
            tensors[f"{PREFIX}{name}.lora_magnitude_vector"] = layer.length.detach()[task]
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, replaced = (folder.parent / f".{folder.name}.{word}.{os.getpid()}" for word in ("new", "old"))
    for leftover in (temporary, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    kinds = {name: torch.float32 if name.endswith("magnitude_vector") else dtype for name in tensors}
    kept = {name: tensor.to("cpu", kinds[name]).contiguous() for name, tensor in tensors.items()}
    save_file(kept, temporary / WEIGHTS, {"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": Path(adapter.model.config.name_or_path).name,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted({name.rpartition(".")[2] for name in adapter.layers}),
        "use_rslora": settings.rslora,
        "use_dora": settings.dora,
        "init_lora_weights": True,
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "inference_mode": True,
    }
    (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        folder.rename(replaced)
    temporary.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def _find_targets(model: Any, settings: LoraSettings) -> dict[str, nn.Linear]:
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    chosen = {name: module for name, module in linears.items() if name.rpartition(".")[2] in settings.targets}
    missing = set(settings.targets) - {name.rpartition(".")[2] for name in chosen}
    if missing:
        raise ConfigError(f"LoRA target {', '.join(sorted(missing))}: no linear layer of this model is called so")
    return chosen


def _read_base_adapter(folder: Path, model: Any) -> tuple[LoraSettings, dict[str, nn.Linear], dict[str, torch.Tensor]]:
    """A base adapter's make, the layers that it adapts in the model's order, and its tensors by name."""
    from safetensors.torch import load_file

    config, scales = check_adapter(folder, model)
    if len({config.of_layer(name) for name in scales}) > 1:
        raise ConfigError(f"adapter {folder}: its ranks or alphas differ from layer to layer; only one with the same in all is continued")
    rank, alpha = config.of_layer(next(iter(scales)))
    names = tuple(sorted({name.rpartition(".")[2] for name in scales}))
    try:
        settings = LoraSettings(rank, alpha, names, config.rslora, config.dora)
    except ConfigError as error:
        raise ConfigError(f"adapter {folder}: {error}") from None
    return settings, {name: module for name, module in model.named_modules() if name in scales}, load_file(folder / WEIGHTS)


def _shapes(linear: nn.Linear, settings: LoraSettings) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = [(settings.rank, linear.in_features), (linear.out_features, settings.rank)]
    return [*shapes, (linear.out_features,)] if settings.dora else shapes


def _choose_merge(targets: dict[str, nn.Linear], tasks: int) -> tuple[bool, str]:
    """Whether to keep effective weights, with the reason."""
    weight = next(iter(targets.values())).weight
    if weight.dtype != torch.float32:
        return False, f"{weight.dtype} weights would lose the small change"
    gigabytes = tasks * sum(linear.weight.numel() for linear in targets.values()) * 4 / 1e9
    if gigabytes > 0.25:
        # Renewing them after every step costs what they weigh, and in wide layers the thin products are little beside the layer's own:
        # with Qwen2.5-0.5B's shape and 121 tokens a step the loop made 0.89 of a bare loop's speed with them, 0.955 without.
        return False, f"renewing {gigabytes:.1f} GB of effective weights after every step would cost more than it saves"
    return True, f"float32: one product a layer for {gigabytes:.2f} GB of effective weights"


def _draw(adapter: Adapter, seed: int) -> torch.Tensor:
    """Initial values of one adapter, (parameters,), drawn on the CPU so that every device begins alike."""
    generator = torch.Generator().manual_seed(seed)
    pieces: list[torch.Tensor] = []
    for layer in adapter.layers.values():
        rank, inputs = layer.down.shape[1:]
        if layer.start is not None:
            down, up = (factor.cpu() for factor in layer.start)
        else:
            up = torch.zeros(layer.up.shape[1:])
            down = torch.empty(rank, inputs)
            if adapter.settings.init == "gaussian":
                down.normal_(std=1 / rank, generator=generator)
            else:
                down.uniform_(-1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)  # as nn.Linear begins
        pieces += [down.flatten(), up.flatten()]
        if layer.length is not None:
            pieces.append(layer.base.weight.detach().float().norm(dim=1).cpu())
    return torch.cat(pieces).to(adapter.flat.device)


def _decompose(linear: nn.Linear, settings: LoraSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """First and second factor of PiSSA or OLoRA for a layer's weight, float32."""
    weight = linear.weight
    if not weight.is_floating_point():
        raise ConfigError(f"LoRA init {settings.init} needs the weights themselves, not a base in 4 bits; choose default or gaussian")
    if settings.rank > min(weight.shape):
        raise ConfigError(
            f"LoRA init {settings.init} with rank {settings.rank}: a layer has only {min(weight.shape)} directions; lower the rank"
        )
    full = weight.detach().float()
    if settings.init == "olora":
        q, r = torch.linalg.qr(full)
        return r[: settings.rank].contiguous(), q[:, : settings.rank].contiguous()
    u, s, v = torch.linalg.svd(full, full_matrices=False)
    root = (s[: settings.rank] / settings.scaling).sqrt()
    return root[:, None] * v[: settings.rank], u[:, : settings.rank] * root


def _fill(layer: LoraLinear, tensors: dict[str, torch.Tensor], name: str) -> None:
    """Lay a saved adapter's values into the first task's."""
    layer.down[0] = tensors[f"{PREFIX}{name}.lora_A.weight"].to(layer.down)
    layer.up[0] = tensors[f"{PREFIX}{name}.lora_B.weight"].to(layer.up)
    if layer.length is not None:
        layer.length[0] = tensors[f"{PREFIX}{name}.lora_magnitude_vector"].to(layer.length)

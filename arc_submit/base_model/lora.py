"""LoRA on a loaded base model: attached once, reset between tasks, saved in PEFT's file format.

The linear layers named by the settings are wrapped; the base's own weights are frozen and never written. All low-rank weights are views of
one flat float32 tensor, so that a reset is one copy, a clip one norm and an optimizer step one kernel. PEFT's own layers are not used:
they need three products and two additions where one product suffices (see `_MergedLinear`). Does not know tasks.

LoRA is Hu et al. 2021 (arXiv 2106.09685), rsLoRA Kalajdzievski 2023 (2312.03732), DoRA Liu et al. 2024 (2402.09353), PiSSA Meng et al. 2024
(2404.02948), OLoRA Buyukakyuz 2024 (2406.01775).
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from arc_submit.base_model.adapter_files import CONFIG, PREFIX, WEIGHTS, check_adapter
from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError


class LoraLinear(nn.Module):
    """A frozen linear layer with low-rank factors.

    Attributes:
        base: the layer itself.
        down: the first factor (PEFT's A), (rank, inputs).
        up: the second factor (PEFT's B), (outputs, rank).
        magnitude: for DoRA, the learned norm of each row of the weight, (outputs,). All three are views of the adapter's flat tensor.
        gradients: views of the same parts of its gradient; the backward pass adds to them itself.
        initial_factors: for PiSSA and OLoRA, down and up at the start; their product is subtracted.
        merged: (outputs, inputs), the effective weight, computed again when the flat tensor has changed; None where it is not stored.
    """

    def __init__(self, base: nn.Linear, scaling: float, flat: nn.Parameter, views: list[torch.Tensor], gradients: list[torch.Tensor]):
        super().__init__()
        self.base = base
        self.scaling = scaling
        self.flat = [flat]  # in a list, so that it is not registered as a parameter of the model
        self.down, self.up = views[:2]
        self.magnitude = views[2] if len(views) > 2 else None
        self.gradients = gradients
        self.initial_factors: tuple[torch.Tensor, torch.Tensor] | None = None
        self.merged: torch.Tensor | None = None
        self.row_scale: torch.Tensor | None = None  # DoRA's magnitude / norm of each row, of the stored effective weight
        self.version = -1  # of the flat tensor in the stored effective weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x of shape (rows, length, inputs)."""
        # Autocast would round the effective weight to 16 bits, in which the low-rank change is lost.
        if self.merged is None or torch.is_autocast_enabled(x.device.type):
            return self._unmerged(x)
        if self.version != self.flat[0]._version:
            self._merge(self.merged)
        # The flat tensor is an argument so that autograd calls the backward pass; its gradient is added there, and None is returned.
        merged: torch.Tensor = _MergedLinear.apply(x, self.flat[0], self)  # type: ignore[no-untyped-call]
        return merged

    @torch.no_grad()
    def _merge(self, merged: torch.Tensor) -> None:
        """Compute the effective weight: base + scaling * up @ down, and DoRA's rescaled rows."""
        torch.addmm(self.base.weight, self.up, self.down, alpha=self.scaling, out=merged)
        if self.initial_factors is not None:
            merged.sub_(self.initial_factors[1] @ self.initial_factors[0], alpha=self.scaling)
        if self.magnitude is not None:
            self.row_scale = self.magnitude / merged.norm(dim=1)
            merged.mul_(self.row_scale[:, None])
        self.version = self.flat[0]._version

    def _unmerged(self, x: torch.Tensor) -> torch.Tensor:
        """The base layer and the two low-rank products apart: for weights in 16 or 4 bits, in which the low-rank change would be lost."""
        out: torch.Tensor = self.base(x)
        change: torch.Tensor = _LowRank.apply(x.to(out.dtype), self.flat[0], self)  # type: ignore[no-untyped-call]
        if self.initial_factors is not None:
            initial_down, initial_up = (factor.to(out.dtype) for factor in self.initial_factors)
            change = change - (x.to(out.dtype) @ initial_down.mT) @ initial_up.mT * self.scaling
        if self.magnitude is None:
            return out + change
        with torch.no_grad():  # as in the paper, the norm is a constant in the backward pass
            norm = torch.addmm(self.base.weight.float(), self.up, self.down, alpha=self.scaling).norm(dim=1)
        bias = torch.zeros_like(out[..., :1]) if self.base.bias is None else self.base.bias
        scaled: torch.Tensor = _ScaledRows.apply(out - bias + change, self.flat[0], norm, self)  # type: ignore[no-untyped-call]
        return scaled + bias


class _MergedLinear(torch.autograd.Function):
    """The layer as one product with the effective weight, and gradients of the factors alone.

    Computed apart, x W + (x A) B takes two more thin products, three more in the backward pass, and a sum for each of them. With the
    effective weight W + A B stored, the forward pass and the gradient of x are one product each. The factors' gradients follow from two
    thin products each, or from the weight's gradient where that is cheaper. The product adds them to the flat gradient itself.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, flat: torch.Tensor, layer: LoraLinear) -> torch.Tensor:
        merged, bias = layer.merged, layer.base.bias
        assert merged is not None
        ctx.save_for_backward(x, merged)
        ctx.layer = layer
        return nn.functional.linear(x, merged, bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, merged = ctx.saved_tensors
        layer: LoraLinear = ctx.layer
        rank, (outputs, inputs) = len(layer.down), merged.shape
        flat_grad, flat_x = grad.reshape(-1, outputs), x.reshape(-1, inputs)
        grad_x = (flat_grad @ merged).view(x.shape) if ctx.needs_input_grad[0] else None
        # For each position the thin products cost 2 * rank * (inputs + outputs), the weight's gradient inputs * outputs.
        if layer.magnitude is None and inputs * outputs > 2 * rank * (inputs + outputs):
            _add_gradients(layer, flat_grad, flat_x, layer.down, layer.up)
            return grad_x, None, None
        grad_weight = flat_grad.mT @ flat_x
        if layer.magnitude is not None and layer.row_scale is not None:
            # merged = magnitude * unit row: the gradient along the row is the magnitude's, and the chain rule scales that of the rows.
            layer.gradients[2].add_((grad_weight * merged).sum(1) / layer.magnitude)
            grad_weight *= layer.row_scale[:, None]
        layer.gradients[0].addmm_(layer.up.mT, grad_weight, alpha=layer.scaling)
        layer.gradients[1].addmm_(grad_weight, layer.down.mT, alpha=layer.scaling)
        return grad_x, None, None


class _LowRank(torch.autograd.Function):
    """scaling * up @ down @ x in the dtype of x, with float32 gradients of the factors."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, flat: torch.Tensor, layer: LoraLinear) -> torch.Tensor:
        down, up = layer.down.to(x.dtype), layer.up.to(x.dtype)
        ctx.save_for_backward(x, down, up)
        ctx.layer = layer
        out = ((x.reshape(-1, x.shape[-1]) @ down.mT) @ up.mT).mul_(layer.scaling)
        return out.view(*x.shape[:-1], len(up))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, down, up = ctx.saved_tensors
        grad_low = _add_gradients(ctx.layer, grad.reshape(-1, len(up)), x.reshape(-1, x.shape[-1]), down, up)
        grad_x = (grad_low @ down).mul_(ctx.layer.scaling).view(x.shape) if ctx.needs_input_grad[0] else None
        return grad_x, None, None


class _ScaledRows(torch.autograd.Function):
    """DoRA's last part: outputs times magnitude / norm, with the gradient of the magnitude."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, flat: torch.Tensor, norm: torch.Tensor, layer: LoraLinear) -> torch.Tensor:
        assert layer.magnitude is not None
        scale = layer.magnitude / norm
        ctx.save_for_backward(x, norm, scale)
        ctx.layer = layer
        return x * scale.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, norm, scale = ctx.saved_tensors
        ctx.layer.gradients[2].add_((grad.float() * x.float()).view(-1, len(norm)).sum(0) / norm)
        return grad * scale.to(grad.dtype), None, None, None


def _add_gradients(layer: LoraLinear, grad: torch.Tensor, x: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Add both factors' gradients; `grad` and `x` are of shape (positions, width). Returns grad @ up, (positions, rank)."""
    grad_low = grad @ up
    if grad.dtype == torch.float32:
        layer.gradients[0].addmm_(grad_low.mT, x, alpha=layer.scaling)
        layer.gradients[1].addmm_(grad.mT, x @ down.mT, alpha=layer.scaling)
    else:  # products in 16 bits cannot add to float32 themselves
        layer.gradients[0].add_(grad_low.mT @ x, alpha=layer.scaling)
        layer.gradients[1].add_(grad.mT @ (x @ down.mT), alpha=layer.scaling)
    return grad_low


@dataclass
class Adapter:
    """Low-rank layers inside a model.

    Attributes:
        model: the base model with the layers in it.
        settings: of the layers.
        layers: by the wrapped module's name.
        flat: every low-rank weight, float32, (1, parameters): one row, its form in checkpoints of trainings. Its gradient has the same
            shape and always exists.
        initial: the values that a reset restores, (parameters,).
        continued: whether they are those of a trained base adapter.
        reason: why the effective weights are stored, or not.
    """

    model: Any
    settings: LoraSettings
    layers: dict[str, LoraLinear]
    flat: nn.Parameter
    initial: torch.Tensor
    continued: bool
    reason: str

    def mark_changed(self) -> None:
        """Have the layers compute their effective weights again.

        To be called after a fused optimizer's step, whose kernel does not raise the flat tensor's version.
        """
        torch.autograd.graph.increment_version(self.flat)


def attach(model: Any, settings: LoraSettings, seed: int, base_adapter: Path | None = None, merge: bool | None = None) -> Adapter:
    """Put low-rank layers into a loaded model, in place, and freeze the model.

    Args:
        model: a transformers model, already on its device.
        settings: of the layers; a base adapter's own configuration replaces them.
        seed: of the initial values.
        base_adapter: folder of a PEFT adapter to start from.
        merge: store the effective weights (one product for each layer, but a copy of the weights); None decides.

    Raises:
        ConfigError: where a target matches no linear layer, the model cannot take the base adapter, or the settings cannot work. The model
            is then unchanged.
    """
    if any(isinstance(module, LoraLinear) for module in model.modules()):
        raise ConfigError("this model has low-rank layers already; detach them first")
    tensors: dict[str, torch.Tensor] = {}
    if base_adapter is None:
        targets = find_targets(model, settings)
    else:
        settings, targets, tensors = _read_base_adapter(base_adapter, model)
    initial_factors = {name: _decompose(linear, settings) for name, linear in targets.items()}
    # Nothing is refused from here on.
    merge, reason = _choose_merge(targets) if merge is None else (merge, "as requested")
    model.requires_grad_(False)
    count = sum(math.prod(shape) for linear in targets.values() for shape in _shapes(linear, settings))
    device = next(iter(targets.values())).weight.device
    flat = nn.Parameter(torch.zeros(1, count, dtype=torch.float32, device=device))
    flat.grad = torch.zeros_like(flat)
    layers, offset = {}, 0
    for name, linear in targets.items():
        views, gradients = [], []
        for shape in _shapes(linear, settings):
            part = slice(offset, offset + math.prod(shape))
            views.append(flat.detach()[0, part].view(shape))
            gradients.append(flat.grad[0, part].view(shape))
            offset = part.stop
        layer = layers[name] = LoraLinear(linear, settings.scaling, flat, views, gradients)
        layer.initial_factors = initial_factors[name]
        if merge:
            layer.merged = torch.empty(linear.weight.shape, dtype=torch.float32, device=device)
        _replace_module(model, name, layer)
    adapter = Adapter(model, settings, layers, flat, torch.empty(0), base_adapter is not None, reason)
    if base_adapter is None:
        adapter.initial = _draw(adapter, seed)
    else:
        for name, layer in layers.items():
            _fill(layer, tensors, name)
        adapter.initial = flat.detach()[0].clone()
    reset(adapter)
    return adapter


def detach(adapter: Adapter) -> None:
    """Remove the layers; the model is then the base model as loaded."""
    for name, layer in adapter.layers.items():
        _replace_module(adapter.model, name, layer.base)


@contextmanager
def without_layers(adapter: Adapter) -> Iterator[None]:
    """The model is the base model as loaded within this context."""
    detach(adapter)
    try:
        yield
    finally:
        for name, layer in adapter.layers.items():
            _replace_module(adapter.model, name, layer)


def _replace_module(model: Any, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


@torch.no_grad()
def reset(adapter: Adapter, seed: int | None = None) -> None:
    """Restore the initial values and clear the gradient, in place.

    Args:
        seed: of fresh initial values, instead of those of `attach`. A base adapter, PiSSA and OLoRA have no random values and ignore it.
            The values depend on the seed alone, not on earlier training.
    """
    fresh = seed is not None and not adapter.continued and adapter.settings.init in ("default", "gaussian")
    adapter.flat.copy_(_draw(adapter, seed) if fresh and seed is not None else adapter.initial)
    assert adapter.flat.grad is not None
    adapter.flat.grad.zero_()


def save_adapter(adapter: Adapter, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the adapter in PEFT's format: completely, or not at all, whenever the process is killed.

    Args:
        folder: is created or replaced.
        dtype: of the factors in the file. The base's own dtype takes half the disk on a GPU and changes no prediction, because engines
            convert the factors to it. DoRA's magnitudes stay in float32.
    """
    from safetensors.torch import save_file

    settings = adapter.settings
    tensors = {}
    for name, layer in adapter.layers.items():
        down, up = layer.down, layer.up
        if layer.initial_factors is not None:
            down, up = torch.cat([down, layer.initial_factors[0]]), torch.cat([up, -layer.initial_factors[1]], dim=1)
        tensors[f"{PREFIX}{name}.lora_A.weight"] = down.to("cpu", dtype).contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = up.to("cpu", dtype).contiguous()
        if layer.magnitude is not None:
            tensors[f"{PREFIX}{name}.lora_magnitude_vector"] = layer.magnitude.cpu().contiguous()
    if settings.init in _DECOMPOSED:  # B A - B0 A0 is one product of twice the rank; a larger alpha leaves the scaling unchanged
        alpha = settings.alpha * (math.sqrt(2) if settings.rslora else 2)
        settings = replace(settings, rank=2 * settings.rank, alpha=alpha, init="default")
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
    # Written under another name and renamed when complete.
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, replaced = (folder.parent / f".{folder.name}.{suffix}.{os.getpid()}" for suffix in ("new", "old"))
    for leftover in (temporary, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    save_file(tensors, temporary / WEIGHTS, {"format": "pt"})
    (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        folder.rename(replaced)
    temporary.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def find_targets(model: Any, settings: LoraSettings) -> dict[str, nn.Linear]:
    """The linear layers that the settings name, by their full names.

    Raises:
        ConfigError: where a target matches none.
    """
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    chosen = {name: module for name, module in linears.items() if name.rpartition(".")[2] in settings.targets}
    missing = set(settings.targets) - {name.rpartition(".")[2] for name in chosen}
    if missing:
        head = model.get_output_embeddings()
        known = sorted({name.rpartition(".")[2] for name, module in linears.items() if module is not head})
        raise ConfigError(
            f"LoRA target {', '.join(sorted(missing))}: no linear layer of this model is called so; it has {', '.join(known)}"
        )
    return chosen


def _read_base_adapter(folder: Path, model: Any) -> tuple[LoraSettings, dict[str, nn.Linear], dict[str, torch.Tensor]]:
    """A base adapter's settings, the layers that it adapts in the model's order, and its tensors by name."""
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


def _choose_merge(targets: dict[str, nn.Linear]) -> tuple[bool, str]:
    """Whether to store effective weights, with the reason."""
    weight = next(iter(targets.values())).weight
    if weight.dtype != torch.float32:
        return False, f"{weight.dtype} weights would lose the small change"
    gigabytes = sum(linear.weight.numel() for linear in targets.values()) * 4 / 1e9
    if gigabytes > 0.25:
        # Every step computes them again at the cost of writing them, and beside a wide layer's own product the thin ones are cheap
        # (figures: docs/log.md).
        return False, f"{gigabytes:.1f} GB of effective weights, computed again after every step, would cost more than they save"
    return True, f"float32: one product a layer for {gigabytes:.2f} GB of effective weights"


def _draw(adapter: Adapter, seed: int) -> torch.Tensor:
    """Initial values, (parameters,), drawn on the CPU so that they are the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    pieces: list[torch.Tensor] = []
    for layer in adapter.layers.values():
        rank, inputs = layer.down.shape
        if layer.initial_factors is not None:
            down, up = (factor.cpu() for factor in layer.initial_factors)
        else:
            up = torch.zeros(layer.up.shape)
            down = torch.empty(rank, inputs)
            if adapter.settings.init == "gaussian":
                down.normal_(std=1 / rank, generator=generator)
            else:
                down.uniform_(-1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)  # as in nn.Linear
        pieces += [down.flatten(), up.flatten()]
        if layer.magnitude is not None:
            pieces.append(layer.base.weight.detach().float().norm(dim=1).cpu())
    return torch.cat(pieces).to(adapter.flat.device)


_DECOMPOSED = ("pissa", "olora")  # their factors start from a decomposition of the weight


def _decompose(linear: nn.Linear, settings: LoraSettings) -> tuple[torch.Tensor, torch.Tensor] | None:
    """First and second factor of PiSSA or OLoRA for a layer's weight, float32; None for other initialisations."""
    if settings.init not in _DECOMPOSED:
        return None
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


@torch.no_grad()
def _fill(layer: LoraLinear, tensors: dict[str, torch.Tensor], name: str) -> None:
    """Copy a saved adapter's values into a layer."""
    layer.down.copy_(tensors[f"{PREFIX}{name}.lora_A.weight"])
    layer.up.copy_(tensors[f"{PREFIX}{name}.lora_B.weight"])
    if layer.magnitude is not None:
        layer.magnitude.copy_(tensors[f"{PREFIX}{name}.lora_magnitude_vector"])

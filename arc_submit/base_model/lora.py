"""LoRA on a loaded base model: attached once, reset between tasks, saved in PEFT's file format.

The layers named by the settings are wrapped; the base's own weights are frozen and never written. All low-rank weights are views of one
flat float32 tensor, so that a reset is one copy, a clip one norm and an optimizer step one kernel. Embeddings and an output layer that
share their weights are changed apart, as in PEFT. Does not know tasks.

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

from arc_submit.base_model.adapter_files import CONFIG, WEIGHTS, check_adapter, check_copies, factor_names
from arc_submit.base_model.lora_layers import LoraEmbedding, LoraLinear
from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError

LoraLayer = LoraLinear | LoraEmbedding


@dataclass
class Adapter:
    """Low-rank layers inside a model.

    Attributes:
        model: the base model with the layers in it.
        settings: of the layers.
        layers: by the wrapped module's name.
        flat: every low-rank weight, float32, (1, parameters): one row, its form in checkpoints of trainings. Its gradient has the same
            shape and always exists.
        initial: the values that a reset restores, (parameters,), in the host's memory.
        continued: whether they are those of a trained base adapter.
        reason: why the effective weights are stored, or not.
    """

    model: Any
    settings: LoraSettings
    layers: dict[str, LoraLayer]
    flat: nn.Parameter
    initial: torch.Tensor
    continued: bool
    reason: str

    def mark_changed(self) -> None:
        """Have the layers compute their effective weights again.

        To be called after a fused optimizer's step, whose kernel does not raise the flat tensor's version.
        """
        torch.autograd.graph.increment_version(self.flat)

    def parameter_groups(self, rate: float) -> list[dict[str, Any]]:
        """The flat tensor for an optimizer, with its peak learning rate as "peak".

        Where embeddings and output layer have a rate of their own, it comes in parts, which share its values and gradient.
        """
        own = self.settings.embedding_learning_rate
        if own is None:
            return [{"params": [self.flat], "peak": rate}]
        assert self.flat.grad is not None
        ends = (self.model.get_input_embeddings(), self.model.get_output_embeddings())
        by_rate: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
        offset = 0
        for layer in self.layers.values():
            parts, begin = by_rate[any(layer is end for end in ends)], offset
            offset += sum(gradient.numel() for gradient in layer.gradients)
            if parts and parts[-1][1] == begin:
                begin = parts.pop()[0]
            parts.append((begin, offset))
        groups = []
        for at_ends, parts in by_rate.items():
            parameters = []
            for begin, end in parts:
                parameter = nn.Parameter(self.flat.detach()[:, begin:end])
                parameter.grad = self.flat.grad[:, begin:end]
                parameters.append(parameter)
            if parameters:
                groups.append({"params": parameters, "peak": own if at_ends else rate})
        return groups


def attach(
    model: Any,
    settings: LoraSettings,
    seed: int,
    base_adapter: Path | None = None,
    merge: bool | None = None,
    device: torch.device | None = None,
) -> Adapter:
    """Put low-rank layers into a loaded model, in place, and freeze the model.

    Args:
        model: a transformers model, already on its device.
        settings: of the layers; a base adapter's own configuration replaces them.
        seed: of the initial values.
        base_adapter: folder of a PEFT adapter to start from.
        merge: store the effective weights (one product for each layer, but a copy of the weights); None decides.
        device: of the low-rank weights, where the model comes to it later; None takes the model's.

    Raises:
        ConfigError: where a target matches no layer, the model cannot take the base adapter, or the settings cannot work. The model
            is then unchanged.
    """
    if any(isinstance(module, LoraLayer) for module in model.modules()):
        raise ConfigError("this model has low-rank layers already; detach them first")
    tensors: dict[str, torch.Tensor] = {}
    if base_adapter is None:
        targets = find_targets(model, settings)
    else:
        settings, targets, tensors = _read_base_adapter(base_adapter, model, settings)
    linears = {name: module for name, module in targets.items() if isinstance(module, nn.Linear)}
    initial_factors = {name: _decompose(linear, settings) for name, linear in linears.items()}
    # Nothing is refused from here on.
    merge, reason = _choose_merge(linears) if merge is None else (merge, "as requested")
    model.requires_grad_(False)
    count = sum(math.prod(shape) for module in targets.values() for shape in _shapes(module, settings))
    device = device or next(iter(targets.values())).get_parameter("weight").device
    flat = nn.Parameter(torch.zeros(1, count, dtype=torch.float32, device=device))
    flat.grad = torch.zeros_like(flat)
    layers: dict[str, LoraLayer] = {}
    offset = 0
    for name, module in targets.items():
        views, gradients = [], []
        for shape in _shapes(module, settings):
            part = slice(offset, offset + math.prod(shape))
            views.append(flat.detach()[0, part].view(shape))
            gradients.append(flat.grad[0, part].view(shape))
            offset = part.stop
        layers[name] = _make_layer(module, settings.scaling, flat, views, gradients)
        if isinstance(layer := layers[name], LoraLinear):
            factors = initial_factors[name]
            layer.initial_factors = factors and (factors[0].to(device), factors[1].to(device))
            layer.merged = torch.empty(layer.weight.shape, dtype=torch.float32, device=device) if merge else None
        _replace_module(model, name, layer)
    adapter = Adapter(model, settings, layers, flat, torch.empty(0), base_adapter is not None, reason)
    if base_adapter is None:
        _draw(adapter, seed)
    else:
        for name, layer in layers.items():
            _fill(layer, tensors, name)
    adapter.initial = flat.detach()[0].to("cpu", copy=True)
    return adapter


def _make_layer(
    module: nn.Module, scaling: float, flat: nn.Parameter, views: list[torch.Tensor], gradients: list[torch.Tensor]
) -> LoraLayer:
    if isinstance(module, nn.Embedding):
        return LoraEmbedding(module, scaling, flat, views, gradients)
    assert isinstance(module, nn.Linear)
    return LoraLinear(module, scaling, flat, views, gradients)


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
    if fresh and seed is not None:
        _draw(adapter, seed)
    else:
        adapter.flat.copy_(adapter.initial)
    assert adapter.flat.grad is not None
    adapter.flat.grad.zero_()


def save_adapter(adapter: Adapter, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the adapter in PEFT's format: completely, or not at all, whenever the process is killed.

    Args:
        folder: is created or replaced.
        dtype: of the factors in the file where the settings leave it open. The base's own dtype takes half the disk on a GPU and changes
            no prediction, because engines convert the factors to it. DoRA's magnitudes stay in float32.
    """
    from safetensors.torch import save_file

    settings = adapter.settings
    dtype = dtype if settings.dtype == "auto" else getattr(torch, settings.dtype)
    tensors = {}
    for name, layer in adapter.layers.items():
        down, up = layer.down, layer.up
        if layer.initial_factors is not None:
            down, up = torch.cat([down, layer.initial_factors[0]]), torch.cat([up, -layer.initial_factors[1]], dim=1)
        names = factor_names(name, layer.base)
        tensors[names[0]] = down.to("cpu", dtype).contiguous()
        tensors[names[1]] = up.to("cpu", dtype).contiguous()
        if layer.magnitude is not None:
            tensors[names[2]] = layer.magnitude.cpu().contiguous()
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


def find_targets(model: Any, settings: LoraSettings) -> dict[str, nn.Module]:
    """The linear layers, and the input embedding, that the settings name, by their full names.

    Raises:
        ConfigError: where a target matches none.
    """
    embedding = model.get_input_embeddings()
    known = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) or module is embedding}
    chosen = {name: module for name, module in known.items() if name.rpartition(".")[2] in settings.targets}
    missing = set(settings.targets) - {name.rpartition(".")[2] for name in chosen}
    if missing:
        names = sorted({name.rpartition(".")[2] for name in known})
        raise ConfigError(
            f"LoRA target {', '.join(sorted(missing))}: no linear layer of this model is called so; it has {', '.join(names)}"
        )
    return chosen


def _read_base_adapter(folder: Path, model: Any, given: LoraSettings) -> tuple[LoraSettings, dict[str, nn.Module], dict[str, torch.Tensor]]:
    """A base adapter's settings, the layers that it adapts in the model's order, and its tensors by name.

    Args:
        given: has what is no property of the adapter.
    """
    from safetensors.torch import load_file

    config, scales = check_adapter(folder, model)
    if len({config.of_layer(name) for name in scales}) > 1:
        raise ConfigError(f"adapter {folder}: its ranks or alphas differ from layer to layer; only one with the same in all is continued")
    rank, alpha = config.of_layer(next(iter(scales)))
    names = tuple(sorted({name.rpartition(".")[2] for name in scales}))
    try:
        settings = replace(given, rank=rank, alpha=alpha, targets=names, rslora=config.rslora, dora=config.dora, init="default")
    except ConfigError as error:
        raise ConfigError(f"adapter {folder}: {error}") from None
    check_copies(folder, model)
    return settings, {name: module for name, module in model.named_modules() if name in scales}, load_file(folder / WEIGHTS)


def _shapes(module: nn.Module, settings: LoraSettings) -> list[tuple[int, ...]]:
    if isinstance(module, nn.Embedding):
        return [(settings.rank, module.num_embeddings), (module.embedding_dim, settings.rank)]
    assert isinstance(module, nn.Linear)
    shapes: list[tuple[int, ...]] = [(settings.rank, module.in_features), (module.out_features, settings.rank)]
    return [*shapes, (module.out_features,)] if settings.dora else shapes


def _choose_merge(targets: dict[str, nn.Linear]) -> tuple[bool, str]:
    """Whether to store effective weights, with the reason."""
    weight = next((linear.weight for linear in targets.values()), None)
    if weight is None:
        return False, "no linear layer is adapted"
    if weight.dtype != torch.float32:
        return False, f"{weight.dtype} weights would lose the small change"
    gigabytes = sum(linear.weight.numel() for linear in targets.values()) * 4 / 1e9
    if gigabytes > 0.25:
        # Every step computes them again at the cost of writing them, and beside a wide layer's own product the thin ones are cheap
        # (figures: docs/log.md).
        return False, f"{gigabytes:.1f} GB of effective weights, computed again after every step, would cost more than they save"
    return True, f"float32: one product a layer for {gigabytes:.2f} GB of effective weights"


@torch.no_grad()
def _draw(adapter: Adapter, seed: int) -> None:
    """Fill the layers with initial values, which are drawn on the CPU so that they are the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    adapter.flat.zero_()
    for layer in adapter.layers.values():
        rank, inputs = layer.down.shape
        if layer.initial_factors is not None:
            layer.down.copy_(layer.initial_factors[0])
            layer.up.copy_(layer.initial_factors[1])
        elif isinstance(layer, LoraEmbedding):  # the other way round, as in PEFT: a token's column is learnt only where the token occurs
            layer.up.copy_(torch.empty(layer.up.shape).normal_(generator=generator))
        else:
            down = torch.empty(rank, inputs)
            if adapter.settings.init == "gaussian":
                down.normal_(std=1 / rank, generator=generator)
            else:
                down.uniform_(-1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)  # as in nn.Linear
            layer.down.copy_(down)
        if layer.magnitude is not None:
            layer.magnitude.copy_(layer.base.weight.detach().float().norm(dim=1))


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
def _fill(layer: LoraLayer, tensors: dict[str, torch.Tensor], name: str) -> None:
    """Copy a saved adapter's values into a layer."""
    names = factor_names(name, layer.base)
    layer.down.copy_(tensors[names[0]])
    layer.up.copy_(tensors[names[1]])
    if layer.magnitude is not None:
        layer.magnitude.copy_(tensors[names[2]])

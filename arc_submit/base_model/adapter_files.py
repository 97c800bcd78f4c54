"""Adapters at inference: a folder in PEFT format, applied to a base model whose weights do not change.

Each adapted layer, the input embedding among them, adds its low-rank product to its own output, in PEFT's order of operations, so that both
give the same tokens. LoRA with rsLoRA, alphas by module and DoRA is supported; an adapter with other features is refused by name. Does not
know how an adapter was trained.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open

from arc_submit.errors import ConfigError

T = TypeVar("T")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # PEFT's, before a module's name
_PART = re.compile(re.escape(PREFIX) + r"(.+)\.(lora_[AB]\.weight|lora_embedding_[AB]|lora_magnitude_vector)")
_COPY = re.compile(re.escape(PREFIX) + r"(.+)\.base_layer\.weight")  # PEFT adds the base's weights where embeddings are targets
# Initialisations that subtract themselves from the base: their low-rank part does not fit the original base.
_ALTERING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class AdapterConfig:
    """The configuration of a supported LoRA adapter.

    Attributes:
        rank, alpha: of every layer that the patterns do not name.
        rslora: the product is scaled by alpha / sqrt(rank) instead of alpha / rank.
        dora: the norms of the weight's rows are learned apart.
        rank_pattern, alpha_pattern: by regular expressions for the ends of layers' names.
        targets: last parts of the names of the adapted layers; empty where the configuration has an expression for them.
    """

    rank: int
    alpha: float
    rslora: bool
    dora: bool
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    targets: tuple[str, ...] = ()

    @property
    def largest_rank(self) -> int:
        """Of all layers."""
        return max([self.rank, *self.rank_pattern.values()])

    def of_layer(self, name: str) -> tuple[int, float]:
        """Rank and alpha of the layer of that name."""
        return _by_name(self.rank_pattern, name, self.rank), _by_name(self.alpha_pattern, name, self.alpha)


def _by_name(pattern: dict[str, T], name: str, otherwise: T) -> T:
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", name)), otherwise)


@dataclass(frozen=True)
class LowRank:
    """One layer's part of an adapter: it adds `scale * up(down(x))`; DoRA then scales the output without its bias.

    Attributes:
        down: (rank, inputs), in the base's dtype and on its device, like `up`. An embedding's inputs are its tokens, one hot.
        up: (outputs, rank).
        scale: alpha / rank, or alpha / sqrt(rank) with rsLoRA.
        row_scale: (outputs,), for DoRA: the learned norm of each row of the weight, divided by its own norm; None without DoRA.
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: float
    row_scale: torch.Tensor | None = None


def check_adapter(folder: Path, model: torch.nn.Module) -> tuple[AdapterConfig, dict[str, float]]:
    """An adapter's configuration and the scale of every layer that it adapts, from its configuration and the header of its weights.

    Raises:
        ConfigError: where the folder holds no adapter, one for another base, or one that is not plain LoRA.
    """
    config = read_config(folder)
    names: dict[str, dict[str, tuple[int, ...]]] = {}
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            for key in file.keys():  # noqa: SIM118 - it is no dict and cannot be iterated over
                if _COPY.fullmatch(key):
                    continue
                match = _PART.fullmatch(key)
                if not match:
                    raise ConfigError(f"adapter {folder}: {key} is no part of a LoRA; merge it into the base and give that as --model")
                names.setdefault(match[1], {})[match[2]] = tuple(file.get_slice(key).get_shape())
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"adapter {folder}: {WEIGHTS} cannot be read ({error}); remove the folder and train it again") from None
    layers = dict(model.named_modules())
    scales = {}
    for name, shapes in names.items():
        layer: Any = layers.get(name)
        rank, alpha = config.of_layer(name)
        embedding = isinstance(layer, torch.nn.Embedding)
        if not embedding and not isinstance(layer, torch.nn.Linear):
            raise ConfigError(f"adapter {folder}: the base has no linear layer {name}; it belongs to another model")
        if embedding and config.dora:
            raise ConfigError(f"adapter {folder}: {name} is an embedding with DoRA, which is not supported; merge it into the base")
        if shapes != _expected_shapes(layer, rank, config.dora):
            raise ConfigError(
                f"adapter {folder}: {name} has {shapes}, its rank is {rank} and the base's {tuple(layer.weight.shape)};"
                " it belongs to another model"
            )
        scales[name] = alpha / (math.sqrt(rank) if config.rslora else rank)
    if not scales:
        raise ConfigError(f"adapter {folder}: adapts no layer, and the base alone would answer; train it again")
    return config, scales


def _expected_shapes(layer: Any, rank: int, dora: bool) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer's tensors, by the last part of their names."""
    outputs, inputs = layer.weight.shape if isinstance(layer, torch.nn.Linear) else reversed(layer.weight.shape)
    shapes = dict(zip(_parts(layer), ((rank, inputs), (outputs, rank)), strict=True))
    return shapes | ({"lora_magnitude_vector": (outputs,)} if dora else {})


def _parts(layer: torch.nn.Module) -> tuple[str, str]:
    """PEFT's names of a layer's two factors."""
    if isinstance(layer, torch.nn.Embedding):
        return "lora_embedding_A", "lora_embedding_B"
    return "lora_A.weight", "lora_B.weight"


def factor_names(name: str, layer: torch.nn.Module) -> tuple[str, str, str]:
    """The names in PEFT's file of a layer's first and second factor, and of DoRA's magnitudes.

    Args:
        name: of the layer in the model.
        layer: the base's linear layer or embedding.
    """
    down, up = _parts(layer)
    return f"{PREFIX}{name}.{down}", f"{PREFIX}{name}.{up}", f"{PREFIX}{name}.lora_magnitude_vector"


def check_copies(folder: Path, model: Any) -> None:
    """Refuse an adapter whose copy of the base's embeddings, which PEFT adds where these are targets, is not the base's.

    Raises:
        ConfigError: naming the weights.
    """
    layers = dict(model.named_modules())
    with safe_open(folder / WEIGHTS, "pt") as file:
        for key in file.keys():  # noqa: SIM118 - it is no dict and cannot be iterated over
            if not (match := _COPY.fullmatch(key)):
                continue
            own = getattr(layers.get(match[1]), "weight", None)
            if own is not None and tuple(file.get_slice(key).get_shape()) == tuple(own.shape):
                copy = file.get_tensor(key).to(own.device, own.dtype)
                if torch.allclose(copy, own, rtol=2**-7, atol=1e-6):  # both may be rounded to 16 bits
                    continue
            raise ConfigError(
                f"adapter {folder}: its {match[1]} is not the base's: it was trained on another model or with more tokens; merge it into"
                " its own base and give that as --model"
            )


def read_adapter(folder: Path, model: Any) -> dict[str, LowRank]:
    """An adapter's weights by the name of the layer, in the base's dtype (as in vllm) and on its device.

    Raises:
        ConfigError: as `check_adapter` and `check_copies` do, or for DoRA on a base in 4 bits.
    """
    _, scales = check_adapter(folder, model)
    check_copies(folder, model)
    layers = dict(model.named_modules())
    low_rank = {}
    with safe_open(folder / WEIGHTS, "pt") as file:
        keys = set(file.keys())
        for name, scale in scales.items():
            weight = layers[name].weight
            dtype = weight.dtype if weight.is_floating_point() else model.dtype  # a base in 4 bits holds packed integers
            *factors, magnitude = factor_names(name, layers[name])
            down, up = (file.get_tensor(factor).to(weight.device, dtype) for factor in factors)
            row_scale = None
            if magnitude in keys:
                if not weight.is_floating_point():
                    raise ConfigError(f"adapter {folder}: DoRA needs the weights themselves, not a base in 4 bits; leave one of them out")
                norms = (weight.float() + scale * (up.float() @ down.float())).norm(dim=1)
                row_scale = (file.get_tensor(magnitude).to(weight.device).float() / norms).to(weight.dtype)
            low_rank[name] = LowRank(down, up, scale, row_scale)
    return low_rank


@contextmanager
def applied(model: torch.nn.Module, adapter: dict[str, LowRank]) -> Iterator[None]:
    """The model's layers add the adapter's products within this context, and do not afterwards."""
    layers = dict(model.named_modules())
    hooks = [layers[name].register_forward_hook(_make_hook(layers[name], low_rank)) for name, low_rank in adapter.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _make_hook(layer: torch.nn.Module, low_rank: LowRank) -> Any:
    def hook_of_embedding(layer: torch.nn.Embedding, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        hidden = torch.nn.functional.embedding(inputs[0], low_rank.down.mT)
        change = torch.nn.functional.linear(hidden, low_rank.up) * low_rank.scale
        scale = getattr(layer, "embed_scale", None)  # Gemma 3 scales its embeddings inside the layer
        return output + (change if scale is None else change * torch.as_tensor(scale, dtype=change.dtype, device=change.device))

    def hook(layer: torch.nn.Linear, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        hidden = torch.nn.functional.linear(inputs[0], low_rank.down)
        change = torch.nn.functional.linear(hidden, low_rank.up) * low_rank.scale
        if low_rank.row_scale is None:
            return output + change
        without_bias = output if layer.bias is None else output - layer.bias
        return output + (low_rank.row_scale - 1) * without_bias + low_rank.row_scale * change

    return hook_of_embedding if isinstance(layer, torch.nn.Embedding) else hook


def read_config(folder: Path) -> AdapterConfig:
    """An adapter's configuration.

    Raises:
        ConfigError: where there is none, or the adapter is not supported.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        targets = config.get("target_modules")
        adapter_config = AdapterConfig(
            int(config["r"]),
            float(config["lora_alpha"]),
            bool(config.get("use_rslora")),
            bool(config.get("use_dora")),
            {str(key): int(rank) for key, rank in (config.get("rank_pattern") or {}).items()},
            {str(key): float(alpha) for key, alpha in (config.get("alpha_pattern") or {}).items()},
            tuple(sorted({str(name).rpartition(".")[2] for name in targets})) if isinstance(targets, list) else (),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"adapter {folder}: no readable {CONFIG} ({type(error).__name__}: {error}); give a folder in PEFT format"
        ) from None
    if config.get("peft_type") != "LORA":
        raise ConfigError(f"adapter {folder}: its kind is {config.get('peft_type')}, only LORA is served")
    unsupported = {
        "bias": config.get("bias", "none") != "none" or config.get("lora_bias"),
        "modules_to_save": config.get("modules_to_save"),
        "trainable_token_indices": config.get("trainable_token_indices"),
        # Each of them makes another forward pass of the same two factors.
        **{name: config.get(name) for name in ("layer_replication", "alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config")},
        **{name: config.get(name) for name in ("monteclora_config", "kasa_config")},
    }
    if any(unsupported.values()):
        names = ", ".join(name for name, used in unsupported.items() if used)
        raise ConfigError(f"adapter {folder}: uses {names}, which cannot be served beside a base; merge it and give the result as --model")
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_ALTERING_INITS):
        raise ConfigError(f"adapter {folder}: made with {init}, which alters the base; convert it to plain LoRA when saving")
    return adapter_config

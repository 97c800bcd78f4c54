"""From hidden states to logits, as a model does it itself: its output layer, and the scale or soft cap that it has behind it.

The loss and the scores need logits at a few positions only, so they call the decoder and the head apart. Most heads are one linear layer;
Gemma, Granite and Cohere do more. The rest of the head is not written again here: the model's own forward pass runs with hidden states in
place of its decoder. Does not know decoders or losses.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch

from arc_submit.errors import ConfigError

_IS_LINEAR: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class OutputHead:
    """A model's head.

    Attributes:
        linear: its output layer.
        whole: the model with hidden states in place of its decoder; None where the output layer is all of the head.
    """

    linear: Any
    whole: Any | None

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits, (..., vocabulary), of hidden states after the last norm, (..., width)."""
        if self.whole is None:
            logits: torch.Tensor = self.linear(hidden)
            return logits
        flat = self.whole(inputs_embeds=hidden.reshape(1, -1, hidden.shape[-1]), use_cache=False).logits
        return flat.view(*hidden.shape[:-1], flat.shape[-1])  # type: ignore[no-any-return]


class _States:
    """A decoder's output with nothing but its hidden states."""

    def __init__(self, last_hidden_state: torch.Tensor):
        self.last_hidden_state = last_hidden_state

    def __getitem__(self, index: int) -> torch.Tensor:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        return None


class _GivenStates(torch.nn.Module):
    """A decoder that returns its input, and has all other attributes of the decoder in whose place it stands."""

    def __init__(self, decoder: torch.nn.Module):
        super().__init__()
        self.__dict__["_decoder"] = decoder  # not as a part of this module

    def forward(self, *_: Any, **given: Any) -> _States:
        return _States(given["inputs_embeds"])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_decoder"], name)


def output_head(model: Any) -> OutputHead:
    """The head of a causal language model of transformers, with the layers that are in the model now.

    Raises:
        ConfigError: where the model is not a decoder with a head behind it.
    """
    linear, decoder = model.get_output_embeddings(), model.get_decoder()
    place = decoder_place(model)
    whole = copy.copy(model)
    whole.__dict__["_modules"] = {**model._modules, place: _GivenStates(decoder)}
    if model not in _IS_LINEAR:
        _IS_LINEAR[model] = _is_linear(linear, OutputHead(linear, whole))
    return OutputHead(linear, None if _IS_LINEAR[model] else whole)


def decoder_place(model: Any) -> str:
    """The name of a model's decoder among its modules.

    Raises:
        ConfigError: where the model is not a decoder with a head behind it.
    """
    decoder = model.get_decoder()
    place: str | None = next((name for name, module in model._modules.items() if module is decoder), None)
    if place is None or model.get_output_embeddings() is None:
        raise ConfigError(
            f"model {model.config.name_or_path}: {type(model).__name__} is no decoder with an output layer behind it; give another model, "
            "or take --engine vllm without fine-tuning"
        )
    return place


@torch.no_grad()
def _is_linear(linear: Any, head: OutputHead) -> bool:
    """Whether the head does nothing behind its output layer, tried on logits so large that a soft cap would show."""
    width, device = linear.in_features, linear.weight.device
    with torch.autocast(device.type, enabled=False):
        dtype = linear.weight.dtype if linear.weight.is_floating_point() else torch.float32
        hidden = torch.linspace(-1, 1, 2 * width, device=device).view(2, width).to(dtype)
        hidden = hidden * (100 / linear(hidden).abs().max().clamp(min=1e-3))
        own, expected = head(hidden).float(), linear(hidden).float()
    return bool((own - expected).abs().max() <= 0.01 * expected.abs().max())

"""The transformers engine: greedy generation with a fixed number of slots, each refilled as soon as its answer ends.

A prompt is read alone, without padding, and its keys and values are laid into a free slot; then all slots take one token together. The
number of slots never changes, so every matrix product has the same shape whatever else is in the batch, and an answer does not
depend on which other requests run beside it or in which order (measured bit for bit in tests/test_engine.py). Transformers' own
generate pads prompts on the left, grows its cache by copying it for every token, and waits for the longest answer of a batch.
Knows nothing about grids.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from arc_submit.errors import ConfigError
from arc_submit.models.adapters import applied, check_adapter, read_adapter
from arc_submit.models.engine import Completion, Request
from arc_submit.models.loading import choose_dtype, load_model, load_tokenizer

ATTENTION = "sdpa_grouped"
# Lengths are rounded up to whole blocks of the CPU's attention kernel: what is masked then changes no sum's order.
_BLOCK = 512


def _grouped_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """SDPA in which one new token reads shared key-value heads without copying them.

    Transformers' version repeats keys and values for every group where there is a mask. With one query place the groups of a
    key-value head can stand as places of the query instead. Shapes: query (batch, heads, places, size), key and value
    (batch, key-value heads, length, size).
    """
    groups = query.shape[1] // key.shape[1]
    if query.shape[2] != 1 or groups == 1:
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return result
    batch, heads, _, size = query.shape
    folded = query.view(batch, heads // groups, groups, size)
    out = torch.nn.functional.scaled_dot_product_attention(folded, key, value, attn_mask=attention_mask, scale=kwargs.get("scaling"))
    return out.reshape(batch, 1, heads, size), None


AttentionInterface.register(ATTENTION, _grouped_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


class _SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers' types are not followed
    """One layer's keys and values, (slots, heads, length, size); each slot is written at its own place."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, places: torch.Tensor):
        super().__init__()
        self.keys, self.values, self.places = keys, values, places
        self.rows = torch.arange(keys.shape[0], device=keys.device)
        self.length = 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the tensors are given."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys[self.rows, :, self.places] = key_states[:, :, 0]
        self.values[self.rows, :, self.places] = value_states[:, :, 0]
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return int(self.keys.shape[2])


@dataclass
class _Running:
    """A request in its slot."""

    request: Request
    started: float
    tokens: list[int] = field(default_factory=list)
    logprob: float = 0.0


class TransformersEngine:
    """Greedy generation and scoring with a model of the transformers package.

    Args:
        model: a causal language model made with attention "sdpa_grouped".
        end_id: the token that ends an answer.
        slots: how many answers are written together; more of them use the device better and take more memory.
    """

    name = "transformers"

    def __init__(self, model: Any, end_id: int, slots: int = 16):
        if slots < 2:
            raise ConfigError(f"{slots} slots: at least 2 are needed")
        self.model = model
        self.end_id = end_id
        self.slots = slots
        self.device: torch.device = model.device
        self.limit: int = model.config.max_position_embeddings

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], on_step: Callable[[], None] | None = None) -> Iterator[Completion]:
        """Greedy completions, each given as soon as it ends; shorter prompts first, so that slots of like length run together.

        Requests of one adapter run together, those without one first: the slots then share every matrix product. The adapter is on
        the model until its last completion has been taken, so one call must end before the next begins.

        Raises:
            ConfigError: where a request is over the model's limit or its adapter cannot be served; nothing has been generated then.
        """
        for request in requests:
            if not 0 < len(request.prompt) < len(request.prompt) + request.max_new_tokens <= self.limit:
                raise ConfigError(
                    f"request {request.id}: {len(request.prompt)} prompt tokens and {request.max_new_tokens} to generate, "
                    f"the model takes 1 to {self.limit} in all; lower max_seq_len"
                )
        groups: dict[Path | None, list[Request]] = {}
        for request in sorted(requests, key=lambda r: r.adapter is not None):
            groups.setdefault(request.adapter, []).append(request)
        for folder in groups:
            if folder is not None:
                check_adapter(folder, self.model)
        for folder, group in groups.items():
            with applied(self.model, {} if folder is None else read_adapter(folder, self.model)):
                yield from self._generate(group, on_step)

    def _generate(self, requests: Sequence[Request], on_step: Callable[[], None] | None) -> Iterator[Completion]:
        """`generate` for requests that share their adapter, which is on the model."""
        waiting = sorted(requests, key=lambda r: len(r.prompt) + r.max_new_tokens, reverse=True)
        layers: list[_SlotLayer] = []
        running: list[_Running | None] = [None] * self.slots
        places = torch.zeros(self.slots, dtype=torch.long, device=self.device)
        next_ids = torch.zeros(self.slots, dtype=torch.long, device=self.device)
        while waiting or any(running):
            for slot in range(self.slots):
                while running[slot] is None and waiting:
                    request = waiting.pop()
                    state = _Running(request, time.monotonic())
                    token = self._prefill(request, state, slot, layers, places)
                    if on_step:
                        on_step()
                    next_ids[slot] = token
                    running[slot] = state
                    if self._ended(state):
                        running[slot] = None
                        yield self._completion(state)
            active = [slot for slot in range(self.slots) if running[slot] is not None]
            if not active:
                continue
            logprobs, tokens = self._step(next_ids, places, layers)
            if on_step:
                on_step()
            places += 1
            next_ids = tokens
            picked = logprobs.tolist(), tokens.tolist()
            for slot in active:
                current = running[slot]
                assert current is not None
                current.tokens.append(picked[1][slot])
                current.logprob += picked[0][slot]
                if self._ended(current):
                    running[slot] = None
                    places[slot] = 0
                    yield self._completion(current)
            for slot in range(self.slots):
                if running[slot] is None:
                    places[slot] = 0  # an idle slot writes over its first place again and again

    @torch.inference_mode()
    def score(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[float]:
        """Natural log of the probability of each continuation after the prompt under the base; the prompt is read once."""
        cache = DynamicCache()
        last = self._forward(torch.tensor([list(prompt)], device=self.device), past_key_values=cache)
        scores = []
        for continuation in continuations:
            ids = torch.tensor([list(continuation)], device=self.device)
            total = float(last.log_softmax(-1)[0, -1, ids[0, 0]])
            if ids.shape[1] > 1:
                hidden = self.model.model(input_ids=ids[:, :-1], past_key_values=cache, use_cache=True).last_hidden_state
                logprobs = self.model.lm_head(hidden).float().log_softmax(-1)
                total += float(logprobs[0].gather(1, ids[0, 1:, None]).sum())
                cache.crop(-(ids.shape[1] - 1))
            scores.append(total)
        return scores

    def _forward(self, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Logits of the last place, float32, shape (batch, 1, vocabulary)."""
        logits: torch.Tensor = self.model(input_ids=ids, use_cache=True, logits_to_keep=1, **kwargs).logits
        return logits.float()

    def _prefill(self, request: Request, state: _Running, slot: int, layers: list[_SlotLayer], places: torch.Tensor) -> int:
        """Read a prompt, lay its keys and values into a slot and return the first token."""
        cache = DynamicCache()
        logits = self._forward(torch.tensor([list(request.prompt)], device=self.device), past_key_values=cache)
        self._make_room(len(request.prompt) + request.max_new_tokens, cache, layers, places)
        for layer, read in zip(layers, cache.layers, strict=True):
            layer.keys[slot, :, : len(request.prompt)] = read.keys[0]
            layer.values[slot, :, : len(request.prompt)] = read.values[0]
        places[slot] = len(request.prompt)
        logprobs = logits[0, -1].log_softmax(-1)
        token = int(logprobs.argmax())
        state.tokens.append(token)
        state.logprob += float(logprobs[token])
        return token

    def _make_room(self, length: int, cache: Cache, layers: list[_SlotLayer], places: torch.Tensor) -> None:
        """Make the slots long enough for a request; what is in them is kept."""
        old = layers[0].keys.shape[2] if layers else 0
        if length <= old:
            return
        room = self._rounded(length)
        for i, read in enumerate(cache.layers):
            shape = (self.slots, read.keys.shape[1], room, read.keys.shape[3])
            keys, values = (torch.zeros(shape, dtype=read.keys.dtype, device=self.device) for _ in range(2))
            if layers and i < len(layers):
                keys[:, :, :old], values[:, :, :old] = layers[i].keys, layers[i].values
                layers[i].keys, layers[i].values = keys, values
            else:
                layers.append(_SlotLayer(keys, values, places))

    def _step(self, ids: torch.Tensor, places: torch.Tensor, layers: list[_SlotLayer]) -> tuple[torch.Tensor, torch.Tensor]:
        """One token for every slot: its log-probability and the token, each of shape (slots,)."""
        length = self._rounded(int(places.max()) + 1)
        for layer in layers:
            layer.length = length
        mask = torch.arange(length, device=self.device)[None, :] <= places[:, None]
        logits = self._forward(
            ids[:, None],
            attention_mask=mask[:, None, None, :],
            position_ids=places[:, None],
            past_key_values=Cache(layers=layers),
        )
        best = logits[:, -1].log_softmax(-1).max(-1)
        return best.values, best.indices

    @staticmethod
    def _rounded(length: int) -> int:
        return -(-length // _BLOCK) * _BLOCK

    def _ended(self, state: _Running) -> bool:
        return state.tokens[-1] == self.end_id or len(state.tokens) >= state.request.max_new_tokens

    def _completion(self, state: _Running) -> Completion:
        stopped = state.tokens[-1] == self.end_id
        return Completion(state.request.id, state.tokens, state.logprob, "stop" if stopped else "length", time.monotonic() - state.started)


def load_transformers_engine(folder: Path, device: torch.device, slots: int = 16) -> tuple[TransformersEngine, Any, str]:
    """An engine and its tokenizer from a model's folder, and the reason for its dtype."""
    tokenizer = load_tokenizer(folder)
    dtype, reason = choose_dtype(device)
    model = load_model(folder, device, dtype, ATTENTION)
    return TransformersEngine(model, tokenizer.eos_token_id, slots), tokenizer, reason

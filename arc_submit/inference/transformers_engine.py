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
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from arc_submit.base_model.adapter_files import applied, check_adapter, read_adapter
from arc_submit.base_model.loading import choose_dtype, load_model, load_tokenizer
from arc_submit.errors import ConfigError
from arc_submit.inference.engine import Completion, Request, check_requests

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


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers' types are not followed
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
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    logprob: float = 0.0
    finished: Literal["stop", "length", "hopeless"] = "length"

    def take(self, logprobs: torch.Tensor) -> int:
        """Take the next token by what may follow, shape (vocabulary,): the likeliest one, or one drawn at the request's temperature."""
        if self.request.temperature > 0:
            heated = (logprobs.double() / self.request.temperature).softmax(-1).cpu()
            token = int(torch.multinomial(heated, 1, generator=self.generator))
        else:
            token = int(logprobs.argmax())
        self.tokens.append(token)
        self.logprob += float(logprobs[token])
        return token


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
    def generate(
        self, requests: Sequence[Request], on_step: Callable[[], None] | None = None, until: float | None = None
    ) -> Iterator[Completion]:
        """Completions, each given as soon as it ends; shorter prompts first, so that slots of like length run together.

        Requests of one adapter run together, those without one first: the slots then share every matrix product. The adapter is on
        the model until its last completion has been taken, so one call must end before the next begins.

        Args:
            on_step: called after every forward pass.
            until: on the monotonic clock; what has not ended by then gives no completion.

        Raises:
            ConfigError: where a request is over the model's limit or its adapter cannot be served; nothing has been generated then.
        """
        for folder, group in self.by_adapter(requests).items():
            with self.adapted(folder):
                yield from self._generate(group, on_step, until)

    def by_adapter(self, requests: Sequence[Request]) -> dict[Path | None, list[Request]]:
        """Requests by their adapter, those without one first.

        Raises:
            ConfigError: where a request is over the model's limit or its adapter cannot be served.
        """
        check_requests(requests, self.limit)
        groups: dict[Path | None, list[Request]] = {}
        for request in sorted(requests, key=lambda r: r.adapter is not None):
            groups.setdefault(request.adapter, []).append(request)
        for folder in groups:
            if folder is not None:
                check_adapter(folder, self.model)
        return groups

    def check_adapter(self, folder: Path) -> None:
        """Refuse an adapter that cannot be served.

        Raises:
            ConfigError: naming it and what is wrong.
        """
        check_adapter(folder, self.model)

    def _generate(
        self, requests: Sequence[Request], on_step: Callable[[], None] | None, until: float | None = None
    ) -> Iterator[Completion]:
        """`generate` for requests that share their adapter, which is on the model."""
        waiting = sorted(requests, key=lambda r: len(r.prompt) + r.max_new_tokens, reverse=True)
        layers: list[SlotLayer] = []
        running: list[_Running | None] = [None] * self.slots
        places = torch.zeros(self.slots, dtype=torch.long, device=self.device)
        next_ids = torch.zeros(self.slots, dtype=torch.long, device=self.device)
        while waiting or any(running):
            for slot in range(self.slots):
                while running[slot] is None and waiting:
                    if until is not None and time.monotonic() >= until:
                        return
                    request = waiting.pop()
                    state = _Running(request, time.monotonic(), torch.Generator().manual_seed(request.seed))
                    token = state.take(self.prefill(request.prompt, request.max_new_tokens, slot, layers, places))
                    if on_step:
                        on_step()
                    next_ids[slot] = token
                    running[slot] = state
                    if self._ending(state):
                        running[slot] = None
                        yield self._completion(state)
            active = [slot for slot in range(self.slots) if running[slot] is not None]
            if not active:
                continue
            if until is not None and time.monotonic() >= until:
                return
            logprobs = self.step(next_ids, places, layers)
            if on_step:
                on_step()
            places += 1
            best = logprobs.max(-1)
            next_ids = best.indices
            picked = best.values.tolist(), best.indices.tolist()
            for slot in active:
                current = running[slot]
                assert current is not None
                if current.request.temperature > 0:
                    next_ids[slot] = current.take(logprobs[slot])
                else:
                    current.tokens.append(picked[1][slot])
                    current.logprob += picked[0][slot]
                if self._ending(current):
                    running[slot] = None
                    places[slot] = 0
                    yield self._completion(current)
            for slot in range(self.slots):
                if running[slot] is None:
                    places[slot] = 0  # an idle slot writes over its first place again and again

    @torch.inference_mode()
    def score(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]], adapter: Path | None = None) -> list[float]:
        """Natural log of the probability of each continuation after the prompt; the prompt is read once for all of them.

        Continuations of like length are read together, as many as there are slots; what pads the shorter ones stands behind them,
        where no token sees it.

        Raises:
            ConfigError: where one is empty or over the model's limit, or the adapter cannot be served.
        """
        longest = max(map(len, continuations), default=0)
        if not prompt or not all(continuations) or len(prompt) + longest > self.limit:
            raise ConfigError(
                f"cannot score {len(prompt)} prompt tokens with continuations of up to {longest}: the model takes 1 to {self.limit} in all"
            )
        scores = [0.0] * len(continuations)
        with self.adapted(adapter):
            shared = DynamicCache()
            first = self._forward(torch.tensor([list(prompt)], device=self.device), past_key_values=shared)[0, -1].log_softmax(-1)
            order = sorted(range(len(continuations)), key=lambda i: len(continuations[i]))
            for start in range(0, len(order), self.slots):
                group = order[start : start + self.slots]
                ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(list(continuations[i])) for i in group], batch_first=True)
                ids = ids.to(self.device)
                lengths = torch.tensor([len(continuations[i]) for i in group], device=self.device)
                values = first[ids[:, 0]]
                if ids.shape[1] > 1:
                    hidden = self.model.model(
                        input_ids=ids[:, :-1], past_key_values=_repeated(shared, len(group)), use_cache=True
                    ).last_hidden_state
                    # Row by row: the logits of a whole batch over a large vocabulary would be the largest tensor of all.
                    for row in range(len(group)):
                        known = int(lengths[row]) - 1
                        logprobs = self.model.lm_head(hidden[row, :known]).float().log_softmax(-1)
                        values[row] += logprobs.gather(1, ids[row, 1 : known + 1, None]).sum()
                for i, value in zip(group, values.tolist(), strict=True):
                    scores[i] = value
        return scores

    def _forward(self, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Logits of the last place, float32, shape (batch, 1, vocabulary)."""
        logits: torch.Tensor = self.model(input_ids=ids, use_cache=True, logits_to_keep=1, **kwargs).logits
        return logits.float()

    def adapted(self, folder: Path | None) -> AbstractContextManager[None]:
        """The model with an adapter on it while this is open.

        Raises:
            ConfigError: where the adapter cannot be served.
        """
        return applied(self.model, {} if folder is None else read_adapter(folder, self.model))

    def prefill(self, prompt: Sequence[int], room: int, slot: int, layers: list[SlotLayer], places: torch.Tensor) -> torch.Tensor:
        """Read a prompt and lay its keys and values into a slot.

        Args:
            room: tokens that may follow it.
            layers: empty at first; made and made longer here.
            places: (slots,), where each slot's next token goes.

        Returns what may follow: log-probabilities, float32, shape (vocabulary,).
        """
        cache = DynamicCache()
        logits = self._forward(torch.tensor([list(prompt)], device=self.device), past_key_values=cache)
        self._make_room(len(prompt) + room, cache, layers, places)
        for layer, read in zip(layers, cache.layers, strict=True):
            layer.keys[slot, :, : len(prompt)] = read.keys[0]
            layer.values[slot, :, : len(prompt)] = read.values[0]
        places[slot] = len(prompt)
        return logits[0, -1].log_softmax(-1)

    def _make_room(self, length: int, cache: Cache, layers: list[SlotLayer], places: torch.Tensor) -> None:
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
                layers.append(SlotLayer(keys, values, places))

    def step(self, ids: torch.Tensor, places: torch.Tensor, layers: list[SlotLayer]) -> torch.Tensor:
        """Write one token into every slot at its place; what stands in a slot behind that place is as if it were not there.

        Returns what may follow in every slot: log-probabilities, float32, shape (slots, vocabulary).
        """
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
        return logits[:, -1].log_softmax(-1)

    @staticmethod
    def _rounded(length: int) -> int:
        return -(-length // _BLOCK) * _BLOCK

    def _ending(self, state: _Running) -> bool:
        """Whether a request ends with its last token; notes how."""
        if state.tokens[-1] == self.end_id:
            state.finished = "stop"
        elif len(state.tokens) >= state.request.max_new_tokens:
            state.finished = "length"
        elif state.request.hopeless is not None and state.request.hopeless(state.tokens):
            state.finished = "hopeless"
        else:
            return False
        return True

    @staticmethod
    def _completion(state: _Running) -> Completion:
        return Completion(state.request.id, state.tokens, state.logprob, state.finished, time.monotonic() - state.started)


def _repeated(cache: Cache, rows: int) -> DynamicCache:
    """A cache of several rows that all begin with what a cache of one row holds; the one row stays as it is."""
    repeated = DynamicCache()
    for i, layer in enumerate(cache.layers):
        repeated.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), i)
    return repeated


def load_transformers_engine(folder: Path, device: torch.device, slots: int = 16) -> tuple[TransformersEngine, Any, str]:
    """An engine and its tokenizer from a model's folder, and the reason for its dtype."""
    tokenizer = load_tokenizer(folder)
    dtype, reason = choose_dtype(device)
    model = load_model(folder, device, dtype, ATTENTION)
    return TransformersEngine(model, tokenizer.eos_token_id, slots), tokenizer, reason

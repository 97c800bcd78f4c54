"""The transformers engine: generation with a fixed number of slots, each refilled as soon as its completion ends.

A prompt is read alone, without padding, and its keys and values are copied into a free slot; then all slots advance by one token together.
The number of slots is constant, so every matrix product has the same shape whichever requests run, and a completion does not depend, to the
last bit, on the other requests or their order. Transformers' own generate pads prompts on the left, grows its cache by copying it for every
token, and waits for the longest completion of a batch. Does not know grids.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers.cache_utils import Cache, DynamicCache

from arc_submit.base_model.adapter_files import applied, check_adapter, read_adapter
from arc_submit.base_model.loading import choose_dtype, load_model, load_tokenizer
from arc_submit.errors import ConfigError
from arc_submit.inference.engine import Completion, Request, group_by_adapter
from arc_submit.inference.slot_cache import ATTENTION, SlotCache


@dataclass
class _Running:
    """A request in its slot."""

    request: Request
    started: float
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    logprob: float = 0.0
    finished: Literal["stop", "length", "dead_end"] = "length"

    def choose(self, logprobs: torch.Tensor) -> int:
        """Append the next token, given its log-probabilities, shape (vocabulary,): the most probable one or a sampled one."""
        if self.request.temperature > 0:
            # The request's own generator, on the CPU: a sampled token does not depend on the other requests.
            heated = (logprobs.double() / self.request.temperature).softmax(-1).cpu()
            token = int(torch.multinomial(heated, 1, generator=self.generator))
        else:
            token = int(logprobs.argmax())
        self.append(token, float(logprobs[token]))
        return token

    def append(self, token: int, logprob: float) -> None:
        self.tokens.append(token)
        self.logprob += logprob

    def ends(self, end_id: int) -> bool:
        """Whether the request ends with its last token; sets `finished`."""
        if self.tokens[-1] == end_id:
            self.finished = "stop"
        elif len(self.tokens) >= self.request.max_new_tokens:
            self.finished = "length"
        elif self.request.dead_end is not None and self.request.dead_end(self.tokens):
            self.finished = "dead_end"
        else:
            return False
        return True

    def completion(self) -> Completion:
        return Completion(self.request.id, self.tokens, self.logprob, self.finished, time.monotonic() - self.started)


class TransformersEngine:
    """Generation and scoring with a model of the transformers package.

    Args:
        model: a causal language model with the attention implementation slot_cache.ATTENTION.
        end_id: the token that ends a completion.
        slots: completions generated side by side, at least 2; more of them use the device better and take more memory.
    """

    name = "transformers"

    def __init__(self, model: Any, end_id: int, slots: int = 16):
        if slots < 2:
            raise ConfigError(f"{slots} slots: at least 2 are needed")
        self.model = model
        self.end_id = end_id
        self.slots = slots
        self.device: torch.device = model.device
        self.context_length: int = model.config.max_position_embeddings

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[Request], on_step: Callable[[], None] | None = None, deadline: float | None = None
    ) -> Iterator[Completion]:
        """Yield each completion as soon as it ends.

        Requests of one adapter run together, those of the base model first, so that all slots share every matrix product. The adapter
        stays on the model until its last completion has been consumed: one call must end before the next begins.

        Args:
            on_step: called after every forward pass.
            deadline: on the monotonic clock; requests that are unfinished then give no completion.

        Raises:
            ConfigError: where a request exceeds the context length or its adapter cannot be served; before any token is generated.
        """
        for folder, group in self.by_adapter(requests).items():
            with self.adapted(folder):
                yield from self._generate(group, on_step, deadline)

    def by_adapter(self, requests: Sequence[Request]) -> dict[Path | None, list[Request]]:
        """Requests by adapter, those of the base model first.

        Raises:
            ConfigError: where a request exceeds the context length or its adapter cannot be served.
        """
        return group_by_adapter(self, sorted(requests, key=lambda r: r.adapter is not None))

    def check_adapter(self, folder: Path) -> None:
        """Refuse an adapter that cannot be served.

        Raises:
            ConfigError: naming the adapter and its fault.
        """
        check_adapter(folder, self.model)

    def _generate(self, requests: Sequence[Request], on_step: Callable[[], None] | None, deadline: float | None) -> Iterator[Completion]:
        """`generate` for requests that share the adapter on the model."""
        # The shortest is popped first: neighbours in the slots then have similar lengths, and few steps attend to a long tail of padding.
        waiting = sorted(requests, key=lambda r: len(r.prompt) + r.max_new_tokens, reverse=True)
        cache = SlotCache(self.slots, self.device)
        running: list[_Running | None] = [None] * self.slots
        next_ids = torch.zeros(self.slots, dtype=torch.long, device=self.device)
        while waiting or any(running):
            for slot in range(self.slots):
                # A loop, because a completion may end with its first token and leave the slot free again.
                while running[slot] is None and waiting:
                    if deadline is not None and time.monotonic() >= deadline:
                        return
                    request = waiting.pop()
                    state = _Running(request, time.monotonic(), torch.Generator().manual_seed(request.seed))
                    next_ids[slot] = state.choose(self.prefill(request, slot, cache))
                    if on_step:
                        on_step()
                    running[slot] = state
                    if state.ends(self.end_id):
                        running[slot] = None
                        yield state.completion()
            active = [slot for slot in range(self.slots) if running[slot] is not None]
            if not active:
                continue
            if deadline is not None and time.monotonic() >= deadline:
                return
            logprobs = self.step(next_ids, cache)
            if on_step:
                on_step()
            cache.positions += 1
            best = logprobs.max(-1)
            next_ids = best.indices
            # One transfer from the device for all greedy slots instead of one for each.
            best_ids, best_logprobs = best.indices.tolist(), best.values.tolist()
            for slot in active:
                current = running[slot]
                assert current is not None
                if current.request.temperature > 0:
                    next_ids[slot] = current.choose(logprobs[slot])
                else:
                    current.append(best_ids[slot], best_logprobs[slot])
                if current.ends(self.end_id):
                    running[slot] = None
                    yield current.completion()
            # The position of an idle slot must not lengthen the attention of the others.
            for slot in range(self.slots):
                if running[slot] is None:
                    cache.positions[slot] = 0

    @torch.inference_mode()
    def score(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]], adapter: Path | None = None) -> list[float]:
        """Natural log of the probability of each continuation after the prompt; the prompt is read once for all of them.

        Continuations of similar length are read together, as many as there are slots. The shorter ones are padded at their end, where
        causal attention hides the padding from every scored token.

        Raises:
            ConfigError: where a continuation is empty or exceeds the context length, or the adapter cannot be served.
        """
        longest = max(map(len, continuations), default=0)
        if not prompt or not all(continuations) or len(prompt) + longest > self.context_length:
            raise ConfigError(
                f"cannot score {len(prompt)} prompt tokens with continuations of up to {longest}: "
                f"the model takes 1 to {self.context_length} in all"
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
                    repeated = _repeat(shared, len(group))
                    hidden = self.model.model(input_ids=ids[:, :-1], past_key_values=repeated, use_cache=True).last_hidden_state
                    # Row by row: the logits of a whole batch over a large vocabulary would be the largest tensor of all.
                    for row in range(len(group)):
                        known = int(lengths[row]) - 1
                        logprobs = self.model.lm_head(hidden[row, :known]).float().log_softmax(-1)
                        values[row] += logprobs.gather(1, ids[row, 1 : known + 1, None]).sum()
                for i, value in zip(group, values.tolist(), strict=True):
                    scores[i] = value
        return scores

    def adapted(self, folder: Path | None) -> AbstractContextManager[None]:
        """A context in which the model carries an adapter.

        Raises:
            ConfigError: where the adapter cannot be served.
        """
        return applied(self.model, {} if folder is None else read_adapter(folder, self.model))

    def prefill(self, request: Request, slot: int, cache: SlotCache) -> torch.Tensor:
        """Read a request's prompt into a slot of the cache.

        Returns the log-probabilities of the first token to generate, float32, shape (vocabulary,).
        """
        prompt_cache = DynamicCache()
        logits = self._forward(torch.tensor([list(request.prompt)], device=self.device), past_key_values=prompt_cache)
        cache.fill(slot, prompt_cache, len(request.prompt), request.max_new_tokens)
        return logits[0, -1].log_softmax(-1)

    def step(self, ids: torch.Tensor, cache: SlotCache) -> torch.Tensor:
        """Read one token in every slot, shape (slots,), at the slot's position.

        Returns the log-probabilities of the tokens that follow, float32, shape (slots, vocabulary).
        """
        return self._forward(ids[:, None], **cache.attend())[:, -1].log_softmax(-1)

    def _forward(self, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Logits of the last position, float32, shape (batch, 1, vocabulary)."""
        logits: torch.Tensor = self.model(input_ids=ids, use_cache=True, logits_to_keep=1, **kwargs).logits
        return logits.float()


def _repeat(cache: Cache, rows: int) -> DynamicCache:
    """A new cache of several rows that each begin with the content of a cache of one row, which is unchanged."""
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

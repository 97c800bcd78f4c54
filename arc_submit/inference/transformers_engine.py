"""The transformers engine: generation with a fixed number of slots, each refilled as soon as its completion ends.

A prompt is read alone, without padding, and its keys and values are copied into a free slot; then all slots advance by one token together.
The number of slots is constant, so every matrix product has the same shape whichever requests run, and a completion does not depend, to the
last bit, on the other requests or their order. Transformers' own generate pads prompts on the left, grows its cache by copying it for every
token, and waits for the longest completion of a batch. Does not know grids.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from transformers.cache_utils import Cache, DynamicCache

from arc_submit.base_model.adapter_files import applied, check_adapter, read_adapter
from arc_submit.base_model.architecture import context_length
from arc_submit.base_model.out_of_memory import free_cached_memory, is_out_of_memory
from arc_submit.base_model.output_head import output_head
from arc_submit.base_model.precision import explain_not_finite
from arc_submit.errors import ConfigError
from arc_submit.inference.engine import Completion, OnStep, Request, ScoringMemoryError, group_by_adapter
from arc_submit.inference.slot_cache import SlotCache

_LOGITS = 1 << 26  # logits of an answer in memory at a time: 256 MB in float32


class SlotState(Protocol):
    """A request in a slot, from its prefill to its end."""

    request: Request

    def take(self, logprobs: torch.Tensor, best: tuple[int, float]) -> Iterator[Completion]:
        """Process the distribution of the next token and yield the completions that end with it.

        Args:
            logprobs: shape (vocabulary,).
            best: the most probable token and its log-probability.
        """
        ...

    def next(self) -> tuple[int, int] | None:
        """The token to read next and its index among the generated tokens; None where the request is finished."""
        ...


class _Generation:
    """One completion, of the most probable or of sampled tokens."""

    def __init__(self, request: Request, end_ids: tuple[int, ...]):
        self.request = request
        self._end_ids = end_ids
        self._started = time.monotonic()
        # The request's own generator, on the CPU: a sampled token does not depend on the other requests.
        self._generator = torch.Generator().manual_seed(request.seed)
        self._tokens: list[int] = []
        self._logprob = 0.0
        self._finished = False

    def take(self, logprobs: torch.Tensor, best: tuple[int, float]) -> Iterator[Completion]:
        token, logprob = best
        if self.request.temperature > 0:
            heated = (logprobs.double() / self.request.temperature).softmax(-1).cpu()
            token = int(torch.multinomial(heated, 1, generator=self._generator))
            logprob = float(logprobs[token])
        self._tokens.append(token)
        self._logprob += logprob
        finished: Literal["stop", "length", "dead_end"]
        if token in self._end_ids:
            finished = "stop"
        elif len(self._tokens) >= self.request.max_new_tokens:
            finished = "length"
        elif self.request.dead_end is not None and self.request.dead_end(self._tokens):
            finished = "dead_end"
        else:
            return
        self._finished = True
        yield Completion(self.request.id, self._tokens, self._logprob, finished, time.monotonic() - self._started)

    def next(self) -> tuple[int, int] | None:
        return None if self._finished else (self._tokens[-1], len(self._tokens) - 1)


class TransformersEngine:
    """Generation and scoring with a model of the transformers package.

    Args:
        model: a causal language model with the attention implementation base_model.attention.ATTENTION.
        end_id: the token that ends a completion of a request without end tokens of its own.
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
        self.context_length: int = context_length(model.config)

    def generate(self, requests: Sequence[Request], on_step: OnStep = None, deadline: float | None = None) -> Iterator[Completion]:
        """See `Engine.generate`; one call must end before the next begins."""
        return self.run(requests, lambda request: _Generation(request, request.end_ids or (self.end_id,)), on_step, deadline)

    def check_adapter(self, folder: Path) -> None:
        """See `Engine.check_adapter`."""
        check_adapter(folder, self.model)

    @torch.inference_mode()
    def run(
        self, requests: Sequence[Request], start: Callable[[Request], SlotState], on_step: OnStep, deadline: float | None
    ) -> Iterator[Completion]:
        """The completions of any kind of decoding, see `Engine.generate`.

        Requests of one adapter run together, those of the base model first, so that all slots share every matrix product. The adapter
        stays on the model until its last completion has been consumed.

        Args:
            start: makes a request's state; called just before its prefill.
        """
        groups = group_by_adapter(self, sorted(requests, key=lambda r: r.adapter is not None))
        for folder, group in groups.items():
            with self._adapted(folder):
                yield from self._run(group, start, on_step, deadline)

    def _run(
        self, requests: Sequence[Request], start: Callable[[Request], SlotState], on_step: OnStep, deadline: float | None
    ) -> Iterator[Completion]:
        """`run` for requests that share the adapter on the model."""
        # The shortest is popped first: neighbours in the slots then have similar lengths, and few steps attend to a long tail of padding.
        waiting = sorted(requests, key=lambda r: len(r.prompt) + r.max_new_tokens, reverse=True)
        cache = SlotCache(self.slots, self.device)
        running: list[SlotState | None] = [None] * self.slots
        while True:
            for slot in range(self.slots):
                # A loop, because a request may end with its first token and leave the slot free again.
                while waiting and running[slot] is None:
                    if is_past(deadline):
                        return
                    state = start(waiting.pop())
                    logprobs = self._prefill(state.request, slot, cache)
                    if on_step:
                        on_step()
                    best = int(logprobs.argmax())
                    running[slot] = yield from self._take(state, logprobs, (best, float(logprobs[best])))
            if not any(running) or is_past(deadline):
                return
            # An idle slot reads token 0 at position 0, so that it does not lengthen the attention of the others.
            tokens, positions = [0] * self.slots, [0] * self.slots
            for slot, current in enumerate(running):
                if current and (following := current.next()):
                    tokens[slot], positions[slot] = following[0], len(current.request.prompt) + following[1]
            steps = self.step(tokens, positions, cache)
            if on_step:
                on_step()
            # One transfer from the device for all slots instead of one for each.
            values, ids = (column.tolist() for column in steps.max(-1))
            for slot, current in enumerate(running):
                if current:
                    running[slot] = yield from self._take(current, steps[slot], (ids[slot], values[slot]))

    def _take(self, state: SlotState, logprobs: torch.Tensor, best: tuple[int, float]) -> Generator[Completion, None, SlotState | None]:
        """Yield what ends with these log-probabilities; returns the request's state, or None where it is finished."""
        if math.isnan(best[1]):
            yield Completion(state.request.id, [], 0.0, "failed", 0.0, explain_not_finite(self.model))
            return None
        yield from state.take(logprobs, best)
        return state if state.next() else None

    @torch.inference_mode()
    def score(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]], adapter: Path | None = None) -> list[float]:
        """Natural log of the probability of each continuation after the prompt; the prompt is read once for all of them.

        Continuations of similar length are read together, as many as there are slots, or as memory suffices for. The shorter ones are
        padded at their end, where causal attention hides the padding from every scored token.

        Raises:
            ConfigError: where a continuation is empty or exceeds the context length, the adapter cannot be served, or the logits are not
                numbers.
            ScoringMemoryError: where memory does not suffice for a single continuation.
        """
        longest = max(map(len, continuations), default=0)
        if not prompt or not all(continuations) or len(prompt) + longest > self.context_length:
            raise ConfigError(
                f"cannot score {len(prompt)} prompt tokens with continuations of up to {longest}: "
                f"the model takes 1 to {self.context_length} in all"
            )
        try:
            with self._adapted(adapter):
                scores = self._score(prompt, continuations)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ScoringMemoryError(
                f"out of memory with {len(prompt)} prompt tokens and an answer of up to {longest}; lower --max-seq-len, or use a device "
                "with more memory"
            ) from None
        if any(map(math.isnan, scores)):
            raise ConfigError(explain_not_finite(self.model))
        return scores

    def _score(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[float]:
        """`score` for arguments that are in order, with the adapter on the model."""
        scores = [0.0] * len(continuations)
        shared = DynamicCache()
        first = self._forward(torch.tensor([list(prompt)], device=self.device), past_key_values=shared)[0, -1].log_softmax(-1)
        waiting = sorted(range(len(continuations)), key=lambda i: len(continuations[i]))
        together = self.slots
        while waiting:
            group = waiting[:together]
            values: list[float] = []
            try:
                values = self._score_group(first, shared, [continuations[i] for i in group])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or len(group) == 1:
                    raise
                together = len(group) // 2
            if not values:  # outside the handler: the exception holds the tensors of the failed pass
                free_cached_memory(self.device)
                continue
            waiting = waiting[len(group) :]
            for i, value in zip(group, values, strict=True):
                scores[i] = value
        return scores

    def _score_group(self, first: torch.Tensor, shared: Cache, group: Sequence[Sequence[int]]) -> list[float]:
        """The scores of continuations that are read together.

        Args:
            first: log-probabilities of the first token, (vocabulary,).
            shared: the cache of the prompt.
        """
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(list(one)) for one in group], batch_first=True)
        ids = ids.to(self.device)
        values = first[ids[:, 0]]
        if ids.shape[1] > 1:
            repeated = _repeat(shared, len(group))
            hidden = self.model.get_decoder()(input_ids=ids[:, :-1], past_key_values=repeated, use_cache=True).last_hidden_state
            # Row by row: the logits of a whole batch over a large vocabulary would be the largest tensor of all.
            for row, one in enumerate(group):
                values[row] += self._sum_logprobs(hidden[row, : len(one) - 1], ids[row, 1 : len(one)])
        return values.tolist()

    def _sum_logprobs(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """The log-probability of tokens, (length,), each after its hidden state, (length, width)."""
        head = output_head(self.model)
        count = max(1, _LOGITS // head.linear.out_features)
        pieces = zip(torch.split(hidden, count), torch.split(ids, count), strict=True)
        return torch.stack([head(states).float().log_softmax(-1).gather(1, own[:, None]).sum() for states, own in pieces]).sum()

    def _adapted(self, folder: Path | None) -> AbstractContextManager[None]:
        """A context in which the model carries an adapter."""
        return applied(self.model, {} if folder is None else read_adapter(folder, self.model))

    def _prefill(self, request: Request, slot: int, cache: SlotCache) -> torch.Tensor:
        """Read a request's prompt into a slot of the cache.

        Returns the log-probabilities of the first token to generate, float32, shape (vocabulary,).
        """
        prompt_cache = DynamicCache()
        logits = self._forward(torch.tensor([list(request.prompt)], device=self.device), past_key_values=prompt_cache)
        cache.fill(slot, prompt_cache, len(request.prompt), request.max_new_tokens)
        return logits[0, -1].log_softmax(-1)

    def step(self, tokens: list[int], positions: list[int], cache: SlotCache) -> torch.Tensor:
        """Read one token in every slot, each at its own position.

        Returns the log-probabilities of the tokens that follow, float32, shape (slots, vocabulary).
        """
        ids = torch.tensor(tokens, device=self.device)[:, None]
        return self._forward(ids, **cache.attend(positions))[:, -1].log_softmax(-1)

    def _forward(self, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Logits of the last position, float32, shape (batch, 1, vocabulary)."""
        logits: torch.Tensor = self.model(input_ids=ids, use_cache=True, logits_to_keep=1, **kwargs).logits
        return logits.float()


def is_past(deadline: float | None) -> bool:
    """Whether a time on the monotonic clock has come; None never comes."""
    return deadline is not None and time.monotonic() >= deadline


def _repeat(cache: Cache, rows: int) -> DynamicCache:
    """A new cache of several rows that each begin with the content of a cache of one row, which is unchanged."""
    repeated = DynamicCache()
    for i, layer in enumerate(cache.layers):
        repeated.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), i)
    return repeated

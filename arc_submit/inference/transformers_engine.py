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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from transformers.cache_utils import Cache, DynamicCache

from arc_submit.base_model.adapter_files import CONFIG, WEIGHTS, LowRank, applied, check_adapter, read_adapter
from arc_submit.base_model.architecture import context_length
from arc_submit.base_model.out_of_memory import free_cached_memory, is_out_of_memory
from arc_submit.base_model.output_head import output_head
from arc_submit.base_model.precision import explain_not_finite
from arc_submit.errors import ConfigError
from arc_submit.inference.engine import Completion, OnStep, Request, ScoringMemoryError, group_by_adapter, without_memory
from arc_submit.inference.slot_cache import SlotCache

_LOGITS = 1 << 26  # logits of an answer in memory at a time: 256 MB in float32


@dataclass(frozen=True)
class NextToken:
    """The distribution of a slot's next token.

    Attributes:
        logprobs: shape (vocabulary,), on the device: reading it makes the host wait.
        best: the most probable token and its log-probability, on the host.
        top: the most probable tokens with their log-probabilities, the highest first, on the host; as many as the state's `choices`.
    """

    logprobs: torch.Tensor
    best: tuple[int, float]
    top: Sequence[tuple[int, float]]


class SlotState(Protocol):
    """A request in a slot, from its prefill to its end.

    Attributes:
        choices: how many of the most probable tokens `take` is given.
    """

    request: Request
    choices: int

    def take(self, following: NextToken) -> Iterator[Completion]:
        """Process the distribution of the next token and yield the completions that end with it."""
        ...

    def next(self) -> tuple[int, int] | None:
        """The token to read next and its index among the generated tokens; None where the request is finished."""
        ...

    def before(self) -> Sequence[int]:
        """The generated tokens before the one that `next` gives."""
        ...


class _Generation:
    """One completion, of the most probable or of sampled tokens."""

    choices = 0

    def __init__(self, request: Request, end_ids: tuple[int, ...]):
        self.request = request
        self._end_ids = end_ids
        self._started = time.monotonic()
        # The request's own generator, on the CPU: a sampled token does not depend on the other requests.
        self._generator = torch.Generator().manual_seed(request.seed)
        self._tokens: list[int] = []
        self._logprob = 0.0
        self._finished = False

    def take(self, following: NextToken) -> Iterator[Completion]:
        token, logprob = following.best
        if self.request.temperature > 0:
            heated = (following.logprobs.double() / self.request.temperature).softmax(-1).cpu()
            token = int(torch.multinomial(heated, 1, generator=self._generator))
            logprob = float(following.logprobs[token])
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

    def before(self) -> Sequence[int]:
        return self._tokens[:-1]


@dataclass
class _Queue:
    """The requests of one adapter that are not finished.

    Attributes:
        waiting: not begun, the next one last.
        begun: begun, without a slot, the next one last.
        running: by slot; None for a free one.
    """

    waiting: list[Request]
    begun: list[SlotState] = field(default_factory=list)
    running: list[SlotState | None] = field(default_factory=list)


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
        # The adapter that was read last, with what identifies its files. One is kept: as many as the memory plan counts.
        self._kept: tuple[tuple[Any, ...], dict[str, LowRank]] | None = None

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
        stays on the model until its last completion has been consumed. Out of memory is no end: see `_run`.

        Args:
            start: makes a request's state; called just before its prefill.
        """
        groups = group_by_adapter(self, sorted(requests, key=lambda r: r.adapter is not None))
        for folder, group in groups.items():
            adapter = None
            try:
                adapter = self._adapter(folder)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if adapter is None:
                yield from (Completion(one.id, [], 0.0, "failed", 0.0, f"adapter {folder}: out of memory") for one in group)
                continue
            with applied(self.model, adapter):
                yield from self._run(group, start, on_step, deadline)

    def _run(
        self, requests: Sequence[Request], start: Callable[[Request], SlotState], on_step: OnStep, deadline: float | None
    ) -> Iterator[Completion]:
        """`run` for requests that share the adapter on the model.

        Where memory does not suffice, the cache is emptied and work goes on with half of the slots. A request that has lost its slot goes
        on from the tokens that it has. One that does not fit alone fails, and the others go on.
        """
        # The shortest is popped first: neighbours in the slots then have similar lengths, and few steps attend to a long tail of padding.
        queue = _Queue(sorted(requests, key=lambda r: len(r.prompt) + r.max_new_tokens, reverse=True))
        slots = self.slots
        while True:
            try:
                yield from self._decode(queue, slots, start, on_step, deadline)
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            free_cached_memory(self.device)  # outside the handler: the exception holds the tensors of the failed pass
            queue.begun += [state for state in reversed(queue.running) if state]
            if slots > 1:
                slots //= 2
                print(f"out of memory: {slots} answers side by side from here on", flush=True)
            else:
                yield without_memory(queue.begun.pop().request if queue.begun else queue.waiting.pop())

    def _decode(
        self, queue: _Queue, slots: int, start: Callable[[Request], SlotState], on_step: OnStep, deadline: float | None
    ) -> Iterator[Completion]:
        """The completions of a queue with a number of slots. At any exception the queue holds what is not finished."""
        queue.running = [None] * slots
        cache = SlotCache(slots, self.device)
        while True:
            for slot in range(slots):
                # A loop, because a request may end with its first token and leave the slot free again.
                while (queue.begun or queue.waiting) and queue.running[slot] is None:
                    if is_past(deadline):
                        return
                    if queue.begun:
                        state = queue.begun[-1]
                        self._prefill(state.request, state.before(), slot, cache)
                        queue.running[slot] = queue.begun.pop()
                    else:
                        state = start(queue.waiting[-1])
                        logprobs = self._prefill(state.request, (), slot, cache)
                    if on_step:
                        on_step()
                    if queue.running[slot] is None:
                        (first,) = self._read(logprobs[None], [state])
                        going_on = yield from self._take(state, first)
                        queue.waiting.pop()
                        queue.running[slot] = going_on
            if not any(queue.running) or is_past(deadline):
                return
            # An idle slot reads token 0 at position 0, so that it does not lengthen the attention of the others.
            tokens, positions = [0] * slots, [0] * slots
            for slot, current in enumerate(queue.running):
                if current and (following := current.next()):
                    tokens[slot], positions[slot] = following[0], len(current.request.prompt) + following[1]
            logprobs = self.step(tokens, positions, cache)
            if on_step:
                on_step()
            for slot, (current, taken) in enumerate(zip(queue.running, self._read(logprobs, queue.running), strict=True)):
                if current:
                    queue.running[slot] = yield from self._take(current, taken)

    def _read(self, logprobs: torch.Tensor, states: Sequence[SlotState | None]) -> list[NextToken]:
        """The distribution of each slot's next token, with one wait for the device for all of them.

        Args:
            logprobs: shape (slots, vocabulary).
            states: of the slots.
        """
        count = min(max(state.choices if state else 0 for state in states), logprobs.shape[1])
        values, ids = logprobs.max(-1, keepdim=True)
        columns = [values.double(), ids.double()]  # one dtype that holds both exactly
        if count:
            top = logprobs.topk(count)
            columns += [top.values.double(), top.indices.double()]
        read = []
        for row, state, own in zip(torch.cat(columns, 1).tolist(), states, logprobs, strict=True):
            chosen = state.choices if state else 0
            pairs = [(int(token), value) for value, token in zip(row[2 : 2 + chosen], row[2 + count :], strict=False)]
            read.append(NextToken(own, (int(row[1]), row[0]), pairs))
        return read

    def _take(self, state: SlotState, following: NextToken) -> Generator[Completion, None, SlotState | None]:
        """Yield what ends with this token; returns the request's state, or None where it is finished."""
        if math.isnan(following.best[1]):
            yield Completion(state.request.id, [], 0.0, "failed", 0.0, explain_not_finite(self.model))
            return None
        yield from state.take(following)
        return state if state.next() else None

    @torch.inference_mode()
    def score(
        self,
        prompt: Sequence[int],
        continuations: Sequence[Sequence[int]],
        adapter: Path | None = None,
        given: Sequence[int] = (),
        on_step: OnStep = None,
    ) -> list[float]:
        """See `Engine.score`; the prompt is read once for all continuations.

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
            with applied(self.model, self._adapter(adapter)):
                scores = self._score(prompt, continuations, given or [0] * len(continuations), on_step)
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

    def _score(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]], given: Sequence[int], on_step: OnStep) -> list[float]:
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
                values = self._score_group(first, shared, [continuations[i] for i in group], [given[i] for i in group])
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
            if on_step:
                on_step()
        return scores

    def _score_group(self, first: torch.Tensor, shared: Cache, group: Sequence[Sequence[int]], given: Sequence[int]) -> list[float]:
        """The scores of continuations that are read together.

        Args:
            first: log-probabilities of the first token, (vocabulary,).
            shared: the cache of the prompt.
            given: tokens at the beginning of each continuation that do not count.
        """
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(list(one)) for one in group], batch_first=True)
        ids = ids.to(self.device)
        values = first[ids[:, 0]]
        values[torch.tensor([count > 0 for count in given], device=self.device)] = 0.0
        if ids.shape[1] > 1:
            repeated = _repeat(shared, len(group))
            hidden = self.model.get_decoder()(input_ids=ids[:, :-1], past_key_values=repeated, use_cache=True).last_hidden_state
            # Row by row: the logits of a whole batch over a large vocabulary would be the largest tensor of all.
            for row, one in enumerate(group):
                start = max(1, given[row])
                values[row] += self._sum_logprobs(hidden[row, start - 1 : len(one) - 1], ids[row, start : len(one)])
        return values.tolist()

    def _sum_logprobs(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """The log-probability of tokens, (length,), each after its hidden state, (length, width)."""
        head = output_head(self.model)
        count = max(1, _LOGITS // head.linear.out_features)
        pieces = zip(torch.split(hidden, count), torch.split(ids, count), strict=True)
        return torch.stack([head(states).float().log_softmax(-1).gather(1, own[:, None]).sum() for states, own in pieces]).sum()

    def _adapter(self, folder: Path | None) -> dict[str, LowRank]:
        """The weights of an adapter, read again only where another one was read in between or its files have changed; {} for None."""
        if folder is None:
            return {}
        stats = [path.stat() for name in (CONFIG, WEIGHTS) if (path := folder / name).exists()]
        identity = (folder, *((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats))
        if self._kept is None or self._kept[0] != identity:
            self._kept = None  # before the next one takes memory
            self._kept = (identity, read_adapter(folder, self.model))
        return self._kept[1]

    def release_adapter(self) -> None:
        """Give up the adapter that is kept, so that other work on the device has its memory."""
        self._kept = None

    def _prefill(self, request: Request, generated: Sequence[int], slot: int, cache: SlotCache) -> torch.Tensor:
        """Read a request's prompt, and the tokens that are generated already, into a slot of the cache.

        Returns the log-probabilities of the next token to generate, float32, shape (vocabulary,).
        """
        prompt_cache, ids = DynamicCache(), [*request.prompt, *generated]
        logits = self._forward(torch.tensor([ids], device=self.device), past_key_values=prompt_cache)
        cache.fill(slot, prompt_cache, len(ids), request.max_new_tokens - len(generated))
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

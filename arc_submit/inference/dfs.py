"""Depth-first search: every completion of a prompt whose probability exceeds a threshold.

From a prompt the most probable next tokens are followed as long as the probability of the whole path exceeds the threshold. An alternative
overwrites the cache from the position where it branches off; the part before it is reused. Probabilities add up to 1 at most, so a
threshold of 0.1 gives at most ten completions. Several prompts (the views of a task) are searched side by side in the engine's slots. The
idea is the ARChitects' (Franzen, Disselhoff and Hartmann, 2024). Only the transformers engine can do this: vllm's cache cannot be cut back.
Does not know grids.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from arc_submit.errors import ConfigError
from arc_submit.inference.engine import Completion, Request
from arc_submit.inference.slot_cache import SlotCache
from arc_submit.inference.transformers_engine import TransformersEngine


@dataclass(frozen=True)
class SearchLimits:
    """The extent of a search.

    Attributes:
        threshold: the least probability of a whole completion, above 0 and at most 1.
        max_steps: tokens that one prompt's search may read; the most probable are read first.
        keep_greedy: follow the most probable token always, so that every prompt gives its greedy completion, however improbable.
    """

    threshold: float = 0.1
    max_steps: int = 5000
    keep_greedy: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1 or self.max_steps < 1:
            raise ConfigError(f"search threshold {self.threshold} with {self.max_steps} steps: a probability above 0, and at least 1 step")


@dataclass(frozen=True)
class _Node:
    """A token to read at a depth (0 is the first generated token).

    Attributes:
        logprob: of the path from the root to this token.
        greedy: every token of the path is the most probable one.
    """

    depth: int
    token: int
    logprob: float
    greedy: bool


@dataclass
class _Search:
    """The search of one prompt.

    Attributes:
        stack: nodes to read, the next one last. A node's children are pushed above its siblings, so the path to the node on top is always
            the beginning of `path`.
        path: the tokens read last at each depth; the slot's cache holds the prompt and these.
    """

    request: Request
    started: float
    stack: list[_Node] = field(default_factory=list)
    path: list[int] = field(default_factory=list)
    steps: int = 0


@torch.inference_mode()
def search_completions(
    engine: TransformersEngine,
    requests: Sequence[Request],
    limits: SearchLimits | None = None,
    on_step: Callable[[], None] | None = None,
    deadline: float | None = None,
) -> Iterator[Completion]:
    """Yield each completion above the threshold as soon as it is found; those of one request share its id.

    A completion without an end token within max_new_tokens is not yielded. A request's dead_end check ends its greedy path, which is
    followed first and, with keep_greedy, whatever its probability. Temperature and seed have no effect.

    Args:
        on_step: called after every forward pass.
        deadline: on the monotonic clock; the search ends then with the completions found.

    Raises:
        ConfigError: where a request exceeds the context length or its adapter cannot be served; before any token is read.
    """
    for folder, group in engine.by_adapter(requests).items():
        with engine.adapted(folder):
            yield from _search_group(engine, group, limits or SearchLimits(), on_step, deadline)


def _search_group(
    engine: TransformersEngine,
    requests: Sequence[Request],
    limits: SearchLimits,
    on_step: Callable[[], None] | None,
    deadline: float | None,
) -> Iterator[Completion]:
    """The search for requests that share the adapter on the model."""
    waiting = sorted(requests, key=lambda r: len(r.prompt) + r.max_new_tokens, reverse=True)
    cache = SlotCache(engine.slots, engine.device)
    running: list[_Search | None] = [None] * engine.slots
    ids = torch.zeros(engine.slots, dtype=torch.long, device=engine.device)
    while waiting or any(running):
        for slot in range(engine.slots):
            while waiting and running[slot] is None:
                if deadline is not None and time.monotonic() >= deadline:
                    return
                search = _Search(waiting.pop(), time.monotonic())
                logprobs = engine.prefill(search.request, slot, cache)
                yield from _expand(search, logprobs, _Node(-1, -1, 0.0, True), limits, engine.end_id)
                running[slot] = search if search.stack else None
                if on_step:
                    on_step()
        for slot, current in enumerate(running):
            # A node's position follows from its depth: stepping back to a branch is only a smaller position. The mask hides the tokens of
            # the abandoned path behind it. An idle slot writes over position 0 again and again.
            cache.positions[slot] = len(current.request.prompt) + current.stack[-1].depth if current else 0
            ids[slot] = current.stack[-1].token if current else 0
        if not any(running):
            continue
        if deadline is not None and time.monotonic() >= deadline:
            return
        followed = engine.step(ids, cache)
        if on_step:
            on_step()
        for slot, current in enumerate(running):
            if current is None:
                continue
            node = current.stack.pop()
            current.path[node.depth :] = [node.token]
            current.steps += 1
            yield from _expand(current, followed[slot], node, limits, engine.end_id)
            if not current.stack or current.steps >= limits.max_steps:
                running[slot] = None


def _expand(search: _Search, logprobs: torch.Tensor, node: _Node, limits: SearchLimits, end_id: int) -> Iterator[Completion]:
    """Push the tokens that may follow a node, the most probable on top, and yield the completion that ends here.

    Args:
        logprobs: of the next token, shape (vocabulary,).
    """
    best = int(logprobs.argmax())
    above = (logprobs + node.logprob >= math.log(limits.threshold)).nonzero()[:, 0].tolist()
    if limits.keep_greedy and node.greedy and best not in above:
        above.append(best)
    values = {token: node.logprob + float(logprobs[token]) for token in above}
    depth = node.depth + 1
    for token in sorted(above, key=lambda t: (values[t], -t)):
        path = [*search.path[:depth], token]
        if token == end_id:
            yield Completion(search.request.id, path, values[token], "stop", time.monotonic() - search.started)
        elif depth + 1 < search.request.max_new_tokens:
            greedy = node.greedy and token == best
            # The check reads an answer's tokens incrementally, so it can follow one path only. The greedy path needs it, because no
            # threshold ends it.
            if not (greedy and search.request.dead_end is not None and search.request.dead_end(path)):
                search.stack.append(_Node(depth, token, values[token], greedy))

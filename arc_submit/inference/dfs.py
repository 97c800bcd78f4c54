"""Candidates: every completion of a prompt whose probability is above a threshold, and what each is worth under several views.

Depth first: from a prompt the likeliest next tokens are followed as long as the whole stays above the threshold, and an alternative is
taken up by writing over the place where it parts; what was computed before that place is kept. Probabilities add up to 1 at most, so a
threshold of 0.1 gives at most ten completions. Several prompts (the views of a task) search side by side in the engine's slots. The idea
is the ARChitects' (Franzen, Disselhoff and Hartmann, 2024). Only the transformers engine can do it: vllm's cache cannot be cut back.
Knows nothing about grids.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from arc_submit.errors import ConfigError
from arc_submit.inference.engine import Completion, Request
from arc_submit.inference.transformers_engine import SlotLayer, TransformersEngine


@dataclass(frozen=True)
class SearchLimits:
    """How far a search goes.

    Attributes:
        threshold: the least probability of a whole completion, above 0 and at most 1.
        most_steps: tokens that one prompt's search may read; the likeliest are read first.
        keep_greedy: follow the likeliest token always, so that every prompt gives its greedy completion, however unlikely.
    """

    threshold: float = 0.1
    most_steps: int = 5000
    keep_greedy: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1 or self.most_steps < 1:
            raise ConfigError(f"search threshold {self.threshold} with {self.most_steps} steps: a probability above 0, and at least 1 step")


@dataclass(frozen=True)
class _Node:
    """A token that is to be read next at its depth; what is before it is the path of the node taken last at each depth."""

    depth: int
    token: int
    logprob: float
    greedy: bool


@dataclass
class _Search:
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
    until: float | None = None,
) -> Iterator[Completion]:
    """Completions above the threshold, each as soon as it is found; those of one request share its id, the likeliest tokens first.

    A completion that has no end mark within max_new_tokens is none. A request's check ends its greedy path, which is followed first and
    which may be kept however unlikely it is; temperature and seed are left aside.

    Args:
        on_step: called after every forward pass.
        until: on the monotonic clock; the search ends there with what it has found.

    Raises:
        ConfigError: where a request is over the model's limit or its adapter cannot be served; nothing has been searched then.
    """
    limits = limits or SearchLimits()
    for folder, group in engine.by_adapter(requests).items():
        with engine.adapted(folder):
            yield from _search_group(engine, group, limits, on_step, until)


def _search_group(
    engine: TransformersEngine,
    requests: Sequence[Request],
    limits: SearchLimits,
    on_step: Callable[[], None] | None,
    until: float | None,
) -> Iterator[Completion]:
    """The search for requests that share their adapter, which is on the model."""
    waiting = sorted(requests, key=lambda r: len(r.prompt) + r.max_new_tokens, reverse=True)
    layers: list[SlotLayer] = []
    running: list[_Search | None] = [None] * engine.slots
    places = torch.zeros(engine.slots, dtype=torch.long, device=engine.device)
    ids = torch.zeros(engine.slots, dtype=torch.long, device=engine.device)
    floor = math.log(limits.threshold)
    while waiting or any(running):
        for slot in range(engine.slots):
            while waiting and running[slot] is None:
                if until is not None and time.monotonic() >= until:
                    return
                request = waiting.pop()
                search = _Search(request, time.monotonic())
                logprobs = engine.prefill(request.prompt, request.max_new_tokens, slot, layers, places)
                yield from _open(search, logprobs, _Node(-1, -1, 0.0, True), floor, limits, engine.end_id)
                running[slot] = search if search.stack else None
                if on_step:
                    on_step()
        for slot in range(engine.slots):
            current = running[slot]
            # An idle slot writes over its first place again and again.
            node = current.stack[-1] if current else None
            places[slot] = len(current.request.prompt) + node.depth if current and node else 0
            ids[slot] = node.token if node else 0
        if not any(running):
            continue
        if until is not None and time.monotonic() >= until:
            return
        followed = engine.step(ids, places, layers)
        if on_step:
            on_step()
        for slot in range(engine.slots):
            current = running[slot]
            if current is None:
                continue
            node = current.stack.pop()
            current.path[node.depth :] = [node.token]
            current.steps += 1
            yield from _open(current, followed[slot], node, floor, limits, engine.end_id)
            if not current.stack or current.steps >= limits.most_steps:
                running[slot] = None


def _open(search: _Search, logprobs: torch.Tensor, node: _Node, floor: float, limits: SearchLimits, end_id: int) -> Iterator[Completion]:
    """Put what may follow a node on the stack, the likeliest on top, and give the completion that ends here."""
    best = int(logprobs.argmax())
    above = (logprobs + node.logprob >= floor).nonzero()[:, 0].tolist()
    if limits.keep_greedy and node.greedy and best not in above:
        above.append(best)
    values = {token: node.logprob + float(logprobs[token]) for token in above}
    depth = node.depth + 1
    for token in sorted(above, key=lambda t: (values[t], -t)):
        if token == end_id:
            seconds = time.monotonic() - search.started
            yield Completion(search.request.id, [*search.path[:depth], end_id], values[token], "stop", seconds)
        elif depth + 1 < search.request.max_new_tokens:
            greedy = node.greedy and token == best
            hopeless = search.request.hopeless
            if not (greedy and hopeless is not None and hopeless([*search.path[:depth], token])):
                search.stack.append(_Node(depth, token, values[token], greedy))

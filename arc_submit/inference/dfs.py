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
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np

from arc_submit.errors import ConfigError
from arc_submit.inference.engine import Completion, OnStep, Request
from arc_submit.inference.settings import DfsLimits
from arc_submit.inference.transformers_engine import NextToken, TransformersEngine

# Tokens that a step brings to the host for each slot. Where all of them exceed the threshold, which a low one makes possible, the slot's
# whole distribution is read.
_MOST_CHOICES = 64


@dataclass(frozen=True)
class SearchLimits:
    """The extent of a search.

    Attributes:
        threshold: the least probability of a whole completion, above 0 and at most 1.
        max_steps: tokens that one prompt's search may read; the most probable are read first.
        keep_greedy: follow the most probable token always, so that every prompt gives its greedy completion, however improbable.
    """

    threshold: float = 0.1
    max_steps: int = DfsLimits.steps
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


def search_completions(
    engine: TransformersEngine,
    requests: Sequence[Request],
    limits: SearchLimits | None = None,
    on_step: OnStep = None,
    deadline: float | None = None,
    steps: MutableMapping[str, int] | None = None,
) -> Iterator[Completion]:
    """Yield each completion above the threshold as soon as it is found; those of one request share its id.

    A completion without an end token within max_new_tokens is not yielded. A request's dead_end check ends its greedy path, which is
    followed first and, with keep_greedy, whatever its probability. Temperature and seed have no effect. For `on_step`, `deadline` and
    errors see `Engine.generate`; the completions found before the deadline, and before max_steps, are yielded.

    Args:
        steps: filled with the number of tokens that each request's search has read, by the request's id.
    """
    chosen, counts = limits or SearchLimits(), {} if steps is None else steps
    return engine.run(requests, lambda request: _Search(request, chosen, request.end_ids or (engine.end_id,), counts), on_step, deadline)


class _Search:
    """The search of one prompt, as a state of `TransformersEngine.run`."""

    def __init__(self, request: Request, limits: SearchLimits, end_ids: tuple[int, ...], counts: MutableMapping[str, int]):
        self.request = request
        self._counts = counts
        self._limits = limits
        self._end_ids = end_ids
        self._started = time.monotonic()
        # Nodes to read, the next one last. A node's children are pushed above its siblings, so the path to the node on top is always the
        # beginning of `_path`.
        self._stack = [_Node(-1, -1, 0.0, True)]
        # The tokens read last at each depth; the slot's cache holds the prompt and these. Going back to a branch is reading its token at a
        # smaller depth: it overwrites the abandoned path, and attention does not reach beyond it.
        self._path: list[int] = []
        self._steps = -1  # the root is the prompt, which does not count
        # A path's probability exceeds the threshold only where its last token's does, and no more than 1 / threshold tokens can.
        self.choices = min(int(1 / limits.threshold) + 1, _MOST_CHOICES)

    def take(self, following: NextToken) -> Iterator[Completion]:
        """Push the tokens that may follow the node on top, the most probable last, and yield the completion that ends with it."""
        likely = self._above_threshold(following)
        node = self._stack.pop()
        self._steps += 1
        self._counts[self.request.id] = self._steps
        depth = node.depth + 1
        self._path[node.depth :] = [node.token] if depth else []
        best = following.best
        if self._limits.keep_greedy and node.greedy:
            likely.setdefault(*best)
        values = {token: node.logprob + logprob for token, logprob in likely.items()}
        for token in sorted(values, key=lambda t: (values[t], -t)):
            path = [*self._path, token]
            if token in self._end_ids:
                yield Completion(self.request.id, path, values[token], "stop", time.monotonic() - self._started)
            elif depth + 1 < self.request.max_new_tokens:
                greedy = node.greedy and token == best[0]
                # The check reads an answer's tokens incrementally, so it can follow one path only. The greedy path needs it, because no
                # threshold ends it.
                if not (greedy and self.request.dead_end is not None and self.request.dead_end(path)):
                    self._stack.append(_Node(depth, token, values[token], greedy))

    def _above_threshold(self, following: NextToken) -> dict[int, float]:
        """The log-probability of each token with which the path to the node on top exceeds the threshold."""
        path, least = np.float32(self._stack[-1].logprob), np.float32(math.log(self._limits.threshold))
        likely = {token: value for token, value in following.top if np.float32(value) + path >= least}
        if len(likely) < len(following.top) or len(likely) == len(following.logprobs):
            return likely
        values = following.logprobs.cpu().numpy()
        return {int(token): float(values[token]) for token in np.flatnonzero(values + path >= least)}

    def before(self) -> Sequence[int]:
        return self._path[: self._stack[-1].depth]

    def next(self) -> tuple[int, int] | None:
        """The token of the node on top and its depth."""
        if not self._stack or self._steps >= self._limits.max_steps:
            return None
        return self._stack[-1].token, self._stack[-1].depth

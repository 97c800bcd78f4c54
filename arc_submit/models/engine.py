"""The Engine protocol: what every source asks of whatever runs a model.

Requests and completions are token ids, so that an engine knows nothing about grids, prompts or tasks. The transformers engine
(arc_submit.models.transformers_engine) is one; others stand behind the same three methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True)
class Request:
    """One prompt to be continued.

    Attributes:
        id: comes back with the completion; different for every request of a call.
        prompt: token ids, at least one.
        max_new_tokens: where generation stops if the end mark has not come.
        adapter: folder of a LoRA adapter in PEFT format that the base answers with; None is the base as it is. A folder's content is
            taken as it is when the call begins, so another adapter needs another folder.
    """

    id: str
    prompt: Sequence[int]
    max_new_tokens: int
    adapter: Path | None = None


@dataclass(frozen=True)
class Completion:
    """What came of a request.

    Attributes:
        id: the request's.
        tokens: generated ids, the end mark included where it came.
        logprob: sum of the natural logs of the tokens' probabilities under the model, temperature 1.
        finished: "stop" at the end mark, "length" at max_new_tokens.
        seconds: from its prefill to its end; time shared with the rest of the batch is counted in full.
    """

    id: str
    tokens: list[int]
    logprob: float
    finished: Literal["stop", "length"]
    seconds: float


class Engine(Protocol):
    """What runs a model."""

    name: str

    def generate(self, requests: Sequence[Request], on_step: Callable[[], None] | None = None) -> Iterator[Completion]:
        """Greedy completions, each given as soon as it ends, in no fixed order.

        Args:
            on_step: called after every forward pass, so that a caller can show that the engine is alive.

        Raises:
            ConfigError: where a request is over the model's limit or its adapter cannot be served; nothing has been generated then.
        """
        ...

    def score(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[float]:
        """Natural log of the probability of each continuation after the prompt."""
        ...

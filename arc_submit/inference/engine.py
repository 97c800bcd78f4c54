"""The Engine protocol: what every source asks of whatever runs a model.

Requests and completions are token ids, so that an engine knows nothing about grids, prompts or tasks. The transformers engine
(arc_submit.inference.transformers_engine) is one, the vllm engine (arc_submit.inference.vllm_engine) another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from arc_submit.errors import ConfigError


@dataclass(frozen=True)
class Request:
    """One prompt to be continued.

    Attributes:
        id: comes back with the completion; different for every request of a call.
        prompt: token ids, at least one.
        max_new_tokens: where generation stops if the end mark has not come.
        adapter: folder of a LoRA adapter in PEFT format that the base answers with; None is the base as it is. A folder's content is
            taken as it is when the call begins, so another adapter needs another folder.
        temperature: 0 takes the likeliest token; above it tokens are drawn from the probabilities raised to 1 / temperature.
        seed: of the drawing: the same request gives the same answer from the same engine.
        hopeless: whether no tokens after these can make a usable answer; it ends there then. Called with all tokens so far.
    """

    id: str
    prompt: Sequence[int]
    max_new_tokens: int
    adapter: Path | None = None
    temperature: float = 0.0
    seed: int = 0
    hopeless: Callable[[Sequence[int]], bool] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Completion:
    """What came of a request.

    Attributes:
        id: the request's.
        tokens: generated ids, the end mark included where it came.
        logprob: sum of the natural logs of the tokens' probabilities under the model, temperature 1.
        finished: "stop" at the end mark, "length" at max_new_tokens, "hopeless" where the request's check said so, "failed" where its
            adapter turned out to be broken.
        seconds: from its prefill to its end; time shared with the rest of the batch is counted in full.
        reason: of a failure.
    """

    id: str
    tokens: list[int]
    logprob: float
    finished: Literal["stop", "length", "hopeless", "failed"]
    seconds: float
    reason: str = ""


class NotServedError(ConfigError):
    """A sound adapter that this engine does not serve and another one may."""


class Engine(Protocol):
    """What runs a model."""

    name: str

    def generate(
        self, requests: Sequence[Request], on_step: Callable[[], None] | None = None, until: float | None = None
    ) -> Iterator[Completion]:
        """Completions, each given as soon as it ends, in no fixed order.

        Args:
            on_step: called after every forward pass, so that a caller can show that the engine is alive.
            until: on the monotonic clock; what has not ended by then is given up and gives no completion.

        Raises:
            ConfigError: where a request is over the model's limit or its adapter cannot be served; nothing has been generated then.
        """
        ...

    def score(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]], adapter: Path | None = None) -> list[float]:
        """Natural log of the probability of each continuation after the prompt."""
        ...

    def check_adapter(self, folder: Path) -> None:
        """Refuse at once an adapter that this engine cannot serve.

        Raises:
            NotServedError: where another engine may serve it.
            ConfigError: naming it and what is wrong.
        """
        ...


def check_requests(requests: Sequence[Request], limit: int) -> None:
    """Refuse requests that an engine with a limit of so many tokens cannot do.

    Raises:
        ConfigError: naming the first such request.
    """
    for request in requests:
        if not 0 < len(request.prompt) < len(request.prompt) + request.max_new_tokens <= limit:
            raise ConfigError(
                f"request {request.id}: {len(request.prompt)} prompt tokens and {request.max_new_tokens} to generate, "
                f"the model takes 1 to {limit} in all; lower max_seq_len"
            )

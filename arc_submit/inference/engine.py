"""The Engine protocol: generation and scoring of token sequences by a language model.

Requests and completions hold token ids. Does not know grids, prompts or tasks. The implementations are
arc_submit.inference.transformers_engine and arc_submit.inference.vllm_engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from arc_submit.errors import ConfigError

OnStep = Callable[[], None] | None


@dataclass(frozen=True)
class Request:
    """One prompt to continue.

    Attributes:
        id: the completion's id; unique within a call.
        prompt: token ids, at least one.
        max_new_tokens: limit of generated tokens, end token included.
        adapter: folder of a LoRA adapter in PEFT format; None uses the base model. An engine may cache a folder's content, so changed
            weights need another folder.
        temperature: 0 takes the most probable token; otherwise tokens are sampled from softmax(logprobs / temperature).
        seed: of the sampling. One engine gives the same completion for the same request.
        dead_end: called with all tokens generated so far; True ends the generation, because no continuation can be a usable answer.
        end_ids: the tokens that end the completion; empty takes the engine's own end token.
    """

    id: str
    prompt: Sequence[int]
    max_new_tokens: int
    adapter: Path | None = None
    temperature: float = 0.0
    seed: int = 0
    dead_end: Callable[[Sequence[int]], bool] | None = field(default=None, compare=False)
    end_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Completion:
    """The outcome of a request.

    Attributes:
        id: the request's.
        tokens: generated ids, with the end token where there is one.
        logprob: sum of the natural logs of the tokens' probabilities under the model at temperature 1.
        finished: "stop" at the end token, "length" at max_new_tokens, "dead_end" where the request's check returned True, "failed" where
            its adapter cannot be loaded, memory does not suffice for it alone, or the model's logits are not numbers.
        seconds: wall clock from the request's prefill to its end; time shared with other requests counts in full.
        reason: of a failure.
    """

    id: str
    tokens: list[int]
    logprob: float
    finished: Literal["stop", "length", "dead_end", "failed"]
    seconds: float
    reason: str = ""


class NotServedError(ConfigError):
    """A valid adapter that this engine does not serve and another engine may serve."""


class ScoringMemoryError(ConfigError):
    """A prompt with one answer that do not fit into memory together."""


class Engine(Protocol):
    """A loaded model.

    Attributes:
        name: as in the command line's --engine.
        context_length: limit of prompt and generated tokens together.
    """

    name: str
    context_length: int

    def generate(self, requests: Sequence[Request], on_step: OnStep = None, deadline: float | None = None) -> Iterator[Completion]:
        """Yield each completion as soon as it ends, in no fixed order.

        Args:
            on_step: called after every forward pass, so that a caller can report that the engine is alive.
            deadline: on the monotonic clock; requests that are unfinished then are dropped without a completion.

        Raises:
            ConfigError: where a request exceeds the context length or its adapter cannot be served; before any token is generated.
        """
        ...

    def score(
        self,
        prompt: Sequence[int],
        continuations: Sequence[Sequence[int]],
        adapter: Path | None = None,
        given: Sequence[int] = (),
        on_step: OnStep = None,
    ) -> list[float]:
        """Natural log of the probability of each continuation after the prompt.

        Args:
            given: for each continuation, how many of its first tokens belong to its own prompt: they are read, and do not count. Fewer than
                its tokens; empty: none.
            on_step: called after every forward pass.

        Raises:
            ScoringMemoryError: where memory does not suffice for a single continuation.
            ConfigError: where the model's logits are not numbers.
        """
        ...

    def check_adapter(self, folder: Path) -> None:
        """Refuse an adapter that this engine cannot serve, without loading its weights into the engine.

        Raises:
            NotServedError: where another engine may serve it.
            ConfigError: naming the adapter and its fault.
        """
        ...


def without_memory(request: Request) -> Completion:
    """The failure of a request for which memory does not suffice."""
    reason = (
        f"out of memory with {len(request.prompt)} prompt tokens and {request.max_new_tokens} to generate; lower --max-seq-len, or use a "
        "device with more memory"
    )
    return Completion(request.id, [], 0.0, "failed", 0.0, reason)


def group_by_adapter(engine: Engine, requests: Sequence[Request]) -> dict[Path | None, list[Request]]:
    """The requests by adapter, adapters in the order of their first request, after a check of each request and each adapter.

    Raises:
        ConfigError: naming the first request that exceeds the engine's context length, or the first adapter that it cannot serve.
    """
    groups: dict[Path | None, list[Request]] = {}
    for request in requests:
        if not 0 < len(request.prompt) < len(request.prompt) + request.max_new_tokens <= engine.context_length:
            raise ConfigError(
                f"request {request.id}: {len(request.prompt)} prompt tokens and {request.max_new_tokens} to generate, "
                f"the model takes 1 to {engine.context_length} in all; lower max_seq_len"
            )
        groups.setdefault(request.adapter, []).append(request)
    for folder in groups:
        if folder is not None:
            engine.check_adapter(folder)
    return groups

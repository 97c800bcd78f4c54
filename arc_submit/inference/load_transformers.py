"""Loading a model into the transformers engine that serves its layers, and the probe that it is served right. Does not know prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from arc_submit.base_model.architecture import layers_with_state
from arc_submit.base_model.attention import ATTENTION
from arc_submit.base_model.loading import choose_dtype, load_model, load_tokenizer
from arc_submit.base_model.parity import Probe, probing
from arc_submit.inference.engine import Completion, Request
from arc_submit.inference.serial_engine import SerialEngine
from arc_submit.inference.transformers_engine import NextToken, TransformersEngine


def load_transformers_engine(folder: Path, device: torch.device, slots: int = 16) -> tuple[TransformersEngine, Any, str]:
    """An engine and its tokenizer from a model's folder, and the reasons for its dtype and its kind.

    Raises:
        ConfigError: where the model cannot be loaded, or is not served as transformers has it.
    """
    tokenizer = load_tokenizer(folder)
    dtype, reason = choose_dtype(device)
    model = load_model(folder, device, dtype, ATTENTION)
    engine = make_engine(model, tokenizer.eos_token_id, slots)
    state = layers_with_state(model)
    return engine, tokenizer, f"{reason}; one answer at a time: {state}" if state else reason


def make_engine(model: Any, end_id: int, slots: int) -> TransformersEngine:
    """The engine for a loaded model, which it serves as transformers has it.

    Raises:
        ConfigError: where it does not.
    """
    engine = SerialEngine(model, end_id, slots) if layers_with_state(model) else TransformersEngine(model, end_id, slots)
    check_engine(engine)
    return engine


class _Forced:
    """A request whose tokens are given: it keeps the log-probabilities."""

    choices = 0

    def __init__(self, request: Request, tokens: list[int]):
        self.request = request
        self.tokens = tokens
        self.logprobs: list[torch.Tensor] = []

    def take(self, following: NextToken) -> Iterator[Completion]:
        self.logprobs.append(following.logprobs.clone())
        return iter(())

    def next(self) -> tuple[int, int] | None:
        count = len(self.logprobs)
        return None if count == len(self.tokens) else (self.tokens[count - 1], count - 1)

    def before(self) -> Sequence[int]:
        return self.tokens[: len(self.logprobs) - 1]


def check_engine(engine: TransformersEngine) -> None:
    """Refuse a model that the engine reads, continues or scores otherwise than transformers' plain forward pass does.

    Raises:
        ConfigError: naming what differs, and the layers and keys of the configuration that may be the cause.
    """

    def generate(probe: Probe) -> list[torch.Tensor]:
        requests = [Request(str(i), prompt, len(probe.continuation)) for i, prompt in enumerate(probe.prompts)]
        states = {request.id: _Forced(request, probe.continuation) for request in requests}
        list(engine.run(requests, lambda request: states[request.id], None, None))
        return [torch.stack(states[request.id].logprobs) for request in requests]

    def score(probe: Probe) -> list[float]:
        shorter = probe.continuation[:-1]
        return [engine.score(prompt, [probe.continuation, shorter])[0] for prompt in probe.prompts]

    with probing(engine.model) as probe:
        probe.compare("generation", generate)
        probe.compare_sums("scoring", score)

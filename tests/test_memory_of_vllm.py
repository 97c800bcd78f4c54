"""Out of memory inside vllm, with a stand-in for it: steps that fail, scoring that fails, and a start that finds too little."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from arc_submit.errors import ConfigError
from arc_submit.inference.engine import Request, ScoringMemoryError
from arc_submit.inference.vllm_compat import make_core
from arc_submit.inference.vllm_engine import VllmEngine

END = 9


class Core:
    """An LLMEngine that answers each request with its prompt and an end; a step fails where its requests have too many tokens."""

    def __init__(self, tokens: int):
        self.tokens = tokens
        self.requests: dict[str, tuple[list[int], Any]] = {}
        self.largest = 0

    def add_request(self, key: str, prompt: dict[str, Any], sampling: Any, lora_request: Any = None) -> None:
        self.requests[key] = (prompt["prompt_token_ids"], sampling)

    def abort_request(self, keys: list[str]) -> None:
        for key in keys:
            self.requests.pop(key, None)

    def step(self) -> list[Any]:
        if sum(len(prompt) for prompt, _ in self.requests.values()) > self.tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.largest = max(self.largest, len(self.requests))
        done, self.requests = self.requests, {}
        return [self._output(key, prompt, sampling) for key, (prompt, sampling) in done.items()]

    def _output(self, key: str, prompt: list[int], sampling: Any) -> Any:
        answer = SimpleNamespace(token_ids=[*prompt, END], cumulative_logprob=-float(len(prompt)))
        logprobs = [{token: SimpleNamespace(logprob=-1.0)} for token in prompt]
        return SimpleNamespace(request_id=key, outputs=[answer], finished=True, prompt_logprobs=logprobs, prompt_token_ids=prompt)


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for the package, as far as the engine uses it."""
    package, sampling, lora, request = (ModuleType(name) for name in ("vllm", "vllm.sampling_params", "vllm.lora", "vllm.lora.request"))
    package.SamplingParams = lambda **values: SimpleNamespace(**values)  # type: ignore[attr-defined]
    sampling.RequestOutputKind = SimpleNamespace(CUMULATIVE=0)  # type: ignore[attr-defined]
    for module in (package, sampling, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return package


def make_engine(tokens: int) -> VllmEngine:
    return VllmEngine(Core(tokens), torch.nn.Module(), END, 100, slots=8, max_rank=0)


def test_a_step_without_memory_is_repeated_with_fewer_requests() -> None:
    requests = [Request(str(i), [5] * (3 + i), 10) for i in range(8)]
    plain = {one.id: (one.tokens, one.logprob) for one in make_engine(10**6).generate(requests)}
    engine = make_engine(20)
    completions = list(engine.generate(requests))
    assert {one.id: (one.tokens, one.logprob) for one in completions} == plain
    assert len(completions) == len(requests)
    assert 1 <= engine.core.largest < 8
    assert not engine.core.requests, "a request is left in vllm"


def test_a_request_that_does_not_fit_alone_fails_and_the_others_go_on() -> None:
    requests = [Request(str(i), [5] * length, 10) for i, length in enumerate((3, 40, 4, 50, 5))]
    completions = list(make_engine(20).generate(requests))
    assert {one.id: one.finished for one in completions} == {"0": "stop", "1": "failed", "2": "stop", "3": "failed", "4": "stop"}
    assert "out of memory with 40 prompt tokens" in next(one.reason for one in completions if one.id == "1")


def test_scoring_goes_on_in_halves_and_names_what_does_not_fit() -> None:
    continuations = [[5] * length for length in (1, 2, 3, 4)]
    assert make_engine(20).score([1, 2, 3], continuations) == make_engine(10**6).score([1, 2, 3], continuations)
    with pytest.raises(ScoringMemoryError, match="out of memory with 3 prompt tokens"):
        make_engine(20).score([1, 2, 3], [[5], [5] * 30])


def test_given_tokens_are_read_and_do_not_count() -> None:
    steps: list[None] = []
    scores = make_engine(10**6).score([1, 2, 3], [[5] * 4, [6] * 2], given=[1, 0], on_step=lambda: steps.append(None))
    assert scores == [-3.0, -2.0]
    assert steps


def test_a_start_without_memory_is_refused_in_one_line(vllm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class EngineArgs:
        max_model_len: int = 0

    def start(_: EngineArgs) -> None:
        raise error

    module = ModuleType("vllm.v1.engine.llm_engine")
    module.LLMEngine = SimpleNamespace(from_engine_args=start)  # type: ignore[attr-defined]
    vllm.EngineArgs = EngineArgs  # type: ignore[attr-defined]
    for name in ("vllm.v1", "vllm.v1.engine"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    error: Exception = ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.\nMore lines.")
    with pytest.raises(ConfigError, match="out of memory at its start") as refused:
        make_core(max_model_len=5)
    assert "\n" not in str(refused.value)
    error = ValueError("another fault")
    with pytest.raises(ValueError, match="another fault"):
        make_core(max_model_len=5)

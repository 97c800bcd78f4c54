"""The depth-first search against an enumeration of every sequence that a model of six tokens can give, limits included."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from arc_submit.base_model.attention import ATTENTION
from arc_submit.inference.dfs import SearchLimits, search_completions
from arc_submit.inference.engine import Request
from arc_submit.inference.serial_engine import SerialEngine
from arc_submit.inference.transformers_engine import TransformersEngine

VOCABULARY, END, LONGEST = 6, 5, 4
PROMPTS = ((0, 1, 2), (4, 4, 1, 3, 0, 2, 2))
Path = tuple[int, ...]
_deviations: list[float] = []


@cache
def model(seed: int) -> LlamaForCausalLM:
    """Random weights; the larger the seed, the surer of its next token."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=64, initializer_range=0.25 + 0.1 * seed, **sizes)
    config._attn_implementation = ATTENTION
    return LlamaForCausalLM(config).eval()


@cache
def logprobs(seed: int, prompt: Path) -> dict[Path, float]:
    """The log-probability of every sequence of up to LONGEST tokens, from forward passes over all of them without a cache."""
    every = list(itertools.product(range(VOCABULARY), repeat=LONGEST))
    found: dict[Path, float] = {(): 0.0}
    with torch.inference_mode():
        for part in torch.tensor(every).split(2000):
            ids = torch.cat([torch.tensor(prompt).expand(len(part), -1), part], 1)
            steps = model(seed)(input_ids=ids).logits[:, len(prompt) - 1 : -1].double().log_softmax(-1)
            sums = steps.gather(2, part[:, :, None])[:, :, 0].cumsum(1)
            for path, row in zip(part.tolist(), sums.tolist(), strict=True):
                found |= {tuple(path[: i + 1]): value for i, value in enumerate(row)}
    return found


def expansions(known: dict[Path, float], least: float, path: Path = ()) -> Iterator[list[Path]]:
    """The completions that reading each path gives, in the order of a search that goes to the most probable child first."""
    children = [(*path, token) for token in range(VOCABULARY) if known[*path, token] >= least]
    yield [child for child in children if child[-1] == END]
    for child in sorted(children, key=lambda one: -known[one]):
        if child[-1] != END and len(child) < LONGEST:
            yield from expansions(known, least, child)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5), st.floats(math.log(1e-4), math.log(0.9)), st.none() | st.integers(1, 60), st.integers(2, 4), st.booleans())
def test_the_search_finds_what_an_enumeration_finds(seed: int, least: float, steps: int | None, slots: int, serial: bool) -> None:
    tables = [logprobs(seed, prompt) for prompt in PROMPTS]
    assume(all(abs(value - least) > 3e-5 for table in tables for value in table.values()))
    engine = (SerialEngine if serial else TransformersEngine)(model(seed), END, slots)
    requests = [Request(str(i), prompt, LONGEST) for i, prompt in enumerate(PROMPTS)]
    found: list[dict[Path, float]] = [{} for _ in PROMPTS]
    read: dict[str, int] = {}
    limits = SearchLimits(math.exp(least), 5000 if steps is None else steps, keep_greedy=False)
    for completion in search_completions(engine, requests, limits, steps=read):
        assert tuple(completion.tokens) not in found[int(completion.id)], "the same completion twice"
        found[int(completion.id)][tuple(completion.tokens)] = completion.logprob
    for i, table in enumerate(tables):
        every = list(expansions(table, least))
        expected = every if steps is None else every[: steps + 1]  # the prompt, and as many tokens as the limit allows
        assert set(found[i]) == {path for paths in expected for path in paths}
        assert read[str(i)] == len(expected) - 1
        for path, value in found[i].items():
            _deviations.append(abs(value - table[path]))
            assert value == pytest.approx(table[path], abs=1e-4)


def test_a_complete_search_gives_every_completion_above_the_threshold(capsys: pytest.CaptureFixture[str]) -> None:
    """Several thresholds, by the definition itself instead of by the order of a search."""
    lines, number = [], 0
    for threshold in (0.5, 0.2, 0.1, 0.02, 0.001):
        least, deviation, count = math.log(threshold), 0.0, 0
        for seed in range(0, 6, 2):
            engine = TransformersEngine(model(seed), END, 2)
            found: list[dict[Path, float]] = [{} for _ in PROMPTS]
            requests = [Request(str(i), prompt, LONGEST) for i, prompt in enumerate(PROMPTS)]
            for completion in search_completions(engine, requests, SearchLimits(threshold, keep_greedy=False)):
                found[int(completion.id)][tuple(completion.tokens)] = completion.logprob
            for i, prompt in enumerate(PROMPTS):
                table = logprobs(seed, prompt)
                assert all(abs(value - least) > 1e-6 for value in table.values()), "a sequence at the threshold itself"
                expected = {path: value for path, value in table.items() if path[-1:] == (END,) and path.index(END) == len(path) - 1}
                expected = {path: value for path, value in expected.items() if value >= least}
                assert set(found[i]) == set(expected)
                deviation = max([deviation, *(abs(found[i][path] - value) for path, value in expected.items())])
                count += len(expected)
        lines.append(f"threshold {threshold:g}: {count} completions, largest deviation {deviation:.1e}")
        number += count
        assert deviation < 1e-4
    with capsys.disabled():
        print("\n" + "\n".join(lines))
        print(f"largest deviation in random searches: {max(_deviations, default=0.0):.1e} in {len(_deviations)} completions")
    assert number > 60, "too few completions prove little"

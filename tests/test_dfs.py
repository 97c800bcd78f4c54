"""The search for completions against a search by plain forward passes, and scores of grids under every view."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from arc_submit.arc.grid import frozen, same_grid
from arc_submit.arc.task import Pair, Task
from arc_submit.base_model.pocket import make_pocket_tokenizer
from arc_submit.errors import ConfigError
from arc_submit.inference import dfs
from arc_submit.inference.dfs import SearchLimits, search_completions
from arc_submit.inference.engine import Request
from arc_submit.inference.load_transformers import load_transformers_engine
from arc_submit.inference.requests import plan_requests
from arc_submit.inference.scoring import score_grids
from arc_submit.inference.settings import RequestSettings
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> TransformersEngine:
    """With weights that leave several tokens possible."""
    torch.set_num_threads(1)
    engine = load_transformers_engine(tiny_model, torch.device("cpu"), slots=3)[0]
    with torch.no_grad():
        for parameter in engine.model.parameters():
            parameter.mul_(0.75)
    return engine


def plain_search(engine: TransformersEngine, prompt: list[int], longest: int, threshold: float) -> dict[tuple[int, ...], float]:
    """Every completion above the threshold, the whole sequence read again for every token."""
    found: dict[tuple[int, ...], float] = {}
    open_paths: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    while open_paths:
        path, total = open_paths.pop()
        with torch.inference_mode():
            logprobs = engine.model(input_ids=torch.tensor([[*prompt, *path]])).logits[0, -1].float().log_softmax(-1)
        for token in (logprobs + total >= math.log(threshold)).nonzero()[:, 0].tolist():
            value = total + float(logprobs[token])
            if token == engine.end_id:
                found[(*path, token)] = value
            elif len(path) + 2 <= longest:
                open_paths.append(((*path, token), value))
    return found


def make_requests(count: int, longest: int) -> list[Request]:
    rng = np.random.default_rng(7)
    return [Request(str(i), rng.integers(5, 45, rng.integers(2, 60)).tolist(), longest) for i in range(count)]


def test_it_finds_the_completions_of_a_plain_search(engine: TransformersEngine) -> None:
    requests, threshold = make_requests(7, 6), 2e-3
    found: dict[str, dict[tuple[int, ...], float]] = {request.id: {} for request in requests}
    for completion in search_completions(engine, requests, SearchLimits(threshold, keep_greedy=False)):
        assert tuple(completion.tokens) not in found[completion.id], "the same completion twice"
        found[completion.id][tuple(completion.tokens)] = completion.logprob
    number = 0
    for request in requests:
        expected = plain_search(engine, list(request.prompt), request.max_new_tokens, threshold)
        assert set(found[request.id]) == set(expected)
        for tokens, value in expected.items():
            assert found[request.id][tokens] == pytest.approx(value, abs=1e-3)
            assert value >= math.log(threshold)
        number += len(expected)
    assert number > 10, "too few completions prove little"


def test_the_greedy_completion_is_found_however_improbable(engine: TransformersEngine) -> None:
    requests = make_requests(5, 200)
    greedy = {c.id: c.tokens for c in engine.generate(requests) if c.finished == "stop"}
    found = {c.id: c.tokens for c in search_completions(engine, requests, SearchLimits(1.0))}
    assert found == greedy
    assert greedy, "no greedy answer ends: nothing was compared"


def test_a_search_stops_at_max_steps(engine: TransformersEngine) -> None:
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    list(search_completions(engine, make_requests(1, 100), SearchLimits(1e-9, max_steps=25), count))
    assert steps == 26  # and the prompt


def test_tokens_beyond_those_that_a_step_brings_are_found_too(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all of them exceed the threshold, the slot's whole distribution is read."""

    def search() -> list[tuple[str, list[int], float]]:
        return [(one.id, one.tokens, one.logprob) for one in search_completions(engine, make_requests(7, 6), SearchLimits(2e-3))]

    expected = search()
    monkeypatch.setattr(dfs, "_MOST_CHOICES", 2)
    assert search() == expected, "to the last bit, in the same order"
    assert len(expected) > 10


def test_invalid_requests_and_limits_are_refused(engine: TransformersEngine) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        SearchLimits(0.0)
    with pytest.raises(ConfigError, match="request bad"):
        next(search_completions(engine, [Request("bad", [5] * 2040, 20)]))


def test_a_grids_score_equals_the_logprob_of_its_answer_under_each_view(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared with the log-probabilities of plain forward passes, token by token."""
    tokenizer = PromptTokenizer(make_pocket_tokenizer(), make_encoder("CompactGridEncoder()"), prompt_version("output-from-turns-v0"))
    rng = np.random.default_rng(0)
    grids = [frozen(rng.integers(0, 10, (2, 3))) for _ in range(4)]
    task = Task("t", (Pair(grids[0], grids[1]),), (grids[2],))
    view_requests, _ = plan_requests(tokenizer, task, RequestSettings(4, 0, 1024))
    candidates = [grids[1], grids[3]]
    scores = score_grids(engine, tokenizer, view_requests, candidates)
    assert all(set(score) == {one.view.key for one in view_requests} for score in scores)
    for one in view_requests:
        answers = [tokenizer.answer_ids(one.view.apply(grid)) for grid in candidates]
        assert all(same_grid(one.view.undo(tokenizer.decode(a)), g) for a, g in zip(answers, candidates, strict=True))
        for grid_scores, answer in zip(scores, answers, strict=True):
            ids, expected = list(one.request.prompt), 0.0
            for token in answer:
                with torch.inference_mode():
                    expected += float(engine.model(input_ids=torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)[token])
                ids.append(token)
            assert grid_scores[one.view.key] == pytest.approx(expected, abs=5e-3)
    assert score_grids(engine, tokenizer, view_requests, []) == []
    monkeypatch.setattr(engine, "context_length", 20)
    assert score_grids(engine, tokenizer, view_requests, candidates) == [{}, {}]

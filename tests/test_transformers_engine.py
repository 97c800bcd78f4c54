"""The transformers engine against transformers' own forward pass and generate, on a two-layer model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from arc_submit.base_model.loading import choose_dtype, load_model
from arc_submit.errors import ConfigError, DataError
from arc_submit.inference.dfs import SearchLimits, search_completions
from arc_submit.inference.engine import Completion, Request
from arc_submit.inference.load_transformers import load_transformers_engine
from arc_submit.inference.transformers_engine import TransformersEngine

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> TransformersEngine:
    torch.set_num_threads(1)
    return load_transformers_engine(tiny_model, CPU, slots=4)[0]


def requests(count: int, seed: int = 0, longest: int = 700, new: int = 40) -> list[Request]:
    rng = np.random.default_rng(seed)
    return [Request(str(i), rng.integers(5, 45, rng.integers(1, longest)).tolist(), int(rng.integers(1, new))) for i in range(count)]


def by_id(completions: list[Completion]) -> dict[str, tuple[list[int], float, str]]:
    return {c.id: (c.tokens, c.logprob, c.finished) for c in completions}


def test_a_completion_equals_plain_greedy_decoding(engine: TransformersEngine, tiny_model: Path) -> None:
    """Against a loop without any cache: it reads the whole sequence again for every token."""
    plain = load_model(tiny_model, CPU, torch.float32, "eager")
    for request, completion in zip(
        sorted(requests(6), key=lambda r: r.id), sorted(engine.generate(requests(6)), key=lambda c: c.id), strict=True
    ):
        ids, expected, total = list(request.prompt), [], 0.0
        while len(expected) < request.max_new_tokens and (not expected or expected[-1] != engine.end_id):
            with torch.inference_mode():
                logprobs = plain(input_ids=torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
            expected.append(int(logprobs.argmax()))
            total += float(logprobs[expected[-1]])
            ids.append(expected[-1])
        assert completion.tokens == expected
        assert completion.logprob == pytest.approx(total, abs=1e-3)
        assert completion.finished == ("stop" if expected[-1] == engine.end_id else "length")


def test_a_request_names_the_tokens_that_end_it(engine: TransformersEngine) -> None:
    """In greedy generation and in the search; the engine's own end token then ends nothing."""
    prompt = list(requests(1)[0].prompt)
    (plain,) = engine.generate([Request("plain", prompt, 12, end_ids=(-1,))])
    assert len(plain.tokens) == 12
    last, other = plain.tokens[5], next(token for token in range(48) if token not in plain.tokens)
    stop = plain.tokens.index(last) + 1
    request = Request("named", prompt, 12, end_ids=(other, last))
    (named,) = engine.generate([request])
    assert named.tokens == plain.tokens[:stop]
    assert named.finished == "stop"
    found = {tuple(c.tokens) for c in search_completions(engine, [request], SearchLimits(1.0))}
    assert found == {tuple(named.tokens)}


def test_a_completion_does_not_depend_on_the_requests_beside_it(engine: TransformersEngine, tiny_model: Path) -> None:
    """Bit for bit: tokens and log-probabilities, alone, in another order, and after other requests."""
    all_requests = requests(14, seed=3)
    together = by_id(list(engine.generate(all_requests)))
    assert by_id(list(engine.generate(all_requests[::-1]))) == together
    alone = {}
    for request in all_requests[:6]:
        alone |= by_id(list(engine.generate([request])))
    assert alone == {key: together[key] for key in alone}
    assert len({tuple(tokens) for tokens, _, _ in together.values()}) > 7, "equal completions would prove nothing"


def test_score_equals_the_logprob_of_generation(engine: TransformersEngine) -> None:
    batch = requests(5, seed=4)
    completions = {c.id: c for c in engine.generate(batch)}
    for request in batch:
        completion = completions[request.id]
        longer = [*completion.tokens, 7, 8, 9]
        scores = engine.score(request.prompt, [completion.tokens, longer, completion.tokens])
        assert scores[0] == pytest.approx(completion.logprob, abs=1e-3)
        assert scores[2] == pytest.approx(scores[0], abs=1e-4), "the previous continuation changed the shared prompt"
        assert scores[1] < scores[0]


def test_every_request_ends_once_and_every_step_is_reported(engine: TransformersEngine) -> None:
    steps = 0

    def on_step() -> None:
        nonlocal steps
        steps += 1

    batch = requests(9, seed=5)
    ended = [c.id for c in engine.generate(batch, on_step)]
    assert sorted(ended) == sorted(r.id for r in batch)
    assert steps >= len(batch)


def test_completions_are_yielded_before_the_last_request_starts(engine: TransformersEngine) -> None:
    batch = [Request("short", [5, 6], 2), *(Request(f"long{i}", [5] * 50, 60) for i in range(8))]
    assert next(iter(engine.generate(batch))).id == "short"


def test_no_request_gives_no_completion(engine: TransformersEngine) -> None:
    assert list(engine.generate([])) == []


@pytest.mark.parametrize(("prompt", "new"), [([5] * 2040, 20), ([], 5), ([5], 0)])
def test_a_request_over_the_limit_is_refused_before_any_work(engine: TransformersEngine, prompt: list[int], new: int) -> None:
    with pytest.raises(ConfigError, match="request bad"):
        next(iter(engine.generate([Request("good", [5, 6], 2), Request("bad", prompt, new)])))


def test_loading_refuses_what_it_cannot_read(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        load_transformers_engine(tmp_path / "nowhere", CPU)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text((tiny_model / name).read_text())
    with pytest.raises(ConfigError, match="safetensors"):
        load_transformers_engine(tmp_path, CPU)
    (tmp_path / "model.safetensors").write_bytes((tiny_model / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(DataError, match=r"model.safetensors: cannot be read"):
        load_transformers_engine(tmp_path, CPU)


def test_the_dtype_has_a_reason() -> None:
    dtype, reason = choose_dtype(CPU)
    assert dtype is torch.float32
    assert "CPU" in reason


def test_a_score_does_not_depend_on_the_other_continuations(engine: TransformersEngine) -> None:
    """More continuations than slots, of very different lengths: each has the score that it has alone."""
    rng = np.random.default_rng(8)
    prompt = rng.integers(5, 45, 90).tolist()
    continuations = [rng.integers(5, 45, length).tolist() for length in (1, 40, 3, 17, 2, 1, 29, 8, 40)]
    together = engine.score(prompt, continuations)
    assert together == pytest.approx([engine.score(prompt, [one])[0] for one in continuations], abs=2e-3)
    assert engine.score(prompt, []) == []
    for wrong in ([[]], [[5] * 2048]):
        with pytest.raises(ConfigError, match="cannot score"):
            engine.score(prompt, wrong)


def test_generation_stops_at_the_deadline(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that advances by a second with every step: no step begins after the deadline."""
    assert list(engine.generate(requests(5), deadline=0.0)) == []
    steps = 0

    def on_step() -> None:
        nonlocal steps
        steps += 1

    monkeypatch.setattr("time.monotonic", lambda: float(steps))
    batch = [Request("short", [5, 6], 2), *(Request(f"long{i}", [5] * 50, 1500) for i in range(1000))]
    ended = [c.id for c in engine.generate(batch, on_step, deadline=60.0)]
    assert "short" in ended
    assert len(ended) < len(batch)
    assert steps == 60


def test_sampling_follows_seed_and_temperature(engine: TransformersEngine) -> None:
    def sample(temperature: float, seed: int) -> dict[str, tuple[list[int], float, str]]:
        return by_id(list(engine.generate([Request(r.id, r.prompt, 30, None, temperature, seed) for r in requests(6, seed=9)])))

    assert sample(1.0, 1) == sample(1.0, 1)
    assert sample(1.0, 1) != sample(1.0, 2)
    cold = {key: tokens for key, (tokens, _, _) in sample(0.01, 1).items()}
    greedy = {key: tokens for key, (tokens, _, _) in sample(0.0, 1).items()}
    assert sum(cold[key] == greedy[key] for key in cold) >= 5
    for request in requests(6, seed=9):
        tokens, logprob, _ = sample(1.0, 1)[request.id]
        assert engine.score(request.prompt, [tokens])[0] == pytest.approx(logprob, abs=1e-2)


def test_a_dead_end_frees_its_slot(engine: TransformersEngine) -> None:
    batch = [Request(str(i), [5] * 50, 1500, dead_end=lambda tokens: len(tokens) == 3) for i in range(6)]
    ended = list(engine.generate(batch))
    assert [len(c.tokens) for c in ended if c.finished == "dead_end"] == [3] * sum(c.finished == "dead_end" for c in ended)
    assert len(ended) == 6
    assert any(c.finished == "dead_end" for c in ended)

"""Families of base models against transformers and PEFT; that the probe at load sees what differs; and logits that are not numbers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import CPU, FAMILIES, make_model, measure

from arc_submit.arc.prediction import Prediction
from arc_submit.base_model import attention, output_head
from arc_submit.base_model.architecture import check_for_engines, context_length
from arc_submit.base_model.attention import ATTENTION
from arc_submit.base_model.checks import adapter_values
from arc_submit.base_model.loading import load_model
from arc_submit.base_model.lora import attach
from arc_submit.base_model.pocket import make_pocket_tokenizer
from arc_submit.base_model.precision import choose_training_precision
from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError, DataError
from arc_submit.finetune.loss import check_loss, full_loss
from arc_submit.inference.dfs import SearchLimits, search_completions
from arc_submit.inference.engine import Request, ScoringMemoryError
from arc_submit.inference.load_transformers import check_engine, load_transformers_engine
from arc_submit.inference.serial_engine import SerialEngine
from arc_submit.inference.transformers_engine import TransformersEngine


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_served_scored_searched_fine_tuned_and_merged(family: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    deviation = asdict(measure(family, tmp_path))
    assert deviation.pop("greedy") == 0
    assert max(deviation.values()) < 1e-3, deviation


def written(family: str, folder: Path) -> Path:
    """A family's model in a folder."""
    make_model(family).save_pretrained(folder)
    make_pocket_tokenizer().save_pretrained(folder)
    return folder


def plain_scores(query: Any, key: Any, value: Any, mask: Any, scaling: float, softcap: float) -> Any:
    """What transformers' sdpa does with a soft cap: nothing."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    causal = mask is None and query.shape[2] > 1
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scaling)
    return out.transpose(1, 2)


@pytest.mark.parametrize(
    ("family", "module", "name", "broken", "message"),
    [
        ("Mistral", attention, "_within_window", lambda mask, window: mask, "MistralDecoderLayer.*generation differs.*sliding_window 12"),
        ("Gemma 3", attention, "_within_window", lambda mask, window: mask, "generation differs.*layer_types"),
        ("Gemma 2", attention, "_softcapped", plain_scores, "generation differs.*attn_logit_softcapping 1.0"),
        ("Granite", output_head, "_is_linear", lambda linear, head: True, "scoring differs.*logits_scaling 8.0"),
        ("Gemma 2", output_head, "_is_linear", lambda linear, head: True, "scoring differs.*final_logit_softcapping 4.0"),
        ("Cohere 2", output_head, "_is_linear", lambda linear, head: True, "scoring differs.*logit_scale 0.25"),
    ],
)
def test_the_probe_names_what_differs(
    family: str, module: Any, name: str, broken: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(family, tmp_path)
    monkeypatch.setattr(module, name, broken)
    with pytest.raises(ConfigError, match=message) as caught:
        load_transformers_engine(folder, CPU, 2)
    assert str(folder) in str(caught.value)
    if module is output_head or name == "_softcapped":
        model = load_model(folder, CPU, torch.float32, ATTENTION)
        for loss in ({}, {"loss": full_loss}):
            with pytest.raises(ConfigError, match="the training loss differs"):
                check_loss(model, choose_training_precision(CPU), **loss)


def test_the_probe_leaves_windows_and_attention_as_they_were(tmp_path: Path) -> None:
    engine = load_transformers_engine(written("Qwen2, windows", tmp_path), CPU, 2)[0]
    engine.model.config.sliding_window = 300
    check_engine(engine)
    assert engine.model.config.sliding_window == 300
    assert [layer.self_attn.sliding_window for layer in engine.model.model.layers] == [None, 12]
    assert engine.model.config._attn_implementation == ATTENTION


def test_soft_capped_scores_in_pieces_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also their gradient, which is computed again piece by piece."""
    model = load_model(written("Gemma 2", tmp_path), CPU, torch.float32, ATTENTION)
    ids = torch.randint(3, 90, (2, 40))
    found = []
    for scores in (1 << 26, 2 * 4 * 40 * 7):
        monkeypatch.setattr(attention, "_SCORES", scores)
        model.zero_grad()
        model(input_ids=ids, use_cache=False).logits.log_softmax(-1)[..., 5].sum().backward()
        found.append(model.model.embed_tokens.weight.grad.clone())
    assert float(found[0].abs().max()) > 0
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)


def test_prompts_end_where_all_rotations_change(tmp_path: Path) -> None:
    """Phi-3's long form has other frequencies for all positions of a long prompt, in whatever slot it is."""
    config = make_model("Phi-3").config
    assert context_length(config) == 512
    config.rope_parameters = {"rope_type": "longrope", "original_max_position_embeddings": 128}
    assert context_length(config) == 128
    folder = written("Phi-3", tmp_path)
    check_for_engines(folder, ["transformers"], max_seq_len=512)
    with pytest.raises(ConfigError, match="max_seq_len 513 is over the 512 tokens"):
        check_for_engines(folder, ["transformers"], max_seq_len=513)


def test_the_size_of_an_adapter_leaves_out_experts(tmp_path: Path) -> None:
    """transformers has them in one tensor, which is no linear layer."""
    model = make_model("Qwen3-MoE", mlp_only_layers=[0])
    model.save_pretrained(tmp_path)
    settings = LoraSettings(rank=2)
    assert adapter_values(tmp_path, settings) == attach(model, settings, 0).flat.numel()


@pytest.fixture
def engine(tiny_model: Path) -> TransformersEngine:
    return load_transformers_engine(tiny_model, CPU, 4)[0]


def spoil(model: Any) -> None:
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan


def test_logits_that_are_not_numbers_are_named_at_load_and_later(engine: TransformersEngine) -> None:
    spoil(engine.model)
    with pytest.raises(ConfigError, match=r"tiny0: its logits in float32 are not numbers \(NaN\); its weights are damaged"):
        check_engine(engine)
    ended = list(engine.generate([Request("a", [5, 6, 7], 4), Request("b", [8], 4)]))
    assert {(one.id, one.finished) for one in ended} == {("a", "failed"), ("b", "failed")}
    assert all("not numbers (NaN)" in one.reason for one in ended)
    with pytest.raises(ConfigError, match="not numbers"):
        engine.score([5, 6], [[7, 8]])
    with pytest.raises(ConfigError, match="not numbers"):
        check_loss(engine.model, choose_training_precision(CPU))


def test_a_prediction_never_holds_the_word_nan() -> None:
    for logprob, logprobs in ((float("nan"), {}), (-1.0, {"r0": float("nan")})):
        with pytest.raises(DataError, match=r"task t1: a prediction of m .*NaN"):
            Prediction("t1", 0, None, "frozen", "r0", logprob, "m", 0.1, "none", logprobs).to_line()


def test_scores_that_need_too_much_memory_are_computed_in_smaller_groups(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    continuations = [[5, 6, 7], [8, 9], [11, 12, 13, 14], [14], [5, 6, 7, 9]]
    expected = engine.score([5] * 20, continuations)
    forward, rows, limit = engine.model.model.forward, [], [3]

    def limited(*args: Any, **kwargs: Any) -> Any:
        count, length = kwargs["input_ids"].shape
        rows.append(count)
        if length < 20 and count > limit[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.75 GiB")
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.model.model, "forward", limited)
    for limit[0] in (3, 1):
        assert engine.score([5] * 20, continuations) == pytest.approx(expected, abs=1e-4)
        assert max(rows) > limit[0]
    limit[0] = 0
    with pytest.raises(ScoringMemoryError, match="out of memory with 20 prompt tokens and an answer of up to 3"):
        engine.score([5] * 20, [[5, 6], [5, 6, 7]])


def test_without_slots_the_answers_are_the_same(engine: TransformersEngine) -> None:
    """What serves layers with a state, on a model that both can serve."""
    serial = SerialEngine(engine.model, engine.end_id)
    check_engine(serial)
    rng = np.random.default_rng(3)
    requests = [Request(str(n), rng.integers(5, 45, 5 + 9 * n).tolist(), 12) for n in range(4)]
    limits = SearchLimits(0.01, 60)
    for run in (lambda one: one.generate(requests), lambda one: search_completions(one, requests, limits)):
        ours, theirs = (sorted((c.id, c.tokens, c.finished, round(c.logprob, 3)) for c in run(one)) for one in (serial, engine))
        assert ours == theirs
        assert len(ours) >= 4
    continuations = [[5, 6, 7], [8], [9, 10]]
    assert serial.score(requests[0].prompt, continuations) == pytest.approx(engine.score(requests[0].prompt, continuations), abs=1e-4)
    assert list(serial.generate(requests, deadline=0.0)) == []

"""The vllm engine against the transformers engine on a two-layer model with real adapters; vllm runs in one child process for all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from arc_submit.errors import ConfigError
from arc_submit.inference import vllm_compat
from arc_submit.inference.engine import Completion, Request
from arc_submit.inference.load_transformers import load_transformers_engine
from arc_submit.inference.settings import VLLM_PLAIN
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.inference.vllm_compat import choose_start, prepare_process, supported_rank
from arc_submit.inference.vllm_engine import plan_memory
from arc_submit.run.source_frozen import engines_of

SWAPS = 50
# Two engines that sum in different orders may choose differently between two tokens whose log-probabilities are this close.
TIE = 1e-4


def make_adapters(model: Path, folder: Path, count: int, rank: int = 4, **config: Any) -> list[Path]:
    """Adapters with random weights as PEFT saves them."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tuned = get_peft_model(base, LoraConfig(r=rank, lora_alpha=8, **{"target_modules": ["q_proj", "v_proj", "down_proj"], **config}))
    generator = torch.Generator().manual_seed(count)
    paths = []
    for number in range(count):
        for name, weights in tuned.named_parameters():
            if "lora_" in name:
                weights.data = torch.randn(weights.shape, generator=generator) * 0.15
        tuned.save_pretrained(folder / f"{number:03d}")
        paths.append(folder / f"{number:03d}")
    return paths


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> TransformersEngine:
    torch.set_num_threads(1)
    return load_transformers_engine(tiny_model, torch.device("cpu"), slots=4)[0]


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_adapters(tiny_model, tmp_path_factory.mktemp("adapters"), SWAPS)


@pytest.fixture(scope="module")
def broken(tiny_model: Path, adapters: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters that cannot be served, each in its own way."""
    from transformers import Qwen2ForCausalLM

    from arc_submit.base_model.pocket import pocket_config

    folder = tmp_path_factory.mktemp("broken")
    paths = {name: folder / name for name in ("missing", "truncated", "no_json", "dora", "rank", "other_base", "head", "pissa")}
    for name in ("truncated", "no_json", "pissa"):
        shutil.copytree(adapters[0], paths[name])
    weights = paths["truncated"] / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (paths["no_json"] / "adapter_config.json").write_text("{")
    config = json.loads((paths["pissa"] / "adapter_config.json").read_text()) | {"init_lora_weights": "pissa"}
    (paths["pissa"] / "adapter_config.json").write_text(json.dumps(config))
    other = folder / "model"
    Qwen2ForCausalLM(pocket_config(hidden=64, layers=2, max_seq_len=2048)).save_pretrained(other)
    made = {
        "dora": make_adapters(tiny_model, folder / "a", 1, use_dora=True),
        "rank": make_adapters(tiny_model, folder / "b", 1, rank=12),
        "other_base": make_adapters(other, folder / "c", 1),
        "head": make_adapters(tiny_model, folder / "d", 1, target_modules=["lm_head"]),
    }
    return paths | {name: found[0] for name, found in made.items()}


def make_requests(adapters: Sequence[Path], count: int, seed: int) -> list[Request]:
    rng = np.random.default_rng(seed)
    owners = [None, *adapters]
    return [
        Request(str(i), rng.integers(5, 45, rng.integers(2, 400)).tolist(), int(rng.integers(20, 60)), owners[i % len(owners)])
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def main_requests(adapters: list[Path]) -> list[Request]:
    return make_requests(adapters[:3], 16, 1)


@pytest.fixture(scope="module")
def swaps(adapters: list[Path]) -> list[Request]:
    """One prompt with every adapter; only the adapter differs."""
    prompt = np.random.default_rng(2).integers(5, 45, 60).tolist()
    order = np.random.default_rng(3).permutation(len(adapters))
    return [Request(f"swap{i}", prompt, 12, adapters[i]) for i in order]


@pytest.fixture(scope="module")
def results(
    tiny_model: Path,
    adapters: list[Path],
    broken: dict[str, Path],
    main_requests: list[Request],
    swaps: list[Request],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """The output of the child process for all requests, see tests/vllm_child.py."""
    folder = tmp_path_factory.mktemp("child")

    def plain(request: Request) -> dict[str, Any]:
        adapter = str(request.adapter) if request.adapter else None
        return {"id": request.id, "prompt": list(request.prompt), "max_new_tokens": request.max_new_tokens, "adapter": adapter}

    value = {
        "model": str(tiny_model),
        "adapters": [str(path) for path in adapters],
        "requests": [plain(request) for request in main_requests],
        "swaps": [plain(request) for request in swaps],
        "broken": {name: str(path) for name, path in broken.items()},
        "scores": [score_question(request) for request in main_requests[:4]],
    }
    (folder / "input.json").write_text(json.dumps(value))
    script = Path(__file__).with_name("vllm_child.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, timeout=280, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    output: dict[str, Any] = json.loads((folder / "output.json").read_text())
    return output


def score_question(request: Request) -> dict[str, Any]:
    rng = np.random.default_rng(len(request.prompt))
    continuations = [rng.integers(5, 45, length).tolist() for length in (1, 9, 30)]
    return {"prompt": list(request.prompt), "continuations": continuations, "adapter": str(request.adapter) if request.adapter else None}


def same(engine: TransformersEngine, request: Request, own: Completion, theirs: list[int]) -> bool:
    """Whether both engines gave the same tokens, apart from a choice between two of practically equal probability."""
    if theirs == own.tokens:
        return True
    part = next((i for i, (a, b) in enumerate(zip(theirs, own.tokens, strict=False)) if a != b), None)
    if part is None:
        return False
    prompt = [*request.prompt, *own.tokens[:part]]
    other, first = engine.score(prompt, [[theirs[part]], [own.tokens[part]]], request.adapter)
    return first - other < TIE


def test_both_engines_give_the_same_tokens_with_and_without_adapters(
    engine: TransformersEngine, main_requests: list[Request], results: dict[str, Any]
) -> None:
    own = {completion.id: completion for completion in engine.generate(main_requests)}
    theirs = {completion["id"]: completion for completion in results["main"]}
    assert sorted(theirs) == sorted(own)
    assert len({tuple(c.tokens) for c in own.values()}) > 12, "completions that hardly differ would prove little"
    for request in main_requests:
        answer = theirs[request.id]
        assert same(engine, request, own[request.id], answer["tokens"]), request.id
        if answer["tokens"] == own[request.id].tokens:
            assert answer["logprob"] == pytest.approx(own[request.id].logprob, abs=2e-3)
            assert answer["finished"] == own[request.id].finished
        assert answer["seconds"] > 0
    assert sum(theirs[r.id]["tokens"] == own[r.id].tokens for r in main_requests) >= len(main_requests) - 1
    assert results["steps"] >= max(len(c["tokens"]) for c in results["main"])


def test_an_adapter_changes_the_answer(engine: TransformersEngine, main_requests: list[Request]) -> None:
    """Otherwise the test above would hold for engines that ignore adapters."""
    with_adapter = [request for request in main_requests if request.adapter]
    bare = {c.id: c.tokens for c in engine.generate([Request(r.id, r.prompt, r.max_new_tokens) for r in with_adapter])}
    full = {c.id: c.tokens for c in engine.generate(with_adapter)}
    assert sum(bare[i] != full[i] for i in bare) > len(bare) // 2


def test_many_adapters_leave_nothing_behind(engine: TransformersEngine, swaps: list[Request], results: dict[str, Any]) -> None:
    own = {completion.id: completion for completion in engine.generate(swaps)}
    theirs = {completion["id"]: completion["tokens"] for completion in results["swaps"]}
    assert len({tuple(tokens) for tokens in theirs.values()}) > SWAPS // 2, "equal completions of all adapters would prove nothing"
    for request in swaps:
        assert same(engine, request, own[request.id], theirs[request.id]), request.id
    by_id = {completion["id"]: completion["tokens"] for completion in results["main"]}
    assert {c["id"]: c["tokens"] for c in results["again"]} == {c["id"]: by_id[c["id"]] for c in results["again"]}
    assert len(results["again"]) == 6
    growth = results["sizes"][-1] - results["sizes"][1]
    assert growth < 24e6, f"{growth / 1e6:.0f} MB more after {SWAPS - 20} adapters"
    assert results["held"] is None or results["held"] <= 8


def test_completions_are_yielded_as_they_end(results: dict[str, Any]) -> None:
    assert results["first_ended"] == ["short"]
    assert results["unfinished_after_break"] == 0, "a dropped iterator leaves requests running"


def test_completions_before_the_deadline_are_yielded(results: dict[str, Any]) -> None:
    assert "short" in [completion["id"] for completion in results["deadline"]]
    assert len(results["deadline"]) < 41
    assert results["late"] < 1.0
    assert results["unfinished_after_deadline"] == 0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "adapter_config.json"),
        ("truncated", "adapter_model.safetensors cannot be read"),
        ("no_json", "no readable adapter_config.json"),
        ("dora", "NotServedError: adapter"),
        ("dora", "uses DoRA"),
        ("rank", "NotServedError: adapter"),
        ("rank", "rank 12, the engine was started for up to 8"),
        ("other_base", "it belongs to another model"),
        ("head", "lm_head"),
        ("pissa", "made with pissa"),
    ],
)
def test_an_adapter_that_cannot_be_served_is_named_before_anything_runs(
    broken: dict[str, Path], results: dict[str, Any], kind: str, message: str
) -> None:
    assert str(broken[kind]) in results["refusals"][kind]
    assert message in results["refusals"][kind]


def test_a_request_over_the_limit_is_refused_before_anything_runs(results: dict[str, Any]) -> None:
    assert "request bad: 1020 prompt tokens and 10 to generate, the model takes 1 to 1024 in all" in results["over"]
    assert "request bad: 0 prompt tokens" in results["empty"]


def test_an_adapter_that_breaks_later_fails_its_own_requests_alone(results: dict[str, Any]) -> None:
    ended = {completion["id"]: completion for completion in results["vanished"]}
    assert sorted(ended) == ["gone0", "gone1", *(f"held{i}" for i in range(6))]
    assert all(ended[f"held{i}"]["finished"] in ("stop", "length") for i in range(6))
    assert all(ended[f"gone{i}"]["finished"] == "failed" and "vanishing" in ended[f"gone{i}"]["reason"] for i in range(2))


def test_an_error_in_a_step_is_raised_and_leaves_an_empty_engine(results: dict[str, Any]) -> None:
    assert "illegal memory access" in results["step_error"]
    assert results["unfinished_after_error"] == 0
    assert "not one token" in results["stuck"]
    by_id = {completion["id"]: completion["tokens"] for completion in results["main"]}
    assert {c["id"]: c["tokens"] for c in results["last"]} == {c["id"]: by_id[c["id"]] for c in results["last"]}


def test_sampling_follows_the_seed(results: dict[str, Any]) -> None:
    sampled = {completion["id"]: completion["tokens"] for completion in results["sampled"]}
    assert all(sampled[f"{seed}-0"] == sampled[f"{seed}-1"] for seed in range(6))
    assert len({tuple(tokens) for tokens in sampled.values()}) > 3


def test_a_dead_end_ends_early(results: dict[str, Any]) -> None:
    (answer,) = results["dead_end"]
    assert answer["finished"] in ("dead_end", "stop")
    assert len(answer["tokens"]) < 40


def test_both_engines_score_alike(engine: TransformersEngine, main_requests: list[Request], results: dict[str, Any]) -> None:
    for request, theirs in zip(main_requests, results["scores"], strict=False):
        question = score_question(request)
        own = engine.score(question["prompt"], question["continuations"], request.adapter)
        assert theirs == pytest.approx(own, abs=5e-3)


def test_alphas_by_module_are_read_or_refused(engine: TransformersEngine, main_requests: list[Request], results: dict[str, Any]) -> None:
    """A vllm that ignores them must not serve the adapter."""
    assert "does not read its alpha_pattern" in results["patterned_old"]
    assert "takes no no_such_argument" in results["unknown_argument"]
    if not results["reads_patterns"]:
        assert "does not read its alpha_pattern" in results["patterned"]
        return
    (answer,) = results["patterned"]
    request = Request("patterned", main_requests[0].prompt, 12, Path(results["patterned_path"]))
    (own,) = engine.generate([request])
    assert same(engine, request, own, answer["tokens"])


def test_a_rank_is_rounded_up_to_a_supported_one() -> None:
    assert [supported_rank(rank) for rank in (1, 2, 8, 9, 64, 65, 512)] == [1, 8, 8, 16, 64, 128, 512]
    with pytest.raises(ConfigError, match="up to 512"):
        supported_rank(513)


def test_a_gpu_that_vllm_would_not_take_is_refused() -> None:
    with pytest.raises(ConfigError, match="start the process with CUDA_VISIBLE_DEVICES=1"):
        prepare_process(torch.device("cuda:1"), 1)


def test_vllm_starts_as_the_card_and_its_tools_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a T4 FlashInfer needs a compiler; a run then goes on with the plain start, which does not."""
    gpu, installed, tools, capability = torch.device("cuda:0"), {"flashinfer"}, {"nvcc"}, (7, 5)
    monkeypatch.setattr(vllm_compat.importlib.util, "find_spec", lambda name: object() if name in installed else None)
    monkeypatch.setattr(vllm_compat.shutil, "which", lambda tool: tool if tool in tools else None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with pytest.raises(ConfigError, match=r"sm_75\) FlashInfer compiles its kernels, and ninja is not installed; the plain start follows"):
        choose_start(gpu, plain=False)
    assert choose_start(gpu, plain=True)[0] == {"enforce_eager": True, "attention_backend": "TRITON_ATTN"}
    tools.add("ninja")
    assert choose_start(gpu, plain=False)[0] == {"enforce_eager": False}
    tools.clear()
    capability = (8, 9)
    assert choose_start(gpu, plain=False)[0] == {"enforce_eager": False}
    assert choose_start(torch.device("cpu"), plain=False)[0] == {"enforce_eager": True}
    assert engines_of("vllm", on_gpus=True) == ("vllm", VLLM_PLAIN, "transformers")


def test_memory_is_planned_for_the_requests_that_run_together() -> None:
    gb = 2**30
    t4 = plan_memory(int(14.2 * gb) - int(3.1 * gb), 28 * 1024, 6144, None, 240, 8)
    assert (t4.slots, t4.adapters) == (64, 8)
    large = plan_memory(int(14.2 * gb) - int(8.0 * gb), 144 * 1024, 6144, None, 240, 64)
    assert (large.slots, large.adapters) == (7, 2)
    assert "7 of 6144 tokens fit" in large.reason
    assert plan_memory(0, 144 * 1024, 6144, None, 1, 8).slots == 2

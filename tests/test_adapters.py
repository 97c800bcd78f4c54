"""Adapters in the transformers engine: PEFT's own tokens, whatever runs beside them, on a base that stays as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from test_transformers_engine import CPU, by_id, requests

from arc_submit.base_model.adapter_files import read_config
from arc_submit.base_model.loading import load_model
from arc_submit.base_model.lora import attach, save_adapter
from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError
from arc_submit.inference.engine import Completion, Request
from arc_submit.inference.load_transformers import load_transformers_engine
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.run.config import RunConfig
from arc_submit.run.resolve import _check_model
from arc_submit.run.resolve_single import resolve_infer

KINDS: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "rslora": {"r": 3, "lora_alpha": 6, "use_rslora": True, "target_modules": ["q_proj", "o_proj", "gate_proj", "down_proj"]},
    "dora": {"r": 4, "lora_alpha": 8, "use_dora": True, "target_modules": ["q_proj", "o_proj", "up_proj"]},
    "patterns": {
        "r": 8,
        "lora_alpha": 4,
        "target_modules": ["k_proj", "v_proj", "up_proj"],
        "rank_pattern": {"up_proj": 5},
        "alpha_pattern": {"v_proj": 16, "layers.1.self_attn.k_proj": 2},
    },
}


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters that PEFT made, with random weights large enough to change most answers."""
    folders = {}
    for seed, (kind, settings) in enumerate(KINDS.items()):
        torch.manual_seed(seed)
        wrapped = get_peft_model(load_model(tiny_model, CPU, torch.float32, "eager"), LoraConfig(task_type="CAUSAL_LM", **settings))
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.3)
                if "magnitude" in name:
                    parameter.mul_(1 + 0.2 * torch.rand_like(parameter))
        folders[kind] = tmp_path_factory.mktemp(kind)
        wrapped.save_pretrained(folders[kind])
    return folders


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> TransformersEngine:
    torch.set_num_threads(1)
    return load_transformers_engine(tiny_model, CPU, slots=4)[0]


def mixed(adapters: dict[str, Path], count: int = 16, seed: int = 7) -> list[Request]:
    """Requests that take turns among the base and the adapters."""
    folders = [None, *adapters.values()]
    return [replace(r, adapter=folders[i % len(folders)]) for i, r in enumerate(requests(count, seed=seed, longest=300))]


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_answer_is_the_one_that_pefts_model_gives(
    engine: TransformersEngine, tiny_model: Path, adapters: dict[str, Path], kind: str
) -> None:
    """PEFT's model in a loop without a cache, greedy, token by token."""
    plain = PeftModel.from_pretrained(load_model(tiny_model, CPU, torch.float32, "eager"), adapters[kind]).eval()
    asked = [replace(r, adapter=adapters[kind]) for r in requests(5, seed=11, longest=200, new=25)]
    base = by_id(list(engine.generate([replace(r, adapter=None) for r in asked])))
    made = by_id(list(engine.generate(asked)))
    for request in asked:
        ids, expected, total = list(request.prompt), [], 0.0
        while len(expected) < request.max_new_tokens and (not expected or expected[-1] != engine.end_id):
            with torch.inference_mode():
                logprobs = plain(input_ids=torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
            expected.append(int(logprobs.argmax()))
            total += float(logprobs[expected[-1]])
            ids.append(expected[-1])
        assert made[request.id][0] == expected
        assert made[request.id][1] == pytest.approx(total, abs=1e-3)
    assert sum(made[key][0] != base[key][0] for key in made) >= 3, "an adapter that changes nothing would prove nothing"


def test_an_answer_does_not_depend_on_the_adapters_beside_it(engine: TransformersEngine, adapters: dict[str, Path]) -> None:
    """Bit for bit: together, in another order, and each alone."""
    asked = mixed(adapters)
    together = by_id(list(engine.generate(asked)))
    assert by_id(list(engine.generate(asked[::-1]))) == together
    alone: dict[str, tuple[list[int], float, str]] = {}
    for request in asked[:8]:
        alone |= by_id(list(engine.generate([request])))
    assert alone == {key: together[key] for key in alone}


def test_the_base_is_bit_for_bit_what_it_was(engine: TransformersEngine, adapters: dict[str, Path]) -> None:
    before = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    asked = [replace(r, adapter=None) for r in requests(4, seed=2, longest=100)]
    base = by_id(list(engine.generate(asked)))
    stopped = engine.generate(mixed(adapters))
    next(iter(stopped))
    stopped.close()  # left in the middle, as by an interrupt
    list(engine.generate(mixed(adapters)))
    assert by_id(list(engine.generate(asked))) == base
    after = engine.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def change_config(**fields: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


def change_weights(edit: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        save_file(edit(load_file(folder / "adapter_model.safetensors")), folder / "adapter_model.safetensors")

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_config(use_dora=True), "belongs to another model"),
        (change_config(bias="lora_only"), "uses bias"),
        (change_config(modules_to_save=["lm_head"]), "uses modules_to_save"),
        (change_config(alora_invocation_tokens=[5, 6]), "uses alora_invocation_tokens"),
        (change_config(init_lora_weights="pissa_niter_4"), "alters the base"),
        (change_config(peft_type="IA3"), "only LORA"),
        (change_config(lora_alpha="many"), "no readable adapter_config"),
        (change_config(r=5), "its rank is 5"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "no readable adapter_config"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "cannot be read"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}"), "cannot be read"),
        (change_weights(lambda w: {**w, "base_model.model.lm_head.weight": torch.ones(2, 2)}), "no part of a LoRA"),
        (change_weights(lambda w: {k.replace("layers.1", "layers.7"): v for k, v in w.items()}), "no linear layer model.layers.7"),
        (change_weights(lambda w: {k: v[:, :-1].contiguous() if "lora_A" in k else v for k, v in w.items()}), "belongs to another model"),
        (change_weights(lambda w: {k: v for k, v in w.items() if "lora_B" not in k}), "belongs to another model"),
        (change_weights(lambda w: {}), "adapts no layer"),
    ],
)
def test_what_cannot_be_served_is_refused_before_any_work(
    engine: TransformersEngine, adapters: dict[str, Path], tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(adapters["plain"], folder)
    change(folder)
    with pytest.raises(ConfigError, match=message):
        next(iter(engine.generate([Request("good", [5, 6], 2), Request("bad", [5, 6], 2, folder)])))


def test_requests_without_an_adapter_are_answered_first(engine: TransformersEngine, adapters: dict[str, Path]) -> None:
    asked = [Request("adapted", [5, 6], 3, adapters["plain"]), Request("base", [5, 6], 3)]
    made: list[Completion] = list(engine.generate(asked))
    assert [c.id for c in made] == ["base", "adapted"]


def test_what_a_configuration_says_of_each_layer(adapters: dict[str, Path]) -> None:
    plain, patterns = read_config(adapters["plain"]), read_config(adapters["patterns"])
    assert (plain.largest_rank, patterns.largest_rank) == (4, 8)
    assert plain.of_layer("model.layers.0.self_attn.q_proj") == (4, 8)
    assert patterns.of_layer("model.layers.0.mlp.up_proj") == (5, 4)
    assert patterns.of_layer("model.layers.0.self_attn.v_proj") == (8, 16)
    assert [patterns.of_layer(f"model.layers.{i}.self_attn.k_proj") for i in (0, 1)] == [(8, 4), (8, 2)]


@pytest.mark.parametrize(
    ("settings", "used"),
    [
        (LoraSettings(rank=2, dora=True), "uses DoRA, which vllm does not serve; take the engine transformers"),
        (LoraSettings(rank=2, targets=("q_proj", "lm_head")), "uses lm_head, which vllm"),
        (LoraSettings(rank=600, targets=("q_proj",)), r"uses rank 600, which vllm does not serve \(up to 512\)"),
        (LoraSettings(rank=2, rslora=True), None),
    ],
)
def test_what_vllm_cannot_serve_is_refused_before_any_work(
    tmp_path: Path, tiny_model: Path, files: tuple[Path, Path], settings: LoraSettings, used: str | None
) -> None:
    ids = list(json.loads(files[0].read_text()))
    folder = tmp_path / "adapters" / ids[1]
    save_adapter(attach(load_model(tiny_model, CPU, torch.float32, "eager"), settings, 0), folder)
    config = RunConfig(model=tiny_model, challenges=files[0], out=tmp_path / "run")
    run = replace(config, sources=("ttft",), base_adapter=folder, ttft_engine="vllm")
    alone = replace(config, sources=("frozen",), adapters=folder.parent, engine="vllm")
    for check in (partial(_check_model, run), partial(resolve_infer, alone)):
        if used is None:
            check()
        else:
            with pytest.raises(ConfigError, match=f"{folder}: {used}"):
                check()
    assert not config.out.exists()

"""Low-rank layers: the same numbers as PEFT's, resets that leave no trace, files that are whole or absent."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from arc_submit.base_model.adapter_files import check_adapter
from arc_submit.base_model.hidden_states import hidden_states_from
from arc_submit.base_model.loading import load_model
from arc_submit.base_model.lora import Adapter, LoraSettings, attach, detach, reset, save_adapter
from arc_submit.errors import ConfigError

CPU = torch.device("cpu")
IDS = torch.arange(2 * 40).view(2, 40) % 40 + 5
SETTINGS = [
    LoraSettings(rank=4),
    LoraSettings(rank=3, alpha=7, targets=("q_proj", "down_proj"), rslora=True, init="gaussian"),
    LoraSettings(rank=4, init="pissa"),
    LoraSettings(rank=4, alpha=5, init="olora", rslora=True),
    LoraSettings(rank=4, dora=True),
]


def fresh(folder: Path) -> Any:
    return load_model(folder, CPU, torch.float32, "sdpa")


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return out


def shake(adapter: Adapter, seed: int = 0) -> None:
    """As training would: other values in every place."""
    with torch.no_grad():
        adapter.flat.add_(torch.randn(adapter.flat.shape, generator=torch.Generator().manual_seed(seed)), alpha=0.02)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_peft_reads_what_is_saved_and_gives_the_same_logits(tiny_model: Path, tmp_path: Path, settings: LoraSettings) -> None:
    from peft import PeftModel

    model = fresh(tiny_model)
    base = logits(model)
    adapter = attach(model, settings, seed=1)
    assert torch.allclose(logits(model), base, atol=1e-4), "an adapter begins at the base model"
    shake(adapter)
    changed = logits(model)
    assert (changed - base).abs().max() > 0.1
    save_adapter(adapter, tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(fresh(tiny_model), tmp_path / "adapter", local_files_only=True)
    assert torch.allclose(logits(theirs), changed, atol=1e-3)
    detach(adapter)
    assert torch.equal(logits(model), base)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": ["q_proj", "up_proj"]}], ids=str)
def test_a_base_adapter_of_peft_is_continued(tiny_model: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    config = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "k_proj", "down_proj"], "task_type": "CAUSAL_LM", **options}
    theirs = get_peft_model(fresh(tiny_model), LoraConfig(**config))
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    theirs.save_pretrained(tmp_path / "base")
    expected = logits(theirs)
    model = fresh(tiny_model)
    adapter = attach(model, LoraSettings(rank=99), seed=0, base_adapter=tmp_path / "base")
    assert adapter.settings.rank == 4
    assert torch.allclose(logits(model), expected, atol=1e-3)
    shake(adapter)
    reset(adapter, seed=5)  # there is nothing to draw: it goes back to the base adapter
    assert torch.allclose(logits(model), expected, atol=1e-3)
    shake(adapter)
    save_adapter(adapter, tmp_path / "next")
    changed = logits(model)
    detach(adapter)
    attach(model, LoraSettings(), seed=0, base_adapter=tmp_path / "next")
    assert torch.equal(logits(model), changed)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_kept_effective_weights_change_neither_values_nor_gradients(tiny_model: Path, settings: LoraSettings) -> None:
    found = []
    for merge in (True, False):
        model = fresh(tiny_model)
        adapter = attach(model, settings, seed=1, merge=merge)
        shake(adapter)
        out = model(input_ids=IDS, use_cache=False).logits
        (out.log_softmax(-1)[:, :, 7] * torch.linspace(0, 1, 40)).sum().backward()
        assert adapter.flat.grad is not None
        found.append((out.detach(), adapter.flat.grad.clone()))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-3)
    scale = found[1][1].abs().max()
    assert scale > 0
    assert torch.allclose(found[0][1] / scale, found[1][1] / scale, atol=2e-5)


@pytest.mark.parametrize("options", [{"rank": 1}, {"rank": 128, "alpha": 128}, {"rank": 4, "dora": True}], ids=str)
@pytest.mark.parametrize("merge", [True, False])
def test_gradients_are_peft_s(tiny_model: Path, tmp_path: Path, options: dict[str, Any], merge: bool) -> None:
    from peft import PeftModel

    adapter = attach(fresh(tiny_model), LoraSettings(**options), seed=1, merge=merge)
    shake(adapter)
    save_adapter(adapter, tmp_path / "a")
    theirs = PeftModel.from_pretrained(fresh(tiny_model), tmp_path / "a", is_trainable=True, local_files_only=True)
    for model in (adapter.model, theirs):
        for _ in range(2):  # gradients add up
            model(input_ids=IDS, use_cache=False).logits.logsumexp(-1).sum().backward()
    expected = {name: p.grad for name, p in theirs.named_parameters() if "lora_" in name}
    for name, layer in adapter.layers.items():
        for word, gradient in zip(("lora_A", "lora_B", "lora_magnitude_vector"), layer.gradients, strict=False):
            want = expected[f"base_model.model.{name}.{word}.default.weight"]
            assert want is not None
            assert want.abs().max() > 0
            assert torch.allclose(gradient / want.abs().max(), want / want.abs().max(), atol=1e-4)


@pytest.mark.parametrize("family", ["Qwen2", "Qwen3", "Llama", "Mistral"])
@pytest.mark.parametrize("first", [0, 5, 25, 39])
def test_states_from_a_place_on_are_the_model_s(family: str, first: int) -> None:
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = getattr(transformers, f"{family}Config")(vocab_size=48, **sizes, head_dim=16, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    states = hidden_states_from(model, IDS, first)
    assert torch.allclose(states, model.model(input_ids=IDS, use_cache=False).last_hidden_state[:, first:], atol=1e-4)
    assert states.shape == (2, 40 - first, 64)


def test_a_reset_leaves_no_trace(tiny_model: Path) -> None:
    adapter = attach(fresh(tiny_model), LoraSettings(rank=4), seed=1)
    begun = adapter.flat.detach().clone()
    place = adapter.flat.data_ptr()
    logits(adapter.model)
    shake(adapter)
    assert adapter.flat.grad is not None
    adapter.flat.grad.fill_(1)
    assert not torch.equal(adapter.flat, begun)
    reset(adapter)
    assert torch.equal(adapter.flat, begun)
    assert adapter.flat.data_ptr() == place
    assert not adapter.flat.grad.any()
    reset(adapter, seed=8)
    eight = adapter.flat.detach().clone()
    assert not torch.equal(eight, begun)
    shake(adapter)
    reset(adapter, seed=9)
    reset(adapter, seed=8)
    assert torch.equal(adapter.flat, eight)
    assert torch.allclose(logits(adapter.model), logits(fresh(tiny_model)), atol=1e-4), "the effective weights follow a reset"


def test_an_adapter_is_whole_or_absent_whenever_its_writer_is_killed(tiny_model: Path, tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from arc_submit.base_model.loading import load_model\n"
        "from arc_submit.base_model.lora import LoraSettings, attach, save_adapter\n"
        "adapter = attach(load_model(Path(sys.argv[1]), torch.device('cpu'), torch.float32, 'sdpa'), LoraSettings(), 0)\n"
        "print('ready', flush=True)\n"
        "while True: save_adapter(adapter, Path(sys.argv[2]) / 'adapter')\n"
    )
    rng, model = random.Random(0), fresh(tiny_model)
    process = subprocess.Popen([sys.executable, "-c", code, str(tiny_model), str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(40):
        time.sleep(rng.random() * 0.02)
        process.send_signal(signal.SIGSTOP)
        if (tmp_path / "adapter").exists():
            assert len(check_adapter(tmp_path / "adapter", model)[1]) == 14
            assert len(load_file(tmp_path / "adapter" / "adapter_model.safetensors")) == 28
        process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()
    process.stdout.close()
    save_adapter(attach(fresh(tiny_model), LoraSettings(), 0), tmp_path / "adapter")
    assert len(check_adapter(tmp_path / "adapter", model)[1]) == 14


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rank": 0}, "rank 0"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"targets": ()}, "targets none"),
        ({"targets": ("q_proj", "q_proj")}, "each linear layer once"),
        ({"targets": ("embed_tokens",), "dora": True}, "embed_tokens with --lora-dora"),
        ({"targets": ("embed_tokens",), "init": "pissa"}, "embed_tokens with --lora-init pissa"),
        ({"embedding_learning_rate": 0.0}, "--lora-embedding-learning-rate 0"),
        ({"init": "loftq"}, "choose from"),
        ({"init": "pissa", "dora": True}, "DoRA"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        replace(LoraSettings(), **change)


def test_what_cannot_be_attached_is_refused(tiny_model: Path) -> None:
    model = fresh(tiny_model)
    with pytest.raises(ConfigError, match="no linear layer of this model is called so"):
        attach(model, LoraSettings(targets=("q_proj", "query_key_value")), 0)
    with pytest.raises(ConfigError, match=r"has only \d+ directions"):
        attach(model, LoraSettings(rank=1000, init="olora"), 0)
    attach(fresh(tiny_model), LoraSettings(), 0)
    adapter = attach(model, LoraSettings(), 0)
    with pytest.raises(ConfigError, match="detach"):
        attach(adapter.model, LoraSettings(), 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"peft_type": "IA3"}, "only LORA"),
        ({"bias": "all"}, "merge it"),
        ({"modules_to_save": ["lm_head"]}, "merge it"),
        ({"rank_pattern": {"q_proj": 2}}, "its rank is 2"),
        ({"alpha_pattern": {"q_proj": 2}}, "differ from layer to layer"),
        ({"init_lora_weights": "pissa"}, "alters the base"),
        ({"r": 5}, "its rank is 5"),
        ({"r": None}, "no readable adapter_config"),
        ({"lora_alpha": 0}, r"adapter .*: --lora-alpha 0"),
    ],
)
def test_a_base_adapter_that_does_not_fit_is_refused(tiny_model: Path, tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    save_adapter(attach(fresh(tiny_model), LoraSettings(rank=4), 0), tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    model = fresh(tiny_model)
    before = logits(model)
    with pytest.raises(ConfigError, match=reason):
        attach(model, LoraSettings(), 0, base_adapter=tmp_path / "a")
    assert torch.equal(logits(model), before)


def test_an_adapter_that_is_not_there_or_cut_off_is_named(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no readable adapter_config"):
        attach(fresh(tiny_model), LoraSettings(), 0, base_adapter=tmp_path)
    save_adapter(attach(fresh(tiny_model), LoraSettings(rank=4), 0), tmp_path / "a")
    weights = tmp_path / "a" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ConfigError, match="cannot be read"):
        attach(fresh(tiny_model), LoraSettings(), 0, base_adapter=tmp_path / "a")

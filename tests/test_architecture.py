"""Which model folders are refused from their files alone, and that whole ones of many kinds are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from arc_submit.base_model.architecture import check_for_engines, check_layers, make_skeleton, read_config
from arc_submit.base_model.loading import load_model
from arc_submit.errors import ArcSubmitError, ConfigError
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.language.prompt_config import resolve_prompt_config

Tensors = dict[str, torch.Tensor]
Values = dict[str, Any]


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be spoilt."""
    shutil.copytree(tiny_model, tmp_path / "model")
    return tmp_path / "model"


def change_weights(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def move(folder: Path, old: str, new: str) -> None:
    (folder / old).rename(folder / new)


REFUSED: list[tuple[str, Callable[[Path], object]]] = [
    (
        r"lack lm_head.* and hold _orig_mod\..* instead;",
        lambda f: change_weights(f, lambda t: {f"_orig_mod.{k}": v for k, v in t.items()}),
    ),
    (
        "lack model.layers.1.mlp.down_proj.weight and 2 more",
        lambda f: change_weights(f, lambda t: {k: t[k] for k in t if "1.mlp" not in k}),
    ),
    ("lack model.norm.weight;", lambda f: change_weights(f, lambda t: {k: t[k] for k in t if k != "model.norm.weight"})),
    (
        r"embed_tokens.weight has shape \(40, 128\) in the file and \(48, 128\)",
        lambda f: change_weights(f, lambda t: {**t, "model.embed_tokens.weight": t["model.embed_tokens.weight"][:40].clone()}),
    ),
    (
        "hold model.layers.1.input_layernorm.weight and 11 more weights",
        lambda f: change_config(f, num_hidden_layers=1, layer_types=["full_attention"]),
    ),
    ("model.norm.weight is stored as I8", lambda f: change_weights(f, lambda t: {**t, "model.norm.weight": t["model.norm.weight"].char()})),
    ("hold v_head.weight", lambda f: change_weights(f, lambda t: {**t, "v_head.weight": torch.zeros(1, 128)})),
    ("config.json: no model can be built", lambda f: change_config(f, num_attention_heads=3, num_key_value_heads=2, hidden_act="none")),
    ("transformers .* has no model_type xx", lambda f: change_config(f, model_type="xx")),
    (r"own code \(auto_map\), which is never run", lambda f: change_config(f, model_type="xx", auto_map={"AutoConfig": "m.C"})),
    ("t5 is no causal language model", lambda f: change_config(f, model_type="t5")),
    ("quantization_config awq: weights in fewer bits", lambda f: change_config(f, quantization_config={"quant_method": "awq", "bits": 4})),
    ("adapter_config.json lies beside", lambda f: (f / "adapter_config.json").write_text("{}")),
    ("is an adapter; give its base", lambda f: move(f, "config.json", "adapter_config.json")),
    ("other.safetensors is no name", lambda f: move(f, "model.safetensors", "other.safetensors")),
    ("part-2.safetensors is missing", lambda f: split(f, ["part-1", "part-2"])),
    (
        "weight_map with a file",
        lambda f: (move(f, "model.safetensors", "a.safetensors"), (f / "model.safetensors.index.json").write_text("[]")),
    ),
    (
        "weight_map with a file",
        lambda f: (
            move(f, "model.safetensors", "a.safetensors"),
            (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3}}'),
        ),
    ),
    ("a JSON object is expected", lambda f: (f / "config.json").write_text("[]")),
    ("model.safetensors: cannot be read", lambda f: (f / "model.safetensors").write_bytes(b"\x10" * 40)),
]


def split(folder: Path, parts: list[str]) -> None:
    """Leave the first of the parts that an index names."""
    tensors = load_file(folder / "model.safetensors")
    names = {name: f"{parts[number % len(parts)]}.safetensors" for number, name in enumerate(sorted(tensors))}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    move(folder, "model.safetensors", "part-1.safetensors")


@pytest.mark.parametrize(("message", "spoil"), REFUSED, ids=[message[:30] for message, _ in REFUSED])
def test_what_the_files_tell_is_refused_in_one_line(folder: Path, message: str, spoil: Callable[[Path], object]) -> None:
    assert check_for_engines(folder, ["transformers"]).device.type == "meta"
    spoil(folder)
    with pytest.raises(ArcSubmitError, match=message) as caught:
        check_for_engines(folder, ["transformers"])
    line = str(caught.value)
    assert str(folder) in line
    assert "\n" not in line
    assert not any(word in line for word in ("Error:", "Exception:", "trust_remote_code"))


@pytest.mark.parametrize("kind", ["prefix", "layer", "embedding"])
def test_the_loader_refuses_what_is_not_whole(folder: Path, kind: str) -> None:
    """Without the check before: a worker, merge and train load models themselves."""
    number = {"prefix": 0, "layer": 1, "embedding": 3}[kind]
    message, spoil = REFUSED[number]
    spoil(folder)
    with pytest.raises(ConfigError, match=message):
        load_model(folder, torch.device("cpu"), torch.float32, "sdpa")


def test_layers_that_torchs_kernels_cannot_compute_are_refused(folder: Path) -> None:
    from transformers import GptOssConfig

    config = GptOssConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_local_experts=2, vocab_size=48)
    with pytest.raises(ConfigError, match="model_type gpt_oss has layers that torch's attention kernels cannot compute"):
        check_layers(folder, make_skeleton(folder, config))


def test_a_table_of_rotations_from_an_old_version_is_no_fault(folder: Path) -> None:
    change_weights(folder, lambda t: {**t, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(32)})
    check_for_engines(folder, ["transformers"])
    load_model(folder, torch.device("cpu"), torch.float32, "sdpa")


def change_text_config(folder: Path, **values: Any) -> None:
    text = json.loads((folder / "config.json").read_text())["text_config"]
    change_config(folder, text_config={**text, **values})


def write_with_pictures(folder: Path, kind: str) -> Any:
    """A tiny model that also takes pictures, written into the folder; its limits and weights lie under other names in each kind."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 48, "max_position_embeddings": 700, "pad_token_id": 0}
    picture = {**sizes, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}
    values = {
        "Gemma3": {"text_config": text, "vision_config": picture, "mm_tokens_per_image": 4, "image_token_index": 47},
        "Mistral3": {  # tied by the whole's configuration alone
            "text_config": {"model_type": "mistral", "sliding_window": None, **text},
            "vision_config": {"model_type": "pixtral", "head_dim": 16, **picture},
            "image_token_index": 47,
        },
        "SmolVLM": {"text_config": {"model_type": "llama", **text}, "vision_config": picture, "image_token_id": 47},
    }
    config = getattr(transformers, f"{kind}Config")(**values[kind])
    whole = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    whole.save_pretrained(folder)
    return whole


@pytest.mark.parametrize("kind", ["Gemma3", "Mistral3", "SmolVLM"])
def test_the_text_part_of_a_model_that_takes_pictures_is_loaded(folder: Path, kind: str) -> None:
    whole = write_with_pictures(folder, kind)
    check_for_engines(folder, ["transformers"])
    model = load_model(folder, torch.device("cpu"), torch.float32, "sdpa")
    ids = torch.randint(3, 40, (1, 12))
    assert torch.equal(model(input_ids=ids).logits, whole(input_ids=ids).logits)
    assert TransformersEngine(model, 1).context_length == read_config(folder).max_position_embeddings == 700
    with pytest.raises(ConfigError, match="max_seq_len 701 is over the 700 tokens"):
        resolve_prompt_config(folder, None, None, 701)
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    for message, spoil in (
        (
            "quantization_config bitsandbytes: of a model that also takes pictures",
            lambda: change_config(folder, quantization_config=quantised),
        ),
        (
            r"hold model.layers.1\.\S+ and \d+ more weights, which the architecture of config.json has not",
            lambda: (change_config(folder, quantization_config=None), change_text_config(folder, num_hidden_layers=1, layer_types=None)),
        ),
    ):
        spoil()
        for check in (
            lambda: check_for_engines(folder, ["transformers"]),
            lambda: load_model(folder, torch.device("cpu"), torch.float32, "sdpa"),
        ):
            with pytest.raises(ConfigError, match=message):
                check()


def test_counters_and_masks_of_old_versions_are_no_weights_in_fewer_bits(folder: Path) -> None:
    change_weights(
        folder, lambda t: {**t, "model.layers.0.self_attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool), "count": torch.ones(1).long()}
    )
    check_for_engines(folder, ["transformers"])
    load_model(folder, torch.device("cpu"), torch.float32, "sdpa")
    change_weights(folder, lambda t: {k.replace("norm.weight", "norm.qweight"): v.int() if "norm" in k else v for k, v in t.items()})
    for check in (
        lambda: check_for_engines(folder, ["transformers"]),
        lambda: load_model(folder, torch.device("cpu"), torch.float32, "sdpa"),
    ):
        with pytest.raises(ConfigError, match=r"is stored as .*no quantization_config"):
            check()


@pytest.mark.parametrize("kind", ["OPT", "Llama4Text"])
def test_what_is_no_decoder_with_a_head_is_refused_from_its_configuration(folder: Path, kind: str) -> None:
    values = {"hidden_size": 48, "num_hidden_layers": 2, "vocab_size": 48, "ffn_dim": 32, "intermediate_size": 32, "num_local_experts": 2}
    config = getattr(transformers, f"{kind}Config")(**values)
    with pytest.raises(ConfigError, match="ForCausalLM is no decoder with an output layer behind it; give another model"):
        check_layers(folder, make_skeleton(folder, config))

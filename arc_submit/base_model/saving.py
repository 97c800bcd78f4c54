"""Writing a model's folder for transformers and vllm, and merging an adapter into its base. Does not know training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from arc_submit.base_model.adapter_files import WEIGHTS, check_adapter, check_copies, factor_names
from arc_submit.base_model.checks import READ_FROM, check_adapter_folder, check_model_folder
from arc_submit.errors import ConfigError, DataError
from arc_submit.language.prompt_config import PromptConfig, read_prompt_config

_WEIGHTS = (".safetensors", ".safetensors.index.json")


def save_model(
    model: Any, tokenizer: Any, config: PromptConfig, folder: Path, dtype: torch.dtype, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Write weights in a dtype (safetensors), the tokenizer and arc_submit.json; the model itself is not changed.

    Args:
        weights: in place of the model's own, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _save_weights(model, folder, dtype, weights)
    tokenizer.save_pretrained(folder)
    config.save(folder)


def _save_weights(model: Any, folder: Path, dtype: torch.dtype, weights: dict[str, torch.Tensor] | None = None) -> None:
    written: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in (weights or model.state_dict()).items():
        if tensor.data_ptr() in seen:
            continue  # tied weights are written once
        seen.add(tensor.data_ptr())
        written[name] = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype)
    model.save_pretrained(folder, state_dict=written)
    # transformers writes the dtype of the model in memory; vllm reads the dtype of the files from this field.
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def own_dtype(folder: Path) -> torch.dtype:
    """The dtype of a model's files according to its config.json; float32 without an entry.

    Raises:
        DataError: where the entry is not a dtype.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = config.get("dtype") or config.get("torch_dtype") or "float32"
    dtype = getattr(torch, str(named), None)
    if not isinstance(dtype, torch.dtype):
        raise DataError(f"{folder / 'config.json'}: torch has no dtype {named}")
    return dtype


@torch.no_grad()
def merge_adapter(model_folder: Path, adapter_folder: Path, out: Path, dtype: str | None = None) -> int:
    """Add an adapter's low-rank products to its base's weights and write the result, loadable by transformers and vllm.

    Each layer's sum is computed in float32 and rounded once. Where the output layer shares the embeddings' weights and the adapter changes
    one of the two, or each in its own way, the result has weights of its own for each. The other files that loading reads, such as the
    tokenizer's, are copied from the base; arc_submit.json is the adapter's where it has one.

    Args:
        dtype: name of the result's dtype; None takes the base's.

    Returns the number of changed layers.

    Raises:
        ConfigError: where the adapter does not belong to this base, or the result's folder is not empty.
    """
    from safetensors.torch import load_file

    from arc_submit.base_model.loading import load_model

    check_model_folder(model_folder)
    check_adapter_folder(adapter_folder)
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out}: not empty; give a new folder")
    base_dtype = own_dtype(model_folder)
    out_dtype: torch.dtype = getattr(torch, dtype) if dtype else base_dtype
    # A base in 16 bits is loaded in 16 bits, because a large one in float32 may exceed the memory.
    model = load_model(model_folder, torch.device("cpu"), torch.promote_types(base_dtype, out_dtype), "sdpa")
    _, scales = check_adapter(adapter_folder, model)
    tensors = load_file(adapter_folder / WEIGHTS)
    check_copies(adapter_folder, model)
    layers = dict(model.named_modules())
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head.weight is embedding.weight and any(layers[name].weight is embedding.weight for name in scales):
        head.weight = torch.nn.Parameter(head.weight.clone())
        model.config.tie_word_embeddings = False
    for name, scale in scales.items():
        *factors, magnitude = factor_names(name, layers[name])
        down, up = (tensors[factor].float() for factor in factors)
        weight = layers[name].weight
        product = (down.mT, up.mT) if layers[name] is embedding else (up, down)  # an embedding has a row for each input
        merged = weight.float().addmm_(*product, alpha=scale)
        magnitudes = tensors.get(magnitude)
        if magnitudes is not None:
            merged *= (magnitudes.float() / merged.norm(dim=1))[:, None]
        weight.copy_(merged)
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(model_folder.iterdir()):
        # Not the base's README and training log, which would be wrong for the merged model.
        copied = path.suffix in READ_FROM or path.name.startswith("LICENSE")
        if path.is_file() and copied and not path.name.endswith(_WEIGHTS):
            shutil.copyfile(path, out / path.name)
    _save_weights(model, out, out_dtype)
    if prompt_config := read_prompt_config(adapter_folder):
        prompt_config.save(out)
    return len(scales)

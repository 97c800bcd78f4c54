"""A model's architecture from its files alone: its configuration, and whether its weights are those that the architecture has.

Tensors without values, made from the headers of the files, go through transformers' own loader into a model on torch's meta device. Names
that the loader changes, fused experts and tied weights are then understood as they are when values are loaded, and no weight is read. Does
not know devices or engines.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from arc_submit.base_model.checks import check_model_folder, said, weight_files
from arc_submit.base_model.output_head import decoder_place
from arc_submit.errors import ConfigError, DataError

# The text part of a model that also takes pictures has these names in its files, and its own names in memory.
_TEXT_KEYS = {
    r"^language_model\.model\.": "model.",
    r"^model\.language_model\.": "model.",
    r"^model\.text_model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
}
_TEXT_LAYERS = "model.layers."  # the beginning of its layers' names in memory
_KEYS_AND_VALUES = ("full_attention", "sliding_attention", "attention")  # layers whose whole memory of a prompt is keys and values
_WHOLE_FORMATS = ("F64", "F32", "F16", "BF16")  # in safetensors' words
_LAYER_LISTS = ("layer_types", "layers_block_type", "block_types")


def read_config(folder: Path) -> Any:
    """The configuration of a folder's causal language model; of a model that also takes pictures, that of its text part.

    Raises:
        ConfigError: where transformers does not have the architecture, or only code in the folder has it.
        DataError: where config.json is malformed.
    """
    from transformers import AutoConfig
    from transformers import __version__ as version
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    path = folder / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    kind = values.get("model_type")
    if kind not in CONFIG_MAPPING:
        if "auto_map" in values:
            raise ConfigError(
                f"{path}: model_type {kind} needs the folder's own code (auto_map), which is never run; give a model whose architecture "
                "transformers has"
            )
        raise ConfigError(f"{path}: transformers {version} has no model_type {kind}; install a version that has it or give another model")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - each configuration checks its values with errors of its own kind
        raise DataError(f"{path}: not a model's configuration ({said(error)})") from None
    text = config.get_text_config(decoder=True)
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(f"{path}: model_type {kind} is no causal language model; give one that continues text")
    if text is not config:
        text.name_or_path = str(folder)
        # Both are said once for the whole model.
        text.tie_word_embeddings = bool(text.tie_word_embeddings or getattr(config, "tie_word_embeddings", False))
        if quantised := getattr(config, "quantization_config", None):
            text.quantization_config = quantised
    return text


def make_skeleton(folder: Path, config: Any | None = None) -> Any:
    """A folder's model on torch's meta device: every layer, no values.

    Raises:
        ConfigError, DataError: as `read_config` does, or where the architecture cannot be built.
    """
    from transformers import AutoModelForCausalLM

    config = read_config(folder) if config is None else config
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - values that do not fit each other raise errors of any kind
        raise ConfigError(f"{folder / 'config.json'}: no model can be built from it ({said(error)})") from None


def check_for_engines(folder: Path, engines: Collection[str], trained: bool = False, max_seq_len: int = 1) -> Any:
    """Refuse a folder's model where these engines cannot serve it, or it cannot be fine-tuned; returns it on torch's meta device.

    Args:
        max_seq_len: tokens of a prompt with its answer.

    Raises:
        ConfigError, DataError: as `check_weights` and `check_layers` do.
    """
    skeleton = check_weights(folder, quantised=not trained and "transformers" not in engines)
    if "transformers" in engines:
        check_layers(folder, skeleton)
    if max_seq_len > (limit := context_length(skeleton.config)):
        raise ConfigError(f"max_seq_len {max_seq_len} is over the {limit} tokens that model {folder} takes; lower it")
    return skeleton


def check_weights(folder: Path, quantised: bool = False) -> Any:
    """Refuse a folder whose files do not hold exactly the weights that its architecture has; returns the model on torch's meta device.

    Args:
        quantised: leave weights that are stored in fewer bits to the engine, which reads them itself.

    Raises:
        ConfigError: naming the weights that are missing, unknown or of another shape, or why quantised weights cannot be read here.
        DataError: where a file cannot be read.
    """
    from transformers.utils import logging

    check_model_folder(folder)
    config = read_config(folder)
    skeleton = make_skeleton(folder, config)
    if getattr(config, "quantization_config", None):
        if not quantised:
            check_quantisation(folder, config)
        return skeleton
    stored = read_tensors(folder)
    narrow = narrow_tensors(stored)
    tensors = {name: torch.empty(one.shape, device="meta") for name, one in stored.items() if name not in narrow}
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what transformers says in many lines is said in one below
    logging.disable_progress_bar()
    try:
        _, report = type(skeleton).from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            device_map={"": "meta"},
            local_files_only=True,
            trust_remote_code=False,
            **loading_options(folder),
        )
    except Exception as error:  # noqa: BLE001 - the conversion of tensors raises errors of any kind
        raise ConfigError(f"model {folder}: its weights do not fit its config.json ({said(error)}); save the model again") from None
    finally:
        logging.set_verbosity(verbosity)
    if narrow and report["missing_keys"]:
        raise ConfigError(
            f"{stored[narrow[0]].file}: {narrow[0]} is stored as {stored[narrow[0]].format}, and config.json has no quantization_config "
            "that says what its values mean; give the model with weights in 16 bits"
        )
    refuse_differences(folder, report)
    return skeleton


def loading_options(folder: Path) -> dict[str, Any]:
    """Keywords of `from_pretrained` with which differences between the files and the architecture are reported, not mended in silence."""
    key_mapping = _TEXT_KEYS if takes_pictures(folder) else None
    return {"output_loading_info": True, "ignore_mismatched_sizes": True, "key_mapping": key_mapping}


def takes_pictures(folder: Path) -> bool:
    """Whether a folder's model is more than a language model, of which the text part is loaded."""
    return "text_config" in json.loads((folder / "config.json").read_text(encoding="utf-8"))


def refuse_differences(folder: Path, report: Mapping[str, Any], needless: Collection[str] = ()) -> None:
    """Refuse a model that was not loaded whole.

    Args:
        report: transformers' loading info: names of missing and of unexpected weights, and the shapes of those that do not fit.
        needless: names of tensors in the files that no architecture needs.

    Raises:
        ConfigError: naming the weights and the remedy.
    """
    missing, unknown = sorted(report["missing_keys"]), _unknown(folder, set(report["unexpected_keys"]) - set(needless))
    if report["mismatched_keys"]:
        name, in_file, built = min(report["mismatched_keys"])
        raise ConfigError(
            f"model {folder}: {name} has shape {tuple(in_file)} in the file and {tuple(built)} by config.json; give the config.json that "
            "belongs to the weights, or save the model again"
        )
    if missing:
        beside = f" and hold {_some(unknown)} instead" if unknown else ""
        raise ConfigError(
            f"model {folder}: its files lack {_some(missing)}{beside}; save the whole model again under transformers' own names "
            "(save_pretrained of the model itself, not of a compiled or wrapped one)"
        )
    if unknown:
        raise ConfigError(
            f"model {folder}: its files hold {_some(unknown)}, which the architecture of config.json has not; give the config.json that "
            "belongs to the weights, or remove what is not the language model's"
        )


def _unknown(folder: Path, names: Collection[str]) -> list[str]:
    """Weights that are in the files and in no part of the architecture."""
    # The encoder of pictures is left out. A table of rotation frequencies, which old versions saved, is computed.
    own = [name for name in names if name.startswith(_TEXT_LAYERS)] if takes_pictures(folder) else names
    return sorted(name for name in own if not name.endswith("rotary_emb.inv_freq"))


def _some(names: Sequence[str]) -> str:
    """The first name, and the number of the others."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more weights"


def check_quantisation(folder: Path, config: Any) -> None:
    """Refuse weights in fewer bits that transformers cannot read on this machine.

    Raises:
        ConfigError: with the reason and the remedy.
    """
    from transformers.quantizers import AutoHfQuantizer

    method = dict(config.quantization_config).get("quant_method") if isinstance(config.quantization_config, dict) else None
    place = f"{folder / 'config.json'}: quantization_config {method}"
    if takes_pictures(folder):
        raise ConfigError(f"{place}: of a model that also takes pictures, only weights in 16 bits are read; give these")
    if not torch.cuda.is_available():
        raise ConfigError(f"{place}: weights in fewer bits need a CUDA device; give the model with weights in 16 bits")
    try:
        AutoHfQuantizer.from_config(config.quantization_config, pre_quantized=True).validate_environment(device_map={"": 0})
    except Exception as error:  # noqa: BLE001 - each method checks its packages with errors of its own kind
        raise ConfigError(f"{place}: cannot be read here ({said(error)}); give the model with weights in 16 bits") from None


def check_layers(folder: Path, model: Any) -> None:
    """Refuse a model whose layers have no attention of torch's kernels, or that is no decoder with an output layer behind it.

    Raises:
        ConfigError: naming the key of the configuration, or the model's class.
    """
    if not model._supports_sdpa:
        raise ConfigError(
            f"{folder / 'config.json'}: model_type {model.config.model_type} has layers that torch's attention kernels cannot compute; "
            "give another model, or take --engine vllm without fine-tuning"
        )
    decoder_place(model)


def layers_with_state(model: Any) -> str:
    """What shows that layers keep another state of a prompt than keys and values, or see it in chunks; "" where none does."""
    for key in _LAYER_LISTS:
        others = sorted({str(kind) for kind in getattr(model.config, key, None) or ()} - set(_KEYS_AND_VALUES))
        if others:
            return f"{key} has {', '.join(others)}"
    return f"{type(model).__name__} keeps a state" if model._is_stateful else ""


def context_length(config: Any) -> int:
    """Tokens of a prompt with its answer that a model takes, the same in every batch.

    Raises:
        ConfigError: where the configuration has no limit.
    """
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int):
        raise ConfigError(f"model {config.name_or_path}: config.json has no max_position_embeddings; add the tokens that the model takes")
    rotations = getattr(config, "rope_parameters", None) or {}
    for rope in (rotations, *rotations.values()):  # of all layers, or of each type of layers
        if isinstance(rope, dict) and rope.get("rope_type") == "longrope":
            # Beyond this length all frequencies change, and with them the keys of all slots.
            limit = min(limit, int(rope.get("original_max_position_embeddings") or limit))
    return limit


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, with its format in safetensors' words."""

    file: Path
    shape: list[int]
    format: str


def read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors in the files that transformers loads, by name, from the files' headers.

    Raises:
        ConfigError: where there is no file.
        DataError: where a file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    tensors = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a dict, cannot be iterated over
                    part = file.get_slice(name)
                    tensors[name] = StoredTensor(path, part.get_shape(), part.get_dtype())
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path}: cannot be read ({said(error)}); copy it again") from None
    return tensors


def narrow_tensors(stored: Mapping[str, StoredTensor]) -> list[str]:
    """Names of the tensors that are stored in fewer than 16 bits or as integers, sorted.

    transformers would round or misread weights in silence. Counters and masks, which old versions saved, are needless: `check_weights`
    shows whether the architecture lacks a weight without them.
    """
    return sorted(name for name, one in stored.items() if one.format not in _WHOLE_FORMATS)

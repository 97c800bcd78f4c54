"""Loading a base model and its tokenizer from a folder.

Nothing is downloaded, executed or unpickled: local folders, safetensors, no remote code. Does not know prompts or tasks.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from arc_submit.base_model.architecture import (
    check_quantisation,
    check_weights,
    loading_options,
    narrow_tensors,
    read_config,
    read_tensors,
    refuse_differences,
)
from arc_submit.base_model.checks import check_model_folder, said
from arc_submit.errors import ConfigError

# What transformers raises for files that it cannot read. Other errors, such as those of a busy GPU, may not be there at the next start.
_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    AssertionError,
    NotImplementedError,
    SafetensorError,
)


def choose_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    """The dtype for inference on a device, with its reason."""
    if device.type != "cuda":
        return torch.float32, "a CPU: float32 gives the same greedy tokens everywhere"
    major, minor = torch.cuda.get_device_capability(device)
    if major >= 8:
        return torch.bfloat16, f"sm_{major}{minor} has bfloat16"
    return torch.float16, f"sm_{major}{minor} has no bfloat16"


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder's tokenizer.json.

    AutoTokenizer picks a class by model type, whose own rules can drop tokens of a small vocabulary.

    Raises:
        ConfigError: where it cannot be read.
    """
    from transformers import PreTrainedTokenizerFast

    check_model_folder(folder)
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - the tokenizers library raises plain Exception for a broken file
        raise ConfigError(f"model {folder}: its tokenizer cannot be loaded ({type(error).__name__}: {error})") from None
    return tokenizer


def choose_device(name: str) -> torch.device:
    """The device with a name.

    Raises:
        ConfigError: where this machine has no such device.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device {name}: write cpu or cuda:0") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device {name}: write cpu or cuda:0")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = f"{torch.cuda.device_count()} GPUs are visible here{'' if visible is None else f' (CUDA_VISIBLE_DEVICES={visible})'}"
        raise ConfigError(f"--device {name}: {seen}; name one that is there, give --device cpu, or mend the driver")
    return device


def load_model(folder: Path, device: torch.device, dtype: torch.dtype, attention: str, in_4_bits: bool = False) -> Any:
    """The causal language model, in evaluation mode on its device.

    Args:
        dtype: of parameters and products.
        attention: name of an attention implementation that is registered with transformers.
        in_4_bits: hold linear layers in 4 bits (NF4, arXiv 2305.14314), as a base for adapters where 16 bits do not fit.

    Raises:
        ConfigError: where the folder or its weights cannot be read, or the weights are not those of the architecture; for 4 bits also on a
            CPU, or where bitsandbytes is not installed.
        DataError: where config.json is malformed.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging

    if in_4_bits and device.type != "cuda":
        raise ConfigError("a base in 4 bits needs a CUDA device; leave it out on a CPU")
    if in_4_bits and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("a base in 4 bits needs the package bitsandbytes, which is not installed; install it or leave the option out")
    check_model_folder(folder)
    logging.disable_progress_bar()
    options: dict[str, Any] = {}
    if device.type == "cuda":
        # Straight to the GPU: with a worker for each GPU, the host's memory does not hold a copy of a large model for each of them.
        options["device_map"] = {"": device}
    if in_4_bits:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
        )
    config = read_config(folder)
    narrow: list[str] = []
    if getattr(config, "quantization_config", None):
        check_quantisation(folder, config)
    elif narrow := narrow_tensors(read_tensors(folder)):
        check_weights(folder)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            **loading_options(folder),
            **options,
        )
    except _UNREADABLE as error:
        raise ConfigError(f"model {folder}: cannot be loaded ({said(error)}); copy it again, or give another model") from None
    refuse_differences(folder, report, narrow)
    return model.eval()

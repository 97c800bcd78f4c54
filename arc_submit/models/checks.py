"""What can be told of a model from its files alone, without loading torch. Knows nothing about what the files hold."""

from __future__ import annotations

from pathlib import Path

from arc_submit.errors import ConfigError


def check_model_folder(folder: Path) -> None:
    """Refuse at once what cannot be loaded.

    Raises:
        ConfigError: naming the file that is missing and the remedy.
    """
    if not folder.is_dir():
        raise ConfigError(f"model {folder}: no such folder; give --model the folder that holds config.json")
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ConfigError(f"model {folder}: {name} is missing; save the model again with save_pretrained")
    if not list(folder.glob("*.safetensors")):
        raise ConfigError(f"model {folder}: no .safetensors file; convert the weights, pickled ones are not read")


def check_adapter_folder(folder: Path) -> None:
    """Refuse at once a folder that holds no adapter.

    Raises:
        ConfigError: naming the file that is missing.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise ConfigError(f"adapter {folder}: {name} is missing; give a folder in PEFT format")

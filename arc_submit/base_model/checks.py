"""What can be told of a model from its files alone, without loading torch. Knows nothing about what the files hold."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError

READ_FROM = (".safetensors", ".json", ".jinja", ".model", ".txt")  # what the files end with that a model is read from
_BLOCKS, _BLOCK = 1024, 1 << 16


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


def files_fingerprint(folder: Path) -> dict[str, str]:
    """By name, what tells the files that a model or an adapter in `folder` is read from: bytes, and a digest of the content.

    Weights trained anew have the size of those before, so that size alone would mix two models' answers in one run; and a
    description that was edited must not end a run, so that only files which are read count. The digest is of the whole of a file
    of up to 64 MiB, and of a larger one of 1,024 blocks of 64 KiB from its first to its last byte, so that 15 GB need not be read:
    a layer of them that was changed alone can be missed where it is smaller than what lies between two blocks, all layers of a
    kind cannot.
    """
    return {p.name: _file_identity(p) for p in sorted(folder.glob("*")) if p.is_file() and p.suffix in READ_FROM}


def _file_identity(path: Path) -> str:
    size = path.stat().st_size
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        if size <= _BLOCKS * _BLOCK:
            hasher.update(file.read())
        else:
            for number in range(_BLOCKS):
                file.seek(number * (size - _BLOCK) // (_BLOCKS - 1))
                hasher.update(file.read(_BLOCK))
    return f"{size} bytes, {hasher.hexdigest()[:16]}"


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The names of the files that are not the same in two folders, by what `files_fingerprint` says of each."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def adapter_values(model: Path, lora: LoraSettings, base_adapter: Path | None = None) -> int:
    """How many numbers the file of an adapter holds, from the heads of the model's files.

    Args:
        base_adapter: an adapter that is gone on from, with its own rank and targets.

    Raises:
        ConfigError: where a file cannot be read.
    """
    if base_adapter is not None:
        return sum(math.prod(shape) for _, shape in _shapes(base_adapter))
    values = 0
    for name, shape in _shapes(model):
        *_, layer, kind = ("", *name.split("."))
        if layer in lora.targets and kind == "weight" and len(shape) == 2:
            # What begins at the weight's own factors is saved as a difference, of twice the rank.
            values += (2 if lora.init in ("pissa", "olora") else 1) * lora.rank * sum(shape) + (shape[0] if lora.dora else 0)
    return values


def _shapes(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the tensors in a folder's safetensors files."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "np") as file:
                for name in file.keys():  # noqa: SIM118 - it is no dict and cannot be iterated over
                    yield name, tuple(file.get_slice(name).get_shape())
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{path}: cannot be read ({error}); copy it again") from None

"""Checks of a model's or an adapter's files that need no torch: presence, fingerprints, tensor shapes. Does not know tensor values."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError, DataError

READ_FROM = (".safetensors", ".json", ".jinja", ".model", ".txt")  # suffixes of the files that loading a model reads
# Files that are read the same way have one fingerprint, the older one, so that a run from before the change goes on.
_READ_AS = {
    # The pocket model's tokenizer.json, since its characters are added tokens too (base_model/pocket.py).
    "68088 bytes, 14ea80c1b7d66422": "7748 bytes, 4d7f839bb8e5678b",
}
_LOADED_BYTES = {"F64": 2, "F32": 2, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U64": 8, "U32": 4, "I16": 2, "U16": 2}  # of a value
_SAMPLES, _SAMPLE_BYTES = 1024, 1 << 16


def check_model_folder(folder: Path) -> None:
    """Refuse a folder that no model can be loaded from.

    Raises:
        ConfigError: naming the file that is missing or in the way, and the remedy.
        DataError: where a file is malformed.
    """
    if not folder.is_dir():
        raise ConfigError(f"model {folder}: no such folder; give --model the folder that holds config.json")
    adapter = (folder / "adapter_config.json").exists()
    if adapter and not (folder / "config.json").is_file():
        raise ConfigError(f"model {folder}: is an adapter; give its base as --model and this folder as --base-adapter")
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ConfigError(f"model {folder}: {name} is missing; save the model again with save_pretrained")
    if adapter:
        # transformers would put it on the base without a word wherever peft is installed.
        raise ConfigError(
            f"model {folder}: adapter_config.json lies beside the base's weights; move the adapter into a folder of its own and give that "
            "as --base-adapter, or merge it (arc-submit merge)"
        )
    try:
        is_object = isinstance(json.loads((folder / "config.json").read_text(encoding="utf-8")), dict)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / 'config.json'}: not a model's configuration ({said(error)})") from None
    if not is_object:
        raise DataError(f"{folder / 'config.json'}: not a model's configuration; a JSON object is expected")
    weight_files(folder)


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers loads a model's weights from: model.safetensors, or the parts that its index names.

    Raises:
        ConfigError: where there is none, or a part is missing.
        DataError: where the index is malformed.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        if other := sorted(folder.glob("*.safetensors")):
            raise ConfigError(f"model {folder}: {other[0].name} is no name that transformers loads; name the file model.safetensors")
        raise ConfigError(f"model {folder}: no .safetensors file; convert the weights, pickled ones are not read")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [folder / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{index}: weight_map with a file for each weight is expected ({said(error)})") from None
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ConfigError(f"model {folder}: {missing[0]} is missing, which {index.name} names; copy it again")
    return files


def check_adapter_folder(folder: Path) -> None:
    """Refuse a folder that holds no adapter.

    Raises:
        ConfigError: naming the file that is missing.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise ConfigError(f"adapter {folder}: {name} is missing; give a folder in PEFT format")


def adapter_lora(folder: Path) -> LoraSettings:
    """The rank and the targets of an adapter in a folder, as far as the bytes of its fine-tuning depend on them.

    Raises:
        ConfigError: where there is no adapter, or its configuration cannot be read.
    """
    check_adapter_folder(folder)
    path = folder / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        named = config.get("target_modules")
        targets = tuple(name for name in LoraSettings().targets if not isinstance(named, list) or name in named)
        return LoraSettings(int(config["r"]), targets=targets or LoraSettings().targets, dora=bool(config.get("use_dora")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not an adapter's configuration ({said(error)}); give a folder in PEFT format") from None


def said(error: Exception) -> str:
    """What another package's error says, in one line of at most 300 characters without the names of its kinds."""
    text = re.sub(r"\b\w*(Error|Exception): ", "", " ".join(str(error).split()))
    return (text or type(error).__name__)[:300]


def files_fingerprint(folder: Path) -> dict[str, str]:
    """Size and content digest of each file, by name, that a model or an adapter in `folder` is loaded from.

    Size alone is not enough: retrained weights have the same size, and a run would mix two models' answers. An edited README must not end
    a run, so only files that loading reads count. The digest covers the whole of a file of up to 64 MiB. Of a larger file it covers 1,024
    evenly spaced blocks of 64 KiB, so that 15 GB need not be read. A change of one layer can be missed where the layer is smaller than the
    gap between two blocks; a change of all layers of a kind cannot.
    """
    return {p.name: _fingerprint(p) for p in sorted(folder.glob("*")) if p.is_file() and p.suffix in READ_FROM}


def _fingerprint(path: Path) -> str:
    size = path.stat().st_size
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        if size <= _SAMPLES * _SAMPLE_BYTES:
            hasher.update(file.read())
        else:
            for number in range(_SAMPLES):
                file.seek(number * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                hasher.update(file.read(_SAMPLE_BYTES))
    fingerprint = f"{size} bytes, {hasher.hexdigest()[:16]}"
    return _READ_AS.get(fingerprint, fingerprint)


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The names of the files that differ between two results of `files_fingerprint`, sorted."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def adapter_values(model: Path, lora: LoraSettings, base_adapter: Path | None = None) -> int:
    """The number of values in the file of an adapter, from the headers of the model's files.

    Args:
        base_adapter: the adapter to continue, with its own rank and targets.

    Raises:
        ConfigError: where a file cannot be read.
    """
    if base_adapter is not None:
        # PEFT adds a copy of the base's weights where embeddings are adapted; ours are without.
        return sum(math.prod(shape) for name, shape in _shapes(base_adapter) if ".base_layer." not in name)
    values = 0
    tied: list[tuple[int, ...]] = []
    shapes = dict(_shapes(model))
    if "lm_head" in lora.targets and "lm_head.weight" not in shapes:
        tied = [shape for name, shape in shapes.items() if name.endswith("embed_tokens.weight")]
    for name, shape in [*shapes.items(), *(("lm_head.weight", shape) for shape in tied)]:
        *_, layer, kind = ("", *name.split("."))
        # transformers keeps the experts of a layer in one tensor, which no adapter changes.
        if layer in lora.targets and kind == "weight" and len(shape) == 2 and ".experts." not in name:
            # An adapter that starts from factors of the weight is saved as a difference, with twice the rank.
            values += (2 if lora.init in ("pissa", "olora") else 1) * lora.rank * sum(shape) + (shape[0] if lora.dora else 0)
    return values


def loaded_bytes(folder: Path) -> int:
    """Bytes of a model's weights once they are loaded: those in 32 or 64 bits in 16 bits, those in fewer as they are stored.

    Raises:
        ConfigError: where a file is missing or cannot be read.
        DataError: where the index of the files is malformed.
    """
    return sum(math.prod(shape) * _LOADED_BYTES.get(kind, 1) for _, shape, kind in _tensors(weight_files(folder)))


def _shapes(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the tensors in a folder's safetensors files, read from their headers."""
    return ((name, shape) for name, shape, _ in _tensors(sorted(folder.glob("*.safetensors"))))


def _tensors(files: Iterable[Path]) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Names, shapes and formats, in safetensors' words, of the tensors in safetensors files, read from their headers."""
    from safetensors import SafetensorError, safe_open

    for path in files:
        try:
            with safe_open(path, "np") as file:
                for name in file.keys():  # noqa: SIM118 - not a dict, cannot be iterated over
                    part = file.get_slice(name)
                    yield name, tuple(part.get_shape()), part.get_dtype()
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{path}: cannot be read ({error}); copy it again") from None

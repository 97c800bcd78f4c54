"""The prompt configuration of a model: the grid encoder, the prompt version and the length that it was trained with.

A model's arc_submit.json, beside its weights, holds the configuration, and a run's options may override it. An impossible configuration is
refused here, from the files alone, before a worker loads anything. Does not know weights.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError, DataError
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompts import prompt_version

CONFIG_FILE = "arc_submit.json"
SHORTEST = 16  # tokens: fewer hold no pair and no answer


@dataclass(frozen=True)
class PromptConfig:
    """How tasks are written for a model.

    Attributes:
        grid_encoder: specification of the grid encoder.
        prompt: name of the prompt version.
        max_seq_len: tokens of the longest prompt with its answer.
    """

    grid_encoder: str
    prompt: str
    max_seq_len: int

    def save(self, folder: Path) -> None:
        """Write the model's arc_submit.json."""
        (folder / CONFIG_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def read_prompt_config(folder: Path) -> PromptConfig | None:
    """The configuration in a model's folder, or None where there is no file.

    Raises:
        DataError: where the file does not hold a configuration.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        return None
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
        config = PromptConfig(str(value["grid_encoder"]), str(value["prompt"]), int(value["max_seq_len"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: grid_encoder, prompt and max_seq_len are expected ({type(error).__name__}: {error})") from None
    if config.max_seq_len < SHORTEST:
        raise DataError(f"{path}: max_seq_len {config.max_seq_len} fits no task")
    return config


def resolve_prompt_config(folder: Path, grid_encoder: str | None, prompt: str | None, max_seq_len: int | None) -> PromptConfig:
    """The configuration for prompts of kind "output": the arguments first, then the model's arc_submit.json.

    Raises:
        ConfigError: where a value is missing in both, or cannot work with this model.
        DataError: where the model's files are malformed.
    """
    own = read_prompt_config(folder)
    grid_encoder = grid_encoder or (own.grid_encoder if own else None)
    prompt = prompt or (own.prompt if own else None)
    max_seq_len = max_seq_len or (own.max_seq_len if own else None)
    if grid_encoder is None or prompt is None or max_seq_len is None:
        raise ConfigError(f"model {folder} has no {CONFIG_FILE}: give --grid-encoder, --prompt and --max-seq-len")
    make_encoder(grid_encoder)
    if prompt_version(prompt).kind != "output":
        raise ConfigError(f"prompt {prompt} does not ask for the output; choose one named output-from-...")
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # A model that also takes pictures has the limit in the part for texts.
        limit = values.get("max_position_embeddings", values.get("text_config", {}).get("max_position_embeddings"))
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{folder / 'config.json'}: not a model's configuration ({type(error).__name__}: {error})") from None
    if isinstance(limit, int) and max_seq_len > limit:
        raise ConfigError(f"max_seq_len {max_seq_len} is over the {limit} tokens that model {folder} takes; lower it")
    return PromptConfig(grid_encoder, prompt, max_seq_len)

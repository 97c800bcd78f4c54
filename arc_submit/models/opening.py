"""Opening an engine by its name, and how long one may take for what. Knows nothing about what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arc_submit.models.engine import Engine
from arc_submit.models.settings import PredictSettings
from arc_submit.runtime.pool import Limits

_DISK = 50e6  # bytes a second that the slowest disk reads a model with
_PROMPT = 100e6  # bytes of weights for each second that the slowest device reads a full prompt in


def open_engine(settings: PredictSettings, limit: int) -> tuple[Engine, Any, str]:
    """The engine that the settings name with its tokenizer, and the reasons for what was chosen.

    Args:
        limit: tokens of a prompt with its answer.

    Raises:
        ConfigError: where it cannot work here.
    """
    from arc_submit.models.loading import choose_device

    folder, device = Path(settings.model), choose_device(settings.device)
    if settings.engine == "vllm":
        from arc_submit.models.vllm_engine import load_vllm_engine

        return load_vllm_engine(folder, device, limit, settings.slots, find_adapters(settings.adapters), settings.views)
    from arc_submit.models.transformers_engine import load_transformers_engine

    return load_transformers_engine(folder, device, settings.slots)


def find_adapters(folder: str | None) -> Sequence[Path]:
    """The adapters in a folder, by the name of theirs."""
    return sorted(path.parent for path in Path(folder).glob("*/adapter_config.json")) if folder else []


def engine_limits(settings: PredictSettings, strikes: int = 2) -> Limits:
    """How long what may take, by the size of the model and the engine.

    The start is bound by the disk, and vllm compiles on a GPU. The first sign of life in a job may need a full prompt to be read; after
    that a worker beats at every step, and twenty times its own longest pause is a hang, however long the whole job takes.
    """
    weights = sum(path.stat().st_size for path in Path(settings.model).glob("*.safetensors"))
    compiling = 480.0 if settings.engine == "vllm" and settings.device != "cpu" else 0.0
    start = 120.0 + compiling + weights / _DISK
    # On a GPU a kernel may be compiled at its first use, in the middle of the work.
    least = 10.0 if settings.device == "cpu" else 30.0
    return Limits(start=start, silence=60.0 + weights / _PROMPT, patience=20.0, least=least, strikes=strikes)

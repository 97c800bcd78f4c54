"""Opening an engine by its name. Knows nothing about what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arc_submit.inference.engine import Engine
from arc_submit.inference.settings import PredictSettings


def open_engine(settings: PredictSettings, limit: int) -> tuple[Engine, Any, str]:
    """The engine that the settings name with its tokenizer, and the reasons for what was chosen.

    Args:
        limit: tokens of a prompt with its answer.

    Raises:
        ConfigError: where it cannot work here.
    """
    from arc_submit.base_model.loading import choose_device

    folder, device = Path(settings.model), choose_device(settings.device)
    if settings.engine == "vllm":
        from arc_submit.inference.vllm_engine import load_vllm_engine

        return load_vllm_engine(folder, device, limit, settings.slots, find_adapters(settings.adapters), settings.views)
    from arc_submit.inference.transformers_engine import load_transformers_engine

    return load_transformers_engine(folder, device, settings.slots)


def find_adapters(folder: str | None) -> Sequence[Path]:
    """The adapters in a folder, by the name of theirs; what a killed process left of one (a hidden folder) is none."""
    found = Path(folder).glob("*/adapter_config.json") if folder else ()
    return sorted(path.parent for path in found if not path.parent.name.startswith("."))

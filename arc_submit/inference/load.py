"""Loading an engine by its name. Does not know prompts or tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arc_submit.base_model.checks import check_model_folder
from arc_submit.base_model.device_memory import load_when_free
from arc_submit.base_model.loading import choose_device
from arc_submit.base_model.memory import weights_of
from arc_submit.base_model.precision import repair_attention
from arc_submit.inference.compile_cache import use_compile_cache
from arc_submit.inference.engine import Engine
from arc_submit.inference.settings import VLLM_PLAIN, PredictSettings
from arc_submit.storage.run_dir import RunPaths


def load_engine(settings: PredictSettings, max_seq_len: int, later_rank: int = 0) -> tuple[Engine, Any, str]:
    """The engine that the settings name, its tokenizer, and the reasons for its dtype and memory.

    Args:
        max_seq_len: tokens of a prompt with its answer.
        later_rank: rank of adapters that are trained beside the engine while it runs; vllm leaves room for them and for their training.

    Raises:
        ConfigError: where the engine cannot work here.
    """
    folder, device = Path(settings.model), choose_device(settings.device)
    if settings.engine in ("vllm", VLLM_PLAIN):
        from arc_submit.inference.vllm_engine import Serving, load_vllm_engine

        cache = ""
        if device.type == "cuda":
            archive = None if settings.compile_cache is None else Path(settings.compile_cache)
            cache = f"; {use_compile_cache(RunPaths(Path(settings.run)).compile_cache, archive)}"
        serving = Serving(
            find_adapters(settings.adapters),
            settings.views,
            plain=settings.engine == VLLM_PLAIN,
            later_rank=later_rank,
            cards=settings.cards,
        )
        served, tokenizer, reason = load_vllm_engine(folder, device, max_seq_len, settings.slots, serving)
        return served, tokenizer, reason + cache
    from arc_submit.inference.load_transformers import load_transformers_engine

    attention = repair_attention(device)

    def load() -> tuple[Engine, Any, str]:
        return load_transformers_engine(folder, device, settings.slots)

    check_model_folder(folder)
    engine, tokenizer, reason = load_when_free(device, load, weights_of(folder), settings.workers_per_device)
    return engine, tokenizer, f"{reason}; {attention}"


def find_adapters(folder: str | None) -> Sequence[Path]:
    """The adapters in a folder, sorted by name, without the hidden folders that killed processes leave."""
    configs = Path(folder).glob("*/adapter_config.json") if folder else ()
    return sorted(path.parent for path in configs if not path.parent.name.startswith("."))

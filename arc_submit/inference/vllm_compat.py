"""Where vllm's versions differ (0.17 to 0.33), in one place and by feature: what a field, a function or a variable shows by being there.

Read in the sources of 0.17.1, 0.19.1 and 0.32.0. The parts that the engine rests on are alike in all of them: LLMEngine.from_engine_args,
add_request, step, abort_request, add_lora; LoRARequest(name, id, path); SamplingParams. What is not alike is below. Knows
nothing about requests.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from arc_submit.base_model.adapter_files import AdapterConfig
from arc_submit.errors import ConfigError
from arc_submit.inference.engine import NotServedError

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # of all versions


def prepare_process(device: torch.device, cache_gb: int) -> None:
    """Set what vllm reads from the environment; to be called before anything imports it.

    The engine lives in this process (no child that could outlive a kill and keep the GPU), asks no hub, reports nothing, and writes its
    log to standard error, which the pool keeps in the worker's file.

    Args:
        cache_gb: memory for keys and values on a CPU; on a GPU the engine's own settings say it.

    Raises:
        ConfigError: where vllm is here already and has read other values, or would take another GPU than is meant.
    """
    if device.index:
        raise ConfigError(
            f"--device {device}: vllm takes the first GPU its process sees; start the process with CUDA_VISIBLE_DEVICES={device.index},"
            " as a run does with its workers, and name cuda:0"
        )
    if "vllm" in sys.modules and os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") != "0":
        raise ConfigError("vllm was imported before its engine was asked for; start a fresh process")
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        # Its sampler is compiled at the first use, which takes a compiler and minutes; greedy answers have no need of it.
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
    }
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")
    if device.type == "cpu":
        # Else vllm binds threads to cores by itself, whatever OMP_NUM_THREADS says and whoever else runs there.
        os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": str(cache_gb)}


def make_core(**arguments: Any) -> Any:
    """An LLMEngine in this process.

    Raises:
        ConfigError: where vllm is not installed, or does not know an argument that nothing can replace.
    """
    try:
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine
    except ImportError as error:
        raise ConfigError(f"--engine vllm: vllm cannot be imported here ({error}); install it, or take --engine transformers") from None
    known = {field.name for field in dataclasses.fields(EngineArgs)}
    if "swap_space" in known:
        arguments["swap_space"] = 0  # GB of pinned host memory that older versions keep for a GPU: too much of a 31 GiB host
    missing = sorted(set(arguments) - known)
    if missing:
        raise ConfigError(f"--engine vllm: this version takes no {', '.join(missing)}; use 0.17 to 0.33")
    return LLMEngine.from_engine_args(EngineArgs(**arguments))


def token_prompt(ids: Sequence[int]) -> dict[str, Any]:
    """A prompt as what vllm's own renderer makes of token ids; the raw form without a type is to be taken away."""
    return {"type": "token", "prompt_token_ids": list(ids)}


def stop_core(core: Any) -> None:
    """Let the engine go; a process that shall give its GPU memory back for sure must end all the same."""
    shutdown = getattr(core.engine_core, "shutdown", None)
    if shutdown:
        shutdown()


def check_served(folder: Path, config: AdapterConfig) -> None:
    """Refuse an adapter that this vllm would load and serve wrong without a word.

    Older versions do not read ranks and alphas by module: they scale every layer alike.

    Raises:
        NotServedError: naming what it cannot do.
    """
    from vllm.lora.peft_helper import PEFTHelper

    known = {field.name for field in dataclasses.fields(PEFTHelper)}
    for name in ("rank_pattern", "alpha_pattern"):
        if getattr(config, name) and name not in known:
            raise NotServedError(f"adapter {folder}: this vllm does not read its {name}; train it without, or take --engine transformers")


def rank_slot(rank: int) -> int:
    """The smallest rank that vllm makes slots for and that holds this one.

    Raises:
        ConfigError: where it is over the largest.
    """
    for slot in RANKS:
        if rank <= slot:
            return slot
    raise ConfigError(f"an adapter of rank {rank}: vllm serves up to {RANKS[-1]}; train it with less, or take --engine transformers")

"""The differences between vllm's versions 0.17 to 0.33, detected by feature.

Compared in the sources of 0.17.1, 0.19.1 and 0.32.0. The engine's other calls are alike in all of them: LLMEngine.from_engine_args,
add_request, step, abort_request, add_lora; LoRARequest(name, id, path); SamplingParams. Does not know requests.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from arc_submit.base_model.adapter_files import AdapterConfig, read_config
from arc_submit.base_model.out_of_memory import is_out_of_memory
from arc_submit.errors import ConfigError
from arc_submit.inference.engine import NotServedError

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the ranks that every version makes LoRA slots for


def prepare_process(device: torch.device, cache_gb: int, cards: int = 1) -> None:
    """Set the environment variables that vllm reads; to be called before the first import of vllm.

    The engine runs in this process (no child process can outlive a kill and hold the GPU), contacts no hub, sends no statistics, and logs
    to standard error, which the pool writes to the worker's file.

    Args:
        cache_gb: memory for keys and values on a CPU, of each process; on a GPU the engine's own arguments set it.
        cards: devices that the model is divided over. Their processes are on this machine and talk over its loopback interface alone.

    Raises:
        ConfigError: where vllm has been imported with other values, or would take another GPU than `device`.
    """
    if device.index:
        raise ConfigError(
            f"--device {device}: vllm takes the first GPU its process sees; start the process with CUDA_VISIBLE_DEVICES={device.index},"
            " as a run does with its workers, and name cuda:0"
        )
    if "vllm" in sys.modules and os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") != "0":
        raise ConfigError("vllm was imported before its engine was started; start a fresh process")
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        # FlashInfer's sampler is compiled at its first use, which needs a compiler and minutes; greedy decoding does not need it.
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
    }
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")
    if cards > 1:
        os.environ |= {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    if device.type == "cpu":
        # By default vllm binds threads to cores, regardless of OMP_NUM_THREADS and of other processes on those cores.
        os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": str(cache_gb)}


def choose_start(device: torch.device, plain: bool, cards: int = 1) -> tuple[dict[str, Any], str]:
    """The arguments that say how vllm starts on a device, and why.

    Below sm_80 (T4) there is no FlashAttention 2, and vllm chooses FlashInfer by itself where it is installed. FlashInfer compiles its
    kernels at their first use: 110 CPU-seconds, with nvcc and ninja. flashinfer-cubin keeps vllm from looking whether they are there.

    Args:
        plain: without compiled graphs, and with attention in Triton, which needs no compiler beside the GPU's driver.
        cards: devices that the model is divided over. They add their sums by NCCL alone: vllm's own kernel reads the memory of other
            cards, and ends the process where it cannot, as with PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True.

    Raises:
        ConfigError: where the start that is not plain would fail in the middle of the work.
    """
    if device.type == "cpu":
        return {"enforce_eager": True}, "a CPU: no compiled graphs, which gain nothing there"
    sums = {"disable_custom_all_reduce": True} if cards > 1 else {}
    if plain:
        return {"enforce_eager": True, "attention_backend": "TRITON_ATTN", **sums}, "plain: no compiled graphs, attention in Triton"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8 and importlib.util.find_spec("flashinfer") is not None:
        missing = [tool for tool in ("nvcc", "ninja") if shutil.which(tool) is None]
        if missing:
            raise ConfigError(
                f"--engine vllm: on this GPU (sm_{major}{minor}) FlashInfer compiles its kernels, and {' and '.join(missing)} is not"
                " installed; the plain start follows"
            )
    # Compiled graphs pay for the minute that compilation takes.
    return {"enforce_eager": False, **sums}, "compiled graphs, vllm's own choice of attention"


def make_core(**arguments: Any) -> Any:
    """An LLMEngine in this process.

    Raises:
        ConfigError: where vllm is not installed, does not know one of the arguments, or finds too little memory.
    """
    try:
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine
    except ImportError as error:
        raise ConfigError(f"--engine vllm: vllm cannot be imported here ({error}); install it, or take --engine transformers") from None
    known = {field.name for field in dataclasses.fields(EngineArgs)}
    if "swap_space" in known:
        arguments["swap_space"] = 0  # GB of pinned host memory that older versions take for each GPU: too much of a 31 GiB host
    if "attention_backend" not in known and (backend := arguments.pop("attention_backend", None)):
        os.environ["VLLM_ATTENTION_BACKEND"] = backend  # versions before 0.19
    missing = sorted(set(arguments) - known)
    if missing:
        raise ConfigError(f"--engine vllm: this version takes no {', '.join(missing)}; use 0.17 to 0.33")
    try:
        return LLMEngine.from_engine_args(EngineArgs(**arguments))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        # A refusal: another start would find as little, and the next engine may need less.
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(f"--engine vllm: out of memory at its start ({first}); lower --max-seq-len or --max-concurrent") from None


def token_prompt(ids: Sequence[int]) -> dict[str, Any]:
    """A prompt in the form that vllm's renderer gives token ids; the form without a type is deprecated."""
    return {"type": "token", "prompt_token_ids": list(ids)}


def check_kind(folder: Path) -> None:
    """Refuse an adapter of a kind that no vllm serves, as far as its configuration tells.

    Raises:
        NotServedError: naming what it uses.
        ConfigError: where there is no readable configuration, or no engine serves the adapter.
    """
    config = read_config(folder)
    ends = [name for name in config.targets if name in ("embed_tokens", "lm_head")]
    used = "DoRA" if config.dora else f"rank {config.largest_rank}" if config.largest_rank > RANKS[-1] else " and ".join(ends)
    if used:
        served = f" (up to {RANKS[-1]})" if used.startswith("rank") else ""
        raise NotServedError(f"adapter {folder}: uses {used}, which vllm does not serve{served}; take the engine transformers, or merge it")


def check_served(folder: Path, config: AdapterConfig) -> None:
    """Refuse an adapter that this vllm would load without an error and serve wrongly.

    Older versions ignore ranks and alphas by module: they scale every layer alike.

    Raises:
        NotServedError: naming the unsupported field.
    """
    from vllm.lora.peft_helper import PEFTHelper

    known = {field.name for field in dataclasses.fields(PEFTHelper)}
    for name in ("rank_pattern", "alpha_pattern"):
        if getattr(config, name) and name not in known:
            raise NotServedError(f"adapter {folder}: this vllm does not read its {name}; train it without, or take --engine transformers")


def supported_rank(rank: int) -> int:
    """The smallest of RANKS that an adapter of a rank fits in.

    Raises:
        ConfigError: where the rank exceeds the largest.
    """
    for supported in RANKS:
        if rank <= supported:
            return supported
    raise ConfigError(f"an adapter of rank {rank}: vllm serves up to {RANKS[-1]}; train it with less, or take --engine transformers")

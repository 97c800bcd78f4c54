"""Whether the cards of a run hold its model at all, by the memory plan, before any worker starts.

What is refused here could answer not one task. Does not know tasks.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace

from arc_submit.base_model.checks import adapter_lora
from arc_submit.base_model.memory import CARDS, GIB, Footprint, ModelShape, read_shape, usable_bytes
from arc_submit.inference.settings import VLLM_SHARE_BESIDE_TRAINING
from arc_submit.run.config import RunConfig
from arc_submit.run.measured import memory_factor
from arc_submit.run.memory_plan import least_bytes
from arc_submit.workers.devices import Gpu

_SMALL_RANK = 8
_BYTES_IN_4_BITS = 0.5625  # of a weight: four bits, and a scale in 32 bits for 64 of them


def sources_that_fit_no_card(config: RunConfig, gpus: Mapping[str, Gpu], workers_per_gpu: int = 1) -> dict[str, str]:
    """Why a source's model fits none of the cards, by source; empty where each source has a card, and where the plan knows nothing.

    Args:
        gpus: by device; empty on a CPU.
        workers_per_gpu: workers that share a card.

    Raises:
        DataError: where the model's config.json cannot be read.
    """
    shape = read_shape(config.model) if gpus else None
    if shape is None or not all(gpu.gib for gpu in gpus.values()):
        return {}
    reasons: dict[str, str] = {}
    factor = memory_factor(config.measured)
    for source in ("ttft", "frozen", "code"):
        learns = source == "code" and config.code.learn_rounds > 0
        tunes = learns or (source == "ttft" and config.adapters is None)
        if source not in config.sources or (source == "ttft" and tunes and config.ttft_in_4_bits):
            continue
        beside = learns and config.engine == "vllm"
        trains = not beside and (learns or config.ttft_engine == "transformers")
        needed = {device: _least_bytes(config, shape, gpu, tunes, trains) for device, gpu in gpus.items()}
        whole = {device: int(usable_bytes(gpu.gib / workers_per_gpu) / factor) for device, gpu in gpus.items()}
        # vllm has its part of each card; the training, with weights of its own, has the rest.
        taken = VLLM_SHARE_BESIDE_TRAINING * GIB / workers_per_gpu / factor if beside else 0.0
        room = {device: whole[device] - int(taken * gpus[device].gib) for device in gpus}
        if all(needed[device] > room[device] for device in gpus):
            largest = max(gpus, key=lambda device: room[device])
            shared = beside and _least_bytes(config, shape, gpus[largest], tunes, True) <= whole[largest]
            remedy = (
                "give --engine transformers, which shares its weights with the training"
                if shared
                else _remedy(config, shape, gpus[largest], tunes, whole[largest], learns)
            )
            reasons[source] = (
                f"--model {config.model}: {shape.weights / GIB:.1f} GiB of weights, with {'fine-tuning' if tunes else 'prompts'} at least "
                f"{needed[largest] / GIB:.1f} GiB, and {largest} ({gpus[largest].name}) has {room[largest] / GIB:.1f} GiB for them"
                f"{' beside vllm' if beside else ''}; {remedy}"
            )
    return reasons


def _least_bytes(config: RunConfig, shape: ModelShape, gpu: Gpu, tunes: bool, trains: bool) -> int:
    lora = config.lora if config.base_adapter is None or not tunes else adapter_lora(config.base_adapter)
    return least_bytes(Footprint(shape, lora if tunes else None, gpu.capability < (8, 0)), tunes, trains)


def _remedy(config: RunConfig, shape: ModelShape, gpu: Gpu, tunes: bool, room: int, learns: bool) -> str:
    """What would hold the model.

    Args:
        learns: the source code fine-tunes it.
    """
    small = replace(config, lora=replace(config.lora, rank=min(_SMALL_RANK, config.lora.rank)))
    ways = []
    if learns and _least_bytes(config, shape, gpu, False, True) <= room:
        ways.append("leave out --code-learn-rounds")
    if tunes and config.base_adapter is None and _least_bytes(small, shape, gpu, True, True) <= room:
        ways.append("lower --lora-rank")
    saved = int((shape.weights - 2 * shape.vocabulary * shape.width * (1 if shape.tied else 2)) * (1 - _BYTES_IN_4_BITS / 2))
    if (
        tunes
        and not learns
        and importlib.util.find_spec("bitsandbytes") is not None
        and _least_bytes(small, shape, gpu, True, True) - saved <= room
    ):
        ways.append("give --ttft-in-4-bits" + ("" if "frozen" not in config.sources else " with --sources search,ttft"))
    needed = _least_bytes(config, shape, replace(gpu, capability=(8, 0)), tunes, learns or config.ttft_engine == "transformers")
    if larger := [f"{name} ({gib:g} GiB)" for name, gib in CARDS.items() if usable_bytes(gib) >= needed]:
        ways.append(f"take a card such as {larger[0]}")
    return " or ".join([*ways, "take a smaller model"])

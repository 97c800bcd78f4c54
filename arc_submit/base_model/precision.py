"""In which number format a device trains, and the repair of its attention, each with its reason. Knows nothing about adapters or tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from arc_submit.errors import ConfigError


@dataclass(frozen=True)
class TrainingPrecision:
    """How to train on a device.

    Attributes:
        base: dtype to load the base model in; low-rank weights are float32 always.
        autocast: dtype of products, None for the base's own.
        scale: losses are scaled so that float16 gradients do not vanish.
        reason: why.
    """

    base: torch.dtype
    autocast: torch.dtype | None
    scale: bool
    reason: str


def choose_training_precision(device: torch.device, fast_cpu: bool = False) -> TrainingPrecision:
    """The precision for fine-tuning on a device.

    Args:
        fast_cpu: bfloat16 products on a CPU that has them; adapters then differ a little from machine to machine.

    Raises:
        ConfigError: where bfloat16 is asked of a CPU that would only imitate it.
    """
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major >= 8:
            return TrainingPrecision(torch.bfloat16, torch.bfloat16, False, f"sm_{major}{minor} has bfloat16, which needs no loss scaling")
        return TrainingPrecision(torch.float16, torch.float16, True, f"sm_{major}{minor} has no bfloat16: float16 with scaled losses")
    if not fast_cpu:
        return TrainingPrecision(torch.float32, None, False, "a CPU: float32 gives the same adapters everywhere")
    if not torch.cpu._is_avx512_bf16_supported():
        raise ConfigError("bfloat16 on this CPU would be imitated and slow; leave it out, float32 is used then")
    return TrainingPrecision(torch.float32, torch.bfloat16, False, "asked: this CPU multiplies bfloat16 itself")


def repair_attention(device: torch.device) -> str:
    """Make attention with shared keys and values fast where torch would take a slow kernel in silence; returns what was done and why.

    Without a mask transformers hands shared keys and values to scaled_dot_product_attention as they are (enable_gqa), for which cards
    before sm_80 have only the slowest kernel. Repeating them first was 1.6 to 1.8 times as fast on a T4.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] >= 8:
        return "attention as it is: this device has a fast kernel for shared keys and values"
    from transformers.integrations import sdpa_attention

    sdpa_attention.use_gqa_in_sdpa = lambda *args, **kwargs: False
    return "keys and values are repeated: this card has no fast kernel for shared ones"

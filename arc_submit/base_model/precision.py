"""Number formats of training by device with their reasons, faster attention for old GPUs, and the limits of range.

Does not know adapters or tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from arc_submit.errors import ConfigError


@dataclass(frozen=True)
class TrainingPrecision:
    """Number formats of training on a device.

    Attributes:
        base: dtype of the base model's weights; low-rank weights are always float32.
        autocast: dtype of products; None takes the base's own.
        scale: whether losses are scaled, so that float16 gradients do not underflow.
        reason: of the choice, for people.
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
        ConfigError: where fast_cpu is set and the CPU would only emulate bfloat16.
    """
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major >= 8:
            return TrainingPrecision(torch.bfloat16, torch.bfloat16, False, f"sm_{major}{minor} has bfloat16, which needs no loss scaling")
        return TrainingPrecision(torch.float16, torch.float16, True, f"sm_{major}{minor} has no bfloat16: float16 with scaled losses")
    if not fast_cpu:
        return TrainingPrecision(torch.float32, None, False, "a CPU: float32 gives the same adapters everywhere")
    if not torch.cpu._is_avx512_bf16_supported():
        raise ConfigError("bfloat16 on this CPU would be emulated and slow; leave it out, float32 is used then")
    return TrainingPrecision(torch.float32, torch.bfloat16, False, "as requested: this CPU multiplies bfloat16 itself")


def explain_not_finite(model: Any) -> str:
    """A line for a model whose logits are not numbers: the model, its dtype, the remedy."""
    dtype = str(model.dtype).removeprefix("torch.")
    remedy = (
        "its values exceed the range of float16: take a GPU with bfloat16 (sm_80 or later), or --devices cpu"
        if model.dtype == torch.float16
        else "its weights are damaged: copy, merge or convert the model again"
    )
    return f"model {model.config.name_or_path}: its logits in {dtype} are not numbers (NaN); {remedy}"


def repair_attention(device: torch.device) -> str:
    """Have transformers repeat shared keys and values where torch would silently choose a slow kernel; returns a line for the log.

    Without a mask transformers passes shared keys and values to scaled_dot_product_attention unchanged (enable_gqa), for which GPUs
    before sm_80 have only the slowest kernel.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] >= 8:
        return "attention unchanged: this device has a fast kernel for shared keys and values"
    from transformers.integrations import sdpa_attention

    sdpa_attention.use_gqa_in_sdpa = lambda *args, **kwargs: False
    return "keys and values are repeated: this GPU has no fast kernel for shared ones"

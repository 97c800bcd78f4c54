"""Gradient checkpointing: the layers of a model are computed again in the backward pass, instead of keeping what they computed.

transformers does it in training mode only, which also turns dropout on. Only the modules that checkpoint are put into that mode here, so
that a step has the same result with checkpointing and without. Does not know losses or memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def enable_checkpointing(model: Any) -> None:
    """Have a model's layers computed again in the backward pass; dropout stays off."""
    model.eval()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True  # not `train()`, which would do it for the attention and dropout inside too


@contextmanager
def checkpointed(model: Any) -> Iterator[None]:
    """A context in which a model checkpoints; afterwards it is in evaluation mode."""
    enable_checkpointing(model)
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()
        model.eval()

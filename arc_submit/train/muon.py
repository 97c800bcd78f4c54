"""Muon in float32, for CPUs.

torch.optim.Muon orthogonalises each update with products in bfloat16 on every device. On a CPU without that number format they are far
slower than in float32, and their rounding lets trainings with one and with two processes diverge. Here the same iteration runs in float32,
once for all matrices of a shape. Does not know models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch


class Float32Muon(torch.optim.Muon):
    """torch.optim.Muon with the same settings and state, and its iteration in float32."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[torch.nn.Parameter, torch.Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                buffer = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer
                by_shape[parameter.shape].append((parameter, update))
            for shape, pairs in by_shape.items():
                updates = orthogonal(torch.stack([update for _, update in pairs]).float(), group["ns_coefficients"], group["ns_steps"])
                height, width = shape
                # Moonshot's scale, with which AdamW's learning rates fit (arXiv 2502.16982), or Keller Jordan's.
                scale = 0.2 * max(height, width) ** 0.5 if group["adjust_lr_fn"] == "match_rms_adamw" else max(1.0, height / width) ** 0.5
                for (parameter, _), update in zip(pairs, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)


def orthogonal(updates: torch.Tensor, coefficients: tuple[float, float, float], steps: int) -> torch.Tensor:
    """Matrices (count, height, width) with singular values near 1, by Newton-Schulz iterations of degree 5 (Keller Jordan, 2024)."""
    a, b, c = coefficients
    tall = updates.shape[1] > updates.shape[2]
    x = updates.mT if tall else updates
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x

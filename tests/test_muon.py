"""Muon in float32: the steps of torch's, without its rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from arc_submit.train.muon import Float32Muon, orthogonal

SHAPES = [(16, 64), (64, 16), (32, 32), (64, 16)]


def _trained(kind: type[torch.optim.Muon], scale: str | None) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(shape, generator=rng)) for shape in SHAPES]
    optimizer = kind(weights, lr=0.05, momentum=0.9, weight_decay=0.1, adjust_lr_fn=scale)
    for _ in range(4):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=rng)
        optimizer.step()
    return [weight.detach() for weight in weights]


@pytest.mark.parametrize("scale", [None, "match_rms_adamw"])
def test_it_takes_the_steps_of_torchs_but_for_rounding(scale: str | None) -> None:
    start = _trained_start()
    for ours, torchs, before in zip(_trained(Float32Muon, scale), _trained(torch.optim.Muon, scale), start, strict=True):
        assert (ours - torchs).norm() < 0.02 * (torchs - before).norm()  # bfloat16 has eight bits


def _trained_start() -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=rng) for shape in SHAPES]


@pytest.mark.parametrize("shape", [(3, 24, 96), (2, 96, 24), (1, 48, 48)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int, int]) -> None:
    updates = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = orthogonal(updates, (3.4445, -4.7750, 2.0315), 5)
    for before, after in zip(updates.numpy(), found.numpy(), strict=True):
        left, _, right = np.linalg.svd(before, full_matrices=False)
        inside = left.T @ after @ right.T
        values = np.diag(inside)
        assert np.all((values > 0.3) & (values < 1.3))
        assert np.abs(inside - np.diag(values)).max() < 1e-3


def test_matrices_of_a_shape_do_not_mix() -> None:
    updates = torch.randn((4, 8, 12), generator=torch.Generator().manual_seed(2))
    together = orthogonal(updates, (3.4445, -4.7750, 2.0315), 5)
    alone = torch.cat([orthogonal(one[None], (3.4445, -4.7750, 2.0315), 5) for one in updates])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)

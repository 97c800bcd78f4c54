"""Which tasks are trained in one batch, each sample with its own task's adapter.

A small model at batch size 1 leaves most of a device idle: the time goes into starting kernels, not into products. With several tasks in a
batch (`ttft.finetune_tasks`) the base's part of every layer is one product over all rows and the adapters' part one batched product. Each
task's samples, learning rate, clipping and optimizer state are what they would be alone, so its adapter is the same within float
tolerance (tests/test_ttft.py). Rows are padded to the longest, so tasks of like length belong together. Knows nothing about workers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

_CPU_TOKENS = 512
_GPU_PRODUCTS = 30_000_000_000  # tokens times weights: some milliseconds of products, as long as it takes to start a step's kernels


def choose_group(tokens: int, weights: int, device: torch.device) -> tuple[int, str]:
    """How many tasks to train in one batch, with the reason.

    On a CPU core with the pocket model four short tasks in one batch were 1.2 times as fast as one by one, four long ones 0.8 times
    (benchmarks/ttft.py); the gain is gone from some 265 tokens a sample on. The bound for GPUs is an estimate that has not been measured.

    Args:
        tokens: of the longest sample.
        weights: of the base model's layers.
    """
    if device.type == "cpu":
        count = max(1, min(8, _CPU_TOKENS // tokens)) if tokens <= _CPU_TOKENS // 3 else 1
        return count, f"{count} x {tokens} tokens: a CPU is busy from some {_CPU_TOKENS} tokens on"
    full = _GPU_PRODUCTS // weights
    count = max(1, min(32, full // tokens))
    return count, f"{count} x {tokens} tokens: with {weights / 1e6:.1f}M weights some {full} tokens are taken to fill a GPU"


def plan_groups(tokens: Mapping[str, int], weights: int, device: torch.device) -> list[list[str]]:
    """Task ids in groups of like length, the longest tasks first.

    Args:
        tokens: of each task's longest sample, by id.
    """
    groups: list[list[str]] = []
    room = 0
    for task in sorted(tokens, key=lambda task: (-tokens[task], task)):
        if room == 0:
            room, _ = choose_group(tokens[task], weights, device)
            groups.append([])
        groups[-1].append(task)
        room -= 1
    return groups

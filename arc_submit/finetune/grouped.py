"""Which of a job's tasks are trained in one batch, each sample with its own task's adapter.

A small model at batch size 1 leaves most of a device idle: the time goes into starting kernels, not into products. With several tasks in a
batch (`ttft.finetune_tasks`) the base's part of every layer is one product over all rows and the adapters' part one batched product. Each
task's samples, learning rate, clipping and optimizer state are what they would be alone, so its adapter is the same within float
tolerance (tests/test_ttft.py), though not bit for bit: rows are padded to the longest, and sums are taken in another order. Tasks of like
length belong together. Knows nothing about workers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from arc_submit.base_model.precision import TrainingPrecision

_CPU_TOKENS = 512
_GPU_PRODUCTS = 30_000_000_000  # tokens times weights: some milliseconds of products, as long as it takes to start a step's kernels


def choose_group(tokens: int, weights: int, device: torch.device, precision: TrainingPrecision) -> tuple[int, str]:
    """How many tasks to train in one batch, with the reason.

    On a CPU core with the pocket model four short tasks in one batch were 1.2 times as fast as one by one, four long ones 0.8 times
    (benchmarks/ttft.py); the gain is gone from some 265 tokens a sample on. The bound for GPUs is an estimate that has not been measured:
    `benchmarks/ttft.py --device cuda:0` prints what decides, grouped_vs_one for short and for long samples.

    Args:
        tokens: of the longest sample.
        weights: of the base model's layers.
        precision: in which they are trained.
    """
    if precision.scale:
        return 1, "1: float16's loss scale is one for a whole batch, so one task's overflow would skip a step of all"
    if device.type == "cpu":
        count = max(1, min(8, _CPU_TOKENS // tokens)) if tokens <= _CPU_TOKENS // 3 else 1
        return count, f"{count} x {tokens} tokens: a CPU is busy from some {_CPU_TOKENS} tokens on"
    full = _GPU_PRODUCTS // weights
    count = max(1, min(32, full // tokens))
    return count, f"{count} x {tokens} tokens: with {weights / 1e6:.1f}M weights some {full} tokens are taken to fill a GPU"


def plan_groups(tokens: Mapping[str, int], weights: int, device: torch.device, precision: TrainingPrecision) -> list[tuple[list[str], str]]:
    """Task ids in groups of like length, the longest tasks first, each group with the reason for its size.

    Args:
        tokens: of each task's longest sample, by id.
    """
    groups: list[tuple[list[str], str]] = []
    room = 0
    for task in sorted(tokens, key=lambda task: (-tokens[task], task)):
        if room == 0:
            room, reason = choose_group(tokens[task], weights, device, precision)
            groups.append(([], reason))
        groups[-1][0].append(task)
        room -= 1
    return groups

"""Several tasks' adapters trained in one batch, each sample with its own task's adapter.

A small model at batch size 1 leaves most of a GPU idle: the time goes into starting kernels, not into products. With several tasks in a
batch the base's part of every layer is one product over all rows and the adapters' part one batched product. Each task's samples,
learning rate, clipping and optimizer state are what they would be alone, so its adapter is the same within float tolerance
(tests/test_ttft.py). Knows nothing about workers.
"""

from __future__ import annotations

from arc_submit.training.ttft import finetune_tasks

__all__ = ["finetune_tasks"]

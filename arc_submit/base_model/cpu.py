"""How torch uses the CPU in a process of its own: its threads, and what happens to numbers too small for full precision.

Does not know models.
"""

from __future__ import annotations

import torch


def use_cpu(threads: int) -> None:
    """Let torch use that many threads of this process, and take subnormal numbers for zero.

    The attention of a trained model is almost zero for most positions. Products with its gradient fall below 1e-38, where a processor
    takes many times as long. Call it before the first operation: threads that torch starts later inherit the setting.
    """
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)

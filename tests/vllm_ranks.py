"""A worker of the pool whose vllm divides a tiny model over two processes, for tests/test_code_cards.py.

A job with "hang" is silent for good: the pool must kill it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from arc_submit.inference.engine import Request
from arc_submit.inference.vllm_engine import Serving, load_vllm_engine


def requests() -> list[Request]:
    """Greedy requests of several lengths."""
    return [Request(str(i), [5 + (7 * i + k * k) % 40 for k in range(20 + 30 * i)], 40) for i in range(4)]


def open_worker(settings: dict[str, Any], beat: Callable[..., None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load the engine; a job returns the tokens of each answer."""
    torch.set_num_threads(1)
    engine, _, reason = load_vllm_engine(Path(settings["model"]), torch.device("cpu"), 1024, 4, Serving(cards=settings["cards"]))

    def do(job: dict[str, Any]) -> dict[str, Any]:
        while job["tasks"] == ["hang"]:
            time.sleep(1)
        return {"tokens": {one.id: one.tokens for one in engine.generate(requests(), beat)}, "reason": reason}

    return do

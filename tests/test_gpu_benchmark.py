"""benchmarks/gpu.py runs on a CPU with tiny models, a line after each part, and a part that fails leaves the others alone."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("benchmarks_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["benchmarks_gpu"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["benchmarks_gpu"]


def lines_of(gpu: Any, *parts: str, seconds: float = 300.0) -> list[dict[str, Any]]:
    out = io.StringIO()
    session = gpu.Session(torch.device("cpu"), [14.1, 21.8], time.monotonic() + seconds, tiny=True)
    for part in parts:
        gpu.run_part(part, session, out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.campaign
def test_every_part_ends_with_its_seconds(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for those that start processes."""
    torch.set_num_threads(1)
    for name in ("MEMORY", "ENGINE"):
        monkeypatch.setattr(gpu, name, getattr(gpu, name)[:1])
    parts = ("machine", "losses", "memory", "engine", "out_of_memory", "repeat")
    lines = lines_of(gpu, *parts)
    assert not [line for line in lines if "error" in line]
    assert [line["part"] for line in lines if "seconds" in line] == list(parts)
    (losses,) = [line for line in lines if line["part"] == "losses" and "precision" in line]
    assert losses["largest_relative_difference"] == 0, "on the CPU it is compared with itself"
    memory = [line for line in lines if line["part"] == "memory" and "fits" in line]
    assert [line["checkpointing"] for line in memory] == [False, True] * len(gpu.MEMORY)
    (forced,) = [line for line in lines if "notes" in line]
    assert "repeated with gradient checkpointing" in forced["notes"][0]
    (repeated,) = [line for line in lines if "equal_answers" in line]
    assert (repeated["equal_answers"], repeated["largest_difference_of_adapters"]) == (repeated["of"], 0)


def test_a_part_that_fails_is_a_line(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any) -> Iterator[dict[str, Any]]:
        yield {"first": 1}
        raise ValueError("no such\ncard")

    monkeypatch.setitem(gpu.PARTS, "losses", broken)
    lines = lines_of(gpu, "losses", "machine")
    assert lines[:2] == [{"part": "losses", "first": 1}, {"part": "losses", "error": "ValueError: no such card"}]
    assert lines[-1]["part"] == "machine"
    assert lines_of(gpu, "machine", seconds=-1.0) == [{"part": "machine", "skipped": "the time is up"}]


def test_the_sizes_of_the_shapes_are_those_of_the_published_models(gpu: Any) -> None:
    counts = {}
    for name, shape in gpu.SHAPES.items():
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape.model.config))
        counts[name] = round(sum(parameter.numel() for parameter in model.parameters()) / 1e9, 2)
    assert counts == {"0.5b": 0.49, "1.5b": 1.54, "4b": 4.02, "7b": 7.62}

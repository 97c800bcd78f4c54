"""The published recipes as presets: their values, and NVARC's end to end on a small model of sixteen tokens, killed and resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from test_ttft_source import adapters, answers, in_training, steps_done, wait_for
from tokens16 import save_model

from arc_submit.arc.grid import frozen
from arc_submit.arc.task import Pair, Task, task_to_json
from arc_submit.inference.settings import DfsLimits
from arc_submit.language.prompt_config import read_prompt_config
from arc_submit.run.presets import PRESETS, make_config

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens", "lm_head")
STEPS = 40


@pytest.mark.parametrize(("preset", "format_name"), [("nvarc-4b", "nvarc-2025"), ("architects-2024", "architects-2024")])
def test_a_recipe_and_its_format_say_the_same(preset: str, format_name: str) -> None:
    config = read_prompt_config(Path("published"), Path(format_name))
    assert config is not None
    with_format = make_config(preset, model=Path("published"))
    without = {name: value for name, value in config.options.items() if name not in PRESETS[preset]}
    assert set(without) <= {"ttft_batch_size", "ttft_max_grad_norm"}, "the values of a recipe are in its preset"
    assert {name: config.options[name] for name in config.options if name in PRESETS[preset]} == {
        name: PRESETS[preset][name] for name in config.options if name in PRESETS[preset]
    }
    assert with_format.max_seq_len == config.max_seq_len
    assert with_format.model_config == Path(format_name)


def test_the_published_recipes_are_whole() -> None:
    nvarc, architects = (make_config(name, model=Path("published")) for name in ("nvarc-4b", "architects-2024"))
    for config in (nvarc, architects):
        assert config.lora.targets == LAYERS
        assert (config.lora.rslora, config.ttft.schedule, config.ttft_candidates) == (True, "cosine", "dfs")
        assert (config.ttft.max_grad_norm, config.ttft_engine, config.max_seq_len) == (1.0, "transformers", 8192)
    assert (nvarc.lora.rank, nvarc.lora.alpha, nvarc.lora.embedding_learning_rate) == (256, 32.0, None)
    assert (nvarc.ttft.steps, nvarc.ttft.batch_size, nvarc.ttft.learning_rate, nvarc.ttft.warmup_ratio) == (128, 1, 5e-5, 0.1)
    assert (nvarc.ttft.loss_on, nvarc.ttft_views, nvarc.ttft_threshold, nvarc.method) == ("replies", 16, 0.2, "count-minus-mean")
    assert nvarc.dfs == DfsLimits(12_000, 109_000, 4, 8)
    assert (architects.lora.rank, architects.lora.alpha, architects.lora.embedding_learning_rate) == (64, 16.0, 1e-5)
    assert (architects.ttft.batch_size, architects.ttft.accumulation, architects.ttft.learning_rate) == (2, 2, 1e-4)
    assert (architects.ttft.warmup_ratio, architects.views, architects.method) == (0.25, 8, "product-with-baseline")


def _write_tasks(path: Path) -> None:
    """Tasks whose every answer is one black cell, which is soon learnt."""
    rng = np.random.default_rng(0)
    black = frozen(np.zeros((1, 1)))

    def grid() -> Any:
        return frozen(rng.integers(1, 10, (2, 2)))

    tasks = [Task(f"t{i}", tuple(Pair(grid(), black) for _ in range(3)), (grid(),)) for i in range(3)]
    path.write_text(json.dumps({task.id: task_to_json(task) for task in tasks}))


def _run(words: Sequence[str], out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "arc_submit.cli", "run", *words, "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.campaign  # three runs, each of which starts torch
def test_nvarcs_recipe_is_run_killed_and_resumed(tmp_path: Path) -> None:
    model = tmp_path / "model"
    save_model(model)
    _write_tasks(tmp_path / "tasks.json")
    small = {
        "preset": "nvarc-4b",
        "model": model,
        "challenges": tmp_path / "tasks.json",
        "devices": "cpu",
        "workers": 1,
        "sources": "ttft",
        "lora_rank": 8,
        "ttft_steps": STEPS,
        "ttft_learning_rate": 0.01,
        "ttft_max_steps": STEPS,
        "ttft_views": 4,
        "ttft_max_views": 4,
        "max_seq_len": 512,
        "pictures": 0,
        "budget": "10m",
    }
    words = [word for name, value in small.items() for word in (f"--{name.replace('_', '-')}", str(value))] + [
        "--keep-background",
        "--ttft-keep-background",
    ]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = _run(words, whole)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    process = _run(words, cut)
    wait_for(lambda: bool(in_training(cut)) and len(list((cut / "losses").iterdir())) == 2, process)
    process.kill()
    process.communicate()
    held = {path: path.stat().st_mtime_ns for path in (cut / "adapters").glob("[!.]*/adapter_model.safetensors")}
    process = _run(words, cut)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert {path: path.stat().st_mtime_ns for path in held} == held, "a whole adapter is not made again"
    assert adapters(cut) == adapters(whole)
    assert answers(cut) == answers(whole)
    assert (cut / "submission.json").read_bytes() == (whole / "submission.json").read_bytes()
    submission = json.loads((whole / "submission.json").read_text())
    assert {task: [answer["attempt_1"] for answer in given] for task, given in submission.items()} == {f"t{i}": [[[0]]] for i in range(3)}
    assert all(steps_done(cut, f"t{i}") == list(range(1, STEPS + 1)) for i in range(3))
    names = set(load_file(whole / "adapters" / "t0" / "adapter_model.safetensors"))
    assert {"base_model.model.model.embed_tokens.lora_embedding_A", "base_model.model.lm_head.lora_B.weight"} <= names

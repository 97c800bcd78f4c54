"""Fixtures shared by the tests: a two-layer model on disk and a few small tasks. Everything is made here, nothing is fetched."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fork_server
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Other load on the machine must not fail a test by its time.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


# Files that load an engine, start processes or make environments, the longest first. They begin first, so that none of them is left
# over for one process at the end, and `make test-fast` leaves them out.
SLOW_FILES = [
    "ttft_source",
    "pipeline",
    "rehearse",
    "faults",
    "notebooks",
    "vllm_engine",
    "smollm2",
    "lora",
    "train_ends",
    "train",
    "wheels",
    "pool",
    "search_command",
    "vllm_loads",
    "cluster",
    "memory_of_decoding",
    "lost_sources",
    "kaggle_client",
    "fallback",
    "inference",
    "ttft",
    "train_steps",
    "cli",
    "judge_chain",
    "judge_stage",
    "adapter_room",
    "families",
    "search_primitives",
    "search_lists",
    "search_precompile",
    "sweep",
    "predict",
    "simulated_device",
    "nvarc_format",
    "dfs",
    "transformers_engine",
    "adapters",
    "architecture",
    "searched",
    "bundle",
    "remote_process",
    "find_batch",
    "recombine",
    "report",
    "judging",
    "search_grids",
    "search_objects",
    "search_growth",
    "search_restated",
    "search",
    "mixture",
    "simulation",
    "kaggle_inputs",
    "kaggle_check",
    "prompt_tokenizer",
    "encoders",
    "truncation",
    "combination",
    "experiments",
    "gpu_check",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow files, and begin with them."""
    rank = {f"test_{name}": number for number, name in enumerate(SLOW_FILES)}
    for item in items:
        if item.path.stem in rank:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(autouse=True)
def no_gpu_is_chosen_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with a GPU the tests choose the devices that they choose elsewhere."""
    from arc_submit.workers import devices

    monkeypatch.setattr(devices, "_DRIVERS", ())


@pytest.fixture(autouse=True)
def subnormal_numbers_come_back() -> Iterator[None]:
    """A worker's code that runs in the test's process takes them for zero (base_model/cpu.py), which hypothesis refuses."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(autouse=True)
def workers_are_forks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes of runs within the test's process come from a server that has their imports (fork_server.py)."""
    from arc_submit.run import host

    if request.node.get_closest_marker("real_workers") is None:
        monkeypatch.setattr(host, "launch_locally", fork_server.launch)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer model of the pocket model's make, sharp enough to write varied text."""
    import torch
    from transformers import Qwen2ForCausalLM

    from arc_submit.base_model.pocket import make_pocket_tokenizer, pocket_config
    from arc_submit.language.prompt_config import PromptConfig
    from arc_submit.train.new_pocket import export

    torch.manual_seed(0)
    config = pocket_config(hidden=128, layers=2, max_seq_len=2048)
    config.vocab_size = 48  # the compact form needs no more; over tokens of columns its random answers would hardly ever end
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    folder = tmp_path_factory.mktemp("tiny")
    export(model, make_pocket_tokenizer(), PromptConfig("CompactGridEncoder()", "output-from-turns-v0", 1024), folder)
    return folder


def source_named(name: str, config: Any, disk: Any = None) -> Any:
    """A source of a run as its table resolves it; "finetune" is fine-tuning alone."""
    from arc_submit.run.source import SourceSetup
    from arc_submit.run.source_table import SOURCE_TABLE
    from arc_submit.run.source_ttft import resolve_finetune
    from arc_submit.storage.run_dir import RunPaths

    resolve = {
        **{one: entry.resolve for one, entry in SOURCE_TABLE.items()},
        "warmup": SOURCE_TABLE["ttft"].resolve,
        "finetune": resolve_finetune,
    }
    owner = "ttft" if name in ("warmup", "finetune") else name
    setup = SourceSetup(owner, owner, config, RunPaths(config.out))
    found = resolve[name](replace(setup, disk=disk) if disk else setup)
    return next(source for source in found if source.name == name)


def worker_settings(name: str, config: Any, disk: Any = None) -> dict[str, Any]:
    """What the first worker of a source gets."""
    settings: dict[str, Any] = source_named(name, config, disk).backends[0].settings_for(0)
    return settings


def make_challenges(count: int, seed: int = 0, side: int = 4) -> tuple[dict[str, object], dict[str, object]]:
    """Challenges and solutions as JSON values: small random grids whose output is the input mirrored."""
    rng = np.random.default_rng(seed)

    def pair() -> dict[str, list[list[int]]]:
        grid = rng.integers(0, 10, rng.integers(2, side + 1, 2))
        return {"input": grid.tolist(), "output": grid[:, ::-1].tolist()}

    challenges: dict[str, object] = {}
    solutions: dict[str, object] = {}
    for number in range(count):
        tests = [pair() for _ in range(1 + number % 2)]
        challenges[f"task{number:03d}"] = {"train": [pair() for _ in range(2 + number % 3)], "test": [{"input": t["input"]} for t in tests]}
        solutions[f"task{number:03d}"] = [t["output"] for t in tests]
    return challenges, solutions


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A challenges file with six tasks and its solutions file."""
    challenges, solutions = make_challenges(6)
    paths = tmp_path / "challenges.json", tmp_path / "solutions.json"
    for path, value in zip(paths, (challenges, solutions), strict=True):
        path.write_text(json.dumps(value))
    return paths

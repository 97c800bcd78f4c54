"""How a run divides a machine among its sources, and what it tells their workers."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_submit.config import PRESETS, SOURCES, RunConfig, make_config
from arc_submit.models.settings import PredictSettings
from arc_submit.runtime.lanes import run_together
from arc_submit.sources import divide, lanes, make_source


@given(
    st.integers(1, 64),
    st.integers(1, 64),
    st.floats(1, 512),
    st.sampled_from([("search",), ("model",), ("search", "model")]),
    st.booleans(),
)
def test_no_core_is_given_twice_and_none_is_left_idle(
    workers: int, cores: int, memory: float, running: tuple[str, ...], gpus: bool
) -> None:
    config = RunConfig(workers=workers, devices=("cuda:0", "cuda:1") if gpus else ("cpu",), search_memory=1.0)
    given_to, reason = divide(config, running, cores, memory)
    assert set(given_to) == set(running)
    assert all(number >= 1 for number in given_to.values())
    assert reason
    if gpus:
        assert given_to.get("model", 2) == 2
        assert given_to.get("search", 1) <= max(1, cores - given_to.get("model", 0))
    elif workers > 1:
        assert sum(given_to.values()) <= workers
        if memory >= 2 * workers:
            assert sum(given_to.values()) == workers
    if "search" in running:
        assert given_to["search"] <= max(1, memory / 2), "the search may take half of the memory"


def test_what_one_lane_leaves_over_goes_to_the_other() -> None:
    config = RunConfig(workers=4)
    assert divide(config, ("search", "model"), 4, 64.0)[0] == {"search": 2, "model": 2}
    assert divide(config, ("model",), 4, 64.0)[0] == {"model": 4}
    assert divide(config, ("search",), 4, 64.0)[0] == {"search": 4}


def test_the_frozen_model_comes_first_whatever_is_trusted_most() -> None:
    assert lanes(("ttft", "search", "frozen")) == {"search": ["search"], "model": ["frozen", "ttft"]}
    assert lanes(("ttft",)) == {"model": ["ttft"]}
    assert SOURCES == ("search", "ttft", "frozen")


def test_every_device_has_its_worker(tmp_path: Path) -> None:
    config = make_config("t4x2-qwen2.5-0.5b", model=tmp_path)
    for name in ("frozen", "ttft"):
        told = [make_source(name, tmp_path, config).settings(number) for number in range(2)]
        devices = [value["device"] if name == "frozen" else value["predict"]["device"] for value in told]
        assert devices == ["cuda:0", "cuda:1"]
    assert told[0]["predict"]["views"] == 96
    assert told[0]["lora"]["rank"] == 128
    assert PredictSettings(**make_source("frozen", tmp_path, config).settings(0)).views == 16


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_is_a_sound_configuration(preset: str, tmp_path: Path) -> None:
    config = make_config(preset, model=tmp_path)
    assert config.sources == SOURCES
    changed = make_config(preset, model=tmp_path, lora_rank=3, ttft_steps=7, views=5)
    assert (changed.lora.rank, changed.ttft.steps, changed.views) == (3, 7, 5)
    others = {name: value for name, value in asdict(config).items() if name not in ("lora", "ttft", "views")}
    assert {name: value for name, value in asdict(changed).items() if name in others} == others


def test_configuration_needs_no_torch() -> None:
    import subprocess

    code = "import sys, arc_submit.config, arc_submit.sources; print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not any(f"'{name}'" in modules for name in ("torch", "transformers", "peft", "numba"))


def test_run_together_of_nothing_ends() -> None:
    assert list(run_together([], 0.0, lambda: None)) == []

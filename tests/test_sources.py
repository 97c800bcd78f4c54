"""How a run divides a machine among its sources, and what it tells their workers."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from conftest import source_named, worker_settings
from hypothesis import given
from hypothesis import strategies as st

from arc_submit.arc.grid import frozen
from arc_submit.arc.task import Pair, Task
from arc_submit.inference.settings import PredictSettings
from arc_submit.run.config import SOURCES
from arc_submit.run.host import Host, allocate_workers, device_kind, estimate_costs
from arc_submit.run.presets import PRESETS, make_config, make_infer_config
from arc_submit.run.resolve_single import infer_timeouts
from arc_submit.run.source import model_timeouts, task_size
from arc_submit.run.source_table import SOURCE_TABLE
from arc_submit.scheduling.costs import INITIAL_RATES
from arc_submit.scheduling.scheduler import Level
from arc_submit.workers.merge_streams import merge_streams


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
    host = Host(("cuda:0", "cuda:1") if gpus else ("cpu",), workers, 1, search_memory=1.0)
    given_to, reason = allocate_workers(host, running, cores, memory)
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
    host = Host(("cpu",), 4, 1, 4.0)
    assert allocate_workers(host, ("search", "model"), 4, 64.0)[0] == {"search": 2, "model": 2}
    assert allocate_workers(host, ("model",), 4, 64.0)[0] == {"model": 4}
    assert allocate_workers(host, ("search",), 4, 64.0)[0] == {"search": 4}


def test_the_frozen_model_comes_first_whatever_is_trusted_most() -> None:
    assert list(SOURCE_TABLE) == ["search", "frozen", "code", "ttft"]
    assert SOURCES == ("search", "ttft", "frozen")


def test_every_gpu_has_its_worker_which_sees_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config("t4x2-qwen2.5-0.5b", model=tmp_path, out=tmp_path)
    for visible, names in ((None, ["0", "1"]), ("4,GPU-7a", ["4", "GPU-7a"]), ("4", ["4", ""]), ("", ["", ""])):
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        for name in ("frozen", "ttft"):
            source = source_named(name, config)
            told = [source.backends[0].settings_for(number) for number in range(3)]
            assert {value["device"] if name == "frozen" else value["predict"]["device"] for value in told} == {"cuda:0"}
            assert [source.environment(number)["CUDA_VISIBLE_DEVICES"] for number in range(3)] == [*names, names[0]]
    assert "CUDA_VISIBLE_DEVICES" not in source_named("frozen", make_config("cpu-pocket", model=tmp_path)).environment(0)
    assert told[0]["predict"]["views"] == 96
    assert told[0]["lora"]["rank"] == 128
    assert PredictSettings(**worker_settings("frozen", config)).views == 16


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

    code = "import sys, arc_submit.run.config, arc_submit.run.resolve; print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not any(f"'{name}'" in modules for name in ("torch", "transformers", "peft", "numba"))


def test_what_fits_no_prompt_costs_nothing_and_what_is_cut_to_fit_no_more_than_the_limit() -> None:
    task = square_task([(10, 10), (20, 20)], test=(15, 15))
    whole = task_size(task, True, 10_000, 10_000)
    assert (whole.train, whole.predict, whole.outputs) == (1.275, 1.275, 1)
    assert task_size(task, True, 1100, 1000).train == 1.1
    assert task_size(task, False, 150, 1000).predict == 1.0
    assert whole.fits
    assert not task_size(task, True, 1050, 1000).fits
    assert task_size(task, True, 1050, 1000).train < 0.01, "no sample holds two of its pairs: it ends at once"
    assert task_size(task, False, 10_000, 450).predict < 0.01, "no prompt holds its smallest pair and its test input"
    assert task_size(square_task([(3, 3)], test=(3, 3)), True, 1000, 1000).train < 0.01, "its only pair has no other beside it"


def square_task(pairs: list[tuple[int, int]], test: tuple[int, int]) -> Task:
    grids = [frozen(np.zeros(shape)) for shape in pairs]
    return Task("t", tuple(Pair(grid, grid) for grid in grids), (frozen(np.zeros(test)),))


def test_costs_are_guessed_by_the_device_and_the_models_size(tmp_path: Path) -> None:
    assert device_kind(("cpu",))[0] == "cpu"
    assert device_kind(("cuda:0",), tmp_path)[0] == "T4", "what is not known is taken for the slowest"
    for name in ("0000", "0001"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "information").write_text("Model: \t\t NVIDIA L4\nIRQ: 25\n")
    assert device_kind(("cuda:0", "cuda:1"), tmp_path) == ("L4", "L4 (the driver's name for it)")
    for count in (1000, 4000):
        (tmp_path / f"m{count}").mkdir()
        (tmp_path / f"m{count}" / "model.safetensors").write_bytes(bytes(count))
    small, large = (estimate_costs(tmp_path / f"m{count}", ("cpu",))[0] for count in (1000, 4000))
    assert large.train.rate == pytest.approx(4 * small.train.rate) == pytest.approx(INITIAL_RATES["cpu"][0] * 2000 / 1e9)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_left_over_hours_buy_something_on_gpus_and_nothing_in_the_demonstration(preset: str, tmp_path: Path) -> None:
    config = make_config(preset, model=tmp_path)
    ladder = source_named("ttft", config).ladder
    assert ladder is not None
    assert ladder.levels[ladder.plan] == Level(config.ttft.steps, config.ttft_views or config.views)
    above = ladder.levels[ladder.plan + 1 :]
    assert (above == ()) == (preset == "cpu-pocket")
    alone = source_named("finetune", config).ladder
    assert alone is not None
    assert alone.levels == (Level(config.ttft.steps, 0),)
    assert source_named("search", config).ladder is None


def test_run_together_of_nothing_ends() -> None:
    assert list(merge_streams([], 0.0, lambda: None)) == []


def test_every_command_gives_a_worker_the_same_time_to_start(tmp_path: Path) -> None:
    """A worker on a machine that is busy takes minutes for its imports; large weights take the disk's time."""
    model = tmp_path / "model"
    model.mkdir()
    with (model / "model.safetensors").open("wb") as file:
        file.truncate(10**9)  # sparse
    cases: list[tuple[dict[str, str], float]] = [({}, 620.0), ({"startup_timeout": "30s"}, 30.0)]
    for changes, expected in cases:
        run, infer = make_config(out=tmp_path, model=model, **changes), make_infer_config(out=tmp_path, model=model, **changes)
        assert [one.startup_timeout for one in (model_timeouts(run), infer_timeouts(infer, "cpu"))] == [expected] * 2

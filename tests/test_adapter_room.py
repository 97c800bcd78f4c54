"""Adapters where the disk is short: their size told from heads alone, the oldest deleted, the predictions the same, or a refusal."""

from __future__ import annotations

import os
import re
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import worker_settings
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from test_ttft_source import adapters, answers, events, options

from arc_submit.base_model.adapter_files import WEIGHTS, read_adapter
from arc_submit.base_model.checks import adapter_values
from arc_submit.base_model.loading import load_model
from arc_submit.base_model.lora import attach, detach, save_adapter
from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError
from arc_submit.finetune.adapter_cache import adapters_of, bytes_of, make_room, mark_used
from arc_submit.finetune.ttft_worker import adapter_folder, open_worker
from arc_submit.options import identity_values
from arc_submit.run.adapter_budget import resolve_adapter_budget
from arc_submit.run.config import RunConfig
from arc_submit.run.pipeline import finetune, run
from arc_submit.run.presets import PRESETS, make_config
from arc_submit.scheduling.scheduler import Level, Scheduler, SchedulerOptions, make_ladder
from arc_submit.storage.run_dir import RunPaths

CPU = torch.device("cpu")
Disk = namedtuple("Disk", "total used free")


def of_disk(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr("arc_submit.run.adapter_budget.shutil.disk_usage", lambda _: Disk(0, 0, free))


@pytest.mark.parametrize(
    "make",
    [LoraSettings(rank=4), LoraSettings(3, targets=("q_proj", "down_proj"), dora=True), LoraSettings(4, targets=("v_proj",), init="olora")],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapters_size_is_known_from_the_models_heads(tiny_model: Path, tmp_path: Path, make: LoraSettings, dtype: torch.dtype) -> None:
    """And a file in the base's own format holds, to the last bit, what an engine makes of one in float32."""
    model = load_model(tiny_model, CPU, dtype, "sdpa")
    adapter = attach(model, make, 0)
    with torch.no_grad():
        adapter.flat.add_(torch.randn(adapter.flat.shape, generator=torch.Generator().manual_seed(1)), alpha=0.01)
    save_adapter(adapter, tmp_path / "whole")
    save_adapter(adapter, tmp_path / "short", dtype=dtype)
    detach(adapter)
    values = adapter_values(tiny_model, make)
    head = 4_000  # bytes
    assert 4 * values <= (tmp_path / "whole" / WEIGHTS).stat().st_size <= 4 * values + head
    lengths = 4 * sum(layer.base.weight.shape[0] for layer in adapter.layers.values()) if make.dora else 0
    short = (tmp_path / "short" / WEIGHTS).stat().st_size
    assert dtype.itemsize * values <= short <= dtype.itemsize * values + lengths + head
    assert adapter_values(tiny_model, LoraSettings(rank=99), tmp_path / "whole") == values
    first, second = (read_adapter(tmp_path / name, model) for name in ("whole", "short"))
    for name, one in first.items():
        other = second[name]
        assert torch.equal(one.down, other.down)
        assert torch.equal(one.up, other.up)
        assert (one.row_scale is None and other.row_scale is None) or torch.equal(one.row_scale, other.row_scale)  # type: ignore[arg-type]


@pytest.mark.parametrize(("dtype", "size"), [("auto", 4), ("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_the_dtype_of_an_adapters_file_is_chosen_and_planned_with(tiny_model: Path, tmp_path: Path, dtype: str, size: int) -> None:
    make = LoraSettings(rank=4, dtype=dtype)
    model = load_model(tiny_model, CPU, torch.float32, "sdpa")
    adapter = attach(model, make, 0)
    save_adapter(adapter, tmp_path / "a", model.dtype)
    with safe_open(tmp_path / "a" / WEIGHTS, "pt") as file:
        kinds = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118 - it is no dict
    assert kinds == {torch.float32 if dtype == "auto" else getattr(torch, dtype)}
    detach(adapter)
    assert {one.down.dtype for one in read_adapter(tmp_path / "a", model).values()} == {torch.float32}
    config = RunConfig(out=tmp_path / "run", model=tiny_model, lora=make)
    assert f"adapters of {size * adapter_values(tiny_model, make) / 1e6:.3g} MB each" in resolve_adapter_budget(config, 2).reason
    assert ("lora_dtype" in identity_values(make, "lora_")) == (dtype != "auto")


def lay(run: Path, name: str, used: float, size: int = 10) -> Path:
    folder = run / name
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(bytes(size))
    os.utime(folder, (used, used))
    return folder


@settings(max_examples=50, deadline=None)
@example(made=[("a", "", 5), ("a", "steps-8/", 9), ("b", "", 1)], bound=20, spare=set())
@given(
    made=st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["", "steps-8/"]), st.integers(1, 9)), max_size=8),
    bound=st.integers(0, 60),
    spare=st.sets(st.sampled_from("abcd"), max_size=2),
)
def test_room_is_made_of_what_nothing_needs(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[str, str, int]], bound: int, spare: set[str]
) -> None:
    run = tmp_path_factory.mktemp("run")
    there = {f"{where}adapters/{task}": used for task, where, used in made}
    for name, used in there.items():
        lay(run, name, used)
    deleted = make_room(run, bound, spare)
    left = adapters_of(run)
    assert len(left) + len(deleted) == len(there)
    assert not spare & {folder.name for folder in deleted}
    spared = sum(folder.name in spare for folder in left)
    assert 10 * len(left) <= max(bound, 10 * spared), "no more than the bound, but for what is spared"
    assert not deleted or 10 * (len(left) + 1) > bound, "no more was deleted than had to be"
    used = {run / name: at for name, at in there.items()}
    newest = {folder.name: max(at for other, at in used.items() if other.name == folder.name) for folder in used}
    needed = [folder for folder in deleted if used[folder] == newest[folder.name]]
    others = [folder for folder in left if folder.name not in spare]
    assert all(used[folder] <= used[other] == newest[other.name] for folder in needed for other in others), (
        "superseded first, then the oldest"
    )


def test_what_is_in_use_is_the_newest(tmp_path: Path) -> None:
    first, second = lay(tmp_path, "adapters/a", 1.0), lay(tmp_path, "adapters/b", 2.0)
    (tmp_path / "adapters" / ".c.new.1").mkdir()
    mark_used(first)
    assert make_room(tmp_path, 10, ()) == [second]
    assert [path.name for path in (tmp_path / "adapters").iterdir() if path.name != ".c.new.1"] == ["a"]
    mark_used(second)
    assert bytes_of(second) == 0


def test_a_run_with_room_for_few_adapters_makes_the_predictions_of_one_with_room_for_all(
    files: tuple[Path, Path], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {**options(files, tiny_model, tmp_path / "few"), "ttft_steps": 2, "budget": 300.0}
    each = 4 * adapter_values(tiny_model, LoraSettings(rank=4))
    config = make_config(**given, adapter_gb=2.5 * each / 1e9)
    few = run(config)
    assert (len(few.done), few.failed) == (6, {})
    assert len(adapters(tmp_path / "few")) == 2
    said = capsys.readouterr().out
    assert "the newest 1 of 6 tasks stay, the oldest are deleted once their predictions are made" in said
    (event,) = events(tmp_path / "few", "adapter_room")
    assert event["bound"] == int(2.5 * each) - each
    logs = "".join(log.read_text() for log in (tmp_path / "few" / "logs").rglob("*.log"))
    assert sum(map(int, re.findall(r"deleted to free disk space: (\d+)", logs))) == 4
    # The same without a bound, by a worker in this process.
    room = resolve_adapter_budget(replace(config, out=tmp_path / "all", adapter_gb=None), 6)
    assert (room.bound, room.keeps) == (None, True)
    assert "all are kept" in room.reason
    shutil.copytree(tmp_path / "few" / "tasks", tmp_path / "all" / "tasks")
    do = open_worker(worker_settings("ttft", replace(config, out=tmp_path / "all"), room), lambda: None)
    for task_id in few.done:
        do({"tasks": [task_id]})
    assert answers(tmp_path / "few") == answers(tmp_path / "all")
    assert len(adapters(tmp_path / "all")) == 6


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_no_room_for_what_is_needed_at_once_is_one_line_before_any_work(
    files: tuple[Path, Path], tiny_model: Path, tmp_path: Path, engine: str
) -> None:
    each = 4 * adapter_values(tiny_model, LoraSettings(rank=4)) / 1e9
    given: dict[str, Any] = {**options(files, tiny_model, tmp_path / "out"), "budget": 300.0}
    config = make_config(**given, ttft_engine=engine, adapter_gb=1.5 * each if engine == "transformers" else 5.5 * each)
    words = "of 1 tasks in work and as many before them" if engine == "transformers" else "all 6 adapters"
    remedy = "more room$" if engine == "transformers" else "or take --ttft-engine transformers"
    with pytest.raises(ConfigError, match=f"{words}.*need .* of disk, and there is room for .* lower --lora-rank.*{remedy}"):
        run(config)
    if engine == "vllm":
        with pytest.raises(ConfigError, match="all 6 adapters"):
            finetune(replace(config, ttft_engine="transformers"))
    assert not (tmp_path / "out").exists()


def test_on_kaggle_no_more_is_counted_on_than_working_has(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig(out=tmp_path / "kaggle" / "temp" / "run", model=tiny_model, lora=LoraSettings(rank=64))
    of_disk(monkeypatch, 2e12)
    assert "are 80% of the free disk" in resolve_adapter_budget(config, 400, 4).reason
    monkeypatch.setattr("arc_submit.run.adapter_budget.KAGGLE", tmp_path / "kaggle")
    monkeypatch.setattr("arc_submit.run.adapter_budget.KAGGLE_WORKING", tmp_path / "kaggle" / "working")
    (tmp_path / "kaggle" / "working").mkdir(parents=True)
    assert "(20 GB are what a Kaggle notebook can count on)" in resolve_adapter_budget(config, 400, 4).reason
    of_disk(monkeypatch, 1e9)
    assert "80% of the free disk" in resolve_adapter_budget(config, 400, 4).reason


# Widths of the layers that rank-r factors are put beside: hidden, keys and values, feed-forward; and the number of blocks.
BASES = {"t4x2-qwen2.5-0.5b": (896, 896, 128, 4864, 24), "t4x2-qwen2.5-1.5b": (1536, 1536, 256, 8960, 28)}
BASES |= {"l4x4-qwen2.5-1.5b": BASES["t4x2-qwen2.5-1.5b"], "l4x4-qwen3-4b": (2560, 4096, 1024, 9728, 36)}
BASES |= {"hybrid-7b": (3584, 3584, 512, 18944, 28), "nvarc-4b": BASES["l4x4-qwen3-4b"], "architects-2024": (3072, 3072, 1024, 8192, 28)}
BASES |= {"cpu-smollm2": (576, 576, 192, 1536, 30)}


@pytest.mark.parametrize(
    ("preset", "megabytes", "bounded", "keeps"),
    [
        ("t4x2-qwen2.5-0.5b", 34.6, True, True),
        ("t4x2-qwen2.5-1.5b", 69.7, True, True),
        ("l4x4-qwen2.5-1.5b", 69.7, True, True),
        ("l4x4-qwen3-4b", 1057.0, True, False),
        ("hybrid-7b", 161.5, True, False),
        ("nvarc-4b", 1057.0, True, False),
        ("architects-2024", 194.5, True, False),
        ("cpu-smollm2", 9.8, True, True),
    ],
)
def test_every_presets_adapters_find_room_on_kaggle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str, megabytes: float, bounded: bool, keeps: bool
) -> None:
    """By the published widths of each base, written as the heads of an empty file: 240 tasks in 20 GB."""
    hidden, heads, values, wide, blocks = BASES[preset]
    shapes = {"self_attn.q_proj": (heads, hidden), "self_attn.k_proj": (values, hidden), "self_attn.v_proj": (values, hidden)}
    shapes |= {"self_attn.o_proj": (hidden, heads), "mlp.gate_proj": (wide, hidden), "mlp.up_proj": (wide, hidden)}
    shapes |= {"mlp.down_proj": (hidden, wide)}
    layers = {f"model.layers.{i}.{name}.weight": shape for i in range(blocks) for name, shape in shapes.items()}
    monkeypatch.setattr("arc_submit.base_model.checks._shapes", lambda _: layers.items())
    config = make_config(preset, model=tmp_path, out=tmp_path / "run", adapter_gb=20.0)
    assert 2 * adapter_values(tmp_path, config.lora) / 1e6 == pytest.approx(megabytes, rel=0.01)
    ladder = make_ladder(config.ttft.steps, config.ttft_views or 1, config.ttft_max_steps, config.ttft_max_views)
    room = resolve_adapter_budget(config, 240, len({level.steps for level in ladder.levels}))
    assert (room.bound is not None, room.keeps) == (bounded, keeps), room.reason
    assert set(PRESETS) == {*BASES, "cpu-pocket"}


def test_the_scheduler_counts_training_once_more_where_adapters_are_not_kept() -> None:
    from test_scheduler import exact_costs, make_sizes

    ladder = make_ladder(8, 4, None, 16)
    reached = {"t0": Level(8, 4)}
    kept, gone = (
        Scheduler(make_sizes([1.0]), ladder, exact_costs(), 1000.0, reached, SchedulerOptions(adapters_kept=keeps)).choose(1, 0.0)
        for keeps in (True, False)
    )
    assert kept is not None
    assert gone is not None
    assert kept.level == gone.level == Level(8, 8)
    assert gone.seconds > kept.seconds


def test_the_adapter_of_a_task_whose_id_cannot_name_a_file_is_spared(tmp_path: Path) -> None:
    task_id = "set/1 ф"
    folder = RunPaths(tmp_path).adapter(task_id)
    assert folder == adapter_folder(tmp_path, task_id)
    kept, other = (lay(tmp_path, str(path.relative_to(tmp_path)), used) for path, used in ((folder, 1.0), (folder.with_name("b"), 2.0)))
    assert make_room(tmp_path, 10, [task_id]) == [other]
    assert adapters_of(tmp_path) == [kept]

"""Adapters that several tasks share: what each is trained on, where it lies, and that none is made twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import source_named, worker_settings
from hypothesis import given
from hypothesis import strategies as st

from arc_submit.arc.datasets import read_challenges, split_tasks
from arc_submit.arc.task import Task
from arc_submit.errors import ConfigError
from arc_submit.finetune import ttft_worker as worker
from arc_submit.finetune.samples import Sample, TaskSampler
from arc_submit.finetune.settings import task_groups
from arc_submit.run.presets import make_config


@given(st.sets(st.text("ab0", min_size=1, max_size=4), min_size=1), st.integers(1, 12))
def test_every_task_is_in_one_group_of_that_size(ids: set[str], size: int) -> None:
    groups = list(task_groups(sorted(ids, key=hash), size).values())
    assert [task_id for group in groups for task_id in group] == sorted(ids)
    assert all(len(group) == size for group in groups[:-1])
    assert 1 <= len(groups[-1]) <= size


def test_the_tasks_of_a_group_share_one_adapter_trained_on_them_alone(
    tiny_model: Path, tmp_path: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    split_tasks(read_challenges(files[0]).subset(["task000", "task001", "task002"]), tmp_path / "tasks")
    drawn: list[set[str]] = []
    real = TaskSampler.draw

    def draw(sampler: TaskSampler, task: Task, number: int) -> Sample:
        drawn[-1].add(task.id)
        return real(sampler, task, number)

    monkeypatch.setattr(TaskSampler, "draw", draw)
    config = make_config(model=tiny_model, out=tmp_path, sources=("ttft",), tasks_per_adapter=2, ttft_steps=8, lora_rank=2)
    do = worker.open_group_worker(worker_settings("finetune", config), lambda: None)
    results = {}
    for name in ("tasks-1-to-2", "tasks-3-to-3"):
        drawn.append(set())
        results |= do({"tasks": [name]})["tasks"]
    assert drawn == [{"task000", "task001"}, {"task002"}]
    assert [(result["failed"], result["steps"]) for result in results.values()] == [("", 8)] * 2
    saved = [(tmp_path / "adapters" / f"task00{i}" / "adapter_model.safetensors").read_bytes() for i in range(3)]
    assert saved[0] == saved[1] != saved[2]
    assert len((tmp_path / "losses" / "tasks-1-to-2.jsonl").read_text().splitlines()) == 8
    again = do({"tasks": list(results)})["tasks"]
    assert [result["steps"] for result in again.values()] == [0, 0]


def test_shared_adapters_are_all_made_before_the_first_prediction(tiny_model: Path, tmp_path: Path) -> None:
    config = make_config(model=tiny_model, out=tmp_path, sources=("ttft",), tasks_per_adapter=2, ttft_views=3)
    groups = source_named("finetune", config)
    assert groups.job_names is not None
    assert groups.job_names(["a", "b", "c"]) == ["tasks-1-to-2", "tasks-3-to-3"]
    predicting = worker_settings("ttft", config)
    assert (predicting["adapters"], predicting["source"], predicting["views"]) == (str(tmp_path / "adapters"), "ttft", 3)
    with pytest.raises(ConfigError, match="leave one out"):
        make_config(model=tiny_model, out=tmp_path, tasks_per_adapter=2, allocation="gain", chances=tmp_path)

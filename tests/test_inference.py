"""Inference alone, from the command line and as a function: what it makes, what it leaves, and that it goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import make_challenges

from arc_submit.arc.prediction import read_predictions
from arc_submit.base_model.checks import files_fingerprint
from arc_submit.cli import main
from arc_submit.errors import ConfigError
from arc_submit.run.pipeline import infer
from arc_submit.run.presets import make_infer_config
from arc_submit.storage.run_dir import RunPaths


def figures(capsys: pytest.CaptureFixture[str], out: Path, model: Path, *more: str | Path) -> dict[str, Any]:
    """The figures of `arc-submit infer` with the transformers engine and two views."""
    options: Sequence[str | Path] = ("--engine", "transformers", "--views", "2", "--slots", "4", "--group", "2", "--budget", "4m")
    assert main(["infer", "--out", str(out), "--model", str(model), *map(str, options), *map(str, more), "--json"]) == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    return value


def worker_starts(out: Path) -> int:
    return sum(event["event"] == "worker_started" for event in RunPaths(out).read_events())


def test_it_predicts_scores_and_goes_on(
    tiny_model: Path, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    first = figures(capsys, out, tiny_model, "--challenges", files[0], "--solutions", files[1])
    # Six tasks, every second with two test inputs.
    assert (first["made"], first["held"], first["failed"], first["unfinished"]) == (18, 0, 0, 0)
    assert first["tokens"] > 0
    assert "outputs" in first, "not scored"
    assert first["sources"]["frozen"]["predictions"] == 18
    assert first["attempts"]["voting"]["vote_2"] == first["attempts"]["voting"]["pass_n"]
    assert set(json.loads((out / "submission.json").read_text())) == {f"task{i:03d}" for i in range(6)}
    path = out / "predictions" / "frozen" / "task001.jsonl"
    assert len(read_predictions(path)[0]) == 4
    path.unlink()
    again = figures(capsys, out, tiny_model)
    assert (again["made"], again["held"]) == (4, 14)
    started = worker_starts(out)
    once_more = figures(capsys, out, tiny_model, "--challenges", files[0], "--solutions", files[1])
    assert (once_more["made"], once_more["held"], once_more["done"], once_more["unfinished"]) == (0, 18, 6, 0)
    assert once_more["outputs"] == first["outputs"]
    assert worker_starts(out) == started, "a worker was started with nothing to do"
    with pytest.raises(ConfigError, match="holds another run"):
        infer(make_infer_config(out=out, model=tiny_model, views=3))


def test_one_task_that_fails_is_no_failure_of_all(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    challenges, _ = make_challenges(2)
    large = [[(row + column) % 10 for column in range(30)] for row in range(30)]
    challenges["task001"] = {"train": [{"input": large, "output": large}] * 2, "test": [{"input": large}]}
    (tmp_path / "c.json").write_text(json.dumps(challenges))
    told = figures(capsys, tmp_path / "run", tiny_model, "--challenges", tmp_path / "c.json")
    assert (told["done"], told["failed"]) == (1, 1)


@pytest.mark.parametrize(
    "changes",
    [{"prompt": "output-from-turns-v0"}, {"adapters": "others"}, {"keep_background": True}, {"max_seq_len": 500}, {"temperature": 1.0}],
)
def test_predictions_of_different_kinds_are_not_mixed(
    tiny_model: Path, files: tuple[Path, Path], tmp_path: Path, changes: dict[str, Any]
) -> None:
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match="holds no tasks"):
        infer(make_infer_config(out=out, model=tiny_model))
    if "adapters" in changes:
        changes = {"adapters": tmp_path / "others"}
        changes["adapters"].mkdir()
    with pytest.raises(ConfigError, match="holds another run"):
        infer(make_infer_config(out=out, challenges=files[0], model=tiny_model, **changes))


def test_the_directory_of_a_run_is_gone_on_with_by_its_own_model(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.json").write_text(json.dumps({"model": "another", "views": 5}))
    with pytest.raises(ConfigError, match="model was 'another'"):
        infer(make_infer_config(out=out, model=tiny_model))
    (out / "config.json").write_text(json.dumps({"model": tiny_model.name, "views": 5}))
    with pytest.raises(ConfigError, match="holds no tasks"):
        infer(make_infer_config(out=out, model=tiny_model))
    files = {**files_fingerprint(tiny_model), "model.safetensors": "of the same name, trained anew"}
    (out / "config.json").write_text(json.dumps({"model": tiny_model.name, "model_files": files}))
    with pytest.raises(ConfigError, match=r"model_files differ: model\.safetensors"):
        infer(make_infer_config(out=out, model=tiny_model))


def test_another_challenges_file_is_refused(tiny_model: Path, files: tuple[Path, Path], tmp_path: Path) -> None:
    """Also in a directory that a run began: whose tasks those are, its files say."""
    out = tmp_path / "run"
    small = {"budget": 240.0, "views": 1, "engine": "transformers"}
    other, _ = make_challenges(1, seed=5)
    (tmp_path / "other.json").write_text(json.dumps(other))
    infer(make_infer_config(out=out, challenges=tmp_path / "other.json", model=tiny_model, **small))
    with pytest.raises(ConfigError, match="holds another run"):
        infer(make_infer_config(out=out, challenges=files[0], model=tiny_model, **small))
    (out / "config.json").write_text(json.dumps({"model": tiny_model.name}))
    with pytest.raises(ConfigError, match="is not the task task000 of --challenges"):
        infer(make_infer_config(out=out, challenges=files[0], model=tiny_model, **small))


def test_a_task_file_that_cannot_be_read_fails_alone(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.json").write_text(json.dumps(make_challenges(2)[0]))
    tasks = tmp_path / "run" / "tasks"
    tasks.mkdir(parents=True)
    for name, text in (("broken", "{"), ("empty", ""), ("binary", "\udcff")):
        (tasks / f"{name}.json").write_bytes(text.encode(errors="surrogateescape"))
    told = figures(capsys, tmp_path / "run", tiny_model, "--challenges", tmp_path / "c.json", "--group", "8")
    assert (told["done"], told["failed"]) == (2, 3)


def test_a_folder_of_adapters_that_is_not_there_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder; give the one"):
        infer(make_infer_config(out=tmp_path / "run", model=tiny_model, adapters=tmp_path / "nowhere"))
    assert not (tmp_path / "run").exists()


def test_without_tasks_it_says_what_to_give(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no tasks; give --challenges"):
        infer(make_infer_config(out=tmp_path / "nothing", model=tiny_model))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "llama"}, "--engine llama"),
        ({"views": 0}, "--views 0"),
        ({"slots": 1}, "--max-concurrent 1"),
        ({"group": 300}, "--tasks-per-job 300"),
        ({"seed": -1}, "--seed -1"),
        ({"candidates": "all"}, "--candidates all: choose from views, dfs"),
        ({"candidates": "dfs", "engine": "vllm"}, "take --engine transformers"),
        ({"threshold": 1.5}, "--threshold 1.5"),
        ({"temperature": -1.0}, "--temperature -1"),
        ({"temperature": 1.0, "candidates": "dfs", "engine": "transformers"}, "draws none"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_infer_config(out=tmp_path, **changes)

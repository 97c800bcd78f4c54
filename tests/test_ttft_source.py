"""The source ttft in real runs with a two-layer model: its files, workers killed and frozen in mid-task, runs cut and resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import make_challenges, worker_settings
from peft import PeftModel
from safetensors.torch import load_file

from arc_submit.arc.datasets import read_challenges, split_tasks
from arc_submit.arc.grid import grid_id
from arc_submit.arc.prediction import read_predictions
from arc_submit.arc.submission import read_submission
from arc_submit.arc.task import Task
from arc_submit.base_model.loading import load_model
from arc_submit.errors import ConfigError
from arc_submit.finetune import trainer
from arc_submit.finetune import ttft_worker as worker
from arc_submit.finetune.samples import Sample, TaskSampler
from arc_submit.finetune.settings import FinetuneSettings
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.run.pipeline import RunResult, run
from arc_submit.run.presets import make_config
from arc_submit.storage.run_dir import RunPaths

CPU = torch.device("cpu")
STEPS = 24
TASKS = 5
Undisturbed = tuple[tuple[Path, Path], Path, RunResult]


def options(files: tuple[Path, Path], model: Path, out: Path) -> dict[str, object]:
    fixed = {"lora_rank": 4, "ttft_steps": STEPS, "ttft_learning_rate": 1e-3, "ttft_views": 2, "max_concurrent": 4, "pictures": 1}
    return {"challenges": files[0], "solutions": files[1], "model": model, "out": out, "sources": ("ttft",), "workers": 1, **fixed}


def command(files: tuple[Path, Path], model: Path, out: Path, **changes: object) -> list[str]:
    """The same run on the command line."""
    given = {**options(files, model, out), "sources": "ttft", "budget": "10m", **changes}
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return [sys.executable, "-m", "arc_submit.cli", "run", *words]


def answers(out: Path) -> dict[str, set[tuple[object, ...]]]:
    return {
        path.stem: {(p.test, p.view, None if p.grid is None else p.grid.tobytes(), p.logprob) for p in read_predictions(path)[0]}
        for path in (out / "predictions" / "ttft").iterdir()
    }


def adapters(out: Path) -> dict[str, bytes]:
    folders = [path for path in (out / "adapters").iterdir() if not path.name.startswith(".")]
    return {path.name: (path / "adapter_model.safetensors").read_bytes() for path in folders}


def steps_done(out: Path, task_id: str) -> list[int]:
    lines = (out / "losses" / f"{task_id}.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def events(out: Path, kind: str) -> list[dict[str, Any]]:
    path = out / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def in_training(out: Path) -> set[str]:
    """Tasks that have losses and no adapter yet."""
    if not (out / "losses").is_dir():
        return set()
    return {path.stem for path in (out / "losses").iterdir() if not (out / "adapters" / path.stem).exists()}


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    patience = time.monotonic() + 90
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < patience
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("ttft")
    challenges, solutions = make_challenges(TASKS)
    files = folder / "challenges.json", folder / "solutions.json"
    for path, value in zip(files, (challenges, solutions), strict=True):
        path.write_text(json.dumps(value))
    return files, folder / "out", run(make_config(**options(files, tiny_model, folder / "out"), budget=300.0))


def test_every_task_has_its_adapter_its_losses_and_its_predictions(undisturbed: Undisturbed, tiny_model: Path) -> None:
    files, out, result = undisturbed
    challenges = read_challenges(files[0])
    assert result.done == sorted(challenges.tasks)
    assert not result.failed
    for task_id, task in challenges.tasks.items():
        assert steps_done(out, task_id) == list(range(1, STEPS + 1))
        predictions, problems = read_predictions(out / "predictions" / "ttft" / f"{task_id}.jsonl")
        assert not problems
        assert len({(p.test, p.view) for p in predictions}) == len(predictions) == 2 * len(task.tests)
    losses = [json.loads((out / "losses" / f"{i}.jsonl").read_text().splitlines()[k])["loss"] for i in challenges.tasks for k in (0, -1)]
    assert sum(losses[1::2]) < sum(losses[::2]), "nothing was learnt"
    assert len(set(adapters(out).values())) == TASKS
    plain = PeftModel.from_pretrained(load_model(tiny_model, CPU, torch.float32, "eager"), out / "adapters" / "task001")
    assert {config.r for config in plain.peft_config.values()} == {4}
    assert "losses.png" in {path.name for path in result.report.pictures}


def test_the_same_command_again_trains_nothing_again(undisturbed: Undisturbed, tiny_model: Path) -> None:
    files, out, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.parent.parent.name in ("adapters", "predictions")}
    assert len(before) >= 2 * TASKS
    run(make_config(**options(files, tiny_model, out), budget=300.0))
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_adapter_that_is_there_is_used_and_not_trained_again(undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path) -> None:
    """Of one task's predictions one is taken away: it comes back the same, from the adapter as it is on disk."""
    files, out, _ = undisturbed
    shutil.copytree(out, tmp_path / "out")
    path = tmp_path / "out" / "predictions" / "ttft" / "task001.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    lines = [line for line in (out / "events.jsonl").read_text().splitlines() if '"task_done"' not in line or '"task001"' not in line]
    (tmp_path / "out" / "events.jsonl").write_text("\n".join(lines) + "\n")
    before = (tmp_path / "out" / "adapters" / "task001" / "adapter_model.safetensors").stat().st_mtime_ns
    run(make_config(**options(files, tiny_model, tmp_path / "out"), budget=300.0))
    assert answers(tmp_path / "out") == answers(out)
    assert (tmp_path / "out" / "adapters" / "task001" / "adapter_model.safetensors").stat().st_mtime_ns == before


@pytest.mark.campaign
def test_a_worker_killed_and_one_frozen_in_the_middle_of_a_task(undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path) -> None:
    """SIGKILL to one and SIGSTOP to the other while both train: both tasks end properly, no other is touched, nothing is half written."""
    files, out, _ = undisturbed
    target = tmp_path / "out"
    process = subprocess.Popen(
        command(files, tiny_model, target, workers=2, heartbeat_timeout="4s"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for(lambda: len(in_training(target)) == 2, process)
    victims = in_training(target)
    first, second = psutil.Process(process.pid).children()
    os.kill(second.pid, signal.SIGSTOP)
    os.kill(first.pid, signal.SIGKILL)
    hit = victims & in_training(target)
    text = process.communicate(timeout=200)[0]
    assert process.returncode == 0, text
    reasons = sorted(event["reason"] for event in events(target, "worker_lost"))
    assert reasons == ["killed by signal 9", "silent for 4 s"]
    lost = {task for event in events(target, "worker_lost") for task in event["tasks"]}
    assert hit <= lost
    begun = [task for event in events(target, "worker_begun") for task in event["tasks"]]
    assert sorted(begun) == sorted([*adapters(out), *lost]), "a task that was in nobody's hands was begun again"
    assert not events(target, "task_failed")
    assert adapters(target) == adapters(out)
    assert answers(target) == answers(out)
    assert (target / "submission.json").read_bytes() == (out / "submission.json").read_bytes()
    assert all(steps_done(target, task_id) == list(range(1, STEPS + 1)) for task_id in adapters(out))


def test_a_run_killed_with_its_parent_goes_on_to_the_same_adapters(undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path) -> None:
    files, out, _ = undisturbed
    target = tmp_path / "out"
    process = subprocess.Popen(command(files, tiny_model, target, workers=2), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: len(in_training(target)) >= 1 and sum(1 for _ in (target / "losses").iterdir()) > 2, process)
    process.kill()
    process.communicate()
    for folder in (target / "adapters").glob("[!.]*"):
        load_file(folder / "adapter_model.safetensors")  # raises where it is cut short
        assert (folder / "adapter_model.safetensors").read_bytes() == adapters(out)[folder.name]
    read_submission(target / "submission.json", read_challenges(files[0]))
    result = run(make_config(**options(files, tiny_model, target), budget=300.0))
    assert not result.unfinished
    assert adapters(target) == adapters(out)
    assert answers(target) == answers(out)
    assert (target / "submission.json").read_bytes() == (out / "submission.json").read_bytes()


def test_all_three_sources_answer_and_stay_in_their_order(undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path) -> None:
    files, _, _ = undisturbed
    changes = {
        "sources": ("search", "ttft", "frozen"),
        "workers": 2,
        "views": 1,
        "search_effort": "quick",
        "ttft_steps": 2,
        "task_ids": ("task000", "task001"),
    }
    result = run(make_config(**{**options(files, tiny_model, tmp_path / "out"), **changes}, budget=300.0))
    assert not result.failed
    assert set(result.report.figures["sources"]) == {"search", "ttft", "frozen"}
    assert result.report.figures["submission"]["solved_outputs"] == result.report.figures["submission"]["outputs"]
    begun = {(e["source"], e["worker"]): e["time"] for e in reversed(events(tmp_path / "out", "worker_begun"))}
    ended = {e["source"]: e["time"] for e in events(tmp_path / "out", "task_done")}
    assert ended["frozen"] < min(t for (source, _), t in begun.items() if source == "ttft"), "the frozen model answers first"
    started = [e["time"] for e in events(tmp_path / "out", "worker_started") if e["source"] == "search"]
    assert min(started) < ended["frozen"], "the search waits for nobody"


def test_a_common_warm_up_comes_first_and_every_task_goes_on_from_it(undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path) -> None:
    files, _, _ = undisturbed
    given = {
        **options(files, tiny_model, tmp_path / "out"),
        "ttft_steps": 1,
        "ttft_learning_rate": 1e-6,
        "joint_warmup_steps": 3,
        "workers": 2,
        "task_ids": ("task000", "task001"),
    }
    result = run(make_config(**given, budget=300.0))
    assert (len(result.done), result.failed, result.unfinished) == (2, {}, [])
    begun = [event["source"] for event in events(tmp_path / "out", "worker_begun")]
    assert begun == ["warmup"] + ["ttft"] * 2
    lines = (tmp_path / "out" / "warmup" / "losses.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    warmed = load_file(tmp_path / "out" / "warmup" / "adapter" / "adapter_model.safetensors")
    for folder in (tmp_path / "out" / "adapters").iterdir():
        for name, tensor in load_file(folder / "adapter_model.safetensors").items():
            torch.testing.assert_close(tensor, warmed[name], atol=1e-5, rtol=0)  # one step of 1e-6 away
    again = run(make_config(**given, budget=300.0))
    assert again.done == result.done
    assert len(events(tmp_path / "out", "worker_begun")) == 1 + 2, "the warm-up was made again"


@pytest.mark.campaign
def test_a_warm_up_that_fails_costs_no_task_its_fine_tuning(undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path) -> None:
    """Here it finds no place for its adapter: each task begins afresh, as without a warm-up, and says so."""
    files, out, _ = undisturbed
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "warmup").write_text("in the way")
    given = {**options(files, tiny_model, tmp_path / "out"), "joint_warmup_steps": 2, "task_ids": ("task000", "task001")}
    result = run(make_config(**given, budget=600.0))
    assert (result.done, result.unfinished) == (["task000", "task001"], [])
    assert set(result.failed) <= {"warmup all tasks"}
    assert [event["task"] for event in events(tmp_path / "out", "task_failed")] == ["all tasks"]
    notes = [event["notes"] for event in events(tmp_path / "out", "task_done")]
    assert notes == [["the joint warm-up left no adapter: started with a fresh one"]] * 2
    assert adapters(tmp_path / "out").items() <= adapters(out).items()


def started_worker(tiny_model: Path, tmp_path: Path, files: tuple[Path, Path]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    split_tasks(read_challenges(files[0]), tmp_path / "tasks")
    return worker.open_worker(settings(tiny_model, tmp_path), lambda: None)


def test_one_that_fails_leaves_the_others_of_its_job_alone(tiny_model: Path, tmp_path: Path, files: tuple[Path, Path]) -> None:
    do = started_worker(tiny_model, tmp_path, files)
    first = do({"tasks": ["task000"]})["tasks"]["task000"]
    before = adapters(tmp_path)
    path = tmp_path / "tasks" / "task001.json"
    content = json.loads(path.read_text())
    del content["task001"]["train"][1:]
    path.write_text(json.dumps(content))
    (tmp_path / "tasks" / "task002.json").write_text("{")
    results = do({"tasks": [f"task00{i}" for i in range(6)]})["tasks"]
    assert list(results) == [f"task00{i}" for i in range(6)]
    assert "its only train pair leaves no other" in results["task001"]["failed"]
    assert "task002" in results["task002"]["failed"]
    assert (results["task000"]["steps"], results["task000"]["held"], first["made"]) == (0, first["made"], first["made"])
    for task_id in ("task003", "task004", "task005"):
        result = results[task_id]
        assert (result["failed"], result["steps"], result["notes"]) == ("", 3, [])
        assert result["tokens"] > 0
        assert result["made"] >= 1
        assert result["train_seconds"] <= result["seconds"]
    after = adapters(tmp_path)
    assert set(after) == {"task000", "task003", "task004", "task005"}
    assert len(set(after.values())) == 4, "one task's adapter stands for another's"
    assert after["task000"] == before["task000"], "what is finished is not trained again"


def settings(tiny_model: Path, run_path: Path, **ttft: object) -> dict[str, Any]:
    config = make_config(model=tiny_model, out=run_path, ttft_steps=3, ttft_views=1, lora_rank=2, max_concurrent=2, **ttft)
    return worker_settings("ttft", config)


def test_settings_survive_the_way_to_the_worker(tiny_model: Path, tmp_path: Path) -> None:
    value = json.loads(json.dumps(settings(tiny_model, tmp_path, lora_targets=("q_proj",), ttft_schedule="cosine")))
    read = FinetuneSettings.from_json(value)
    assert (read.lora.targets, read.lora.rank, read.ttft.schedule, read.predict.views) == (("q_proj",), 2, "cosine", 1)


def test_the_base_and_what_the_engine_says_are_untouched_by_training(tiny_model: Path) -> None:
    from test_transformers_engine import by_id, requests

    from arc_submit.base_model.lora import attach
    from arc_submit.base_model.settings import LoraSettings
    from arc_submit.inference.load_transformers import load_transformers_engine
    from arc_submit.inference.transformers_engine import TransformersEngine

    plain = load_transformers_engine(tiny_model, CPU, slots=4)[0]
    model = load_model(tiny_model, CPU, torch.float32, "sdpa")
    engine = TransformersEngine(worker.with_same_weights(model), plain.end_id, 4)
    adapter = attach(model, LoraSettings(rank=2), 0)
    with torch.no_grad():
        adapter.flat.normal_()
    expected = by_id(list(plain.generate(requests(5))))
    assert by_id(list(engine.generate(requests(5)))) == expected
    mine = {p.data_ptr() for p in engine.model.parameters()}
    assert mine <= {p.data_ptr() for p in model.parameters()}, "the base lies in memory twice"


def test_a_task_out_of_memory_keeps_its_earlier_level_and_the_next_starts_from_its_own_plan(
    tiny_model: Path, tmp_path: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    split_tasks(read_challenges(files[0]), tmp_path / "run" / "tasks")
    do = worker.open_worker(settings(tiny_model, tmp_path / "run"), lambda: None)
    assert do({"tasks": ["task000"]})["tasks"]["task000"]["failed"] == ""
    kept = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    plain: list[bool] = []
    real = trainer.batch_loss

    def scarce(model: Any, *more: Any) -> Any:
        plain.append(not any(layer.training for layer in model.model.layers))
        if len(plain) > 3:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return real(model, *more)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "batch_loss", scarce)
        result = do({"tasks": ["task000"], "steps": 5, "views": 2})["tasks"]["task000"]
    assert result["failed"].startswith("task task000: out of memory at step 4 even with gradient checkpointing"), result["failed"]
    assert {path: path.read_bytes() for path in kept} == kept, "the adapter and the predictions of the level before"
    assert not (tmp_path / "run" / "steps-5" / "adapters").exists()
    plain.clear()
    monkeypatch.setattr(trainer, "batch_loss", lambda *given: scarce(*given) if not plain else real(*given))
    result = do({"tasks": ["task002"]})["tasks"]["task002"]
    assert plain == [True], "a task must not depend on those before it"
    assert (result["failed"], result["made"], result["steps"]) == ("", 1, 3)


def test_a_higher_level_searches_its_answers_with_its_own_adapter(tiny_model: Path, tmp_path: Path, files: tuple[Path, Path]) -> None:
    split_tasks(read_challenges(files[0]), tmp_path / "tasks")
    do = worker.open_worker(settings(tiny_model, tmp_path, ttft_candidates="dfs", ttft_threshold=1e-4), lambda: None)
    path = RunPaths(tmp_path).predictions("ttft", "task000")
    do({"tasks": ["task000"]})
    first, _ = read_predictions(path)
    assert {p.searched for p in first} == {(1, 3)}
    result = do({"tasks": ["task000"], "steps": 6, "views": 2})["tasks"]["task000"]
    assert (result["failed"], result["unfinished"], result["steps"]) == ("", 0, 6)
    second, _ = read_predictions(path)
    assert {p.searched for p in second} == {(2, 6)}
    held = [{grid_id(p.grid) for p in some if p.grid is not None} for some in (first, second)]
    assert held[0] <= held[1]


def test_a_worker_without_the_warm_ups_adapter_starts_with_a_fresh_one(tiny_model: Path, tmp_path: Path, files: tuple[Path, Path]) -> None:
    split_tasks(read_challenges(files[0]), tmp_path / "tasks")
    do = worker.open_worker(settings(tiny_model, tmp_path, joint_warmup_steps=2), lambda: None)
    result = do({"tasks": ["task000"]})["tasks"]["task000"]
    assert (result["failed"], result["notes"]) == ("", ["the joint warm-up left no adapter: started with a fresh one"])


def test_a_warm_up_whose_time_is_up_keeps_what_it_has_learnt(tiny_model: Path, tmp_path: Path, files: tuple[Path, Path]) -> None:
    """One that was given too many steps must not end as one that was never made."""
    split_tasks(read_challenges(files[0]), tmp_path / "tasks")
    config = make_config(model=tiny_model, out=tmp_path, joint_warmup_steps=100_000, joint_warmup_samples=2, lora_rank=2)
    do = worker.open_warm_up(worker_settings("warmup", config), lambda: None)
    (result,) = do({"tasks": ["all tasks"], "soft_deadline": time.monotonic() + 1.0})["tasks"].values()
    assert result["failed"] == ""
    assert 0 < result["steps"] < 100_000
    assert result["notes"][-1] == f"warm-up: its time was up after {result['steps']} of 100000 steps, whose result is used"
    warmed = load_file(tmp_path / "warmup" / "adapter" / "adapter_model.safetensors")
    assert all(tensor.any() for name, tensor in warmed.items() if "lora_B" in name), "their fresh values are 0"


@pytest.mark.parametrize(("samples", "batch", "expected"), [(1, 1, 1), (16, 1, 16), (5, 2, 4), (2, 4, 4)])
def test_a_step_of_the_warm_up_has_as_many_samples_as_asked(
    tiny_model: Path, tmp_path: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, samples: int, batch: int, expected: int
) -> None:
    split_tasks(read_challenges(files[0]), tmp_path / "tasks")
    drawn: list[str] = []
    real = TaskSampler.draw

    def draw(sampler: TaskSampler, task: Task, number: int) -> Sample:
        drawn.append(task.id)
        return real(sampler, task, number)

    monkeypatch.setattr(TaskSampler, "draw", draw)
    config = make_config(
        model=tiny_model, out=tmp_path, joint_warmup_steps=6, joint_warmup_samples=samples, ttft_batch_size=batch, lora_rank=2
    )
    do = worker.open_warm_up(worker_settings("warmup", config), lambda: None)
    (result,) = do({"tasks": ["all tasks"]})["tasks"].values()
    assert (result["steps"], len(drawn)) == (6, 6 * expected)
    assert len(set(drawn)) > 1, "they are of different tasks"


def test_a_warm_up_out_of_memory_lowers_its_demands_too(
    tiny_model: Path, tmp_path: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its adapter no task could be fine-tuned at all."""
    split_tasks(read_challenges(files[0]), tmp_path / "tasks")
    real = trainer.batch_loss

    def scarce(model: Any, *more: Any) -> Any:
        if not any(layer.training for layer in model.model.layers):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, *more)

    monkeypatch.setattr(trainer, "batch_loss", scarce)
    config = make_config(model=tiny_model, out=tmp_path, joint_warmup_steps=1, lora_rank=2)
    do = worker.open_warm_up(worker_settings("warmup", config), lambda: None)
    (result,) = do({"tasks": ["all tasks"]})["tasks"].values()
    assert (result["failed"], result["steps"]) == ("", 1)
    assert "gradient checkpointing" in result["notes"][0]
    assert (tmp_path / "warmup" / "adapter" / "adapter_config.json").exists()


@pytest.mark.parametrize(("name", "value", "message"), [("base_adapter", "nowhere", "is missing"), ("ttft_max_seq_len", 10**6, "lower it")])
def test_what_no_worker_could_take_is_refused_before_any_work(
    tiny_model: Path, tmp_path: Path, files: tuple[Path, Path], name: str, value: object, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(make_config(**{**options(files, tiny_model, tmp_path / "out"), name: value}, budget=120.0))
    assert not (tmp_path / "out").exists()


def test_a_loss_on_outputs_that_cannot_be_told_apart_is_refused_before_the_first_task(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PromptTokenizer, "_try_reuse", lambda self: (False, "rows depend on their neighbours"))
    config = make_config(model=tiny_model, out=tmp_path, ttft_loss_on="outputs")
    with pytest.raises(ConfigError, match=r"loss_on outputs.*choose answer or all"):
        worker.open_worker(worker_settings("ttft", config), lambda *_: None)
    worker.open_worker(worker_settings("ttft", make_config(model=tiny_model, out=tmp_path, ttft_loss_on="answer")), lambda *_: None)


def test_a_task_with_one_train_pair_fails_alone_before_it_costs_anything(tiny_model: Path, tmp_path: Path) -> None:
    challenges, solutions = make_challenges(2)
    del challenges["task000"]["train"][1:]  # type: ignore[index]
    files = tmp_path / "c.json", tmp_path / "s.json"
    files[0].write_text(json.dumps(challenges))
    files[1].write_text(json.dumps(solutions))
    result = run(make_config(**{**options(files, tiny_model, tmp_path / "out"), "ttft_steps": 2}, budget=120.0))
    assert result.done == ["task001"]
    assert "its only train pair leaves no other" in result.failed["ttft task000"]
    assert set(adapters(tmp_path / "out")) == {"task001"}


@pytest.mark.campaign
def test_vllm_answers_with_the_same_adapters_as_the_worker_that_made_them(
    undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path
) -> None:
    """One adapter is missing: it is learnt first, then all answer in one engine."""
    files, out, _ = undisturbed
    shutil.copytree(out, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "predictions")
    shutil.rmtree(tmp_path / "out" / "adapters" / "task003")
    lines = [line for line in (out / "events.jsonl").read_text().splitlines() if '"task_done"' not in line]
    (tmp_path / "out" / "events.jsonl").write_text("\n".join(lines) + "\n")
    result = run(make_config(**options(files, tiny_model, tmp_path / "out"), ttft_engine="vllm", budget=900.0, reset_budget=True))
    assert not result.failed
    assert len(result.done) == TASKS
    assert adapters(tmp_path / "out") == adapters(out)
    assert "left to the next engine" not in (tmp_path / "out" / "events.jsonl").read_text()
    assert not events(tmp_path / "out", "worker_handed_on")
    ours, theirs = answers(tmp_path / "out"), answers(out)
    assert {task: {value[:3] for value in values} for task, values in ours.items()} == {
        task: {value[:3] for value in values} for task, values in theirs.items()
    }


def test_a_worker_gives_up_at_its_time_and_goes_on_from_its_files(undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path) -> None:
    out = undisturbed[1]
    shutil.copytree(out / "tasks", tmp_path / "run" / "tasks")
    do = worker.open_worker(settings(tiny_model, tmp_path / "run"), lambda *_: None)
    late = do({"tasks": ["task000", "task001"], "soft_deadline": 0.0})["tasks"]
    for task in ("task000", "task001"):
        assert (late[task]["made"], late[task]["failed"], late[task]["unfinished"] > 0) == (0, "", True)
        assert not (tmp_path / "run" / "losses" / f"{task}.jsonl").exists(), "it went on after its time"
    assert not (tmp_path / "run" / "adapters").exists()
    (done,) = do({"tasks": ["task000"], "soft_deadline": time.monotonic() + 3600.0})["tasks"].values()
    assert (done["failed"], done["unfinished"], done["made"] > 0) == ("", 0, True)
    shutil.rmtree(tmp_path / "run" / "predictions")
    (late_again,) = do({"tasks": ["task000"], "soft_deadline": 0.0})["tasks"].values()
    assert (late_again["made"], late_again["failed"], late_again["unfinished"] > 0) == (0, "", True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ttft_steps": 0}, "--ttft-steps 0"),
        ({"lora_rank": 0}, "--lora-rank 0"),
        ({"ttft_views": 0}, "--ttft-views 0"),
        ({"ttft_max_seq_len": 3}, "--ttft-max-seq-len 3: at least 16"),
        ({"devices": ("cpu", "cuda:0")}, "--devices cpu,cuda:0"),
        ({"preset": "l4x4-qwen3-4b"}, "give --model"),
        ({"ttft_in_4_bits": True}, "--ttft-in-4-bits needs GPUs"),
        ({"base_adapter": "x", "joint_warmup_steps": 3}, "leave it out, or --base-adapter"),
        ({"joint_warmup_samples": 0}, "--joint-warmup-samples 0: at least 1 is needed"),
        ({"ttft_magic": 1}, "no such setting: ttft_magic"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(**changes)

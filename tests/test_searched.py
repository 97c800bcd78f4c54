"""Candidates of the depth-first search as predictions: each once, scored under every view, stored, and cut off by the deadline."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from arc_submit.arc.datasets import read_challenges, read_task, split_tasks
from arc_submit.arc.grid import grid_id
from arc_submit.arc.prediction import Prediction, read_predictions
from arc_submit.base_model.loading import load_tokenizer
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.cli import main
from arc_submit.ensemble.combination import rank
from arc_submit.errors import ConfigError
from arc_submit.inference.candidates import search_views
from arc_submit.inference.engine import ScoringMemoryError
from arc_submit.inference.load_transformers import load_transformers_engine
from arc_submit.inference.predict import Predictor, predict_tasks
from arc_submit.inference.requests import plan_requests
from arc_submit.inference.settings import DfsLimits, PredictSettings, RequestSettings
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_config import resolve_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version
from arc_submit.run.presets import make_config
from arc_submit.storage.run_dir import RunPaths

VIEWS = 3
TOKENIZER = PromptTokenizer.from_config(load_tokenizer(pocket_folder()), resolve_prompt_config(pocket_folder(), None, None, None))
SETTINGS = PredictSettings(
    "", "pocket", VIEWS, 0, False, None, None, None, VIEWS, 1, "cpu", "transformers", candidates="dfs", threshold=0.01
)


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    torch.set_num_threads(1)
    return load_transformers_engine(pocket_folder(), torch.device("cpu"), VIEWS)[0]


def easy_tasks() -> dict[str, Any]:
    """Four tasks, every second with two test inputs, whose outputs are their inputs: the model is nearly sure of them."""
    rng = np.random.default_rng(0)

    def pair() -> dict[str, list[list[int]]]:
        grid = np.full((3, 3), rng.integers(1, 10))
        return {"input": grid.tolist(), "output": grid.tolist()}

    return {
        f"task{i:03d}": {"train": [pair() for _ in range(3)], "test": [{"input": pair()["input"]} for _ in range(1 + i % 2)]}
        for i in range(4)
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "challenges.json").write_text(json.dumps(easy_tasks()))
    split_tasks(read_challenges(tmp_path / "challenges.json"), tmp_path / "run" / "tasks")
    return tmp_path / "run"


def predict(
    engine: TransformersEngine,
    run: Path,
    *tasks: str,
    beat: Callable[[], None] = lambda: None,
    deadline: float | None = None,
    tokenizer: PromptTokenizer = TOKENIZER,
    **changes: Any,
) -> dict[str, dict[str, Any]]:
    """The results of `predict_tasks` with changed settings, as JSON."""
    settings = replace(SETTINGS, run=str(run), **changes)
    results = predict_tasks(Predictor(engine, tokenizer, settings, 1024), tasks, lambda *_: beat(), deadline)
    return {task_id: result.to_json() for task_id, result in results.items()}


def grids(predictions: list[Prediction], test: int) -> set[bytes]:
    return {grid_id(p.grid) for p in predictions if p.test == test and p.grid is not None}


def test_every_candidate_is_predicted_once_with_its_score_under_every_view(engine: TransformersEngine, run: Path) -> None:
    tasks = sorted(easy_tasks())
    results = predict(engine, run, *tasks)
    shutil.copytree(run / "tasks", run.parent / "greedy" / "tasks")
    predict(engine, run.parent / "greedy", *tasks, candidates="views")
    searched, likeliest = 0, 0
    for task_id in tasks:
        task = read_task(run / "tasks" / f"{task_id}.json")
        predictions, problems = read_predictions(RunPaths(run).predictions("frozen", task_id))
        assert not problems
        counts = [results[task_id][name] for name in ("made", "held", "answered", "unfinished")]
        assert counts == [len(predictions), 0, len(task.tests) * VIEWS, 0]
        keys = {one.view.key for one in plan_requests(TOKENIZER, task, RequestSettings(VIEWS, 0, 1024))[0]}
        greedy, _ = read_predictions(RunPaths(run.parent / "greedy").predictions("frozen", task_id))
        for test in range(len(task.tests)):
            own = [p for p in predictions if p.test == test and p.grid is not None]
            assert len(grids(own, test)) == len(own), "a candidate twice"
            assert grids(greedy, test) <= grids(own, test), "a greedy answer is not among the candidates"
            for p in own:
                assert (set(p.logprobs), p.view in keys) == (keys, True)
                assert p.logprob == pytest.approx(math.fsum(p.logprobs.values()) / VIEWS, abs=1e-5)
            by_product = sorted((-math.fsum(p.logprobs.values()), grid_id(p.grid)) for p in own if p.grid is not None)
            assert [grid_id(a.grid) for a in rank(own)] == [key for _, key in by_product]
            searched, likeliest = searched + len(own), likeliest + len(grids(greedy, test))
    assert searched > likeliest > 0


def test_existing_predictions_are_not_computed_again(engine: TransformersEngine, run: Path) -> None:
    first = predict(engine, run, "task001")["task001"]
    path = RunPaths(run).predictions("frozen", "task001")
    before = path.read_text()
    again = predict(engine, run, "task001")["task001"]
    assert (again["made"], again["held"], again["answered"]) == (0, first["made"], 2 * VIEWS)
    # A kill between the two test inputs: the candidates of the first are stored, those of the second are computed again.
    path.write_text("".join(line for line in before.splitlines(keepends=True) if '"test":0' in line))
    predict(engine, run, "task001")
    assert strip(path.read_text()) == strip(before)


def test_more_views_are_searched_alone_and_score_all_candidates(engine: TransformersEngine, run: Path) -> None:
    path = RunPaths(run).predictions("frozen", "task001")
    predict(engine, run, "task001")
    whole, _ = read_predictions(path)
    path.unlink()
    predict(engine, run, "task001", views=VIEWS - 1)
    more = predict(engine, run, "task001")["task001"]
    assert (more["answered"], more["unfinished"]) == (2 * VIEWS, 0)
    assert more["tokens"] < predict(engine, run, "task003")["task003"]["tokens"], "searched the first views again"
    both, _ = read_predictions(path)
    for test in range(2):
        assert grids(both, test) == grids(whole, test)
        assert sorted(p.logprob for p in both if p.test == test) == pytest.approx(sorted(p.logprob for p in whole if p.test == test))
    assert {p.searched for p in both} == {p.searched for p in whole} == {(VIEWS, 0)}
    assert len(both) == len(whole)
    assert predict(engine, run, "task001", views=1)["task001"]["tokens"] == 0


def test_an_adapter_of_more_steps_searches_again_and_keeps_the_answers(engine: TransformersEngine, run: Path) -> None:
    path = RunPaths(run).predictions("frozen", "task001")
    predict(engine, run, "task001", steps=10)
    first, _ = read_predictions(path)
    # What the second search finds is a part of the first: the others must stay.
    again = predict(engine, run, "task001", steps=20, threshold=0.9)["task001"]
    assert again["tokens"] > 0
    assert (again["held"], again["made"]) == (len(first), 0)
    second, _ = read_predictions(path)
    assert [grids(second, test) for test in range(2)] == [grids(first, test) for test in range(2)]
    assert {p.searched for p in second} == {(VIEWS, 20)}
    assert all(len(p.logprobs) == VIEWS for p in second)
    assert sum(len(p.found) for p in second) == sum(len(p.found) for p in first)
    before = path.read_text()
    for steps in (20, 10):
        assert predict(engine, run, "task001", steps=steps)["task001"]["tokens"] == 0
    assert path.read_text() == before


def test_a_search_that_the_deadline_cuts_at_once_leaves_the_answers_as_they_are(engine: TransformersEngine, run: Path) -> None:
    predict(engine, run, "task000", steps=10)
    path = RunPaths(run).predictions("frozen", "task000")
    before, deadline, real = path.read_text(), time.monotonic() + 3600.0, time.monotonic
    clock: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: clock[0] if clock else real())
        cut = predict(engine, run, "task000", steps=20, beat=lambda: clock.append(deadline + 1), deadline=deadline)["task000"]
    assert (cut["made"], cut["unfinished"]) == (0, VIEWS)
    assert path.read_text() == before


def strip(text: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in text.splitlines()]


def test_the_deadline_preserves_found_candidates_and_begins_no_other_task(engine: TransformersEngine, run: Path) -> None:
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    whole = predict(engine, run, "task000", beat=count)["task000"]
    RunPaths(run).predictions("frozen", "task000").unlink()
    deadline, all_steps, real = time.monotonic() + 3600.0, steps, time.monotonic

    def predict_until(last: int, *tasks: str) -> dict[str, dict[str, Any]]:
        """From the step of that number on it is too late."""
        nonlocal steps
        steps, clock = 0, list[float]()

        def run_late() -> None:
            nonlocal steps
            steps += 1
            if steps == last:
                clock.append(deadline)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("time.monotonic", lambda: clock[0] if clock else real())
            return predict(engine, run, *tasks, beat=run_late, deadline=deadline)

    predict_until(2, "task000")
    assert steps == 2 < all_steps, "searched after the deadline"
    results = predict_until(all_steps - VIEWS - 2, "task000", "task002")  # near the end of the search
    assert 0 < results["task000"]["made"] <= whole["made"]
    assert (results["task000"]["unfinished"], results["task002"]["made"], results["task002"]["unfinished"]) == (0, 0, VIEWS)
    assert predict(engine, run, "task000", "task002")["task002"]["made"] > 0
    nothing = predict(engine, run, "task003", deadline=0.0)["task003"]
    assert (nothing["made"], nothing["unfinished"], nothing["failed"]) == (0, 2 * VIEWS, "")


def test_what_was_found_before_a_limit_is_kept(engine: TransformersEngine, run: Path) -> None:
    """A search that ends at its limit of tokens gives what it found by then, as every search of a task does at the task's."""
    whole = predict(engine, run, "task001")["task001"]
    path = RunPaths(run).predictions("frozen", "task001")
    everything, _ = read_predictions(path)
    for limits in (DfsLimits(16), DfsLimits(task_steps=16 * 2 * VIEWS)):  # an answer and a little more; of two test inputs
        path.unlink()
        cut = predict(engine, run, "task001", dfs=limits)["task001"]
        kept, _ = read_predictions(path)
        assert 0 < cut["made"] <= whole["made"]
        assert (cut["unfinished"], cut["failed"], cut["refused"]) == (0, "", [])
        assert all(p.found and set(p.found) <= set(p.logprobs) for p in kept)
        for test in range(2):
            assert grids(kept, test) <= grids(everything, test)
            assert grids(kept, test)
    assert sum(len(p.found) for p in kept) < sum(len(p.found) for p in everything), "the limit ended no search"


def test_a_tasks_tokens_are_shared_by_its_views_whatever_the_slots(engine: TransformersEngine, run: Path) -> None:
    task = read_task(run / "tasks" / "task001.json")
    view_requests = plan_requests(TOKENIZER, task, RequestSettings(4, 0, 1024))[0]

    def search(slots: int, **limits: int) -> dict[str, list[tuple[int, ...]]]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "slots", slots)
            found: dict[str, list[tuple[int, ...]]] = {}
            for one, completion in search_views(engine, view_requests, 0.02, DfsLimits(**limits)):
                found.setdefault(one.request.id, []).append(tuple(completion.tokens))
            return {key: sorted(paths) for key, paths in found.items()}

    batched = search(2, task_steps=136, batch=2)
    assert search(7, task_steps=136, batch=2) == batched
    # Eight searches, four of them in each batch: the first batch has 17 tokens a search, and the second what the first left.
    first = search(4, steps=136 // 8)
    keys = [one.request.id for one in view_requests]
    half = {key for key in keys[:4] if key in first}
    assert {key: batched[key] for key in half} == {key: first[key] for key in half}
    assert search(4, batch=2, task_steps=10**6) == search(4)
    assert search(4, task_steps=7) == {}, "less than a token for each search"


def test_candidates_are_scored_under_as_many_views_as_asked(engine: TransformersEngine, run: Path) -> None:
    task = read_task(run / "tasks" / "task000.json")
    keys = [one.view.key for one in plan_requests(TOKENIZER, task, RequestSettings(5, 0, 1024))[0]]
    for count in (1, 5):
        predict(engine, run, "task000", dfs=DfsLimits(score_views=count))
        path = RunPaths(run).predictions("frozen", "task000")
        predictions, _ = read_predictions(path)
        path.unlink()
        assert {tuple(p.logprobs) for p in predictions} == {tuple(keys[:count])}
        assert all(set(p.found) <= set(keys[:VIEWS]) for p in predictions)
        assert any(len(p.found) > 1 for p in predictions)


def test_candidates_that_memory_lets_no_view_score_are_kept(engine: TransformersEngine, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def score(*_: Any) -> list[float]:
        raise ScoringMemoryError("out of memory")

    monkeypatch.setattr(engine, "score", score)
    result = predict(engine, run, "task000")["task000"]
    predictions, _ = read_predictions(RunPaths(run).predictions("frozen", "task000"))
    assert (result["made"], result["failed"]) == (len(predictions), "")
    assert all(p.grid is not None and not p.logprobs for p in predictions)
    assert all(p.logprob == pytest.approx(math.fsum(p.found.values()) / len(p.found), abs=1e-5) for p in predictions)
    assert predict(engine, run, "task000")["task000"]["made"] == 0


def test_votes_and_scores_are_not_mixed(engine: TransformersEngine, run: Path) -> None:
    predict(engine, run, "task000", candidates="views", views=1)
    results = predict(engine, run, "task000", "task002")
    assert "holds predictions of candidates views" in results["task000"]["failed"]
    assert results["task002"]["made"] > 0, "the other task must go on"
    assert "holds predictions of candidates dfs" in predict(engine, run, "task002", candidates="views")["task002"]["failed"]


def test_a_test_input_without_any_grid_is_recorded_and_not_tried_again(tiny_model: Path, run: Path) -> None:
    engine = load_transformers_engine(tiny_model, torch.device("cpu"), VIEWS)[0]
    tokenizer = PromptTokenizer(load_tokenizer(tiny_model), make_encoder("CompactGridEncoder()"), prompt_version("output-from-turns-v0"))
    first = predict(engine, run, "task000", tokenizer=tokenizer, threshold=1.0)["task000"]
    (only,), _ = read_predictions(RunPaths(run).predictions("frozen", "task000"))
    assert only.grid is None
    assert "none could be scored" in only.reason
    assert (first["made"], first["unfinished"]) == (1, 0)
    assert predict(engine, run, "task000", tokenizer=tokenizer, threshold=1.0)["task000"]["made"] == 0


def test_infer_with_candidates_dfs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.json").write_text(json.dumps({name: task for name, task in easy_tasks().items() if name < "task002"}))
    words = ["--challenges", str(tmp_path / "c.json"), "--out", str(tmp_path / "run"), "--views", "2", "--budget", "4m", "--json"]
    assert main(["infer", *words, "--candidates", "dfs", "--threshold", "0.05"]) == 0
    figures = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert (figures["done"], figures["failed"], figures["unfinished"]) == (2, 0, 0)
    lines = [p for i in range(2) for p in read_predictions(tmp_path / "run" / "predictions" / "frozen" / f"task{i:03d}.jsonl")[0]]
    assert figures["made"] == len(lines)
    assert all(len(p.logprobs) == 2 for p in lines if p.grid is not None)
    assert main(["infer", *words]) == 1
    assert "holds another run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ttft_candidates": "all"}, "--ttft-candidates all: choose from views, dfs"),
        ({"ttft_candidates": "dfs", "ttft_engine": "vllm"}, "take --ttft-engine transformers"),
        ({"ttft_threshold": 0.0}, "--ttft-threshold 0.0"),
        ({"ttft_engine": "llama"}, "--ttft-engine llama"),
        ({"ttft_engine": "vllm", "ttft_candidates": "views", "lora_dora": True}, "does not serve adapters with DoRA"),
    ],
)
def test_a_run_refuses_invalid_options(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(**changes)


@pytest.mark.parametrize("candidates", ["dfs", "views"])
def test_a_view_without_memory_leaves_the_answers_of_the_others(
    engine: TransformersEngine, run: Path, candidates: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = read_task(run / "tasks" / "task000.json")
    first, *others = (one.request.prompt for one in plan_requests(TOKENIZER, task, RequestSettings(VIEWS, 0, 1024))[0])
    real = engine.model.forward

    def forward(*args: Any, fail: bool = False, **kwargs: Any) -> Any:
        ids = kwargs["input_ids"]
        if fail or (ids.shape[0] == 1 and ids[0, : len(first)].tolist() == list(first)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.75 GiB")
        return real(*args, **kwargs)

    monkeypatch.setattr(engine.model, "forward", forward)
    result = predict(engine, run, "task000", candidates=candidates)["task000"]
    predictions, _ = read_predictions(RunPaths(run).predictions("frozen", "task000"))
    assert (result["failed"], result["unfinished"], len(result["refused"])) == ("", 0, 1)
    assert "out of memory with" in result["refused"][0]
    assert result["made"] == len(predictions) >= len(others) - 1
    monkeypatch.setattr(engine.model, "forward", partial(forward, fail=True))
    nothing = predict(engine, run, "task002", candidates=candidates)["task002"]
    assert (nothing["made"], "out of memory with" in nothing["failed"]) == (0, True)

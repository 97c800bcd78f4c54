"""The search command: limits on a task, resume, answers that do not depend on the number of workers, directories of before."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arc_submit.arc.datasets import read_challenges
from arc_submit.arc.prediction import read_predictions
from arc_submit.arc.submission import read_submission
from arc_submit.errors import ConfigError
from arc_submit.run import source_search
from arc_submit.run.pipeline import search
from arc_submit.run.presets import make_search_config
from arc_submit.run.resolve_single import SearchReport
from arc_submit.storage.run_dir import RunPaths

# A worker whose efforts are tiny and whose passes are two, and which may do something else in place of the search.
WORKER = """
import os, time
import numpy as np
from arc_submit.arc.grid import frozen
from arc_submit.arc.prediction import Prediction, append_predictions
from arc_submit.search import search_worker, task_search
from arc_submit.search.programs import Effort

task_search.EFFORTS["quick"] = Effort(work=400_000, size_work=100_000, pieces=2_000)
task_search._PASSES = task_search._PASSES[:2]
open_worker = search_worker.open_worker


def one_answer(task, path, number, searches, beat, source):
    append_predictions(path, [Prediction(task.id, 0, frozen(np.ones((1, 1))), "search", "v", -1.0, "early", 0.0)])
    with open(os.environ["CALLS"], "a") as file:
        file.write(task.id + "\\n")
    DO[os.environ["DO"]](task)


def hang(task):
    if task.id == "t1":
        time.sleep(60)


def fail(task):
    if task.id == "t0":
        np.ones(4 * 2**30, np.uint8)
    if task.id == "t1":
        os._exit(7)


DO = {"hang": hang, "fail": fail, "nothing": lambda task: None}
if "DO" in os.environ:
    search_worker.search_into_file = one_answer
"""


@pytest.fixture(autouse=True)
def _worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "searching.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(source_search, "SEARCH_WORKER", "searching:open_worker")


@pytest.fixture
def challenges(tmp_path: Path) -> Path:
    """Four tasks: an input, and the input rotated."""
    rng = np.random.default_rng(0)
    tasks = {}
    for k in range(4):
        grids = [rng.integers(0, 4, (4, 4)) for _ in range(4)]
        train = [{"input": g.tolist(), "output": np.rot90(g, k).tolist()} for g in grids[:3]]
        tasks[f"t{k}"] = {"train": train, "test": [{"input": grids[3].tolist()}]}
    path = tmp_path / "challenges.json"
    path.write_text(json.dumps(tasks))
    return path


def endings(reports: list[SearchReport]) -> list[str]:
    return [report.ending for report in reports]


def answers(out: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The predictions on disk, without the seconds."""
    found = {}
    for path in sorted((out / "predictions" / "search").glob("*.jsonl")):
        predictions, problems = read_predictions(path)
        assert not problems
        found[path.stem] = [(p.test, p.grid.tolist(), p.logprob, p.model) for p in predictions if p.grid is not None]
    return found


def test_one_and_two_workers_give_equal_answers_and_a_second_call_searches_nothing(
    tmp_path: Path, challenges: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = json.loads(challenges.read_text())
    challenges.write_text(json.dumps({name: tasks[name] for name in ("t1", "t3")}))
    for workers in (1, 2):
        reports = search(make_search_config(challenges=challenges, out=tmp_path / str(workers), workers=workers, effort="quick"))
        assert endings(reports) == ["done"] * 2
        assert all(report.cpu_seconds > 0 for report in reports)
    one, two = (answers(tmp_path / name) for name in ("1", "2"))
    assert one == two
    assert all(one.values())
    assert (tmp_path / "1" / "submission.json").read_bytes() == (tmp_path / "2" / "submission.json").read_bytes()
    read_submission(tmp_path / "1" / "submission.json", read_challenges(challenges))
    monkeypatch.setattr(source_search, "SEARCH_WORKER", "nowhere:open_worker")
    again = search(make_search_config(challenges=challenges, out=tmp_path / "1", workers=1, effort="quick"))
    assert endings(again) == ["done"] * 2


def test_a_task_that_hangs_is_stopped_alone_and_keeps_its_answers(
    tmp_path: Path, challenges: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DO", "hang")
    started = time.monotonic()
    given = {"challenges": challenges, "out": tmp_path / "out"}
    reports = search(make_search_config(**given, workers=2, seconds_per_task=1.0))
    assert time.monotonic() - started < 60
    assert endings(reports) == ["done", "time", "done", "done"]
    assert reports[1].seconds >= 1.0
    assert all(len(found) == 1 for found in answers(tmp_path / "out").values())
    assert json.loads((tmp_path / "out" / "submission.json").read_text())["t1"][0]["attempt_1"] == [[1]]
    assert endings(search(make_search_config(**given, workers=1, seconds_per_task=0.5))) == endings(reports), "no more time, no second try"
    monkeypatch.setenv("DO", "nothing")
    (tmp_path / "calls").unlink()
    assert endings(search(make_search_config(**given, workers=1, seconds_per_task=20.0))) == ["done"] * 4
    assert (tmp_path / "calls").read_text().split() == ["t1"], "only the task that was stopped is searched again"


def test_a_task_that_explodes_or_dies_is_recorded_and_the_dead_one_is_tried_again(
    tmp_path: Path, challenges: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DO", "fail")
    for _ in range(2):
        reports = search(make_search_config(challenges=challenges, out=tmp_path / "out", workers=1, memory_per_task=0.5))
        assert endings(reports) == ["memory", "died", "done", "done"]
    assert sorted((tmp_path / "calls").read_text().split()) == ["t0", "t1", "t1", "t2", "t3"]
    assert len(answers(tmp_path / "out")) == 4


def test_a_directory_without_a_fingerprint_goes_on(tmp_path: Path, challenges: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier versions of the command left reports and predictions, and no config.json."""
    paths = RunPaths(tmp_path / "out")
    report = SearchReport("t0", "done", 1.5, 1.25, 3, "normal")
    paths.search_report("t0").parent.mkdir(parents=True)
    paths.search_report("t0").write_text(json.dumps(asdict(report)))
    paths.predictions("search", "t0").parent.mkdir(parents=True)
    paths.predictions("search", "t0").write_text("")
    monkeypatch.setenv("DO", "nothing")
    reports = search(make_search_config(challenges=challenges, out=tmp_path / "out", workers=1))
    assert reports[0] == report
    assert sorted((tmp_path / "calls").read_text().split()) == ["t1", "t2", "t3"]


def test_its_events_are_not_a_runs(tmp_path: Path, challenges: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DO", "nothing")
    search(make_search_config(challenges=challenges, out=tmp_path / "out", workers=1))
    kinds = {event["event"] for event in RunPaths(tmp_path / "out").read_events()}
    assert "search_done" in kinds
    assert "task_done" not in kinds


def test_a_hostile_task_ends_within_its_limits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def grid() -> list[list[int]]:
        value: list[list[int]] = rng.integers(0, 10, (30, 30)).tolist()
        return value

    path = tmp_path / "hostile.json"
    path.write_text(
        json.dumps({"hostile": {"train": [{"input": grid(), "output": grid()} for _ in range(10)], "test": [{"input": grid()}]}})
    )
    started = time.monotonic()
    (report,) = search(make_search_config(challenges=path, out=tmp_path / "out", workers=1, seconds_per_task=5.0, memory_per_task=2.0))
    assert time.monotonic() - started < 90
    assert report.ending in ("done", "time")
    read_submission(tmp_path / "out" / "submission.json", read_challenges(path))


@pytest.mark.parametrize("options", [{"workers": 0}, {"seconds_per_task": 0.0}, {"memory_per_task": -1.0}])
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        make_search_config(challenges=tmp_path / "c.json", out=tmp_path, **options)

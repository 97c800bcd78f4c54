"""The runner: limits from outside, resume, and answers that do not depend on the number of workers."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from arc_submit.arc.datasets import Challenges
from arc_submit.arc.grid import frozen
from arc_submit.arc.prediction import Prediction, append_predictions, read_predictions
from arc_submit.arc.submission import read_submission
from arc_submit.arc.task import Pair, Task
from arc_submit.errors import ConfigError
from arc_submit.search import task_search
from arc_submit.search.programs import Effort
from arc_submit.search.runner import predictions_path, run_search

TINY = Effort(work=400_000, size_work=100_000, pieces=2_000)


@pytest.fixture(autouse=True)
def _tiny_effort(monkeypatch):
    monkeypatch.setitem(task_search.EFFORTS, "quick", TINY)


def make_challenges(count):
    rng = np.random.default_rng(0)
    tasks = {}
    for k in range(count):
        grids = [frozen(rng.integers(0, 4, (4, 4))) for _ in range(4)]
        tasks[f"t{k}"] = Task(f"t{k}", tuple(Pair(g, frozen(np.rot90(g, k))) for g in grids[:3]), (grids[3],))
    return Challenges(tasks, {}, dict.fromkeys(tasks, 1))


def answers(out, challenges):
    """What the files hold, without the seconds."""
    found = {}
    for task_id in challenges.tasks:
        predictions, problems = read_predictions(predictions_path(out, task_id))
        assert not problems
        found[task_id] = [(p.test, p.grid.tolist(), p.logprob, p.model) for p in predictions]
    return found


def answer(task, text):
    return Prediction(task.id, 0, frozen(np.ones((1, 1))), "search", "v", -1.0, text, 0.0)


def test_one_and_two_workers_give_equal_answers_and_a_second_run_does_nothing(tmp_path):
    challenges = make_challenges(4)
    for workers in (1, 2):
        reports = run_search(challenges, tmp_path / str(workers), workers, effort="quick", progress=False)
        assert [report.ending for report in reports] == ["done"] * 4
    one, two = (answers(tmp_path / name, challenges) for name in ("1", "2"))
    assert one == two
    assert all(one.values())
    assert (tmp_path / "1" / "submission.json").read_bytes() == (tmp_path / "2" / "submission.json").read_bytes()
    read_submission(tmp_path / "1" / "submission.json", challenges)

    def never(task, path, effort):
        raise AssertionError("searched again")

    again = run_search(challenges, tmp_path / "1", 1, effort="quick", progress=False, work=never)
    assert [report.ending for report in again] == ["done"] * 4


def test_a_task_that_hangs_is_killed_alone_and_keeps_its_answers(tmp_path):
    challenges = make_challenges(3)

    def work(task, path, effort):
        append_predictions(path, [answer(task, "early")])
        if task.id == "t1":
            time.sleep(60)

    started = time.monotonic()
    reports = run_search(challenges, tmp_path, 2, seconds_per_task=1.0, progress=False, work=work)
    assert time.monotonic() - started < 10
    assert [report.ending for report in reports] == ["done", "time", "done"]
    assert all(len(found) == 1 for found in answers(tmp_path, challenges).values())
    assert json.loads((tmp_path / "submission.json").read_text())["t1"][0]["attempt_1"] == [[1]]

    def quick(task, path, effort):
        assert task.id == "t1", "only what was cut is searched again, given more time"

    again = run_search(challenges, tmp_path, 1, seconds_per_task=5.0, progress=False, work=quick)
    assert [report.ending for report in again] == ["done"] * 3


def test_a_task_that_explodes_or_dies_is_recorded_and_the_dead_one_is_tried_again(tmp_path):
    challenges = make_challenges(3)
    calls = tmp_path / "calls"

    def work(task, path, effort):
        with calls.open("a") as file:
            file.write(task.id + "\n")
        append_predictions(path, [answer(task, "early")])
        if task.id == "t0":
            np.ones(4 * 2**30, np.uint8)
        if task.id == "t1":
            raise RuntimeError("a bug")

    for _ in range(2):
        reports = run_search(challenges, tmp_path, 1, memory_gb=0.5, progress=False, work=work)
        assert [report.ending for report in reports] == ["memory", "died", "done"]
    assert calls.read_text().split() == ["t0", "t1", "t2", "t1"]
    assert all(found for found in answers(tmp_path, challenges).values())


def test_a_hostile_task_ends_within_its_limits(tmp_path):
    rng = np.random.default_rng(0)
    pairs = tuple(Pair(frozen(rng.integers(0, 10, (30, 30))), frozen(rng.integers(0, 10, (30, 30)))) for _ in range(10))
    task = Task("hostile", pairs, (frozen(rng.integers(0, 10, (30, 30))),))
    challenges = Challenges({"hostile": task}, {}, {"hostile": 1})
    started = time.monotonic()
    (report,) = run_search(challenges, tmp_path, 1, seconds_per_task=5.0, memory_gb=2.0, effort="normal", progress=False)
    assert time.monotonic() - started < 60
    assert report.ending in ("done", "time")
    read_submission(tmp_path / "submission.json", challenges)


@pytest.mark.parametrize("options", [{"workers": 0}, {"seconds_per_task": 0.0}, {"memory_gb": -1.0}])
def test_options_out_of_range_are_refused(tmp_path, options):
    with pytest.raises(ConfigError):
        run_search(make_challenges(1), tmp_path, progress=False, **options)

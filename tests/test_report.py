"""The report: its figures are those of the metrics, and it copes with runs that have little to show."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_challenges

from arc_submit.arc.datasets import Challenges, read_challenges, read_solutions, split_tasks
from arc_submit.arc.prediction import Prediction, append_predictions
from arc_submit.arc.submission import Submission
from arc_submit.arc.task import Solutions
from arc_submit.report.losses import plot_losses, read_losses
from arc_submit.report.study import plot_votes, votes_table
from arc_submit.report.summary import COLUMNS, make_report


@pytest.fixture
def data(tmp_path: Path) -> tuple[Challenges, Solutions]:
    challenges, solutions = make_challenges(4)
    for name, value in (("c.json", challenges), ("s.json", solutions)):
        (tmp_path / name).write_text(json.dumps(value))
    return read_challenges(tmp_path / "c.json"), read_solutions(tmp_path / "s.json")[0]


def attempts(data: tuple[Challenges, Solutions], tmp_path: Path) -> Submission:
    return Submission(data[0], tmp_path / "submission.json")


def predict(data: tuple[Challenges, Solutions], task: str, test: int, right: bool, view: str) -> Prediction:
    grid = data[1].outputs[task][test]
    return Prediction(task, test, grid if right else (grid + 1) % 10, "frozen", view, -1.0, "m", 0.1)


def test_the_figures_are_counted_by_hand(data: tuple[Challenges, Solutions], tmp_path: Path) -> None:
    """Four tasks with 1, 2, 1, 2 outputs: one solved by its first attempt, one found but outvoted, the rest unanswered."""
    pool = [predict(data, "task000", 0, True, f"v{i}") for i in range(3)] + [predict(data, "task000", 0, False, "w")]
    wrong = predict(data, "task001", 1, False, "v0").grid
    assert wrong is not None
    others = [(wrong + k) % 10 for k in (1, 2)]
    pool += [predict(data, "task001", 1, True, "v0")]
    for i, grid in enumerate(others):
        pool += [Prediction("task001", 1, np.asarray(grid, dtype=np.int8), "frozen", f"x{i}{j}", -1.0, "m", 0.1) for j in range(2)]
    submission = attempts(data, tmp_path)
    submission.set("task000", 0, [data[1].outputs["task000"][0]])
    report = make_report(tmp_path / "report", data[0], pool, submission.attempts, data[1], [], pictures=2)
    row = report.figures["sources"]["frozen"]
    assert row["outputs"] == 6
    assert row["predictions"] == 9
    assert row["pass_n"] == pytest.approx(2 / 6)
    assert row["vote_2"] == pytest.approx(1 / 6)
    assert row["accuracy"] == pytest.approx((3 / 4 + 1 / 5) / 6)
    assert row["unanswered"] == pytest.approx(4 / 6)
    assert report.figures["submission"]["solved_outputs"] == 1
    assert report.figures["submission"]["per_task"] == pytest.approx(1 / 4)
    assert json.loads((tmp_path / "report" / "scores.json").read_text()) == report.figures
    header, line = report.text.splitlines()[:2]
    assert header.split() == ["source", "outputs", "pred.", *COLUMNS]
    assert dict(zip(header.split(), line.split(), strict=True))["pass_n"] == "33.3"
    assert report.pictures[0].name == "task-task000.png", "the solved task is drawn first"


def test_a_run_without_predictions_solutions_or_events_has_a_report(data: tuple[Challenges, Solutions], tmp_path: Path) -> None:
    for solutions in (None, data[1], Solutions({})):
        report = make_report(tmp_path / "report", data[0], [], attempts(data, tmp_path).attempts, solutions, [], pictures=1)
        assert report.text
        assert [p.exists() for p in report.pictures] == [True]


def test_solutions_of_another_number_of_outputs_are_left_out(data: tuple[Challenges, Solutions], tmp_path: Path) -> None:
    outputs = dict(data[1].outputs)
    outputs["task001"] = outputs["task001"][:1]
    report = make_report(tmp_path / "report", data[0], [], attempts(data, tmp_path).attempts, Solutions(outputs), [], pictures=8)
    assert report.figures["submission"]["tasks"] == 3


def test_loss_curves_are_read_and_drawn(data: tuple[Challenges, Solutions], tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "losses").mkdir(parents=True)
    (run / "losses" / "a.jsonl").write_text("".join(f'{{"step": {i}, "loss": {2 / i}, "seconds": 0.1}}\n' for i in range(1, 41)))
    (run / "losses" / "b.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')  # cut by a kill
    (run / "losses" / "empty.jsonl").write_text("")
    losses = read_losses(run)
    assert losses == {"a": [2 / i for i in range(1, 41)], "b": [0.5]}
    assert plot_losses(tmp_path / "losses.png", losses).stat().st_size > 5000
    report = make_report(run / "report", data[0], [], attempts(data, tmp_path).attempts, None, [], 0, losses=losses)
    assert [p.name for p in report.pictures] == ["losses.png"]


def test_a_task_is_studied_by_its_votes(data: tuple[Challenges, Solutions], tmp_path: Path) -> None:
    split_tasks(data[0], tmp_path / "tasks")
    pool = [predict(data, "task001", 0, True, f"v{i}") for i in range(3)] + [predict(data, "task001", 0, False, "w")]
    append_predictions(tmp_path / "predictions" / "frozen" / "task001.jsonl", pool)
    lines = votes_table(tmp_path, "task001").splitlines()
    assert lines[1].split()[:5] == ["frozen", "0", "2", "3", "1"]
    assert plot_votes(tmp_path, "task001").stat().st_size > 3000
    assert votes_table(tmp_path, "task000").count("\n") == 0


def test_the_timeline_shows_jobs_that_were_lost_and_resumed(data: tuple[Challenges, Solutions], tmp_path: Path) -> None:
    events = [
        {"time": 0.0, "event": "run_started"},
        {"time": 1.0, "event": "worker_begun", "worker": 0},
        {"time": 2.0, "event": "worker_lost", "worker": 0},
        {"time": 2.0, "event": "worker_begun", "worker": 0, "source": "search"},
        {"time": 2.5, "event": "worker_begun", "worker": 0, "source": "ttft"},
        {"time": 2.9, "event": "task_done", "worker": 0, "source": "search"},
        {"time": 3.0, "event": "run_resumed"},
        {"time": 4.0, "event": "worker_begun", "worker": 1},
        {"time": 9.0, "event": "task_done", "worker": 1, "task": "task000", "source": "frozen", "refused": ["no prompt smaller than 9"]},
        {"time": 9.0, "event": "task_failed", "task": "task001", "source": "frozen"},
        {"time": 10.0, "event": "run_ended"},
    ]
    report = make_report(tmp_path / "report", data[0], [], attempts(data, tmp_path).attempts, None, events, pictures=0)
    assert [p.name for p in report.pictures] == ["timeline.png"]
    assert report.pictures[0].stat().st_size > 3000
    assert "no prompt smaller than 9" in report.text

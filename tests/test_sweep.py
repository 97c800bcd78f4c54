"""Sweeps: which runs there are, that each is a run like any other, goes on and is not done twice, and what they come to."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import make_challenges
from hypothesis import given
from hypothesis import strategies as st
from test_remote_process import gone

from arc_submit.cli import main
from arc_submit.errors import ConfigError
from arc_submit.run import sweep
from arc_submit.run.sweep import Point, make_points, seconds_of, table, tabulate

RUN = ["--sources", "search", "--search-effort", "quick", "--workers", "1", "--pictures", "0", "--budget", "5m"]


def write_tasks(folder: Path, names: tuple[str, ...] = ("task000",)) -> None:
    for path, value in zip((folder / "challenges.json", folder / "solutions.json"), make_challenges(3, side=3), strict=True):
        path.write_text(json.dumps({name: value[name] for name in names}))


def test_points_are_all_combinations_in_order() -> None:
    points = make_points(
        ["seed=0,1", "--model=a/small,b/large", "sources=search|search,frozen", "keep-background=on,off"], ["--views", "2"]
    )
    assert len(points) == len({point.name for point in points}) == 16
    assert points[0].name == "seed=0,model=small,sources=search,keep_background=on"
    assert points[0].arguments == ["--views", "2", "--seed", "0", "--model", "a/small", "--sources", "search", "--keep-background"]
    assert points[-1].arguments == ["--views", "2", "--seed", "1", "--model", "b/large", "--sources", "search,frozen"]
    assert points[-1].settings == {"seed": "1", "model": "b/large", "sources": "search,frozen", "keep_background": "off"}


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (["seed"], "write NAME=VALUE"),
        (["seed="], "write NAME=VALUE"),
        (["seed=1,1"], "each value once"),
        (["seed=1", "--seed=2"], "there twice"),
        (["out=a,b"], "a folder in --out"),
        (["model=a/x,b/x"], "the same folder"),
    ],
)
def test_what_is_no_sweep_is_refused(over: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_points(over, [])


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("ab"), st.integers(0, 5)), st.tuples(st.floats(0, 1), st.floats(0, 1e5)), min_size=1, max_size=12
    )
)
def test_seeds_are_taken_together_and_settings_are_not(runs: dict[tuple[str, int], tuple[float, float]]) -> None:
    points = [Point(f"{model}{seed}", {"model": model, "seed": str(seed)}, []) for model, seed in runs]
    done: dict[str, Any] = {}
    for (model, seed), (score, seconds) in runs.items():
        figures = {"submission": {"per_output": score}, "sources": {"search": {"vote_2": score / 2, "pass_n": score}}}
        done[f"{model}{seed}"] = {"figures": figures, "seconds": seconds, "run": {"unfinished": 1}}
    rows = tabulate(points, done)
    assert {row["setting"]["model"] for row in rows} == {model for model, _ in runs}
    for row in rows:
        scores = [score for (model, _), (score, _) in runs.items() if model == row["setting"]["model"]]
        assert row["runs"] == row["unfinished"] == len(scores)
        assert row["values"]["submission"][0] == pytest.approx(statistics.fmean(scores))
        assert row["values"]["search vote_2"][0] == pytest.approx(statistics.fmean(scores) / 2)
        assert row["values"]["submission"][1] == (pytest.approx(statistics.stdev(scores)) if len(scores) > 1 else None)
    assert len(table(rows).splitlines()) == len(rows) + 1


def test_the_seconds_of_a_run_are_those_in_which_it_was_at_work() -> None:
    kinds = ["run_started", "task_done", "run_resumed", "task_done", "run_ended"]
    assert (
        seconds_of([{"event": kind, "time": time} for kind, time in zip(kinds, [10.0, 13.0, 1000.0, 1002.0, 1002.5], strict=True)]) == 5.5
    )
    assert seconds_of([]) == 0


def points_begun(out: Path) -> list[str]:
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    return [event["point"] for event in events if event["event"] == "point_begun"]


def test_each_point_is_a_run_a_failed_one_is_that_ones_alone_and_none_is_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "TRIES", 1)
    write_tasks(tmp_path)
    files = f"challenges={tmp_path / 'absent.json'},{tmp_path / 'challenges.json'}"
    command = ["sweep", "--out", str(tmp_path / "out"), "--over", files, "--over", "seed=3", "--json", "--", *RUN]
    command += ["--solutions", str(tmp_path / "solutions.json")]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "absent.json,seed=3: given up after 1 tries (exit code 1: arc-submit: " in first
    figures = json.loads(first.splitlines()[-1])
    assert (figures["points"], figures["done"], figures["failed"]) == (2, 1, 1)
    assert figures["settings"][0]["values"]["submission"] == [1.0, None]
    assert figures["settings"][0]["values"]["search vote_2"] == [1.0, None]
    assert "100.0" in (tmp_path / "out" / "table.txt").read_text()
    good, bad = "challenges=challenges.json,seed=3", "challenges=absent.json,seed=3"
    run = tmp_path / "out" / good
    assert json.loads((run / "config.json").read_text())["seed"] == 3
    assert json.loads((run / "submission.json").read_text())["task000"]
    shutil.copy(tmp_path / "challenges.json", tmp_path / "absent.json")
    assert main(command) == 0
    assert points_begun(tmp_path / "out") == [bad, good, bad]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["done"] == 2
    assert (tmp_path / "out" / bad / "submission.json").read_bytes() == (run / "submission.json").read_bytes()


def test_a_slip_in_any_point_is_found_before_the_first_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--out", str(tmp_path / "out"), "--over", "views=2,0", "--", *RUN]) == 1
    assert "--views 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sweep", "--out", str(tmp_path / "out"), "--over", "colour=red", "--", *RUN])
    assert not (tmp_path / "out").exists()


@pytest.mark.campaign
def test_a_sweep_that_is_killed_leaves_no_run_behind_and_goes_on(tmp_path: Path) -> None:
    write_tasks(tmp_path, ("task000", "task001", "task002"))
    files = ["--challenges", str(tmp_path / "challenges.json"), "--solutions", str(tmp_path / "solutions.json")]
    command = ["sweep", "--out", str(tmp_path / "out"), "--over", "seed=0,1", "--", *RUN, *files]
    process = subprocess.Popen(
        [sys.executable, "-m", "arc_submit.cli", *command], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    while not list((tmp_path / "out").glob("seed=0/predictions/search/*")):
        assert process.poll() is None
        time.sleep(0.05)
    began = psutil.Process(process.pid).children(recursive=True)
    assert len(began) >= 2, "a run and its worker"
    process.kill()
    process.wait()
    assert all(gone(one.pid) for one in began)
    assert main(command) == 0
    assert points_begun(tmp_path / "out") == ["seed=0", "seed=0", "seed=1"]
    submissions = [(tmp_path / "out" / name / "submission.json").read_bytes() for name in ("seed=0", "seed=1")]
    assert submissions[0] == submissions[1]

"""The whole run with a real two-layer model: complete, resumable, killed at random moments, stopped by its budget, faulty files."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fork_server
import psutil
import pytest
from conftest import make_challenges
from processes import is_alive

from arc_submit.arc.datasets import read_challenges
from arc_submit.arc.prediction import read_predictions
from arc_submit.arc.submission import Submission, read_submission
from arc_submit.errors import ArcSubmitError, ConfigError, DataError
from arc_submit.run.config import RunConfig
from arc_submit.run.data import load_data
from arc_submit.run.pipeline import RunResult, run
from arc_submit.run.presets import make_config

VIEWS = 3


def config(files: tuple[Path, Path], model: Path, out: Path, **changes: object) -> RunConfig:
    base: dict[str, object] = {"challenges": files[0], "solutions": files[1], "model": model, "out": out, "views": VIEWS}
    base |= {"max_concurrent": 4, "tasks_per_job": 2, "pictures": 1, "sources": ("frozen",), "workers": 1, "budget": 300.0}
    return make_config("cpu-pocket", **{**base, **changes})


def command(files: tuple[Path, Path], model: Path, out: Path, *more: str) -> list[str]:
    given = ["--challenges", str(files[0]), "--solutions", str(files[1]), "--model", str(model), "--out", str(out)]
    fixed = [
        "--views",
        str(VIEWS),
        "--max-concurrent",
        "4",
        "--tasks-per-job",
        "2",
        "--workers",
        "2",
        "--pictures",
        "1",
        "--budget",
        "10m",
        "--sources",
        "frozen",
    ]
    return [sys.executable, "-m", "arc_submit.cli", "run", *given, *fixed, *more]


def answers(out: Path) -> dict[str, set[tuple[object, ...]]]:
    """Every prediction of a run, without the seconds it took."""
    return {
        path.stem: {(p.test, p.view, None if p.grid is None else p.grid.tobytes(), p.logprob) for p in read_predictions(path)[0]}
        for path in (out / "predictions" / "frozen").iterdir()
    }


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Path, Path], Path, RunResult]:
    """Six tasks, run once from start to end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    challenges, solutions = make_challenges(6)
    files = folder / "challenges.json", folder / "solutions.json"
    for path, value in zip(files, (challenges, solutions), strict=True):
        path.write_text(json.dumps(value))
    return files, folder / "out", run(config(files, tiny_model, folder / "out"))


def test_a_disk_that_is_full_at_the_end_costs_neither_the_run_nor_the_file(
    undisturbed: tuple[tuple[Path, Path], Path, RunResult],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files, out, _ = undisturbed
    shutil.copytree(out, tmp_path / "out")
    saved = []
    save = Submission.save

    def save_once(submission: Submission) -> None:
        if saved:
            raise DataError("submission.json: cannot be written (No space left on device)")
        save(submission)
        saved.append(submission.path.read_bytes())

    monkeypatch.setattr(Submission, "save", save_once)
    result = run(config(files, tiny_model, tmp_path / "out"))
    assert result.done
    assert result.submission.read_bytes() == saved[0]
    read_submission(result.submission, read_challenges(files[0]))
    assert "the file stays as it was last written, complete and valid" in capsys.readouterr().out
    assert "submission_not_replaced" in (tmp_path / "out" / "events.jsonl").read_text()


def test_a_run_leaves_a_valid_submission_every_prediction_and_a_report(undisturbed: tuple[tuple[Path, Path], Path, RunResult]) -> None:
    files, out, result = undisturbed
    challenges = read_challenges(files[0])
    read_submission(result.submission, challenges)
    assert result.done == sorted(challenges.tasks)
    assert not result.failed
    assert not result.unfinished
    for task_id, task in challenges.tasks.items():
        predictions, problems = read_predictions(out / "predictions" / "frozen" / f"{task_id}.jsonl")
        assert not problems
        assert len({(p.test, p.view) for p in predictions}) == len(predictions) == VIEWS * len(task.tests)
    scores = json.loads((out / "report" / "scores.json").read_text())
    assert scores["submission"]["outputs"] == 9
    assert scores["sources"]["frozen"]["predictions"] == VIEWS * 9
    assert all(picture.stat().st_size > 2000 for picture in result.report.pictures)
    assert {path.name for path in result.report.pictures} >= {"votes.png", "timeline.png"}


def test_the_same_command_again_makes_nothing_again(undisturbed: tuple[tuple[Path, Path], Path, RunResult], tiny_model: Path) -> None:
    files, out, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in (out / "predictions" / "frozen").iterdir()}
    content = (out / "submission.json").read_bytes()
    result = run(config(files, tiny_model, out, workers=2))
    assert len(result.done) == 6
    assert {path: path.stat().st_mtime_ns for path in (out / "predictions" / "frozen").iterdir()} == before
    assert (out / "submission.json").read_bytes() == content


def test_a_directory_of_another_run_is_refused(undisturbed: tuple[tuple[Path, Path], Path, RunResult], tiny_model: Path) -> None:
    files, out, _ = undisturbed
    with pytest.raises(ConfigError, match=r"views was 3 and is 4.*another --out"):
        run(config(files, tiny_model, out, views=4))


def test_weights_trained_anew_are_another_run_and_an_edited_description_is_not(
    undisturbed: tuple[tuple[Path, Path], Path, RunResult], tiny_model: Path, tmp_path: Path
) -> None:
    files, out, _ = undisturbed
    again = tmp_path / "again"
    shutil.copytree(out, again)
    model = tmp_path / tiny_model.name
    shutil.copytree(tiny_model, model)
    (model / "README.md").write_text("What it is.")
    assert len(run(config(files, model, again)).done) == 6
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ConfigError, match=r"model_files differ: model\.safetensors\)"):
        run(config(files, model, again))


def test_two_workers_in_any_order_give_the_same(
    undisturbed: tuple[tuple[Path, Path], Path, RunResult], tiny_model: Path, tmp_path: Path
) -> None:
    files, out, _ = undisturbed
    run(config(files, tiny_model, tmp_path / "two", workers=2, tasks_per_job=1, max_concurrent=4))
    assert answers(tmp_path / "two") == answers(out)
    assert (tmp_path / "two" / "submission.json").read_bytes() == (out / "submission.json").read_bytes()


def kill_and_resume(files: tuple[Path, Path], model: Path, out: Path, kills: int, seed: int) -> None:
    """Kill a run again and again, the parent, a worker or both, and hold the submission against the test file all the while."""
    challenges = read_challenges(files[0])
    chance = random.Random(seed)
    finished: dict[str, set[tuple[object, ...]]] = {}
    for kill in range(kills + 1):
        started = time.monotonic()
        process = subprocess.Popen(command(files, model, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=out.parent)
        patience = started + (120 if kill == kills else chance.uniform(0.1, 12.0))
        there = (out / "submission.json").exists()
        while process.poll() is None and time.monotonic() < patience:
            if there:
                read_submission(out / "submission.json", challenges)  # raises where it is not complete and valid
            there = (out / "submission.json").exists()
            time.sleep(0.01)
        if kill == kills:
            assert process.wait(timeout=1) == 0
            break
        victims = [psutil.Process(process.pid)] if process.poll() is None else []
        workers = victims[0].children() if victims else []
        which = chance.choice(["parent", "worker", "both"])
        for victim in {"parent": victims, "worker": workers[:1], "both": victims + workers}[which]:
            victim.kill()
        if which == "worker":
            time.sleep(chance.uniform(0.1, 2.0))
        for victim in victims:
            victim.kill()
        process.wait()
        psutil.wait_procs(workers, timeout=5)
        assert not any(is_alive(worker.pid) for worker in workers), "a worker outlived its parent"
        if (out / "predictions" / "frozen").is_dir():
            now = answers(out)
            assert all(kept <= now[task] for task, kept in finished.items()), "finished work was lost"
            finished = now


def test_killed_at_random_moments_nothing_is_lost_and_the_end_is_the_same(
    undisturbed: tuple[tuple[Path, Path], Path, RunResult], tiny_model: Path, tmp_path: Path
) -> None:
    files, out, _ = undisturbed
    kill_and_resume(files, tiny_model, tmp_path / "out", kills=2, seed=1)
    assert answers(tmp_path / "out") == answers(out)
    assert (tmp_path / "out" / "submission.json").read_bytes() == (out / "submission.json").read_bytes()


@pytest.mark.campaign
def test_a_worker_that_is_killed_or_frozen_costs_nothing(
    undisturbed: tuple[tuple[Path, Path], Path, RunResult], tiny_model: Path, tmp_path: Path
) -> None:
    """One worker gets SIGKILL and another SIGSTOP in the middle of a run that nobody restarts."""
    files, out, _ = undisturbed
    target = tmp_path / "out"
    process = subprocess.Popen(
        command(files, tiny_model, target, "--heartbeat-timeout", "3"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    parent = psutil.Process(process.pid)
    for blow in (signal.SIGKILL, signal.SIGSTOP):
        patience = time.monotonic() + 60
        already = worker_events(target, "worker_lost")
        while not worker_events(target, "worker_ready") > already and time.monotonic() < patience and process.poll() is None:
            time.sleep(0.02)
        children = parent.children() if process.poll() is None else []
        for child in children[:1]:
            os.kill(child.pid, blow)
        time.sleep(0.5)
    text = process.communicate(timeout=120)[0]
    assert process.returncode == 0, text
    assert worker_events(target, "worker_lost") >= 1
    assert answers(target) == answers(out)
    assert (target / "submission.json").read_bytes() == (out / "submission.json").read_bytes()


def worker_events(out: Path, kind: str) -> int:
    path = out / "events.jsonl"
    return sum(f'"event":"{kind}"' in line for line in path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.real_workers  # they take the time in which this run's budget ends
def test_the_budget_ends_a_run_and_a_new_one_goes_on(
    undisturbed: tuple[tuple[Path, Path], Path, RunResult], tiny_model: Path, tmp_path: Path
) -> None:
    files, out, _ = undisturbed
    began = time.monotonic()
    short = run(config(files, tiny_model, tmp_path / "out", budget=7.0, margin=6.0))
    assert time.monotonic() - began < 7.0
    assert short.unfinished
    read_submission(short.submission, read_challenges(files[0]))
    spent = run(config(files, tiny_model, tmp_path / "out", budget=7.0, margin=6.0))
    assert spent.unfinished == short.unfinished, "a resumed run has no budget of its own"
    whole = run(config(files, tiny_model, tmp_path / "out", budget=300.0, reset_budget=True))
    assert not whole.unfinished
    assert answers(tmp_path / "out") == answers(out)


def test_two_runs_in_one_directory_are_refused(files: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    first = fork_server.command(*command(files, tiny_model, tmp_path / "out")[3:])
    process = subprocess.Popen(first, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (tmp_path / "out" / "submission.json").exists():
            time.sleep(0.02)
        with pytest.raises(ConfigError, match="another run is using this directory"):
            run(config(files, tiny_model, tmp_path / "out"))
    finally:
        process.kill()
        process.wait()


def test_a_broken_task_is_named_and_has_its_fallback(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    challenges, solutions = make_challenges(3)
    challenges["task001"]["train"][0]["output"] = [[1, 2], [3]]  # type: ignore[index]
    files = tmp_path / "c.json", tmp_path / "s.json"
    files[0].write_text(json.dumps(challenges))
    files[1].write_text(json.dumps(solutions))
    result = run(config(files, tiny_model, tmp_path / "out"))
    assert result.done == ["task000", "task002"]
    assert "c.json: task task001: train[0].output: row 1 has 1 cells" in capsys.readouterr().out
    assert set(read_submission(result.submission, read_challenges(files[0]))) == {"task000", "task001", "task002"}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda c, m: c.write_text("{}"), DataError, "at least one task"),
        (lambda c, m: c.write_text('{"a": {"train": [], "test": []}}'), DataError, "no valid task"),
        (lambda c, m: c.write_text("not json"), DataError, "not JSON"),
        (lambda c, m: c.unlink(), DataError, "cannot be read"),
        (lambda c, m: (m / "config.json").unlink(), ConfigError, "config.json is missing"),
        (lambda c, m: (m / "config.json").write_text("{"), DataError, "not a model's configuration"),
        (lambda c, m: os.truncate(m / "model.safetensors", 3000), DataError, "model.safetensors: cannot be read"),
        (lambda c, m: (m / "arc_submit.json").write_text("{"), DataError, "grid_encoder, prompt and max_seq_len are expected"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    files: tuple[Path, Path],
    tmp_path: Path,
    tiny_model: Path,
    change: Callable[[Path, Path], object],
    error: type[ArcSubmitError],
    message: str,
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for path in tiny_model.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    change(files[0], model)
    with pytest.raises(error, match=message):
        run(config(files, model, tmp_path / "out"))
    assert not (tmp_path / "out").exists(), "a directory that is there would be refused when the mistake is mended"


@pytest.mark.parametrize("spoilt", ["report", "timeline"])
def test_a_report_that_fails_costs_nothing(
    undisturbed: tuple[tuple[Path, Path], Path, RunResult], tiny_model: Path, tmp_path: Path, spoilt: str
) -> None:
    """A finished run is reported again with something in the report's way."""
    files, out, before = undisturbed
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    if spoilt == "report":
        shutil.rmtree(copy / "report")
        (copy / "report").write_text("a file where the folder belongs")
    else:
        with (copy / "events.jsonl").open("a") as file:
            lines = [
                {"event": "worker_begun"},
                {"event": ["x"]},
                {"event": "task_done"},
                {"event": "task_done", "source": "frozen", "task": ["a"]},
                {"event": "task_done", "source": "frozen", "task": "a", "refused": 3},
            ]
            file.write("".join(json.dumps({"time": time.time(), **line}) + "\n" for line in lines))
    result = run(config(files, tiny_model, copy))
    assert result.done == before.done
    assert (copy / "submission.json").read_bytes() == (out / "submission.json").read_bytes()
    assert "no report" in result.report.text


def test_a_directory_that_cannot_be_used_is_named(files: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="cannot be used as a run directory"):
            run(config(files, tiny_model, out))


def test_a_terminal_that_goes_away_does_not_end_a_run(files: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    arguments = fork_server.command(*command(files, tiny_model, tmp_path / "out")[3:])
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    process.wait(timeout=120)
    assert len(answers(tmp_path / "out")) == 6


def test_a_task_with_very_many_pairs_does_not_hold_up_the_report(tiny_model: Path, tmp_path: Path) -> None:
    challenges, solutions = make_challenges(1)
    challenges["task000"]["train"] *= 100  # type: ignore[index]
    files = tmp_path / "c.json", tmp_path / "s.json"
    files[0].write_text(json.dumps(challenges))
    files[1].write_text(json.dumps(solutions))
    began = time.monotonic()
    result = run(config(files, tiny_model, tmp_path / "out", budget=40.0, views=1))
    assert time.monotonic() - began < 40
    assert any(path.name == "task-task000.png" for path in result.report.pictures)


def test_the_sample_is_drawn_by_seed_and_the_submission_covers_all(files: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    chosen = [load_data(config(files, tiny_model, tmp_path, tasks=3, seed=seed)).chosen for seed in (0, 0, 1, 2, 3)]
    assert chosen[0] == chosen[1]
    assert len({tuple(c) for c in chosen}) > 1
    result = run(config(files, tiny_model, tmp_path / "out", tasks=2, views=1))
    assert len(result.done) == 2
    assert len(read_submission(result.submission, read_challenges(files[0]))) == 6


def test_a_competition_rerun_works_on_every_task(
    files: tuple[Path, Path], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_IS_COMPETITION_RERUN", "1")
    assert len(load_data(config(files, tiny_model, tmp_path, tasks=2)).chosen) == 6


def test_the_competitions_own_folder_and_order_are_used(files: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "input" / "competitions" / "arc-prize"
    folder.mkdir(parents=True)
    content = json.loads(files[0].read_text())
    (folder / "arc-agi_test_challenges.json").write_text(json.dumps(content))
    sample = {i: [{"attempt_1": [[0]], "attempt_2": [[0]]}] * len(content[i]["test"]) for i in reversed(content)}
    (folder / "sample_submission.json").write_text(json.dumps(sample))
    result = run(
        make_config(
            input=tmp_path / "input",
            model=tiny_model,
            out=tmp_path / "out",
            views=1,
            workers=1,
            budget=120.0,
            pictures=1,
            sources=("frozen",),
        )
    )
    assert list(json.loads(result.submission.read_text())) == list(reversed(content))
    assert "no solutions" in result.report.text


@pytest.mark.campaign
def test_the_search_and_the_model_work_side_by_side(files: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    """Every output is the input mirrored, which the search finds; a run cut off between the sources goes on."""
    given = {"sources": ("search", "frozen"), "search_effort": "quick", "views": 1, "task_ids": ("task000", "task001")}
    result = run(config(files, tiny_model, tmp_path / "out", **given))
    assert not result.failed
    assert not result.unfinished
    figures = result.report.figures
    assert figures["submission"]["solved_outputs"] == figures["submission"]["outputs"] == 3
    assert figures["sources"]["search"]["vote_2"] == 1
    assert figures["sources"]["frozen"]["predictions"] == 3
    again = run(config(files, tiny_model, tmp_path / "out", **given))
    assert again.report.figures == figures


def timeline(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]


def test_time_left_over_buys_the_same_whenever_it_comes(tiny_model: Path, tmp_path: Path) -> None:
    """One run climbs beyond the plan at once; another ends at its plan and climbs when it is begun again with more allowed."""
    challenges, solutions = make_challenges(2)
    files = tmp_path / "c.json", tmp_path / "s.json"
    for path, value in zip(files, (challenges, solutions), strict=True):
        path.write_text(json.dumps(value))
    fixed = {"sources": ("ttft",), "ttft_steps": 3, "ttft_views": 1, "lora_rank": 2, "ttft_learning_rate": 1e-3}
    more = {"ttft_max_steps": 6, "ttft_max_views": 3}
    straight = run(config(files, tiny_model, tmp_path / "straight", **fixed, **more, workers=2))
    plan = run(config(files, tiny_model, tmp_path / "later", **fixed))
    assert straight.done == plan.done == ["task000", "task001"]
    assert not plan.unfinished
    assert not (tmp_path / "later" / "steps-6").exists()
    before = {path: path.read_bytes() for path in (tmp_path / "later").glob("*/*/adapter_model.safetensors")}
    assert len(before) == 2
    run(config(files, tiny_model, tmp_path / "later", **fixed, **more))

    def kept(out: Path) -> dict[str, list[str]]:
        lines = {path.stem: path.read_text().splitlines() for path in (out / "predictions" / "ttft").iterdir()}
        return {task: sorted(json.dumps({**json.loads(line), "seconds": 0}) for line in found) for task, found in lines.items()}

    assert kept(tmp_path / "straight") == kept(tmp_path / "later")
    for task_id, task in challenges.items():
        assert len(kept(tmp_path / "later")[task_id]) == 3 * len(task["test"])  # type: ignore[index]
        assert (tmp_path / "later" / "steps-6" / "adapters" / task_id / "adapter_config.json").exists()
        assert len((tmp_path / "later" / "steps-6" / "losses" / f"{task_id}.jsonl").read_text().splitlines()) == 6
    assert {path: path.read_bytes() for path in before} == before
    begun = [event for event in timeline(tmp_path / "straight") if event["event"] == "worker_begun"]
    levels = [event["level"] for event in begun]
    assert levels[:2] == [[3, 1], [3, 1]], "both tasks get the plan before one gets more"
    assert sorted(levels[2:]) == [[6, 2], [6, 2], [6, 3], [6, 3]]  # type: ignore[type-var]
    assert all("fit at 3 steps" in str(event["reason"]) for event in begun[:2])
    assert all("most uncertain" in str(event["reason"]) for event in begun[2:])
    done = [event for event in timeline(tmp_path / "straight") if event["event"] == "worker_done"]
    assert all(isinstance(event["seconds"], float) and event["seconds"] > 0 for event in done)
    assert len(done) == 6

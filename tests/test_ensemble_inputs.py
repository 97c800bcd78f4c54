"""`arc-submit ensemble` on several inputs: runs, pools and submission files by every method, and what is refused."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import random_grid, random_task

from arc_submit.arc.datasets import read_challenges, split_tasks, write_challenges
from arc_submit.arc.files import write_json
from arc_submit.arc.grid import Grid, grid_to_lists
from arc_submit.arc.prediction import Prediction, append_predictions
from arc_submit.arc.submission import Submission, fallback_attempts, read_submission
from arc_submit.arc.task import Task
from arc_submit.cli import main
from arc_submit.ensemble.attempts_file import attempt_predictions, read_attempts
from arc_submit.ensemble.combination import METHODS, rank_all
from arc_submit.errors import DataError
from arc_submit.kaggle.inputs import save_results
from arc_submit.run.ensemble_inputs import read_inputs

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from recompute_ensemble import check

VIEW = "r0.c0123456789.p01"
TASKS = {f"t{i}": random_task(np.random.default_rng(i), f"t{i}", pairs=2, tests=1 + i % 2, max_side=4) for i in range(6)}
CANDIDATES = {task_id: [random_grid(np.random.default_rng(100 + i), 3) for i in range(5)] for task_id in TASKS}


def make_run(folder: Path, tasks: dict[str, Task], seed: int, sources: tuple[str, ...] = ("search", "ttft")) -> Path:
    """A run with random answers to its tasks."""
    rng = np.random.default_rng(seed)
    write_challenges(folder.parent / "all.json", tasks)
    split_tasks(read_challenges(folder.parent / "all.json"), folder / "tasks")
    for source in sources:
        for task_id, task in tasks.items():
            found = []
            for test in range(len(task.tests)):
                for _ in range(int(rng.integers(1, 7))):
                    grid = None if rng.random() < 0.1 else CANDIDATES[task_id][rng.integers(5)]
                    found.append(Prediction(task_id, test, grid, source, VIEW, float(rng.normal(-1, 2)), "m", 0.1))
            append_predictions(folder / "predictions" / source / f"{task_id}.jsonl", found)
    return folder


def entry(first: Any, second: Any) -> dict[str, Any]:
    return {name: grid_to_lists(g) if isinstance(g, np.ndarray) else g for name, g in (("attempt_1", first), ("attempt_2", second))}


def make_file(path: Path, tasks: dict[str, Task], seed: int) -> Path:
    """A submission with random attempts, some of which are equal, and fallbacks for the last task."""
    rng = np.random.default_rng(seed)
    value = {i: [entry(*(CANDIDATES[i][k] for k in rng.integers(3, size=2))) for _ in task.tests] for i, task in tasks.items()}
    last, task = list(tasks.items())[-1]
    value[last] = [entry(*fallback_attempts(task, test)) for test in range(len(task.tests))]
    write_json(path, value)
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """Two runs, whose tasks are not quite the same, and a foreign file."""
    ids = list(TASKS)
    one = make_run(tmp_path / "one" / "run", {i: TASKS[i] for i in ids[:5]}, 1)
    two = make_run(tmp_path / "two" / "run", {i: TASKS[i] for i in ids[1:]}, 2, ("search", "frozen"))
    return [f"a={one}", f"b={two}", str(make_file(tmp_path / "foreign.json", TASKS, 3))]


Run = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def ensemble(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str | Path) -> tuple[dict[str, Any], str]:
        assert main(["ensemble", *map(str, words), "--json"]) == 0
        out = capsys.readouterr().out
        return json.loads(out.strip().splitlines()[-1]), out

    return run


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main(["ensemble", *map(str, words)]) == 1
    err = capsys.readouterr().err.strip()
    assert "\n" not in err
    return err


@pytest.mark.parametrize("method", METHODS)
def test_two_runs_and_a_file_make_a_valid_submission(method: str, inputs: list[str], tmp_path: Path, ensemble: Run) -> None:
    figures, out = ensemble(*inputs, "--out", tmp_path / "new", "--method", method)
    write_challenges(tmp_path / "all.json", TASKS)
    challenges = read_challenges(tmp_path / "all.json")
    path = tmp_path / "new" / "submission.json"
    attempts = read_submission(path, challenges)
    assert figures["outputs"] == figures["answered"] == 9
    assert "1 tasks are in foreign" not in out
    reasons = json.loads((tmp_path / "new" / "submission.reasons.json").read_text())
    assert {i: len(entries) for i, entries in reasons.items()} == {i: len(entries) for i, entries in attempts.items()}
    first = reasons["t1"][0]["attempt_1"]
    assert set(first["sources"]) <= {"a/search", "a/ttft", "b/search", "b/frozen", "foreign"}
    assert all(text in first["reason"] for text in first["sources"].values())
    if method in ("voting", "concatenation", "combination", "precedence"):
        named = [*inputs[:2], f"foreign={inputs[2]}"]
        counts = check(method, named, path)
        assert (counts["answered"], counts["different"]) == (9, 0)
        swapped = json.loads(path.read_text())
        swapped["t1"][0] = dict(zip(("attempt_1", "attempt_2"), reversed(swapped["t1"][0].values()), strict=True))
        swapped["t2"][0]["attempt_1"] = [[9]]
        write_json(tmp_path / "wrong.json", swapped)
        assert check(method, named, tmp_path / "wrong.json")["different"] >= 1, "the check can fail"


def test_order_and_weights_take_the_names_of_sources_and_inputs(inputs: list[str], tmp_path: Path, ensemble: Run) -> None:
    def first(*more: str) -> str:
        ensemble(*inputs, "--out", tmp_path / "new", *more)
        reasons = json.loads((tmp_path / "new" / "submission.reasons.json").read_text())
        sources: dict[str, str] = reasons["t2"][0]["attempt_1"]["sources"]
        return " ".join(sources)

    assert "a/search" in first("--method", "precedence")
    assert "foreign" in first("--method", "precedence", "--order", "foreign,b,a")
    assert "b/frozen" in first("--method", "precedence", "--order", "frozen,a/search")
    assert "b/frozen" in first("--method", "voting", "--weights", "frozen=1000")
    assert "a/" in first("--method", "voting", "--weights", "a=1000")


def test_a_pool_of_several_inputs_gives_the_same_submission(inputs: list[str], tmp_path: Path, ensemble: Run) -> None:
    figures, _ = ensemble(*inputs, "--export-pool", tmp_path / "pool.jsonl.gz")
    assert figures["candidates"] > 20
    options = (), ("--order", "a/search,foreign,b,a/ttft", "--weights", "b/search=2,search=3")
    for method, more in itertools.product(METHODS, options):
        made = []
        for number, words in enumerate((inputs, [str(tmp_path / "pool.jsonl.gz")])):
            out = tmp_path / f"{number}.json"
            ensemble(*words, "--out", out, "--method", method, *more)
            made.append((out.read_text(), out.with_name(f"{number}.reasons.json").read_text()))
        assert made[0] == made[1], method


def test_a_kaggle_session_leaves_its_pool(inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(inputs[0].partition("=")[2])
    (tmp_path / "working").mkdir()
    copied = save_results(tmp_path, run)
    assert copied[0] == tmp_path / "working" / "run" / "pool.jsonl.gz"
    (one,), (other,) = read_inputs([str(copied[0])]), read_inputs([str(run)])
    assert sorted(p.to_line() for p in one.pool.predictions) == sorted(p.to_line() for p in other.pool.predictions)
    assert one.pool.tasks == other.pool.tasks
    (run / "tasks" / "t0.json").write_text("{}")
    assert save_results(tmp_path, run) == []
    assert "pool.jsonl.gz: not written" in capsys.readouterr().out


def test_a_source_with_a_name_of_its_own_is_found_by_its_kind(tmp_path: Path, ensemble: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", {"t0": TASKS["t0"]}, 0, ("ttft",))
    found = [Prediction("t0", 0, CANDIDATES["t0"][k], "quick", VIEW, 4.0 - k, "rule", 0.1, kind="search") for k in (0, 0, 1)]
    append_predictions(run / "predictions" / "quick" / "t0.jsonl", found)
    for words in (["--order", "search,ttft"], ["--order", "quick,ttft"], []):
        _, out = ensemble(run, "--out", tmp_path / "new", "--method", "precedence", "--explain", *words)
        assert "t0 test 0 attempt_1: quick 1 of 2" in out
    assert "--order frozen: none of them has predictions; there are quick, ttft" in refused(capsys, run, "--order", "frozen", "--compare")


def test_inputs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path, ensemble: Run, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [make_run(tmp_path / name / "run=0", TASKS, seed, ("ttft",)) for seed, name in enumerate("xy")]
    figures, _ = ensemble(*paths, "--out", tmp_path / "new.json")
    assert set(figures["first_attempts"]) == {"x/run=0/ttft", "y/run=0/ttft"}
    ensemble(*paths, "--out", tmp_path / "new.json", "--weights", "x/run=0/ttft=2")
    assert "is given twice" in refused(capsys, paths[0], paths[0], "--compare")
    assert "two inputs are named z; name them by NAME=PATH" in refused(capsys, f"z={paths[0]}", f"z={paths[1]}", "--compare")


def test_a_whole_test_file_is_answered(inputs: list[str], tmp_path: Path, ensemble: Run) -> None:
    more = {name: random_task(np.random.default_rng(50), name, tests=2) for name in ("extra", "another")}
    write_challenges(tmp_path / "test.json", more | {i: TASKS[i] for i in ("t5", "t0", "t1")})
    figures, out = ensemble(*inputs, "--out", tmp_path / "new.json", "--challenges", tmp_path / "test.json")
    attempts = read_submission(tmp_path / "new.json", read_challenges(tmp_path / "test.json"))
    assert list(attempts) == ["extra", "another", "t5", "t0", "t1"]
    assert (figures["outputs"], figures["answered"]) == (9, 5)
    assert np.array_equal(attempts["extra"][1][0], more["extra"].tests[1]), "a fallback"
    assert "3 tasks of " in out
    assert "are not in the test file" in out


def test_different_tasks_under_one_id_are_refused(inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = inputs[0].partition("=")[2]
    other_tests = Task("t2", TASKS["t2"].train, (TASKS["t0"].tests[0],))
    other_train = Task("t2", TASKS["t3"].train, TASKS["t2"].tests)
    more_tests = Task("t2", TASKS["t2"].train, TASKS["t2"].tests * 2)
    for task, words in ((other_tests, "other test inputs"), (other_train, "other train pairs"), (more_tests, "2 test inputs in")):
        other = make_run(tmp_path / words.replace(" ", "-"), {"t2": task}, 4)
        err = refused(capsys, one, other, "--compare")
        assert "task t2 has" in err
        assert words in err
        assert one in err
        assert str(other) in err
        write_challenges(tmp_path / "test.json", {"t2": task})
        err = refused(capsys, one, "--out", tmp_path / "new.json", "--challenges", tmp_path / "test.json")
        assert "test.json" in err
        assert one in err
    assert not (tmp_path / "new.json").exists()


def test_a_file_of_other_tasks_is_refused(inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, foreign = inputs[0].partition("=")[2], inputs[2]
    grid = CANDIDATES["t0"][0]
    write_json(tmp_path / "none.json", {"elsewhere": [entry(grid, grid)]})
    assert "none.json: holds none of the tasks of" in refused(capsys, one, tmp_path / "none.json", "--compare")
    write_json(tmp_path / "more.json", {"t0": [entry(grid, grid)] * 3})
    err = refused(capsys, one, tmp_path / "more.json", "--compare")
    assert "task t0 has 3 test inputs in" in err
    assert one in err
    write_challenges(tmp_path / "test.json", {"x": random_task(np.random.default_rng(0), "x")})
    assert "holds none of the tasks of" in refused(capsys, foreign, "--out", tmp_path / "n", "--challenges", tmp_path / "test.json")
    for value, words in (([], "a submission is a JSON object"), ({"t0": [entry([], [[12]])]}, "no attempt in it is a grid")):
        write_json(tmp_path / "bad.json", value)
        assert words in refused(capsys, one, tmp_path / "bad.json", "--compare")


def test_malformed_attempts_are_named_and_left_out(tmp_path: Path) -> None:
    a, b = CANDIDATES["t1"][:2]
    value = {
        "t1": [entry([[1, 2], [3]], a), entry(b, [[12]])],
        "t0": [entry(a, [])],
        "t2": [{"attempt_2": grid_to_lists(a)}],
        "t3": [entry(a, a), entry(b, a)],
        "t4": [],
        "t5": [3, entry(None, b)],
    }
    write_json(tmp_path / "file.json.gz", value)
    file = read_attempts(tmp_path / "file.json.gz")
    for words in (
        "entry 0: attempt_1: row 1 has 1 cells",
        "entry 1: attempt_2: row 0, column 0 is 12",
        "task t0: entry 0: attempt_2: a grid is a non",
    ):
        assert any(words in problem for problem in file.problems), words
    for words in ("t2: entry 0: attempt_1 is missing", "task t4: a non-empty list", "task t5: entry 0 is not an object"):
        assert any(words in problem for problem in file.problems), words
    assert len(file.problems) == 7
    found, fallbacks = attempt_predictions("x", file, TASKS)
    ranked = rank_all(found)["x"]
    shares = {output: [round(float(np.exp(answer.mean_logprob)), 3) for answer in answers] for output, answers in ranked.items()}
    assert shares == {
        ("t1", 0): [0.2],
        ("t1", 1): [0.8],
        ("t0", 0): [0.8],
        ("t2", 0): [0.2],
        ("t3", 0): [1.0],
        ("t3", 1): [0.8, 0.2],
        ("t5", 1): [0.2],
    }
    assert fallbacks == 0


def test_fallbacks_are_no_answers(tmp_path: Path) -> None:
    write_challenges(tmp_path / "all.json", TASKS)
    submission = Submission(read_challenges(tmp_path / "all.json"), tmp_path / "submission.json")
    submission.set("t0", 0, [CANDIDATES["t0"][0]])
    submission.save()
    found, fallbacks = attempt_predictions("x", read_attempts(submission.path), TASKS)
    assert [(p.task, p.model) for p in found] == [("t0", "attempt_1")]
    assert fallbacks == 17
    blank = [[0, 0], [0, 0]]
    write_json(tmp_path / "blank.json", {"t0": [entry(blank, blank)], "t2": [entry(blank, [[1]])]})
    found, fallbacks = attempt_predictions("x", read_attempts(tmp_path / "blank.json"), TASKS)
    assert ([p.task for p in found], fallbacks) == (["t2", "t2"], 2)


def test_the_trust_in_a_file_comes_from_its_agreement_with_the_search(tmp_path: Path, ensemble: Run) -> None:
    """Where the search is sure, one file agrees with it always and the other never; on t5 the search is unsure."""

    def made(name: str, agrees: bool) -> Path:
        value = {i: [entry(CANDIDATES[i][0 if agrees and i != "t5" else 1], CANDIDATES[i][2])] * len(t.tests) for i, t in TASKS.items()}
        write_json(tmp_path / name, value)
        return tmp_path / name

    run = make_run(tmp_path / "run", TASKS, 0, ())
    for task_id, task in TASKS.items():
        scores: list[tuple[Grid, float]] = [(CANDIDATES[task_id][0], 4.0), (CANDIDATES[task_id][3], -6.0)]
        if task_id == "t5":
            scores = [(CANDIDATES[task_id][3], -2.0), (CANDIDATES[task_id][4], -2.5)]
        found = [Prediction(task_id, test, g, "search", VIEW, s, "rule", 0.1) for test in range(len(task.tests)) for g, s in scores]
        append_predictions(run / "predictions" / "search" / f"{task_id}.jsonl", found)
    for agrees in (True, False):
        _, out = ensemble(run, f"file={made('file.json', agrees)}", "--out", tmp_path / "new")
        reasons = json.loads((tmp_path / "new" / "submission.reasons.json").read_text())
        assert list(reasons["t5"][0]["attempt_1"]["sources"]) == (["file"] if agrees else ["run/search"])
        assert f"file: trust {'0.' if agrees else '0.0'}" in out
        assert f"in {7 if agrees else 0} of 7 outputs" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --out for the new submission"),
        (["--submission", "x.json"], "give --out for"),
        (["--compare", "--submission", "x.json"], "--submission rewrites the file of one run"),
        (["--compare", "--order", "a,c"], "--order a,c: no source c; there are a/search, a/ttft, b/search, b/frozen, foreign"),
        (["--compare", "--order", "a,a/search"], "name each source once"),
        (["--compare", "--weights", "nowhere=2"], "no source nowhere"),
        (["--ask", "--method", "selection", "--compare"], "give --out, a folder that keeps what the model says"),
    ],
)
def test_invalid_options_are_refused_in_one_line(
    words: list[str], message: str, inputs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *inputs, *words)


def test_no_input_is_overwritten(inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = Path(inputs[0].partition("=")[2])
    assert "is an input too" in refused(capsys, *inputs, "--out", inputs[2])
    assert "is an input too" in refused(capsys, *inputs, "--export-pool", inputs[2])
    write_json(one / "config.json", {})
    assert "holds a run; give another folder" in refused(capsys, *inputs, "--out", one)
    assert "no such file or directory" in refused(capsys, one, tmp_path / "nowhere", "--compare")
    assert "no such file or directory" in refused(capsys, "name=nowhere", "--compare")


def test_two_files_alone_are_combined_by_their_ids(tmp_path: Path, ensemble: Run) -> None:
    paths = [make_file(tmp_path / f"{name}.json", TASKS, seed) for seed, name in enumerate("xy")]
    ensemble(*paths, "--out", tmp_path / "new.json", "--method", "combination")
    made = json.loads((tmp_path / "new.json").read_text())
    x, y = (json.loads(path.read_text()) for path in paths)
    assert made["t0"][0]["attempt_1"] == x["t0"][0]["attempt_1"]
    assert made["t0"][0]["attempt_2"] in y["t0"][0].values()
    (tmp_path / "text.json").write_text("{}\n{}")
    with pytest.raises(DataError, match="no pool of candidates"):
        read_inputs([str(tmp_path / "text.json")])

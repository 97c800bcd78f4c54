"""From wrong predictions to a trained judge in the ensemble: every command of the chain in docs/training.md, on few tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from strategies import challenges_value, small_tasks, training, write

from arc_submit.arc.grid import grid_id, grid_to_lists, same_grid
from arc_submit.arc.prediction import read_predictions
from arc_submit.arc.training_sets import read_training_tasks, with_wrong_predictions
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.cli import main
from arc_submit.ensemble.judgements import judgement_from_line
from arc_submit.inference.load_transformers import load_transformers_engine
from arc_submit.inference.requests import plan_requests
from arc_submit.inference.settings import RequestSettings
from arc_submit.language.prompt_config import resolve_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer

PROMPTS = {"verification": "verify-output-from-turns-v1", "selection": "select-output-from-turns-v1"}


def command(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The output of a command."""
    assert main([*map(str, words)]) == 0
    return capsys.readouterr().out


def test_wrong_predictions_train_a_judge_that_the_ensemble_uses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks, outputs = small_tasks(), training()[1].outputs
    data = write(tmp_path / "a_challenges.json", challenges_value(tasks))
    known = write(tmp_path / "a_solutions.json", {task.id: [grid_to_lists(grid) for grid in outputs[task.id]] for task in tasks})

    wrong, pocket = tmp_path / "wrong", pocket_folder()
    infer = ["infer", "--challenges", data, "--out", wrong, "--model", pocket, "--engine", "transformers"]
    command(capsys, *infer, "--temperature", "1", "--views", "6", "--budget", "4m")
    drawn = [p for path in sorted((wrong / "predictions" / "frozen").iterdir()) for p in read_predictions(path)[0]]
    assert len(drawn) == 5 * 6
    engine, tokenizer, _ = load_transformers_engine(pocket, torch.device("cpu"), 6)
    how = resolve_prompt_config(pocket, None, None, None)
    writer = PromptTokenizer.from_config(tokenizer, how)
    planned = {one.request.id: one for one in plan_requests(writer, tasks[0], RequestSettings(6, 0, 2048))[0]}
    likeliest = {
        (planned[done.id].test, planned[done.id].view.key): done.logprob for done in engine.generate([p.request for p in planned.values()])
    }
    assert any(p.grid is not None and p.logprob < likeliest[p.test, p.view] - 1 for p in drawn if p.task == tasks[0].id), (
        "no prediction was sampled"
    )
    with_wrong = list(with_wrong_predictions(read_training_tasks(str(data), []), wrong / "predictions" / "frozen", []))
    questions = sum(len(task.wrong) for task in with_wrong)
    assert questions > 4, "too few different mistakes for a training"
    assert all(not same_grid(grid, task.pairs[pair].output) for task in with_wrong for pair, grid in task.wrong)

    judge = tmp_path / "judge"
    parts = [f"{data},{prompt},1,wrong={wrong / 'predictions' / 'frozen'}" for prompt in PROMPTS.values()]
    train = ["train", "--full", "--model", pocket, "--out", judge, "--data", parts[0], "--data", parts[1], "--benchmarks", "none"]
    train += ["--steps", "3", "--batch-size", "4", "--learning-rate", "1e-3", "--loaders", "0", "--eval-every", "3", "--eval-samples", "8"]
    printed = command(capsys, *train)
    assert f"{questions} wrong" in printed
    assert "eval_right" in printed
    trained = (judge / "model").rename(tmp_path / "trained")  # the folder's name is the name of the model in its judgements

    for method, model in (("verification", pocket), ("verification", trained), ("selection", trained), ("selection", trained)):
        ask = [
            "ensemble",
            wrong,
            "--method",
            method,
            "--ask",
            "--prompt",
            PROMPTS[method],
            "--views",
            "1",
            "--candidates",
            "3",
            "--model",
            model,
        ]
        printed = command(capsys, *ask, "--json")
    assert printed.startswith("0 questions asked"), "questions are not repeated"
    assert "changed" in json.loads(printed.splitlines()[-1])
    judged = [judgement_from_line(line) for path in (wrong / "judgements").iterdir() for line in path.read_text().splitlines()]
    values = {
        name: {(j.task, *j.key[:4]): j.value for j in judged if j.model == name and len(j.grids) == 1} for name in ("pocket", "trained")
    }
    assert values["pocket"].keys() == values["trained"].keys()
    assert values["pocket"]
    assert all(abs(value - values["trained"][key]) > 1e-3 for key, value in values["pocket"].items()), "the base model answered"
    pairs = {(j.task, j.test, *map(grid_id, j.grids)) for j in judged if j.question == "select"}
    assert pairs
    assert all((task, test, second, first) in pairs for task, test, first, second in pairs), "each pair is shown in both orders"
    printed = command(capsys, "ensemble", wrong, "--compare", "--solutions", known, "--json")
    assert {"selection", "verification"} <= set(json.loads(printed.splitlines()[-1])["ways"])

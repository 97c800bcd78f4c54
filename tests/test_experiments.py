"""The experiments: which runs each makes, on which tasks, and what their tables say of runs that are made up here."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import make_challenges
from hypothesis import given
from hypothesis import strategies as st

from arc_submit.arc.datasets import read_challenges, read_solutions, split_tasks
from arc_submit.arc.grid import frozen
from arc_submit.arc.prediction import Prediction, append_predictions
from arc_submit.arc.task import Pair, Task
from arc_submit.cli import main
from arc_submit.experiments import frame, speed
from arc_submit.experiments.frame import average, final_loss, measure_run, open_experiment, smallest_tasks
from arc_submit.experiments.predictions import gain_by_doubling
from arc_submit.experiments.rank_rate import make_point as rank_point
from arc_submit.experiments.speed import linear_fit
from arc_submit.experiments.splits import make_point as split_point
from arc_submit.report.curves import CurvePoint
from arc_submit.report.losses import median_curve
from arc_submit.run.sweep import Point, SweepResult, read_point_config, run_points
from arc_submit.storage.run_dir import RunDirectory, open_run

Made = list[Point]


@pytest.fixture
def tasks(tmp_path: Path) -> list[str]:
    """The options that choose four tasks of six outputs."""
    challenges, solutions = make_challenges(4)
    (tmp_path / "challenges.json").write_text(json.dumps(challenges))
    (tmp_path / "solutions.json").write_text(json.dumps(solutions))
    return ["--challenges", str(tmp_path / "challenges.json"), "--solutions", str(tmp_path / "solutions.json")]


def answer(folder: Path, tmp_path: Path, right: Sequence[bool], source: str = "ttft") -> None:
    """Predictions for every output of a folder, right and wrong ones in this order, each wrong one another grid."""
    solutions, _ = read_solutions(tmp_path / "solutions.json")
    for task_id, outputs in solutions.outputs.items():
        for test, grid in enumerate(outputs):
            for number, good in enumerate(right):
                given_grid = grid if good else frozen([[number % 10] * 9])
                prediction = Prediction(task_id, test, given_grid, source, f"v{number}", -1.0 - number, "m", 1.0)
                append_predictions(folder / "predictions" / source / f"{task_id}.jsonl", [prediction])


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Runs are not made: each gets predictions, half of which are right where its seed is 0, and losses."""
    points: Made = []

    def fake(some: Sequence[Point], directory: RunDirectory, launch: Callable[..., Any], parallel: int) -> SweepResult:
        for point in some:
            points.append(point)
            source = "frozen" if point.command == "infer" and "--adapters" not in point.arguments else "ttft"
            answer(directory.root / point.name, tmp_path, (point.settings["seed"] == "0", False), source)
            losses = directory.root / point.name / "losses" / "task000.jsonl"
            losses.parent.mkdir(parents=True)
            losses.write_text("".join(json.dumps({"step": i, "loss": 5.0 - i}) + "\n" for i in range(5)))
        return SweepResult()

    monkeypatch.setattr(frame, "run_points", fake)
    return points


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=12), st.integers(1, 14))
def test_the_smallest_tasks_leave_no_smaller_one_out(shapes: list[tuple[int, int]], number: int) -> None:
    def task(name: str, side: int, pairs: int) -> Task:
        grid = frozen([[0] * side] * side)
        return Task(name, (Pair(grid, grid),) * pairs, (grid,))

    tasks = {f"t{i}": task(f"t{i}", *shape) for i, shape in enumerate(shapes)}
    cells = {f"t{i}": side * side * (2 * pairs + 1) for i, (side, pairs) in enumerate(shapes) if pairs > 1}
    chosen = smallest_tasks(tasks, number)
    assert len(chosen) == min(number, len(cells))
    assert set(chosen) <= set(cells), "with a single train pair there is nothing to learn from"
    assert all(cells[one] <= cells[other] for one in chosen for other in set(cells) - set(chosen))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(60, 2000))
def test_adapters_share_the_steps_and_the_tasks(splits: int, tasks: int, total: int) -> None:
    if splits > tasks:
        return
    settings = split_point(splits, total, tasks, 0, []).settings
    adapters, size, steps = (int(settings[name]) for name in ("adapters", "tasks each", "steps each"))
    assert adapters <= splits
    assert (adapters - 1) * size < tasks <= adapters * size
    assert steps >= 1
    assert total - adapters < adapters * steps <= total


def test_every_setting_and_seed_is_a_run_and_the_table_has_their_means(
    tmp_path: Path, tasks: list[str], made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["experiment", "splits", "--out", str(out), *tasks, "--smallest", "3", "--total-steps", "60"]
    assert main([*command, "--splits", "1", "all", "--seeds", "0", "1", "--json", "--", "--ttft-views", "2"]) == 0
    assert [point.name for point in made] == ["splits=1,seed=0", "splits=1,seed=1", "splits=3,seed=0", "splits=3,seed=1"]
    config = read_point_config(made[0], out)
    assert (config.tasks_per_adapter, config.ttft.steps, config.sources, config.ttft_views) == (3, 60, ("ttft",), 2)
    assert len(read_challenges(out / "tasks" / "arc-agi_evaluation_challenges.json").tasks) == 3
    assert config.challenges == out / "tasks" / "arc-agi_evaluation_challenges.json"
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["setting"]["adapters"] for row in figures["rows"]] == ["1", "3"]
    row = figures["rows"][0]["figures"]
    assert (row["pass_n"][0], row["accuracy"][0], row["final_loss"]) == (0.5, 0.25, [1.0, 0.0])
    assert row["vote_2"] == pytest.approx([0.5, 0.5**0.5])
    table = (out / "table.txt").read_text()
    assert "50.0 ± 70.7" in table
    assert json.loads((out / "results.json").read_text())["rows"] == figures["rows"]
    assert (out / "picture.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SystemExit):
        main([*command, "--splits", "1", "--", "--no-such-option"])
    assert main([*command, "--splits", "1", "--", "--ttft-views", "0"]) == 1
    assert main(["experiment", "temperature", "--out", str(out), *tasks]) == 1
    assert "holds another run" in capsys.readouterr().err
    assert len(made) == 4, "a run was made that cannot work"


def test_the_runs_of_the_other_experiments(tmp_path: Path, tasks: list[str], made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tuned" / "adapters").mkdir(parents=True)
    commands = {
        "temperature": ["--temperatures", "0.5", "0", "--run", str(tmp_path / "tuned")],
        "steps-batch": ["--samples", "8", "--batches", "1", "4"],
        "rank-rate": ["--ranks", "1", "--rates", "1e-3", "1e-4", "--base-adapter", str(tmp_path / "tuned")],
    }
    for name, words in commands.items():
        assert main(["experiment", name, "--out", str(tmp_path / name), *tasks, *words]) == 0
        assert (tmp_path / name / "picture.png").exists()
    infer, batch, rank = made[:2], made[2:4], made[4:]
    assert [(point.command, read_point_config(point, tmp_path).temperature) for point in infer] == [("infer", 0.0), ("infer", 0.5)]
    assert all(read_point_config(point, tmp_path).adapters == tmp_path / "tuned" / "adapters" for point in infer)
    assert [(c.ttft.batch_size, c.ttft.steps) for c in (read_point_config(point, tmp_path) for point in batch)] == [(1, 8), (4, 2)]
    configs = [read_point_config(point, tmp_path) for point in rank]
    assert [(c.base_adapter is not None, c.ttft.learning_rate) for c in configs] == [
        (False, 1e-4),
        (False, 1e-3),
        (True, 1e-4),
        (True, 1e-3),
    ]
    assert [c.lora.rank for c in configs[:2]] == [1, 1]
    assert "continued" in capsys.readouterr().out
    assert main(["experiment", "temperature", "--out", str(tmp_path / "t"), *tasks, "--run", str(tmp_path)]) == 1
    assert main(["experiment", "steps-batch", "--out", str(tmp_path / "b"), *tasks, "--samples", "8", "--batches", "3"]) == 1
    errors = capsys.readouterr().err
    assert "no adapters in it" in errors
    assert "no multiple" in errors


def test_what_a_run_left_without_an_answer_counts_as_wrong(tmp_path: Path, tasks: list[str]) -> None:
    args = argparse.Namespace(challenges=Path(tasks[1]), solutions=Path(tasks[3]), out=tmp_path / "out", smallest=None)
    with open_experiment(args, "x") as (_, chosen):
        none = measure_run(tmp_path / "run", "ttft", chosen)
        answer(tmp_path / "run", tmp_path, (True,))
        (tmp_path / "run" / "predictions" / "ttft" / "task000.jsonl").unlink()
        some = measure_run(tmp_path / "run", "ttft", chosen)
    assert (none["pass_n"], none["unanswered"]) == (0.0, 1.0)
    assert (some["pass_n"], some["vote_2"], some["unanswered"]) == pytest.approx((5 / 6, 5 / 6, 1 / 6)), "one of six outputs"


def test_a_run_that_fails_is_named_and_no_table_hides_it(
    tmp_path: Path, tasks: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(frame, "run_points", lambda *_: SweepResult(failed={"splits=1,seed=0": "killed by signal 9"}))
    assert main(["experiment", "splits", "--out", str(tmp_path / "out"), *tasks, "--splits", "1"]) == 1
    assert "splits=1,seed=0: killed by signal 9" in capsys.readouterr().err
    assert not (tmp_path / "out" / "table.txt").exists()


def test_the_predictions_of_one_run_give_the_curve(tmp_path: Path, tasks: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Two of four are right: one is drawn with 1/2, one of two with 5/6."""
    split_tasks(read_challenges(tmp_path / "challenges.json"), tmp_path / "run" / "tasks")
    answer(tmp_path / "run", tmp_path, (False, True, True, False))
    assert main(["experiment", "predictions", "--out", str(tmp_path / "out"), *tasks, "--run", str(tmp_path / "run"), "--json"]) == 0
    points = json.loads(capsys.readouterr().out.splitlines()[-1])["sources"]["ttft"]["points"]
    assert [point["n"] for point in points] == [1, 2, 4]
    assert [point["pass_n"] for point in points] == pytest.approx([1 / 2, 5 / 6, 1])
    assert points[-1]["vote_2"] == points[-1]["lowest"] == 1
    assert main(["experiment", "predictions", "--out", str(tmp_path / "out"), *tasks, "--run", str(tmp_path)]) == 1


@given(st.floats(0, 0.5), st.floats(-0.05, 0.05), st.integers(2, 8))
def test_the_gain_of_a_doubling_is_the_slope_on_a_logarithmic_axis(start: float, slope: float, count: int) -> None:
    points = [CurvePoint(2**k, start + slope * k, 0.0, 0.0, 0.0) for k in range(count)]
    gain, fit = gain_by_doubling(points, "pass_n")
    assert gain == pytest.approx(100 * slope, abs=1e-6)
    assert fit == pytest.approx(1, abs=1e-3)
    assert gain_by_doubling(points, "vote_2") == (pytest.approx(0, abs=1e-9), 1.0)


def test_the_final_loss_is_that_of_the_last_fifth() -> None:
    assert final_loss([9.0] * 8 + [2.0, 4.0]) == 3.0
    assert final_loss([7.0]) == 7.0
    rows = average([{"x": 1, "seed": 0}, {"x": 1, "seed": 1}, {"x": 2, "seed": 0}], [{"a": 1.0}, {"a": 3.0}, {"a": 5.0}])
    assert [(row.setting, row.runs, row.figures["a"][0]) for row in rows] == [({"x": 1}, 2, 2.0), ({"x": 2}, 1, 5.0)]
    assert rows[1].figures["a"][1] is None


def test_a_point_is_the_command_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun: list[list[str]] = []

    def launch(arguments: list[str], _: object) -> list[str]:
        begun.append(arguments)
        return ["-S", "-c", ""]

    points = [Point("a", {"seed": "0"}, ["--views", "1"], "infer"), rank_point(4, 1e-3, 0, [])]
    with open_run(tmp_path, {"command": "x"}) as directory:
        assert not run_points(points, directory, launch, 1).failed
    assert [words[2] for words in begun] == ["infer", "run"]
    assert "a: 0s" in capsys.readouterr().out


QWEN = {"Qwen2.5-0.5B": (896, 24, 14, 2, 17e6), "Qwen2.5-1.5B": (1536, 28, 12, 2, 35e6), "Qwen2.5-7B": (3584, 28, 28, 4, 80e6)}


def test_an_adapter_has_as_many_values_as_the_diary_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At rank 128 on the layers of attention; its figures are in whole millions."""
    for name, (width, layers, heads, key_heads, _) in QWEN.items():
        values = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": key_heads}
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": "qwen2", "intermediate_size": 4 * width, **values}))
    command = ["experiment", "lora-parameters", "--out", str(tmp_path / "out"), "--ranks", "128", "1", "--json"]
    command += ["--targets", "q_proj,k_proj,v_proj,o_proj", "--model"]
    assert main([*command, *(str(tmp_path / name) for name in QWEN)]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["ranks"] == [1, 128]
    for name, (*_, expected) in QWEN.items():
        one, many = figures["values"][name]
        assert many == 128 * one
        assert many == pytest.approx(expected, rel=0.02)
    assert main([*command, str(tmp_path)]) == 1
    assert "no config.json" in capsys.readouterr().err


def test_the_curves_of_several_runs_have_their_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, curves in {"a": [[4.0, 2.0]], "seed=0": [[3.0] * 40, [1.0] * 40, [2.0] * 20]}.items():
        for number, curve in enumerate(curves):
            path = tmp_path / name / "losses" / f"t{number}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps({"loss": loss}) + "\n" for loss in curve))
    command = ["experiment", "losses", "--out", str(tmp_path / "out"), "--json", "--run", f"short={tmp_path / 'a'}"]
    assert main([*command, "--run", str(tmp_path / "seed=0")]) == 0
    runs = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    assert runs["short"] == {"adapters": 1, "steps": 2, "first_loss": 4.0, "final_loss": 2.0}
    assert runs["seed=0"] == {"adapters": 3, "steps": 40, "first_loss": 2.0, "final_loss": 2.0}
    assert median_curve({"x": [3.0] * 4, "y": [1.0] * 2}) == [(1, 2.0), (2, 2.0), (3, 3.0), (4, 3.0)]
    assert main([*command, "--run", str(tmp_path / "a" / "losses")]) == 1
    assert main([*command, "--run", f"short={tmp_path}"]) == 1
    errors = capsys.readouterr().err
    assert "no losses in it" in errors
    assert "given twice" in errors


@given(st.floats(1e-3, 0.1), st.floats(1e-6, 1e-3), st.floats(1e-6, 1e-3))
def test_the_fit_finds_the_parts_of_a_time(fixed: float, by_input: float, by_output: float) -> None:
    points = [(64, 16), (64, 32), (128, 16), (256, 64)]
    fit = linear_fit(points, [fixed + by_input * i + by_output * o for i, o in points])
    assert (fit["fixed"], fit["input"], fit["output"]) == pytest.approx((fixed, by_input, by_output), rel=1e-6)
    assert fit["r2"] == pytest.approx(1)


def test_every_point_of_speed_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    measured: list[tuple[str, int, int]] = []

    def measure(kind: str, inputs: int, outputs: int) -> float:
        measured.append((kind, inputs, outputs))
        return inputs / 1000 + outputs / (1000 if kind == "training" else 100)

    monkeypatch.setattr(speed, "_make_measure", lambda _: measure)
    command = ["experiment", "speed", "--out", str(tmp_path), "--outputs", "4", "16", "--json", "--inputs", "8"]
    assert main([*command, "32"]) == 0
    assert main([*command, "32", "64"]) == 0
    assert len(measured) == len(set(measured)) == 12
    fits = json.loads(capsys.readouterr().out.splitlines()[-1])["fits"]
    assert fits["inference"]["output"] == pytest.approx(10 * fits["inference"]["input"])
    assert main([*command, "--slots", "1"]) == 1


def test_a_step_and_an_answer_of_a_real_model_take_time(tiny_model: Path, tmp_path: Path) -> None:
    command = ["experiment", "speed", "--out", str(tmp_path / "out"), "--model", str(tiny_model), "--inputs", "8", "24", "--outputs", "4"]
    assert main([*command, "--steps", "2", "--slots", "2", "--lora-rank", "2"]) == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert [(row["input"], row["output"]) for row in rows] == [(8, 4), (24, 4)]
    assert all(row["training"] > 0 and row["inference"] > 0 for row in rows)

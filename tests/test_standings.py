"""How tasks stand while a run goes on, and the chances learnt from what a run has left."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from arc_submit.arc.datasets import read_challenges, read_solutions, split_tasks
from arc_submit.arc.files import append_lines, write_json
from arc_submit.arc.prediction import Prediction, append_predictions, read_predictions, replace_predictions
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.cli import main
from arc_submit.ensemble.combination import EnsembleConfig
from arc_submit.errors import ConfigError, DataError
from arc_submit.run.presets import make_config
from arc_submit.run.resolve import resolve_run
from arc_submit.run.simulate import like_config, sequence_lengths
from arc_submit.run.standings import Standings
from arc_submit.scheduling.chances import UNKNOWN_EASE, SolveChances, read_chances
from arc_submit.scheduling.costs import TaskSize
from arc_submit.scheduling.scheduler import Level
from arc_submit.storage.run_dir import RunPaths

TASKS = ("task000", "task001")


@pytest.fixture
def run(files: tuple[Path, Path], tmp_path: Path) -> RunPaths:
    """Two tasks of a run in progress, without answers."""
    paths = RunPaths(tmp_path / "run")
    challenges = read_challenges(files[0])
    split_tasks(challenges.subset(list(TASKS)), paths.tasks)
    write_json(paths.config, {"sources": ["search", "ttft"]})
    return paths


def sizes(run: RunPaths) -> dict[str, TaskSize]:
    return {task_id: TaskSize(0.4, 0.4, len(task.tests)) for task_id, task in run.read_tasks().items()}


def answer(run: RunPaths, source: str, task_id: str, grids: list[np.ndarray], score: float, views: int = 1) -> None:
    found = [Prediction(task_id, 0, grid, source, f"v{view}", score, "m", 0.1) for view in range(views) for grid in grids]
    append_predictions(run.predictions(source, task_id), found)


def test_a_sure_answer_settles_a_task_once_it_is_written(run: RunPaths, files: tuple[Path, Path]) -> None:
    right = read_solutions(files[1])[0].outputs["task000"][0]
    standings = Standings(run, sizes(run), EnsembleConfig(order=("search", "ttft")), run.read_tasks())
    before = standings(TASKS)
    assert before["task000"].settled[0] == 0.0
    assert before["task000"].ease[0] == UNKNOWN_EASE
    answer(run, "search", "task000", [right], 3.0)
    after = standings(TASKS)
    assert after["task000"].settled[0] > 0.9
    assert after["task000"].ease[0] > 0.9
    assert after["task001"] == before["task001"]
    answer(run, "search", "task001", [right], -4.0)
    assert standings(TASKS)["task001"].ease[0] < 0.2


def test_a_model_that_agrees_with_a_sure_search_raises_its_chances(run: RunPaths, files: tuple[Path, Path]) -> None:
    right = read_solutions(files[1])[0].outputs["task000"][0]
    other = np.asarray((right + 1) % 10, dtype=np.int8)
    standings = Standings(run, sizes(run), EnsembleConfig(order=("search", "ttft")), run.read_tasks())
    shift = standings.shift("ttft", SolveChances(constant=-3.0))
    reached = {"task000": Level(8, 4)}
    assert shift({}) == shift(reached) == 0.0
    answer(run, "search", "task000", [right], 3.0)
    answer(run, "ttft", "task000", [other], -1.0)
    assert shift(reached) < 0
    answer(run, "ttft", "task000", [right], -1.0, views=3)
    assert shift(reached) > 0


def test_chances_are_learnt_from_the_levels_of_a_run(
    run: RunPaths, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first four views are wrong, the next four right: the lower level counts as unsolved, the higher as solved."""
    outputs = read_solutions(files[1])[0].outputs
    for task_id in TASKS:
        lines = []
        for test, right in enumerate(outputs[task_id]):
            wrong = [np.asarray((right + k) % 10, dtype=np.int8) for k in (1, 2, 3, 4)]
            found = [
                Prediction(task_id, test, grid, "ttft", f"v{view}", -1.0, "m", 0.1) for view, grid in enumerate([*wrong, *[right] * 4])
            ]
            append_predictions(run.predictions("ttft", task_id), found)
        for level in ([25, 4], [50, 8]):
            lines.append(json.dumps({"time": 1.0, "event": "task_done", "source": "ttft", "task": task_id, "level": level}) + "\n")
        append_lines(run.events_file, "".join(lines))
    out = tmp_path / "chances.json"
    assert main(["chances", str(run.root), "--solutions", str(files[1]), "--out", str(out)]) == 0
    count = sum(len(outputs[task_id]) for task_id in TASKS)
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.split()[:1] == ["to"]]
    assert [(row[2], row[3], row[4], row[5]) for row in rows] == [("25", "4", str(count), "0"), ("50", "8", str(count), str(count))]
    chances = read_chances(out)
    assert chances.observations == 2 * count
    assert chances.at(50, 8, 300) > chances.at(25, 4, 300)


def test_chances_are_learnt_from_a_run_of_a_model_that_is_not_here(
    run: RunPaths, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Longer prompts than the pocket model takes, samples as long as the prompts, and a prompt file that lies elsewhere."""
    lengths = {"max_seq_len": 8192, "ttft_max_seq_len": None, "ttft_views": None, "views": 16, "prompt": "mine.jinja"}
    write_json(run.config, {"sources": ["search", "ttft"], **lengths})
    config = like_config(run.root)
    assert sequence_lengths(config) == (8192, 8192)
    assert (config.views, config.ttft_views) == (16, None)
    done = {"time": 1, "event": "task_done", "source": "ttft", "task": "task000", "level": [9, 4]}
    append_lines(run.events_file, json.dumps(done) + "\n")
    answer(run, "ttft", "task000", [read_solutions(files[1])[0].outputs["task000"][0]], -1.0)
    assert main(["chances", str(run.root), "--solutions", str(files[1]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["observations"] > 0


def test_runs_of_several_models_are_not_fitted_together(
    run: RunPaths, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit(named: bool, **changes: object) -> int:
        values = {"model": "small", "model_files": {"model.safetensors": "10 aa", "config.json": "5 bb"}}
        for folder, one in ((run.root, values), (tmp_path / "other", values | changes)):
            there = {f"ttft.{name}": value for name, value in one.items()} if named else one
            write_json(folder / "config.json", {"sources": ["ttft"], **there})
        return main(["chances", str(run.root), str(tmp_path / "other"), "--solutions", str(files[1])])

    answer(run, "ttft", "task000", [read_solutions(files[1])[0].outputs["task000"][0]], -1.0)
    event = {"time": 1, "event": "task_done", "source": "ttft", "task": "task000", "level": [8, 1]}
    append_lines(run.events_file, json.dumps(event) + "\n")
    shutil.copytree(run.root, tmp_path / "other")
    assert fit(False) == 0
    assert fit(False, model_files={"model.safetensors": "10 aa", "config.json": "6 cc"}) == 0
    capsys.readouterr()
    for named in (False, True):
        assert fit(named, model="large") == 1
        assert "other: its model is large, not small as in" in capsys.readouterr().err
    assert fit(False, model_files={"model.safetensors": "10 zz"}) == 1
    assert "its model is small with other weights as in" in capsys.readouterr().err


def test_a_search_of_answers_is_learnt_from_at_its_last_level(
    run: RunPaths, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs of earlier versions note levels at which nothing more was searched: their first one counts."""
    write_json(run.config, {"sources": ["ttft"], "ttft_candidates": "dfs", "ttft_threshold": 0.02})
    events = ({"time": 1, "event": "task_done", "source": "ttft", "task": "task000", "level": level} for level in ([8, 4], [32, 16]))
    append_lines(run.events_file, "".join(json.dumps(event) + "\n" for event in events))
    outputs = read_solutions(files[1])[0].outputs["task000"]
    answer(run, "ttft", "task000", [outputs[0]], -1.0)
    path = run.predictions("ttft", "task000")
    for searched, expected in ((0, 0), ["8", "4"]), ((16, 32), ["32", "16"]):
        named = [replace(one, searched=searched) for one in read_predictions(path)[0]]
        for test in {one.test for one in named}:
            replace_predictions(path, test, [one for one in named if one.test == test])
        assert main(["chances", str(run.root), "--solutions", str(files[1]), "--json"]) == 0
        printed = capsys.readouterr().out
        assert json.loads(printed.splitlines()[-1])["observations"] == len(outputs)
        assert [line.split()[2:4] for line in printed.splitlines() if line.split()[:1] == ["to"]][:1] == [expected]


def test_no_fit_to_what_has_no_levels_and_to_no_broken_line(
    run: RunPaths, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [{"task": "task000", "level": level} for level in ([0, 0], [1], ["a", None], [-5, -3], [1, 2, 3], 7)]
    broken += [{"level": [1, 2]}, {"task": ["task000"], "level": [1, 2]}]

    def note(source: str, lines: list[dict[str, object]]) -> None:
        events = ({"time": 1, "event": "task_done", "source": source, **line} for line in lines)
        append_lines(run.events_file, "".join(json.dumps(event) + "\n" for event in events))

    note("search", [{"task": "task000", "level": [0, 0]}])
    assert main(["chances", str(run.root), "--solutions", str(files[1]), "--source", "search"]) == 1
    assert "source search (search) has no levels of steps and views" in capsys.readouterr().err
    note("ttft", broken)
    assert main(["chances", str(run.root), "--solutions", str(files[1])]) == 1
    assert "finished no task" in capsys.readouterr().err
    note("ttft", [{"task": task_id, "level": [8, 2]} for task_id in TASKS])
    partly = run.root / "solutions.json"
    known = json.loads(files[1].read_text())
    write_json(partly, {"task000": known["task000"]})
    assert main(["chances", str(run.root), "--solutions", str(partly), "--json"]) == 0
    printed = capsys.readouterr().out
    assert "1 of 2 finished tasks are left out, first task001" in printed
    assert json.loads(printed.splitlines()[-1])["observations"] == len(known["task000"])


def test_a_run_without_levels_teaches_nothing(run: RunPaths, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chances", str(run.root), "--solutions", str(files[1])]) == 1
    assert "finished no task" in capsys.readouterr().err


def test_the_presets_own_chances_are_there(tmp_path: Path) -> None:
    config = make_config("cpu-pocket", allocation="gain", out=tmp_path)
    assert config.chances is not None
    assert read_chances(config.chances).observations > 0


def test_gain_without_chances_is_refused_before_any_work(files: tuple[Path, Path], tmp_path: Path) -> None:
    more = {"challenges": files[0], "out": tmp_path / "run", "sources": ("ttft",), "allocation": "gain"}
    with pytest.raises(ConfigError, match=r"--allocation alone: .* give --chances FILE"):
        resolve_run(
            make_config("t4x2-qwen2.5-0.5b", model=pocket_folder(), devices=("cpu",), max_seq_len=2048, **more | {"allocation": "alone"})
        )
    with pytest.raises(ConfigError, match="give --chances FILE"):
        resolve_run(make_config("t4x2-qwen2.5-0.5b", model=pocket_folder(), devices=("cpu",), max_seq_len=2048, **more))
    with pytest.raises(ConfigError, match=r"--chances my\.json: .* without --allocation gain"):
        make_config(**more | {"allocation": "equal"}, chances=Path("my.json"))
    with pytest.raises(ConfigError, match="--ttft-engine transformers"):
        resolve_run(make_config(ttft_engine="vllm", **more))
    with pytest.raises(DataError, match=r"nothing\.json"):
        resolve_run(make_config(chances=tmp_path / "nothing.json", **more))
    assert not (tmp_path / "run").exists()

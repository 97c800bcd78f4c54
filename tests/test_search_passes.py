"""The passes of a search: equal answers in one worker or in several, early answers in the file, and when a further pass follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from arc_submit.arc.grid import frozen
from arc_submit.arc.prediction import read_predictions
from arc_submit.arc.task import Pair, Task
from arc_submit.search import search_worker, task_search
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.programs import Effort
from arc_submit.search.search_worker import Searches, search_into_file
from arc_submit.search.settings import PASSES
from arc_submit.search.task_search import PassInput, TaskSearch

SMALL = Effort(work=400_000, size_work=100_000, pieces=2_000)
GRIDS = [frozen(np.random.default_rng(k).integers(0, 4, (3, 4))) for k in range(4, 8)]


def make_task(name: str) -> Task:
    return Task(name, tuple(Pair(g, frozen(g[::-1])) for g in GRIDS[:3]), (GRIDS[3],))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The passes that are done, in place of those of the search: pass k of a task finds a grid of the colour k."""
    calls: list[tuple[str, int]] = []

    def make(number: int) -> Callable[[PassInput], Iterator[list[SolverAnswer]]]:
        def one(given: PassInput) -> Iterator[list[SolverAnswer]]:
            calls.append((given.task.id, number))
            yield [SolverAnswer(0, frozen(np.full((3, 4), number)), "programs", f"pass {number}", 1.0, 30.0 - number)]

        return one

    monkeypatch.setattr(task_search, "_PASSES", tuple(make(k) for k in range(PASSES)))
    monkeypatch.setitem(task_search.EFFORTS, "quick", replace(SMALL, enough=None))
    return calls


def answers(path: Path) -> list[tuple[object, ...]]:
    return [(p.test, p.grid.tolist(), p.logprob, p.model) for p in read_predictions(path)[0] if p.grid is not None]


def test_the_source_has_as_many_passes_as_the_search() -> None:
    assert len(task_search._PASSES) == PASSES


def test_a_pass_in_another_worker_gives_the_same_answers(tmp_path: Path, counted: list[tuple[str, int]]) -> None:
    one, each = Searches("quick"), []
    following: int | None = 0
    while following is not None:
        following = search_into_file(make_task("a"), tmp_path / "one", following, one)
        each.append(answers(tmp_path / "one"))
    assert [len(found) for found in each] == [1, 2, 3, 4], "each pass writes its answers as it ends"
    assert [number for _, number in counted] == [0, 1, 2, 3], "no pass is done twice by a worker that did the one before"
    counted.clear()
    for number in range(PASSES):
        search_into_file(make_task("a"), tmp_path / "others", number, Searches("quick"))
        assert answers(tmp_path / "others") == each[number]
    assert [number for _, number in counted] == [0, 0, 1, 0, 1, 2, 0, 1, 2, 3]


def test_a_worker_forgets_the_oldest_searches(tmp_path: Path, counted: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_worker, "MOST_HELD", 2)
    searches = Searches("quick")
    for name in "abc":
        search_into_file(make_task(name), tmp_path / name, 0, searches)
    counted.clear()
    for name in "ba":
        search_into_file(make_task(name), tmp_path / name, 1, searches)
    assert counted == [("b", 1), ("a", 0), ("a", 1)]


def test_a_search_ends_in_the_pass_that_is_sure() -> None:
    sure, unsure = (TaskSearch(make_task("a"), replace(SMALL, enough=enough), ("pieces", "programs")) for enough in (0.5, None))
    list(sure.next_pass())
    assert (sure.finished, sure.passes) == (True, 1)
    for number in range(PASSES):
        assert (unsure.finished, unsure.passes) == (False, number)
        list(unsure.next_pass())
    assert unsure.finished


@pytest.mark.parametrize(("probability", "passes"), [(0.89, 4), (0.91, 3)])
def test_the_last_pass_is_for_less_probable_answers(
    probability: float, passes: int, counted: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_search, "certainty", lambda rows: probability)
    list(task_search.ranked_batches(make_task("a"), replace(SMALL, enough=0.95)))
    assert len(counted) == passes


def test_the_first_pass_does_a_bounded_part_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []

    def solve(task: Task, effort: Effort) -> Iterator[list[SolverAnswer]]:
        given.append(effort.work)
        yield []

    monkeypatch.setattr(task_search.programs, "solve", solve)
    search = TaskSearch(make_task("a"), task_search.EFFORTS["normal"], ("programs",))
    while not search.finished:
        list(search.next_pass())
    assert given == [task_search.FIRST_WORK, task_search.SECOND_WORK, task_search.EFFORTS["normal"].work]
    given.clear()
    list(task_search.ranked_batches(make_task("a"), SMALL, ("programs",)))
    assert given == [SMALL.work], "no work is done twice where all of it fits into the first pass"

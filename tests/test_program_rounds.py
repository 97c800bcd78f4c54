"""Hindsight: what becomes a relabelled task, in which order, and rounds that go on after a kill as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arc_submit.arc.grid import Grid, frozen, same_grid
from arc_submit.arc.task import Pair, Task
from arc_submit.arc.views import View
from arc_submit.errors import ConfigError, DataError
from arc_submit.programs.interface import ProgramError, Refusal, WrittenProgram
from arc_submit.programs.relabel import choose_relabelled, relabel, run_programs, score_outputs, view_of
from arc_submit.programs.rounds import STATE, Parts, RoundSettings, run_rounds


class Cells:
    """A toy language: the word "0:3" gives cell 0 the colour 3, in reading order; a word that is repeated has no effect."""

    name = "cells"

    def normal_form(self, text: str) -> str:
        return " ".join(dict.fromkeys(text.split()))

    def size(self, text: str) -> int:
        return len(text.split())

    def run(self, text: str, inputs: Sequence[Grid]) -> list[Grid]:
        outputs = []
        for grid in inputs:
            drawn = grid.copy()
            for word in text.split():
                if ":" not in word:
                    raise ProgramError(Refusal.SYNTAX, f"{word} is no word")
                place, colour = map(int, word.split(":"))
                drawn.flat[place % drawn.size] = colour
            outputs.append(frozen(drawn))
        return outputs


def grid(rows: list[list[int]]) -> Grid:
    return frozen(np.array(rows))


TASK = Task("toy", (Pair(grid([[0, 0], [0, 0]]), grid([[1, 2], [3, 4]])), Pair(grid([[5, 0]]), grid([[1, 2]]))), (grid([[0, 0, 7]]),))
KEYS = ["", "r90.f.c1023456789.p10", "r180.c0123456798.p01", "r270.c9876543210.p10"]
words = st.tuples(st.integers(0, 3), st.integers(0, 2)).map(lambda one: f"{one[0]}:{one[1]}")
texts = st.lists(words | st.just("?") | words | words, max_size=4).map(" ".join)
written = st.lists(st.builds(WrittenProgram, texts, st.floats(-9, 0), st.sampled_from(KEYS)), min_size=3, max_size=30)


@settings(max_examples=60, deadline=None)
@example([WrittenProgram("0:1", -2.0), WrittenProgram("1:0 0:1", -1.0), WrittenProgram("0:1", -3.0)], [])
@given(written, written)
def test_relabelled_tasks_are_new_behaviours_each_with_its_shortest_program(
    programs: list[WrittenProgram], earlier: list[WrittenProgram]
) -> None:
    language = Cells()
    ran = run_programs(language, TASK, programs)
    assert [one.program.logprob for one in ran] == [one.logprob for one in programs]
    seen = {one.key for one in run_programs(language, TASK, earlier) if one.complete is not None}
    relabelled = relabel(TASK, ran, seen)
    valid = [one for one in ran if one.complete is not None]
    assert all("?" in one.program.text and one.refusal.startswith("syntax") for one in ran if one.complete is None)
    assert {one.ran.key for one in relabelled} == {one.key for one in valid} - seen
    assert len({one.ran.key for one in relabelled}) == len(relabelled)
    for item in relabelled:
        assert item.ran.size == min(one.size for one in valid if one.key == item.ran.key)
        # The program solves the new task, in the frame in which it was written.
        drawn = language.run(item.ran.program.text, [pair.input for pair in item.task.train])
        assert all(map(same_grid, drawn, [pair.output for pair in item.task.train]))
        view = view_of(item.ran.program, TASK)
        assert [view.undo(test).tolist() for test in item.task.tests] == [test.tolist() for test in TASK.tests]
    scores = [(one.ran.whole, one.ran.cells) for one in relabelled]
    assert scores == sorted(scores)


@settings(max_examples=40, deadline=None)
@example([WrittenProgram(f"0:{colour} 1:2", -1.0) for colour in range(6)], 2, 1)
@given(written, st.integers(0, 5), st.integers(0, 5))
def test_the_best_and_the_worst_are_chosen_from_worst_to_best(programs: list[WrittenProgram], best: int, worst: int) -> None:
    relabelled = relabel(TASK, run_programs(Cells(), TASK, programs), set())
    chosen = choose_relabelled(relabelled[::-1], best, worst)
    orders = [one.ran.order for one in chosen]
    everything = sorted(one.ran.order for one in relabelled)
    assert orders == sorted(orders)
    assert len(chosen) == min(len(relabelled), best + worst)
    if len(relabelled) > best + worst:
        assert orders == everything[:worst] + everything[len(everything) - best :]


def test_whole_grids_count_before_cells_and_outputs_are_compared_without_their_view() -> None:
    view = View(1, True, (1, 0, 2, 3, 4, 5, 6, 7, 8, 9), (1, 0))
    shown = view.apply_task(TASK)
    # Cells of the first pair as it is shown: right for the second pair of the task, and the same behaviour in both frames.
    program = WrittenProgram(" ".join(f"{i}:{c}" for i, c in enumerate(shown.train[0].output.flat)), 0.0, view.key)
    ran = run_programs(Cells(), TASK, [program])[0]
    assert ran.whole == 1
    assert ran.outputs is not None
    assert same_grid(ran.outputs[1], TASK.train[1].output)
    assert score_outputs(TASK, [grid([[1, 2, 3]]), grid([[1, 0]])]) == (0, 1 / 6)
    many_cells = run_programs(Cells(), TASK, [WrittenProgram("0:1 1:0 2:3 3:4", 0.0)])[0]
    assert many_cells.cells > ran.cells
    assert ran.order > many_cells.order


class Fussy(Cells):
    """The toy language on a computer that refuses some grids, by their number of columns; it counts its calls."""

    def __init__(self, refused: set[int]):
        self.refused, self.calls = refused, 0

    def run(self, text: str, inputs: Sequence[Grid]) -> list[Grid]:
        self.calls += 1
        for one in inputs:
            if one.shape[1] in self.refused:
                raise ProgramError(Refusal.VALUE, f"{one.shape[1]} columns")
        return super().run(text, inputs)


@pytest.mark.parametrize(
    ("refused", "whole", "missing", "calls"), [((), 1, [], 1), ((2,), 0, [0, 1], 4), ((3,), 1, [2], 4), ((2, 3), 0, [0, 1, 2], 4)]
)
def test_a_program_that_fails_on_an_input_keeps_the_other_outputs(
    refused: tuple[int, ...], whole: int, missing: list[int], calls: int
) -> None:
    view = View(2, False, tuple(range(10)), (1, 0))
    language = Fussy(set(refused))
    ran = run_programs(language, TASK, [WrittenProgram("0:2 1:1", 0.0, view.key)] * 2)[1]
    assert [i for i, one in enumerate(ran.outputs) if one is None] == missing
    assert (ran.whole, language.calls, bool(ran.refusal), ran.complete is None) == (whole, calls, bool(missing), bool(missing))
    if ran.outputs[1] is not None:
        assert same_grid(ran.outputs[1], TASK.train[1].output)
    assert len(relabel(TASK, [ran], set())) == (not missing)
    assert "value: " in ran.refusal or not missing


def test_a_text_that_is_no_program_is_run_once() -> None:
    class Counted(Fussy):
        def run(self, text: str, inputs: Sequence[Grid]) -> list[Grid]:
            self.calls += 1
            return Cells.run(self, text, inputs)

    language = Counted(set())
    (ran,) = run_programs(language, TASK, [WrittenProgram("?", 0.0)])
    assert (ran.outputs, language.calls) == ((None, None, None), 1)


class Guesser:
    """Writes words with a probability for each cell and colour; learning adds the words of its relabelled tasks."""

    def __init__(self) -> None:
        self.counts = np.ones((4, 10))
        self.relabelled = 0

    def write(self, task: Task, count: int, temperature: float, seed: int) -> list[WrittenProgram]:
        rng = np.random.default_rng([seed, round(100 * temperature)])
        shares = self.counts / self.counts.sum(-1, keepdims=True)
        return [WrittenProgram(" ".join(f"{i}:{rng.choice(10, p=shares[i])}" for i in range(4)), -1.0) for _ in range(count)]

    def __call__(self, relabelled: Sequence[Any], seed: int) -> float:
        for weight, item in enumerate(relabelled, 1):
            for word in item.ran.program.text.split():
                place, colour = map(int, word.split(":"))
                self.counts[place, colour] += weight * item.ran.cells
        self.relabelled += len(relabelled)
        return float(self.counts.std())

    def save(self, folder: Path) -> None:
        (folder / "counts.json").write_text(json.dumps([self.counts.tolist(), self.relabelled]))

    def load(self, folder: Path) -> None:
        counts, self.relabelled = json.loads((folder / "counts.json").read_text())
        self.counts = np.array(counts)


ONE = Task("one", (Pair(grid([[0, 0], [0, 0]]), grid([[1, 2], [3, 4]])),), (grid([[0, 0], [0, 0]]),))
SETTINGS = RoundSettings(samples=24, cold_samples=4, rounds=30, seed=3)


def rounds(folder: Path, guesser: Guesser, settings: RoundSettings = SETTINGS, **more: Any) -> Any:
    runs = partial(run_programs, Cells(), ONE)
    return run_rounds(ONE, Parts(runs, guesser, guesser), settings, folder, more.pop("seconds_left", lambda: 1e9), **more)


def without_seconds(outcome: Any) -> list[dict[str, Any]]:
    return [{**asdict(one), "seconds": 0} for one in outcome.records]


def test_rounds_solve_a_task_by_learning_and_a_kill_in_a_round_changes_nothing(tmp_path: Path) -> None:
    whole = rounds(tmp_path / "whole", Guesser())
    assert whole.solved
    assert len(whole.records) > 3
    assert whole.best.whole == 1
    assert [one.round for one in whole.records] == list(range(len(whole.records)))
    assert whole.records[-1].loss is None  # nothing is left to learn

    class Killed(Guesser):
        def __call__(self, relabelled: Sequence[Any], seed: int) -> float:
            if self.relabelled > 30:
                raise KeyboardInterrupt
            return super().__call__(relabelled, seed)

    with pytest.raises(KeyboardInterrupt):
        rounds(tmp_path / "killed", Killed())
    state = json.loads((tmp_path / "killed" / STATE).read_text())
    (tmp_path / "killed" / f"learnt-{len(state['records']) + 1}").mkdir()  # as a kill while it was being written leaves it
    again = rounds(tmp_path / "killed", Guesser())
    assert without_seconds(again) == without_seconds(whole)
    assert 0 < len(state["records"]) < len(whole.records)
    assert [one.name for one in (tmp_path / "killed").glob("learnt-*")] == [f"learnt-{len(whole.records) - 1}"]


def test_rounds_without_learning_learn_nothing_and_end_in_time(tmp_path: Path) -> None:
    guesser = Guesser()
    seen: list[int] = []
    outcome = rounds(tmp_path / "a", guesser, replace(SETTINGS, learn=False, rounds=3), watch=lambda record, ran: seen.append(len(ran)))
    assert not outcome.solved
    assert guesser.relabelled == 0
    assert seen == [24, 24, 24]
    left = iter([10.0, 10.0, 0.0])
    outcome = rounds(tmp_path / "b", Guesser(), seconds_left=lambda: next(left))
    assert len(outcome.records) == 2
    # More rounds of the same are added to those that there are.
    assert len(rounds(tmp_path / "a", guesser, replace(SETTINGS, learn=False, rounds=4)).records) == 4


def test_a_folder_of_other_settings_or_of_something_else_is_refused(tmp_path: Path) -> None:
    rounds(tmp_path, Guesser(), replace(SETTINGS, rounds=1))
    with pytest.raises(ConfigError, match="another samples, seed"):
        rounds(tmp_path, Guesser(), replace(SETTINGS, samples=5, seed=4))
    (tmp_path / STATE).write_text("[]")
    with pytest.raises(DataError, match="not the state of rounds"):
        rounds(tmp_path, Guesser())
    with pytest.raises(ConfigError, match="--cold-samples 9: at most the 8"):
        rounds(tmp_path, Guesser(), replace(SETTINGS, samples=8, cold_samples=9))

"""Tasks that programs make: sound, worth learning, the same for the same seed, read by training like any others."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from arc_submit.arc.grid import MAX_SIDE, Grid, frozen, same_grid
from arc_submit.arc.task import Pair
from arc_submit.arc.training_sets import TrainingTask, read_training_tasks
from arc_submit.errors import DataError
from arc_submit.search.operations import OPERATIONS
from arc_submit.training.program_tasks import ProgramTask, main, make_tasks, program_tasks


def grids(count: int, side: int, seed: int = 0) -> list[Grid]:
    rng = np.random.default_rng(seed)
    return [frozen(np.where(rng.random((side, side)) < 0.4, rng.integers(1, 6, (side, side)), 0).astype(np.int8)) for _ in range(count)]


def known_tasks(count: int = 6) -> list[TrainingTask]:
    made = []
    for number in range(count):
        sides = grids(5, 4 + number, number)
        made.append(TrainingTask(f"t{number}", tuple(Pair(grid, frozen(grid[::-1])) for grid in sides), 1))
    return made


def outputs(made: ProgramTask) -> bytes:
    return b"|".join(bytes(pair.output.shape) + pair.output.tobytes() for pair in made.pairs)


def test_every_task_is_sound_and_asks_for_something() -> None:
    made = list(islice(program_tasks(known_tasks(), seed=1), 120))
    names = {operation.name for operation in OPERATIONS}
    for task in made:
        assert len(task.pairs) >= 2
        assert all(1 <= side <= MAX_SIDE for pair in task.pairs for side in pair.output.shape)
        assert all(pair.output.dtype == np.int8 and 0 <= pair.output.min() <= pair.output.max() <= 9 for pair in task.pairs)
        assert len({bytes(pair.output.shape) + pair.output.tobytes() for pair in task.pairs}) > 1, task.program
        assert sum(same_grid(pair.input, pair.output) for pair in task.pairs) * 3 <= len(task.pairs), task.program
        assert all(pair.output.any() for pair in task.pairs), task.program
        steps = [step for step in task.program.replace(" over ", " | ").split(" | ") if step != "input"]
        assert steps, task.program
        assert set(steps) <= names, task.program
    assert len({task.program for task in made}) > 60
    assert any(" over " in task.program for task in made)
    assert any(task.program.count("|") >= 2 for task in made)


def test_a_program_says_what_was_done() -> None:
    """The same operation on every grid of the task, laid as it says."""
    done = {"mirror_left_right": (1, -1), "mirror_up_down": (-1, 1), "half_turn": (-1, -1)}
    laid = 0
    for seed in range(25):
        for task in make_tasks(grids(3, 5, seed), np.random.default_rng(seed), 30):
            for name, (rows, columns) in done.items():
                for pair in task.pairs:
                    turned = pair.input[::rows, ::columns]
                    expected = {
                        f"input | {name}": turned,
                        f"input | {name} over input": np.where(turned > 0, turned, pair.input),
                        f"input over input | {name}": np.where(pair.input > 0, pair.input, turned),
                    }
                    if task.program in expected:
                        assert same_grid(pair.output, frozen(expected[task.program])), task.program
                        laid += " over " in task.program
    assert laid


def test_tasks_of_the_same_grids_differ() -> None:
    made = make_tasks(grids(4, 6), np.random.default_rng(0), 25)
    assert len(made) == 25
    assert len({outputs(task) for task in made}) == 25


def test_they_are_a_function_of_the_seed() -> None:
    def drawn(seed: int) -> list[tuple[str, bytes]]:
        return [(task.program, outputs(task)) for task in islice(program_tasks(known_tasks(), seed), 40)]

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_data_without_grids_that_are_small_enough_is_named() -> None:
    with pytest.raises(DataError, match="at most 9 cells in these 6 tasks; raise --max-cells"):
        next(program_tasks(known_tasks(), seed=0, most_cells=9))


@pytest.mark.parametrize("name", ["made.jsonl", "made.jsonl.gz"])
def test_the_file_is_read_as_training_data_and_leaves_measured_tasks_out(tmp_path: Path, name: str) -> None:
    def json_of(task: TrainingTask) -> dict[str, list[dict[str, list[list[int]]]]]:
        pairs = [{"input": pair.input.tolist(), "output": pair.output.tolist()} for pair in task.pairs]
        return {"train": pairs[:-1], "test": pairs[-1:]}

    tasks = known_tasks()
    (tmp_path / "known.json").write_text(json.dumps({task.id: json_of(task) for task in tasks}))
    (tmp_path / "measured.json").write_text(json.dumps({tasks[0].id: json_of(tasks[0])}))
    out = tmp_path / name
    main(["--out", str(out), "--tasks", "50", "--data", str(tmp_path / "known.json"), "--measured", str(tmp_path / "measured.json")])
    problems: list[str] = []
    read = list(read_training_tasks(str(out), problems))
    assert not problems
    assert len(read) == len({task.id for task in read}) == 50
    secret = {bytes(g.shape) + g.tobytes() for pair in tasks[0].pairs for g in (pair.input, pair.output)}
    used = {bytes(pair.input.shape) + pair.input.tobytes() for task in read for pair in task.pairs}
    assert not secret & used
    text = gzip.decompress(out.read_bytes()) if name.endswith(".gz") else out.read_bytes()
    assert all(json.loads(line)["program"].startswith("input") for line in text.splitlines())
    assert not list(tmp_path.glob(".made*"))

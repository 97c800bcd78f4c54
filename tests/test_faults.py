"""A short fault campaign against the real engine; tests/faults.py has the long one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from faults import CORRUPT, LONG, Harm, Round, make_material


@pytest.fixture(scope="module")
def material(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    make_material(folder, tiny_model, 6)
    return folder


def only_the_broken_ones_are_named(round: Round) -> None:
    assert sorted(round.reasons) == [CORRUPT, LONG]
    assert "adapter_model.safetensors cannot be read" in round.reasons[CORRUPT]
    assert "no prompt smaller than" in round.reasons[LONG]


@pytest.mark.campaign
def test_killed_stopped_and_broken_engines_cost_nothing_that_was_finished(tiny_model: Path, material: Path, tmp_path: Path) -> None:
    """The run is killed outright, and then again its worker is stopped, killed and broken, and it ends whole all the same."""
    out = tmp_path / "run"
    first = Harm(material, tiny_model, out, max_failures=5, engine="transformers", pace=0.08)
    pid = first.wait(1)
    assert pid is not None, "the run ended before it could be harmed"
    first.send(pid, signal.SIGKILL)
    assert first.wait(1) is not None
    first.kill_parent()
    assert first.round.sound, first.round
    second = Harm(material, tiny_model, out, max_failures=5, pace=0.04, raise_at=[4])
    second.seen = first.seen
    pid = second.wait(1)
    assert pid is not None, "the run ended before it could be harmed"
    second.send(pid, signal.SIGSTOP)
    round = second.finish()
    assert round.sound, round
    assert len(list((material / f"marks-{out.parent.name}").iterdir())) == 1, "no step raised"
    assert len(round.recoveries) >= 2
    only_the_broken_ones_are_named(round)


@pytest.mark.campaign
@pytest.mark.parametrize("fault", [{"never_start": "vllm", "start": 6.0}, {"full_disk": "vllm"}])
def test_what_one_engine_cannot_do_the_next_one_does(
    tiny_model: Path, material: Path, tmp_path: Path, fault: dict[str, float | str]
) -> None:
    harm = Harm(material, tiny_model, tmp_path / "run", max_failures=1, **fault)  # type: ignore[arg-type]
    round = harm.finish()
    assert round.sound, round
    only_the_broken_ones_are_named(round)
    assert [event for event in harm.events() if event["event"] == "worker_handed_on"]

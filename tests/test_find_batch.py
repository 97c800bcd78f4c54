"""The search for the batch: whole steps of the configured training, a clean end where memory does not suffice, and nothing trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from arc_submit import cli
from arc_submit.train import find_batch
from arc_submit.train import step as learning
from arc_submit.train.distributed import Processes
from arc_submit.train.find_batch import Measurement, Trial, doublings, summary
from arc_submit.train.mixture import TokenSample


def figures(capsys: pytest.CaptureFixture[str], model: Path, out: Path, *more: str) -> dict[str, Any]:
    """The figures of `arc-submit train --find-batch` with samples of at most 64 tokens."""
    command = ["train", "--model", str(model), "--out", str(out), "--data", "nowhere,output-from-turns-v0", "--max-seq-len", "64"]
    assert cli.main([*command, "--find-batch", *more, "--json"]) == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return value


@pytest.mark.parametrize("more", [("--lora-rank", "2", "--gradient-checkpointing"), ("--full", "--optimizer", "muon")])
def test_speeds_are_measured_and_nothing_is_trained(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    found = figures(capsys, tiny_model, tmp_path / "out", "--batch-size", "3", *more)  # no pass can hold more than a step has
    assert {(t["length"], t["batch"]) for t in found["trials"]} == {(length, batch) for length in (16, 32, 64) for batch in (1, 2, 3)}
    assert all(t["tokens_per_second"] > 0 and t["memory"] is None for t in found["trials"])
    best = max((t for t in found["trials"] if t["length"] == 64), key=lambda t: t["tokens_per_second"])
    assert found["tokens_per_pass"] == 64 * best["batch"]
    assert json.loads((tmp_path / "out" / "find_batch.json").read_text()) == found
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["find_batch.json", "find_batch.png"]


def test_memory_that_does_not_suffice_ends_a_length_and_the_next_goes_on(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device with room for 64 tokens in a pass; what is measured behind a failure begins with a clear gradient."""
    whole, step = learning.batch_loss, find_batch.take_step
    norms = []

    def loss(model: Any, batch: Any, precision: Any) -> Any:
        done = whole(model, batch, precision)
        if batch.ids.numel() > 64:
            torch.autograd.backward(done[0])  # memory ends in the middle of the backward pass
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return done

    def take(trainable: Any, *rest: Any) -> Any:
        norm = step(trainable, *rest)
        norms.append(float(norm))
        assert not trainable.gradient.any()
        return norm

    monkeypatch.setattr(learning, "batch_loss", loss)
    monkeypatch.setattr(find_batch, "take_step", take)
    found = figures(capsys, tiny_model, tmp_path / "out", "--lora-rank", "2", "--learning-rate", "1e-9")
    assert found["largest"] == {"16": 4, "32": 2, "64": 1}
    assert found["ended"]["32"] == "4 samples do not fit in memory"
    assert len(norms) == 4 * (3 + 2 + 1)
    # The same samples four times at the same weights: a gradient left over from the failed pass would show.
    for first in range(0, len(norms), 4):
        assert norms[first : first + 4] == pytest.approx([norms[first]] * 4, rel=1e-2)


def test_what_fits_nowhere_is_said() -> None:
    found = summary([Trial(16, 1, 100.0, 5), Trial(16, 2, 150.0, 9)], {16: "4 samples do not fit", 32: "1 samples do not fit"}, 32)
    assert found["largest"] == {"16": 2, "32": 0}
    assert "no sample of 32 tokens fits: lower --max-seq-len" in found["advice"]
    assert "tokens_per_pass" not in found


def test_the_fastest_step_behind_the_first_counts_and_what_is_no_faster_ends_a_length() -> None:
    """Steps that take half a second for each sample at best, on a clock of their own: twice the samples bring nothing, twice."""
    now = 0.0
    taken: list[int] = []

    def step(samples: list[TokenSample]) -> None:
        nonlocal now
        taken.append(len(samples))
        now += len(samples) * (0.01, 0.7, 0.5, 0.6)[taken.count(len(samples)) - 1]  # the first of a size is left out, fast or slow

    reported: list[Trial] = []
    measurement = Measurement(step, "answer", Processes(0, 1, torch.device("cpu")), clock=lambda: now)
    trials, reason = measurement.try_sizes(32, doublings(64), reported.append)
    assert [(t.length, t.batch, t.tokens_per_second, t.memory) for t in trials] == [(32, batch, 64.0, None) for batch in (1, 2, 4)]
    assert reported == trials
    assert reason == "more samples are no faster"
    assert list(doublings(6)) == [1, 2, 4, 6]

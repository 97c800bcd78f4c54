"""How trainings end: killed, told to, out of memory; and that the same command ends with the weights of one that was not disturbed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from trainings import PROMPT, TWO, command_of, config_of, losses, start, wait_for_three_lines, weights, write_data

from arc_submit.errors import ConfigError, DataError
from arc_submit.train import step as learning
from arc_submit.train import train as base
from arc_submit.train.checkpoints import checkpoint_folders
from arc_submit.train.dataloader import LoaderDiedError, stream_steps
from arc_submit.train.mixture import Mixture, TokenSample
from arc_submit.train.step import (
    PassTooLargeError,
)
from arc_submit.train.train import train


@pytest.mark.campaign
@pytest.mark.parametrize("full", [False, True])
def test_a_divided_model_goes_on_behind_a_process_that_was_killed(tmp_path: Path, tiny_model: Path, full: bool) -> None:
    data = write_data(tmp_path)
    told = {"model": str(tiny_model), "data": str(data), "full": full, "steps": 8, "save_every": 3}
    train(config_of(out=tmp_path / "whole", **told))
    out = tmp_path / "killed"
    (tmp_path / "told.json").write_text(json.dumps([{**told, "out": str(out), "fsdp": True}]))
    done = start(tmp_path / "told.json", TWO, ["5", "1"])
    assert done.returncode
    assert "another process of the training has ended" in done.stderr
    # An adapter is whole in each process; the parts of all weights went with the process.
    assert [path.name for path in checkpoint_folders(out / "checkpoints")][-1] == f"step-{3 if full else 5:08d}"
    done = start(tmp_path / "told.json", TWO)
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(out) == pytest.approx(losses(tmp_path / "whole"), abs=2e-5)


@pytest.mark.parametrize(("full", "optimizer"), [(False, "adamw"), (True, "muon")])
def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(tmp_path: Path, tiny_model: Path, full: bool, optimizer: str) -> None:
    data = write_data(tmp_path)
    told = {"model": str(tiny_model), "data": str(data), "full": full, "optimizer": optimizer, "steps": 10, "batch_size": 2}
    train(config_of(out=tmp_path / "whole", **told))
    out = tmp_path / "killed"
    (tmp_path / "told.json").write_text(json.dumps([{**told, "out": str(out)}]))
    done = start(tmp_path / "told.json", arguments=["7"])  # behind two checkpoints, and not at one
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert not (out / "adapter").exists()
    assert not (out / "model").exists()
    train(config_of(out=out, **told))
    assert losses(out) == losses(tmp_path / "whole")
    whole, resumed = weights(tmp_path / "whole"), weights(out)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_what_another_processs_death_leaves_is_saved_and_goes_on(tmp_path: Path, tiny_model: Path) -> None:
    data = write_data(tmp_path)
    told = {"model": str(tiny_model), "data": str(data), "full": True, "optimizer": "sgd", "steps": 8, "save_every": 100}
    train(config_of(out=tmp_path / "whole", **told))
    out = tmp_path / "killed"
    (tmp_path / "told.json").write_text(json.dumps([{**told, "out": str(out)}]))
    done = start(tmp_path / "told.json", TWO, ["5", "1"])
    assert done.returncode, done.stderr[-3000:]
    assert "another process of the training has ended" in done.stderr
    assert "goes on from step 5" in done.stderr
    assert [path.name for path in checkpoint_folders(out / "checkpoints")] == ["step-00000005"]
    train(config_of(out=out, **told))
    assert losses(out) == pytest.approx(losses(tmp_path / "whole"), abs=2e-5)


def test_a_training_that_is_told_to_end_saves_and_goes_on(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_data(tmp_path)
    told = {"model": tiny_model, "data": data, "save_every": 100}
    train(config_of(out=tmp_path / "whole", **told))
    write = base.MetricsLog.write

    def write_and_signal(log: base.MetricsLog, line: dict[str, Any]) -> None:
        write(log, line)
        if line["step"] == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(base.MetricsLog, "write", write_and_signal)
        figures = train(config_of(out=tmp_path / "ended", **told))
    assert figures["step"] == 4
    assert "result" not in figures
    assert [path.name for path in (tmp_path / "ended" / "checkpoints").iterdir()] == ["step-00000004"]
    assert train(config_of(out=tmp_path / "ended", **told))["step"] == 6
    assert losses(tmp_path / "ended") == losses(tmp_path / "whole")


@pytest.mark.parametrize(
    ("how", "code", "says"),
    [
        pytest.param(
            "SIGTERM to all its processes", 0, "stopped by a signal; the same command goes on from step {step}", marks=pytest.mark.campaign
        ),
        ("SIGTERM to all its processes, again and again", 0, "stopped by a signal; the same command goes on from step {step}"),
        pytest.param(
            "SIGINT to all its processes", 0, "stopped by a signal; the same command goes on from step {step}", marks=pytest.mark.campaign
        ),
        ("a loader killed", 1, "a loader died"),
    ],
)
def test_what_ends_a_training_costs_no_step(tmp_path: Path, tiny_model: Path, how: str, code: int, says: str) -> None:
    """A scheduler signals every process of a job, the loaders too, and the kernel takes the loader whose memory it needs."""
    out = tmp_path / "run"
    told = ["--model", str(tiny_model), "--out", str(out), "--data", f"{write_data(tmp_path)},{PROMPT}", "--benchmarks", "none"]
    endless = [
        "--steps",
        "100000",
        "--batch-size",
        "2",
        "--loaders",
        "2",
        "--log-every",
        "1",
        "--save-every",
        "100000",
        "--save-minutes",
        "0",
    ]
    command = [sys.executable, "-m", "arc_submit.cli", "train", *told, *endless]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_for_three_lines(out, process)
        loaders = psutil.Process(process.pid).children()
        assert len(loaders) == 2
        with pytest.raises(ConfigError, match="another training is using this folder"):
            train(config_of(tiny_model, out, tmp_path / "some_challenges.json"))
        if how == "a loader killed":
            loaders[0].kill()
        else:
            os.killpg(process.pid, getattr(signal, how.split()[0]))
        while "again" in how and process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            time.sleep(0.01)
        said, complained = process.communicate(timeout=120)
    # The last signals come when all is written.
    assert process.returncode in ((code, -signal.SIGTERM) if "again" in how else (code,)), complained
    (checkpoint,) = (out / "checkpoints").iterdir()
    step = int(checkpoint.name.removeprefix("step-"))
    assert step == json.loads((out / "log.jsonl").read_text().splitlines()[-1])["step"] >= 3
    assert says.format(step=step) in said + complained
    assert f"goes on from step {step}" in said + complained
    assert "Traceback" not in complained
    assert not psutil.wait_procs(loaders, timeout=15)[1]  # of a process that is killed they notice it in some seconds


def test_a_loader_that_dies_within_an_update_costs_no_step(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take, before = base.take_step, set(psutil.Process().children())
    updates = []

    def take_and_kill(*arguments: Any) -> torch.Tensor:
        norm = take(*arguments)
        updates.append(norm)
        if len(updates) == 3:
            next(child for child in psutil.Process().children() if child not in before).kill()
            time.sleep(0.3)  # torch's handler of the signal runs here
        return norm

    monkeypatch.setattr(base, "take_step", take_and_kill)
    config = config_of(tiny_model, tmp_path / "run", write_data(tmp_path), steps=100, save_every=100, loaders=2)
    with pytest.raises(LoaderDiedError, match=r"a loader died.*goes on from step 3$"):
        train(config)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000003"]


@pytest.mark.campaign
def test_a_job_of_two_processes_that_is_told_to_end_saves(tmp_path: Path, tiny_model: Path) -> None:
    """A scheduler signals every process of the job, and torchrun signals its own once more."""
    out = tmp_path / "run"
    told = {
        "model": str(tiny_model),
        "out": str(out),
        "data": str(write_data(tmp_path)),
        "steps": 100000,
        "save_every": 100000,
        "loaders": 1,
    }
    (tmp_path / "told.json").write_text(json.dumps([told]))
    command, environment = command_of(tmp_path / "told.json", TWO)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        wait_for_three_lines(out, process)
        every = psutil.Process(process.pid).children(recursive=True)
        assert len(every) == 4
        for one in (psutil.Process(process.pid), *every):
            one.send_signal(signal.SIGTERM)
        said, complained = process.communicate(timeout=120)
    (checkpoint,) = (out / "checkpoints").iterdir()
    assert f"stopped by a signal; the same command goes on from step {int(checkpoint.name.removeprefix('step-'))}" in said
    assert "a loader died" not in complained
    assert not psutil.wait_procs(every, timeout=15)[1]


@pytest.mark.parametrize(("where", "call"), [("batch_loss", 5), ("hidden_states_from", 3)])  # of a step, and of an evaluation
def test_memory_that_does_not_suffice_costs_no_step(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, where: str, call: int
) -> None:
    told: dict[str, Any] = {"model": tiny_model, "data": write_data(tmp_path), "save_every": 100, "eval_every": 2, "eval_samples": 2}
    train(config_of(out=tmp_path / "whole", **told))
    real, calls = getattr(learning, where), 0

    def short(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(learning, where, short)
        with pytest.raises(PassTooLargeError, match=r"lower --tokens-per-pass .*; saved, the same command goes on from step \d"):
            train(config_of(out=tmp_path / "short", **told))
    assert checkpoint_folders(tmp_path / "short" / "checkpoints")
    train(config_of(out=tmp_path / "short", **told))
    assert losses(tmp_path / "short") == losses(tmp_path / "whole")


def test_a_sample_that_cannot_be_drawn_ends_a_training_with_one_line_and_its_steps(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Mixture.sample

    def sample(mixture: Mixture, number: int) -> TokenSample:
        if number == 11:
            raise DataError("what nobody foresaw")
        return real(mixture, number)

    monkeypatch.setattr(Mixture, "sample", sample)
    for loaders in (0, 1):
        told = config_of(tiny_model, tmp_path / f"run-{loaders}", write_data(tmp_path), batch_size=2, loaders=loaders, save_every=100)
        with pytest.raises(DataError, match=r"^what nobody foresaw; saved, the same command goes on from step 5$"):
            train(told)
        assert [path.name for path in (tmp_path / f"run-{loaders}" / "checkpoints").iterdir()] == ["step-00000005"]


def test_loaders_end_with_a_training_that_is_killed() -> None:
    """Also one that waits to send its sample, which no one reads any more."""

    class Endless:
        def sample(self, number: int) -> list[int]:
            return list(range(100_000))

    read_end, write_end = os.pipe()
    if not (child := os.fork()):
        stream = stream_steps(Endless(), 1, 0, 1, 0, 2)  # type: ignore[arg-type]
        next(stream)
        os.write(write_end, " ".join(str(process.pid) for process in multiprocessing.active_children()).encode())
        time.sleep(100)
    loaders = [int(word) for word in os.read(read_end, 100).split()]
    assert len(loaders) == 2
    time.sleep(0.3)  # until the pipe is full
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    patience = time.monotonic() + 10
    while any(_runs(loader) for loader in loaders):
        assert time.monotonic() < patience
        time.sleep(0.02)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

"""Training of a base model: the true loop on a two-layer model; many processes as one, a killed run as one that was not, and the guards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from conftest import make_challenges
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen2ForCausalLM

from arc_submit import cli
from arc_submit.arc.training_sets import open_packed
from arc_submit.errors import ArcSubmitError, ConfigError, DataError
from arc_submit.language.asked import CARD, AskedHow
from arc_submit.models.adapters import applied, read_adapter
from arc_submit.models.engine import Request
from arc_submit.models.lora import attach, save_adapter
from arc_submit.models.pocket import make_pocket_tokenizer, pocket_config
from arc_submit.models.precision import TrainingPrecision
from arc_submit.models.saving import merge_adapter, save_model
from arc_submit.models.settings import LoraSettings
from arc_submit.models.transformers_engine import load_transformers_engine
from arc_submit.training import base, train_log
from arc_submit.training import learner as learning
from arc_submit.training.base import train
from arc_submit.training.base_settings import OPTIMIZERS, TrainConfig, TrainSettings
from arc_submit.training.checkpoints import checkpoint_folders, load_optimizers, read_state, save_checkpoint
from arc_submit.training.learner import (
    Learner,
    PassTooLargeError,
    cut_passes,
    full_loss,
    make_optimizers,
    make_pass,
    rate_factor,
    take_step,
)
from arc_submit.training.mixture import Mixture, MixturePart, TokenSample
from arc_submit.training.pocket import add_columns, make_start
from arc_submit.training.prepared import prepare_data
from arc_submit.training.processes import Processes
from arc_submit.training.ttft import batch_loss

PROMPT = "output-from-turns-v0"
SMALL = {"steps": 6, "batch_size": 4, "learning_rate": 1e-3, "log_every": 1, "save_every": 3, "loaders": 0, "warmup_ratio": 0.2}
FLOAT32 = TrainingPrecision(torch.float32, None, False, "a test")
CPU = torch.device("cpu")


def write_data(folder: Path, count: int = 6) -> Path:
    """A challenges file with its solutions beside it."""
    challenges, solutions = make_challenges(count)
    (folder / "some_solutions.json").write_text(json.dumps(solutions))
    path = folder / "some_challenges.json"
    path.write_text(json.dumps(challenges))
    return path


def write_held_out(folder: Path) -> MixturePart:
    """A part of tasks that `write_data` does not have."""
    challenges, solutions = make_challenges(3, seed=9, side=5)
    for name, value in (("challenges", challenges), ("solutions", solutions)):
        (folder / f"other_{name}.json").write_text(json.dumps({f"other-{task_id}": entry for task_id, entry in value.items()}))
    return MixturePart(str(folder / "other_challenges.json"), PROMPT)


def config_of(model: str | Path, out: str | Path, data: str | Path, rank: int = 4, max_seq_len: int = 256, **settings: Any) -> TrainConfig:
    """A small training."""
    return TrainConfig(
        model=Path(model),
        out=Path(out),
        parts=(MixturePart(str(data), PROMPT, max_pairs=4, task_augmentation=0.2),),
        settings=TrainSettings(**{**SMALL, **settings}),
        lora=LoraSettings(rank=rank, alpha=8.0),
        max_seq_len=max_seq_len,
        measured=(),
    )


def losses(out: Path) -> list[float]:
    """Of the log's lines on steps, those on evaluations left out."""
    return [line["loss"] for line in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "loss" in line]


def weights(out: Path) -> dict[str, torch.Tensor]:
    """The whole tensors of the last checkpoint, the optimizer's among them."""
    last = sorted((out / "checkpoints").iterdir())[-1]
    return {
        f"{path.parent.name}/{path.name}/{name}": tensor for path in last.rglob("*.safetensors") for name, tensor in load_file(path).items()
    }


TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def command_of(told: Path, launcher: Sequence[str] = (), arguments: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """How tests/train_processes.py is started: the command and its environment."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path]), "OMP_NUM_THREADS": "1"}
    return [sys.executable, *launcher, str(here / "train_processes.py"), str(told), *arguments], environment


def start(told: Path, launcher: Sequence[str] = (), arguments: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    command, environment = command_of(told, launcher, arguments)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)


def wait_for_three_lines(out: Path, process: subprocess.Popen[str]) -> None:
    """Until a training is under way, by its log."""
    patience = time.monotonic() + 120
    while not (out / "log.jsonl").exists() or len((out / "log.jsonl").read_text().splitlines()) < 3:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < patience
        time.sleep(0.1)


def test_two_processes_train_as_one_does(tmp_path: Path, tiny_model: Path) -> None:
    data = write_data(tmp_path)
    told = [
        {"model": str(tiny_model), "data": str(data), "full": full, "prompt_weight": 0.5, "optimizer": optimizer, "loaders": loaders}
        for full, optimizer, loaders in ((False, "adamw", 1), (True, "sgd", 0), (True, "muon", 0))
    ]
    (tmp_path / "told.json").write_text(json.dumps([{**one, "out": str(tmp_path / f"two-{i}")} for i, one in enumerate(told)]))
    done = start(tmp_path / "told.json", TWO)
    assert done.returncode == 0, done.stderr[-3000:]
    for i, one in enumerate(told):
        train(config_of(out=tmp_path / f"one-{i}", **one))
        assert losses(tmp_path / f"two-{i}") == pytest.approx(losses(tmp_path / f"one-{i}"), abs=2e-5)
        alone, together = weights(tmp_path / f"one-{i}"), weights(tmp_path / f"two-{i}")
        assert alone.keys() == together.keys()
        for name, tensor in alone.items():
            assert torch.allclose(tensor, together[name], atol=2e-4, rtol=1e-3), name


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
    assert "another process of the training is gone" in done.stderr
    assert "goes on from step 5" in done.stderr
    assert [path.name for path in checkpoint_folders(out / "checkpoints")] == ["step-00000005"]
    train(config_of(out=out, **told))
    assert losses(out) == pytest.approx(losses(tmp_path / "whole"), abs=2e-5)


def test_a_training_that_is_told_to_end_saves_and_goes_on(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_data(tmp_path)
    told = {"model": tiny_model, "data": data, "save_every": 100}
    train(config_of(out=tmp_path / "whole", **told))
    write = base.Log.write

    def write_and_signal(log: base.Log, line: dict[str, Any]) -> None:
        write(log, line)
        if line["step"] == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(base.Log, "write", write_and_signal)
        figures = train(config_of(out=tmp_path / "ended", **told))
    assert figures["step"] == 4
    assert "result" not in figures
    assert [path.name for path in (tmp_path / "ended" / "checkpoints").iterdir()] == ["step-00000004"]
    assert train(config_of(out=tmp_path / "ended", **told))["step"] == 6
    assert losses(tmp_path / "ended") == losses(tmp_path / "whole")


@pytest.mark.parametrize(
    ("how", "code", "says"),
    [
        ("SIGTERM to all its processes", 0, "stopped when told to; the same command goes on from step {step}"),
        ("SIGTERM to all its processes, again and again", 0, "stopped when told to; the same command goes on from step {step}"),
        ("SIGINT to all its processes", 0, "stopped when told to; the same command goes on from step {step}"),
        ("a loader killed", 1, "a loader died"),
    ],
)
def test_what_ends_a_training_costs_no_step(tmp_path: Path, tiny_model: Path, how: str, code: int, says: str) -> None:
    """A scheduler signals every process of a job, the loaders too, and the kernel takes the loader whose memory it needs."""
    out = tmp_path / "run"
    told = ["--model", str(tiny_model), "--out", str(out), "--data", f"{write_data(tmp_path)},{PROMPT}", "--measured", "none"]
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
    assert f"stopped when told to; the same command goes on from step {int(checkpoint.name.removeprefix('step-'))}" in said
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


def test_a_training_from_nothing_learns_and_the_model_can_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path)
    make_start(tmp_path / "start", 64, 2, 256, 0)
    arguments = ["--model", str(tmp_path / "start"), "--out", str(tmp_path / "run"), "--data", f"{data},{PROMPT},max_pairs=4"]
    how = ["--full", "--optimizer", "muon", "--learning-rate", "6e-3", "--loss-on", "outputs", "--prompt-weight", "1", "--steps", "25"]
    rest = [
        "--batch-size",
        "8",
        "--log-every",
        "5",
        "--loaders",
        "1",
        "--measured",
        "none",
        "--save-dtype",
        "float16",
        "--eval-every",
        "20",
    ]
    assert cli.main(["train", *arguments, *how, *rest, "--eval-every", "20", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    curve = [line["loss"] for line in lines if "loss" in line]
    assert curve[-1] < curve[0] - 0.5
    assert [line["step"] for line in lines if "eval_loss" in line] == [20, 25]
    assert figures["eval_loss"] == lines[-1]["eval_loss"] < 4
    model = tmp_path / "run" / "model"
    assert {tensor.dtype for tensor in load_file(model / "model.safetensors").values()} == {torch.float16}
    assert json.loads((model / CARD).read_text()) == {"grid_encoder": "ColumnGridEncoder()", "prompt": PROMPT, "max_seq_len": 256}
    engine, tokenizer, _ = load_transformers_engine(model, CPU, slots=2)
    assert tokenizer.decode(next(iter(engine.generate([Request("a", tokenizer.encode("AAA1"), 3)]))).tokens)
    kinds = {path.suffix for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json", ".jsonl", ".npy", ".jinja", ".lock"}  # nothing pickled


def test_the_clock_ends_a_training(tmp_path: Path, tiny_model: Path) -> None:
    figures = train(config_of(tiny_model, tmp_path / "run", write_data(tmp_path), steps=0, minutes=0.01))
    assert figures["step"] > 0
    assert 0.6 <= figures["seconds"] < 60
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()


def test_another_training_in_the_same_folder_is_refused(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path)
    train(config_of(tiny_model, tmp_path / "run", data, steps=2))
    with pytest.raises(ConfigError, match="lora, learning_rate"):
        train(config_of(tiny_model, tmp_path / "run", data, steps=2, rank=8, learning_rate=1e-2))
    train(config_of(tiny_model, tmp_path / "run", data, steps=4))
    assert "steps 2 -> 4" in capsys.readouterr().out
    assert len(losses(tmp_path / "run")) == 4
    # An earlier version, which did not have every setting yet, has noted what it was told.
    card = tmp_path / "run" / "train.json"
    told = json.loads(card.read_text())
    del told["parts"][0]["max_task_tokens"], told["settings"]["prompt_weight_end"]
    card.write_text(json.dumps(told))
    train(config_of(tiny_model, tmp_path / "run", data, steps=5))
    assert len(losses(tmp_path / "run")) == 5


def test_a_finished_training_that_is_asked_for_again_says_nothing_twice(tmp_path: Path, tiny_model: Path) -> None:
    told = config_of(tiny_model, tmp_path / "run", write_data(tmp_path), steps=3, eval_every=2, eval_samples=2)
    first = train(told)
    text = (tmp_path / "run" / "log.jsonl").read_text()
    assert [json.loads(line)["step"] for line in text.splitlines() if "eval_loss" in line] == [2, 3]
    assert train(told)["eval_loss"] == first["eval_loss"]
    assert (tmp_path / "run" / "log.jsonl").read_text() == text


def test_tensorboard_has_every_step_once(tmp_path: Path, tiny_model: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told = config_of(tiny_model, tmp_path / "run", write_data(tmp_path), steps=4, save_every=2, eval_every=2, eval_samples=2)
    train(replace(told, tensorboard=True))
    train(replace(told, tensorboard=True, settings=replace(told.settings, steps=6)))
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    kept = [(event.step, event.value) for event in board.Scalars("loss")]
    assert kept == [(step, pytest.approx(loss, abs=1e-5)) for step, loss in enumerate(losses(tmp_path / "run"), 1)]
    assert [event.step for event in board.Scalars("eval_loss")] == [2, 4, 6]


@pytest.mark.parametrize(("told", "name"), [({"tensorboard": True}, "tensorboard"), ({"wandb": "project"}, "wandb")])
def test_a_logger_that_is_not_there_is_named_before_anything_is_read(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(train_log.importlib.util, "find_spec", lambda asked: None if asked == name else object())
    with pytest.raises(ConfigError, match=f"--{name} needs the package {name}: pip install {name}"):
        train(replace(config_of(tiny_model, tmp_path / "run", tmp_path / "no.json"), **told))
    assert not (tmp_path / "run").exists()


def test_what_evaluations_draw_from_is_not_learnt(tmp_path: Path, tiny_model: Path) -> None:
    data = write_data(tmp_path)
    (tmp_path / "eval_challenges.json").write_text(json.dumps(dict(list(json.loads(data.read_text()).items())[:2])))
    evaluated = MixturePart(str(tmp_path / "eval_challenges.json"), PROMPT)
    told = replace(config_of(tiny_model, tmp_path / "run", data, steps=2), eval_parts=(evaluated,))
    with pytest.raises(DataError, match=r"2 of \d+ tasks repeat tasks of .*eval_challenges.json, which models are measured on"):
        train(told)
    assert train(replace(told, drop_measured=True))["eval_loss"] > 0
    learnt = open_packed(tmp_path / "run" / "data" / "part-0").ids
    assert learnt
    assert not set(learnt) & set(json.loads((tmp_path / "eval_challenges.json").read_text()))


def test_a_training_goes_on_with_the_data_it_began_with_or_not_at_all(tmp_path: Path, tiny_model: Path) -> None:
    data, out = write_data(tmp_path), tmp_path / "run"
    train(config_of(tiny_model, out, data, steps=2))
    whole = data.read_text()
    data.write_text(whole)  # the same at another time, as where a job copies its data anew
    train(config_of(tiny_model, out, data, steps=3))
    data.write_text(json.dumps(dict(list(json.loads(whole).items())[1:])))
    with pytest.raises(DataError, match="not what this training began with"):
        train(config_of(tiny_model, out, data, steps=4))
    assert len(losses(out)) == 3
    data.write_text(whole)
    train(config_of(tiny_model, out, data, steps=4))
    train(config_of(tiny_model, tmp_path / "straight", data, steps=4))
    assert weights(out).keys() == weights(tmp_path / "straight").keys()
    assert "eval_loss" in train(replace(config_of(tiny_model, out, data, steps=5), eval_parts=(write_held_out(tmp_path),)))
    held_out = tmp_path / "held_out_challenges.json"
    held_out.write_text(json.dumps({"task001": json.loads(whole)["task001"]}))
    guarded = replace(config_of(tiny_model, out, data, steps=5), measured=(str(held_out),), drop_measured=True)
    with pytest.raises(DataError, match="what is measured"):
        train(guarded)


def test_data_that_has_changed_is_packed_anew(tmp_path: Path, tiny_model: Path) -> None:
    """Outputs of tests that came later are learnt, and what a file of measured tasks gained is guarded against."""

    def packed(**measured: Any) -> tuple[int, list[str]]:
        folders, _ = prepare_data(replace(config_of(tiny_model, tmp_path / "run", data), **measured), Processes(0, 1, CPU), notes.append)
        found = open_packed(folders[0])
        return found.pair_count, found.ids

    notes: list[str] = []
    data = write_data(tmp_path)
    solutions = tmp_path / "some_solutions.json"
    text = solutions.read_text()
    solutions.unlink()
    without, ids = packed()
    assert any("that pair is left out" in note for note in notes)
    solutions.write_text(text)
    assert packed()[0] > without
    tasks = json.loads(data.read_text())
    held_out = tmp_path / "held_out_challenges.json"
    for count in (1, 3):
        held_out.write_text(json.dumps(dict(list(tasks.items())[:count])))
        assert packed(measured=(str(held_out),), drop_measured=True)[1] == ids[count:]
    held_out.write_text(json.dumps({**dict(list(tasks.items())[:3]), "bad": {"train": [], "test": []}}))
    notes.clear()
    packed(measured=(str(held_out),), drop_measured=True)
    assert any("not guarded against" in note and "bad" in note for note in notes)


def test_a_training_stopped_before_its_first_step_begins_again(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(tiny_model, tmp_path / "run", write_data(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(base, "told_to_stop", lambda: contextlib.nullcontext([signal.SIGTERM]))
        assert train(config)["step"] == 0
    assert not checkpoint_folders(tmp_path / "run" / "checkpoints")
    assert train(config)["step"] == 6


def test_what_is_held_out_is_measured_at_the_end_where_no_step_is_named(tmp_path: Path, tiny_model: Path) -> None:
    data = write_data(tmp_path)
    plain = config_of(tiny_model, tmp_path / "plain", data)
    assert "eval_loss" not in train(plain)
    figures = train(replace(plain, out=tmp_path / "run", eval_parts=(write_held_out(tmp_path),)))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["tokens"]) for line in lines if "eval_loss" in line] == [(6, figures["tokens"])]


def test_the_make_of_an_adapter_that_is_gone_on_with_cannot_be_told_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["train", "--model", "m", "--out", str(tmp_path), "--data", f"d,{PROMPT}", "--base-adapter", "a", "--lora-rank", "8"]
    assert cli.main(told) == 1
    assert "--base-adapter with --lora-rank" in capsys.readouterr().err


def test_what_is_measured_is_not_learnt(tmp_path: Path, tiny_model: Path) -> None:
    data = write_data(tmp_path)
    config = config_of(tiny_model, tmp_path / "run", data)
    measured = TrainConfig(**{**vars(config), "measured": (str(data),)})
    with pytest.raises(DataError, match="6 of 6 tasks repeat"):
        train(measured)


def samples_of(lengths: list[int], seed: int = 0) -> list[TokenSample]:
    """Samples of random tokens, the last third of each learnt."""
    rng = np.random.default_rng(seed)
    made = []
    for number, length in enumerate(lengths):
        learnt = np.zeros(length, dtype=np.bool_)
        learnt[-max(1, length // 3) :] = True
        made.append(TokenSample(number, 0, 0, rng.integers(5, 45, length).astype(np.int32), learnt, length - 1, 1, False))
    return made


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_passes_change_nothing_and_the_loss_is_the_plain_one(tiny_model: Path, weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a step is cut into passes, the gradient is that of transformers' own logits of each sample alone, without padding."""
    model = load(tiny_model)
    samples = samples_of([40, 9, 33, 40, 21])
    total = sum(int(sample.learnt.sum()) for sample in samples)
    expected = torch.zeros(())
    for sample in samples:
        ids = torch.from_numpy(sample.ids.astype(np.int64))
        by_token = torch.nn.functional.cross_entropy(model(input_ids=ids[None]).logits[0, :-1], ids[1:], reduction="none")
        expected = expected + (by_token * torch.where(torch.from_numpy(sample.learnt[1:]), 1.0, weight)).sum() / total
    expected.backward()
    wanted = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    for tokens, logits in ((1, learning._LOGITS), (90, learning._LOGITS), (1000, 48 * 10)):
        monkeypatch.setattr(learning, "_LOGITS", logits)
        model.zero_grad()
        passes = cut_passes(samples, tokens)
        assert sorted(sample.number for rows in passes for sample in rows) == [0, 1, 2, 3, 4]
        assert all(len(rows) == 1 or len(rows) * len(rows[0].ids) <= tokens for rows in passes)
        found = 0.0
        for rows in passes:
            batch, learnt = make_pass(rows, weight, total, CPU)
            loss, by_token = full_loss(model, batch, FLOAT32)
            assert len(by_token) == len(learnt)
            assert int(learnt.sum()) == sum(int(sample.learnt.sum()) for sample in rows)
            loss.backward()
            found += loss.item()
        assert found == pytest.approx(expected.item(), abs=1e-5)
        for name, parameter in model.named_parameters():
            assert torch.allclose(parameter.grad, wanted[name], atol=1e-5), name


def test_the_adapters_loss_is_that_of_all_weights(tiny_model: Path) -> None:
    model = load(tiny_model)
    batch, _ = make_pass(samples_of([30, 12]), 0.5, 7, CPU)
    expected = full_loss(model, batch, FLOAT32)[0].item()
    assert float(batch_loss(attach(model, LoraSettings(rank=2), 0).model, batch, FLOAT32)[0]) == pytest.approx(expected, abs=1e-5)


def test_an_adapter_on_weights_that_the_embeddings_share_is_not_merged(tmp_path: Path, tiny_model: Path) -> None:
    made_elsewhere = get_peft_model(load(tiny_model), LoraConfig(r=2, target_modules=["lm_head"]))
    made_elsewhere.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    with pytest.raises(ConfigError, match=r"lm_head.*both would change"):
        merge_adapter(tiny_model, tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_go_on_from_a_checkpoint_to_the_bit(tmp_path: Path, optimizer: str) -> None:
    def make() -> tuple[Learner, list[torch.optim.Optimizer]]:
        make_start(tmp_path / "start", 64, 1, 64, 3)
        model = load(tmp_path / "start")
        parameters = list(model.parameters())
        gradient = torch.zeros(sum(p.numel() for p in parameters))
        for parameter, part in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)
        learner = Learner(model, None, parameters, gradient)
        return learner, make_optimizers(learner, TrainSettings(full=True, optimizer=optimizer, learning_rate=1e-2))

    def step(learner: Learner, optimizers: list[torch.optim.Optimizer], number: int) -> None:
        learner.gradient.copy_(torch.randn(len(learner.gradient), generator=torch.Generator().manual_seed(number)))
        take_step(learner, optimizers, torch.amp.GradScaler("cpu", enabled=False), 1.0)

    learner, optimizers = make()
    for number in range(3):
        step(learner, optimizers, number)
    folder = save_checkpoint(tmp_path / "checkpoints", 3, {}, optimizers, lambda _: None, 1)
    held = [parameter.detach().clone() for parameter in learner.parameters]
    other, others = make()
    with torch.no_grad():
        for parameter, value in zip(other.parameters, held, strict=True):
            parameter.copy_(value)
    load_optimizers(folder, read_state(folder), others)
    for number in range(3, 5):
        step(learner, optimizers, number)
        step(other, others, number)
    assert all(torch.equal(a, b) for a, b in zip(learner.parameters, other.parameters, strict=True))


def test_a_checkpoint_that_was_cut_short_does_not_count(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "half").write_text("a")
        raise OSError(28, "No space left on device")

    save_checkpoint(tmp_path, 1, {"tokens": 5}, [], lambda _: None, 2)
    with pytest.raises(DataError, match="free some disk space"):
        save_checkpoint(tmp_path, 2, {}, [], broken, 2)
    assert checkpoint_folders(tmp_path) == [tmp_path / "step-00000001"]
    for step in (3, 4):
        save_checkpoint(tmp_path, step, {}, [], lambda _: None, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]
    # A copy goes by name and may be cut off between a checkpoint's state and its weights.
    for cut in ("optimizer.safetensors", "weights/part.txt"):
        folder = tmp_path / "copied"
        for step in (1, 2):
            save_checkpoint(folder, step, {}, [], lambda to: (to / "weights").mkdir() or (to / "weights" / "part.txt").write_text("w"), 2)
        (folder / "step-00000002" / cut).write_text("")
        assert checkpoint_folders(folder) == [folder / "step-00000001"]
        (folder / "step-00000002" / cut).unlink()
        assert checkpoint_folders(folder) == [folder / "step-00000001"]
    with pytest.raises(DataError, match="go on from the one before"):
        load_optimizers(tmp_path / "step-00000004", {"optimizer": {}}, [torch.optim.SGD([torch.zeros(1)])])


@pytest.mark.parametrize(
    "settings",
    [LoraSettings(rank=4, alpha=8.0, rslora=True), LoraSettings(rank=2, dora=True), LoraSettings(rank=2, init="pissa")],
    ids=["rslora", "dora", "pissa"],
)
def test_a_merged_model_answers_as_the_base_with_its_adapter(tmp_path: Path, tiny_model: Path, settings: LoraSettings) -> None:
    model = load(tiny_model)
    adapter = attach(model, settings, 1)
    with torch.no_grad():
        adapter.flat.add_(torch.randn(adapter.flat.shape, generator=torch.Generator().manual_seed(0)) * 0.05)
    save_adapter(adapter, tmp_path / "adapter")
    AskedHow("CompactGridEncoder()", PROMPT, 300).save(tmp_path / "adapter")
    figures = ["merge", "--model", str(tiny_model), "--adapter", str(tmp_path / "adapter"), "--out", str(tmp_path / "merged")]
    assert cli.main([*figures, "--dtype", "float32"]) == 0
    ids = torch.randint(5, 45, (2, 30), generator=torch.Generator().manual_seed(2))
    plain = load(tiny_model)
    with torch.no_grad():
        base_logits = plain(input_ids=ids).logits
        with applied(plain, read_adapter(tmp_path / "adapter", plain)):
            wanted = plain(input_ids=ids).logits
        found = load(tmp_path / "merged")(input_ids=ids).logits
    assert (found - wanted).abs().max() < 2.5e-5 * wanted.abs().max()  # rounding: logits reach 9, and how products round is the machine's
    assert not torch.allclose(found, base_logits, atol=1e-2)
    assert json.loads((tmp_path / "merged" / CARD).read_text())["max_seq_len"] == 300
    with pytest.raises(ConfigError, match="not empty"):
        merge_adapter(tiny_model, tmp_path / "adapter", tmp_path / "merged")


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant", "wsd"])
def test_the_learning_rate_rises_and_then_never_does(schedule: str) -> None:
    rates = [rate_factor(schedule, 0.1, p) for p in np.linspace(0, 1, 101)]
    assert rates[0] == 0
    assert rates[10] == pytest.approx(1)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(1 if schedule == "constant" else 0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"steps": 0}, "one of them above 0"),
        ({"schedule": "steps"}, "choose from"),
        ({"optimizer": "muon"}, "flat tensor"),
        ({"full": True, "in_4_bits": True}, "frozen"),
        ({"prompt_weight": 2.0}, "0 to 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        TrainSettings(**wrong)


@pytest.mark.parametrize("wrong", [{"loss_on": "all"}, {"prompt_weight": 0.1}, {"prompt_weight_end": 0.1}])
def test_a_judge_does_not_learn_to_write_wrong_outputs(wrong: dict[str, Any]) -> None:
    parts = (MixturePart("d", PROMPT), MixturePart("d", "select-output-from-turns-v1", wrong="w"))
    with pytest.raises(ConfigError, match=r"select-output-from-turns-v1 shows wrong outputs"):
        TrainConfig(Path("m"), Path("o"), parts, TrainSettings(**wrong))
    TrainConfig(Path("m"), Path("o"), parts[:1], TrainSettings(**wrong))
    TrainConfig(Path("m"), Path("o"), parts, TrainSettings(loss_on="outputs"))


def test_precisions_that_the_device_has_not_are_refused() -> None:
    with pytest.raises(ArcSubmitError):
        learning.choose_precision("float16", CPU, False)
    assert learning.choose_precision("auto", CPU, True).base == torch.float32


def test_a_start_is_the_pocket_models_make(tmp_path: Path) -> None:
    assert make_start(tmp_path / "start", 64, 2, 512, 0) == sum(
        t.numel() for t in load_file(tmp_path / "start" / "model.safetensors").values()
    )
    assert len(make_pocket_tokenizer()) == 45 + 300


def test_layers_of_the_compact_form_get_a_table_of_columns(tmp_path: Path) -> None:
    config = pocket_config(64, 2)
    config.vocab_size = 48  # as the first edition's
    small = Qwen2ForCausalLM(config)
    save_model(small, make_pocket_tokenizer(), AskedHow("CompactGridEncoder()", PROMPT, 256), tmp_path / "compact", torch.float32)
    count = add_columns(tmp_path / "compact", tmp_path / "columns", 256, 0)
    made, before = (load_file(tmp_path / name / "model.safetensors") for name in ("columns", "compact"))
    assert count == sum(tensor.numel() for tensor in made.values())
    assert all(torch.equal(made[name], tensor) for name, tensor in before.items() if "layers" in name)
    table, digits = made["model.embed_tokens.weight"], before["model.embed_tokens.weight"][5:15]
    assert torch.equal(table[:45], before["model.embed_tokens.weight"][:45])
    cells = table[45:345].view(30, 10, -1)
    torch.testing.assert_close(cells - cells[:, :1], (digits - digits[:1]).expand(30, 10, -1))  # colours differ as digits do
    assert torch.pdist(cells[:, 0]).min() > 0.1 * digits.std()  # and so do columns
    assert json.loads((tmp_path / "columns" / CARD).read_text())["grid_encoder"] == "ColumnGridEncoder()"
    with pytest.raises(ConfigError, match="352 tokens"):
        add_columns(tmp_path / "columns", tmp_path / "again", 256, 0)

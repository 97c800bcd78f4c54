"""Training of a base model: the true loop on a two-layer model; many processes as one, its data and its guards."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from trainings import CPU, PROMPT, TWO, config_of, losses, start, weights, write_data, write_held_out

from arc_submit import cli
from arc_submit.arc.packed_tasks import open_packed
from arc_submit.base_model.loading import load_model
from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError, DataError
from arc_submit.inference.engine import Request
from arc_submit.inference.load_transformers import load_transformers_engine
from arc_submit.language.prompt_config import CONFIG_FILE
from arc_submit.train import train as base
from arc_submit.train import train_log
from arc_submit.train.checkpoints import checkpoint_folders
from arc_submit.train.config import TrainConfig
from arc_submit.train.data import prepare_data
from arc_submit.train.distributed import Processes
from arc_submit.train.mixture import MixturePart
from arc_submit.train.new_pocket import make_start
from arc_submit.train.train import train


def test_two_processes_train_as_one_does(tmp_path: Path, tiny_model: Path) -> None:
    data = write_data(tmp_path)
    told = [
        {"model": str(tiny_model), "data": str(data), "full": full, "prompt_weight": 0.5, "optimizer": optimizer, "loaders": loaders}
        for full, optimizer, loaders in ((False, "adamw", 1), (True, "sgd", 0), (True, "muon", 0))
    ]
    # The same under FSDP, with passes of one sample or two, and with a training that ends and goes on.
    divided = {"model": str(tiny_model), "data": str(data), "tokens_per_pass": 300, "eval_every": 4, "save_every": 2}
    divided |= {"schedule": "constant", "warmup_ratio": 0.0}
    told += [{**divided, "full": full, "gradient_checkpointing": not full, "rank": 2} for full in (False, True)]
    together = [{**one, "out": str(tmp_path / f"two-{i}"), "fsdp": i > 2} for i, one in enumerate(told)]
    (tmp_path / "told.json").write_text(json.dumps([*({**one, "steps": 3} for one in together[3:]), *together]))
    done = start(tmp_path / "told.json", TWO)
    assert done.returncode == 0, done.stderr[-3000:]
    parts = re.findall(r"the model is divided over 2 processes: ([\d,]+) of its ([\d,]+) values here", done.stdout)
    assert [2 * int(own.replace(",", "")) for own, _ in parts] == [int(values.replace(",", "")) for _, values in parts]
    assert len(parts) == 4
    assert done.stdout.count("going on from step 3") == 2
    for i, one in enumerate(told):
        train(config_of(out=tmp_path / f"one-{i}", **one))
        assert losses(tmp_path / f"two-{i}") == pytest.approx(losses(tmp_path / f"one-{i}"), abs=2e-5)
        alone, together = weights(tmp_path / f"one-{i}"), weights(tmp_path / f"two-{i}")
        assert alone.keys() == together.keys()
        for name, tensor in alone.items():
            assert torch.allclose(tensor, together[name], atol=2e-4, rtol=1e-3), name
        # AdamW's weights do not tell by what the gradient was multiplied.
        alone_lines, together_lines = (
            [
                json.loads(line).get("grad_norm")
                for line in (tmp_path / f"{name}-{i}/log.jsonl").read_text().splitlines()
                if "grad_norm" in line
            ]
            for name in ("one", "two")
        )
        assert together_lines == pytest.approx(alone_lines, rel=2e-3, abs=2e-4)
    sizes = [load_model(tmp_path / name, CPU, torch.float32, "sdpa").num_parameters() for name in ("one-4/model", "two-4/model")]
    assert sizes[0] == sizes[1]
    assert json.loads((tmp_path / "two-3/adapter/adapter_config.json").read_text())["r"] == 2
    last = [
        [line for line in (tmp_path / f"{name}-4/log.jsonl").read_text().splitlines() if "eval_loss" in line][-1] for name in ("one", "two")
    ]
    assert json.loads(last[0]) == pytest.approx(json.loads(last[1]), abs=2e-5)


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
        "--benchmarks",
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
    assert json.loads((model / CONFIG_FILE).read_text()) == {"grid_encoder": "ColumnGridEncoder()", "prompt": PROMPT, "max_seq_len": 256}
    engine, tokenizer, _ = load_transformers_engine(model, CPU, slots=2)
    assert tokenizer.decode(next(iter(engine.generate([Request("a", tokenizer.encode("AAA1"), 3)]))).tokens)
    kinds = {path.suffix for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json", ".jsonl", ".npy", ".jinja", ".lock"}  # nothing pickled


def test_the_clock_ends_a_training(tmp_path: Path, tiny_model: Path) -> None:
    figures = train(config_of(tiny_model, tmp_path / "run", write_data(tmp_path), steps=0, minutes=0.01, save_dtype="bfloat16"))
    assert figures["step"] > 0
    assert 0.6 <= figures["seconds"] < 60
    tensors = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert {tensor.dtype for name, tensor in weights(tmp_path / "run").items() if name.startswith("adapter/")} == {torch.float32}


def test_another_training_in_the_same_folder_is_refused(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path)
    train(config_of(tiny_model, tmp_path / "run", data, steps=2))
    with pytest.raises(ConfigError, match="another --lora-rank, --learning-rate; give"):
        train(config_of(tiny_model, tmp_path / "run", data, steps=2, rank=8, learning_rate=1e-2))
    train(config_of(tiny_model, tmp_path / "run", data, steps=4))
    assert "steps 2 -> 4" in capsys.readouterr().out
    assert len(losses(tmp_path / "run")) == 4
    # An earlier version, which did not have every setting yet, has noted what it was told.
    card = tmp_path / "run" / "train.json"
    told = json.loads(card.read_text())
    del told["parts"][0]["max_task_tokens"], told["settings"]["prompt_weight_end"]
    del told["lora"]["dtype"], told["lora"]["embedding_learning_rate"]
    card.write_text(json.dumps(told))
    train(config_of(tiny_model, tmp_path / "run", data, steps=5))
    assert len(losses(tmp_path / "run")) == 5


def test_embeddings_and_output_layer_are_trained_at_their_own_rate_and_go_on(tmp_path: Path, tiny_model: Path) -> None:
    ends = ("q_proj", "embed_tokens", "lm_head")
    lora = LoraSettings(rank=2, targets=ends, embedding_learning_rate=1e-4)
    data = write_data(tmp_path)
    for name, steps in (("whole", (4,)), ("cut", (2, 4))):
        for count in steps:
            train(
                replace(
                    config_of(tiny_model, tmp_path / name, data, steps=count, loaders=0, schedule="constant", save_dtype="bfloat16"),
                    lora=lora,
                )
            )
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())
    tensors = load_file(tmp_path / "whole" / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    change = {
        name: float(tensor.float().abs().max()) for name, tensor in tensors.items() if name.endswith(("embedding_A", "lora_B.weight"))
    }
    slow = max(value for name, value in change.items() if "q_proj" not in name)
    assert 0 < 10 * slow < max(value for name, value in change.items() if "q_proj" in name)


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


class FakeWandb(ModuleType):
    """What a training uses of wandb, with the runs and the points that it was given."""

    class Error(Exception):
        pass

    def __init__(self, mode: str, fault: str = ""):
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.mode, self.fault, self.runs, self.points = mode, fault, list[dict[str, Any]](), list[tuple[int, dict[str, float]]]()

    def setup(self) -> SimpleNamespace:
        return SimpleNamespace(settings=SimpleNamespace(mode=self.mode, api_key=None, base_url="https://api.wandb.example/x"))

    def init(self, **told: Any) -> SimpleNamespace:
        if self.fault:
            raise self.Error(self.fault)
        self.runs.append(told)
        return SimpleNamespace(log=lambda values, step: self.points.append((step, values)), finish=lambda: None)


def test_wandb_has_one_run_over_all_resumes(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = replace(config_of(tiny_model, tmp_path / "run", write_data(tmp_path), steps=3, eval_every=2, eval_samples=2), wandb="project")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb("online"))
    with pytest.raises(ConfigError, match=r"--wandb: no key for https://api.wandb.example/x; set WANDB_API_KEY, or WANDB_MODE=offline"):
        train(told)
    assert not (tmp_path / "run").exists()
    (tmp_path / "netrc").write_text("machine api.wandb.example login user password secret")
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb("online", "no such\nproject"))
    with pytest.raises(ConfigError, match="--wandb: no such project; set WANDB_MODE=offline"):
        train(told)
    (tmp_path / "netrc").write_text("not a netrc")
    wandb = FakeWandb("offline")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    train(told)
    train(replace(told, settings=replace(told.settings, steps=5)))
    (one, other), folder = wandb.runs, tmp_path / "run"
    assert (one["id"], one["project"], one["dir"], one["resume"]) == (other["id"], "project", folder, "allow")
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [{"step": step, **values} for step, values in wandb.points] == lines
    assert {"loss", "learning_rate", "grad_norm", "tokens", "eval_loss"} <= {name for line in lines for name in line}


def test_wandb_offline_for_real(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    told = replace(config_of(tiny_model, tmp_path / "run", write_data(tmp_path), steps=3), wandb="project")
    for steps in (3, 5):
        train(replace(told, settings=replace(told.settings, steps=steps)))
    (name,) = {path.name for path in (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")}
    assert name == f"run-{(tmp_path / 'run' / 'wandb_id').read_text()}.wandb"
    assert all(b"grad_norm" in path.read_bytes() for path in (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))


def test_what_evaluations_draw_from_is_not_learnt(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path)
    (tmp_path / "eval_challenges.json").write_text(json.dumps(dict(list(json.loads(data.read_text()).items())[:2])))
    evaluated = MixturePart(str(tmp_path / "eval_challenges.json"), PROMPT)
    told = replace(config_of(tiny_model, tmp_path / "run", data, steps=2), eval_parts=(evaluated,))
    with pytest.raises(DataError, match=r"2 of \d+ tasks repeat tasks of .*eval_challenges.json, which models are measured on"):
        train(told)
    assert train(replace(told, drop_benchmarks=True))["eval_loss"] > 0
    assert f"for evaluations: {evaluated.data}, {PROMPT}: " in capsys.readouterr().out
    large = {
        "train": [{"input": [[1] * 20] * 20, "output": [[2] * 20] * 20}, {"input": [[3]], "output": [[4]]}] * 2,
        "test": [{"input": [[5]]}],
    }
    (tmp_path / "large.json").write_text(json.dumps(large))
    train(replace(told, out=tmp_path / "large", eval_parts=(replace(evaluated, data=str(tmp_path / "large.json")),)))
    assert re.search(r"for evaluations: .*large.json.*WARNING: \d+% of its pairs do not fit in 256 tokens", capsys.readouterr().out)
    trained_on = open_packed(tmp_path / "run" / "data" / "part-0").ids
    assert trained_on
    assert not set(trained_on) & set(json.loads((tmp_path / "eval_challenges.json").read_text()))


def test_evaluations_on_what_is_trained_on_say_so(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path)
    held_out = write_held_out(tmp_path)
    entries = {f"renamed-{i}": entry for i, entry in enumerate(json.loads(data.read_text()).values())}
    mixed = {**dict(list(entries.items())[:1]), **json.loads(Path(held_out.data).read_text())}
    (tmp_path / "eval_challenges.json").write_text(json.dumps(mixed))
    evaluated = (MixturePart(str(tmp_path / "eval_challenges.json"), PROMPT),)
    told = replace(config_of(tiny_model, tmp_path / "run", data, steps=2, eval_every=1, eval_samples=2), eval_parts=evaluated)
    assert "eval_overlap" not in train(replace(told, out=tmp_path / "honest"))  # few repeated tasks are left out
    assert "1 tasks repeat benchmark tasks and were dropped" in capsys.readouterr().out
    for _ in range(2):  # the second time nothing is left to do
        assert train(replace(told, allow_overlap=True))["eval_overlap"] == 0.25
        assert "evaluations (--allow-overlap): 1 of their 4 tasks are trained on too" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line.get("eval_overlap") for line in lines if "eval_loss" in line] == [0.25, 0.25]
    assert cli.main(["plot", "learning", "--run", str(tmp_path / "run"), "--run", str(tmp_path / "honest"), "--json"]) == 0
    printed = capsys.readouterr().out
    assert "evaluations, 25 % of their tasks trained on: " in printed
    assert "  evaluations: " in printed
    with pytest.raises(ConfigError, match="--allow-overlap is about --eval-data, which is missing"):
        replace(told, eval_parts=(), allow_overlap=True)


def test_a_training_goes_on_with_the_data_it_began_with_or_not_at_all(tmp_path: Path, tiny_model: Path) -> None:
    data, out = write_data(tmp_path), tmp_path / "run"
    train(config_of(tiny_model, out, data, steps=2))
    whole = data.read_text()
    data.write_text(whole)  # the same at another time, as where a job copies its data anew
    train(config_of(tiny_model, out, data, steps=3))
    data.write_text(json.dumps(dict(list(json.loads(whole).items())[1:])))
    noted = (out / "train.json").read_text()
    with pytest.raises(DataError, match="not the data that this training started with"):
        train(config_of(tiny_model, out, data, steps=4))
    assert len(losses(out)) == 3
    assert (out / "train.json").read_text() == noted, "what was refused is not what the next command has to go by"
    data.write_text(whole)
    train(config_of(tiny_model, out, data, steps=4))
    train(config_of(tiny_model, tmp_path / "straight", data, steps=4))
    assert weights(out).keys() == weights(tmp_path / "straight").keys()
    assert "eval_loss" in train(replace(config_of(tiny_model, out, data, steps=5), eval_parts=(write_held_out(tmp_path),)))
    held_out = tmp_path / "held_out_challenges.json"
    held_out.write_text(json.dumps({"task001": json.loads(whole)["task001"]}))
    guarded = replace(config_of(tiny_model, out, data, steps=5), benchmarks=(str(held_out),), drop_benchmarks=True)
    with pytest.raises(DataError, match="a benchmark has changed"):
        train(guarded)


def test_a_training_goes_on_with_the_weights_it_began_with_wherever_they_lie(tmp_path: Path, tiny_model: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    config = config_of(model, tmp_path / "run", write_data(tmp_path), steps=3)
    train(config)
    moved = model.rename(tmp_path / "elsewhere")
    longer = replace(config, settings=replace(config.settings, steps=4))
    assert train(replace(longer, model=moved))["step"] == 4
    shutil.copytree(moved, model)
    tensors = load_file(model / "model.safetensors")
    save_file({name: tensor * 0.9 for name, tensor in tensors.items()}, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"the training there has another --model \(by model\.safetensors\); give the same"):
        train(longer)
    with pytest.raises(ConfigError, match=r"has another --data or --mixture, --seed, --learning-rate; give"):
        train(replace(longer, model=moved, parts=longer.parts * 2, seed=1, settings=replace(longer.settings, learning_rate=1e-4)))


def test_data_that_has_changed_is_packed_anew(tmp_path: Path, tiny_model: Path) -> None:
    """Outputs of tests that came later are learnt, and what a file of measured tasks gained is guarded against."""

    def packed(**settings: Any) -> tuple[int, list[str]]:
        folders, _ = prepare_data(replace(config_of(tiny_model, tmp_path / "run", data), **settings), Processes(0, 1, CPU), notes.append)
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
        assert packed(benchmarks=(str(held_out),), drop_benchmarks=True)[1] == ids[count:]
    held_out.write_text(json.dumps({**dict(list(tasks.items())[:3]), "bad": {"train": [], "test": []}}))
    notes.clear()
    packed(benchmarks=(str(held_out),), drop_benchmarks=True)
    assert any("not guarded against" in note and "bad" in note for note in notes)


def test_a_training_stopped_before_its_first_step_begins_again(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(tiny_model, tmp_path / "run", write_data(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(base, "stop_signals", lambda: contextlib.nullcontext([signal.SIGTERM]))
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


def test_what_would_be_of_no_use_is_refused_before_anything_is_read(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["train", "--model", str(tiny_model), "--out", str(tmp_path), "--data", f"nowhere,{PROMPT}"]
    for more, says in (
        (["--full", "--lora-rank", "8"], "--full with --lora-rank: all weights are trained"),
        (["--threads", "0"], "--threads 0: at least 1"),
        (["--base-adapter", str(tiny_model)], "adapter_config.json is missing; give a folder in PEFT format"),
        (["--lora-targets", "foo"], "--lora-targets foo: "),
        (["--mixture", str(tmp_path / "none.json")], "none.json: cannot be read"),
    ):
        assert cli.main([*told, *more]) == 1
        said = capsys.readouterr().err
        assert says in said
        assert "Traceback" not in said


def test_what_is_measured_is_not_learnt(tmp_path: Path, tiny_model: Path) -> None:
    data = write_data(tmp_path)
    config = config_of(tiny_model, tmp_path / "run", data)
    guarded = TrainConfig(**{**vars(config), "benchmarks": (str(data),)})
    with pytest.raises(DataError, match="6 of 6 tasks repeat"):
        train(guarded)

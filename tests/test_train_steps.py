"""The parts of a training step: passes, losses, optimizers, rates, checkpoints, merged adapters, and settings that are refused."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from strategies import random_grid
from trainings import CPU, PROMPT
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM

from arc_submit import cli
from arc_submit.arc.task import Pair
from arc_submit.base_model.adapter_files import applied, read_adapter
from arc_submit.base_model.loading import load_tokenizer
from arc_submit.base_model.lora import attach, save_adapter
from arc_submit.base_model.pocket import make_pocket_tokenizer, pocket_config, pocket_folder
from arc_submit.base_model.precision import TrainingPrecision
from arc_submit.base_model.saving import merge_adapter, save_model
from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ArcSubmitError, ConfigError, DataError
from arc_submit.finetune.loss import batch_loss, full_loss
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_config import CONFIG_FILE, PromptConfig
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version
from arc_submit.train import step as learning
from arc_submit.train.checkpoints import checkpoint_folders, load_optimizers, optimizer_state, read_state, save_checkpoint
from arc_submit.train.config import OPTIMIZERS, TrainConfig, TrainSettings
from arc_submit.train.mixture import MixturePart, TokenSample
from arc_submit.train.new_pocket import add_columns, make_start
from arc_submit.train.step import (
    Trainable,
    cut_passes,
    make_optimizers,
    make_pass,
    rate_factor,
    take_step,
)

FLOAT32 = TrainingPrecision(torch.float32, None, False, "a test")


def samples_of(lengths: list[int], seed: int = 0) -> list[TokenSample]:
    """Samples of random tokens, the last third of each in the loss mask."""
    rng = np.random.default_rng(seed)
    samples = []
    for number, length in enumerate(lengths):
        loss_mask = np.zeros(length, dtype=np.bool_)
        loss_mask[-max(1, length // 3) :] = True
        samples.append(TokenSample(number, 0, 0, rng.integers(5, 45, length).astype(np.int32), loss_mask, length - 1, 1, False))
    return samples


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_passes_change_nothing_and_the_loss_is_the_plain_one(tiny_model: Path, weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a step is cut into passes, the gradient is that of transformers' own logits of each sample alone, without padding."""
    model = load(tiny_model)
    samples = samples_of([40, 9, 33, 40, 21])
    total = sum(int(sample.loss_mask.sum()) for sample in samples)
    expected = torch.zeros(())
    for sample in samples:
        ids = torch.from_numpy(sample.ids.astype(np.int64))
        by_token = torch.nn.functional.cross_entropy(model(input_ids=ids[None]).logits[0, :-1], ids[1:], reduction="none")
        expected = expected + (by_token * torch.where(torch.from_numpy(sample.loss_mask[1:]), 1.0, weight)).sum() / total
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
            batch, in_mask = make_pass(rows, weight, total, CPU)
            loss, by_token = full_loss(model, batch, FLOAT32)
            assert len(by_token) == len(in_mask)
            assert int(in_mask.sum()) == sum(int(sample.loss_mask.sum()) for sample in rows)
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


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_go_on_from_a_checkpoint_to_the_bit(tmp_path: Path, optimizer: str) -> None:
    def make() -> tuple[Trainable, list[torch.optim.Optimizer]]:
        make_start(tmp_path / "start", 64, 1, 64, 3)
        model = load(tmp_path / "start")
        parameters = list(model.parameters())
        gradient = torch.zeros(sum(p.numel() for p in parameters))
        for parameter, part in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)
        trainable = Trainable(model, None, parameters, gradient, FLOAT32, torch.amp.GradScaler("cpu", enabled=False))
        return trainable, make_optimizers(trainable, TrainSettings(full=True, optimizer=optimizer, learning_rate=1e-2))

    def step(trainable: Trainable, optimizers: list[torch.optim.Optimizer], number: int) -> None:
        trainable.gradient.copy_(torch.randn(len(trainable.gradient), generator=torch.Generator().manual_seed(number)))
        take_step(trainable, optimizers, 1.0)

    trainable, optimizers = make()
    for number in range(3):
        step(trainable, optimizers, number)
    folder = save_checkpoint(tmp_path / "checkpoints", 3, {}, optimizer_state(optimizers), lambda _: None, 1)
    saved = [parameter.detach().clone() for parameter in trainable.parameters]
    other, others = make()
    with torch.no_grad():
        for parameter, value in zip(other.parameters, saved, strict=True):
            parameter.copy_(value)
    load_optimizers(folder, read_state(folder), others)
    for number in range(3, 5):
        step(trainable, optimizers, number)
        step(other, others, number)
    assert all(torch.equal(a, b) for a, b in zip(trainable.parameters, other.parameters, strict=True))


def test_a_checkpoint_that_was_cut_short_does_not_count(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "half").write_text("a")
        raise OSError(28, "No space left on device")

    save_checkpoint(tmp_path, 1, {"tokens": 5}, ({}, {}), lambda _: None, 2)
    with pytest.raises(DataError, match="free some disk space"):
        save_checkpoint(tmp_path, 2, {}, ({}, {}), broken, 2)
    assert checkpoint_folders(tmp_path) == [tmp_path / "step-00000001"]
    for step in (3, 4):
        save_checkpoint(tmp_path, step, {}, ({}, {}), lambda _: None, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]
    # A copy goes by name and may be cut off between a checkpoint's state and its weights.
    for cut in ("optimizer.safetensors", "weights/part.txt"):
        folder = tmp_path / "copied"
        for step in (1, 2):
            save_checkpoint(
                folder, step, {}, ({}, {}), lambda to: (to / "weights").mkdir() or (to / "weights" / "part.txt").write_text("w"), 2
            )
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
    PromptConfig("CompactGridEncoder()", PROMPT, 300).save(tmp_path / "adapter")
    base = shutil.copytree(tiny_model, tmp_path / "base")
    for name in ("README.md", "training_log.jsonl", "LICENSE"):
        (base / name).write_text("of the base alone")
    figures = ["merge", "--model", str(base), "--adapter", str(tmp_path / "adapter"), "--out", str(tmp_path / "merged")]
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
    assert json.loads((tmp_path / "merged" / CONFIG_FILE).read_text())["max_seq_len"] == 300
    assert {path.name for path in (tmp_path / "merged").iterdir()} == {path.name for path in tiny_model.iterdir()} | {
        CONFIG_FILE,
        "LICENSE",
    }
    assert (tmp_path / "merged" / "tokenizer.json").read_bytes() == (pocket_folder() / "tokenizer.json").read_bytes()
    with pytest.raises(ConfigError, match="not empty"):
        merge_adapter(tiny_model, tmp_path / "adapter", tmp_path / "merged")


def auto_tokenizer_differs(folder: Path, spec: str) -> list[str]:
    """The texts of random chats, and of every token, that AutoTokenizer reads or writes otherwise than PromptTokenizer does."""
    own, auto = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokenizer = PromptTokenizer(own, make_encoder(spec), prompt_version("output-from-turns-v0"))
    rng, differing = np.random.default_rng(0), []
    for _ in range(30):
        grids = [random_grid(rng) for _ in range(4)]
        ids, _ = tokenizer.sample_ids(tokenizer.prompt.turns([Pair(grids[0], grids[1])], grids[2]), grids[3])
        text = own.decode(ids)
        if auto.encode(text) != ids or auto.decode(ids) != text:
            differing.append(text)
    return differing + [own.decode([token]) for token in range(len(own)) if auto.decode([token]) != own.decode([token])]


def test_transformers_own_loader_reads_the_pocket_models_tokens(tmp_path: Path) -> None:
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copyfile(pocket_folder() / name, tmp_path / name)
    make_pocket_tokenizer().save_pretrained(tmp_path)  # as a start, a merge and a full training do
    assert (tmp_path / "tokenizer.json").read_bytes() == (pocket_folder() / "tokenizer.json").read_bytes()
    assert not auto_tokenizer_differs(pocket_folder(), "ColumnGridEncoder()")
    assert not auto_tokenizer_differs(tmp_path, "CompactGridEncoder()")


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
        ({"prompt_weight": 2.0}, "--prompt-weight 2: at most 1"),
        ({"fsdp": True, "in_4_bits": True}, "--fsdp divides plain weights, not those in 4 bits"),
        ({"fsdp": True, "full": True, "optimizer": "muon"}, "--optimizer muon needs whole matrices, which --fsdp divides"),
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


def test_one_process_divides_nothing(tiny_model: Path, tmp_path: Path) -> None:
    config = TrainConfig(tiny_model, tmp_path / "out", (MixturePart("x", PROMPT),), TrainSettings(fsdp=True))
    with pytest.raises(ConfigError, match="--fsdp divides the model over several processes: start with torchrun"):
        learning.load_trainable(config, CPU, None)


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
    save_model(small, make_pocket_tokenizer(), PromptConfig("CompactGridEncoder()", PROMPT, 256), tmp_path / "compact", torch.float32)
    count = add_columns(tmp_path / "compact", tmp_path / "columns", 256, 0)
    made, before = (load_file(tmp_path / name / "model.safetensors") for name in ("columns", "compact"))
    assert count == sum(tensor.numel() for tensor in made.values())
    assert all(torch.equal(made[name], tensor) for name, tensor in before.items() if "layers" in name)
    table, digits = made["model.embed_tokens.weight"], before["model.embed_tokens.weight"][5:15]
    assert torch.equal(table[:45], before["model.embed_tokens.weight"][:45])
    cells = table[45:345].view(30, 10, -1)
    torch.testing.assert_close(cells - cells[:, :1], (digits - digits[:1]).expand(30, 10, -1))  # colours differ as digits do
    assert torch.pdist(cells[:, 0]).min() > 0.1 * digits.std()  # and so do columns
    assert json.loads((tmp_path / "columns" / CONFIG_FILE).read_text())["grid_encoder"] == "ColumnGridEncoder()"
    with pytest.raises(ConfigError, match="352 tokens"):
        add_columns(tmp_path / "columns", tmp_path / "again", 256, 0)

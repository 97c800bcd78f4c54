"""Adapters of the embeddings and of the output layer, with weights of their own and with shared ones: the same numbers as PEFT's."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from families import CPU, make_eager, make_model, measure
from safetensors.torch import load_file, save_file

from arc_submit.base_model.adapter_files import WEIGHTS, applied, check_adapter, factor_names, read_adapter
from arc_submit.base_model.checks import adapter_values
from arc_submit.base_model.loading import load_model
from arc_submit.base_model.lora import Adapter, attach, reset, save_adapter
from arc_submit.base_model.memory import Footprint, shape_of
from arc_submit.base_model.pocket import make_pocket_tokenizer
from arc_submit.base_model.precision import TrainingPrecision
from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError
from arc_submit.finetune import trainer
from arc_submit.finetune.loss import MicroBatch, batch_loss, make_batches
from arc_submit.finetune.samples import Sample, TaskSampler
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.finetune.trainer import JointSamples, finetune_task
from arc_submit.inference.engine import NotServedError, Request
from arc_submit.inference.load_transformers import load_transformers_engine
from arc_submit.inference.vllm_engine import VllmEngine
from arc_submit.options import identity_values
from arc_submit.run.config import RunConfig
from arc_submit.train.config import TrainSettings
from arc_submit.train.step import Trainable, make_optimizers

ENDS = ("embed_tokens", "lm_head")
SETTINGS = LoraSettings(rank=3, alpha=5, rslora=True, targets=("q_proj", *ENDS))
FLOAT32 = TrainingPrecision(torch.float32, None, False, "a test")
# With the padding token 0 in the middle, whose column PEFT does not learn.
SAMPLES = [Sample([5, 6, 0, 7, 8, 9, 10, 11, 5], [4, 5, 6, 7, 8]), Sample([40, 41, 42, 43, 0, 45, 46], [5, 6])]


@pytest.mark.parametrize(
    ("family", "targets", "tied"),
    [
        ("Qwen3", SETTINGS.targets, True),  # two changes of one shared weight
        ("Gemma 3", ENDS, True),  # scales its embeddings inside their layer
        # A soft cap behind the output layer; merged, the embeddings stay.
        pytest.param("Gemma 2", ("lm_head",), True, marks=pytest.mark.campaign),
        ("LFM2", ("embed_tokens",), False),  # the engine without slots
    ],
)
def test_the_ends_of_a_model_are_served_scored_searched_fine_tuned_and_merged_as_by_peft(
    family: str, targets: tuple[str, ...], tied: bool, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    deviation = asdict(measure(family, tmp_path, targets, tie_word_embeddings=tied))
    assert deviation.pop("greedy") == 0
    assert max(deviation.values()) < 2e-5, deviation
    merged = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert merged["tie_word_embeddings"] is False
    names = {
        name for name in load_file(tmp_path / "merged" / "model.safetensors") if name.endswith(("embed_tokens.weight", "lm_head.weight"))
    }
    assert len(names) == 2


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings and output layer share their weights, and logits are scaled."""
    folder = tmp_path_factory.mktemp("base")
    make_model("Granite", tie_word_embeddings=True).save_pretrained(folder)
    make_pocket_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untied")
    make_model("Granite", tie_word_embeddings=False).save_pretrained(folder)
    make_pocket_tokenizer().save_pretrained(folder)
    return folder


def fresh(base: Path) -> Any:
    return load_model(base, CPU, torch.float32, "sdpa")


def trained(base: Path, settings: LoraSettings = SETTINGS, seed: int = 0, strength: float = 0.1) -> Adapter:
    """An adapter with other values in every place, as after training."""
    adapter = attach(fresh(base), settings, 1)
    with torch.no_grad():
        adapter.flat.add_(torch.randn(adapter.flat.shape, generator=torch.Generator().manual_seed(seed)), alpha=strength)
    return adapter


def batch() -> MicroBatch:
    return make_batches([SAMPLES], 2, CPU)[0]


@pytest.mark.parametrize("settings", [SETTINGS, LoraSettings(rank=3, targets=("lm_head",), dora=True)], ids=["ends", "dora"])
@pytest.mark.parametrize("folder", ["base", "untied"])
def test_the_gradient_of_the_loss_in_pieces_is_peft_s(
    folder: str, settings: LoraSettings, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel

    base: Path = request.getfixturevalue(folder)
    adapter = trained(base, settings)
    save_adapter(adapter, tmp_path / "a")
    theirs = PeftModel.from_pretrained(make_eager(base), tmp_path / "a", is_trainable=True, local_files_only=True).eval()
    losses = [
        torch.nn.functional.cross_entropy(theirs(input_ids=torch.tensor([s.ids])).logits[0, [p - 1 for p in s.positions]], labels)
        for s in SAMPLES
        for labels in [torch.tensor(s.ids)[s.positions]]
    ]
    expected = (5 * losses[0] + 2 * losses[1]) / 7
    expected.backward()
    wanted = {
        name.replace(".default", "").replace("vector.weight", "vector"): parameter.grad
        for name, parameter in theirs.named_parameters()
        if "lora_" in name
    }
    found = []
    for logits in (1 << 26, 2 * 96):
        monkeypatch.setattr("arc_submit.finetune.loss._LOGITS", logits)
        assert adapter.flat.grad is not None
        adapter.flat.grad.zero_()
        loss, _ = batch_loss(adapter.model, batch(), FLOAT32)
        (3 * loss).backward()  # as a scaler of the loss does
        assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
        found.append(adapter.flat.grad.clone())
    torch.testing.assert_close(found[1], found[0])
    for name, layer in adapter.layers.items():
        for factor, gradient in zip(factor_names(name, layer.base), layer.gradients, strict=False):
            assert wanted[factor].abs().max() > 0
            torch.testing.assert_close(gradient, 3 * wanted[factor], rtol=1e-3, atol=1e-5)
    if "embed_tokens" in settings.targets:
        assert not adapter.layers["model.embed_tokens"].gradients[0][:, 0].any(), "the padding's column is not learnt"


def test_an_adapter_starts_at_the_base_and_is_read_back(base: Path, tmp_path: Path) -> None:
    ids = torch.tensor([SAMPLES[0].ids])
    adapter = attach(fresh(base), SETTINGS, 1)
    with torch.no_grad():
        torch.testing.assert_close(adapter.model(input_ids=ids).logits, fresh(base)(input_ids=ids).logits)
        begun = adapter.flat.detach().clone()
        adapter.flat.add_(0.05)
        save_adapter(adapter, tmp_path / "a")
        changed = adapter.model(input_ids=ids).logits
        reset(adapter)
        assert torch.equal(adapter.flat, begun)
        plain = fresh(base)
        with applied(plain, read_adapter(tmp_path / "a", plain)):
            torch.testing.assert_close(plain(input_ids=ids).logits, changed, rtol=1e-4, atol=1e-4)
        continued = attach(fresh(base), replace(LoraSettings(), embedding_learning_rate=1e-5), 0, tmp_path / "a")
        torch.testing.assert_close(continued.model(input_ids=ids).logits, changed)
    assert (set(continued.settings.targets), continued.settings.embedding_learning_rate) == ({"q_proj", *ENDS}, 1e-5)
    assert adapter.flat.numel() == adapter_values(base, SETTINGS) == adapter_values(base, SETTINGS, tmp_path / "a")


def test_adapters_of_the_ends_take_turns_in_the_slots(base: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders):
        save_adapter(trained(base, seed=seed, strength=1.0), folder)
    engine = load_transformers_engine(base, CPU, 3)[0]
    requests = [Request(f"{which}-{n}", [5, 6, 7 + n], 6, which) for n in range(3) for which in (None, *folders)]
    together = {done.id: done.tokens for done in engine.generate(requests)}
    alone = {done.id: done.tokens for one in requests for done in engine.generate([one])}
    assert together == alone
    assert len({tuple(together[f"{which}-0"]) for which in (None, *folders)}) == 3


def test_a_copy_of_other_embeddings_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = trained(base)
    save_adapter(adapter, tmp_path / "a")
    tensors = load_file(tmp_path / "a" / WEIGHTS)
    copy, key = adapter.layers["model.embed_tokens"].weight.detach().clone(), "base_model.model.model.embed_tokens.base_layer.weight"
    model = fresh(base)
    save_file({**tensors, key: copy.to(torch.bfloat16)}, tmp_path / "a" / WEIGHTS)
    assert read_adapter(tmp_path / "a", model)
    for other in (copy + 0.1, torch.cat([copy, copy[:1]])):
        save_file({**tensors, key: other}, tmp_path / "a" / WEIGHTS)
        with pytest.raises(ConfigError, match=r"its model\.embed_tokens is not the base's.*merge it into"):
            read_adapter(tmp_path / "a", model)
        with pytest.raises(ConfigError, match="is not the base's"):
            attach(model, LoraSettings(), 0, tmp_path / "a")


def test_vllm_leaves_such_adapters_to_the_next_engine(base: Path, tmp_path: Path) -> None:
    for name in ENDS:
        save_adapter(attach(fresh(base), replace(SETTINGS, targets=(name,)), 0), tmp_path / name)
        engine = VllmEngine(None, fresh(base), 2, 64, 2, 8)
        with pytest.raises(NotServedError, match=f"uses {name}, which vllm does not serve"):
            engine.check_adapter(tmp_path / name)
    with pytest.raises(ConfigError, match="--ttft-engine vllm does not serve adapters of embed_tokens and lm_head"):
        RunConfig(lora=SETTINGS, ttft_engine="vllm")


def test_the_ends_have_a_learning_rate_of_their_own(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TaskSampler, "__post_init__", lambda self: None)
    monkeypatch.setattr(TaskSampler, "check", lambda self, task: [])
    sampler = TaskSampler(None, TTFTSettings(steps=3, learning_rate=1e-2, schedule="cosine"), 64, 0)  # type: ignore[arg-type]
    task = trainer.Task("t", (), ())

    def tune(own: float | None) -> dict[str, torch.Tensor]:
        adapter = attach(fresh(base), replace(SETTINGS, embedding_learning_rate=own), 1)
        finetune_task(adapter, sampler, task, joint=JointSamples("two", lambda sampler, step: SAMPLES))
        initial = attach(fresh(base), SETTINGS, 1)
        reset(initial, trainer.task_seed(0, task))
        return {name: layer.up - initial.layers[name].up for name, layer in adapter.layers.items()}

    same, equal, slow = tune(None), tune(1e-2), tune(1e-5)
    for name, change in same.items():
        assert torch.equal(equal[name], change), "parts of the flat tensor are trained as the whole"
        if name.rpartition(".")[2] in ENDS:
            assert 0 < slow[name].abs().max() < 2e-3 * change.abs().max()
        else:
            assert slow[name].abs().max() > 0.3 * change.abs().max()
    adapter = attach(fresh(base), replace(SETTINGS, embedding_learning_rate=1e-5), 1)
    assert adapter.flat.grad is not None
    trainable = Trainable(
        adapter.model, adapter, [adapter.flat], adapter.flat.grad.view(-1), FLOAT32, torch.amp.GradScaler("cpu", enabled=False)
    )
    (optimizer,) = make_optimizers(trainable, TrainSettings(learning_rate=1e-3))
    assert {group["peak"] for group in optimizer.param_groups} == {1e-3, 1e-5}
    assert sum(one.numel() for group in optimizer.param_groups for one in group["params"]) == adapter.flat.numel()


def test_a_run_that_began_before_goes_on() -> None:
    assert "lora_embedding_learning_rate" not in identity_values(LoraSettings(), "lora_")
    assert identity_values(LoraSettings(embedding_learning_rate=1e-5), "lora_")["lora_embedding_learning_rate"] == 1e-5


@pytest.mark.parametrize("tied", [True, False])
def test_the_memory_plan_counts_the_ends(tied: bool) -> None:
    model = make_model("Qwen3", tie_word_embeddings=tied)
    shape = shape_of(model.config.to_dict())
    assert shape is not None
    settings = replace(SETTINGS, targets=(*LoraSettings().targets, *ENDS))
    footprint, plain = Footprint(shape, settings), Footprint(shape, replace(settings, targets=LoraSettings().targets))
    assert footprint.adapter_values == attach(model, settings, 0).flat.numel()
    more = footprint.adapter_values - plain.adapter_values
    assert footprint.training_peak(100, 50, False) >= plain.training_peak(100, 50, False) + 20 * more


def test_the_configuration_of_an_adapter_names_its_ends(base: Path, tmp_path: Path) -> None:
    save_adapter(trained(base), tmp_path / "a")
    config, scales = check_adapter(tmp_path / "a", fresh(base))
    assert set(config.targets) == {"q_proj", *ENDS}
    assert {name.rpartition(".")[2] for name in scales} == set(config.targets)

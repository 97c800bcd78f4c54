"""Test-time fine-tuning: the true loop on a two-layer model."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arc_submit.arc.grid import frozen
from arc_submit.arc.task import Pair, Task
from arc_submit.base_model.loading import load_model
from arc_submit.base_model.lora import Adapter, attach, save_adapter
from arc_submit.base_model.output_head import OutputHead
from arc_submit.base_model.pocket import make_pocket_tokenizer
from arc_submit.base_model.precision import TrainingPrecision, choose_training_precision, repair_attention
from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError
from arc_submit.finetune import trainer
from arc_submit.finetune.loss import batch_loss, make_batches
from arc_submit.finetune.samples import Sample, TaskSampler
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.finetune.trainer import FinetuneError, Hooks, finetune_task, rate_factor
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version
from arc_submit.language.truncation import PromptTooLongError

CPU = torch.device("cpu")
TOKENIZER = PromptTokenizer(make_pocket_tokenizer(), make_encoder("CompactGridEncoder()"), prompt_version("output-from-turns-v0"))
LORA = LoraSettings(rank=8)
QUICK = TTFTSettings(steps=6, learning_rate=1e-2)


def make_task(name: str, pairs: int = 3, side: int = 4, seed: int = 0) -> Task:
    """A task whose outputs are its inputs mirrored."""
    rng = np.random.default_rng(seed)
    grids = [frozen(rng.integers(0, 10, rng.integers(2, side + 1, 2))) for _ in range(pairs + 1)]
    return Task(name, tuple(Pair(grid, frozen(grid[:, ::-1])) for grid in grids[:-1]), (grids[-1],))


TASKS = [make_task(f"task{i}", 2 + i % 3, 3 + i % 4, i) for i in range(10)]


def adapted(folder: Path, **changes: Any) -> Adapter:
    torch.set_num_threads(1)
    return attach(load_model(folder, CPU, torch.float32, "sdpa"), replace(LORA, **changes), seed=0)


def sampler(settings: TTFTSettings = QUICK, max_seq_len: int = 512, seed: int = 0) -> TaskSampler:
    return TaskSampler(TOKENIZER, settings, max_seq_len, seed)


def tune(adapter: Adapter, task: Task, settings: TTFTSettings = QUICK, seed: int = 0) -> torch.Tensor:
    finetune_task(adapter, sampler(settings, seed=seed), task)
    return adapter.flat.detach().clone()


@pytest.mark.parametrize("loss_on", ["answer", "outputs", "all"])
def test_the_loss_falls(tiny_model: Path, loss_on: str) -> None:
    steps: list[tuple[int, float]] = []
    settings = TTFTSettings(steps=40, learning_rate=1e-2, loss_on=loss_on)
    result = finetune_task(adapted(tiny_model), sampler(settings), TASKS[1], Hooks(lambda step, loss: steps.append((step, loss))))
    assert np.mean(result.losses[-8:]) < np.mean(result.losses[:8]) - 1
    assert steps == list(enumerate(result.losses, 1))
    assert result.tokens > result.learned_tokens > 0
    assert result.seconds > 0


def test_every_pass_of_a_step_shows_that_the_worker_lives(tiny_model: Path) -> None:
    calls: list[str] = []
    settings = replace(QUICK, steps=2, accumulation=3)
    hooks = Hooks(lambda *_: calls.append("step"), lambda: calls.append("pass"))
    finetune_task(adapted(tiny_model), sampler(settings), TASKS[1], hooks)
    assert calls == [*["pass"] * 3, "step"] * 2


def test_ten_tasks_leave_the_base_as_it_was_and_each_other_alone(tiny_model: Path) -> None:
    adapter = adapted(tiny_model)
    base = {name: layer.base.weight.clone() for name, layer in adapter.layers.items()}
    state = {name: tensor.clone() for name, tensor in adapter.model.state_dict().items()}
    found = [tune(adapter, task) for task in TASKS]
    assert all(torch.equal(adapter.layers[name].base.weight, weight) for name, weight in base.items())
    assert all(torch.equal(tensor, state[name]) for name, tensor in adapter.model.state_dict().items())
    assert len({tuple(one.flatten()[:50].tolist()) for one in found}) == 10
    for number in (7, 2):
        assert torch.equal(tune(adapter, TASKS[number]), found[number]), "after other tasks"
    assert torch.equal(tune(adapted(tiny_model), TASKS[2]), found[2]), "in a process of its own"
    assert not torch.equal(tune(adapter, TASKS[2], seed=1), found[2])


def test_a_continued_adapter_starts_from_its_base_adapter(tiny_model: Path, tmp_path: Path) -> None:
    first = adapted(tiny_model)
    tune(first, TASKS[0])
    save_adapter(first, tmp_path / "base")
    model = load_model(tiny_model, CPU, torch.float32, "sdpa")
    adapter = attach(model, LORA, seed=0, base_adapter=tmp_path / "base")
    one = tune(adapter, TASKS[1])
    tune(adapter, TASKS[2])
    assert torch.equal(tune(adapter, TASKS[1]), one)
    again = finetune_task(adapter, sampler(), TASKS[0]).losses[0]
    assert again < finetune_task(first, sampler(), TASKS[0]).losses[0], "what the base adapter had learned is lost"


@pytest.mark.parametrize("changes", [{}, {"init": "pissa", "rank": 2}, {"dora": True}], ids=str)
def test_peft_loads_what_was_learnt(tiny_model: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    from peft import PeftModel

    adapter = adapted(tiny_model, **changes)
    tune(adapter, TASKS[3], replace(QUICK, learning_rate=1e-3))
    save_adapter(adapter, tmp_path / "a")
    theirs = PeftModel.from_pretrained(load_model(tiny_model, CPU, torch.float32, "sdpa"), tmp_path / "a", local_files_only=True)
    ids = torch.tensor([sampler().draw(TASKS[3], 0).ids])
    with torch.no_grad():
        assert torch.allclose(adapter.model(ids).logits, theirs(ids).logits, atol=1e-3)


def alone_start(adapter: Adapter, task: Task) -> torch.Tensor:
    """The values from which a task starts."""
    from arc_submit.base_model.lora import reset
    from arc_submit.finetune.trainer import task_seed

    reset(adapter, task_seed(0, task))
    return adapter.flat.detach().clone()


@pytest.mark.parametrize("options", [{"gradient_checkpointing": True}, {"batch_size": 1, "accumulation": 4}], ids=str)
def test_how_a_step_is_computed_does_not_change_it(tiny_model: Path, options: dict[str, Any]) -> None:
    settings = TTFTSettings(steps=3, batch_size=4, learning_rate=1e-3)
    adapter = adapted(tiny_model)
    plain = tune(adapter, TASKS[1], settings)
    other = tune(adapter, TASKS[1], replace(settings, **options))
    start = alone_start(adapter, TASKS[1])
    assert (plain - other).norm() < 0.05 * (plain - start).norm()
    assert not adapter.model.training


def test_the_loss_is_cross_entropy_at_the_learnt_places(tiny_model: Path) -> None:
    adapter = adapted(tiny_model)
    samples = [[sampler().draw(task, i) for i in range(2)] for task in TASKS[2:4]]
    batches = make_batches(samples, 2, CPU)
    for drawn, batch in zip(samples, batches, strict=True):
        total, by_token = batch_loss(adapter.model, batch, choose_training_precision(CPU))
        losses = []
        for sample in drawn:
            logits = adapter.model(torch.tensor([sample.ids] * 2)).logits[0]
            targets = torch.tensor(sample.ids)[sample.positions]
            losses.append(torch.nn.functional.cross_entropy(logits[torch.tensor(sample.positions) - 1], targets, reduction="none"))
        assert torch.allclose(by_token, torch.cat(losses), atol=1e-3)
        assert torch.allclose(total, torch.cat(losses).mean(), atol=1e-4)
    hidden = torch.randn(50, 128, requires_grad=True)
    _check_head_gradient(adapter.model.lm_head, hidden)


def _check_head_gradient(head: torch.nn.Linear, hidden: torch.Tensor) -> None:
    from arc_submit.finetune import loss as losses

    labels, weights = torch.arange(50) % 48, torch.linspace(0.1, 1, 50)
    (torch.nn.functional.cross_entropy(head(hidden), labels, reduction="none") * weights).sum().backward()
    want, hidden.grad = hidden.grad, None
    whole, losses._LOGITS = losses._LOGITS, 7 * head.out_features  # pieces of 7 places
    try:
        total, _ = losses._FrozenHeadLoss.apply(hidden, labels, weights, OutputHead(head, None))  # type: ignore[no-untyped-call]
        total.backward()
    finally:
        losses._LOGITS = whole
    assert want is not None
    assert torch.allclose(hidden.grad, want, atol=1e-5)


@given(st.integers(0, 9), st.integers(0, 2**31 - 1), st.integers(0, 500), st.sampled_from(["answer", "outputs", "all"]))
def test_a_sample_is_a_function_of_seed_task_and_number(which: int, seed: int, number: int, loss_on: str) -> None:
    settings = TTFTSettings(loss_on=loss_on)
    task = TASKS[which]
    sample = sampler(settings, seed=seed).draw(task, number)
    assert sample == sampler(settings, seed=seed).draw(task, number)
    assert sample.positions == sorted(set(sample.positions))
    assert sample.positions[0] >= 1
    assert sample.positions[-1] == len(sample.ids) - 1
    assert sample.ids.count(TOKENIZER.end_id) == len(task.train)
    answer = [sample.ids[position] for position in sample.positions]
    if loss_on == "answer":
        assert TOKENIZER.decode(answer).size in {pair.output.size for pair in task.train}
        assert answer.count(TOKENIZER.end_id) == 1
    if loss_on == "outputs":  # every shown output but the first, each with its end, then the answer
        assert answer.count(TOKENIZER.end_id) == len(task.train) - 1
        assert {TOKENIZER.decode(part).size for part in split_after(answer, TOKENIZER.end_id)} <= {pair.output.size for pair in task.train}
    if loss_on == "all":
        assert len(answer) == len(sample.ids) - 1


def split_after(ids: list[int], mark: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for token in ids:
        parts[-1].append(token)
        if token == mark:
            parts.append([])
    return parts[:-1]


def test_every_pair_is_asked_about_and_the_test_never_shown() -> None:
    task = make_task("t", 4, 6, 3)
    marked = Task("t", task.train, (frozen(np.full((9, 9), 5)),))
    samples = [sampler().draw(marked, i) for i in range(60)]
    assert samples == [sampler().draw(task, i) for i in range(60)], "the test input plays no part"
    answers = {TOKENIZER.decode([sample.ids[position] for position in sample.positions]).size for sample in samples}
    assert answers == {pair.output.size for pair in task.train}
    assert len({tuple(sample.ids) for sample in samples}) == 60


def test_what_fits_only_lying_down_is_always_drawn_lying_down() -> None:
    """Each row costs a token for its end: standing up, these grids are too long."""
    flat = [Pair(*[frozen(np.full((2, 20), colour))] * 2) for colour in range(3)]
    task = Task("flat", tuple(flat), (flat[0].input,))
    limit = len(sampler(max_seq_len=2000).draw(task, 0).ids)
    lengths = {len(sampler(max_seq_len=2000).draw(task, i).ids) for i in range(40)}
    assert len(lengths) > 1, "no grid was ever turned"
    small = min(lengths) * 2 // 3 + 2  # two of three pairs, lying down
    assert all(len(sampler(max_seq_len=small).draw(task, i).ids) <= small < limit for i in range(40))


def test_padding_is_no_part_of_anything(tiny_model: Path) -> None:
    adapter = adapted(tiny_model)
    short, long = (Sample([5] * n + [6, 7, 8], [n + 1, n + 2]) for n in (4, 90))
    (batch,) = make_batches([[short, long]], 2, CPU)
    (alone,) = make_batches([[short]], 1, CPU)
    precision = choose_training_precision(CPU)
    assert torch.allclose(batch_loss(adapter.model, batch, precision)[1][:2], batch_loss(adapter.model, alone, precision)[1], atol=1e-4)
    assert alone.ids.shape == (1, 7)


@given(st.integers(1, 300), st.floats(0, 0.9), st.sampled_from(["linear", "constant", "cosine"]))
def test_schedules_rise_then_fall_and_waste_no_step(steps: int, warmup: float, schedule: str) -> None:
    settings = TTFTSettings(steps=steps, warmup_ratio=warmup, schedule=schedule)
    factors = [rate_factor(settings, step) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    warm = int(np.ceil(warmup * steps))
    assert all(a < b for a, b in pairwise(factors[:warm]))
    after = factors[warm:]
    if after:
        assert after[0] == pytest.approx(1)
    if schedule == "constant":
        assert set(after) <= {1.0}
    else:
        assert all(a > b for a, b in pairwise(after))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"steps": 0}, "steps 0"),
        ({"batch_size": 0}, "--ttft-batch-size 0"),
        ({"accumulation": 0}, "accumulation 0"),
        ({"learning_rate": 0.0}, "--ttft-learning-rate"),
        ({"learning_rate": 2.0}, "--ttft-learning-rate"),
        ({"schedule": "step"}, "linear, constant, cosine"),
        ({"loss_on": "inputs"}, "answer, outputs, replies, all"),
        ({"warmup_ratio": 1.0}, "--ttft-warmup-ratio"),
        ({"max_grad_norm": -1.0}, "--ttft-max-grad-norm -1: at least 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        TTFTSettings(**change)


def test_tasks_that_cannot_be_learnt_from_are_refused_by_name(tiny_model: Path, tmp_path: Path) -> None:
    adapter = adapted(tiny_model)
    with pytest.raises(PromptTooLongError, match="task single: its only train pair"):
        finetune_task(adapter, sampler(), make_task("single", 1))
    with pytest.raises(PromptTooLongError, match=r"smaller than 40 tokens .* task large"):
        finetune_task(adapter, sampler(max_seq_len=40), make_task("large", 3, 30))
    small, huge = Pair(*[frozen(np.zeros((2, 2)))] * 2), Pair(*[frozen(np.zeros((12, 12)))] * 2)
    mixed = Task("mixed", (small, huge, small, small), (small.input,))
    result = finetune_task(adapter, sampler(max_seq_len=100), mixed)
    assert result.notes == ["task mixed: train pairs 1 are too large to be answers"]
    assert len(result.losses) == QUICK.steps
    broken = adapted(tiny_model)
    with torch.no_grad():
        broken.model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(
        FinetuneError, match=r"task task1: the loss is nan at step 1; the base alone gives it too: .* its weights are damaged"
    ):
        finetune_task(broken, sampler(), TASKS[1])
    with torch.no_grad():
        adapter.flat.fill_(float("nan"))
    save_adapter(adapter, tmp_path / "adapter")
    continued = attach(load_model(tiny_model, CPU, torch.float32, "sdpa"), LORA, 0, tmp_path / "adapter")
    with pytest.raises(FinetuneError, match="task task1: the loss is nan at step 1; lower learning_rate"):
        finetune_task(continued, sampler(), TASKS[1])
    assert continued.model.get_submodule(next(iter(continued.layers))) is next(iter(continued.layers.values()))


def test_an_error_on_the_way_ends_the_sampling_thread_and_the_adapter_can_go_on(tiny_model: Path) -> None:
    adapter = adapted(tiny_model)
    expected = tune(adapter, TASKS[0])

    def stop(step: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune_task(adapter, sampler(), TASKS[1], Hooks(stop))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("samples")]
    assert torch.equal(tune(adapter, TASKS[0]), expected)


def test_steps_that_float16_skips_are_counted_and_said(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of the second step overflows: no update, and a smaller scale."""
    adapter = adapted(tiny_model)
    half = TrainingPrecision(torch.float32, torch.float16, True, "as on a T4")
    monkeypatch.setattr(trainer, "choose_training_precision", lambda *_: half)
    assert finetune_task(adapter, sampler(), TASKS[0]).skipped == 0
    calls, values = 0, []

    def overflowing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        total, by_token = batch_loss(*arguments)
        return total * (1e36 if calls == 2 else 1), by_token

    monkeypatch.setattr(trainer, "batch_loss", overflowing)
    hooks = Hooks(lambda *_: values.append(adapter.flat.detach().clone()))
    result = finetune_task(adapter, sampler(), TASKS[0], hooks)
    assert (result.skipped, result.notes[-1]) == (1, f"1 of {len(result.losses)} steps were skipped: float16 gradients overflowed")
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[1], values[2])


def test_precision_and_attention_have_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_training_precision(CPU).autocast is None
    assert "unchanged" in repair_attention(CPU)
    from transformers.integrations import sdpa_attention

    monkeypatch.setattr(sdpa_attention, "use_gqa_in_sdpa", sdpa_attention.use_gqa_in_sdpa)
    for capability, base, scale in (((7, 5), torch.float16, True), ((8, 9), torch.bfloat16, False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        precision = choose_training_precision(torch.device("cuda:0"))
        assert (precision.base, precision.scale) == (base, scale)
    assert "unchanged" in repair_attention(torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "repeated" in repair_attention(torch.device("cuda:0"))
    key = torch.zeros(1, 1, 8, 64)
    assert not sdpa_attention.use_gqa_in_sdpa(None, key, key)


def test_losses_can_be_written_as_json(tiny_model: Path) -> None:
    result = finetune_task(adapted(tiny_model), sampler(), TASKS[0])
    assert json.loads(json.dumps(result.losses)) == result.losses


def test_a_base_in_4_bits_is_refused_on_a_cpu(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="needs a CUDA device"):
        load_model(tiny_model, CPU, torch.float32, "sdpa", in_4_bits=True)

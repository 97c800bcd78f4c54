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
from arc_submit.base_model.lora import Adapter, LoraSettings, attach, save_adapter
from arc_submit.base_model.pocket import make_pocket_tokenizer
from arc_submit.base_model.precision import choose_training_precision, repair_attention
from arc_submit.errors import ConfigError
from arc_submit.finetune.grouped import choose_group, plan_groups
from arc_submit.finetune.trainer import (
    FinetuneError,
    FinetuneResult,
    Sample,
    TTFTSettings,
    batch_loss,
    draw_sample,
    finetune_task,
    finetune_tasks,
    make_batches,
    rate_factor,
)
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version
from arc_submit.language.truncation import PromptTooLongError

CPU = torch.device("cpu")
WRITER = PromptTokenizer(make_pocket_tokenizer(), make_encoder("CompactGridEncoder()"), prompt_version("output-from-turns-v0"))
LORA = LoraSettings(rank=8)
QUICK = TTFTSettings(steps=6, learning_rate=1e-2)
PLAIN = choose_training_precision(CPU)


def make_task(name: str, pairs: int = 3, side: int = 4, seed: int = 0) -> Task:
    """A task whose outputs are its inputs mirrored."""
    rng = np.random.default_rng(seed)
    grids = [frozen(rng.integers(0, 10, rng.integers(2, side + 1, 2))) for _ in range(pairs + 1)]
    return Task(name, tuple(Pair(grid, frozen(grid[:, ::-1])) for grid in grids[:-1]), (grids[-1],))


TASKS = [make_task(f"task{i}", 2 + i % 3, 3 + i % 4, i) for i in range(10)]


def adapted(folder: Path, tasks: int = 1, **changes: Any) -> Adapter:
    torch.set_num_threads(1)
    return attach(load_model(folder, CPU, torch.float32, "sdpa"), replace(LORA, **changes), seed=0, tasks=tasks)


def tune(adapter: Adapter, task: Task, settings: TTFTSettings = QUICK, seed: int = 0) -> torch.Tensor:
    finetune_task(adapter, WRITER, task, settings, 512, seed)
    return adapter.flat.detach().clone()


@pytest.mark.parametrize("loss_on", ["answer", "outputs", "all"])
def test_the_loss_falls(tiny_model: Path, loss_on: str) -> None:
    seen: list[tuple[int, float]] = []
    settings = TTFTSettings(steps=40, learning_rate=1e-2, loss_on=loss_on)
    result = finetune_task(adapted(tiny_model), WRITER, TASKS[1], settings, 512, 0, lambda step, loss: seen.append((step, loss)))
    assert np.mean(result.losses[-8:]) < np.mean(result.losses[:8]) - 1
    assert seen == list(enumerate(result.losses, 1))
    assert result.tokens > result.learnt > 0
    assert result.seconds > 0


def test_every_pass_of_a_step_shows_that_the_worker_lives(tiny_model: Path) -> None:
    seen: list[str] = []
    settings = replace(QUICK, steps=2, accumulation=3)
    finetune_task(adapted(tiny_model), WRITER, TASKS[1], settings, 512, 0, lambda *_: seen.append("step"), lambda: seen.append("beat"))
    assert seen == [*["beat"] * 3, "step"] * 2


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
    again = finetune_task(adapter, WRITER, TASKS[0], QUICK, 512, 0).losses[0]
    assert again < finetune_task(first, WRITER, TASKS[0], QUICK, 512, 0).losses[0], "it knows what the base adapter had learnt"


@pytest.mark.parametrize("changes", [{}, {"init": "pissa", "rank": 2}, {"dora": True}], ids=str)
def test_peft_loads_what_was_learnt(tiny_model: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    from peft import PeftModel

    adapter = adapted(tiny_model, **changes)
    tune(adapter, TASKS[3], replace(QUICK, learning_rate=1e-3))
    save_adapter(adapter, tmp_path / "a")
    theirs = PeftModel.from_pretrained(load_model(tiny_model, CPU, torch.float32, "sdpa"), tmp_path / "a", local_files_only=True)
    ids = torch.tensor([draw_sample(WRITER, TASKS[3], QUICK, 512, 0, 0).ids])
    with torch.no_grad():
        assert torch.allclose(adapter.model(ids).logits, theirs(ids).logits, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        QUICK,
        replace(QUICK, batch_size=3, accumulation=2, loss_on="all", schedule="cosine", warmup_ratio=0.3, max_grad_norm=0.1),
        replace(QUICK, weight_decay=0.1, max_grad_norm=0),
    ],
    ids=str,
)
@pytest.mark.parametrize("merge", [True, False])
def test_a_group_learns_what_each_task_learns_alone(tiny_model: Path, settings: TTFTSettings, merge: bool) -> None:
    settings = replace(settings, learning_rate=1e-3)
    tasks = TASKS[1:4]
    model = load_model(tiny_model, CPU, torch.float32, "sdpa")
    group = attach(model, LORA, seed=0, tasks=3, merge=merge)
    together = finetune_tasks(group, WRITER, tasks, settings, 512, 0)
    alone = adapted(tiny_model)
    for number, task in enumerate(tasks):
        result = finetune_task(alone, WRITER, task, settings, 512, 0)
        mine = together[number]
        assert isinstance(mine, FinetuneResult)
        assert np.allclose(result.losses, mine.losses, rtol=2e-3)
        assert (result.tokens, result.learnt) == (mine.tokens, mine.learnt)
        change = alone.flat[0] - alone_start(alone, task)
        other = group.flat[number] - alone_start(alone, task)
        # Adam turns a gradient of nearly nothing into a whole step, so single weights may differ: the change as a whole may not.
        assert (change - other).norm() < 0.05 * change.norm()


def alone_start(adapter: Adapter, task: Task) -> torch.Tensor:
    """The values from which a task starts."""
    from arc_submit.base_model.lora import _draw
    from arc_submit.finetune.trainer import task_seed

    return _draw(adapter, task_seed(0, task))


def test_one_task_s_failure_in_a_group_is_its_own(tiny_model: Path) -> None:
    group = adapted(tiny_model, tasks=2)
    alone = finetune_task(adapted(tiny_model), WRITER, TASKS[2], QUICK, 512, 0)

    def spoil(step: int, losses: list[float]) -> None:
        if step == 3:
            with torch.no_grad():
                group.flat[0] = float("nan")

    broken, whole = finetune_tasks(group, WRITER, TASKS[1:3], QUICK, 512, 0, spoil)
    assert isinstance(broken, FinetuneError)
    assert "task1: the loss is nan at step 4; lower learning_rate" in str(broken)
    assert isinstance(whole, FinetuneResult)
    assert np.allclose(whole.losses, alone.losses, rtol=2e-2)
    with pytest.raises(ConfigError, match="3 tasks for 2 adapters"):
        finetune_tasks(group, WRITER, TASKS[:3], QUICK, 512, 0)


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
    adapter = adapted(tiny_model, tasks=2)
    samples = [[draw_sample(WRITER, task, QUICK, 512, 0, i) for i in range(2)] for task in TASKS[2:4]]
    (batch,) = make_batches(samples, 2, CPU)
    total, by_token = batch_loss(adapter.model, batch, choose_training_precision(CPU))
    expected, start = torch.zeros(()), 0
    for drawn in samples:
        losses = []
        for sample in drawn:
            logits = adapter.model(torch.tensor([sample.ids] * 2)).logits[0]
            targets = torch.tensor(sample.ids)[sample.learnt]
            losses.append(torch.nn.functional.cross_entropy(logits[torch.tensor(sample.learnt) - 1], targets, reduction="none"))
        mine = by_token[start : start + sum(map(len, losses))]
        assert torch.allclose(mine, torch.cat(losses), atol=1e-3)
        start += len(mine)
        expected = expected + torch.cat(losses).mean()
    assert torch.allclose(total, expected, atol=1e-4)
    hidden = torch.randn(50, 128, requires_grad=True)
    _check_head_gradient(adapter.model.lm_head, hidden)


def _check_head_gradient(head: torch.nn.Linear, hidden: torch.Tensor) -> None:
    from arc_submit.finetune import trainer as ttft

    labels, weights = torch.arange(50) % 48, torch.linspace(0.1, 1, 50)
    (torch.nn.functional.cross_entropy(head(hidden), labels, reduction="none") * weights).sum().backward()
    want, hidden.grad = hidden.grad, None
    whole, ttft._LOGITS = ttft._LOGITS, 7 * head.out_features  # pieces of 7 places
    try:
        total, _ = ttft._FrozenHeadLoss.apply(hidden, labels, weights, head)  # type: ignore[no-untyped-call]
        total.backward()
    finally:
        ttft._LOGITS = whole
    assert want is not None
    assert torch.allclose(hidden.grad, want, atol=1e-5)


@given(st.integers(0, 9), st.integers(0, 2**31 - 1), st.integers(0, 500), st.sampled_from(["answer", "outputs", "all"]))
def test_a_sample_is_a_function_of_seed_task_and_number(which: int, seed: int, number: int, loss_on: str) -> None:
    settings = TTFTSettings(loss_on=loss_on)
    task = TASKS[which]
    sample = draw_sample(WRITER, task, settings, 512, seed, number)
    assert sample == draw_sample(WRITER, task, settings, 512, seed, number)
    assert sample.learnt == sorted(set(sample.learnt))
    assert sample.learnt[0] >= 1
    assert sample.learnt[-1] == len(sample.ids) - 1
    assert sample.ids.count(WRITER.end_id) == len(task.train)
    answer = [sample.ids[place] for place in sample.learnt]
    if loss_on == "answer":
        assert WRITER.decode(answer).size in {pair.output.size for pair in task.train}
        assert answer.count(WRITER.end_id) == 1
    if loss_on == "outputs":  # every shown output but the first, each with its end, then the answer
        assert answer.count(WRITER.end_id) == len(task.train) - 1
        assert {WRITER.decode(part).size for part in split_after(answer, WRITER.end_id)} <= {pair.output.size for pair in task.train}
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
    samples = [draw_sample(WRITER, marked, QUICK, 512, 0, i) for i in range(60)]
    assert samples == [draw_sample(WRITER, task, QUICK, 512, 0, i) for i in range(60)], "the test input plays no part"
    answers = {WRITER.decode([sample.ids[place] for place in sample.learnt]).size for sample in samples}
    assert answers == {pair.output.size for pair in task.train}
    assert len({tuple(sample.ids) for sample in samples}) == 60


def test_what_fits_only_lying_down_is_always_drawn_lying_down() -> None:
    """Each row costs a token for its end: standing up, these grids are too long."""
    flat = [Pair(*[frozen(np.full((2, 20), colour))] * 2) for colour in range(3)]
    task = Task("flat", tuple(flat), (flat[0].input,))
    limit = len(draw_sample(WRITER, task, QUICK, 2000, 0, 0).ids)
    lengths = {len(draw_sample(WRITER, task, QUICK, 2000, 0, i).ids) for i in range(40)}
    assert len(lengths) > 1, "no grid was ever turned"
    small = min(lengths) * 2 // 3 + 2  # two of three pairs, lying down
    assert all(len(draw_sample(WRITER, task, QUICK, small, 0, i).ids) <= small < limit for i in range(40))


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
        ({"batch_size": 0}, "batch_size 0"),
        ({"accumulation": 0}, "accumulation 0"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": 2.0}, "learning_rate"),
        ({"schedule": "step"}, "linear, constant, cosine"),
        ({"loss_on": "inputs"}, "answer, outputs, all"),
        ({"warmup_ratio": 1.0}, "warmup_ratio"),
        ({"max_grad_norm": -1.0}, "0 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        TTFTSettings(**change)


def test_tasks_that_cannot_be_learnt_from_are_refused_by_name(tiny_model: Path) -> None:
    adapter = adapted(tiny_model)
    with pytest.raises(PromptTooLongError, match="task single: its only train pair"):
        finetune_task(adapter, WRITER, make_task("single", 1), QUICK, 512, 0)
    with pytest.raises(PromptTooLongError, match=r"smaller than 40 tokens .* task large"):
        finetune_task(adapter, WRITER, make_task("large", 3, 30), QUICK, 40, 0)
    small, huge = Pair(*[frozen(np.zeros((2, 2)))] * 2), Pair(*[frozen(np.zeros((12, 12)))] * 2)
    mixed = Task("mixed", (small, huge, small, small), (small.input,))
    result = finetune_task(adapter, WRITER, mixed, QUICK, 100, 0)
    assert result.notes == ["task mixed: train pairs 1 are too large to be asked about"]
    assert len(result.losses) == QUICK.steps
    with pytest.raises(FinetuneError, match="task task1: the loss is nan"):
        finetune_task(adapted(tiny_model, alpha=1e38), WRITER, TASKS[1], QUICK, 512, 0)


def test_an_error_on_the_way_ends_the_sampling_thread_and_the_adapter_can_go_on(tiny_model: Path) -> None:
    adapter = adapted(tiny_model)
    expected = tune(adapter, TASKS[0])

    def stop(step: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune_task(adapter, WRITER, TASKS[1], QUICK, 512, 0, stop)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("samples")]
    assert torch.equal(tune(adapter, TASKS[0]), expected)


def test_precision_and_attention_have_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_training_precision(CPU).autocast is None
    assert "as it is" in repair_attention(CPU)
    from transformers.integrations import sdpa_attention

    monkeypatch.setattr(sdpa_attention, "use_gqa_in_sdpa", sdpa_attention.use_gqa_in_sdpa)
    for capability, base, scale in (((7, 5), torch.float16, True), ((8, 9), torch.bfloat16, False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        precision = choose_training_precision(torch.device("cuda:0"))
        assert (precision.base, precision.scale) == (base, scale)
    assert "as it is" in repair_attention(torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "repeated" in repair_attention(torch.device("cuda:0"))
    key = torch.zeros(1, 1, 8, 64)
    assert not sdpa_attention.use_gqa_in_sdpa(None, key, key)


def test_losses_can_be_written_as_json(tiny_model: Path) -> None:
    result = finetune_task(adapted(tiny_model), WRITER, TASKS[0], QUICK, 512, 0)
    assert json.loads(json.dumps(result.losses)) == result.losses


@given(st.dictionaries(st.text("abcdef", min_size=1), st.integers(20, 5000)), st.sampled_from([2_000_000, 360_000_000]))
def test_groups_hold_every_task_once_and_tasks_of_like_length(tokens: dict[str, int], weights: int) -> None:
    def choose(longest: int, device: torch.device) -> tuple[int, str]:
        return choose_group(longest, weights, device, PLAIN)

    for device in (CPU, torch.device("cuda:0")):
        groups = plan_groups(tokens, weights, device, PLAIN)
        assert sorted(task for group, _ in groups for task in group) == sorted(tokens)
        lengths = [tokens[task] for group, _ in groups for task in group]
        assert lengths == sorted(lengths, reverse=True)
        assert all((len(group) <= size and reason == why) for group, reason in groups for size, why in [choose(tokens[group[0]], device)])
    assert choose(400, CPU)[0] == 1
    assert choose(70, CPU)[0] > 1
    assert choose_group(70, weights, CPU, replace(PLAIN, scale=True)) == (1, choose_group(9, 9, CPU, replace(PLAIN, scale=True))[1])


def test_a_base_in_4_bits_is_refused_on_a_cpu(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="needs a CUDA device"):
        load_model(tiny_model, CPU, torch.float32, "sdpa", in_4_bits=True)

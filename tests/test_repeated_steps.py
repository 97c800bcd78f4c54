"""A step of fine-tuning for which memory does not suffice is repeated with a cheaper plan, as if it had been computed so at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_ttft import CPU, LORA, QUICK, TASKS, adapted, make_task, sampler

from arc_submit.arc.task import Task
from arc_submit.base_model import lora_layers
from arc_submit.base_model.checkpointing import checkpointed
from arc_submit.base_model.loading import load_model
from arc_submit.base_model.lora import Adapter, attach
from arc_submit.base_model.memory import TrainingPlan
from arc_submit.base_model.precision import TrainingPrecision
from arc_submit.finetune import trainer
from arc_submit.finetune.joint import joint_warmup
from arc_submit.finetune.loss import MicroBatch, batch_loss
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.finetune.trainer import FinetuneError, FinetuneResult, Hooks, finetune_task
from arc_submit.language.truncation import PromptTooLongError

TASK, LONG = make_task("large", 4, 5, 3), make_task("long", 4, 13, 3)
Fails = Callable[[int, MicroBatch], bool]


@pytest.fixture(scope="module")
def adapter(tiny_model: Path) -> Adapter:
    return adapted(tiny_model)


def scarce(monkeypatch: pytest.MonkeyPatch, fails: Fails) -> list[tuple[int, int]]:
    """Have passes fail for lack of memory, by their number from 1 and their batch; returns (rows, length) of each pass."""
    passes: list[tuple[int, int]] = []

    def loss(model: Any, batch: MicroBatch, precision: TrainingPrecision) -> Any:
        passes.append(tuple(batch.ids.shape))  # type: ignore[arg-type]
        if fails(len(passes), batch):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return batch_loss(model, batch, precision)

    monkeypatch.setattr(trainer, "batch_loss", loss)
    return passes


def train(
    adapter: Adapter, settings: TTFTSettings, plan: TrainingPlan | None = None, task: Task = TASK
) -> tuple[torch.Tensor, FinetuneResult]:
    result = finetune_task(adapter, sampler(settings, 1024), task, plan=plan)
    assert not adapter.model.training
    return adapter.flat.detach().clone(), result


@pytest.mark.parametrize("step", [1, 4])
def test_a_step_is_repeated_with_checkpointing(adapter: Adapter, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    settings = replace(QUICK, accumulation=2)
    expected, whole = train(adapter, replace(settings, gradient_checkpointing=True))
    passes = scarce(monkeypatch, lambda number, _: number == 2 * step)  # the first pass of the step has left its gradient
    values, result = train(adapter, settings)
    assert len(passes) == 2 * settings.steps + 2, "the step alone is repeated"
    assert result.notes == [f"task large: out of memory at step {step}, repeated with gradient checkpointing"]
    assert torch.allclose(values, expected, atol=1e-6)
    assert result.losses == pytest.approx(whole.losses, abs=1e-6)
    assert (result.tokens, result.learned_tokens) == (whole.tokens, whole.learned_tokens)


def test_a_gradient_that_is_half_added_does_not_count(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """cuBLAS finds no memory in the middle of the backward pass."""
    expected, _ = train(adapter, replace(QUICK, gradient_checkpointing=True))
    real, calls = lora_layers._MergedLinear.backward, 0

    def backward(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return real(*arguments)

    monkeypatch.setattr(lora_layers._MergedLinear, "backward", backward)
    values, result = train(adapter, QUICK)
    assert "at step 2, repeated with gradient checkpointing" in result.notes[0]
    assert torch.allclose(values, expected, atol=1e-6)


def test_a_step_is_repeated_whose_tokens_find_no_room(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are moved to the device in another thread, ahead of their step."""
    expected, _ = train(adapter, QUICK)
    real, calls = trainer.make_batches, 0

    def make_batches(*given: Any) -> list[MicroBatch]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*given)

    monkeypatch.setattr(trainer, "make_batches", make_batches)
    values, result = train(adapter, QUICK)
    assert result.notes == ["task large: out of memory at step 3, repeated with gradient checkpointing"]
    assert torch.allclose(values, expected, atol=1e-6)


def test_fewer_rows_in_a_pass_add_up_to_the_same_step(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(QUICK, batch_size=5, steps=3)
    whole, full = train(adapter, settings)
    by_plan, _ = train(adapter, settings, TrainingPlan(1024, True, False, "from the start", 2))
    passes = scarce(monkeypatch, lambda _, batch: len(batch.ids) > 2)
    values, result = train(adapter, settings)
    assert [rows for rows, _ in passes[:9]] == [5, 5, 3, 2, 2, 1, 2, 2, 1]
    assert [note.partition("repeated ")[2] for note in result.notes] == [
        "with gradient checkpointing",
        "with 3 samples in a pass",
        "with 2 samples in a pass",
    ]
    assert torch.equal(values, by_plan)
    assert result.losses == pytest.approx(full.losses, abs=1e-4)
    assert (values - whole).abs().mean() < 1e-4 < 0.1 * (values - adapter.initial).abs().mean()


def test_shorter_samples_come_last_and_are_those_of_the_plan(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = max(len(sampler(max_seq_len=1024).draw(LONG, step).ids) for step in range(2))
    limit = len(sampler(max_seq_len=1024).draw(LONG, 0).ids) * 3 // 4
    settings = replace(QUICK, steps=2)
    passes = scarce(monkeypatch, lambda _, batch: batch.ids.shape[1] > limit)
    values, result = train(adapter, settings, task=LONG)
    assert result.notes[-1] == f"task long: out of memory at step 1, repeated on samples of at most {limit} tokens"
    assert max(length for _, length in passes[2:]) <= limit < longest
    again, same = train(adapter, settings, TrainingPlan(limit, True, True, "from the start"), LONG)
    assert torch.equal(values, again)
    assert (result.losses, result.tokens) == (same.losses, same.tokens)


def test_random_numbers_and_the_loss_scale_are_those_of_the_step(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    half = TrainingPrecision(torch.float32, torch.float16, True, "as on a T4")
    monkeypatch.setattr(trainer, "choose_training_precision", lambda *_: half)
    settings = replace(QUICK, accumulation=2)
    found = []
    for failing in (0, 6):  # the second pass of the third step
        calls, count = 0, settings.steps * 2 + (2 if failing else 0)

        def noisy(model: Any, batch: MicroBatch, precision: TrainingPrecision) -> Any:
            nonlocal calls
            calls += 1
            noise = 1 + torch.rand(())
            if calls == failing:  # noqa: B023 - it is called within this turn
                raise torch.OutOfMemoryError("CUDA out of memory")
            total, by_token = batch_loss(model, batch, precision)
            return total * noise * (1e36 if calls == 3 else 1), by_token  # the second step overflows

        monkeypatch.setattr(trainer, "batch_loss", noisy)
        torch.manual_seed(5)
        values, result = train(adapter, replace(settings, gradient_checkpointing=not failing))
        assert calls == count
        found.append((values, result.losses, result.skipped))
    assert found[0][2] == found[1][2] == 1
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-6)
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6)


def test_memory_that_comes_back_repeats_the_same_plan_once(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process held it: the plan was right."""
    expected, _ = train(adapter, QUICK)
    asked: list[int] = []
    hooks = Hooks(memory_came_back=lambda: not asked.append(1))  # type: ignore[func-returns-value]
    with monkeypatch.context() as patch:
        scarce(patch, lambda number, _: number == 3)
        result = finetune_task(adapter, sampler(QUICK, 1024), TASK, hooks)
    assert result.notes == ["task large: another process held memory at step 3, repeated without it"]
    assert torch.equal(adapter.flat, expected)
    scarce(monkeypatch, lambda number, _: number in (2, 3))
    asked.clear()
    result = finetune_task(adapter, sampler(QUICK, 1024), TASK, hooks)
    assert [note.partition("at step 2, repeated ")[2] for note in result.notes] == ["without it", "with gradient checkpointing"]
    assert len(asked) == 1


def test_a_task_that_fits_in_no_way_is_given_up_with_a_reason(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = train(adapter, QUICK)
    with monkeypatch.context() as patch:
        scarce(patch, lambda number, _: number > 2)
        reason = r"task large: out of memory at step 3 even with gradient checkpointing and one sample of \d+ tokens in a pass; lower"
        with pytest.raises(FinetuneError, match=reason):
            train(adapter, QUICK)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("samples")]
    assert torch.equal(train(adapter, QUICK)[0], expected), "the next task starts afresh"


def test_memory_is_the_reason_where_no_shorter_sample_exists(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    huge = make_task("huge", 2, 18, 1)
    scarce(monkeypatch, lambda *_: True)
    with pytest.raises(FinetuneError, match=r"out of memory at step 1, repeated on samples of at most .* which is too few: "):
        finetune_task(adapter, sampler(max_seq_len=2000), huge)


def test_another_error_is_not_repeated(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(trainer, "batch_loss", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        train(adapter, QUICK)


def test_dropout_stays_off_with_checkpointing(tiny_model: Path) -> None:
    """A plan must not change what is learnt, and transformers checkpoints in training mode only."""
    model = load_model(tiny_model, CPU, torch.float32, "sdpa")
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    adapter = attach(model, LORA, 0)
    found = [train(adapter, replace(QUICK, steps=2, gradient_checkpointing=again))[0] for again in (False, True)]
    assert torch.allclose(*found, atol=1e-6)
    with checkpointed(model):
        assert any(layer.training for layer in model.model.layers)
        assert not any(layer.self_attn.training for layer in model.model.layers)


def test_a_step_of_the_joint_warm_up_is_repeated_too(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [*TASKS[:3], TASK]
    expected = joint_warmup(adapter, sampler(replace(QUICK, gradient_checkpointing=True)), tasks, 3)
    values = adapter.flat.detach().clone()
    scarce(monkeypatch, lambda number, _: number == 5)
    result = joint_warmup(adapter, sampler(), tasks, 3)
    assert result.notes == ["warm-up: out of memory at step 2, repeated with gradient checkpointing"]
    assert torch.allclose(adapter.flat, values, atol=1e-6)
    assert result.losses == pytest.approx(expected.losses, abs=1e-6)


def test_a_warm_up_on_shorter_samples_draws_from_the_tasks_that_still_fit(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [make_task("huge", 2, 18, 1), TASKS[4]]
    scarce(monkeypatch, lambda _, batch: batch.ids.shape[1] > 300)
    result = joint_warmup(adapter, sampler(max_seq_len=2000), tasks, 2)
    assert len(result.losses) == QUICK.steps
    with pytest.raises(PromptTooLongError):
        sampler(max_seq_len=300).check(tasks[0])

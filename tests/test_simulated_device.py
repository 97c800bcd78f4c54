"""The project's own code on a simulated GPU: what a GPU refuses is caught, launches, synchronizations and memory are bounded."""

from __future__ import annotations

import gc
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from simulated_device import NAME, Meter, unavailable

from arc_submit.base_model.lora import attach, reset
from arc_submit.base_model.memory import SIZES, Footprint
from arc_submit.base_model.output_head import output_head
from arc_submit.base_model.precision import TrainingPrecision
from arc_submit.base_model.settings import LoraSettings
from arc_submit.finetune import loss, trainer, ttft_worker
from arc_submit.inference import slot_cache, transformers_engine
from arc_submit.train.config import TrainSettings
from arc_submit.train.step import make_optimizers

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=unavailable())
if not unavailable():
    from simulated_work import (
        ARC24,
        L4,
        QKVO,
        T4,
        cut,
        folders_of,
        generate,
        gpu,
        make_model,
        make_trainable,
        score,
        serve,
        train,
        train_base,
        warm_up,
    )

ALL = LoraSettings(rank=256, alpha=32.0, rslora=True)
DORA = replace(ARC24, dora=True)
ENDS = replace(ALL, targets=(*ALL.targets, "embed_tokens", "lm_head"))
# Kernels of one more layer in a step, and waits of the host in a step whatever the layers, with room for another version of a library.
# The figures themselves are in docs/experiments/2026-11-30-memory-plan.md.
LAUNCHES = {
    "plain": 180,
    "checkpointed": 245,
    "dora": 280,
    "generate": 60,
    "dfs": 60,
    "score": 120,
    "warm-up": 350,
    "base lora": 350,
    "base full": 320,
}


def _campaign(*values: object) -> object:
    """A case that the campaign alone tries: others of its kind are tried always."""
    return pytest.param(*values, marks=pytest.mark.campaign)


def _check_peak(meter: Meter, bound: int) -> None:
    """Refuse a peak above the formula's, or so far below it that the formula would turn work away."""
    assert meter.peak <= bound, f"{meter.peak} bytes at the peak, the memory plan allows {bound}"
    assert bound <= 1.35 * meter.peak, f"{meter.peak} bytes at the peak, the memory plan reserves {bound}"


@pytest.mark.parametrize("kind", ["plain", "checkpointed", _campaign("dora")])
def test_launches_and_synchronizations_of_a_training_step_are_bounded(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    counts = []
    for layers in (2, 3):
        with gpu() as meter:
            adapter = attach(make_model(cut("0.5B", layers), meter), DORA if kind == "dora" else ARC24, 0)
            meter.reset_peak()
            train(adapter, 64, 8, kind == "checkpointed")
            counts.append(meter.launches.total())
            syncs = meter.syncs.total() - meter.syncs["copy to the host"]  # those of DoRA's initial values, once for a task
    with capsys.disabled():
        print(f"\n{kind}: {counts[1] - counts[0]} launches a layer and step, {syncs} synchronizations a step")
    assert counts[1] - counts[0] <= LAUNCHES[kind]
    assert syncs <= 1  # the loss


@pytest.mark.parametrize("kind", ["warm-up", "base lora", "base full"])
def test_launches_and_synchronizations_of_longer_trainings_are_bounded(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A step of two passes: gradients add up on the device, and only the loss is read."""
    counts = []
    for layers in (1, 2):
        with gpu() as meter:
            if kind == "warm-up":
                adapter = attach(make_model(cut("1B", layers), meter), ARC24, 0)
                meter.reset_peak()
                warm_up(adapter, 64, 8, passes=2)
            else:
                trainable = make_trainable(cut("1B", layers), meter, ARC24 if kind == "base lora" else None)
                optimizers = make_optimizers(trainable, TrainSettings())
                train_base(trainable, optimizers, 64, 8)
                meter.reset_peak()
                train_base(trainable, optimizers, 64, 8)
            counts.append(meter.launches.total())
            syncs = meter.syncs.total()
    with capsys.disabled():
        print(f"\n{kind}: {counts[1] - counts[0]} launches a layer and step of two passes, {syncs} synchronizations a step")
    assert counts[1] - counts[0] <= LAUNCHES[kind]
    assert syncs <= (kind == "warm-up")


def _note(seen: list[tuple[int, int]], meter: Meter) -> None:
    seen.append((meter.launches.total(), meter.syncs.total()))


@pytest.mark.parametrize("kind", ["generate", "dfs", "score"])
def test_launches_and_synchronizations_of_a_decoding_step_are_bounded(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    launches, slots = [], 6
    for layers in (1, 2):
        with gpu() as meter:
            model = make_model(cut("0.5B", layers), meter)
            seen: list[tuple[int, int]] = []
            with serve(model, ARC24):
                if kind == "score":
                    score(model, slots, 16, 3, slots)
                    steps = (meter.launches.total(), meter.syncs.total())
                else:
                    generate(model, slots, (16, 4), kind == "dfs", partial(_note, seen, meter))
                    steps = (seen[-1][0] - seen[-2][0], seen[-1][1] - seen[-2][1])
            launches.append(steps[0])
    with capsys.disabled():
        print(f"\n{kind}: {launches[1] - launches[0]} launches a layer and step, {steps[1]} synchronizations a step of {slots} slots")
    assert launches[1] - launches[0] <= LAUNCHES[kind]
    assert steps[1] <= 1, "one transfer for all slots"


@pytest.mark.parametrize(
    ("size", "capability", "lora", "checkpointing"),
    [
        _campaign("0.5B", L4, ARC24, False),
        ("4B", L4, ALL, True),
        _campaign("7B", L4, ARC24, True),
        ("1B", T4, ALL, False),
        ("1.5B", T4, DORA, True),
        ("4B", L4, ENDS, True),
        _campaign("1B", T4, ENDS, False),
    ],
)
def test_the_plan_bounds_the_peak_of_training(size: str, capability: tuple[int, int], lora: LoraSettings, checkpointing: bool) -> None:
    with gpu(capability) as meter:
        shape = cut(size, 2)
        footprint = Footprint(shape, lora, capability < (8, 0))
        model = make_model(shape, meter)
        assert meter.live == pytest.approx(shape.weights, rel=1e-3)
        adapter = attach(model, lora, 0)
        # The optimizer's state comes with the first step; of two layers alone it is a small part, but not of a whole vocabulary's factors.
        train(adapter, 6000, 300, checkpointing, steps=2 if lora is ENDS else 1)
        gc.collect()
        assert meter.live == pytest.approx(footprint.resident, rel=1e-2)
        _check_peak(meter, footprint.training_peak(6000, 300, checkpointing))


@pytest.mark.parametrize(("size", "capability", "lora"), [_campaign("1.5B", T4, None), ("4B", L4, ENDS), _campaign("7B", L4, ARC24)])
def test_the_plan_bounds_the_peak_of_prediction(size: str, capability: tuple[int, int], lora: LoraSettings | None) -> None:
    with gpu(capability) as meter:
        shape = cut(size, 2)
        footprint = Footprint(shape, lora, capability < (8, 0))
        model = make_model(shape, meter)
        with serve(model, lora):
            generate(model, 8, (6000, 2))
            _check_peak(meter, footprint.prediction_peak(8, 6002, trains=False))
            meter.reset_peak()
            if size == "4B":
                generate(model, 8, (6000, 2), search=True)
                assert meter.peak <= footprint.prediction_peak(8, 6002, trains=False)
                meter.reset_peak()
            score(model, 8, 4000, 600, 8)
            assert meter.peak <= footprint.scoring_peak(8, 4000, 600, trains=False)


@pytest.mark.parametrize("kept", [False, True])
def test_adapters_are_on_the_device_one_after_the_other(monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    with gpu() as meter, folders_of(ALL), monkeypatch.context() as patch:  # undone before the patches beneath it are
        shape, all_read = cut("4B", 2), []
        model = make_model(shape, meter)
        if kept:  # an engine that holds on to the adapters of finished requests
            read = transformers_engine.read_adapter
            patch.setattr(transformers_engine, "read_adapter", lambda *given: all_read.append(read(*given)) or all_read[-1])
        generate(model, 2, (16, 2), adapters=[Path("a"), Path("b")])
        bound = Footprint(shape, ALL).prediction_peak(2, 18, trains=False)
        if kept:
            assert meter.peak > bound
        else:
            assert meter.peak <= bound


def test_the_joint_warm_up_takes_the_memory_of_one_pass() -> None:
    with gpu() as meter:
        shape = cut("4B", 2)
        warm_up(attach(make_model(shape, meter), ALL, 0), 3000, 300, passes=3)
        _check_peak(meter, Footprint(shape, ALL).training_peak(3000, 300, checkpointing=False))


@pytest.mark.parametrize("second", [False, True])
def test_base_training_holds_weights_gradient_and_moments_once(second: bool) -> None:
    with gpu() as meter:
        trainable = make_trainable(cut("1B", 2), meter, None)
        optimizers = make_optimizers(trainable, TrainSettings())
        train_base(trainable, optimizers, 64, 8)
        copy = [one.detach().clone() for one in trainable.parameters] if second else []
        values = sum(one.numel() for one in trainable.parameters)
        assert (meter.live <= 1.01 * 4 * 4 * values) is not bool(copy)


def test_initial_values_are_not_on_the_device() -> None:
    with gpu() as meter:
        shape = cut("4B", 2)
        model = make_model(shape, meter)
        before = meter.live
        adapter = attach(model, ALL, 0)
        assert meter.live - before == pytest.approx(8 * Footprint(shape, ALL).adapter_values, rel=1e-3)
        assert adapter.initial.device.type == "cpu"
        meter.reset_peak()
        reset(adapter, seed=1)
        assert meter.peak == meter.live


def test_the_loss_frees_a_part_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = []
    for count in (1, 3):
        with gpu() as meter:
            model = make_model(cut("0.5B", 1), meter)
            hidden = torch.zeros(count * 64, 896, dtype=torch.bfloat16, device=NAME)
            labels, weights = torch.zeros(len(hidden), dtype=torch.long, device=NAME), torch.zeros(len(hidden), device=NAME)
            monkeypatch.setattr(loss, "_LOGITS", 64 * 151936)
            meter.reset_peak()
            before = meter.live
            loss._FrozenHeadLoss.apply(hidden, labels, weights, output_head(model))
            peaks.append(meter.peak - before)
    assert peaks[1] < peaks[0] + 2 * 128 * 896 * 2 + 2**20, "only the gradient of the hidden states grows with the parts"


def test_a_wrong_dtype_in_training_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = TrainingPrecision(torch.bfloat16, None, False, "simulated")
    for broken in (False, True):
        with gpu() as meter, monkeypatch.context() as patch:  # undone before the context's own patch is
            patch.setattr(trainer, "choose_training_precision", lambda *_: plain)
            model = make_model(cut("0.5B", 2), meter)
            if broken:
                model.model.norm.weight = torch.nn.Parameter(torch.zeros(896, device=NAME))
            adapter = attach(model, ARC24, 0)
            if broken:
                with pytest.raises(RuntimeError, match="expected one dtype"):
                    train(adapter, 64, 8)
            else:
                train(adapter, 64, 8)


def test_a_host_tensor_in_training_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = trainer.make_batches
    monkeypatch.setattr(trainer, "make_batches", lambda steps, size, device: real(steps, size, torch.device("cpu")))
    with gpu() as meter, pytest.raises(RuntimeError, match="one device"):
        train(attach(make_model(cut("0.5B", 2), meter), ARC24, 0), 64, 8)


def test_a_host_tensor_in_prediction_is_caught() -> None:
    with gpu() as meter:
        model = make_model(cut("0.5B", 2), meter)
        model.model.layers[1].input_layernorm.weight = torch.nn.Parameter(torch.zeros(896))
        with pytest.raises(RuntimeError, match="one device"):
            generate(model, 2, (16, 2))


def test_a_wrong_dtype_is_caught() -> None:
    with gpu() as meter:
        model = make_model(cut("0.5B", 2), meter)
        model.model.layers[1].mlp.up_proj.weight = torch.nn.Parameter(torch.zeros(4864, 896, device=NAME))
        with pytest.raises(RuntimeError, match="expected one dtype"):
            generate(model, 2, (16, 2))


def test_a_second_copy_of_the_weights_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = cut("1.5B", 2)

    def predict_beside_training(broken: bool) -> None:
        with gpu() as meter:
            model = make_model(shape, meter)
            if broken:
                monkeypatch.setattr(ttft_worker, "copy", SimpleNamespace(deepcopy=lambda *_: make_model(shape, meter)))
            twin = ttft_worker.with_same_weights(model)
            attach(model, ARC24, 0)
            meter.reset_peak()
            with serve(twin, ARC24):
                generate(twin, 4, (500, 2))
            _check_peak(meter, Footprint(shape, ARC24).prediction_peak(4, 502, trains=True))

    predict_beside_training(broken=False)
    with pytest.raises(AssertionError, match="the memory plan allows"):
        predict_beside_training(broken=True)


def test_a_cache_without_a_bound_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def predict() -> None:
        with gpu() as meter:
            shape = cut("4B", 2)
            model = make_model(shape, meter)
            generate(model, 8, (700, 2))
            _check_peak(meter, Footprint(shape).prediction_peak(8, 702, trains=False))

    predict()
    monkeypatch.setattr(slot_cache, "_round_up", lambda length: 32768)  # the model's context instead of the requests' length
    with pytest.raises(AssertionError, match="the memory plan allows"):
        predict()


def test_a_device_without_room_raises_as_a_gpu_does() -> None:
    shape = cut("0.5B", 2)
    with pytest.raises(torch.OutOfMemoryError), gpu(capacity=shape.weights + 2**20) as meter:
        generate(make_model(shape, meter), 4, (4000, 2))


def test_attention_without_a_fast_kernel_shows_in_memory() -> None:
    """A T4 whose attention is not repaired takes a kernel that keeps the scores of all pairs of positions."""
    peaks = []
    for repaired in (True, False):
        with gpu(T4) as meter:
            if not repaired:
                from transformers.integrations import sdpa_attention

                sdpa_attention.use_gqa_in_sdpa = lambda *_, **__: True
            generate(make_model(cut("0.5B", 2), meter), 2, (4000, 2))
            peaks.append(meter.peak)
            assert ("attention (math)" in meter.launches) is not repaired
    assert peaks[1] > peaks[0] + 4 * 14 * 4000 * 4000


def test_targets_that_a_model_does_not_have_take_nothing() -> None:
    plain = Footprint(SIZES["4B"], LoraSettings(rank=8, targets=QKVO))
    assert Footprint(SIZES["4B"], LoraSettings(rank=8, targets=(*QKVO, "qkv_proj"))).adapter_values == plain.adapter_values

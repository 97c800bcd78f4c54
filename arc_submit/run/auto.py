"""The preset auto: a run's settings from the cards that are there, the model's sizes, the time and the tasks, each with its reason.

Pure functions. Memory decides by the memory plan (base_model/memory.py), time by the costs (scheduling/costs.py). What a user or a model's
arc_submit.json gives is stronger. Does not look at a machine, a file or a clock; run/auto_inputs.py does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arc_submit.base_model.memory import GIB, SHORTEST_SAMPLE, Card, Footprint, ModelShape, usable_bytes
from arc_submit.base_model.settings import LoraSettings
from arc_submit.durations import format_duration
from arc_submit.run.choices import Choice, values_of
from arc_submit.run.memory_plan import least_bytes
from arc_submit.scheduling.costs import INITIAL_RATES, CostModel, initial_costs
from arc_submit.workers.devices import Gpu

DEFAULT_LENGTH = 5120  # tokens of a prompt with its answer in the published recipes
# A task's share of the time. The rest is for the base model's answers, for starts, and for what the first estimate is wrong by; what is
# left of it trains longer and predicts further.
_TRAIN_SHARE, _PREDICT_SHARE = 0.45, 0.08
_STEPS = (25, 50, 100, 150, 200, 300, 400)
_VIEWS = (4, 8, 16, 32, 64, 96, 128)
_START_SECONDS = 60.0  # of a worker that loads a model
_VLLM_SECONDS = 1800.0  # in a shorter run vllm's start, minutes of compiling on some cards, takes too much
_MOST_SLOTS, _MOST_SLOTS_OLD = 64, 32
_SHORT_PROMPT = 512  # tokens: most tasks' prompts are longer
_MEDIAN_SAMPLE = 1024  # tokens: half of the tasks' samples are longer

_CAPABILITIES = {"t4": (7, 5), "l4": (8, 9), "h100": (9, 0), "rtx-pro-6000": (12, 0)}
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_NVARC = (
    "NVARC's recipe for Qwen3",
    {"lora_rank": 256, "lora_alpha": 32.0, "lora_rslora": True, "ttft_schedule": "cosine", "ttft_warmup_ratio": 0.1},
)
_ARC24 = ("arc24's recipe", {"lora_rank": 128, "lora_alpha": 64.0, "lora_rslora": True, "lora_targets": _ATTENTION})
_SMALL = ("a small adapter, because the card holds no larger one", {**_ARC24[1], "lora_rank": 32})


@dataclass(frozen=True)
class Machine:
    """What there is to run on.

    Attributes:
        gpus: by device, such as "cuda:0".
        vllm: whether it is installed.
        memory_factor: measured bytes over planned bytes.
        costs: of the model, measured on this machine; None: estimated from the cards.
    """

    gpus: Mapping[str, Gpu]
    vllm: bool
    memory_factor: float = 1.0
    costs: CostModel | None = None


@dataclass(frozen=True)
class Model:
    """What is known of a model without loading it.

    Attributes:
        shape: its sizes; None for layers or weights that the memory plan does not hold for.
        parameters: their number.
        context: tokens that it takes; None where it does not say.
        trained_length: tokens of its prompts by its arc_submit.json; None where it has none.
    """

    shape: ModelShape | None
    parameters: float
    context: int | None = None
    trained_length: int | None = None


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Attributes:
        seconds: from the start to the report.
        tasks: their number.
        kilo_cells: of a task, in thousands of cells, on the average; test inputs included.
    """

    seconds: float
    tasks: int
    kilo_cells: float = 1.0


def choose_settings(machine: Machine, model: Model, work: Work, given: Mapping[str, Any]) -> tuple[Choice, ...]:
    """Decide the settings of a run on GPUs.

    Args:
        machine: with at least one GPU.
        given: settings of the user and of the model's configuration, by name; they are in no choice, and the others fit them.
    """
    devices = choose_devices(machine, model, given)
    gpus = [machine.gpus[device] for device in devices.values["devices"]]
    smallest = min(gpus, key=lambda gpu: gpu.gib)
    old = any(gpu.capability < (8, 0) for gpu in gpus)
    dtype = "float16" if old else "bfloat16"
    reason = "before sm_80 there are no bfloat16 products; losses are scaled" if old else f"{smallest.name} has bfloat16 products"
    choices = [devices, Choice({"dtype": dtype}, reason, setting=False)]
    sources = given.get("sources", ("ttft",))
    tunes = "ttft" in sources
    # A model that no card holds alone: vllm divides it over several (run/code_cards.py).
    divided = set(sources) - {"search"} == {"code"} and not any(_holds(gpu, machine, model, given) for gpu in gpus)
    room = int(usable_bytes(smallest.gib) / machine.memory_factor)
    if tunes:
        choices.append(_choose_adapter(model, room, old, given))
    known = {**values_of(choices), **given}
    if divided:
        length, reason = _wanted_length(model)
        choices.append(Choice({"max_seq_len": length}, f"{reason}; several cards hold the model together"))
        choices.append(Choice({"max_concurrent": 16}, "few, because the cards hold little beside the model"))
    elif model.shape is None:
        choices.append(
            Choice(
                {"max_seq_len": _wanted_length(model)[0]},
                "the memory plan does not hold for this model; out of memory is met as it comes",
            )
        )
        choices.append(Choice({"max_concurrent": 16}, "few, because the memory plan does not hold for this model"))
    else:
        card = Card(room, Footprint(model.shape, lora_of(known) if tunes else None, old))
        choices += _choose_lengths(card, model, tunes, known)
        choices += _choose_checkpointing(card, known) if tunes else []
        choices.append(_choose_slots(card, smallest, old, tunes and known.get("ttft_engine") != "vllm"))
    if divided and machine.vllm:
        choices.append(Choice({"engine": "vllm"}, "it alone divides a model over several cards"))
    else:
        choices.append(_choose_engine(machine, work, known))
    choices += _choose_amounts(gpus, machine, model, work, tunes)
    choices.append(Choice({"heartbeat_timeout": 180.0}, "the first step on a GPU may compile for minutes"))
    return tuple(kept for choice in choices if (kept := choice.without(given)) is not None)


def choose_devices(machine: Machine, model: Model, given: Mapping[str, Any]) -> Choice:
    """The GPUs that torch has code for and that hold the model; all of them where none does, so that the run names what is missing."""
    asked = given.get("devices") or tuple(machine.gpus)
    names = [device for device in asked if device in machine.gpus]
    names = names or list(machine.gpus)
    held = {device: _holds(machine.gpus[device], machine, model, given) for device in names}
    chosen = [device for device in names if machine.gpus[device].supported and held[device]] or names
    left_out = [f"{device} ({machine.gpus[device].name}) {_lack(machine.gpus[device])}" for device in names if device not in chosen]
    kinds = sorted({f"{machine.gpus[device].name}, {machine.gpus[device].gib:.1f} GiB" for device in chosen})
    return Choice({"devices": tuple(chosen)}, "; ".join([f"a worker on each GPU that is there ({'; '.join(kinds)})", *left_out]))


def _holds(gpu: Gpu, machine: Machine, model: Model, given: Mapping[str, Any]) -> bool:
    if model.shape is None:
        return True
    tunes, old = "ttft" in given.get("sources", ("ttft",)), gpu.capability < (8, 0)
    lora = lora_of({**_SMALL[1], **given}) if tunes else None
    return least_bytes(Footprint(model.shape, lora, old), tunes) <= usable_bytes(gpu.gib) / machine.memory_factor


def _lack(gpu: Gpu) -> str:
    return (
        "is too small for the model" if gpu.supported else f"is left out: torch has no code for sm_{gpu.capability[0]}{gpu.capability[1]}"
    )


def _choose_adapter(model: Model, room: int, old: bool, given: Mapping[str, Any]) -> Choice:
    """The published recipe for the model, or the next smaller adapter that fits beside it."""
    if given.get("base_adapter") is not None:
        return Choice({"ttft_learning_rate": 1e-5}, "arc24's learning rate; the adapter that is given has its own rank")
    recipes = [_NVARC, _ARC24, _SMALL] if model.shape is not None and model.shape.kind == "qwen3" else [_ARC24, _SMALL]
    length = int(given.get("max_seq_len") or _wanted_length(model)[0])
    for words, values in recipes:
        fits = model.shape is None or Footprint(model.shape, lora_of({**values, **given}), old).training_peak(length, length, True) <= room
        if fits or (words, values) == recipes[-1]:
            break
    rate = 5e-5 if words == _NVARC[0] else 8e-5 if model.parameters < 1e9 else 1e-5
    fit = "" if model.shape is None else f", which trains on {length} tokens" if fits else f", which does not train on {length} tokens"
    return Choice({**values, "ttft_learning_rate": rate}, f"{words}{fit}")


def _wanted_length(model: Model) -> tuple[int, str]:
    length, reason = (
        (model.trained_length, "what the model's arc_submit.json says")
        if model.trained_length
        else (DEFAULT_LENGTH, "the published recipes'")
    )
    if model.context is not None and model.context < length:
        return model.context, "the longest that the model takes"
    return length, reason


def _choose_lengths(card: Card, model: Model, tunes: bool, known: Mapping[str, Any]) -> list[Choice]:
    """The longest prompt that two slots answer, and the longest sample that is trained on, up to what is wanted."""
    wanted, reason = (known["max_seq_len"], "given") if known.get("max_seq_len") else _wanted_length(model)
    prompt = max(card.longest_request(wanted, tunes and known.get("ttft_engine") != "vllm"), SHORTEST_SAMPLE)
    reason = f"{reason}, and the card answers them" if prompt >= wanted else f"the longest that the card answers two of, of {wanted}"
    choices = [Choice({"max_seq_len": min(prompt, wanted)}, reason)]
    if tunes:
        length = int(known.get("max_seq_len") or min(prompt, wanted))
        sample = max(card.plan_training(length, int(known.get("ttft_batch_size", 1)), True).tokens, SHORTEST_SAMPLE)
        if sample < length:
            choices.append(Choice({"ttft_max_seq_len": sample}, "the longest sample that the card trains on, with gradient checkpointing"))
        else:
            # Not a setting: the prompts' length is its default.
            choices.append(Choice({"ttft_max_seq_len": length}, "the card trains on samples as long as the prompts", setting=False))
    return choices


def _choose_checkpointing(card: Card, known: Mapping[str, Any]) -> list[Choice]:
    rows = int(known.get("ttft_batch_size", 1))
    peak = card.footprint.training_peak(rows * _MEDIAN_SAMPLE, rows * _MEDIAN_SAMPLE, False)
    needed = peak > card.room
    word = "does not fit" if needed else "fits"
    reason = f"a sample of {_MEDIAN_SAMPLE} tokens {word} without ({peak / GIB:.1f} GiB)"
    return [Choice({"ttft_gradient_checkpointing": needed}, reason if needed else f"{reason}; longer tasks take it where they need it")]


def _choose_slots(card: Card, gpu: Gpu, old: bool, trains: bool) -> Choice:
    most = _MOST_SLOTS_OLD if old else _MOST_SLOTS
    slots = card.plan_slots(_SHORT_PROMPT, most, trains) or 2
    bound = "before sm_80 every step repeats the keys and values of all" if old and slots == most else f"of {gpu.gib:.1f} GiB"
    reason = f"so many prompts of {_SHORT_PROMPT} tokens fit, at most {most} ({bound}); longer tasks take a half, a quarter and so on"
    return Choice({"max_concurrent": slots}, reason)


def _choose_engine(machine: Machine, work: Work, known: Mapping[str, Any]) -> Choice:
    if not machine.vllm:
        return Choice({"engine": "transformers"}, "vllm is not installed")
    if known.get("candidates") == "dfs":
        return Choice({"engine": "transformers"}, "vllm's cache cannot be cut back, which dfs needs")
    if work.seconds < _VLLM_SECONDS:
        return Choice({"engine": "transformers"}, f"vllm's start takes minutes, and the run has {format_duration(work.seconds)}")
    return Choice({"engine": "vllm"}, "it is installed; transformers takes what it gives up")


def _choose_amounts(gpus: Sequence[Gpu], machine: Machine, model: Model, work: Work, tunes: bool) -> list[Choice]:
    """Steps and views that the time pays for."""
    costs = machine.costs or initial_costs(slowest_kind(gpus), model.parameters)
    share = len(gpus) * max(0.0, work.seconds - _START_SECONDS) / max(1, work.tasks)
    step, view = max(costs.train.rate * work.kilo_cells, 1e-9), max(costs.predict.rate * work.kilo_cells, 1e-9)
    steps, views = _nearest(_TRAIN_SHARE * share / step, _STEPS), _nearest(_PREDICT_SHARE * share / view, _VIEWS)
    whose = "measured here" if machine.costs else f"estimated for {slowest_kind(gpus)}"
    have = f"{work.tasks} tasks have {share:.0f} s of a GPU each"
    frozen = min(16, max(8, views // 4))
    choices = [Choice({"views": frozen}, "first answers to every task, a quarter of the fine-tuned model's views, from 8 to 16")]
    if not tunes:
        return choices
    return [
        Choice({"ttft_steps": steps}, f"{have}, {_TRAIN_SHARE:.0%} of it for training; a step takes {step:.2g} s ({whose})"),
        Choice({"ttft_views": views}, f"{_PREDICT_SHARE:.0%} of it for predictions; a view takes {view:.2g} s ({whose})"),
        Choice({"ttft_max_steps": 8 * steps, "ttft_max_views": 32 * views}, "bounds of what left-over time buys, 8 and 32 times the plan"),
        *choices,
    ]


def named_gpu(name: str, gib: float) -> Gpu:
    """A card of base_model.memory.CARDS, or of another amount of memory, as a GPU that need not exist."""
    return Gpu(name.upper(), gib, _CAPABILITIES.get(name, (8, 0)))


def slowest_kind(gpus: Sequence[Gpu]) -> str:
    """The slowest of the cards as one of costs.INITIAL_RATES; an unknown one is taken for a T4, and from sm_80 on for an L4."""

    def kind(gpu: Gpu) -> str:
        known = [name for name in INITIAL_RATES if name in gpu.name]
        return known[-1] if known else "L4" if gpu.capability >= (8, 0) else "T4"

    return max(map(kind, gpus), key=lambda name: INITIAL_RATES[name][0])


def lora_of(values: Mapping[str, Any]) -> LoraSettings:
    """The adapter that settings by name describe."""
    if isinstance(values.get("lora"), LoraSettings):
        return values["lora"]  # type: ignore[no-any-return]
    return LoraSettings(**{name.removeprefix("lora_"): value for name, value in values.items() if name.startswith("lora_")})


def _nearest(value: float, steps: Sequence[int]) -> int:
    return min(steps, key=lambda one: abs(math.log(one / max(value, 1e-9))))

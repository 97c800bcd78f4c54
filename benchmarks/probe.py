"""The parity probe at load: what it costs, and how far a model's forward passes are from transformers' own.

    python benchmarks/probe.py [FOLDER...] [--dtype float32] [--shapes]

`--shapes` adds a random model of the shape of Qwen2.5-0.5B, made in memory (2 GB in float32).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import AutoConfig, Qwen2ForCausalLM

from arc_submit.base_model.attention import ATTENTION
from arc_submit.base_model.cpu import use_cpu
from arc_submit.base_model.loading import load_model
from arc_submit.base_model.memory import SIZES
from arc_submit.base_model.parity import Probe
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.base_model.precision import TrainingPrecision
from arc_submit.finetune.loss import check_loss
from arc_submit.inference.load_transformers import make_engine

CPU = torch.device("cpu")


def main() -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(description="Cost and deviations of the parity probe at load.")
    parser.add_argument("folders", nargs="*", type=Path, default=[pocket_folder()], metavar="FOLDER", help="models (the pocket model)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--shapes", action="store_true", help="also a random model of the shape of Qwen2.5-0.5B")
    args = parser.parse_args()
    use_cpu(1)
    dtype = getattr(torch, args.dtype)
    for folder in args.folders:
        report(folder.name, load_model(folder, CPU, dtype, ATTENTION))
    if args.shapes:
        report("shape of Qwen2.5-0.5B", make_shape(dtype))


def report(name: str, model: Any) -> None:
    """Probe a model and print its deviations in nats and the CPU seconds of one thread."""
    found: dict[str, float] = {}

    def keep(probe: Probe, what: str, difference: float, allowed: float) -> float:
        found[what] = difference
        return difference

    with patch.object(Probe, "_judge", keep):
        began = time.process_time()
        make_engine(model, 1, 16)
        served = time.process_time() - began
        check_loss(model, TrainingPrecision(model.dtype, None if model.dtype == torch.float32 else model.dtype, False, ""))
        trained = time.process_time() - began - served
    values = "; ".join(f"{what} {value:.0e}" for what, value in found.items())
    print(f"{name}: {served:.2f} CPU-s to serve, {trained:.2f} to fine-tune; {values}", flush=True)


def make_shape(dtype: torch.dtype) -> Any:
    """A random model of the shape of Qwen2.5-0.5B."""
    config = AutoConfig.for_model(**SIZES["0.5B"].config, attn_implementation=ATTENTION)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Qwen2ForCausalLM(config).to(dtype).eval()


if __name__ == "__main__":
    main()

"""The pocket base model before its training: random weights in its shape, in a folder that `arc-submit train --full` takes as its base.

Knows nothing about data.

    python -m arc_submit.training.pocket --out runs/pocket/start --hidden 192 --layers 6
    arc-submit train --full --model runs/pocket/start --out runs/pocket ... (docs/training.md has the recipe)
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2ForCausalLM

from arc_submit.language.asked import AskedHow
from arc_submit.models.pocket import make_pocket_tokenizer, pocket_config
from arc_submit.models.saving import save_model


def make_start(folder: Path, hidden: int, layers: int, max_seq_len: int, seed: int) -> int:
    """Write a pocket model with random weights in float32; returns how many it has."""
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(pocket_config(hidden, layers, max(max_seq_len, 4096)))
    asked = AskedHow("CompactGridEncoder()", "output-from-turns-v0", max_seq_len)
    save_model(model, make_pocket_tokenizer(), asked, folder, torch.float32)
    return sum(parameter.numel() for parameter in model.parameters())


def export(model: Qwen2ForCausalLM, tokenizer: Any, asked: AskedHow, folder: Path) -> None:
    """Write a model as the pocket model ships: float16 safetensors, tokenizer and arc_submit.json."""
    save_model(model, tokenizer, asked, folder, torch.float16)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m arc_submit.training.pocket", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the model with random weights")
    parser.add_argument("--hidden", type=int, default=192, help="width, a multiple of 64 (%(default)s)")
    parser.add_argument("--layers", type=int, default=6, help="(%(default)s)")
    parser.add_argument("--max-seq-len", type=int, default=2048, help="tokens of a sample (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    told = parse()
    count = make_start(told.out, told.hidden, told.layers, told.max_seq_len, told.seed)
    print(f"{told.out}: {count:,} random weights; arc-submit train --full --model {told.out} trains them")

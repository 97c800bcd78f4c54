"""The pocket base model before its training, in a folder that `arc-submit train --full` takes as its base.

It has random weights, or the layers of a pocket model for CompactGridEncoder and an embedding for ColumnGridEncoder, whose tokens name
their column. Does not know data.

    python -m arc_submit.train.new_pocket --out runs/pocket/start --hidden 192 --layers 6
    arc-submit train --full --model runs/pocket/start --out runs/pocket ... (docs/training.md has the recipe)
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2ForCausalLM

from arc_submit.arc.grid import COLOURS
from arc_submit.base_model.checks import check_model_folder
from arc_submit.base_model.pocket import CELLS, VOCABULARY, make_pocket_tokenizer, pocket_config
from arc_submit.base_model.saving import save_model
from arc_submit.errors import ConfigError
from arc_submit.language.prompt_config import PromptConfig

ENCODER = "ColumnGridEncoder()"


def make_start(folder: Path, hidden: int, layers: int, max_seq_len: int, seed: int) -> int:
    """Write a pocket model with random weights in float32; returns their number."""
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(pocket_config(hidden, layers, max(max_seq_len, 4096)))
    save_model(model, make_pocket_tokenizer(), PromptConfig(ENCODER, "output-from-turns-v0", max_seq_len), folder, torch.float32)
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def add_columns(compact: Path, folder: Path, max_seq_len: int, seed: int) -> int:
    """Write the layers of a pocket model for CompactGridEncoder with an embedding of all cells; returns the number of weights.

    The embedding of a cell starts as that of its digit plus a random vector of its column, half as large. The layers so keep what they have
    learned about colours in every column, and can distinguish columns.

    Raises:
        ConfigError: where the model's embedding is not that of CompactGridEncoder.
    """
    check_model_folder(compact)
    old = Qwen2ForCausalLM.from_pretrained(compact, dtype=torch.float32, local_files_only=True, trust_remote_code=False)
    words = len(VOCABULARY) - len(CELLS)
    if not words <= old.config.vocab_size < len(VOCABULARY):
        raise ConfigError(f"{compact}: an embedding of {old.config.vocab_size} tokens is not that of a pocket model for CompactGridEncoder")
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(pocket_config(old.config.hidden_size, old.config.num_hidden_layers, max(max_seq_len, 4096)))
    weights = {name: tensor for name, tensor in old.state_dict().items() if "embed_tokens" not in name and "lm_head" not in name}
    model.load_state_dict(weights, strict=False)  # the embedding, which is the output layer too, follows
    table, known = model.get_input_embeddings().weight, old.get_input_embeddings().weight
    zero = VOCABULARY.index("0")
    digits = known[zero : zero + COLOURS]
    table[:words] = known[:words]
    columns = 0.5 * digits.std() * torch.randn(len(CELLS) // COLOURS, 1, table.shape[1])
    table[words : len(VOCABULARY)] = (digits[None] + columns).flatten(0, 1)
    save_model(model, make_pocket_tokenizer(), PromptConfig(ENCODER, "output-from-turns-v0", max_seq_len), folder, torch.float32)
    return sum(parameter.numel() for parameter in model.parameters())


def export(model: Qwen2ForCausalLM, tokenizer: Any, prompt_config: PromptConfig, folder: Path) -> None:
    """Write a model in the pocket model's format: float16 safetensors, tokenizer and arc_submit.json."""
    save_model(model, tokenizer, prompt_config, folder, torch.float16)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m arc_submit.train.new_pocket", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--add-columns", type=Path, metavar="MODEL", help="keep the layers of this pocket model for CompactGridEncoder")
    parser.add_argument("--hidden", type=int, default=192, help="width of random weights, a multiple of 64 (%(default)s)")
    parser.add_argument("--layers", type=int, default=6, help="(%(default)s)")
    parser.add_argument("--max-seq-len", type=int, default=2048, help="tokens of a sample (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    args = parse()
    if args.add_columns:
        count = add_columns(args.add_columns, args.out, args.max_seq_len, args.seed)
    else:
        count = make_start(args.out, args.hidden, args.layers, args.max_seq_len, args.seed)
    print(f"{args.out}: {count:,} weights; arc-submit train --full --model {args.out} trains them")

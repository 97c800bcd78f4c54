"""A tokenizer of sixteen tokens, of the layout that NVARC's models of 2025 have: digits, a newline, two roles and three marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

TOKENS = [*"0123456789", "Ċ", "user", "assistant", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # Ċ: a newline as byte-level BPE has it


def make_tokenizer() -> Any:
    """The tokenizer, without a chat template."""
    base = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(TOKENS)}, merges=[], ignore_merges=True))
    words = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|\n"), "isolated")
    base.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    base.decoder = decoders.ByteLevel()
    base.add_special_tokens([AddedToken(token, special=True) for token in TOKENS[13:]])
    return PreTrainedTokenizerFast(tokenizer_object=base, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def save_model(folder: Path) -> None:
    """Write a small random Qwen3 with these tokens, as NVARC's is published: no arc_submit.json and no chat template."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = Qwen3Config(
        vocab_size=16,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=8192,
        pad_token_id=13,
        eos_token_id=15,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)

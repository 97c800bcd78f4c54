"""A tokenizer of sixteen tokens, of the layout that NVARC's models of 2025 have: digits, a newline, two roles and three marks."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TOKENS = [*"0123456789", "Ċ", "user", "assistant", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # Ċ: a newline as byte-level BPE has it


def make_tokenizer() -> Any:
    """The tokenizer, without a chat template."""
    base = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(TOKENS)}, merges=[], ignore_merges=True))
    words = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|\n"), "isolated")
    base.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    base.decoder = decoders.ByteLevel()
    base.add_special_tokens([AddedToken(token, special=True) for token in TOKENS[13:]])
    return PreTrainedTokenizerFast(tokenizer_object=base, eos_token="<|im_end|>", pad_token="<|endoftext|>")

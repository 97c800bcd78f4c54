"""A tiny untrained model that writes programs, because each program of a list is one token of its vocabulary.

Use: python tests/program_writer.py FOLDER makes one, to try the source code without a download.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from arc_submit.language.prompt_config import PromptConfig

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_RESULTS = [f"(grid + {a}) % {b}" for a in range(1, 6) for b in range(3, 11)]
_RESULTS += ["grid[::-1]", "grid[:, ::-1]", "grid[::-1, ::-1]", "grid.T", "np.rot90(grid)", "np.rot90(grid, 3)"]
_RESULTS += ["np.tile(grid, (1, 2))", "np.concatenate([grid, grid[:, ::-1]], axis=1)", "np.repeat(np.repeat(grid, 2, 0), 2, 1)"]
PROGRAMS = [f"def transform(grid):\n    return {result}" for result in _RESULTS]


def make_tokenizer() -> Any:
    """A token for each byte, and the marks of a chat."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    marks = ["<|im_start|>", "<|im_end|>"]
    base = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*letters, *marks])}, merges=[]))
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    base.decoder = decoders.ByteLevel()
    base.add_special_tokens(marks)
    return PreTrainedTokenizerFast(tokenizer_object=base, eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=TEMPLATE)


def make_model(folder: Path, programs: bool = True) -> Any:
    """Write a random model that reads and writes bytes, and programs in their code blocks; returns its tokenizer."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    if programs:
        tokenizer.add_tokens([f"```python\n{text}\n```" for text in PROGRAMS])
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen2Config(vocab_size=len(tokenizer), max_position_embeddings=8192, eos_token_id=tokenizer.eos_token_id, **sizes)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    PromptConfig("MinimalGridEncoder()", "output-from-examples-v1", 4000).save(folder)
    return tokenizer


if __name__ == "__main__":
    make_model(Path(sys.argv[1]))

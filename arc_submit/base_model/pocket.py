"""The pocket model's tokenizer and architecture.

The pocket model is a small Qwen2 that ships with the project, so that everything runs without a download. Its vocabulary has one token for
each character of the compact grid form and of the form with columns, and a few marks. Does not know its training
(arc_submit.train.new_pocket does).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from arc_submit.arc.grid import COLOURS, MAX_SIDE
from arc_submit.errors import ConfigError
from arc_submit.language.encoders import LETTERS, column_cell

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2Config

START, ANSWER, END, PAD, UNKNOWN = "<|start|>", "<|answer|>", "<|end|>", "<|pad|>", "<|unknown|>"
CELLS = [column_cell(column, colour) for column in range(MAX_SIDE) for colour in range(COLOURS)]
VOCABULARY = [PAD, START, ANSWER, END, UNKNOWN, *"0123456789", *LETTERS, *CELLS]
# Each train pair is a turn of the user and its answer, so that a prompt reads: start in answer out end in answer out end ...
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.content }}"
    "{% if message.role == 'user' %}{% if not loop.last or add_generation_prompt %}" + ANSWER + "{% endif %}"
    "{% elif message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


def pocket_folder() -> Path:
    """The pocket model's folder in a checkout of the project."""
    return Path(__file__).resolve().parents[2] / "models" / "pocket"


def make_pocket_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each character of the compact grid form, with and without columns.

    Each character is an added token too. For a Qwen2 model, transformers' AutoTokenizer builds rules of its own from the vocabulary, which
    cannot write these characters; it keeps added tokens. It drops a character outside the vocabulary, which is UNKNOWN here.
    """
    from tokenizers import AddedToken, Regex, Tokenizer
    from tokenizers.decoders import Fuse
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        extra_special_tokens=[ANSWER],
        clean_up_tokenization_spaces=False,
    )
    marks = {PAD, START, ANSWER, END, UNKNOWN}
    fast.add_tokens([AddedToken(token, normalized=False, special=False) for token in VOCABULARY if token not in marks])
    fast.chat_template = CHAT_TEMPLATE
    if len(fast) != len(VOCABULARY):
        raise ConfigError(f"the pocket tokenizer has {len(fast)} tokens instead of {len(VOCABULARY)}: this transformers adds its own")
    return fast


def pocket_config(hidden: int = 192, layers: int = 6, max_seq_len: int = 4096) -> Qwen2Config:
    """The pocket model's architecture: heads of size 64 that share keys and values, an MLP of 8/3 the width, tied embeddings.

    Args:
        hidden: width, a multiple of 64.
        layers: number of layers.
        max_seq_len: context length.
    """
    from transformers import Qwen2Config

    if hidden % 64:
        raise ConfigError(f"a width of {hidden} is no multiple of the head size 64")
    return Qwen2Config(
        vocab_size=-(-len(VOCABULARY) // 16) * 16,
        hidden_size=hidden,
        # Rows of whole SIMD vectors: a completion then has the same bits in every slot of the engine.
        intermediate_size=-(-hidden * 8 // 3 // 64) * 64,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=1,  # decoding on a CPU is bound by reading keys and values; three heads would read three times as much
        max_position_embeddings=max_seq_len,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        pad_token_id=VOCABULARY.index(PAD),
        bos_token_id=VOCABULARY.index(START),
        eos_token_id=VOCABULARY.index(END),
    )

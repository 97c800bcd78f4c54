"""PromptTokenizer: composed tokens equal those of the whole text, or the whole text is tokenized and the reason is given."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from strategies import GRID_SPECS, random_grid, random_task, small_tasks
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from arc_submit.arc.grid import Grid, frozen, same_grid
from arc_submit.arc.task import Pair
from arc_submit.base_model.pocket import make_pocket_tokenizer
from arc_submit.errors import ConfigError
from arc_submit.language.encoders import NotAGridError, make_encoder
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import PROMPTS, PromptVersion, Turn, prompt_version

_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + _TAIL
LLAMA = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + _TAIL
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = ("CompactGridEncoder()", "ColumnGridEncoder()")  # without line ends
BPE_SPECS = [spec for spec in GRID_SPECS if spec not in MARKED]


@lru_cache(maxsize=1)
def _corpus() -> list[str]:
    """The words of every prompt and grids in every form, repeated, so that a BPE learns every possible merge across cells."""
    rng = np.random.default_rng(0)
    words = [part for version in PROMPTS.values() for turn in _question(version, rng) for part in turn.parts if isinstance(part, str)]
    forms = [make_encoder(spec).encode(random_grid(rng, 12)) for spec in GRID_SPECS for _ in range(20)]
    return [*words, *forms, *(a + b for a, b in zip(words, forms, strict=False))]


def _question(version: PromptVersion, rng: np.random.Generator, pairs: int = 2, max_side: int = 12) -> list[Turn]:
    task = random_task(rng, pairs=pairs, max_side=max_side)
    candidates = [random_grid(rng, max_side) for _ in range({"select": 2, "verify": 1}.get(version.kind, 0))]
    return version.turns(task.train, None if version.kind == "inputs" else task.tests[0], candidates)


@lru_cache(maxsize=8)
def _bpe(pattern: str, kind: str = "plain") -> Any:
    """A byte-level BPE tokenizer with a ChatML template; other kinds change one part of it."""
    tokenizer = Tokenizer(models.BPE())
    bytes_level = pre_tokenizers.ByteLevel(add_prefix_space=kind == "prefix space", use_regex=False)
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([bytes_level, split] if kind == "prefix space" else [split, bytes_level])
    if kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace() if kind == "metaspace" else decoders.ByteLevel()
    if kind == "strip":
        tokenizer.normalizer = normalizers.Strip()
    if kind == "prepend":
        tokenizer.normalizer = normalizers.Prepend("_")
    marks = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    alphabet = [*pre_tokenizers.ByteLevel.alphabet(), *"\n "] if kind == "metaspace" else pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, special_tokens=marks, show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHATML
    return fast


def _whole(tokenizer: PromptTokenizer, turns: list[Turn], generation: bool = True) -> list[int]:
    ids: list[int] = tokenizer.tokenizer.encode(tokenizer.text(turns, generation), add_special_tokens=False)
    return ids


def _check(tokenizer: PromptTokenizer, count: int, seed: int = 5) -> None:
    """Prompts and samples of random tasks are the tokens of their whole text, and the answer is decoded."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        turns = _question(tokenizer.prompt, rng, pairs=1 + i % 3, max_side=(3, 12, 30)[i % 3])
        answer = random_grid(rng)
        prompt = tokenizer.prompt_ids(turns)
        assert prompt == _whole(tokenizer, turns)
        ids, start = tokenizer.sample_ids(turns, answer)
        whole = _whole(tokenizer, [*turns, Turn("assistant", (answer,))], generation=False)
        assert ids == whole[: len(ids)]
        assert ids[:start] == prompt
        assert ids[-1] == tokenizer.end_id
        assert tokenizer.end_id not in ids[start:-1]
        assert same_grid(tokenizer.decode(ids[start:]), answer)
        assert same_grid(tokenizer.decode(ids[start:-1]), answer)


@pytest.mark.parametrize("spec", MARKED)
def test_the_pocket_tokenizer(spec: str) -> None:
    tokenizer = PromptTokenizer(make_pocket_tokenizer(), make_encoder(spec), prompt_version("output-from-turns-v0"))
    assert tokenizer.reuse, tokenizer.reason
    _check(tokenizer, 40)
    # One token for each character of every grid, a start, and two marks around each output.
    task = small_tasks()[0]
    pair = task.train[0]
    ids, start = tokenizer.sample_ids(tokenizer.prompt.turns([pair], task.tests[0]), pair.output)
    lengths = [len(tokenizer.encoder.encode(grid)) for grid in (pair.input, pair.output, task.tests[0], pair.output)]
    assert len(ids) == 1 + sum(lengths) + 2 * 2
    assert start == len(ids) - lengths[3] - 1
    assert ids.count(tokenizer.end_id) == 2


@pytest.mark.parametrize("version", PROMPTS)
@pytest.mark.parametrize("pattern", [QWEN, LLAMA], ids=["qwen", "llama"])
def test_every_prompt_with_byte_level_tokenizers(pattern: str, version: str) -> None:
    tokenizer = PromptTokenizer(_bpe(pattern), make_encoder("GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))"), PROMPTS[version])
    assert tokenizer.reuse, tokenizer.reason
    _check(tokenizer, 6)


@pytest.mark.parametrize("spec", BPE_SPECS)
@pytest.mark.parametrize("pattern", [QWEN, LLAMA], ids=["qwen", "llama"])
def test_every_encoder_with_byte_level_tokenizers(pattern: str, spec: str) -> None:
    tokenizer = PromptTokenizer(_bpe(pattern), make_encoder(spec), prompt_version("output-from-examples-v1"))
    # Only symbols that are punctuation can merge with the text beside the rows.
    assert tokenizer.reuse or "!@#" in spec, tokenizer.reason
    _check(tokenizer, 3)


@pytest.mark.parametrize("spec", MARKED)
def test_forms_without_line_ends_with_a_byte_level_tokenizer(spec: str) -> None:
    tokenizer = PromptTokenizer(_bpe(QWEN), make_encoder(spec), prompt_version("output-from-examples-v0"))
    _check(tokenizer, 6)


def test_cells_that_merge_are_tokenized_row_by_row() -> None:
    """Llama's pattern makes tokens of up to three cells: no pattern of single cells holds, and the tokens are still right."""
    tokenizer = PromptTokenizer(_bpe(LLAMA), make_encoder("MinimalGridEncoder()"), prompt_version("output-from-examples-v0"))
    assert tokenizer.reuse
    assert tokenizer.answer_length((1, 30)) < 31
    _check(tokenizer, 12)


@pytest.mark.parametrize("kind", ["prefix space", "strip", "prepend"])
def test_a_tokenizer_that_changes_the_beginning_or_end_of_a_text_is_detected(kind: str) -> None:
    tokenizer = PromptTokenizer(_bpe(QWEN, kind), make_encoder("MinimalGridEncoder()"), prompt_version("output-from-examples-v0"))
    assert not tokenizer.reuse
    assert "differ" in tokenizer.reason
    rng = np.random.default_rng(0)
    for _ in range(5):
        turns, answer = _question(tokenizer.prompt, rng), random_grid(rng)
        assert tokenizer.prompt_ids(turns) == _whole(tokenizer, turns)
        # What comes in front of every text does not come in front of an answer, which has a prompt before it.
        ids, start = tokenizer.sample_ids(turns, answer)
        assert ids == _whole(tokenizer, [*turns, Turn("assistant", (answer,))], generation=False)[: len(ids)]
        assert ids[start:] == tokenizer.answer_ids(answer)
        assert len(ids) - start <= tokenizer.answer_length((answer.shape[0], answer.shape[1]))
        assert same_grid(tokenizer.decode(ids[start:]), answer)


def test_a_metaspace_tokenizer_is_detected_and_still_right() -> None:
    tokenizer = PromptTokenizer(
        _bpe(QWEN, "metaspace"), make_encoder("GridCodeBlockEncoder(MinimalGridEncoder())"), PROMPTS["output-from-examples-v0"]
    )
    assert not tokenizer.reuse
    assert "differ" in tokenizer.reason
    rng = np.random.default_rng(0)
    for _ in range(5):
        turns, answer = _question(tokenizer.prompt, rng), random_grid(rng)
        assert tokenizer.prompt_ids(turns) == _whole(tokenizer, turns)
        ids, start = tokenizer.sample_ids(turns, answer)
        assert ids[:start] == tokenizer.prompt_ids(turns)
        assert same_grid(tokenizer.decode(ids[start:]), answer)


def test_a_merge_of_one_colour_with_the_words_after_it_is_detected() -> None:
    """Punctuation before a newline belongs to one piece in Qwen's pattern; only one of the ten symbols has merged with it."""
    base = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN), "isolated")
    base.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    base.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=262,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    base.train_from_iterator([")\n\n"] * 100, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=base, eos_token="<|im_end|>")
    fast.chat_template = CHATML
    encoder = make_encoder("ReplaceNumberEncoder(MinimalGridEncoder(), '!@#$%^&*()')")
    tokenizer = PromptTokenizer(fast, encoder, prompt_version("output-from-examples-v0"))
    assert not tokenizer.reuse
    _check(tokenizer, 12)


def test_one_pair_of_colours_that_merges_is_detected() -> None:
    """Letters for colours, and a vocabulary in which a single pair of them is one token: the pattern of single cells must not be used."""
    base = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN), "isolated")
    base.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(
        vocab_size=259,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    base.decoder = decoders.ByteLevel()
    base.train_from_iterator(["hd"] * 100, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=base, eos_token="<|im_end|>")
    fast.chat_template = CHATML
    assert len(fast.encode("hd")) == 1
    tokenizer = PromptTokenizer(fast, make_encoder("ReplaceNumberEncoder(MinimalGridEncoder())"), prompt_version("output-from-examples-v0"))
    assert tokenizer.reuse
    _check(tokenizer, 12)


def test_without_reuse_the_tokens_are_the_same() -> None:
    encoder, version = make_encoder("GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))"), prompt_version("output-from-examples-v0")
    tokenizers = [PromptTokenizer(_bpe(QWEN), encoder, version, reuse=reuse) for reuse in (True, False)]
    assert [tokenizer.reuse for tokenizer in tokenizers] == [True, False]
    assert tokenizers[1].reason == "reuse is off"
    rng = np.random.default_rng(0)
    for _ in range(5):
        turns, answer = _question(version, rng), random_grid(rng)
        assert tokenizers[0].sample_ids(turns, answer) == tokenizers[1].sample_ids(turns, answer)
    _check(tokenizers[1], 3)


def test_answers_in_words() -> None:
    for name, words in (("select-output-from-examples-v0", "2"), ("verify-output-from-examples-v0", "yes")):
        tokenizer = PromptTokenizer(_bpe(QWEN), make_encoder("MinimalGridEncoder()"), prompt_version(name))
        ids, start = tokenizer.sample_ids(_question(tokenizer.prompt, np.random.default_rng(0)), words)
        assert tokenizer.tokenizer.decode(ids[start:]) == words + "<|im_end|>"
        with pytest.raises(NotAGridError):
            tokenizer.decode(tokenizer.tokenizer.encode("yes", add_special_tokens=False))


@pytest.mark.parametrize("spec", ["MinimalGridEncoder()", "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))"])
def test_the_length_of_an_answer_follows_from_its_shape(spec: str) -> None:
    tokenizer = PromptTokenizer(_bpe(QWEN), make_encoder(spec), prompt_version("output-from-examples-v0"))
    rng = np.random.default_rng(0)
    for _ in range(20):
        grid: Grid = random_grid(rng)
        ids, start = tokenizer.sample_ids(tokenizer.prompt.turns([Pair(grid, grid)], grid), grid)
        assert len(ids) - start == tokenizer.answer_length((grid.shape[0], grid.shape[1]))


def _broken(**changes: Any) -> Any:
    tokenizer = make_pocket_tokenizer()
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return tokenizer


def test_an_unusable_tokenizer_is_refused() -> None:
    encoder, version = make_encoder("CompactGridEncoder()"), prompt_version("output-from-turns-v0")
    with pytest.raises(ConfigError, match="has no chat template"):
        PromptTokenizer(_broken(chat_template=None), encoder, version)
    with pytest.raises(ConfigError, match="does not end an answer"):
        PromptTokenizer(_broken(eos_token=None), encoder, version)
    with pytest.raises(ConfigError, match="cannot write prompt output-from-turns-v0 with MinimalGridEncoder"):
        PromptTokenizer(make_pocket_tokenizer(), make_encoder("MinimalGridEncoder()"), version)
    with pytest.raises(ConfigError, match="cannot write prompt output-from-examples-v0"):
        PromptTokenizer(make_pocket_tokenizer(), encoder, prompt_version("output-from-examples-v0"))
    with pytest.raises(ConfigError, match=r"refuses a chat with the roles user, assistant \(no such role\)"):
        PromptTokenizer(_broken(chat_template="{{ raise_exception('no such role') }}"), encoder, version)


def test_a_template_without_an_answer_to_learn_is_refused() -> None:
    encoder, version = make_encoder("MinimalGridEncoder()"), prompt_version("output-from-examples-v1")
    no_end = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    answers = "{% if m.role == 'assistant' %}Answer: {% endif %}"
    elsewhere = f"{{% for m in messages %}}{answers}{{{{ m.content }}}}<|im_end|>\n{{% endfor %}}"
    elsewhere += "{% if add_generation_prompt %}Think: {% endif %}"
    for template, words in ((no_end, "does not end an answer"), (elsewhere, "right after its prompt")):
        for reuse in (True, False):
            tokenizer = PreTrainedTokenizerFast(tokenizer_object=_bpe(QWEN)._tokenizer, eos_token="<|im_end|>")
            tokenizer.chat_template = template
            with pytest.raises(ConfigError, match=words):
                PromptTokenizer(tokenizer, encoder, version, reuse=reuse)


def test_a_cell_is_one_token_that_encodes_its_column() -> None:
    """Under the column form no token occurs in two columns, whatever the cell's row and colour."""
    tokenizer = PromptTokenizer(make_pocket_tokenizer(), make_encoder("ColumnGridEncoder()"), prompt_version("output-from-turns-v0"))
    columns: dict[int, int] = {}
    rng = np.random.default_rng(0)
    for grid in (frozen(np.arange(10)[:, None].repeat(30, axis=1)), *(random_grid(rng) for _ in range(20))):
        height, width = grid.shape
        ids = tokenizer.answer_ids(grid)
        assert len(ids) == 2 + height * (width + 1) + 1
        for row in range(height):
            for column, token in enumerate(ids[2 + row * (width + 1) + 1 : 2 + (row + 1) * (width + 1)]):
                assert columns.setdefault(token, column) == column
    assert len(columns) == 300

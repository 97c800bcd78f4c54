"""How public models' chat templates end an answer, what they write around it, and the dates in them.

The templates are of the shapes that public models have, written for these tests.
"""

from __future__ import annotations

import json
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import random_grid
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from arc_submit.arc.grid import frozen, same_grid
from arc_submit.arc.task import Pair, Task
from arc_submit.errors import ConfigError, DataError
from arc_submit.inference.engine import Completion
from arc_submit.inference.requests import make_prediction, plan_requests
from arc_submit.inference.settings import RequestSettings
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version
from arc_submit.language.truncation import fit_prompt, fit_sample

MARKS = ("<|stop|>", "<|over|>", "<|open|>", "<|think|>", "<|/think|>")
_LOOP = "{% for m in messages %}<|open|>{{ m.role }}\n{{ m.content }}"
_ASK = "{% if add_generation_prompt %}<|open|>assistant\n"
CHATML = _LOOP + "<|stop|>\n{% endfor %}" + _ASK + "{% endif %}"
TWO_MARKS = _LOOP + "<|stop|>\n{% endfor %}" + _ASK + "{% else %}<|over|>{% endif %}"
OPEN_THOUGHT = (
    "{% for m in messages %}<|open|>{{ m.role }}\n"
    "{% if loop.last and m.role == 'assistant' %}<|think|>\n\n<|/think|>\n\n{% endif %}{{ m.content }}<|stop|>\n{% endfor %}"
    + _ASK
    + "<|think|>\n{% endif %}"
)
DATED = "{{ strftime_now('%d %b %Y') }}\n" + CHATML
DATED_BY_DEFAULT = "{% if today is not defined %}{% set today = strftime_now('%Y-%m-%d') %}{% endif %}{{ today }}\n" + CHATML
# GLM's: nothing ends an answer but the next turn's mark. DeepSeek-R1's: thinking is opened in a prompt, and not written in a chat.
NO_END = "{% for m in messages %}<|{{ 'over' if m.role == 'user' else 'open' }}|>\n{{ m.content }}{% endfor %}" + _ASK + "{% endif %}"
ALWAYS_THINKS = CHATML.replace(_ASK, _ASK + "<|think|>\n")
SPECS = ("MinimalGridEncoder()", "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))")


@lru_cache(maxsize=4)
def _trained(digits: str) -> Any:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(rf"\p{{L}}+|\p{{N}}{digits}|[^\p{{L}}\p{{N}}]"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=list(MARKS), show_progress=False
    )
    tokenizer.train_from_iterator(["Input Output user assistant system 000 111 000111 222 1212"] * 20, trainer)
    return tokenizer


def _tokenizer(template: str | None, eos: str | None = "<|stop|>", digits: str = "") -> Any:
    """A byte-level tokenizer whose token <|stop|> is 0 and <|over|> 1."""
    fast = PreTrainedTokenizerFast(tokenizer_object=_trained(digits), eos_token=eos)
    fast.chat_template = template
    return fast


def _writer(tokenizer: Any, spec: str = SPECS[0], prompt: str = "output-from-turns-v0", reuse: bool = True) -> PromptTokenizer:
    return PromptTokenizer(tokenizer, make_encoder(spec), prompt_version(prompt), reuse)


@pytest.mark.parametrize(
    ("template", "digits", "spec"),
    [
        (TWO_MARKS, "", SPECS[0]),
        (OPEN_THOUGHT, "{1,3}", SPECS[1]),
        (CHATML, "+", SPECS[0]),
    ],
)
def test_there_is_room_for_all_that_is_learnt(template: str, digits: str, spec: str) -> None:
    writer = _writer(_tokenizer(template, digits=digits), spec, reuse=digits != "+")
    rng = np.random.default_rng(3)
    for _ in range(4):
        grid = random_grid(rng, 12)
        pairs = [Pair(grid, grid), Pair(random_grid(rng, 5), grid)]
        ids, start = writer.sample_ids(writer.prompt.turns(pairs, grid), grid)
        assert writer.answer_length((grid.shape[0], grid.shape[1])) >= len(ids) - start
        assert ids[-1] == writer.end_id
        assert ids[start:] == writer.answer_ids(grid)
        assert same_grid(writer.decode(ids[start:]), grid)
        # Prompt, room for the answer and sample are truncated by the same count.
        task = Task("t", (*pairs, Pair(grid, grid)), (grid,))
        fitted = fit_prompt(writer, task, 0, 3000, np.random.default_rng(0))
        whole, begin, _ = fit_sample(writer, task, 2, 3000, np.random.default_rng(0))
        assert fitted.answer_tokens >= len(whole) - begin
        tight = len(fitted.ids) + fitted.answer_tokens
        assert fit_prompt(writer, task, 0, tight, np.random.default_rng(0)).train_indices == fitted.train_indices
        assert len(fit_prompt(writer, task, 0, tight - 1, np.random.default_rng(0)).train_indices) < len(fitted.train_indices)


def test_rows_that_do_not_merge_are_the_measure_where_others_do() -> None:
    """Runs of digits are one token where they were learnt: the room is that of the longest row, not of a blank grid."""
    writer = _writer(_tokenizer(CHATML, digits="+"))
    blank, mixed = frozen(np.zeros((3, 12))), frozen(np.array([[9, 7, 5, 3, 9, 8, 6, 4, 9, 8, 7, 6]] * 3))
    assert len(writer.answer_ids(blank)) < len(writer.answer_ids(mixed)) <= writer.answer_length((3, 12))


@pytest.mark.parametrize(
    ("template", "eos", "configured", "ends"),
    [
        (CHATML, "<|over|>", None, [0, 1]),
        (CHATML, "<|over|>", [1, 0], [0, 1]),
        (CHATML, None, None, [0]),
        (CHATML, None, 1, [0, 1]),
        (CHATML, "<|stop|>", [300], [0]),
        (TWO_MARKS, "<|over|>", None, [0, 1]),
        (CHATML.replace("<|stop|>", "{{ eos_token }}"), "<|over|>", None, [1]),
    ],
)
def test_the_end_marks_are_found(tmp_path: Path, template: str, eos: str | None, configured: Any, ends: list[int]) -> None:
    """The first special token behind the answer is learnt; the tokenizer's and the generation configuration's marks end an answer too."""
    tokenizer = _tokenizer(template, eos)
    tokenizer.name_or_path = str(tmp_path)
    (tmp_path / "config.json").write_text('{"eos_token_id": 299}')
    if configured is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": configured}))
    writer = _writer(tokenizer)
    grid = frozen(np.array([[1, 2]]))
    assert list(writer.end_ids) == ends
    assert writer.answer_ids(grid)[-1] == ends[0]
    assert f"an answer ends with {MARKS[ends[0]]}" in writer.summary
    # Each mark ends a completion, and the answer is read up to it.
    task = Task("t", (Pair(grid, grid),), (grid,))
    (asked,), _ = plan_requests(writer, task, RequestSettings(1, 0, 2000))
    assert asked.request.end_ids == writer.end_ids
    for end in ends:
        completion = Completion(asked.request.id, [*writer.answer_ids(grid)[:-1], end], -1.0, "stop", 0.1)
        assert make_prediction(writer, asked, completion, "m").grid is not None


@pytest.mark.parametrize(
    ("configured", "named", "ends"), [([300, 1], (), [1]), (None, ("<|stop|>",), [0]), (None, ("<|stop|>", "<|over|>"), [0, 1])]
)
def test_an_end_that_the_template_does_not_write_is_taught(
    tmp_path: Path, configured: Any, named: tuple[str, ...], ends: list[int]
) -> None:
    tokenizer = _tokenizer(NO_END.replace("assistant", ""), eos=None)
    tokenizer.name_or_path = str(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": configured}))
    for reuse in (True, False):
        writer = PromptTokenizer(tokenizer, make_encoder(SPECS[0]), prompt_version("output-from-turns-v0"), reuse, end_marks=named)
        assert list(writer.end_ids) == ends
        grid = frozen(np.array([[1, 2]]))
        ids, start = writer.sample_ids(writer.prompt.turns([Pair(grid, grid)], grid), grid)
        assert ids[start:] == writer.answer_ids(grid)
        assert ids[-1] == ends[0]
        assert ids.count(1) == (3 if ends == [1] else 2)
        assert len(ids) - start <= writer.answer_length((1, 2))
        assert same_grid(writer.decode(ids[start:]), grid)


@pytest.mark.parametrize("prompt", ["output-from-turns-v0", "output-from-examples-v1"])
def test_thinking_that_no_chat_holds_is_left_out_of_prompts(prompt: str) -> None:
    writer, grid = _writer(_tokenizer(ALWAYS_THINKS), prompt=prompt), frozen(np.array([[1, 2]]))
    turns = writer.prompt.turns([Pair(grid, grid)], grid)
    asked = writer.prompt_ids(turns)
    assert "prompts end before '<|think|>\\n'" in writer.summary
    assert writer.text(turns).endswith("<|open|>assistant\n")
    sample = writer.sample_ids(turns, grid)
    assert sample[0][: sample[1]] == asked
    writer.let_think()
    assert writer.prompt_ids(turns)[: len(asked)] == asked
    assert writer.text(turns).endswith("assistant\n<|think|>\n")
    assert writer.sample_ids(turns, grid) == sample


@pytest.mark.parametrize("value", [[None], "<|stop|>", [[1]], {"a": 1}])
def test_end_tokens_that_are_no_numbers_are_named(tmp_path: Path, value: Any) -> None:
    tokenizer = _tokenizer(CHATML)
    tokenizer.name_or_path = str(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(DataError, match=r"generation_config.json: eos_token_id is a token's number"):
        _writer(tokenizer)


def test_a_template_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="refuses a chat"):
        _writer(_tokenizer("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}" + CHATML))


def test_a_mark_that_is_no_special_token_ends_an_answer() -> None:
    tokenizer = _tokenizer(_LOOP + "<end>\n{% endfor %}" + _ASK + "{% endif %}", eos="<|over|>")
    tokenizer.add_tokens(["<end>"])
    writer = _writer(tokenizer)
    grid = frozen(np.array([[1, 2]]))
    assert writer.tokenizer.convert_ids_to_tokens(writer.end_id) == "<end>"
    assert same_grid(writer.decode(writer.answer_ids(grid)), grid)


def test_an_answer_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"does not end an answer with an end mark \(it writes '\\n'\); set eos_token"):
        _writer(_tokenizer(_LOOP + "\n{% endfor %}" + _ASK + "{% endif %}"))


@pytest.mark.parametrize("template", [DATED, DATED_BY_DEFAULT])
def test_a_prompt_does_not_depend_on_the_day(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = frozen(np.zeros((2, 2)))
    texts = []
    for zone in ("Pacific/Kiritimati", "Etc/GMT+12"):  # never the same day
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        writer = _writer(_tokenizer(template))
        texts.append(writer.text(writer.prompt.turns([Pair(grid, grid)], grid)))
    monkeypatch.undo()
    time.tzset()
    assert texts[0] == texts[1]
    assert texts[0].startswith(("26 Jul 2024", "2024-07-26"))
    assert "date is always 26 Jul 2024" in writer.summary
    assert "date" not in _writer(_tokenizer(CHATML)).summary

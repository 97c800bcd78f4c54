"""GridPrefixCheck: no readable answer is ended; an unreadable one is ended at its first wrong row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_submit.base_model.pocket import VOCABULARY, make_pocket_tokenizer
from arc_submit.language.encoders import NotAGridError, make_encoder
from arc_submit.language.grid_prefix_check import GridPrefixCheck

SPECS = [
    "CompactGridEncoder()",
    "ColumnGridEncoder()",
    "MinimalGridEncoder()",
    "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))",
    'GridCodeBlockEncoder(GridWithSeparationEncoder("|"))',
]


class Letters:
    """A tokenizer with one token for every character; the pocket model's has none for a newline."""

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(map(chr, ids))


def grids() -> st.SearchStrategy[np.ndarray]:
    shape = st.tuples(st.integers(1, 30), st.integers(1, 30))
    return st.builds(lambda s, seed: np.random.default_rng(seed).integers(0, 10, s).astype(np.int8), shape, st.integers(0, 9))


def first_stop(spec: str, text: str, step: int = 1) -> int | None:
    """The number of characters at which an engine stops that checks every `step` characters."""
    check, ids = GridPrefixCheck(Letters(), make_encoder(spec)), Letters().encode(text)
    return next((end for end in range(step, len(ids) + 1, step) if check(ids[:end])), None)


@pytest.mark.parametrize("spec", SPECS)
@given(grids(), st.integers(1, 9))
def test_no_readable_answer_is_ended(spec: str, grid: np.ndarray, step: int) -> None:
    assert first_stop(spec, make_encoder(spec).encode(grid), step) is None


@given(st.text("ABCDabcd0123456789", max_size=60))
def test_an_ended_answer_is_unreadable(text: str) -> None:
    """In the compact form no continuation after the stop makes the text readable."""
    end = first_stop(SPECS[0], text)
    if end is not None:
        with pytest.raises(NotAGridError):
            make_encoder(SPECS[0]).decode(text)


@pytest.mark.parametrize(
    ("spec", "text", "end"),
    [
        ("CompactGridEncoder()", "BCA012B0123", 11),
        ("CompactGridEncoder()", "BCA012C012", 7),
        ("CompactGridEncoder()", "AAA0A0", 5),
        ("CompactGridEncoder()", "0BA", 3),
        ("ColumnGridEncoder()", "BCA\uac00\uac1d\uac3aB\uac03\uac3d", 9),
        ("ColumnGridEncoder()", "BCA\uac00\uac1d\uac3aB\uac03\uac20\uac3d\uac58", 11),
        ("ColumnGridEncoder()", "BCA\uac0a", 4),
        ("MinimalGridEncoder()", "012\n012\n01\n012", 11),
        ("MinimalGridEncoder()", "012\n" * 40, 31 * 4),
        ("GridShapeEncoder(MinimalGridEncoder())", "```grid shape: 2x3\n012\n012\n012\n", 31),
        ("GridCodeBlockEncoder(RowNumberEncoder(MinimalGridEncoder()))", "```grid\n1 01\n1 01\n", 18),
    ],
)
def test_the_first_wrong_row_ends_it(spec: str, text: str, end: int) -> None:
    assert first_stop(spec, text) == end


@pytest.mark.parametrize("text", ["The output is:\n012\n0123\n", "no grid here", "```python\n012\n0123\n```\n"])
def test_an_answer_of_an_unknown_form_is_not_ended(text: str) -> None:
    assert first_stop("MinimalGridEncoder()", text) is None
    assert first_stop("GridCodeBlockEncoder(MinimalGridEncoder())", text) is None


def test_it_decodes_the_pocket_models_tokens() -> None:
    tokenizer, encoder = make_pocket_tokenizer(), make_encoder("CompactGridEncoder()")
    ids = tokenizer.encode("CCA012B01", add_special_tokens=False)
    check = GridPrefixCheck(tokenizer, encoder)
    assert not any(check(ids[:end]) for end in range(1, len(ids) + 1))
    assert check([*ids, VOCABULARY.index("C")])


def test_a_call_with_fewer_tokens_begins_another_answer() -> None:
    tokenizer, encoder = make_pocket_tokenizer(), make_encoder("CompactGridEncoder()")
    ids = tokenizer.encode("CCA012B01", add_special_tokens=False)
    check = GridPrefixCheck(tokenizer, encoder)
    assert check([*ids, VOCABULARY.index("C")])
    assert not any(check(ids[:end]) for end in range(1, len(ids) + 1))

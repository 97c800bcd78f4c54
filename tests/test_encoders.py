"""Grid encoders: every composition is decoded to its grid; a text without exactly one grid is refused; a decoded grid is in its text."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import GRID_SPECS, grids, random_grid

from arc_submit.arc.grid import Grid, make_grid, same_grid
from arc_submit.errors import ConfigError
from arc_submit.language.encoders import NotAGridError, make_encoder

GRID = make_grid([[0, 1, 2], [3, 4, 5]])
_FRAMED = [spec for spec in GRID_SPECS if spec.startswith(("Grid", "Compact")) and "Separation" not in spec.partition("(")[0]]


@pytest.mark.parametrize("spec", GRID_SPECS)
@given(grid=grids())
@settings(max_examples=25, deadline=None)
def test_a_grid_and_back(spec: str, grid: Grid) -> None:
    encoder = make_encoder(spec)
    text = encoder.encode(grid)
    assert same_grid(encoder.decode(text), grid)
    assert text == text.strip()
    rows = [encoder.row_text(row.tolist(), i) for i, row in enumerate(grid)]
    assert text == encoder.header(grid) + encoder.separator.join(rows) + encoder.footer


@pytest.mark.parametrize("spec", GRID_SPECS)
def test_text_around_a_grid_is_ignored(spec: str) -> None:
    encoder, rng = make_encoder(spec), np.random.default_rng(0)
    for _ in range(5):
        grid = random_grid(rng)
        text = encoder.encode(grid)
        for before, after in (
            ("The answer:\n", "\nas wanted."),
            ("\n\n  ", "  \n\n"),
            ("Well.\n\n", ""),
            ("", "\n"),
            ("", f"\n\n{text}\n"),
        ):
            assert same_grid(encoder.decode(before + text + after), grid)


def test_the_layouts_of_the_documentation() -> None:
    expected = {
        "MinimalGridEncoder()": "012\n345",
        'GridWithSeparationEncoder("|")': "0|1|2\n3|4|5",
        "CompactGridEncoder()": "BCA012B345",
        "ColumnGridEncoder()": "BCA\uac00\uac1d\uac3aB\uac03\uac20\uac3d",
        "RowNumberEncoder(MinimalGridEncoder())": "1 012\n2 345",
        "RepeatNumberEncoder(MinimalGridEncoder(), 3)": "000111222\n333444555",
        'ReplaceNumberEncoder(MinimalGridEncoder(), "abcdefghij")': "abc\ndef",
        "GridCodeBlockEncoder(MinimalGridEncoder())": "```grid\n012\n345\n```",
        "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))": "```grid shape: 2x3\n1 012\n2 345\n```",
    }
    for spec, text in expected.items():
        assert make_encoder(spec).encode(GRID) == text


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("GridShapeEncoder(MinimalGridEncoder())", "```grid shape: 3x2\n012\n345\n```"),
        ("GridShapeEncoder(MinimalGridEncoder())", "```grid shape: 02x3\n012\n345\n```"),
        ("GridShapeEncoder(MinimalGridEncoder())", "```grid shape: \u0662x\u0663\n012\n345\n```"),
        ("GridShapeEncoder(MinimalGridEncoder())", "```grid\n012\n345\n```"),
        ("GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))", "```grid shape: 2x3\n1 012\n3 345\n```"),
        ("GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))", "```grid shape: 2x3\n1 012\n345\n```"),
        ("RowNumberEncoder(MinimalGridEncoder())", "1 012\n3 345"),
        ("RowNumberEncoder(MinimalGridEncoder())", "2 012\n3 345"),
        ("RowNumberEncoder(MinimalGridEncoder())", "1 012\n2 345\n2 678"),
        ("RowNumberEncoder(MinimalGridEncoder())", "1 012\n2 34"),
        ("RowNumberEncoder(MinimalGridEncoder())", "1 012\n1 345"),
        ("MinimalGridEncoder()", "012\n34"),
        ("MinimalGridEncoder()", "012\n\n345"),
        ("MinimalGridEncoder()", "012\x0c345"),
        ("MinimalGridEncoder()", "012\u2028345"),
        ("MinimalGridEncoder()", "012\r345"),
        ("MinimalGridEncoder()", "\u0660\u0661\n\u0662\u0663"),
        ("MinimalGridEncoder()", "²³"),
        ("MinimalGridEncoder()", "0" * 31),
        ("MinimalGridEncoder()", "\n".join("0" * 31)),
        ("MinimalGridEncoder()", ""),
        ("MinimalGridEncoder()", "no grid"),
        ("GridCodeBlockEncoder(MinimalGridEncoder())", "```grid\n012\n345"),
        ("GridCodeBlockEncoder(MinimalGridEncoder())", "```grid\n012\n345\n```grid"),
        ("GridCodeBlockEncoder(MinimalGridEncoder())", "```grid\n012\n345```"),
        ("GridCodeBlockEncoder(MinimalGridEncoder())", "```grid\n012\n345\n``"),
        ("GridCodeBlockEncoder(MinimalGridEncoder())", "```grid\n012\n 345\n```"),
        ("GridCodeBlockEncoder(MinimalGridEncoder())", "```grid\n012\n\n345\n```"),
        ("GridCodeBlockEncoder(MinimalGridEncoder())", "```grid\n\n```"),
        ("GridCodeBlockEncoder(MinimalGridEncoder())", "```grid\n012\n```\n```grid\n013\n```"),
        ("CompactGridEncoder()", "BCA012B34"),
        ("CompactGridEncoder()", "BCA012C345"),
        ("CompactGridEncoder()", "CCA012B345"),
        ("CompactGridEncoder()", "BCA012B345C"),
        ("CompactGridEncoder()", "BCA012B345\nBCA012B346"),
        ("ColumnGridEncoder()", "BCA\uac00\uac1d\uac3aB\uac03\uac20"),
        ("ColumnGridEncoder()", "BCA\uac00\uac1d\uac3aB\uac03\uac3d\uac20"),
        ("ColumnGridEncoder()", "BCA\uac00\uac1d\uac3aB\uac03\uac20\uac03"),
        ("ColumnGridEncoder()", "AAA\uac0a"),
        ("ColumnGridEncoder()", "BCA012B345"),
        ("RepeatNumberEncoder(MinimalGridEncoder(), 2)", "001\n112"),
        ("ReplaceNumberEncoder(MinimalGridEncoder())", "012"),
        ("ReplaceNumberEncoder(MinimalGridEncoder())", "ab1"),
        ("GridWithSeparationEncoder()", "0-1\n2|"),
        ("GridWithSeparationEncoder()", "0|1|"),
    ],
)
def test_a_text_without_exactly_one_grid_is_refused(spec: str, text: str) -> None:
    with pytest.raises(NotAGridError) as caught:
        make_encoder(spec).decode(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", GRID_SPECS)
def test_damaged_texts_give_no_grid_that_is_not_in_them(spec: str) -> None:
    encoder, rng = make_encoder(spec), np.random.default_rng(1)
    letters = "0123456789abcdefghijABCxyz `|,\n\n\r\x0c\u0663\u2028\uac00\uac1e\uac0a"
    refused = 0
    for i in range(500):
        text = encoder.encode(random_grid(rng, 1 + i % 8))
        for _ in range(int(rng.integers(1, 4))):
            at, kind = int(rng.integers(len(text) + 1)), rng.integers(4)
            junk = letters[int(rng.integers(len(letters)))]
            if kind == 0:
                text = text[:at] + junk + text[at + 1 :]
            elif kind == 1:
                text = text[:at] + text[at + int(rng.integers(1, 9)) :]
            elif kind == 2:
                text = text[:at] + junk + text[at:]
            else:
                text = text[:at] + text[max(0, at - int(rng.integers(1, 12))) :]
        try:
            grid = encoder.decode(text)
        except NotAGridError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017
            refused += 1
        else:
            assert encoder.encode(grid) in text
    assert refused > 100


@pytest.mark.parametrize("spec", GRID_SPECS)
@given(text=st.text(alphabet=st.sampled_from("0129abcABCdefghij```grid shape:x|, \n!@#1 2 \u0663"), max_size=60) | st.text(max_size=60))
@settings(max_examples=40, deadline=None)
def test_any_text_is_refused_or_holds_its_grid(spec: str, text: str) -> None:
    encoder = make_encoder(spec)
    try:
        grid = encoder.decode(text)
    except NotAGridError:
        return
    assert encoder.encode(grid) in text


@pytest.mark.parametrize("spec", _FRAMED)
def test_a_framed_grid_cut_at_any_place_is_no_grid(spec: str) -> None:
    encoder = make_encoder(spec)
    text = encoder.encode(make_grid([[1, 2, 3], [4, 5, 6], [7, 8, 9]]))
    for end in range(len(text)):
        with pytest.raises(NotAGridError):
            encoder.decode(text[:end])


def test_long_garbage_is_decoded_within_a_second() -> None:
    for spec in GRID_SPECS:
        for text in ("1" * 60_000, "1 " * 20_000, "```grid\n" * 4_000, "A1" * 20_000, "1 012\n" * 1_500, "\n" * 30_000, "`" * 30_000):
            start = time.process_time()
            with contextlib.suppress(NotAGridError):
                make_encoder(spec).decode(text + "\n```grid\n")
            assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "MinimalGridEncoder",
        "MinimalGridEncoder()()",
        "MinimalGridEncoder(1)",
        "MinimalGridEncoder();1",
        "minimalgridencoder()",
        "NoEncoder()",
        "NoEncoder(MinimalGridEncoder())",
        "RowNumberEncoder()",
        "RowNumberEncoder(MinimalGridEncoder(), 2)",
        "RowNumberEncoder(e)",
        "RowNumberEncoder(MinimalGridEncoder(), MinimalGridEncoder())",
        "RepeatNumberEncoder(3, MinimalGridEncoder())",
        "RepeatNumberEncoder(MinimalGridEncoder(), 3, 3)",
        "RepeatNumberEncoder(MinimalGridEncoder(), n=3)",
        "RepeatNumberEncoder(encoder=MinimalGridEncoder())",
        "RepeatNumberEncoder(MinimalGridEncoder(), 1)",
        "RepeatNumberEncoder(MinimalGridEncoder(), 10)",
        "RepeatNumberEncoder(MinimalGridEncoder(), 99999999999999999999)",
        "RepeatNumberEncoder(MinimalGridEncoder(), -3)",
        "RepeatNumberEncoder(MinimalGridEncoder(), True)",
        "RepeatNumberEncoder(MinimalGridEncoder(), 3.0)",
        "RepeatNumberEncoder(MinimalGridEncoder(), 1+1)",
        "RepeatNumberEncoder(MinimalGridEncoder(), *[3])",
        "ReplaceNumberEncoder(MinimalGridEncoder(), 'abc')",
        "ReplaceNumberEncoder(MinimalGridEncoder(), 'abcdefghia')",
        "ReplaceNumberEncoder(MinimalGridEncoder(), 'abcdefghi0')",
        "ReplaceNumberEncoder(MinimalGridEncoder(), 'abcdefghi ')",
        "ReplaceNumberEncoder(MinimalGridEncoder(), 'abcdefghi\\n')",
        "ReplaceNumberEncoder(MinimalGridEncoder(), 'abcdefghi\\ud800')",
        "ReplaceNumberEncoder(MinimalGridEncoder(), 'abcdefghi\\ue000')",
        "ReplaceNumberEncoder(MinimalGridEncoder(), 1234567890)",
        "ReplaceNumberEncoder(MinimalGridEncoder(), b'abcdefghij')",
        "GridWithSeparationEncoder('')",
        "GridWithSeparationEncoder('||')",
        "GridWithSeparationEncoder('5')",
        "GridWithSeparationEncoder('`')",
        "GridWithSeparationEncoder('\\n')",
        "GridWithSeparationEncoder('\\ud800')",
        "GridWithSeparationEncoder(5)",
        "GridShapeEncoder(GridCodeBlockEncoder(MinimalGridEncoder()))",
        "GridCodeBlockEncoder(CompactGridEncoder())",
        "RowNumberEncoder(ColumnGridEncoder())",
        "RowNumberEncoder(GridShapeEncoder(MinimalGridEncoder()))",
        "MinimalGridEncoder(RowNumberEncoder())",
        "GridShapeEncoder(MinimalGridEncoder(), 2)",
        "__import__('os').system('touch /tmp/hostile')",
        "__import__('os')",
        "().__class__.__bases__[0].__subclasses__()",
        "[c for c in (1,)]",
        "lambda: 0",
        "(x := MinimalGridEncoder())",
        "RowNumberEncoder(__import__('os').getcwd())",
        "GridShapeEncoder(exec('1'))",
        "f'{MinimalGridEncoder()}'",
        "A" * 10_000,
        "RowNumberEncoder(" * 5_000,
        "RowNumberEncoder(" * 150 + ")" * 150,
        "-" * 50_000 + "1",
        "\0",
        "\ud800",
        "MinimalGridEncoder(\n",
    ],
)
def test_an_invalid_specification_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_encoder(spec)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("grid encoder ")


@given(st.lists(st.sampled_from([*"()', 3|", "RowNumberEncoder(", "MinimalGridEncoder()", "GridShapeEncoder(", "__import__"]), max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_specification_is_refused_or_works(parts: list[str]) -> None:
    spec = "".join(parts)
    try:
        encoder = make_encoder(spec)
    except ConfigError:
        return
    assert same_grid(encoder.decode(encoder.encode(GRID)), GRID)


def test_equal_specifications_give_the_same_encoder() -> None:
    assert make_encoder("MinimalGridEncoder()") is make_encoder("MinimalGridEncoder()")
    assert make_encoder(" RowNumberEncoder( MinimalGridEncoder( ) ) ").encode(GRID) == "1 012\n2 345"

"""Text and JSON files: byte order marks and .gz are read, writes are whole, and every text has a file name of its own."""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import lzma
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_submit.arc.datasets import read_challenges, read_sample_submission, read_solutions
from arc_submit.arc.files import file_name, is_file_name, read_json, read_json_lines, read_text, write_json
from arc_submit.arc.training_sets import read_training_tasks
from arc_submit.errors import DataError

TASK = {"train": [{"input": [[1, 2]], "output": [[3]]}, {"input": [[4]], "output": [[5]]}], "test": [{"input": [[6]], "output": [[7]]}]}
MARKED = {"utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE, "utf-32-le": codecs.BOM_UTF32_LE}


@pytest.mark.parametrize("encoding", MARKED)
@pytest.mark.parametrize("packed", [False, True])
def test_every_kind_of_file_may_begin_with_a_mark_and_be_packed(tmp_path: Path, encoding: str, packed: bool) -> None:
    def write(name: str, text: str) -> Path:
        data = MARKED[encoding] + text.encode(encoding)
        path = tmp_path / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(data) if packed else data)
        return path

    assert list(read_challenges(write("c_challenges.json", json.dumps({"é": TASK}, ensure_ascii=False))).tasks) == ["é"]
    assert list(read_solutions(write("s.json", json.dumps({"é": [[[7]]]}, ensure_ascii=False)))[0].outputs) == ["é"]
    assert read_sample_submission(write("b.json", json.dumps({"t": [{}]}))) == {"t": 1}
    for name, text in (("d.json", json.dumps({"t": TASK})), ("d.jsonl", json.dumps({"id": "t"} | TASK) + "\n")):
        problems: list[str] = []
        assert [(task.id, len(task.pairs)) for task in read_training_tasks(str(write(name, text)), problems)] == [("t", 3)]
        assert problems == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.JSON.GZ"])
def test_what_a_file_is_tells_how_it_is_read_and_not_its_name(tmp_path: Path, encoding: str, name: str) -> None:
    """A file that was renamed after packing or unpacking, and UTF-16 without a mark, once were refused as no text."""
    text = json.dumps({"é": TASK}, ensure_ascii=False).encode(encoding)
    for data in (text, gzip.compress(text)):
        (tmp_path / name).write_bytes(data)
        assert list(read_challenges(tmp_path / name).tasks) == ["é"]
        assert [len(task.pairs) for task in read_training_tasks(str(tmp_path / name), [])] == [3]


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b"[1, 2, 3]" * 100)[:-20])
    (tmp_path / "twice.json").write_bytes(gzip.compress(gzip.compress(b"[1]")))
    (tmp_path / "a.json.xz").write_bytes(lzma.compress(b"[1]"))
    (tmp_path / "a.json").write_bytes(bz2.compress(b"[1]"))
    (tmp_path / "pointer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 3\n")
    (tmp_path / "page.json").write_text("\n<!DOCTYPE html><html></html>")
    (tmp_path / "blank.json").write_text(" \n")
    (tmp_path / "several.json").write_text("[1]\n[2]\n")
    (tmp_path / "bytes.json").write_bytes(b"\xff[1]")
    (tmp_path / "words.json").write_text("{no")
    for name, words in (
        ("cut.json.gz", "broken"),
        ("twice.json", "packed with gzip twice"),
        ("a.json.xz", "packed with xz and not text; unpack it"),
        ("a.json", "packed with bzip2"),
        ("pointer.json", "run git lfs pull"),
        ("page.json", "a web page"),
        ("blank.json", "an empty file"),
        ("several.json", "more than one value; write them as one"),
        ("bytes.json", "not text"),
        ("words.json", "not JSON"),
        ("none.json", "check the path"),
        (".", "cannot be read"),
    ):
        with pytest.raises(DataError, match=words) as failure:
            read_json(tmp_path / name)
        assert str(failure.value).startswith(str(tmp_path))
    assert read_text(tmp_path / "bytes.json", "replace") == "\ufffd[1]"


def test_only_whole_objects_of_a_file_of_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with pytest.raises(DataError, match="check the path"):
        list(read_json_lines(path))
    path.write_bytes(codecs.BOM_UTF8 + b'{"a": 1}\n[2]\n\n\xff\n{"b": "\xff"}\n' + b"[" * 100_000 + b'\n{"c": 3')
    assert list(read_json_lines(path)) == [{"a": 1}, {"b": "\ufffd"}]


@given(st.text(max_size=120), st.text(max_size=120))
def test_every_text_has_a_name_of_its_own(one: str, other: str) -> None:
    first, second = file_name(one), file_name(other)
    assert (first == second) == (one == other)
    assert len(first) <= 100
    assert first not in ("", ".", "..")
    assert "/" not in first
    assert (first == one) == is_file_name(one)


def test_names_differ_in_more_than_case_where_one_is_made_up() -> None:
    assert len({file_name(text).lower() for text in ("a b", "A b", "a B", "a-b", "a/b", "é", "É")}) == 7
    assert [file_name(text) for text in ("007bbfb7", "A.b-c_d", "x" * 100)] == ["007bbfb7", "A.b-c_d", "x" * 100]
    assert file_name("set/t1 ф") == "set-t1@92d89b29e6eae87cf32e"


def test_write_json_from_several_threads_leaves_one_complete_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "f.json"
    values = [{"writer": i, "cells": [i] * 20_000} for i in range(3)]
    errors: list[BaseException] = []

    def save(value: dict[str, object]) -> None:
        try:
            for _ in range(15):
                write_json(path, value)
                assert json.loads(path.read_text(encoding="utf-8")) in values
        except (OSError, ValueError, AssertionError) as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_only_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": [1, 2, object()]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]

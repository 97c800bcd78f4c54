"""Out of memory while answers are generated or searched for: what is finished stays, work goes on with fewer slots, results are equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_submit.inference.dfs import SearchLimits, search_completions
from arc_submit.inference.engine import Completion, Request
from arc_submit.inference.load_transformers import load_transformers_engine
from arc_submit.inference.serial_engine import SerialEngine
from arc_submit.inference.transformers_engine import TransformersEngine

Answers = dict[tuple[str, tuple[int, ...]], float]


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> TransformersEngine:
    """With weights that leave several tokens possible."""
    torch.set_num_threads(1)
    engine = load_transformers_engine(tiny_model, torch.device("cpu"), slots=4)[0]
    with torch.no_grad():
        for parameter in engine.model.parameters():
            parameter.mul_(0.75)
    return engine


def make_requests(count: int = 6, longest: int = 8) -> list[Request]:
    rng = np.random.default_rng(5)
    return [Request(str(i), rng.integers(5, 45, 4 + 9 * i).tolist(), longest) for i in range(count)]


@contextmanager
def out_of_memory(engine: TransformersEngine, fails: Callable[[torch.Size, int], bool]) -> Iterator[list[torch.Size]]:
    """A context in which a forward pass fails where `fails` says so of its input's shape and number; yields the shapes that passed."""
    real, calls, passed = engine.model.forward, 0, list[torch.Size]()

    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if fails(kwargs["input_ids"].shape, calls):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.75 GiB")
        passed.append(kwargs["input_ids"].shape)
        return real(*args, **kwargs)

    with mock.patch.object(engine.model, "forward", forward):
        yield passed


def work(engine: TransformersEngine, search: bool) -> list[Completion]:
    requests = make_requests()
    if search:
        return list(search_completions(engine, requests, SearchLimits(2e-3, max_steps=40)))
    return list(engine.generate(requests))


@cache
def undisturbed(engine: TransformersEngine, search: bool) -> Answers:
    """The answers where no pass fails."""
    return answers(work(engine, search))


def answers(completions: list[Completion]) -> Answers:
    found = {(one.id, tuple(one.tokens)): one.logprob for one in completions}
    assert len(found) == len(completions), "an answer twice"
    return found


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("rows", [1, 2])
def test_work_goes_on_with_as_many_slots_as_memory_has_room_for(
    engine: TransformersEngine, search: bool, rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = undisturbed(engine, search)
    with out_of_memory(engine, lambda shape, _: shape[0] > rows) as passed:
        found = answers(work(engine, search))
    assert found.keys() == expected.keys()
    assert all(value == pytest.approx(expected[key], abs=1e-4) for key, value in found.items())
    assert {shape[0] for shape in passed} == {1, rows}
    assert f"out of memory: {rows} answers side by side" in capsys.readouterr().out
    assert engine.slots == 4, "the next task begins with all slots"


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 25), st.booleans())
def test_a_pass_that_fails_once_changes_no_answer(engine: TransformersEngine, number: int, search: bool) -> None:
    expected = undisturbed(engine, search)
    with out_of_memory(engine, lambda _, calls: calls == number):
        found = answers(work(engine, search))
    assert found.keys() == expected.keys(), f"pass {number} failed"
    assert all(value == pytest.approx(expected[key], abs=1e-4) for key, value in found.items())


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("serial", [False, True])
def test_a_request_that_does_not_fit_alone_fails_and_the_others_go_on(engine: TransformersEngine, search: bool, serial: bool) -> None:
    used = SerialEngine(engine.model, engine.end_id, 4) if serial else engine
    too_long = {one.id for one in make_requests() if len(one.prompt) > 38}
    expected = {key: value for key, value in answers(work(used, search)).items() if key[0] not in too_long}
    with out_of_memory(used, lambda shape, _: shape[1] > 38):
        completions = work(used, search)
    failed = [one for one in completions if one.finished == "failed"]
    assert sorted(one.id for one in failed) == sorted(too_long)
    assert all("out of memory with" in one.reason and "--max-seq-len" in one.reason for one in failed)
    found = answers([one for one in completions if one.finished != "failed"])
    assert found.keys() == expected.keys()
    assert all(value == pytest.approx(expected[key], abs=1e-4) for key, value in found.items())


def test_what_a_search_found_before_it_fails_is_kept(engine: TransformersEngine) -> None:
    """Every pass fails from some number on: what was found before is there, and each unfinished search ends with its reason."""
    whole = work(engine, search=True)
    with out_of_memory(engine, lambda _, calls: calls > 30):
        completions = work(engine, search=True)
    found = [one for one in completions if one.finished == "stop"]
    assert 0 < len(found) < len(whole)
    assert answers(found).keys() <= answers(whole).keys()
    failed = [one.id for one in completions if one.finished == "failed"]
    assert len(set(failed)) == len(failed) > 0


def test_another_error_is_none_of_memory(engine: TransformersEngine) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with mock.patch.object(engine.model, "forward", broken), pytest.raises(RuntimeError, match="cannot be multiplied"):
        work(engine, search=False)


def test_an_adapter_is_read_once_until_its_files_change(
    engine: TransformersEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arc_submit.inference import transformers_engine

    read: list[str] = []
    monkeypatch.setattr(transformers_engine, "read_adapter", lambda folder, _: read.append(folder.name) or {})
    monkeypatch.setattr(transformers_engine, "check_adapter", lambda *_: None)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_model.safetensors").write_bytes(b"1")
    for _ in range(3):
        engine.score([5, 6], [[7]], tmp_path / "a")
    list(engine.generate([Request("x", [5, 6], 2, tmp_path / "a")]))
    assert read == ["a"]
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(b"22")
    engine.score([5, 6], [[7]], tmp_path / "a")
    engine.score([5, 6], [[7]], tmp_path / "b")
    engine.score([5, 6], [[7]], tmp_path / "b")
    engine.score([5, 6], [[7]], tmp_path / "a")
    assert read == ["a", "a", "b", "a"], "one adapter is kept, and one whose files change is another"
    engine.release_adapter()
    engine.score([5, 6], [[7]], tmp_path / "a")
    assert len(read) == 5


def test_an_adapter_that_does_not_fit_fails_its_own_requests(
    engine: TransformersEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arc_submit.inference import transformers_engine

    def read(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(transformers_engine, "read_adapter", read)
    monkeypatch.setattr(transformers_engine, "check_adapter", lambda *_: None)
    completions = list(engine.generate([Request("with", [5, 6], 2, tmp_path), Request("without", [5, 6], 2)]))
    assert {one.id: one.finished == "failed" for one in completions} == {"with": True, "without": False}

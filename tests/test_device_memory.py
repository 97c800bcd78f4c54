"""Memory of a GPU that another process holds is waited for, with a limit; what is left then decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from arc_submit.base_model import device_memory
from arc_submit.base_model.device_memory import WAIT_SECONDS, DeviceFullError, load_when_free, memory_came_back, wait_for_memory
from arc_submit.base_model.memory import GIB, usable_bytes
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.inference.memory_limits import find_memory_limits
from arc_submit.inference.settings import PredictSettings
from arc_submit.inference.vllm_engine import _free_share

GPU = torch.device("cuda:0")
ROOM = usable_bytes(16)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[float], float]], list[float]]]:
    """A GPU of 16 GiB whose free GiB are a function of the seconds; a call of the fixture returns the seconds, as a list of one."""
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    def make(free: Callable[[float], float]) -> list[float]:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(free(clock[0]) * GIB), 16 * GIB))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=16 * GIB, major=8))
        monkeypatch.setattr(device_memory, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
        return clock

    return make  # type: ignore[return-value]


def test_a_free_card_is_not_waited_for(card: Any, capsys: pytest.CaptureFixture[str]) -> None:
    clock = card(lambda _: 15.5)
    assert load_when_free(GPU, lambda: "model", 8 * GIB) == "model"
    assert (clock[0], capsys.readouterr().out) == (0.0, "")
    assert load_when_free(torch.device("cpu"), lambda: "model", 8 * GIB) == "model"


def test_a_killed_workers_memory_is_waited_for(card: Any, capsys: pytest.CaptureFixture[str]) -> None:
    clock = card(lambda seconds: 15.5 if seconds >= 7 else 3.0)
    assert load_when_free(GPU, lambda: "model", 8 * GIB) == "model"
    assert clock[0] == 7
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("cuda:0: 3.00 GiB were available and 14.92 are wanted")
    assert line.endswith("15.50 GiB are available after 7 s")


def test_what_another_program_keeps_is_planned_around_or_refused(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = card(lambda _: 9.0)
    assert load_when_free(GPU, lambda: "model", 8 * GIB) == "model"
    assert clock[0] == WAIT_SECONDS
    monkeypatch.setattr("arc_submit.inference.memory_limits.words_of", lambda _: None)
    settings = PredictSettings("", str(pocket_folder()), 2, 0, False, None, None, None, 16, 1, "cuda:0")
    limits = find_memory_limits(settings, GPU, None, None)  # type: ignore[arg-type]
    assert limits is not None
    assert limits.card.room == 9 * GIB < ROOM
    assert _free_share(GPU, 8 * GIB, 0.9) == 0.55, "vllm refuses to start with a larger share than is free"
    with pytest.raises(DeviceFullError, match=r"cuda:0: 9.00 GiB are available and the model takes 10.00; .*nvidia-smi"):
        load_when_free(GPU, lambda: "model", 10 * GIB)
    with pytest.raises(DeviceFullError):
        _free_share(GPU, 10 * GIB, 0.9)
    assert clock[0] == 4 * WAIT_SECONDS


def test_two_workers_of_a_card_wait_for_their_own_half(card: Any) -> None:
    clock = card(lambda _: 8.0)
    assert load_when_free(GPU, lambda: "model", 5 * GIB, workers=2) == "model"
    assert clock[0] == 0


def test_out_of_memory_while_loading_waits_and_tries_once_more(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = card(lambda seconds: 15.5 if not seconds or seconds > 4 else 2.0)
    emptied, tries = [], []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))

    def load(kind: type[Exception]) -> str:
        tries.append(1)
        if len(tries) == 1:
            clock[0] = 1.0  # another process has taken it
            raise kind("CUDA error: out of memory")
        return "model"

    assert load_when_free(GPU, lambda: load(RuntimeError), 8 * GIB) == "model"
    assert (clock[0], len(emptied)) == (5.0, 1)
    tries.clear()
    with pytest.raises(KeyError):
        load_when_free(GPU, lambda: load(KeyError), 8 * GIB)


def test_a_step_waits_for_the_memory_of_others_alone(card: Any) -> None:
    beats: list[int] = []

    def came_back() -> bool:
        return memory_came_back(GPU, 1, lambda: beats.append(1))

    clock = card(lambda _: 15.5)
    assert not came_back(), "the pass itself was too large"
    assert clock[0] == 0
    clock = card(lambda seconds: 15.5 if seconds >= 5 else 9.0)
    assert came_back()
    assert (clock[0], len(beats)) == (5, 5)
    card(lambda _: 9.0)
    assert not came_back()
    assert not memory_came_back(torch.device("cpu"), 1, lambda: None)


def test_weights_that_no_card_holds_are_no_matter_of_other_processes(card: Any) -> None:
    card(lambda _: 15.5)
    assert load_when_free(GPU, lambda: "tried", 20 * GIB) == "tried"


def test_a_worker_counts_what_it_holds_itself(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = card(lambda _: 5.0)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 10 * GIB)
    assert wait_for_memory(GPU, ROOM, 0) == 15 * GIB
    assert clock[0] == 0

"""Merged streams: none waits for another, none outlasts the deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from arc_submit.workers.merge_streams import merge_streams


def items(name: str, count: int, seconds: float) -> Iterator[str]:
    for i in range(count):
        time.sleep(seconds)
        yield f"{name}{i}"


def test_streams_run_together_and_keep_their_own_order() -> None:
    began = time.monotonic()
    merged = list(merge_streams([items("a", 5, 0.1), items("b", 3, 0.15), iter([])], began + 30, lambda: None))
    assert time.monotonic() - began < 0.9, "in sequence they take 0.95 s"
    assert [item for item in merged if item[0] == "a"] == [f"a{i}" for i in range(5)]
    assert [item for item in merged if item[0] == "b"] == [f"b{i}" for i in range(3)]


def test_a_stream_that_hangs_delays_neither_the_others_nor_the_end() -> None:
    began = time.monotonic()
    merged = list(merge_streams([items("hangs", 1, 60), items("b", 3, 0.05)], began + 1.0, lambda: None))
    assert merged == ["b0", "b1", "b2"]
    assert 0.9 < time.monotonic() - began < 3


@pytest.mark.parametrize("ending", ["raise", "close"])
def test_an_early_end_stops_the_streams_and_waits_for_them(ending: str) -> None:
    stopped = threading.Event()
    cleaned_up: list[str] = []

    def waits() -> Iterator[str]:
        try:
            yield "first"
            stopped.wait(20)
        finally:
            cleaned_up.append("waits")

    def fails() -> Iterator[str]:
        time.sleep(0.2)
        raise OSError("disk full")
        yield "never"

    stream = merge_streams([waits(), fails()] if ending == "raise" else [waits()], time.monotonic() + 30, stopped.set)
    assert next(stream) == "first"
    if ending == "raise":
        with pytest.raises(OSError, match="disk full"):
            next(stream)
    else:
        stream.close()
    assert cleaned_up == ["waits"]

"""Streams side by side: none waits for another, none outlasts the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from arc_submit.workers.merge_streams import merge_streams


def items(name: str, count: int, pause: float) -> Iterator[str]:
    for i in range(count):
        time.sleep(pause)
        yield f"{name}{i}"


def test_streams_go_on_together_and_keep_their_own_order() -> None:
    began = time.monotonic()
    got = list(merge_streams([items("a", 5, 0.1), items("b", 3, 0.15), iter([])], began + 30, lambda: None))
    assert time.monotonic() - began < 0.9, "one after the other they take 0.95 s"
    assert [g for g in got if g[0] == "a"] == [f"a{i}" for i in range(5)]
    assert [g for g in got if g[0] == "b"] == [f"b{i}" for i in range(3)]


def test_a_stream_that_hangs_holds_up_neither_the_others_nor_the_end() -> None:
    began = time.monotonic()
    got = list(merge_streams([items("hangs", 1, 60), items("b", 3, 0.05)], began + 1.0, lambda: None))
    assert got == ["b0", "b1", "b2"]
    assert 0.9 < time.monotonic() - began < 3


@pytest.mark.parametrize("how", ["raise", "leave"])
def test_whoever_goes_away_stops_the_streams_and_waits_for_them(how: str) -> None:
    stopped = threading.Event()
    ends: list[str] = []

    def patient() -> Iterator[str]:
        try:
            yield "first"
            stopped.wait(20)
        finally:
            ends.append("cleaned up")

    def fails() -> Iterator[str]:
        time.sleep(0.2)
        raise OSError("no room")
        yield "never"

    stream = merge_streams([patient(), fails()] if how == "raise" else [patient()], time.monotonic() + 30, stopped.set)
    assert next(stream) == "first"
    if how == "raise":
        with pytest.raises(OSError, match="no room"):
            next(stream)
    else:
        stream.close()
    assert ends == ["cleaned up"]

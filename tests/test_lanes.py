"""Streams side by side: none waits for another, none outlasts the time, and a queue's next job is one that fits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_submit.runtime.lanes import run_together
from arc_submit.runtime.pace import Pace, longest_that_fits
from arc_submit.runtime.pool import Job, Share


def items(name: str, count: int, pause: float) -> Iterator[str]:
    for i in range(count):
        time.sleep(pause)
        yield f"{name}{i}"


def test_streams_go_on_together_and_keep_their_own_order() -> None:
    began = time.monotonic()
    got = list(run_together([items("a", 5, 0.1), items("b", 3, 0.15), iter([])], began + 30, lambda: None))
    assert time.monotonic() - began < 0.9, "one after the other they take 0.95 s"
    assert [g for g in got if g[0] == "a"] == [f"a{i}" for i in range(5)]
    assert [g for g in got if g[0] == "b"] == [f"b{i}" for i in range(3)]


def test_a_stream_that_hangs_holds_up_neither_the_others_nor_the_end() -> None:
    began = time.monotonic()
    got = list(run_together([items("hangs", 1, 60), items("b", 3, 0.05)], began + 1.0, lambda: None))
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

    stream = run_together([patient(), fails()] if how == "raise" else [patient()], time.monotonic() + 30, stopped.set)
    assert next(stream) == "first"
    if how == "raise":
        with pytest.raises(OSError, match="no room"):
            next(stream)
    else:
        stream.close()
    assert ends == ["cleaned up"]


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=20), st.floats(0, 300), st.integers(1, 4))
def test_the_picked_job_is_the_longest_of_the_most_that_fit(costs: list[float], one: float, workers: int) -> None:
    capacity = one * workers
    picked = longest_that_fits(costs, one, capacity)
    if sum(costs) <= capacity * 0.999 and max(costs) <= one:
        assert costs[picked] == max(costs)
    if costs[picked] > one:
        assert costs[picked] == min(costs), "a job that cannot end is begun only where none can"
    elif sum(sorted(costs)[:2]) > capacity or len(costs) == 1:
        assert costs[picked] == min(costs)
    fitting = [c for c in sorted(costs) if c <= costs[picked]]
    assert len(fitting) == 1 or sum(fitting[: sum(c < costs[picked] for c in costs) + 1]) <= capacity * 1.001 or costs[picked] == min(costs)


def test_a_pace_is_measured_before_the_longest_is_begun() -> None:
    costs = {f"t{i}": float(c) for i, c in enumerate([1, 2, 4, 8, 16, 32])}
    jobs = [Job((part,)) for part in costs]
    pace = Pace(costs, time.monotonic() + 100, Share(2))
    assert pace.pick(jobs) == 3
    pace.note("t3", 8.0)  # a second a unit: 200 units in 100 s with two workers
    assert pace.pick(jobs) == 5
    pace.note("t2", 400.0)  # 34 s a unit: 5.9 units are left in all, 2.9 for one worker
    assert pace.pick(jobs) == 1

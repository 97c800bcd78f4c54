"""Lanes: streams of work that go on at the same time because they use different things, each in a thread of its own.

A stream that hangs holds up no other, and none holds up the caller beyond the end of the time. Knows nothing about what a stream does.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def merge_streams(streams: Sequence[Iterator[T]], until: float, stop: Callable[[], None], patience: float = 10.0) -> Iterator[T]:
    """What several generators give, in the order in which it comes, until all have ended.

    Args:
        streams: each is gone through in its own thread, from which alone it is touched.
        until: on the monotonic clock; a stream that has not ended by then is left behind in its thread, which ends with the process.
        stop: called when the caller goes away before the end (an interrupt, an error), to let the streams end.
        patience: seconds that they then have for it.

    Raises:
        whatever a stream raises, once, after which the others are stopped.
    """
    ready: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue()

    def follow(stream: Iterator[T]) -> None:
        try:
            for item in stream:
                ready.put(("item", item))
            ready.put(("end", None))
        except BaseException as error:  # noqa: BLE001 - it is raised where the streams are read
            ready.put(("error", error))

    # Workers die with the thread that started them (PR_SET_PDEATHSIG): each stream keeps its own thread from start to end.
    threads = [threading.Thread(target=follow, args=(stream,), daemon=True) for stream in streams]
    for thread in threads:
        thread.start()
    running, ended = len(threads), False
    try:
        while running:
            try:
                kind, value = ready.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            if kind == "end":
                running -= 1
            else:
                yield value  # type: ignore[misc]  # an item is a T
        ended = True
    finally:
        if not ended:
            stop()
            patient = time.monotonic() + patience
            for thread in threads:
                thread.join(max(0.0, patient - time.monotonic()))

"""Merge generators that run at the same time, each in a thread of its own.

A generator that hangs delays neither the others nor the end. Does not know what a generator yields.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def merge_streams(streams: Sequence[Iterator[T]], deadline: float, stop: Callable[[], None], stop_timeout: float = 10.0) -> Iterator[T]:
    """Yield the items of several generators as they come, until all generators have ended.

    Args:
        streams: each is consumed in its own thread, and only there.
        deadline: on the monotonic clock; a generator that has not ended by then is abandoned in its thread, which ends with the process.
        stop: asks the generators to end; called when this generator is closed or raises before its end.
        stop_timeout: seconds that the generators then have.

    Raises:
        the first exception of a generator, after the others have been stopped.
    """
    ready: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue()

    def follow(stream: Iterator[T]) -> None:
        try:
            for item in stream:
                ready.put(("item", item))
            ready.put(("end", None))
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread
            ready.put(("error", error))

    # Workers die with the thread that started them (PR_SET_PDEATHSIG): a generator runs in one thread from start to end.
    threads = [threading.Thread(target=follow, args=(stream,), daemon=True) for stream in streams]
    for thread in threads:
        thread.start()
    running, completed = len(threads), False
    try:
        while running:
            try:
                kind, value = ready.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            if kind == "end":
                running -= 1
            else:
                yield value  # type: ignore[misc]  # an item is a T
        completed = True
    finally:
        if not completed:
            stop()
            stop_deadline = time.monotonic() + stop_timeout
            for thread in threads:
                thread.join(max(0.0, stop_deadline - time.monotonic()))

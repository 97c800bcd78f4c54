"""Work that ends with the time it has. Does not know what the work is."""

from __future__ import annotations

import threading
from collections.abc import Callable


def run_within(seconds: float, work: Callable[[], None]) -> bool:
    """Run a piece of work in a thread, and wait for it so long.

    A single import or system call can take minutes on a loaded machine, and nothing in Python ends it from outside. So the caller goes on
    without it; the process does not wait for the thread when it ends.

    Returns:
        whether the work has ended.

    Raises:
        what the work raises in that time.
    """
    if seconds <= 0:
        return False
    errors: list[BaseException] = []

    def target() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=target, name="report", daemon=True)
    thread.start()
    thread.join(min(seconds, threading.TIMEOUT_MAX))
    if errors:
        raise errors[0]
    return not thread.is_alive()

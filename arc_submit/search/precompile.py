"""Precompilation: load the compiled code of the search, and compile it once per machine.

Compiling takes about half a minute of one core. `make setup` does it (python -m arc_submit.search.precompile), so that no run waits for it.
Without that step, as on Kaggle, the first search worker of a run compiles and the others wait for it. This module does not know runs.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from pathlib import Path

WAIT_SECONDS = 300.0  # for another process that compiles; half of the timeout for a worker's start


def warm_up() -> None:
    """Load every compiled function, so that this process and its forks find them ready."""
    from arc_submit.search.jit import compiled_marker

    run_first_exclusively(compiled_marker(), _call_everything, WAIT_SECONDS)


def run_first_exclusively(marker: Path, work: Callable[[], None], timeout: float) -> None:
    """Do the work; until one process has completed it and created the marker, one process at a time.

    Args:
        marker: a file; the lock file beside it is released by the kernel when its process dies.
        timeout: seconds to wait for another process; afterwards the work is done in parallel with it.
    """
    if marker.exists():
        return work()
    with marker.with_suffix(".lock").open("a") as lock:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if marker.exists():
                    break
                time.sleep(0.1)
        work()
        marker.touch()


def _call_everything() -> None:
    import numpy as np

    from arc_submit.arc.grid import frozen
    from arc_submit.arc.task import Pair, Task
    from arc_submit.search.programs import Effort
    from arc_submit.search.solvers import completion, scan
    from arc_submit.search.task_search import search_task

    grid = np.array([[1, 2, 0], [0, 2, 0], [0, 0, 3]])
    pairs = tuple(Pair(frozen(np.rot90(grid, k)), frozen(np.rot90(grid, k)[::-1])) for k in range(3))
    search_task(Task("precompile", pairs, (frozen(np.rot90(grid, 3)),)), Effort(work=300_000, size_work=100_000, pieces=100))
    # Functions that this task does not reach, with the array types of other tasks.
    test = frozen(grid)
    for plan in ("half turn about a centre", "periods of rows", "periods of columns"):
        completion.complete(test, test == 3, plan, 0.0)
    nodes = np.array([[[-1, 0, 0, 0, 0]]])
    scan.draw(nodes, np.zeros(10, np.bool_), np.zeros((grid.size, 2), np.uint8, order="F"), test)


def main() -> None:
    """Compile the search unless it is compiled, and print the time it took."""
    from arc_submit.search.jit import compiled_marker

    if compiled_marker().exists():
        return
    print("compiling the program search, once per machine (about 40 s of one core) ...", flush=True)
    started = time.monotonic()
    warm_up()
    print(f"compiled in {time.monotonic() - started:.0f} s; cached in {compiled_marker().parent}")


if __name__ == "__main__":
    main()

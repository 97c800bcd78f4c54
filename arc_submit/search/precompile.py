"""Warm-up: the compiled code of the search loaded, or, where nobody on this machine has compiled it, compiled by one process for all.

Compiling takes half a minute of one core. `make setup` does it (python -m arc_submit.search.precompile), so that no run pays for it; where
there is no such step, as on Kaggle, a run's first worker of the search does, and the others wait for it instead of doing it again beside
it. Knows nothing about tasks or runs.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from pathlib import Path

WAIT_SECONDS = 300.0  # for another process that compiles; a worker has twice as long to get ready


def warm_up() -> None:
    """Load every compiled function once, so that what forks from here or works from here on finds them ready."""
    from arc_submit.search.jit import compiled_mark

    first_alone(compiled_mark(), _call_everything, WAIT_SECONDS)


def first_alone(mark: Path, work: Callable[[], None], wait: float) -> None:
    """Do the work; until it has been done once, which the mark then says, by one process at a time.

    Args:
        mark: a file; a lock lies beside it, which the kernel takes back from a process that dies.
        wait: seconds after which the work is done beside another process that is still at it.
    """
    if mark.exists():
        return work()
    with mark.with_suffix(".lock").open("a") as lock:
        until = time.monotonic() + wait
        while time.monotonic() < until:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if mark.exists():
                    break
                time.sleep(0.1)
        work()
        mark.touch()


def _call_everything() -> None:
    import numpy as np

    from arc_submit.arc.grid import frozen
    from arc_submit.arc.task import Pair, Task
    from arc_submit.search.programs import Effort
    from arc_submit.search.solvers import completion, scan
    from arc_submit.search.task_search import search_task

    grid = np.array([[1, 2, 0], [0, 2, 0], [0, 0, 3]])
    pairs = tuple(Pair(frozen(np.rot90(grid, k)), frozen(np.rot90(grid, k)[::-1])) for k in range(3))
    search_task(Task("warm-up", pairs, (frozen(np.rot90(grid, 3)),)), Effort(work=300_000, size_work=100_000, pieces=100))
    # What that task does not reach, with arrays of the kinds that other tasks bring.
    shown = frozen(grid)
    for plan in ("half turn about a centre", "periods of rows", "periods of columns"):
        completion.complete(shown, shown == 3, plan, 0.0)
    nodes = np.array([[[-1, 0, 0, 0, 0]]])
    scan.draw(nodes, np.zeros(10, np.bool_), np.zeros((grid.size, 2), np.uint8, order="F"), shown)


def main() -> None:
    """Compile what is not compiled, and say how long it took."""
    from arc_submit.search.jit import compiled_mark

    if compiled_mark().exists():
        return
    print("compiling the search's code, once for this machine (about 40 s of one core) ...", flush=True)
    began = time.monotonic()
    warm_up()
    print(f"compiled in {time.monotonic() - began:.0f} s, kept in {compiled_mark().parent}")


if __name__ == "__main__":
    main()

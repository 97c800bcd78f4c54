"""Bind a process to its parent: the kernel kills it when the parent ends, for whatever reason.

`python -m arc_submit.workers.parent_death ARGUMENTS` becomes `python ARGUMENTS`, bound, for a command that does not bind itself. Does not
know what the command does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT = "ARC_SUBMIT_PARENT"  # environment variable of children: the parent's process id
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> bool:
    """Bind the calling process to the thread that started it (Linux only); returns False where the parent has already ended.

    The binding survives an exec.

    Args:
        parent: id of the parent process; None where PARENT names it.
    """
    if sys.platform != "linux":
        return True
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == (parent or int(os.environ[PARENT]))  # otherwise the parent ended before prctl took effect


if __name__ == "__main__":
    if not die_with_parent():
        sys.exit(1)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])

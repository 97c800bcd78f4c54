"""Processes bound to the one that started them: the kernel kills them with it, however it ends.

`python -m arc_submit.workers.parent_death ARGUMENTS` becomes `python ARGUMENTS`, bound, for a command that does not bind itself. Knows nothing
about what the command does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT = "ARC_SUBMIT_PARENT"  # the parent's process id, in the environment of its children
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> bool:
    """Bind the calling process to the thread that started it (Linux); False where its parent has gone already.

    The parent is the process that PARENT names. The binding outlasts an exec.
    """
    if sys.platform != "linux":
        return True
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == int(os.environ[PARENT])  # else it died before the line above


if __name__ == "__main__":
    if not die_with_parent():
        sys.exit(1)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])

"""Whether a process is alive, for tests that kill some."""

from __future__ import annotations

import psutil


def is_alive(pid: int) -> bool:
    """False for a process that has ended and for one that nobody has waited for yet. It may end while it is looked at."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

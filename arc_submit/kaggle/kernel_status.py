"""The state of a kernel's last run, as the client tells it. Does not know what is to be done about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from arc_submit.kaggle.client import ClientResult, run_client

FAILED = ("ERROR", "CANCEL_REQUESTED", "CANCEL_ACKNOWLEDGED")
_STATES = (*FAILED, "QUEUED", "RUNNING", "NEW_SCRIPT", "COMPLETE")
_CLIENT_TIMEOUT = 120.0  # seconds


@dataclass(frozen=True)
class KernelStatus:
    """The state of a kernel's last run."""

    kernel: str  # owner/slug
    state: str  # one of _STATES
    message: str  # Kaggle's reason of a failure; empty if it gives none

    @property
    def ended(self) -> bool:
        """Whether the run goes on no more."""
        return self.state in (*FAILED, "COMPLETE")

    def __str__(self) -> str:
        return f"{self.kernel}: {self.state}{': ' if self.message else ''}{self.message}"


def fetch_status(kernel: str, seconds: float | None = None) -> KernelStatus:
    """The state of a kernel's last run; KaggleError if Kaggle's answer holds no known state, or does not come in time."""
    return _parse_status(kernel, run_client(["kernels", "status", kernel], _CLIENT_TIMEOUT if seconds is None else seconds))


def _parse_status(kernel: str, result: ClientResult) -> KernelStatus:
    match = re.search(r'has status "(?:KernelWorkerStatus\.)?(\w+)"', result.text)
    if result.code or match is None or match[1].upper() not in _STATES:
        raise result.error("no status")
    message = re.search(r'^Failure message: "(.*)"$', result.text, re.MULTILINE | re.DOTALL)
    return KernelStatus(kernel, match[1].upper(), " ".join(message[1].split()) if message else "")

"""The real kaggle client as a process of its own: run under a time limit, its text kept to be read.

The client's exit code says little: it is 0 where the server refused a push, left out a source or lost a file. What a text means is read
by the command that asked. Credentials stay in the client: nothing here reads them, and should the client print one it is masked.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from arc_submit.errors import ArcSubmitError, ConfigError

_LOUD = ("VERBOSE", "VERBOSE_OUTPUT")  # with them the client prints every request, its Authorization header included
_SECRETS = ("KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_TOKEN")


class RefusedError(ArcSubmitError):
    """What Kaggle or its client did not do, whatever the exit code was."""


@dataclass(frozen=True)
class ClientResult:
    """How a call of the client ended.

    Attributes:
        command: its words, such as "kernels push".
        code: exit code.
        text: both streams, line by line, credentials masked.
    """

    command: str
    code: int
    text: str

    @property
    def reason(self) -> str:
        """What it said of its failure, for one line."""
        if "Authentication required" in self.text:
            return "Kaggle does not know you: run `kaggle auth login`, or set KAGGLE_API_TOKEN (docs/kaggle.md)"
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        if "Traceback (most recent call last):" in lines:
            lines = lines[-1:]
        return " ".join(lines)[-600:] or "nothing"

    def refused(self, problem: str = "") -> RefusedError:
        """The error to raise: what was not done, and what the client said."""
        return RefusedError(f"kaggle {self.command}: {problem or 'failed'}: {self.reason}")


def call(arguments: Sequence[str], seconds: float, show: bool = False) -> ClientResult:
    """Run `kaggle ARGUMENTS`.

    Args:
        arguments: the client's.
        seconds: after which it is killed.
        show: print what it says as it comes; for uploads.

    Raises:
        ConfigError: where the client is not installed.
        RefusedError: where the time is over.
    """
    for package in ("kaggle", "six"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{package} is not installed, and pushing needs it: pip install kaggle==2.2.4 six")
    environment = {name: value for name, value in os.environ.items() if name not in _LOUD}
    words = " ".join(arguments[:2])
    process = subprocess.Popen(
        [sys.executable, "-m", "kaggle", "-W", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**environment, "PYTHONUNBUFFERED": "1"},
    )
    late = threading.Event()

    def give_up() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, give_up)
    timer.start()
    lines = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(_masked(line.rstrip("\n")))
            if show and lines[-1].startswith(("Starting", "Upload", "Skipping", "Request failed")):
                print(lines[-1], flush=True)
        code = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    if late.is_set():
        raise RefusedError(
            f"kaggle {words}: not done after {seconds:.0f} s and given up; it last said: {lines[-1] if lines else 'nothing'}"
        )
    return ClientResult(words, code, "\n".join(lines))


def _masked(line: str) -> str:
    """A line without the credentials that the environment holds, and without any header or field that carries one."""
    for name in _SECRETS:
        secret = os.environ.get(name, "")
        if len(secret) >= 4:
            line = line.replace(secret, "***")
    return re.sub(r"""(?i)(authorization['"]?\s*[:=]\s*|["']key["']\s*:\s*)\S.*""", r"\1***", line)

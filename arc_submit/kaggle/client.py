"""Runs the real kaggle client as a child process with a time limit, and returns its text.

The client's exit code is not reliable: it is 0 where the server refused a push, left out a source or lost a file. So each command parses
the text itself. Only the client reads credentials; should it print one, the line is masked. Does not know the meaning of a text.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arc_submit.errors import ArcSubmitError, ConfigError
from arc_submit.workers.parent_death import PARENT

_VERBOSE_VARIABLES = ("VERBOSE", "VERBOSE_OUTPUT")  # with them the client prints every request and its Authorization header
_SECRET_VARIABLES = ("KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_TOKEN")


class KaggleError(ArcSubmitError):
    """Kaggle or its client did not do the work of a command, whatever the exit code."""


@dataclass(frozen=True)
class ClientResult:
    """The end of a client's process."""

    command: str  # the client's sub-commands, such as "kernels push"
    code: int  # exit code
    text: str  # standard output and error, with credentials masked

    def error(self, problem: str) -> KaggleError:
        """The exception to raise, in one line: the problem and the client's reason."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        if "Traceback (most recent call last):" in lines:
            lines = lines[-1:]
        reason = " ".join(lines)[-600:] or "the client printed nothing"
        if "Authentication required" in self.text:
            reason = "Kaggle does not know you: run `kaggle auth login`, or set KAGGLE_API_TOKEN (docs/kaggle.md)"
        elif unreachable := re.search(r"host='([^']+)'.*Max retries exceeded", self.text):
            reason = f"{unreachable[1]} cannot be reached; is there a network?"
        return KaggleError(f"kaggle {self.command}: {problem}: {reason}")


def start_client(arguments: Sequence[str], streamed: bool) -> subprocess.Popen[bytes]:
    """Start `kaggle ARGUMENTS` with its standard output in a pipe.

    Args:
        arguments: of the client.
        streamed: its errors come in a pipe of their own, and it ends with this process, as nothing else ends a client on a silent stream.

    Raises:
        ConfigError: if the client is not installed.
    """
    for package in ("kaggle", "six"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{package} is not installed, and this command needs it: pip install kaggle==2.2.4 six")
    environment = {name: value for name, value in os.environ.items() if name not in _VERBOSE_VARIABLES}
    bound = ["-m", "arc_submit.workers.parent_death"] if streamed else []
    return subprocess.Popen(
        [sys.executable, *bound, "-m", "kaggle", "-W", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if streamed else subprocess.STDOUT,
        env={**environment, "PYTHONUNBUFFERED": "1", PARENT: str(os.getpid())},
    )


def run_client(arguments: Sequence[str], seconds: float, show_progress: bool = False) -> ClientResult:
    """Run `kaggle ARGUMENTS`.

    Args:
        arguments: of the client.
        seconds: time limit, after which it is killed.
        show_progress: print the lines about an upload as they come.

    Raises:
        ConfigError: if the client is not installed.
        KaggleError: if it is killed at the time limit.
    """
    command = " ".join(one for one in arguments[:2] if not one.startswith("-"))
    process = start_client(arguments, streamed=False)
    timed_out = threading.Event()

    def kill_late() -> None:
        timed_out.set()
        process.kill()

    timer = threading.Timer(seconds, kill_late)
    timer.start()
    lines = []
    try:
        assert process.stdout is not None
        for line in io.TextIOWrapper(process.stdout, encoding="utf-8", errors="replace"):
            lines.append(mask_credentials(line.rstrip("\n")))
            if show_progress and lines[-1].startswith(("Starting", "Upload", "Skipping", "Request failed")):
                print(lines[-1], flush=True)
        code = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    if timed_out.is_set():
        raise KaggleError(f"kaggle {command}: killed after {seconds:.0f} s; its last line: {lines[-1] if lines else 'none'}")
    return ClientResult(command, code, "\n".join(lines))


def read_table(result: ClientResult, problem: str) -> list[dict[str, Any]]:
    """The rows that a client's command prints with `--format json`; none where it says that there are none.

    Raises:
        KaggleError: with the problem and the client's reason, where the text holds no such table.
    """
    start = re.search(r"^\[", result.text, re.MULTILINE)
    if result.code == 0 and start is None and re.search(r"^(Not found|No .* (found|available))\s*$", result.text, re.MULTILINE):
        return []
    try:
        if result.code or start is None:
            raise ValueError
        rows, _ = json.JSONDecoder().raw_decode(result.text[start.start() :])
    except ValueError:
        raise result.error(problem) from None
    return [row for row in rows if isinstance(row, dict)]


def mask_credentials(line: str) -> str:
    """Mask the credentials of the environment, and any header or field that carries one."""
    for name in _SECRET_VARIABLES:
        secret = os.environ.get(name, "")
        if len(secret) >= 4:
            line = line.replace(secret, "***")
    return re.sub(r"""(?i)(authorization['"]?\s*[:=]\s*|["']key["']\s*:\s*)\S.*""", r"\1***", line)

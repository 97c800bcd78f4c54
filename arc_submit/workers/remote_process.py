"""A child process that a client on another machine reads from, writes to and ends.

It protects from a cut network and a dead client: the process lives only while the client keeps reading. The same work can then begin
elsewhere, and a file never has two writers for long. It runs inside a Ray actor (arc_submit.workers.ray_proxy) and is testable without Ray.
Does not know Ray, nor what the process does.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from arc_submit import __version__
from arc_submit.workers.parent_death import PARENT

_POLL_SECONDS = 0.2  # between two checks whether the process has ended
_CHUNK = 1 << 20  # bytes of one read


class RemoteProcess:
    """One process in its own session, with its input and output as bytes.

    Args:
        lease: seconds without a `read` after which the process is killed.
    """

    def __init__(self, lease: float):
        self._lease = lease
        self._process: subprocess.Popen[bytes] | None = None
        self._changed = threading.Condition()
        self._output, self._errors = bytearray(), bytearray()
        self._exit_code: int | None = None
        self._start_error = ""
        self._last_read = time.monotonic()

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], folder: str | None = None) -> int:
        """Start `python ARGUMENTS` in a folder, with additional environment variables; returns its process id.

        Raises:
            OSError: where it cannot start.
        """
        self._last_read = time.monotonic()
        # The process dies with the thread that starts it: this thread lives as long as the process.
        threading.Thread(target=self._supervise, args=(list(arguments), dict(environment), folder), daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: self._process is not None or self._start_error)
        if self._process is None:
            raise OSError(self._start_error)
        return self._process.pid

    def write(self, data: bytes) -> None:
        """Write to the process's input; empty data closes it."""
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # the exit code reports a process that has died
            if data:
                self._process.stdin.write(data)
                self._process.stdin.flush()
            else:
                self._process.stdin.close()

    def read(self, timeout: float) -> tuple[bytes, bytes, int | None]:
        """Return new bytes of standard output and standard error, and the exit code once the process has ended and all is read.

        Args:
            timeout: seconds to wait for any of them.
        """
        with self._changed:
            self._last_read = time.monotonic()
            self._changed.wait_for(lambda: self._output or self._errors or self._exit_code is not None, timeout)
            self._last_read = time.monotonic()
            output, errors = bytes(self._output), bytes(self._errors)
            self._output.clear()
            self._errors.clear()
            return output, errors, self._exit_code

    def _supervise(self, arguments: list[str], environment: dict[str, str], folder: str | None) -> None:
        """Start the process, collect its output, and kill its session once it has ended or the lease has expired."""
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "arc_submit.workers.parent_death", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                cwd=folder,
                env={**os.environ, **environment, PARENT: str(os.getpid())},
            )
        except OSError as error:
            with self._changed:
                self._start_error = f"no process can be started ({error})"
                self._changed.notify_all()
            return
        with self._changed:
            self._process = process
            self._changed.notify_all()
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector:
            for stream, target in ((process.stdout, self._output), (process.stderr, self._errors)):
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ, target)
            while process.poll() is None:
                if time.monotonic() - self._last_read > self._lease:
                    break
                if selector.get_map():
                    self._collect(selector, _POLL_SECONDS)
                else:
                    time.sleep(_POLL_SECONDS)  # the process has closed both streams and still runs
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the process itself, or children that it left running
            exit_code = process.wait()
            while self._collect(selector, 0.0):
                pass
        with self._changed:
            self._exit_code = exit_code
            self._changed.notify_all()

    def _collect(self, selector: selectors.BaseSelector, timeout: float) -> bool:
        """Read what the process has written, waiting for it if necessary; returns whether there was anything to read."""
        ready = selector.select(timeout)
        for key, _ in ready:
            data = os.read(key.fd, _CHUNK)
            if not data:
                selector.unregister(key.fileobj)
                continue
            with self._changed:
                key.data.extend(data)
                self._changed.notify_all()
        return bool(ready)


def check_node(version: str, out: str, token: str, reply: str, folders: Mapping[str, Mapping[str, int]], timeout: float = 5.0) -> str:
    """Return why this machine cannot work for a run, with the remedy, else "".

    Args:
        version: of arc_submit on the run's machine.
        out: the run directory. It holds a file named `token` with that text; this function writes the same text to a file named `reply`.
        folders: sizes of files in bytes, by name, by folder, as the run's machine sees them.
        timeout: seconds that a shared file system may need to show a new file.
    """
    if version != __version__:
        return f"has arc_submit {__version__}, and this machine {version}: install the same on all nodes"
    deadline = time.monotonic() + timeout
    while not (visible := _contains(Path(out) / token, token)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if not visible:
        return f"does not see the run directory {out}: put it on storage that all nodes mount at the same path"
    try:
        (Path(out) / reply).write_text(token, encoding="ascii")
    except OSError as error:
        return f"cannot write to the run directory {out} ({error.strerror}): give the user that runs Ray write permission"
    for folder, sizes in folders.items():
        for name, size in sizes.items():
            path = Path(folder) / name
            if not path.is_file() or path.stat().st_size != size:
                return f"does not have the same {path} as this machine: put {folder} on storage that all nodes mount at the same path"
    return ""


def _contains(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="ascii") == text
    except (OSError, UnicodeDecodeError):
        return False

"""A host: on one machine of a cluster, a process that somebody on another machine reads from, writes to and ends.

What it protects from: a network that is cut and a peer that is gone. The process lives only as long as somebody keeps reading, so that the
same work can be begun elsewhere and the same file never has two writers for long. Made to be the inside of a Ray actor
(arc_submit.workers.ray_proxy) and to be tried without one. Knows nothing about Ray, or about what the process does.
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

_LOOK_SECONDS = 0.2  # between two looks whether the process has ended
_CHUNK = 1 << 20


class RemoteProcess:
    """One process, in a session of its own, its input and output by bytes.

    Args:
        lease: seconds without anybody reading after which the process is killed.
    """

    def __init__(self, lease: float):
        self._lease = lease
        self._process: subprocess.Popen[bytes] | None = None
        self._changed = threading.Condition()
        self._output, self._errors = bytearray(), bytearray()
        self._code: int | None = None
        self._problem = ""
        self._read_at = time.monotonic()

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], folder: str | None = None) -> int:
        """Start `python ARGUMENTS` with variables of its own, in a folder; returns its process id.

        Raises:
            OSError: where it cannot be started.
        """
        self._read_at = time.monotonic()
        # A process bound to its parent dies with the thread that started it: this one stays with it to its end.
        threading.Thread(target=self._stay_with, args=(list(arguments), dict(environment), folder), daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: self._process is not None or self._problem)
        if self._process is None:
            raise OSError(self._problem)
        return self._process.pid

    def write(self, data: bytes) -> None:
        """Write to the process's input; nothing at all closes it."""
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # one that has died is noticed by its exit code
            if data:
                self._process.stdin.write(data)
                self._process.stdin.flush()
            else:
                self._process.stdin.close()

    def read(self, patience: float) -> tuple[bytes, bytes, int | None]:
        """What it has written to its output and to its errors since the last time, and its exit code once it has ended and all is read.

        Args:
            patience: seconds to wait for any of it.
        """
        with self._changed:
            self._read_at = time.monotonic()
            self._changed.wait_for(lambda: self._output or self._errors or self._code is not None, patience)
            self._read_at = time.monotonic()
            output, errors = bytes(self._output), bytes(self._errors)
            self._output.clear()
            self._errors.clear()
            return output, errors, self._code

    def _stay_with(self, arguments: list[str], environment: dict[str, str], folder: str | None) -> None:
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
                self._problem = f"no process can be started ({error})"
                self._changed.notify_all()
            return
        with self._changed:
            self._process = process
            self._changed.notify_all()
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector:
            for stream, into in ((process.stdout, self._output), (process.stderr, self._errors)):
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ, into)
            while process.poll() is None:
                if time.monotonic() - self._read_at > self._lease:
                    break
                if selector.get_map():
                    self._take(selector, _LOOK_SECONDS)
                else:
                    time.sleep(_LOOK_SECONDS)  # it has closed both and has not ended yet
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the process, or what it has left behind
            code = process.wait()
            while self._take(selector, 0.0):
                pass
        with self._changed:
            self._code = code
            self._changed.notify_all()

    def _take(self, selector: selectors.BaseSelector, patience: float) -> bool:
        """Take in what there is by now, or what comes first; False where nothing comes in so many seconds."""
        ready = selector.select(patience)
        for key, _ in ready:
            data = os.read(key.fd, _CHUNK)
            if not data:
                selector.unregister(key.fileobj)
                continue
            with self._changed:
                key.data.extend(data)
                self._changed.notify_all()
        return bool(ready)


def check_node(version: str, out: str, token: str, answer: str, folders: Mapping[str, Mapping[str, int]], patience: float = 5.0) -> str:
    """What keeps this machine from working for a run, in words with the remedy, or nothing.

    Args:
        version: of the asking machine's arc_submit.
        out: the run directory, in which a file named by `token` holds it, and one named by `answer` is written to hold it too.
        folders: sizes of files by name by folder, as the asking machine sees them.
        patience: seconds that a shared file system may take to show a new file.
    """
    if version != __version__:
        return f"has arc_submit {__version__}, and this machine {version}: install the same on all nodes"
    until = time.monotonic() + patience
    while not (seen := _holds(Path(out) / token, token)) and time.monotonic() < until:
        time.sleep(0.1)
    if not seen:
        return f"does not see the run directory {out}: put it on storage that all nodes mount at the same path"
    try:
        (Path(out) / answer).write_text(token, encoding="ascii")
    except OSError as error:
        return f"cannot write to the run directory {out} ({error.strerror}): give the user of its Ray leave to"
    for folder, sizes in folders.items():
        for name, size in sizes.items():
            path = Path(folder) / name
            if not path.is_file() or path.stat().st_size != size:
                return f"does not have {path} as this machine has it: put {folder} on storage that all nodes mount at the same path"
    return ""


def _holds(path: Path, token: str) -> bool:
    try:
        return path.read_text(encoding="ascii") == token
    except (OSError, UnicodeDecodeError):
        return False

"""Follows a kernel's run: its log as `kaggle kernels logs --follow` streams it, and its state, until the run has ended.

The client (2.2.4; --follow came with 2.2.3) prints the log from its beginning each time it is started. It ends where the stream ends, where
the stream was cut off too often, or with an error where there is no log yet. So it is started again as long as the run goes on, and lines
that are printed already are passed over. Only Kaggle's state of the run decides how it ended. Does not know what a log's lines mean.
"""

from __future__ import annotations

import queue
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from arc_submit.durations import format_duration
from arc_submit.kaggle.client import KaggleError, mask_credentials, start_client
from arc_submit.kaggle.kernel_status import FAILED, KernelStatus, fetch_status

_LONGEST_LINE = 2_000  # characters of a line that are printed
_PIECE = 1 << 16  # bytes that are read of a line at a time
_SILENCE = 600.0  # seconds without a line after which the client is started again: a connection can be dead without an error
_LAST_LINES = 30.0  # the same where the run has ended
_PAUSE = 5.0  # seconds before a client that has ended is started again
_MOST_ENDS = 3  # clients without the whole log of a run that has ended, before its end is given up
_CLIENT_TIMEOUT = 60.0  # seconds for a state
_MOST_FAILURES = 30  # requests for a state in a row without an answer


@dataclass
class _Log:
    """The log as far as it is printed, and the client that prints it.

    Attributes:
        kernel: owner/slug.
        printed: a hash of each line that is printed, with which the lines of the next client are compared.
        position: of the client's next line in the log.
        client: the process, None where none works.
        began_after_end: the client was started after the run had ended, so that it gets the whole log.
        events: ("line" or "note", text) and ("end", exit code), each with its client.
        heard: when the client was started, printed its last line or ended, on the monotonic clock.
        ends: clients that were started after the run's end and have ended without the whole log.
        complete: all of the log of a run that has ended is printed, or its end is given up.
        noted: the last note, which is not repeated.
    """

    kernel: str
    printed: list[int] = field(default_factory=list)
    position: int = 0
    client: subprocess.Popen[bytes] | None = None
    began_after_end: bool = False
    events: queue.Queue[tuple[subprocess.Popen[bytes], str, str]] = field(default_factory=queue.Queue)
    heard: float = float("-inf")
    ends: int = 0
    complete: bool = False
    noted: str = ""


def follow_log(kernel: str, seconds: float, every: float) -> dict[str, Any]:
    """Print a run's log and every change of its state until it has ended; returns the figures.

    Args:
        kernel: owner/slug.
        seconds: how long to follow the run.
        every: seconds between two requests for the state.

    Raises:
        KaggleError: if the run has failed, or goes on after that time, with the figures; if Kaggle does not know the kernel or the user.
    """
    start = asked = time.monotonic()
    status, failures = fetch_status(kernel, _CLIENT_TIMEOUT), 0
    print(status, flush=True)
    log = _Log(kernel)
    try:
        while not (status.ended and log.complete) and (now := time.monotonic()) - start < seconds:
            _keep_client(log, status, now)
            _take_event(log, min(0.5, every))
            # A log that ends is mostly the end of the run, so its state is asked sooner.
            pause = min(every, _PAUSE) if log.client is None else every
            if not status.ended and now - asked >= pause:
                status, failures = _next_status(log, status, failures, now - start)
                asked = time.monotonic()
    finally:
        _stop_client(log)
    figures = {**asdict(status), "log_lines": len(log.printed)}
    if not log.printed:
        print(f"{kernel}: the log is empty", flush=True)
    if status.state in FAILED:
        raise KaggleError(f"{status}; its output: arc-submit kaggle output {kernel} --out output", figures)
    if not status.ended:
        problem = f"still {status.state} after {format_duration(seconds)}"
        raise KaggleError(f"{kernel}: {problem}; go on with arc-submit kaggle status {kernel} --follow", figures)
    return figures


def _next_status(log: _Log, status: KernelStatus, failures: int, seconds: float) -> tuple[KernelStatus, int]:
    """The state now, printed if it has changed, and the number of requests in a row without an answer."""
    try:
        newer = fetch_status(log.kernel, _CLIENT_TIMEOUT)
    except KaggleError as error:
        if failures + 1 >= _MOST_FAILURES or re.search(r"does not know you|denied", str(error)):
            raise
        _note(log, f"no state: {error}; asking again")
        return status, failures + 1
    if newer != status:
        print(f"{newer} (after {format_duration(seconds)})", flush=True)
    return newer, 0


def _keep_client(log: _Log, status: KernelStatus, now: float) -> None:
    """Stop a client that has been silent for too long; start one where none works and the run has a log."""
    if log.client is not None and now - log.heard > (_LAST_LINES if status.ended else _SILENCE):
        _note(log, f"nothing for {format_duration(now - log.heard)}; the client is started again")
        _stop_client(log)
        _count_end(log, log.began_after_end)
    if log.client is None and not log.complete and status.state not in ("QUEUED", "NEW_SCRIPT") and now - log.heard >= _PAUSE:
        log.client, log.position, log.heard = start_client(["kernels", "logs", log.kernel, "--follow"], streamed=True), 0, now
        log.began_after_end = status.ended
        threading.Thread(target=_read_client, args=(log.client, log.events), daemon=True).start()


def _stop_client(log: _Log) -> None:
    if log.client is not None:
        log.client.kill()
        log.client.wait()
        log.client = None


def _count_end(log: _Log, after_end: bool) -> None:
    """A client has ended without the whole log; one that was started before the run's end does not count."""
    log.ends += after_end
    if log.ends >= _MOST_ENDS:
        _note(log, f"the end of the log did not come; its file: arc-submit kaggle output {log.kernel} --out output")
        log.complete = True


def _take_event(log: _Log, seconds: float) -> None:
    """Wait for the client's next line, note or end, and print it."""
    try:
        client, kind, text = log.events.get(timeout=seconds)
    except queue.Empty:
        return
    if client is not log.client:  # it was stopped
        return
    log.heard = time.monotonic()
    if kind == "note":
        _note(log, text)
    elif kind == "end":
        _stop_client(log)
        # A stream may end early without an error.
        log.complete = log.began_after_end and text == "0"
        if not log.complete:
            _count_end(log, log.began_after_end)
        elif log.position < len(log.printed):
            _note(log, f"the log has {log.position} lines now, fewer than were printed")
    else:
        if log.position < len(log.printed) and log.printed[log.position] != hash(text):
            _note(log, f"line {log.position + 1} of the log is another one than before; printed again from there")
            del log.printed[log.position :]
        if log.position == len(log.printed):
            print(text, flush=True)
            log.printed.append(hash(text))
        log.position += 1


def _note(log: _Log, text: str) -> None:
    if text != log.noted:
        log.noted = text
        print(f"[log of {log.kernel}: {' '.join(text.split())[:300]}]", flush=True)


def _read_client(client: subprocess.Popen[bytes], events: queue.Queue[tuple[subprocess.Popen[bytes], str, str]]) -> None:
    """Queue what a client prints, then its last error and its end. A client that gave up has not read the whole log, whatever its code."""
    assert client.stdout is not None
    assert client.stderr is not None
    errors: list[str] = []
    reader = threading.Thread(target=_keep_last, args=(client.stderr, errors), daemon=True)
    reader.start()
    for line in read_lines(client.stdout):
        events.put((client, "line", line))
    code = client.wait()
    reader.join(5.0)
    for error in errors:
        events.put((client, "note", error))
    events.put((client, "end", "1" if any("giving up" in error for error in errors) else str(code)))


def _keep_last(pipe: IO[bytes], lines: list[str]) -> None:
    """The last line of a pipe; all are read, because a full pipe would stop the client."""
    for line in read_lines(pipe):
        lines[:] = [line] if line.strip() else lines


def read_lines(pipe: IO[bytes]) -> Iterator[str]:
    """The lines of a pipe as they come, without credentials; of a line that is too long its beginning and its length.

    Of a line that overwrites itself, as a bar of progress does, the last state is kept.
    """
    while piece := pipe.readline(_PIECE):
        length, start = len(piece), piece
        while not piece.endswith(b"\n") and (piece := pipe.readline(_PIECE)):
            if b"\r" in piece:
                length, start = 0, b""
            length += len(piece)
            start += piece if len(start) < _PIECE else b""
        text = start.decode("utf-8", "replace").rstrip("\r\n").rpartition("\r")[2]
        more = max(0, length - len(start)) + max(0, len(text) - _LONGEST_LINE)
        yield mask_credentials(text[:_LONGEST_LINE]) + (f" ... ({more:,} more)" if more else "")

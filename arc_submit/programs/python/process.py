"""The parent's side of the child process that runs programs: it is started when needed, reused, and killed when it does not answer.

Does not know what a program is.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
import weakref
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import arc_submit
from arc_submit.errors import ArcSubmitError
from arc_submit.programs.interface import ProgramError, Refusal
from arc_submit.programs.python.meter import Limits
from arc_submit.workers.parent_death import PARENT

_CHILD = ("-m", "arc_submit.workers.parent_death", "-m", "arc_submit.programs.python.child")
_POLL = 0.2  # seconds between two looks at the child's CPU time
_START_SECONDS = 60.0
_LONGEST_ANSWER = 10_000_000  # bytes; a program's grids and messages take far less


class _EndedError(Exception):
    """The child has ended without an answer."""


class ProgramProcess:
    """One child process for one program at a time.

    Attributes:
        starts: how often a child was started.
    """

    def __init__(self, limits: Limits):
        self.limits, self.starts = limits, 0
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, text: str, inputs: list[list[list[int]]]) -> list[list[list[int]]]:
        """The outputs of a program.

        Raises:
            ProgramError: as the child's answer says; TIME where it gives none in time, CELLS where a fresh child ends by itself.
            ArcSubmitError: where no child can be started.
        """
        question = {"text": text, "inputs": inputs}
        try:
            if self._child is None:
                self._start()
            answer = self._ask(question, self.limits.cpu_seconds, self.limits.wall_seconds)
        except _EndedError:
            # Something else may have ended it; a fresh one shows whether the program did.
            try:
                self._start()
                answer = self._ask(question, self.limits.cpu_seconds, self.limits.wall_seconds)
            except _EndedError:
                raise ProgramError(Refusal.CELLS, "the process that runs programs ends with it, most likely for lack of memory") from None
        if "refusal" in answer:
            raise ProgramError(Refusal(answer["refusal"]), answer["message"])
        outputs: list[list[list[int]]] = answer["outputs"]
        return outputs

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            _end(self._child)
            self._child = None

    def _start(self) -> None:
        self.close()
        # A hash seed and one thread: the order of sets of texts and the sums of numpy are then the same in every process.
        variables = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", PARENT: str(os.getpid())}
        library = str(Path(arc_submit.__file__).parent.parent)
        variables["PYTHONPATH"] = os.pathsep.join([library, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]).strip(os.pathsep)
        with tempfile.TemporaryFile() as said:
            self._child = subprocess.Popen(
                [sys.executable, *_CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=os.environ | variables,
                bufsize=0,
                start_new_session=True,
            )
            weakref.finalize(self, _end, self._child)
            self.starts += 1
            try:
                self._ask({"limits": asdict(self.limits)}, _START_SECONDS, _START_SECONDS)
            except _EndedError:
                said.seek(0)
                why = said.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise ArcSubmitError(f"the process that runs programs does not start: {why or 'it ends without a word'}") from None
            except ProgramError:
                raise ArcSubmitError(
                    f"the process that runs programs does not start within {_START_SECONDS:g} seconds; the machine may be too busy"
                ) from None

    def _ask(self, question: dict[str, Any], cpu_seconds: float, wall_seconds: float) -> dict[str, Any]:
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        begun, used = time.monotonic(), _cpu_seconds(child.pid)
        left = memoryview(json.dumps(question).encode() + b"\n")
        try:
            while left:  # one write may take a part of it
                left = left[child.stdin.write(left) :]
        except BrokenPipeError:
            self._ended()
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if selector.select(_POLL):
                    part = os.read(child.stdout.fileno(), 1 << 16)
                    received += part
                    if not part or len(received) > _LONGEST_ANSWER:
                        self._ended()
                late = time.monotonic() - begun > wall_seconds
                if not received.endswith(b"\n") and (late or _cpu_seconds(child.pid) - used > cpu_seconds):
                    self.close()
                    raise ProgramError(Refusal.TIME, f"more than {wall_seconds if late else cpu_seconds:g} seconds")
        try:
            answer: dict[str, Any] = json.loads(received)
        except ValueError:
            self._ended()
        return answer

    def _ended(self) -> NoReturn:
        self.close()
        raise _EndedError


def _cpu_seconds(process: int) -> float:
    """CPU seconds that a process has used; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()

"""The processes of one training: the own rank, sums over all of them, and the signals that end them. Does not know models."""

from __future__ import annotations

import datetime
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from arc_submit.base_model.loading import choose_device
from arc_submit.errors import ArcSubmitError

_LOST = ("Connection closed", "Connection reset", "Broken pipe", "remote process exited")  # in the messages of gloo and NCCL
_TIMEOUT = datetime.timedelta(hours=6)  # of waiting for the process that packs the data


class ProcessLostError(ArcSubmitError):
    """Another process of the training has ended."""


@dataclass
class Processes:
    """This process among those of the training.

    Attributes:
        rank, world: its number, and the number of processes.
        device: of this process.
        control: a process group on the CPU for small sums, which do not wait for GPUs; None with one process.
        local_rank, local_world: as rank and world, of this machine's processes.
    """

    rank: int
    world: int
    device: torch.device
    control: Any = None
    local_rank: int = 0
    local_world: int = 1

    def log(self, line: str) -> None:
        """Print a line, in the first process alone."""
        if self.rank == 0:
            print(line, flush=True)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes.

        Raises:
            ProcessLostError: where another process has ended.
        """
        tensor = torch.tensor(values, dtype=torch.float64)
        self._all_reduce(tensor, self.control)
        total: list[float] = tensor.tolist()
        return total

    def sum_gradient(self, gradient: torch.Tensor) -> None:
        """Replace a tensor on the processes' devices by its sum over all of them.

        Raises:
            ProcessLostError: as `sum`, where the devices' library notices it; NCCL may wait until the launcher ends the job.
        """
        self._all_reduce(gradient, None)

    def maximum(self, value: int) -> int:
        """The largest of the processes' values.

        Raises:
            ProcessLostError: as `sum`.
        """
        tensor = torch.tensor(value)
        self._all_reduce(tensor, self.control, dist.ReduceOp.MAX)
        return int(tensor)

    def _all_reduce(self, tensor: torch.Tensor, group: Any, operation: Any = dist.ReduceOp.SUM) -> None:
        if self.world > 1:
            with noticing_loss():
                dist.all_reduce(tensor, operation, group=group)

    def wait(self) -> None:
        """Wait until all processes call this.

        Raises:
            ProcessLostError: as `sum`.
        """
        if self.world > 1:
            with noticing_loss():
                dist.barrier(group=self.control)


@contextmanager
def noticing_loss() -> Iterator[None]:
    """A context in which the error of an exchange with a process that has ended is one of this project.

    Raises:
        ProcessLostError: instead of torch's RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        if any(words in str(error) for words in _LOST):
            raise ProcessLostError(f"another process of the training has ended ({str(error).splitlines()[0][-100:]})") from None
        raise


def open_processes(device: str) -> Processes:
    """Join the processes of a launcher; without one, this process trains alone.

    Raises:
        ConfigError: where there is no such device.
    """
    from accelerate import PartialState  # type: ignore[import-untyped]

    if device != "cpu":
        choose_device(device)
    state = PartialState(cpu=device == "cpu")
    if state.num_processes == 1:
        return Processes(0, 1, choose_device(device))
    group = Processes(state.process_index, state.num_processes, state.device, dist.new_group(backend="gloo", timeout=_TIMEOUT))
    group.local_rank = state.local_process_index
    group.local_world = group.maximum(group.local_rank) + 1
    return group


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list of the signals that the process has received within this context; the caller then ends after its current step.

    They are SIGTERM, which schedulers send, and SIGINT, a terminal's interrupt; a second interrupt ends the process at once.
    """
    signals: list[int] = []

    def receive(number: int, _: object) -> None:
        signals.append(number)
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    # None is a handler that is not Python's.
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, receive)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

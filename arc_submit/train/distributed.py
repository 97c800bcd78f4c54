"""The processes that train together: which one this is, small sums over all of them, and being told to end. Knows nothing about models."""

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

_LOST = ("Connection closed", "Connection reset", "Broken pipe", "remote process exited")  # as gloo and NCCL say it
_WAIT = datetime.timedelta(hours=6)  # for the process that packs the data


class ProcessLostError(ArcSubmitError):
    """Another process of the training that is gone, whatever ended it."""


@dataclass
class Processes:
    """This process among those that train together.

    Attributes:
        rank, world: which one it is, of how many.
        device: its own.
        control: a group for small things on the CPU, so that no GPU has to be waited for; None with one process.
    """

    rank: int
    world: int
    device: torch.device
    control: Any = None

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes.

        Raises:
            ProcessLostError: where another one is gone.
        """
        tensor = torch.tensor(values, dtype=torch.float64)
        self._add_up(tensor, self.control)
        total: list[float] = tensor.tolist()
        return total

    def sum_gradient(self, gradient: torch.Tensor) -> None:
        """Replace a tensor on the processes' devices by its sum over all of them.

        Raises:
            ProcessLostError: as `sum`, where the devices' library says so; NCCL may wait until the launcher ends the job.
        """
        self._add_up(gradient, None)

    def _add_up(self, tensor: torch.Tensor, group: Any) -> None:
        if self.world == 1:
            return
        try:
            dist.all_reduce(tensor, group=group)
        except RuntimeError as error:
            if any(word in str(error) for word in _LOST):
                raise ProcessLostError(f"another process of the training is gone ({str(error).splitlines()[0][-100:]})") from None
            raise

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier(group=self.control)


def open_processes(device: str) -> Processes:
    """Join the processes that a launcher started, or be the only one.

    Raises:
        ConfigError: where the device is not there.
    """
    from accelerate import PartialState  # type: ignore[import-untyped]

    if device != "cpu":
        choose_device(device)
    state = PartialState(cpu=device == "cpu")
    if state.num_processes == 1:
        return Processes(0, 1, choose_device(device))
    return Processes(state.process_index, state.num_processes, state.device, dist.new_group(backend="gloo", timeout=_WAIT))


@contextmanager
def told_to_stop() -> Iterator[list[int]]:
    """A list that holds something once the process was told to end: the step in hand is finished and saved.

    Told by SIGTERM, as schedulers do, or by SIGINT, a terminal's interrupt, of which a second one ends the process at once.
    """
    told: list[int] = []

    def take(number: int, _: object) -> None:
        told.append(number)
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    # None is a handler that is not Python's.
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, take)
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

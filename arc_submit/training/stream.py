"""The samples of each training step, drawn by other processes a little ahead of their use.

Step s of a global batch of B takes samples s*B to s*B+B-1; process r of R takes every R-th of them, and its loaders take steps in
turn. Since a sample is a function of its number, what a process is given depends neither on how many loaders there are nor on where
training began. Knows nothing about models.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from arc_submit.training.mixture import Mixture, TokenSample

_AHEAD = 4  # steps that each loader draws ahead


class _Steps(IterableDataset[list[TokenSample]]):
    def __init__(self, mixture: Mixture, batch_size: int, rank: int, world: int, start: int):
        self.mixture, self.batch_size, self.rank, self.world, self.start = mixture, batch_size, rank, world, start

    def __iter__(self) -> Iterator[list[TokenSample]]:
        info = get_worker_info()
        loader, loaders = (0, 1) if info is None else (info.id, info.num_workers)
        step = self.start + loader
        while True:
            first = step * self.batch_size
            yield [self.mixture.sample(number) for number in range(first + self.rank, first + self.batch_size, self.world)]
            step += loaders


def stream_steps(mixture: Mixture, batch_size: int, rank: int, world: int, start: int, loaders: int) -> Iterator[list[TokenSample]]:
    """One process's samples of step `start`, of the next, and so on without end.

    Args:
        batch_size: of all processes together, a multiple of their number.
        loaders: processes that draw them; 0 draws them here.
    """
    steps = _Steps(mixture, batch_size, rank, world, start)
    if not loaders:
        return iter(steps)
    # Forked loaders share the packed data. Samples travel as arrays through a pipe: they are small, and /dev/shm is in many containers too.
    loader: DataLoader[Any] = DataLoader(
        steps,
        batch_size=None,
        num_workers=loaders,
        prefetch_factor=_AHEAD,
        multiprocessing_context="fork",
        worker_init_fn=_leave_signals_alone,
    )
    return iter(loader)


def _leave_signals_alone(_: int) -> None:
    """A loader ends when its training process tells it to or is gone, not with the terminal's interrupt, and never saves anything."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

"""The samples of each training step, drawn by other processes a little ahead of their use.

Step s of a global batch of B takes samples s*B to s*B+B-1; process r of R takes every R-th of them, and its loaders take steps in
turn. Since a sample is a function of its number, what a process is given depends neither on how many loaders there are nor on where
training began. Knows nothing about models.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from arc_submit.errors import ArcSubmitError
from arc_submit.train.mixture import Mixture, TokenSample

_AHEAD = 4  # steps that each loader draws ahead


class LoaderDiedError(ArcSubmitError):
    """A loader that was killed, as the kernel does where memory ends."""


class _Steps(IterableDataset["list[TokenSample] | ArcSubmitError"]):
    def __init__(self, mixture: Mixture, batch_size: int, rank: int, world: int, start: int):
        self.mixture, self.batch_size, self.rank, self.world, self.start = mixture, batch_size, rank, world, start

    def __iter__(self) -> Iterator[list[TokenSample] | ArcSubmitError]:
        info = get_worker_info()
        loader, loaders = (0, 1) if info is None else (info.id, info.num_workers)
        step = self.start + loader
        while True:
            first = step * self.batch_size
            try:
                yield [self.mixture.sample(number) for number in range(first + self.rank, first + self.batch_size, self.world)]
            except ArcSubmitError as error:
                yield error  # torch would add the loader's traceback to its one line
            step += loaders


def stream_steps(mixture: Mixture, batch_size: int, rank: int, world: int, start: int, loaders: int) -> Iterator[list[TokenSample]]:
    """One process's samples of step `start`, of the next, and so on without end.

    Args:
        batch_size: of all processes together, a multiple of their number.
        loaders: processes that draw them; 0 draws them here.

    Raises:
        ArcSubmitError: as it goes, where a sample cannot be drawn.
    """
    steps = _Steps(mixture, batch_size, rank, world, start)
    for drawn in steps if not loaders else _from_loaders(steps, loaders):
        if isinstance(drawn, ArcSubmitError):
            raise drawn
        yield drawn


def died(error: RuntimeError) -> LoaderDiedError | None:
    """What torch raises, at any place, when a loader is killed; None where it is another error."""
    if "DataLoader worker" not in str(error):
        return None
    return LoaderDiedError(f"a loader died ({str(error).splitlines()[0][:120]}); where memory ended, lower --loaders or --batch-size")


def _from_loaders(steps: _Steps, loaders: int) -> Iterator[list[TokenSample] | ArcSubmitError]:
    # Forked loaders share the packed data. Samples travel as arrays through a pipe: they are small, and /dev/shm is in many containers too.
    loader: DataLoader[Any] = DataLoader(
        steps,
        batch_size=None,
        num_workers=loaders,
        prefetch_factor=_AHEAD,
        multiprocessing_context="fork",
        worker_init_fn=_end_by_parent_alone,
    )
    return iter(loader)


def _end_by_parent_alone(_: int) -> None:
    """A loader ends when its training process tells it to or is gone, and never saves anything.

    Not with the terminal's interrupt, nor with a SIGTERM from elsewhere: a scheduler sends one to all processes of a job, torchrun another,
    while the training process has a step in hand. That process itself sends one at the end to a loader that has not heard of it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_wait_for, args=(os.getppid(),), daemon=True).start()


def _wait_for(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)

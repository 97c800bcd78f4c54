"""The samples of each training step, drawn by other processes a little ahead of their use.

Step s of a global batch of B takes samples s*B to s*B+B-1; process r of R takes every R-th of them, and its loaders take steps in
turn. A sample is a function of its number, so the samples of a process depend neither on the number of loaders nor on the step that
training started at. Does not know models.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from arc_submit.errors import ArcSubmitError
from arc_submit.train.mixture import Mixture, TokenSample
from arc_submit.workers.parent_death import die_with_parent

_PREFETCH = 4  # steps that each loader draws ahead


class LoaderDiedError(ArcSubmitError):
    """A loader was killed, as the kernel does where memory runs out."""


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
                yield error  # raised here, torch would add the loader's traceback to the one line
            step += loaders


def stream_steps(mixture: Mixture, batch_size: int, rank: int, world: int, start: int, loaders: int) -> Iterator[list[TokenSample]]:
    """One process's samples of step `start`, of the next, and so on without end.

    Args:
        batch_size: of all processes together, a multiple of their number.
        loaders: processes that draw samples; 0 draws them in this process.

    Raises:
        ArcSubmitError: during the iteration, where a sample cannot be drawn.
    """
    steps = _Steps(mixture, batch_size, rank, world, start)
    for samples in steps if not loaders else _from_loaders(steps, loaders):
        if isinstance(samples, ArcSubmitError):
            raise samples
        yield samples


def loader_death(error: RuntimeError) -> LoaderDiedError | None:
    """The error for torch's own, which it raises at any place when a loader is killed; None for other errors."""
    if "DataLoader worker" not in str(error):
        return None
    return LoaderDiedError(f"a loader died ({str(error).splitlines()[0][:120]}); if memory ran out, lower --loaders or --batch-size")


@contextmanager
def loader_death_waits() -> Iterator[None]:
    """Have torch's error for a killed loader come at the end of a block and not within it, where it would leave a part of a step.

    torch raises it from its handler of the signal that a child has ended, between any two lines.
    """
    handler, ended = signal.getsignal(signal.SIGCHLD), list[Any]()
    if not callable(handler) or threading.current_thread() is not threading.main_thread():  # there is no loader
        yield
        return
    signal.signal(signal.SIGCHLD, lambda *given: ended.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)
    if ended:
        handler(*ended[0])


def _from_loaders(steps: _Steps, loaders: int) -> Iterator[list[TokenSample] | ArcSubmitError]:
    # Forked loaders share the packed data. Samples are sent as numpy arrays through a pipe and not as tensors through shared memory: they
    # are small, and /dev/shm is too small in many containers.
    loader: DataLoader[Any] = DataLoader(
        steps,
        batch_size=None,
        num_workers=loaders,
        prefetch_factor=_PREFETCH,
        multiprocessing_context="fork",
        worker_init_fn=partial(_obey_parent_only, os.getpid()),
    )
    return iter(loader)


def _obey_parent_only(parent: int, _: int) -> None:
    """Have a loader end when its training process ends or terminates it, and only then.

    A loader that waits to send a sample notices no death: the other loaders hold the pipe open.

    It ignores the terminal's interrupt and a SIGTERM from other processes: a scheduler sends one to all processes of a job and torchrun
    another, while the training process finishes its step. That process itself sends one at the end to a loader that is still running.
    """
    if not die_with_parent(parent):
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_by, args=(os.getppid(),), daemon=True).start()


def _end_by(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)

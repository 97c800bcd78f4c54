"""Checkpoints of training: weights and optimizer state in safetensors, the rest in JSON; nothing is pickled.

A checkpoint is a folder that is written under another name and renamed when it is complete, so that every checkpoint is complete whenever
the process is killed. An optimizer's state is a few tensors for each parameter and a few numbers: the tensors are named
"<optimizer>.<parameter>.<name>", the numbers go into the JSON. There is no random generator's state, because a sample is a function of its
number. Does not know models beyond their tensors.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from arc_submit.errors import ConfigError, DataError

STATE, OPTIMIZER = "state.json", "optimizer.safetensors"


@contextmanager
def exclusive_folder(folder: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Lock a folder against other trainings, which would delete each other's checkpoints.

    The lock belongs to the process (POSIX): loaders that outlive a killed training for a moment do not hold it.

    Raises:
        ConfigError: where another training holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "train.lock").open("a")
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be used ({error.strerror}); give another --out") from None
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ConfigError(f"{folder}: another training is using this folder; wait for it, or give another --out") from None
            log(f"{folder}: this file system has no locks ({error.strerror}); make sure that no other training uses the folder")
        yield


def checkpoint_folders(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, the oldest first."""
    return sorted(path for path in folder.glob("step-*") if _is_complete(path))


def _is_complete(checkpoint: Path) -> bool:
    """Whether all of a checkpoint's files have their full size, which those of an interrupted copy do not.

    A checkpoint with an unreadable state counts as complete: `read_state` then raises, rather than that its steps are silently lost.
    """
    if not (checkpoint / STATE).is_file():
        return False
    try:
        files = read_state(checkpoint).get("files", {})
    except DataError:
        return True
    return all((checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size for name, size in files.items())


def save_checkpoint(
    folder: Path,
    step: int,
    state: dict[str, Any],
    optimizer: tuple[dict[str, torch.Tensor], dict[str, Any]],
    write_weights: Callable[[Path], None],
    keep: int,
) -> Path:
    """Write the checkpoint of a step, unless it exists, and delete all but the newest `keep`.

    Args:
        state: further JSON values.
        optimizer: what `optimizer_state` gives.
        write_weights: writes the weights into a folder.

    Raises:
        DataError: where the disk does not suffice; the older checkpoints then still exist.
    """
    checkpoint, temporary = folder / f"step-{step:08d}", folder / f".step-{step:08d}.{os.getpid()}"
    if _is_complete(checkpoint):
        return checkpoint
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".step-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir()
        write_weights(temporary)
        tensors, numbers = optimizer
        save_file(tensors, temporary / OPTIMIZER)
        files = {str(path.relative_to(temporary)): path.stat().st_size for path in temporary.rglob("*") if path.is_file()}
        (temporary / STATE).write_text(json.dumps({**state, "step": step, "optimizer": numbers, "files": files}), encoding="utf-8")
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        shutil.rmtree(checkpoint, ignore_errors=True)  # an incomplete one
        temporary.rename(checkpoint)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{checkpoint}: cannot be written ({error}); free some disk space or choose another folder") from None
    for old in checkpoint_folders(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return checkpoint


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint.

    Raises:
        DataError: where it cannot be read.
    """
    try:
        state: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        int(state["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{checkpoint}: no readable {STATE} ({error}); remove the folder to go on from the one before") from None
    return state


def optimizer_state(optimizers: Sequence[torch.optim.Optimizer]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of the optimizers' states by name, on the CPU, and their numbers."""
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, optimizer in enumerate(optimizers):
        for parameter, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                key = f"{index}.{parameter}.{name}"
                if isinstance(value, torch.Tensor):
                    tensors[key] = value.detach().to("cpu", copy=True).contiguous()
                else:
                    numbers[key] = value
    return tensors, numbers


def load_optimizers(
    checkpoint: Path,
    state: dict[str, Any],
    optimizers: Sequence[torch.optim.Optimizer],
    part_of: Callable[[torch.Tensor], torch.Tensor] = lambda whole: whole,
) -> None:
    """Load a checkpoint's optimizer state into optimizers of the same settings.

    Args:
        part_of: gives the part of a whole tensor that this process's optimizers hold.

    Raises:
        DataError: where it is missing or does not fit.
    """
    try:
        tensors = {key: part_of(tensor) if tensor.ndim else tensor for key, tensor in load_file(checkpoint / OPTIMIZER).items()}
        entries: dict[str, Any] = {**tensors, **state["optimizer"]}
        for index, optimizer in enumerate(optimizers):
            values: dict[int, dict[str, Any]] = {}
            for key, value in entries.items():
                owner, number, name = key.split(".", 2)
                if int(owner) == index:
                    values.setdefault(int(number), {})[name] = value
            if len(values) != sum(len(group["params"]) for group in optimizer.param_groups):
                raise ValueError(f"state of {len(values)} parameters")
            optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise DataError(
            f"{checkpoint}: its optimizer state does not fit ({error}); remove the folder to go on from the one before"
        ) from None

"""Checkpoints of training: weights and optimizer state in safetensors, the rest in JSON; nothing is pickled.

A checkpoint is a folder written under another name and renamed when it is whole, so that what is found is whole, whenever the process was
killed. An optimizer's state is a few tensors for each parameter and a few numbers: the tensors are named "<optimizer>.<parameter>.<name>",
the numbers go into the JSON. No state of a random generator is kept because none is used: a sample is a function of its number. Knows
nothing about models beyond their tensors.
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
def alone_in(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder against other trainings, which would delete each other's checkpoints.

    The lock is the process's own (POSIX): loaders that outlive a killed training for a moment do not hold it.

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
            say(f"{folder}: this file system has no locks ({error.strerror}); see to it that no other training uses the folder")
        yield


def checkpoint_folders(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, the oldest first."""
    return sorted(path for path in folder.glob("step-*") if _is_whole(path))


def _is_whole(checkpoint: Path) -> bool:
    """Whether all of a checkpoint's files are there at their size, which a copy that was cut off does not have.

    One whose state cannot be read counts as whole: `read_state` says so, rather than that hours are lost in silence.
    """
    if not (checkpoint / STATE).is_file():
        return False
    try:
        files = read_state(checkpoint).get("files", {})
    except DataError:
        return True
    return all((checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size for name, size in files.items())


def save_checkpoint(
    folder: Path, step: int, state: dict[str, Any], optimizers: Sequence[torch.optim.Optimizer], write: Callable[[Path], None], keep: int
) -> Path:
    """Write the checkpoint of a step, unless it is there, and remove all but the newest few.

    Args:
        state: what else is to be known, as JSON.
        write: writes the weights into the folder it is given.

    Raises:
        DataError: where the disk does not take it; the older checkpoints are still there then.
    """
    whole, temporary = folder / f"step-{step:08d}", folder / f".step-{step:08d}.{os.getpid()}"
    if _is_whole(whole):
        return whole
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".step-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir()
        write(temporary)
        tensors, numbers = optimizer_state(optimizers)
        save_file(tensors, temporary / OPTIMIZER)
        files = {str(path.relative_to(temporary)): path.stat().st_size for path in temporary.rglob("*") if path.is_file()}
        (temporary / STATE).write_text(json.dumps({**state, "step": step, "optimizer": numbers, "files": files}), encoding="utf-8")
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        shutil.rmtree(whole, ignore_errors=True)  # what is not whole is no checkpoint
        temporary.rename(whole)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{whole}: cannot be written ({error}); free some disk space or choose another folder") from None
    for old in checkpoint_folders(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return whole


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint.

    Raises:
        DataError: where it is not one.
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
    for place, optimizer in enumerate(optimizers):
        for parameter, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                key = f"{place}.{parameter}.{name}"
                if isinstance(value, torch.Tensor):
                    tensors[key] = value.detach().to("cpu", copy=True).contiguous()
                else:
                    numbers[key] = value
    return tensors, numbers


def load_optimizers(checkpoint: Path, state: dict[str, Any], optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Lay a checkpoint's optimizer state into optimizers of the same make.

    Raises:
        DataError: where it is not there or of another make.
    """
    try:
        entries: dict[str, Any] = {**load_file(checkpoint / OPTIMIZER), **state["optimizer"]}
        for place, optimizer in enumerate(optimizers):
            values: dict[int, dict[str, Any]] = {}
            for key, value in entries.items():
                owner, parameter, name = key.split(".", 2)
                if int(owner) == place:
                    values.setdefault(int(parameter), {})[name] = value
            if len(values) != sum(len(parameters["params"]) for parameters in optimizer.param_groups):
                raise ValueError(f"state of {len(values)} parameters")
            optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise DataError(
            f"{checkpoint}: its optimizer state does not fit ({error}); remove the folder to go on from the one before"
        ) from None

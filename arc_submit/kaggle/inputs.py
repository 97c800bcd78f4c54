"""What is attached to a Kaggle notebook, found by its files, and where the notebook may write.

Kaggle mounts inputs in two layouts and under names of its own choice, so nothing here names a path: a model is a folder with config.json
and weights, adapters are folders with adapter_config.json. Inputs are read-only; /kaggle/working is small and kept, so a run's directory
lies in /kaggle/temp and only what is worth keeping is copied. Off Kaggle the same calls give plain folders. Knows nothing about what a
model can do.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from arc_submit.arc.datasets import find_folders
from arc_submit.errors import DataError

_DEPTH = 7  # /kaggle/input/models/<owner>/<model>/<framework>/<variation>/<version> is six folders down
_KEPT = ("submission.json", "events.jsonl", "config.json", "report/*", "logs/**/*.log")
_KEPT_BYTES = 20_000_000  # of one file: a log that ran away stays where it is


def find_model(root: Path, name: str | Path | None = None) -> Path | None:
    """The folder of the base model.

    Args:
        root: Kaggle's root, /kaggle.
        name: a folder; or, below the inputs, a folder's name or the end of its path. None takes the only model there is.

    Returns:
        None off Kaggle where no name is given: the model that comes with the project.

    Raises:
        DataError: where there is none of that name, or more than one.
    """
    if name is not None and Path(name).is_dir():
        return Path(name)
    inputs = root / "input"
    if not inputs.is_dir():
        if name is None:
            return None
        raise DataError(f"model {name}: no such folder, and no {inputs} to look for it in")
    found = [folder for folder in find_folders(inputs, "config.json", _DEPTH) if any(folder.glob("*.safetensors"))]
    return _the_one(inputs, found, name, "model (config.json beside .safetensors)")


def find_adapters(root: Path, name: str | Path | None) -> Path | None:
    """A folder with one adapter for each task, or a single adapter's own; None where no name is given.

    Args:
        root, name: as for find_model.

    Raises:
        DataError: where there is none of that name, or more than one.
    """
    if name is None or Path(name).is_dir():
        return None if name is None else Path(name)
    inputs = root / "input"
    single = find_folders(inputs, "adapter_config.json", _DEPTH + 1) if inputs.is_dir() else []
    return _the_one(inputs, [*single, *dict.fromkeys(folder.parent for folder in single)], name, "adapter (adapter_config.json)")


def run_folder(root: Path, name: str) -> Path:
    """Where a run's directory belongs: on Kaggle in the scratch folder, for adapters fill /kaggle/working in no time; else below runs/."""
    return root / "temp" / name if (root / "working").is_dir() else Path("runs") / name


def keep(root: Path, run: Path) -> list[Path]:
    """Copy what is small and worth keeping of a run's directory to /kaggle/working/<its name>; returns the copies, none off Kaggle.

    The submission itself is where the competition looks for it already, so a disk without room for copies is said and costs no more.
    """
    working = root / "working"
    if not working.is_dir():
        return []
    copies = []
    for path in _kept(run):
        target = working / run.name / path.relative_to(run)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            copies.append(target)
        except OSError as error:
            with contextlib.suppress(OSError):
                target.unlink(missing_ok=True)
            print(f"{target}: not kept ({error.strerror})")
    return copies


def _kept(run: Path) -> Iterable[Path]:
    for pattern in _KEPT:
        for path in sorted(run.glob(pattern)):
            if path.is_file() and path.stat().st_size <= _KEPT_BYTES:
                yield path


def _the_one(inputs: Path, found: list[Path], name: str | Path | None, what: str) -> Path:
    wanted = Path(name).parts if name is not None else ()
    matching = [folder for folder in found if not wanted or folder.parts[-len(wanted) :] == wanted]
    shown = ", ".join(str(folder.relative_to(inputs)) for folder in (matching or found)) or "nothing"
    if not matching:
        called = f" of the name {name}" if wanted else ""
        raise DataError(f"{inputs}: no {what}{called}; there is {shown}; attach it as a data set or a model")
    if len(matching) > 1:
        raise DataError(f"{inputs}: {len(matching)} folders could be meant, {shown}; name one by as much of its path as it takes")
    return matching[0]

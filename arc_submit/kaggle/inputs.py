"""Finds a Kaggle notebook's inputs by their files, and chooses where the notebook writes. Does not know a model's architecture.

Kaggle mounts inputs in two layouts, so no path is fixed: a model is a folder with config.json and weights, an adapter is a folder with
adapter_config.json. Inputs are read-only. /kaggle/working is small and permanent, so a run's directory lies in /kaggle/temp and only small
results are copied. Off Kaggle the same calls give ordinary folders.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from arc_submit.arc.datasets import find_folders
from arc_submit.ensemble.pool import write_pool
from arc_submit.errors import ArcSubmitError, DataError
from arc_submit.inference.compile_cache import ARCHIVE, pack_compile_cache
from arc_submit.language.prompt_config import CONFIG_FILE
from arc_submit.run.ensemble_inputs import gather, pool_of, read_inputs
from arc_submit.storage.run_dir import RunPaths

_DEPTH = 7  # /kaggle/input/models/<owner>/<model>/<framework>/<variation>/<version> is six folders down
_SAVED_PATTERNS = ("submission.json", "events.jsonl", "config.json", "report/*", "logs/**/*.log")
POOL = "pool.jsonl.gz"  # all candidates of a run
_LARGEST_SAVED = 20_000_000  # bytes; a larger log is not copied


def find_model(root: Path, name: str | Path | None = None) -> Path | None:
    """The folder of the base model.

    Args:
        root: Kaggle's root, /kaggle.
        name: a folder; or, below the inputs, a folder's name or the end of its path. None takes the only model.

    Returns:
        None off Kaggle if no name is given: the model that comes with the project.

    Raises:
        DataError: if no model or more than one matches.
    """
    name = None if name is None else str(name)
    if name is not None and Path(name).is_dir():
        return Path(name)
    inputs = root / "input"
    if not inputs.is_dir():
        if name is None:
            return None
        raise DataError(f"model {name}: no such folder, and no {inputs} to search for it")
    models = [folder for folder in find_folders(inputs, "config.json", _DEPTH) if any(folder.glob("*.safetensors"))]
    return _select(inputs, models, name, "model (config.json beside .safetensors)")


def find_adapters(root: Path, name: str | Path | None) -> Path | None:
    """A folder with one adapter for each task, or the folder of a single adapter; arguments and errors as for find_model.

    Returns:
        None if no name is given.
    """
    if name is None or Path(name).is_dir():
        return None if name is None else Path(name)
    inputs = root / "input"
    single = find_folders(inputs, "adapter_config.json", _DEPTH + 1) if inputs.is_dir() else []
    return _select(inputs, [*single, *dict.fromkeys(folder.parent for folder in single)], name, "adapter (adapter_config.json)")


def find_file(root: Path, name: str | Path | None) -> Path | None:
    """A file that says how a model is asked: a configuration or a chat template.

    Args:
        root: Kaggle's root, /kaggle.
        name: a file; or, below the inputs, a file's name, or the name of a folder that holds an arc_submit.json,
            such as one of a bundle's model_configs.

    Returns:
        None if no name is given; the name itself if nothing below the inputs has it, because it may be that of a format that comes with
        the project.

    Raises:
        DataError: if more than one file matches.
    """
    if name is None:
        return None
    inputs, parts = root / "input", Path(name).parts
    if Path(name).is_file() or not inputs.is_dir():
        return Path(name)
    configs = [folder for folder in find_folders(inputs, CONFIG_FILE, _DEPTH + 1) if folder.parts[-len(parts) :] == parts]
    files = [folder / parts[0] for folder in find_folders(inputs, parts[0], _DEPTH + 1)] if len(parts) == 1 else []
    found = [*configs, *files]
    if len(found) > 1:
        shown = ", ".join(str(path.relative_to(inputs)) for path in found)
        raise DataError(f"{inputs}: {len(found)} files match {name}, {shown}; rename all but one")
    return found[0] if found else Path(name)


def run_folder(root: Path, name: str) -> Path:
    """The folder for a run's directory: on Kaggle below /kaggle/temp, as adapters would fill /kaggle/working; elsewhere below runs/."""
    return root / "temp" / name if (root / "working").is_dir() else Path("runs") / name


def save_results(root: Path, run: Path) -> list[Path]:
    """Copy a run directory's small results to /kaggle/working/<its name>; returns the copies, none off Kaggle.

    All candidates go to pool.jsonl.gz beside them.
    What vllm has compiled becomes /kaggle/working/compile_cache.tar, to be attached to later sessions.
    The submission is already where the competition expects it, so a file that cannot be copied is only reported.
    """
    working = root / "working"
    if not working.is_dir():
        return []
    copies = []
    try:
        if pack_compile_cache(RunPaths(run).compile_cache, working / ARCHIVE):
            copies.append(working / ARCHIVE)
    except OSError as error:
        print(f"{working / ARCHIVE}: not written ({error.strerror}); a later session compiles again")
    copies += _save_pool(working / run.name / POOL, run)
    for path in _small_results(run):
        target = working / run.name / path.relative_to(run)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            copies.append(target)
        except OSError as error:
            with contextlib.suppress(OSError):
                target.unlink(missing_ok=True)
            print(f"{target}: not copied ({error.strerror})")
    return copies


def _save_pool(path: Path, run: Path) -> list[Path]:
    """Write all candidates of a run as one file, for `arc-submit ensemble`; returns the file where it was written."""
    if not (run / "predictions").is_dir():
        return []
    try:
        gathered = gather(read_inputs([str(run)]))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pool(path, pool_of(gathered, gathered.judgements))
    except (ArcSubmitError, OSError) as error:
        print(f"{path}: not written ({error})")
        return []
    return [path]


def _small_results(run: Path) -> Iterator[Path]:
    for pattern in _SAVED_PATTERNS:
        for path in sorted(run.glob(pattern)):
            if path.is_file() and path.stat().st_size <= _LARGEST_SAVED:
                yield path


def _select(inputs: Path, folders: list[Path], name: str | Path | None, kind: str) -> Path:
    """The only folder whose path ends with the name, or the only folder; DataError if none or more than one matches."""
    parts = Path(name).parts if name is not None else ()
    matching = [folder for folder in folders if not parts or folder.parts[-len(parts) :] == parts]
    shown = ", ".join(str(folder.relative_to(inputs)) for folder in (matching or folders)) or "nothing"
    if not matching:
        named = f" with the name {name}" if parts else ""
        raise DataError(f"{inputs}: no {kind}{named}; found {shown}; attach it as a data set or a model")
    if len(matching) > 1:
        raise DataError(f"{inputs}: {len(matching)} folders match, {shown}; name one by a longer end of its path")
    return matching[0]

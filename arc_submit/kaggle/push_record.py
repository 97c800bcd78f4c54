"""What is kept of a push: the notebook's parameters, its sources, the commits of the code, and the score of a dry run of the same notebook.

A dry run belongs to a notebook where the notebook that papermill wrote has the same cells. Does not know Kaggle.
"""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arc_submit.arc.files import read_json
from arc_submit.errors import ConfigError, DataError
from arc_submit.kaggle.cell_commands import parse_cell
from arc_submit.kaggle.kernel_metadata import KERNEL_METADATA, SOURCES, requested_machine
from arc_submit.kaggle.notebook_check import source_of
from arc_submit.kaggle.season_table import project_of

_SCORES = ("report/scores.json", "scores.json")


def push_record(folder: Path, accelerator: str | None, run: Path | None, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The settings of the kernel in a folder.

    Args:
        accelerator: replaces machine_shape.
        run: directory of the dry run that its local score comes from; None looks for one below runs/ of the project.
        records: of the season's table, which tell the commit of an uploaded bundle.

    Raises:
        ConfigError: where `run` holds no scores.
    """
    metadata = read_json(folder / KERNEL_METADATA)
    notebook = read_json(folder / metadata["code_file"])
    sources = {name: metadata.get(name) or [] for name in SOURCES}
    names = {source.rstrip("0123456789").rstrip("/") if source.count("/") == 2 else source for source in sources["dataset_sources"]}
    bundle = next((one.get("commit") for one in reversed(records) if one["kind"] == "upload" and one.get("dataset") in names), None)
    parameters = _parameters_of(notebook, "parameters")
    return {
        "code_file": Path(metadata["code_file"]).name,
        "notebook": hashlib.sha256(json.dumps(_code_of(notebook)).encode()).hexdigest()[:16],
        "parameters": parameters,
        "preset": parameters.get("preset"),
        "model": parameters.get("model"),
        "accelerator": accelerator or requested_machine(metadata) or None,
        **sources,
        "commit": commit_of(folder),
        "bundle_commit": bundle,
        "local": _local_score(run) if run else _find_dry_run(project_of(folder), notebook),
    }


def commit_of(folder: Path) -> str | None:
    """The commit of a checkout, with "+" where files differ from it; None where the folder is in none."""
    try:
        head = subprocess.run(["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=20)
        changed = subprocess.run(["git", "-C", str(folder), "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "") if head.returncode == 0 else None


def _code_of(notebook: dict[str, Any]) -> list[str]:
    """The sources of the code cells, without the parameters that papermill has put in."""
    cells = [cell for cell in notebook.get("cells", ()) if cell.get("cell_type") == "code"]
    return [source_of(cell) for cell in cells if "injected-parameters" not in cell.get("metadata", {}).get("tags", ())]


def _parameters_of(notebook: dict[str, Any], tag: str) -> dict[str, Any]:
    """The values that the cells with a tag set, as far as they are constants."""
    values: dict[str, Any] = {}
    for cell in notebook.get("cells", ()):
        if tag in cell.get("metadata", {}).get("tags", ()):
            tree = parse_cell(source_of(cell))
            for node in tree.body if tree else ():
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    try:
                        values[node.targets[0].id] = ast.literal_eval(node.value)
                    except ValueError:
                        values[node.targets[0].id] = ast.unparse(node.value)
    return {name: value for name, value in values.items() if value is not None}


def _local_score(run: Path) -> dict[str, Any]:
    """The score of a run by its report; ConfigError where there is none."""
    path = next((run / name for name in _SCORES if (run / name).is_file()), None)
    try:
        submission = read_json(path)["submission"] if path else None
        points = {name: round(100 * float(submission[name]), 2) for name in ("per_task", "per_output")} if submission else None
    except (DataError, KeyError, TypeError, ValueError):
        points = None
    if points is None or submission is None:
        raise ConfigError(f"--run {run}: no report with a score there; give the directory of a run on tasks with solutions")
    return {**points, "tasks": submission.get("tasks"), "run": run.name}


def _find_dry_run(project: Path, notebook: dict[str, Any]) -> dict[str, Any] | None:
    """The score of the newest run below runs/ that lies beside an executed notebook with the same code; None where there is none."""
    executed = sorted(project.glob("runs/*/*.ipynb"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in executed:
        try:
            other = read_json(path)
            if _code_of(other) == _code_of(notebook):
                return {**_local_score(path.parent), "given": _parameters_of(other, "injected-parameters")}
        except (DataError, ConfigError, AttributeError):
            continue  # another notebook, or a run without a score
    return None

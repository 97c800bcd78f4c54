"""A season against the server of tests/kaggle_stub.py, with the real client: prints each command and its output.

    python tests/kaggle_season.py FOLDER

Three pushes and their submissions, the leaderboard's scores, a push that cannot end, and the log of a run whose connection breaks. The
times of the table are set back by days, as the script takes seconds. Figures are the server's.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kaggle_stub import Stub, copy_kernel, serving

from arc_submit.cli import main

_SEASON = (  # days ago, preset, message, score of the dry run, of the leaderboard; the third has the second's settings
    (9, "t4x2-qwen2.5-0.5b", "the small model", 0.15, "12.08"),
    (6, "l4x4-qwen3-4b", "the large model", 0.275, "24.17"),
    (4, "l4x4-qwen3-4b", "the large model again", 0.25, "22.50"),
    (2, "l4x4-qwen2.5-1.5b", "the middle one", 0.225, "21.25"),
)


def run_command(*words: str) -> None:
    print(f"\n$ arc-submit {shlex.join(words)}", flush=True)
    code = main(words)
    sys.stdout.flush()
    print(f"(exit code {code})" if code else "", flush=True)


def set_preset(kernel: Path, preset: str) -> None:
    """Change the parameters cell as a person does, in the notebook without its script."""
    path = kernel / "notebooks" / "submission.ipynb"
    path.with_suffix(".py").unlink(missing_ok=True)
    notebook = json.loads(path.read_text())
    (cell,) = (cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", ()))
    source = "".join(cell["source"])
    cell["source"] = "\n".join(f'preset = "{preset}"' if line.startswith("preset =") else line for line in source.split("\n"))
    path.write_text(json.dumps(notebook))


def set_back(table: Path, days: int) -> None:
    """Give the records of today a time that lies days ago."""
    today = datetime.now(UTC)
    records = [json.loads(line) for line in table.read_text().splitlines()]
    for record in records:
        if today - datetime.fromisoformat(record["time"]) < timedelta(hours=1):
            record["time"] = (today - timedelta(days=days)).isoformat(timespec="seconds")
    table.write_text("".join(json.dumps(record) + "\n" for record in records))


def show_season(stub: Stub, folder: Path) -> None:
    today = datetime.now(UTC).replace(tzinfo=None)
    fields = {"id": "me/arc-submit-submission", "dataset_sources": ["me/arc-submit-wheels-kaggle", "me/arc-submit-bundle"]}
    kernel = copy_kernel(folder / "kernel", fields)
    os.chdir(kernel)
    refresh = (today + timedelta(days=4, hours=15)).isoformat(timespec="seconds")
    stub.quota = (3.0, 30.0, refresh)
    for version, (days, preset, message, local, score) in enumerate(_SEASON, 1):
        set_preset(kernel, preset)
        machine = ["--accelerator", "NvidiaTeslaT4"] if preset.startswith("t4x2") else []
        scores = kernel / "runs" / f"dry{version}" / "report" / "scores.json"
        scores.parent.mkdir(parents=True)
        scores.write_text(json.dumps({"submission": {"per_task": local, "per_output": local, "tasks": 40}}))
        run_command("kaggle", "push", "--run", f"runs/dry{version}", *machine)
        run_command("kaggle", "submit", "--version", str(version), "--message", message)
        set_back(kernel / "season.jsonl", days)
        date = (today - timedelta(days=days)).isoformat(timespec="seconds")
        entry = {
            "ref": version,
            "date": date,
            "description": message,
            "status": "COMPLETE",
            "publicScore": score,
            "fileName": "submission.json",
        }
        stub.submissions.insert(0, entry)
    run_command("kaggle", "season")
    stub.quota = (29.5, 30.0, refresh)
    now = today.isoformat(timespec="seconds")
    stub.kernels = {"me/train-base": ("RUNNING", True, now), "me/evaluate-4b": ("QUEUED", True, now)}
    run_command("kaggle", "push")
    stub.kernels = {}
    stub.states = ["RUNNING", "RUNNING", "RUNNING", "COMPLETE"]
    lines = ["installed 3 packages from 1 files\n", "40 tasks, 12 outputs done\n", "17 of 42 outputs solved\n"]
    stub.streams = [("early", lines[:1]), ("cut", lines[:2]), ("live", lines), ("whole", [*lines, "p" * 100_000, "submission.json"])]
    run_command("kaggle", "status", "--follow", "--every", "2s")


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    (target / "home").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch, serving(Stub(), patch, target / "home") as server:
        show_season(server, target)

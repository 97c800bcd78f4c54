"""The documents: links lead somewhere, lines fit 100 columns, and the formats that they describe are those of the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from arc_submit.arc.prediction import Prediction
from arc_submit.storage.task_result import TaskResult
from arc_submit.workers.supervisor import Event

ROOT = Path(__file__).parent.parent
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

# Files of the recipes that do not exist, and the one document that records names of its day.
EXAMPLES = {"docs/experiments/DATE-topic.md", "arc_submit/first/first_worker.py", "arc_submit/run/source_first.py"}
HISTORY = "docs/experiments/2026-11-20-broken-invariants.md"


def documents() -> list[str]:
    """The Markdown files of the project; without git, as in a copy, those outside hidden folders."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return listed.stdout.split()
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    return sorted(str(path) for path in found if path.parts[0] != "runs" and not any(part.startswith(".") for part in path.parts))


@pytest.mark.parametrize("name", documents())
def test_links_lead_somewhere_and_lines_fit(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for path in set(re.findall(r"\b(?:tests|benchmarks|arc_submit|docs)/[\w./-]+\.(?:py|md)\b", text)) - EXAMPLES:
        assert name == HISTORY or (ROOT / path).exists(), f"{name}: {path}"
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        assert "://" in target or (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"
    for number, line in enumerate(text.splitlines(), 1):
        assert len(line) <= 100 or line.startswith("|"), f"{name}:{number} has {len(line)} columns"


def test_every_event_and_every_key_is_described() -> None:
    kinds = get_args(get_type_hints(Event)["kind"])
    described = set(re.findall(r"`(\w+)`", ARCHITECTURE))
    assert {f"worker_{kind}" for kind in kinds if kind != "progress"} <= described
    assert set(TaskResult.__dataclass_fields__) | set(Prediction.__dataclass_fields__) <= described
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "arc_submit").rglob("*.py"))
    assert set(re.findall(r'\.event\(\s*"(\w+)"', sources)) <= described

"""What the library never does: fetch, run or unpickle anything; and what it says in one line when it ends."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "arc_submit").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "notebooks").glob("*.py")])
FORBIDDEN_IMPORTS = {
    "pickle",
    "dill",
    "cloudpickle",
    "shelve",
    "marshal",
    "requests",
    "urllib",
    "urllib3",
    "httpx",
    "socket",
    "http",
    "ftplib",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_fetched_evaluated_or_unpickled(source: Path) -> None:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_IMPORTS
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.module.split(".")[0] not in FORBIDDEN_IMPORTS
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, "a bare except"
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr if isinstance(node.func, ast.Attribute) else ""
            keywords = {k.arg: k.value for k in node.keywords}
            if isinstance(node.func, ast.Name):
                assert name not in FORBIDDEN_CALLS
            if "trust_remote_code" in keywords:
                assert is_false(keywords["trust_remote_code"]), "a model's own code would run"
            assert not is_true(keywords.get("allow_pickle")), "numpy would unpickle"
            if ast.unparse(node.func) == "AutoModelForCausalLM.from_config":
                assert "trust_remote_code" in keywords, "a model's own code may run"
            if name == "from_pretrained":
                assert is_true(keywords.get("local_files_only")), "a model would be looked for on a hub"
                own = isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) and node.func.value.id == "PeftModel"
                # Where it is not said, transformers asks at a terminal whether to run the code in a model's folder.
                assert own or "trust_remote_code" in keywords, "a model's own code may run"
            if (
                name == "load"
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "torch"
            ):
                assert is_true(keywords.get("weights_only")), "torch.load would unpickle"


def test_solutions_reach_only_metrics_and_reports() -> None:
    for source in (ROOT / "arc_submit").rglob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Name)}
        names |= {
            alias.name for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        if names & {"Solutions", "read_solutions"}:
            where = str(source.relative_to(ROOT / "arc_submit"))
            assert where in {
                "arc/task.py",
                "arc/datasets.py",
                "arc/metrics.py",
                "arc/training_sets.py",
                "report/comparison.py",
                "report/curves.py",
                "report/summary.py",
                "report/plots.py",
                "run/data.py",
                "run/recombine.py",
                "commands/score.py",
                "experiments/frame.py",
            }, f"{where} sees solutions"


def test_training_sets_which_join_outputs_to_inputs_reach_only_training() -> None:
    for source in (ROOT / "arc_submit").rglob("*.py"):
        modules = {node.module for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.ImportFrom)}
        if "arc_submit.arc.training_sets" in modules and source.name != "packed_tasks.py":
            assert source.relative_to(ROOT / "arc_submit").parts[0] == "train", source
        if "arc_submit.arc.packed_tasks" in modules:
            assert source.relative_to(ROOT / "arc_submit").parts[0] == "train", source


def is_false(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True

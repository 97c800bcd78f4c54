"""The layout of the library: which folder may import which, no cycle of imports, and what may lie at the top."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

LIBRARY = Path(__file__).parent.parent / "arc_submit"
# A folder imports from tiers below its own, and from itself. Folders of one tier do not import each other.
TIERS = (
    {"errors"},
    {"durations", "options"},
    {"arc", "workers"},
    {"storage"},
    {"language", "search", "scheduling"},
    {"base_model"},
    {"inference"},
    {"ensemble", "finetune"},
    {"programs"},
    {"report", "train"},
    {"run"},
    {"kaggle", "experiments"},
    {"commands"},
    {"cli"},
)
TIER_OF = {folder: number for number, tier in enumerate(TIERS) for folder in tier}


def name_of(path: Path) -> str:
    """The dotted name of a module, relative to the library; a package is named by its folder."""
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(LIBRARY.rglob("*.py")) if name_of(path)}


def imports_of(path: Path) -> set[str]:
    """Modules of the library that a module imports anywhere in it, in functions and for types alone too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "arc_submit":
            package = node.module.partition(".")[2]
            for alias in node.names:
                longer = f"{package}.{alias.name}".lstrip(".")
                found.add(longer if longer in MODULES else package)
    return found - {""}


def test_every_folder_has_a_tier_and_few_modules_lie_at_the_top() -> None:
    assert {name.split(".")[0] for name in MODULES} == set(TIER_OF)
    assert {path.stem for path in LIBRARY.glob("*.py")} == {"__init__", "cli", "errors", "durations", "options"}


def test_imports_run_downwards() -> None:
    for name, path in MODULES.items():
        folder = name.split(".")[0]
        for other in imports_of(path):
            target = other.split(".")[0]
            assert target == folder or TIER_OF[target] < TIER_OF[folder], f"{name} imports {other}"


def test_no_import_cycle() -> None:
    # A package's own __init__ names its modules; what imports a module of it does not import the package for that.
    TopologicalSorter({name: imports_of(path) - {name} for name, path in MODULES.items()}).prepare()


def test_workers_and_scheduling_know_no_model() -> None:
    for name, path in MODULES.items():
        if name.split(".")[0] in ("workers", "scheduling", "storage"):
            assert not {other.split(".")[0] for other in imports_of(path)} & {"language", "base_model", "inference", "finetune", "search"}

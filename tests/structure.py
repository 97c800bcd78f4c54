"""Figures of the library's structure, for comparison of two checkouts: lines, long parameter lists, who takes a run's configuration.

    python tests/structure.py [CHECKOUT ...]

Reads the source as text; runs nothing of it.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

CONFIGURATIONS = {"RunConfig", "InferConfig"}
OWN = {"self", "cls", "ctx"}  # ctx: of a torch.autograd.Function


def figures(checkout: Path) -> dict[str, object]:
    """Figures of one checkout by name."""
    library = checkout / "arc_submit"
    paths = sorted(library.rglob("*.py"))
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    long, takes = [], {}
    for path, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef):
                continue
            parameters = [one for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs) if one.arg not in OWN]
            if len(parameters) > 6:
                long.append(f"{path.relative_to(library)}:{node.name}")
            if any(one.annotation is not None and ast.unparse(one.annotation) in CONFIGURATIONS for one in parameters):
                takes[path] = takes.get(path, 0) + 1
    return {
        "lines": sum(len(text.splitlines()) for text in texts.values()),
        "modules": len(paths),
        "modules at the top": len([path for path in library.glob("*.py") if path.name != "__init__.py"]),
        "longest module": max((len(text.splitlines()), str(path.relative_to(library))) for path, text in texts.items()),
        "functions with more than six parameters": len(long),
        "functions that take a run's configuration": sum(takes.values()),
        "modules that take it": ", ".join(str(path.relative_to(library)) for path in takes),
    }


if __name__ == "__main__":
    for argument in sys.argv[1:] or ["."]:
        print(argument)
        for name, value in figures(Path(argument)).items():
            print(f"  {name}: {value}")

"""Makes notebooks from their scripts, never the other way.

notebooks/NAME.py (jupytext percent) is the source of NAME.ipynb. With jupytext's own --sync the newer file wins, so that an outdated
notebook can silently overwrite an edit, and every cell gets a new random id; here the script always wins, and ids are numbered.

    python -m arc_submit.kaggle.notebooks [--check] notebooks/*.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jupytext
import nbformat

from arc_submit.errors import ArcSubmitError, DataError


def notebook_text(script: Path) -> str:
    """The .ipynb of a script: no outputs, a kernelspec, exactly one cell tagged `parameters`.

    Raises:
        DataError: if the script has no jupytext header with a kernelspec, or not exactly one parameters cell.
    """
    try:
        notebook = jupytext.read(script, fmt="py:percent")
    except (OSError, ValueError) as error:
        raise DataError(f"{script}: not a percent script ({error})") from None
    if not notebook.metadata.get("kernelspec", {}).get("name"):
        raise DataError(f"{script}: no kernelspec in its jupytext header; papermill, and so Kaggle, cannot run it")
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise DataError(f'{script}: {len(tagged)} cells tagged "parameters", exactly one is needed')
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    for name in ("jupytext", "widgets"):
        notebook.metadata.pop(name, None)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    text: str = nbformat.writes(notebook) + "\n"  # type: ignore[no-untyped-call]
    return text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m arc_submit.kaggle.notebooks", description="Make notebooks from their scripts.")
    parser.add_argument("scripts", nargs="+", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a notebook differs from its script")
    args = parser.parse_args(arguments)
    outdated = []
    for script in args.scripts:
        notebook = script.with_suffix(".ipynb")
        try:
            text = notebook_text(script)
        except ArcSubmitError as error:
            print(error, file=sys.stderr)
            return 1
        if not notebook.exists() or notebook.read_text(encoding="utf-8") != text:
            outdated.append(notebook)
            if not args.check:
                notebook.write_text(text, encoding="utf-8")
                print(f"{notebook}: made from {script.name}")
    if args.check and outdated:
        print(f"these notebooks differ from their scripts: {', '.join(map(str, outdated))}; run make notebooks", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

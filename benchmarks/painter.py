"""The experiment with the painter over numbers of squares, seeds and ways to learn; prints the table beside the founding diary's.

    python benchmarks/painter.py --out runs/painter --squares 16,25,36 --seeds 0,1,2 --variants learning,none,many --budget 10m

Each picture is an `arc-submit paint` of its own in a folder of --out. What is solved or has used its rounds is not run again, and what was
cut short goes on, so that the same command ends what an earlier one began. --budget is of each picture in one call.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arc_submit.cli import main as arc_submit

VARIANTS = {"learning": [], "none": ["--no-learn"], "many": ["--samples", "128", "--cold-samples", "8"]}
# The founding diary: rounds, lines and tokens of a code model with 0.5 billion parameters.
DIARY = {
    16: (5, 15, 382),
    25: (8, 23, 528),
    36: (11, 29, 732),
    49: (14, 43, 1082),
    64: (21, 55, 1382),
    81: (19, 70, 1757),
    100: (28, 81, 2032),
}


def folder_of(out: Path, variant: str, squares: int, seed: int) -> Path:
    return out / f"{variant}-{squares}-{seed}"


def run(args: argparse.Namespace) -> None:
    for squares in args.squares:
        for seed in args.seeds:
            for variant in args.variants:
                folder = folder_of(args.out, variant, squares, seed)
                print(f"{variant}: {squares} squares, seed {seed}", flush=True)
                words = ["--squares", str(squares), "--seed", str(seed), "--rounds", str(args.rounds), "--budget", args.budget]
                arc_submit(["paint", *words, "--out", str(folder), *VARIANTS[variant]])


def table(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each variant and number of squares, over the seeds that were run."""
    rows = []
    for variant in args.variants:
        for squares in args.squares:
            files = [folder_of(args.out, variant, squares, seed) / "paint.json" for seed in args.seeds]
            figures = [json.loads(one.read_text()) for one in files if one.exists()]
            if figures:
                means = {
                    name: statistics.mean(one[name] for one in figures) for name in ("rounds", "lines", "tokens", "seconds", "right_cells")
                }
                rows.append(
                    {
                        "variant": variant,
                        "squares": squares,
                        "seeds": len(figures),
                        "solved": sum(one["solved"] for one in figures),
                        **means,
                    }
                )
    return rows


def numbers(text: str) -> Sequence[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--squares", type=numbers, default=list(DIARY))
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--variants", type=lambda text: text.split(","), default=list(VARIANTS))
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    run(given)
    found = table(given)
    print("| variant | squares | solved | rounds | lines | tokens | seconds | right cells | diary: rounds, lines, tokens |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in found:
        print(
            f"| {row['variant']} | {row['squares']} | {row['solved']} of {row['seeds']} | {row['rounds']:.0f} | {row['lines']:.0f} "
            f"| {row['tokens']:.0f} | {row['seconds']:.0f} | {100 * row['right_cells']:.1f} % "
            f"| {', '.join(map(str, DIARY[row['squares']]))} |"
        )
    if given.json:
        print(json.dumps(found))

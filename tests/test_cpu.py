"""How torch uses the CPU: threads and subnormal numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "arc_submit"

# In a process of its own: the setting holds for a whole process, and threads that torch has started keep what they began with.
PRODUCT = """
import torch
from arc_submit.base_model.cpu import use_cpu

use_cpu({threads})
assert torch.get_num_threads() == {threads}
small = torch.full((4_000_000,), 1e-30)
print(int((small * 1e-10).count_nonzero()), int((small * 1e-5).count_nonzero()))
"""


def test_every_thread_takes_subnormal_numbers_for_zero() -> None:
    for threads in (1, 2):
        done = subprocess.run([sys.executable, "-c", PRODUCT.format(threads=threads)], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["0", "4000000"]


def test_threads_are_set_in_one_place() -> None:
    setters = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if "set_num_threads(" in path.read_text(encoding="utf-8")]
    assert setters == [Path("base_model/cpu.py")]

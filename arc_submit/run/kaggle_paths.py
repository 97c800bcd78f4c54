"""Where Kaggle mounts the inputs of a notebook and keeps its output."""

from __future__ import annotations

import os
from pathlib import Path

# A rehearsal names another root.
KAGGLE = Path(os.environ.get("ARC_SUBMIT_KAGGLE", "/kaggle"))
KAGGLE_INPUT = KAGGLE / "input"
KAGGLE_WORKING = KAGGLE / "working"

"""Where Kaggle mounts the inputs of a notebook and keeps its output, and whether a competition re-runs the notebook."""

from __future__ import annotations

import os
from pathlib import Path

# A rehearsal names another root.
KAGGLE = Path(os.environ.get("ARC_SUBMIT_KAGGLE", "/kaggle"))
KAGGLE_INPUT = KAGGLE / "input"
KAGGLE_WORKING = KAGGLE / "working"


def is_competition_rerun() -> bool:
    """Whether this is the run that a competition scores."""
    return bool(os.environ.get("KAGGLE_IS_COMPETITION_RERUN"))

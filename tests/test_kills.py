"""A campaign of kills; tests/kills.py says what is done."""

from __future__ import annotations

from pathlib import Path

import pytest
from kills import NAMES, campaign

from arc_submit.base_model.pocket import pocket_folder


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_a_hundred_kills_of_runs_with_all_sources_cost_nothing(tmp_path: Path) -> None:
    figures = campaign(tmp_path, pocket_folder(), kills=100, seed=0, say=print)
    assert figures["kills"] == 100
    assert not any(figures[name] for name in NAMES), figures

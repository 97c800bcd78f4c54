"""The experiment with the painter: a picture of many squares, drawn by rounds of learning from hindsight.

The model has only seen drawings of 1 to 5 shapes. Does not know the command line or pictures as files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from arc_submit.arc.grid import MAX_SIDE, Grid
from arc_submit.arc.task import Task
from arc_submit.options import check_options
from arc_submit.programs.interface import WrittenProgram
from arc_submit.programs.painter.drawings import drawing_task, squares_picture
from arc_submit.programs.painter.language import PainterLanguage
from arc_submit.programs.painter.settings import PainterSettings
from arc_submit.programs.painter.training import load_network
from arc_submit.programs.painter.writer import PainterLearner, PainterWriter
from arc_submit.programs.relabel import RanProgram, run_programs
from arc_submit.programs.rounds import Outcome, Parts, RoundRecord, RoundSettings, run_rounds


def painter_folder() -> Path:
    """The painter's folder in a checkout of the project."""
    return Path(__file__).resolve().parents[3] / "models" / "painter"


@dataclass(frozen=True)
class Painting:
    """The picture to draw.

    Attributes:
        squares: how many, a square number.
        side: rows and columns of the grid.
    """

    squares: int
    side: int = MAX_SIDE

    def task(self, seed: int) -> Task:
        """The task to draw it.

        Raises:
            ConfigError: see `squares_picture`.
        """
        return drawing_task(f"squares-{self.squares}-{seed}", squares_picture(self.squares, seed, self.side))


def paint(
    painting: Painting,
    settings: tuple[RoundSettings, PainterSettings],
    model: Path,
    out: Path,
    budget: float,
    watch: Callable[[RoundRecord, Sequence[RanProgram]], None] = lambda record, ran: None,
) -> Outcome:
    """Draw a picture by rounds, or go on with the rounds of a folder.

    Args:
        model: folder of the network before the first round.
        out: folder of the rounds.
        budget: seconds of further rounds.

    Raises:
        ConfigError, DataError: see `squares_picture`, `load_network` and `run_rounds`.
    """
    rounds, own = settings
    check_options(rounds)
    check_options(own)
    begun = time.monotonic()
    task = painting.task(rounds.seed)
    network = load_network(model)
    runs = partial(run_programs, PainterLanguage(), task)
    parts = Parts(runs, PainterWriter(network, own.views), PainterLearner(network, own.rate, own.batch))
    return run_rounds(task, parts, rounds, out, lambda: budget - (time.monotonic() - begun), watch)


def drawn_picture(task: Task, record: RoundRecord) -> Grid | None:
    """The picture of a round's best program, without its view; None where the round had no valid program."""
    if record.whole < 0:
        return None
    (ran,) = run_programs(PainterLanguage(), task, [WrittenProgram(record.text, 0.0, record.view)])
    return ran.outputs[0]

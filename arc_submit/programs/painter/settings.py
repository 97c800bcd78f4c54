"""Settings of the painter, apart from its network so that a command line can show them at once. Does not know rounds."""

from __future__ import annotations

from dataclasses import dataclass

from arc_submit.options import Identity, option


@dataclass(frozen=True)
class PainterSettings:
    """How the painter writes and learns in a round."""

    views: int = option(
        16,
        help="different views of the picture among the programs of one temperature in a round; 1: the picture as it is",
        identity=Identity.SAME,
        minimum=1,
        commands=("paint",),
    )
    rate: float = option(2e-3, help="learning rate", identity=Identity.SAME, above=0.0, commands=("paint",))
    batch: int = option(4, help="relabelled tasks of a step", identity=Identity.SAME, minimum=1, commands=("paint",))

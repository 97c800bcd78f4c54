"""Writes a matplotlib figure as a PNG file. Does not know what the figure shows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from arc_submit.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_picture(figure: Figure, path: Path, dpi: int = 90) -> Path:
    """Write a PNG file at exactly this path, create its folder, and return the path.

    Raises:
        ConfigError: where no file can be written there.
    """
    from matplotlib.text import Text

    # A task's id is drawn as it is: its "$" begins no formula, and a letter that the font lacks is a box and no warning.
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
            figure.savefig(path, dpi=dpi, format="png")
    except OSError as error:
        raise ConfigError(f"{path}: no picture can be written there ({error.strerror or error}); give the name of a PNG file") from None
    return path

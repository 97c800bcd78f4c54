"""Writes a matplotlib figure as a PNG file. Does not know what the figure shows."""

from __future__ import annotations

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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi, format="png")
    except OSError as error:
        raise ConfigError(f"{path}: no picture can be written there ({error.strerror or error}); give the name of a PNG file") from None
    return path

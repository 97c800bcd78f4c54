"""Writing a figure as a PNG file, at the very path that was asked for. Knows nothing about what is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from arc_submit.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_picture(figure: Figure, path: Path, dpi: int = 90) -> Path:
    """Write a PNG file, its folder made where it is missing, and return its path. A name without an ending keeps none.

    Raises:
        ConfigError: where no file can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi, format="png")
    except OSError as error:
        raise ConfigError(f"{path}: no picture can be written there ({error.strerror or error}); give the name of a PNG file") from None
    return path

"""The errors a user is meant to read: one line that names the file, the task, the place and the remedy.

Knows nothing about tasks or models. The command line prints these without a traceback; anything else is a bug and keeps one.
"""

from __future__ import annotations

from typing import Any


class ArcSubmitError(Exception):
    """What cannot work, said in one line with the remedy.

    Attributes:
        figures: what --json prints even so, None where there is nothing to count.
    """

    def __init__(self, message: str, figures: dict[str, Any] | None = None):
        super().__init__(" ".join(message.split()))
        self.figures = figures


class DataError(ArcSubmitError):
    """A file, task or grid that is not what it should be."""


class ConfigError(ArcSubmitError):
    """An option, or a combination of options, that cannot work."""

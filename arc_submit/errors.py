"""Errors for the user: one line with the file, the task, the place and the remedy.

Does not know tasks or models. The command line prints these errors without a traceback; any other exception is a bug.
"""

from __future__ import annotations

from typing import Any


class ArcSubmitError(Exception):
    """An error that the user can remedy; its message is one line.

    Attributes:
        figures: the JSON object that --json prints in spite of the error; None for none.
        exit_code: of the command line.
    """

    exit_code = 1

    def __init__(self, message: str, figures: dict[str, Any] | None = None):
        super().__init__(" ".join(message.split()))
        self.figures = figures


class DataError(ArcSubmitError):
    """A malformed or missing file, task or grid."""


class TimeIsUpError(ArcSubmitError):
    """Work that was ended by its deadline; nothing is wrong with it."""


class ConfigError(ArcSubmitError):
    """An option, or a combination of options, that cannot work."""


class ModelRefusedError(ConfigError):
    """A model that cannot be used, as `arc-submit model check` finds it."""

    exit_code = 5

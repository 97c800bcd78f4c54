"""Predictions: one grid for one test input with its origin, stored as one JSON line.

A source appends whole lines to predictions/<source>/<task>.jsonl with a single write, so that a killed process leaves at most one
unfinished last line, which the reader skips. Does not know how a grid was found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arc_submit.arc.files import append_lines, write_text
from arc_submit.arc.grid import Grid, grid_to_lists, make_grid
from arc_submit.errors import DataError

OutputKey = tuple[str, int]  # task id and index of the test input


@dataclass(frozen=True, eq=False)
class Prediction:
    """One answer to one test input.

    Attributes:
        task: task id.
        test: index of the test input.
        grid: the answer without the view, or None where the source's answer was not a grid.
        source: the name of what gave the answer: search, frozen, ttft, or another name.
        view: key of the view; empty where the answer belongs to none.
        logprob: natural log of the probability of the whole answer, at most 0; the score of the answer for a search.
        model: name of the model or of the search's rule.
        seconds: time for the prediction, its share of a batch included.
        reason: why there is no grid; empty where there is one.
        logprobs: where an answer was scored under many views, its log-probability by the key of the view; `logprob` is their mean, and
            each grid has one prediction.
        found: where answers were searched for, the log-probability of this one by the key of each view whose search found it.
        searched: where answers were searched for, under how many views of the test input, and the fine-tuning steps of the adapter, 0
            without one. All answers to a test input have those of the last search.
        kind: the kind of the source where it has another name: search, frozen, ttft, or attempts for the attempts of a submission file,
            whose logprob is the log of the share that the place of the attempt has.
        program: text of the program that gave the answer, in the frame of the view; empty where none did.
        fits: how many of the train pairs that program reproduces, and how many there are; (0, 0) without a program.
    """

    task: str
    test: int
    grid: Grid | None
    source: str
    view: str
    logprob: float
    model: str
    seconds: float
    reason: str = ""
    logprobs: Mapping[str, float] = field(default_factory=dict)
    found: Mapping[str, float] = field(default_factory=dict)
    kind: str = ""
    program: str = ""
    fits: tuple[int, int] = (0, 0)
    searched: tuple[int, int] = (0, 0)

    @property
    def source_kind(self) -> str:
        """The kind of the source; a source without another name is its own kind."""
        return self.kind or self.source

    def to_line(self) -> str:
        """The JSON line of `to_json`, with its newline.

        Raises:
            DataError: as `to_json` does.
        """
        return json.dumps(self.to_json(), separators=(",", ":")) + "\n"

    def to_json(self) -> dict[str, Any]:
        """The JSON value that `prediction_from_json` reads back; log-probabilities have six decimals, seconds four.

        Raises:
            DataError: where a log-probability is NaN, which JSON has no word for.
        """
        if any(map(math.isnan, (self.logprob, *self.logprobs.values(), *self.found.values()))):
            raise DataError(f"task {self.task}: a prediction of {self.model} has a log-probability that is not a number (NaN)")
        value: dict[str, Any] = {
            "task": self.task,
            "test": self.test,
            "grid": None if self.grid is None else grid_to_lists(self.grid),
            "source": self.source,
            "view": self.view,
            "logprob": round(self.logprob, 6),
            "model": self.model,
            "seconds": round(self.seconds, 4),
        }
        if self.source_kind != self.source:
            value["kind"] = self.kind
        if self.reason:
            value["reason"] = self.reason
        if any(self.searched):
            value["searched"] = list(self.searched)
        if self.program:
            value |= {"program": self.program, "fits": list(self.fits)}
        for name, by_view in (("logprobs", self.logprobs), ("found", self.found)):
            if by_view:
                value[name] = {view: round(logprob, 6) for view, logprob in by_view.items()}
        return value


def prediction_from_line(line: str, where: str = "prediction") -> Prediction:
    """Read one line.

    Raises:
        DataError: naming `where`, where the line is not a prediction.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not a prediction line ({type(error).__name__}: {error})") from None
    return prediction_from_json(value, where)


def prediction_from_json(value: Any, where: str = "prediction") -> Prediction:
    """Read the JSON value of a prediction.

    Raises:
        DataError: naming `where`, where the value is not a prediction.
    """
    try:
        test, logprob = value["test"], float(value["logprob"])
        whole, pairs = map(int, value.get("fits", (0, 0)))
        views, steps = map(int, value.get("searched", (0, 0)))
        logprobs, found = ({str(view): float(one) for view, one in value.get(name, {}).items()} for name in ("logprobs", "found"))
        if type(test) is not int or test < 0 or any(map(math.isnan, (logprob, *logprobs.values(), *found.values()))):
            raise DataError(f"{where}: test {test!r:.20} and logprob {logprob} are not an index and a number")
        return Prediction(
            task=str(value["task"]),
            test=test,
            grid=None if value["grid"] is None else make_grid(value["grid"], where),
            source=str(value["source"]),
            view=str(value["view"]),
            logprob=logprob,
            model=str(value["model"]),
            seconds=float(value["seconds"]),
            reason=str(value.get("reason", "")),
            logprobs=logprobs,
            found=found,
            kind=str(value.get("kind", "")),
            program=str(value.get("program", "")),
            fits=(whole, pairs),
            searched=(views, steps),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{where}: not a prediction line ({type(error).__name__}: {error})") from None


def group_by_output(predictions: Iterable[Prediction]) -> dict[OutputKey, list[Prediction]]:
    """Predictions by (task, test input), each list in the order given."""
    groups: dict[OutputKey, list[Prediction]] = {}
    for prediction in predictions:
        groups.setdefault((prediction.task, prediction.test), []).append(prediction)
    return groups


def append_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Append predictions as whole lines, see `files.append_lines`."""
    append_lines(path, "".join(prediction.to_line() for prediction in predictions))


def replace_predictions(path: Path, test: int, predictions: Iterable[Prediction]) -> None:
    """Put predictions in the place of those of one test input, atomically; those of the other test inputs stay.

    Raises:
        DataError: as `read_predictions`.
    """
    others = [one for one in read_predictions(path)[0] if one.test != test]
    write_text(path, "".join(prediction.to_line() for prediction in (*others, *predictions)))


def read_predictions(path: Path) -> tuple[list[Prediction], list[str]]:
    """All predictions of a file (none where there is no file), and a message for each line that could not be read.

    Raises:
        DataError: where the path exists and cannot be read as a file.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    predictions, problems = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            predictions.append(prediction_from_line(line, f"{path.name}: line {number}"))
        except DataError as error:
            problems.append(str(error))
    return predictions, problems
